//! The proxy's end of the stream.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::{Answer, Offer, Request, Response, slot};
use crate::index::{Key, Kind, Version};
use crate::name::ServiceId;

/// A proxy's subscriptions and what it holds of them; outlives streams. After each of [`Client::connected`],
/// [`Client::want`], [`Client::unwant`] and [`Client::receive`]: send what [`Client::poll`] gives until it is empty.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// One part per kind.
    sides: [Side; 4],
    /// The newest generation heard of.
    generation: u64,
    /// A stream is open.
    connected: bool,
}

/// What concerns one kind.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Wanted names and what is known of them.
    names: BTreeMap<ServiceId, Holding>,
    /// Wanted names that this stream was not yet asked for; a part of `names`.
    subscribe: BTreeSet<ServiceId>,
    /// Names that this stream was asked for and that are wanted no more.
    unsubscribe: BTreeSet<ServiceId>,
    /// Answers to send. The control plane waits for one before it sends the next response, so that there is at most
    /// one unless it misbehaves; then the oldest are dropped (see `ANSWERS_MAX`).
    answers: VecDeque<Answer>,
    /// The first request of this kind was sent on this stream.
    opened: bool,
}

/// What is known of a wanted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// Nothing was heard.
    Unknown,
    /// It does not exist.
    Absent,
    /// This version is in use.
    Version(Version),
}

/// What a response changed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accepted, and now in use.
    pub updated: Vec<Key>,
    /// They do not exist; only those of which something else was known.
    pub removed: Vec<Key>,
    /// Refused, with reasons; what was held before stays in use.
    pub rejected: Vec<(Key, String)>,
}

impl Client {
    /// Wants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to be told about `key` from now on; false if that was so already.
    pub fn want(&mut self, key: Key) -> bool {
        let side = &mut self.sides[slot(key.kind)];
        if side.names.contains_key(&key.id) {
            return false;
        }
        side.names.insert(key.id.clone(), Holding::Unknown);
        // To subscribe anew says it all.
        side.unsubscribe.remove(&key.id);
        side.subscribe.insert(key.id);
        true
    }

    /// Asks not to be told about `key` any more and forgets what is held of it; false if it was not wanted.
    pub fn unwant(&mut self, key: &Key) -> bool {
        let side = &mut self.sides[slot(key.kind)];
        if side.names.remove(&key.id).is_none() {
            return false;
        }
        side.subscribe.remove(&key.id);
        // Also when it was not yet subscribed to on this stream, it may have been before: saying it once too often
        // does no harm.
        side.unsubscribe.insert(key.id.clone());
        true
    }

    /// Takes in that `key` is held in `version` without having been told on a stream: from a snapshot on disk.
    pub fn restore(&mut self, key: Key, version: Version) {
        self.want(key.clone());
        self.sides[slot(key.kind)].names.insert(key.id, Holding::Version(version));
    }

    /// A new stream is open: everything wanted is asked for anew, with the versions held.
    pub fn connected(&mut self) {
        self.connected = true;
        for side in &mut self.sides {
            side.subscribe = side.names.keys().cloned().collect();
            side.unsubscribe.clear();
            side.answers.clear();
            side.opened = false;
        }
    }

    /// The stream is gone. Nothing that is held changes.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The next request to send on the open stream, if there is one.
    pub fn poll(&mut self) -> Option<Request> {
        if !self.connected {
            return None;
        }
        Kind::ALL.into_iter().find_map(|kind| self.sides[slot(kind)].compose(kind))
    }

    /// Takes a response in. `accept` is asked for each offered resource that is wanted and not already held: `Ok` puts
    /// it in use, `Err` refuses it with a reason.
    pub fn receive<T>(
        &mut self,
        response: Response<T>,
        mut accept: impl FnMut(&Key, T) -> Result<(), String>,
    ) -> Changes {
        let Response { kind, nonce, generation, resources, removed } = response;
        let side = &mut self.sides[slot(kind)];
        let mut changes = Changes::default();
        for Offer { id, version, content } in resources {
            let Some(holding) = side.names.get_mut(&id) else { continue };
            if *holding == Holding::Version(version) {
                continue;
            }
            let key = Key::new(kind, id);
            match accept(&key, content) {
                Ok(()) => {
                    *holding = Holding::Version(version);
                    changes.updated.push(key);
                }
                Err(reason) => changes.rejected.push((key, reason)),
            }
        }
        for id in removed {
            let Some(holding) = side.names.get_mut(&id) else { continue };
            if core::mem::replace(holding, Holding::Absent) != Holding::Absent {
                changes.removed.push(Key::new(kind, id));
            }
        }
        let rejected =
            changes.rejected.iter().map(|(key, reason)| (key.id.clone(), reason.clone())).collect();
        if side.answers.len() == ANSWERS_MAX {
            side.answers.pop_front();
        }
        side.answers.push_back(Answer { nonce, rejected, rejects_all: None });
        self.generation = self.generation.max(generation);
        changes
    }

    /// The newest generation heard of.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The version of `key` in use.
    pub fn version(&self, key: &Key) -> Option<Version> {
        match self.sides[slot(key.kind)].names.get(&key.id) {
            Some(Holding::Version(version)) => Some(*version),
            Some(Holding::Unknown | Holding::Absent) | None => None,
        }
    }

    /// Whether anything was heard about `key`: that it is there, or that it is not.
    pub fn is_known(&self, key: &Key) -> bool {
        self.sides[slot(key.kind)].names.get(&key.id).is_some_and(|holding| *holding != Holding::Unknown)
    }

    /// Whether `key` is known not to exist.
    pub fn is_absent(&self, key: &Key) -> bool {
        self.sides[slot(key.kind)].names.get(&key.id) == Some(&Holding::Absent)
    }

    /// Everything wanted, in order.
    pub fn wanted(&self) -> impl Iterator<Item = Key> {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| self.sides[slot(kind)].names.keys().map(move |id| Key::new(kind, id.clone())))
    }
}

impl Side {
    /// The next request of this kind.
    fn compose(&mut self, kind: Kind) -> Option<Request> {
        if self.subscribe.is_empty() && self.unsubscribe.is_empty() && self.answers.is_empty() {
            return None;
        }
        let subscribe: Vec<ServiceId> = core::mem::take(&mut self.subscribe).into_iter().collect();
        let unsubscribe: Vec<ServiceId> = core::mem::take(&mut self.unsubscribe).into_iter().collect();
        let mut held = BTreeMap::new();
        if !self.opened {
            for id in &subscribe {
                if let Some(Holding::Version(version)) = self.names.get(id) {
                    held.insert(id.clone(), *version);
                }
            }
        }
        let answer = self.answers.pop_front();
        self.opened = true;
        Some(Request { kind, subscribe, unsubscribe, held, answer })
    }
}

/// Most answers kept per kind; a control plane that keeps to the protocol causes one.
const ANSWERS_MAX: usize = 16;
