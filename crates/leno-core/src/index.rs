//! What the mesh knows and who must learn it: apply, delete and reset of resources -> the subscribers to wake, and
//! for each the resources to look at again.
//!
//! The index publishes only real changes: content with the version that it already has touches nobody and moves no
//! generation. It keeps no queue of updates: a subscriber's dirty set names resources, not their contents, so it is
//! never larger than its subscriptions however slow it is, and it always learns the newest state.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use crate::name::{Label, ServiceId};

/// What a resource of the control stream describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What may leave the mesh: one resource, [`Key::egress`]. First in order: nothing leaves before it is known.
    Egress,
    /// Where a service can be reached. Before services: a proxy that hears of endpoints before it hears of the rule
    /// that sends requests to them has no moment without any (make before break).
    Endpoints,
    /// A service as declared.
    Service,
    /// A gateway as declared.
    Gateway,
}

/// The name of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it describes.
    pub kind: Kind,
    /// Whose.
    pub id: ServiceId,
}

/// The content of a resource, told apart: equal versions mean equal content, over restarts of the control plane
/// too. The shell makes it from a digest of the encoded content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

/// One stream that is told of changes; the shell numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

/// Every resource and every subscription.
#[derive(Clone, Debug)]
pub struct Index<T> {
    /// The newest content of everything that exists.
    resources: BTreeMap<Key, Entry<T>>,
    /// Who subscribed to what, by subscriber.
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    /// The same by resource, whether it exists or not; no empty sets.
    interested: BTreeMap<Key, BTreeSet<SubscriberId>>,
    /// Grows by one with every real change.
    generation: u64,
}

/// A resource that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Tells this content from any other.
    pub version: Version,
    /// What is sent.
    pub content: T,
}

/// One subscriber's part of the index.
#[derive(Clone, Debug, Default)]
struct Subscriber {
    /// What it subscribed to.
    wants: BTreeSet<Key>,
    /// What changed since it last looked; a part of `wants`.
    dirty: BTreeSet<Key>,
}

impl<T> Index<T> {
    /// An empty index whose first change makes generation `generation + 1`.
    pub const fn new(generation: u64) -> Self {
        Self {
            resources: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            interested: BTreeMap::new(),
            generation,
        }
    }

    /// Sets the content of `key`; true if that changed anything. Subscribers to wake are added to `touched`.
    pub fn apply(
        &mut self,
        key: Key,
        version: Version,
        content: T,
        touched: &mut BTreeSet<SubscriberId>,
    ) -> bool {
        if self.resources.get(&key).is_some_and(|entry| entry.version == version) {
            return false;
        }
        self.touch(&key, touched);
        self.resources.insert(key, Entry { version, content });
        true
    }

    /// Removes `key`; true if it was there. Subscribers to wake are added to `touched`.
    pub fn delete(&mut self, key: &Key, touched: &mut BTreeSet<SubscriberId>) -> bool {
        if self.resources.remove(key).is_none() {
            return false;
        }
        self.touch(key, touched);
        true
    }

    /// Makes `all` the resources of `kind`: applies each, deletes those of `kind` that are not among them. Returns
    /// the number of real changes.
    pub fn reset(
        &mut self,
        kind: Kind,
        all: impl IntoIterator<Item = (ServiceId, Version, T)>,
        touched: &mut BTreeSet<SubscriberId>,
    ) -> usize {
        let mut gone: BTreeSet<ServiceId> =
            self.resources.keys().filter(|key| key.kind == kind).map(|key| key.id.clone()).collect();
        let mut changes = 0;
        for (id, version, content) in all {
            gone.remove(&id);
            changes += usize::from(self.apply(Key::new(kind, id), version, content, touched));
        }
        for id in gone {
            changes += usize::from(self.delete(&Key::new(kind, id), touched));
        }
        changes
    }

    /// The resource, if it exists.
    pub fn get(&self, key: &Key) -> Option<&Entry<T>> {
        self.resources.get(key)
    }

    /// The number of the last change.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// From now on `subscriber` is told of changes of `key`, whether it exists or not. The caller bounds how many
    /// (see `session::SUBSCRIPTIONS_MAX`).
    pub fn subscribe(&mut self, subscriber: SubscriberId, key: Key) {
        self.interested.entry(key.clone()).or_default().insert(subscriber);
        self.subscribers.entry(subscriber).or_default().wants.insert(key);
    }

    /// From now on `subscriber` is not told of changes of `key`.
    pub fn unsubscribe(&mut self, subscriber: SubscriberId, key: &Key) {
        if let Some(state) = self.subscribers.get_mut(&subscriber) {
            state.wants.remove(key);
            state.dirty.remove(key);
        }
        self.forget(subscriber, key);
    }

    /// Ends every subscription of `subscriber`.
    pub fn leave(&mut self, subscriber: SubscriberId) {
        if let Some(state) = self.subscribers.remove(&subscriber) {
            for key in state.wants {
                self.forget(subscriber, &key);
            }
        }
    }

    /// What changed for `subscriber` since it last asked.
    pub fn take_dirty(&mut self, subscriber: SubscriberId) -> BTreeSet<Key> {
        self.subscribers
            .get_mut(&subscriber)
            .map(|state| core::mem::take(&mut state.dirty))
            .unwrap_or_default()
    }

    /// Whether something changed for `subscriber` since it last asked.
    pub fn is_dirty(&self, subscriber: SubscriberId) -> bool {
        self.subscribers.get(&subscriber).is_some_and(|state| !state.dirty.is_empty())
    }

    /// Who subscribed to `key`, in order.
    pub fn subscribers_of(&self, key: &Key) -> Vec<SubscriberId> {
        self.interested.get(key).map(|set| set.iter().copied().collect()).unwrap_or_default()
    }

    /// Counts a change of `key` and marks it for everybody who subscribed.
    fn touch(&mut self, key: &Key, touched: &mut BTreeSet<SubscriberId>) {
        self.generation += 1;
        for subscriber in self.interested.get(key).into_iter().flatten() {
            if let Some(state) = self.subscribers.get_mut(subscriber) {
                state.dirty.insert(key.clone());
                touched.insert(*subscriber);
            }
        }
    }

    /// Removes one entry of `interested`.
    fn forget(&mut self, subscriber: SubscriberId, key: &Key) {
        if let Some(set) = self.interested.get_mut(key) {
            set.remove(&subscriber);
            if set.is_empty() {
                self.interested.remove(key);
            }
        }
    }
}

impl Kind {
    /// Every kind, in the order in which they are sent.
    pub const ALL: [Self; 4] = [Self::Egress, Self::Endpoints, Self::Service, Self::Gateway];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Endpoints => "endpoints",
            Self::Service => "service",
            Self::Gateway => "gateway",
        })
    }
}

impl Key {
    /// The resource of `kind` for `id`.
    pub const fn new(kind: Kind, id: ServiceId) -> Self {
        Self { kind, id }
    }

    /// What may leave the mesh, for every proxy of it.
    pub fn egress() -> Self {
        let label = |text| Label::parse(text).expect("a constant that is a label");
        Self::new(Kind::Egress, ServiceId::new(label("leno"), label("egress")))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

impl Version {
    /// Parses what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

/// 32 hexadecimal digits, as sent.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
