//! The control plane's end of one stream.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{
    ANSWER_WITHIN, Offer, REASON_BYTES_MAX, RESPONSE_BYTES_TARGET, Request, Response, SUBSCRIPTIONS_MAX, slot,
};
use crate::index::{Index, Key, Kind, SubscriberId, Version};
use crate::name::ServiceId;
use crate::time::Instant;

/// One proxy's stream, as the control plane sees it. For each wake-up: [`Server::receive`] what came,
/// [`Server::look`] at the index, then [`Server::poll`] until it is empty.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its number in the index.
    subscriber: SubscriberId,
    /// One part per kind.
    sides: [Side; 4],
    /// Of the last response, on this stream.
    nonce: u64,
}

/// What concerns one kind.
#[derive(Clone, Debug)]
struct Side {
    /// Subscribed names and what the proxy was last told, or said that it holds; `None`: nothing yet.
    names: BTreeMap<ServiceId, Option<Told>>,
    /// Names whose state may differ from what was told; a part of `names`.
    dirty: BTreeSet<ServiceId>,
    /// The response that is not yet answered.
    in_flight: Option<InFlight>,
    /// Nothing was subscribed to so far.
    nothing_yet: bool,
    /// True from the first subscription until a response was sent: the first response is sent even when it is empty,
    /// so that a proxy that resumes learns that it is up to date.
    greet: bool,
    /// Up to this generation the proxy knows everything that it subscribed to.
    acknowledged: u64,
    /// What the proxy refused, and still is the newest.
    rejected: BTreeMap<ServiceId, String>,
}

/// What a proxy was told about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// That it does not exist.
    Absent,
    /// This content.
    Content(Version),
}

/// A response on its way.
#[derive(Clone, Debug)]
struct InFlight {
    /// Its number.
    nonce: u64,
    /// When it was sent.
    sent: Instant,
    /// The generation that is acknowledged with it; `None` when more of that generation had to wait.
    completes: Option<u64>,
    /// What it offered; an answer can refuse only these.
    offered: BTreeSet<ServiceId>,
}

/// What a request said, for the shell's log and status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// A response was answered.
    pub answered: bool,
    /// Resources that the proxy refused, with its reasons.
    pub rejected: Vec<(Key, String)>,
}

/// A request after which the stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More than [`SUBSCRIPTIONS_MAX`] names.
    TooManySubscriptions,
}

impl Server {
    /// A fresh stream, known to the index as `subscriber`.
    pub const fn new(subscriber: SubscriberId) -> Self {
        Self { subscriber, sides: [const { Side::new() }; 4], nonce: 0 }
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// When it asks for more than a stream may have; the stream must end.
    pub fn receive<T>(&mut self, request: Request, index: &mut Index<T>) -> Result<Received, Refusal> {
        let kind = request.kind;
        let mut received = Received::default();
        let side = &mut self.sides[slot(kind)];
        if let Some(answer) = request.answer {
            // An answer to anything but the response under way is outdated or made up, and says nothing.
            if let Some(sent) = side.in_flight.take_if(|sent| sent.nonce == answer.nonce) {
                received.answered = true;
                let all = answer.rejects_all.iter();
                let all = all.flat_map(|reason| sent.offered.iter().map(|id| (id.clone(), reason.clone())));
                for (id, mut reason) in all.chain(answer.rejected) {
                    if sent.offered.contains(&id) && side.names.contains_key(&id) {
                        truncate(&mut reason);
                        side.rejected.insert(id.clone(), reason.clone());
                        received.rejected.push((Key::new(kind, id), reason));
                    }
                }
                side.acknowledged = sent.completes.unwrap_or(side.acknowledged);
            }
        }
        for id in request.unsubscribe {
            side.names.remove(&id);
            side.dirty.remove(&id);
            side.rejected.remove(&id);
            index.unsubscribe(self.subscriber, &Key::new(kind, id));
        }
        side.greet |= side.nothing_yet && !request.subscribe.is_empty();
        for id in request.subscribe {
            side.nothing_yet = false;
            // Subscribing again to a name means: tell me again.
            let held = request.held.get(&id).copied().map(Told::Content);
            side.names.insert(id.clone(), held);
            side.dirty.insert(id.clone());
            index.subscribe(self.subscriber, Key::new(kind, id));
        }
        if self.subscriptions() > SUBSCRIPTIONS_MAX {
            return Err(Refusal::TooManySubscriptions);
        }
        Ok(received)
    }

    /// Takes in what changed in the index.
    pub fn look<T>(&mut self, index: &mut Index<T>) {
        for key in index.take_dirty(self.subscriber) {
            let side = &mut self.sides[slot(key.kind)];
            if side.names.contains_key(&key.id) {
                side.dirty.insert(key.id);
            }
        }
    }

    /// The next response to send, if there is one.
    pub fn poll<T: Clone + AsRef<[u8]>>(&mut self, index: &Index<T>, now: Instant) -> Option<Response<T>> {
        Kind::ALL.into_iter().find_map(|kind| {
            let nonce = self.nonce + 1;
            let response = self.sides[slot(kind)].compose(kind, nonce, index, now)?;
            self.nonce = nonce;
            Some(response)
        })
    }

    /// When the stream must end because a response was not answered.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sides
            .iter()
            .filter_map(|side| side.in_flight.as_ref())
            .map(|sent| sent.sent.after(ANSWER_WITHIN))
            .min()
    }

    /// Up to this generation the proxy has acknowledged everything that it subscribed to; `generation` is the
    /// index's.
    pub fn acknowledged(&self, generation: u64) -> u64 {
        let subscribed = self.sides.iter().filter(|side| !side.names.is_empty());
        subscribed
            .map(|side| if side.is_settled() { generation } else { side.acknowledged })
            .min()
            .unwrap_or(generation)
    }

    /// Whether the proxy was told everything and has answered it all.
    pub fn is_settled(&self) -> bool {
        self.sides.iter().all(Side::is_settled)
    }

    /// What the proxy refused and was not offered anew since, in order.
    pub fn rejected(&self) -> impl Iterator<Item = (Key, &str)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let refused = self.sides[slot(kind)].rejected.iter();
            refused.map(move |(id, reason)| (Key::new(kind, id.clone()), reason.as_str()))
        })
    }

    /// How many names it subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.sides.iter().map(|side| side.names.len()).sum()
    }
}

impl Side {
    /// Nothing subscribed to.
    const fn new() -> Self {
        Self {
            names: BTreeMap::new(),
            dirty: BTreeSet::new(),
            in_flight: None,
            nothing_yet: true,
            greet: false,
            acknowledged: 0,
            rejected: BTreeMap::new(),
        }
    }

    /// Nothing to tell and nothing unanswered.
    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.in_flight.is_none() && !self.greet
    }

    /// The next response of this kind, from the names that differ from what was told.
    fn compose<T: Clone + AsRef<[u8]>>(
        &mut self,
        kind: Kind,
        nonce: u64,
        index: &Index<T>,
        now: Instant,
    ) -> Option<Response<T>> {
        if self.in_flight.is_some() {
            return None;
        }
        let mut response = Response {
            kind,
            nonce,
            generation: index.generation(),
            resources: Vec::new(),
            removed: Vec::new(),
        };
        let mut bytes = 0;
        while bytes < RESPONSE_BYTES_TARGET {
            let Some(id) = self.dirty.pop_first() else { break };
            let entry = index.get(&Key::new(kind, id.clone()));
            let current = entry.map_or(Told::Absent, |entry| Told::Content(entry.version));
            let told = self.names.insert(id.clone(), Some(current));
            if told == Some(Some(current)) {
                continue;
            }
            self.rejected.remove(&id);
            match entry {
                None => response.removed.push(id),
                Some(entry) => {
                    bytes += entry.content.as_ref().len();
                    let (version, content) = (entry.version, entry.content.clone());
                    response.resources.push(Offer { id, version, content });
                }
            }
        }
        if response.resources.is_empty() && response.removed.is_empty() && !self.greet {
            return None;
        }
        self.greet = false;
        self.in_flight = Some(InFlight {
            nonce,
            sent: now,
            completes: self.dirty.is_empty().then_some(response.generation),
            offered: response.resources.iter().map(|offer| offer.id.clone()).collect(),
        });
        Some(response)
    }
}

/// Cuts `reason` to what is kept.
fn truncate(reason: &mut String) {
    let mut end = REASON_BYTES_MAX.min(reason.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManySubscriptions => {
                write!(f, "a stream subscribes to at most {SUBSCRIPTIONS_MAX} names")
            }
        }
    }
}

impl core::error::Error for Refusal {}
