//! What the system's resolvers said, for as long as they said, and a bounded time longer for when they say nothing.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::time::{Duration, Instant};

/// Most answers remembered.
pub const ENTRIES_MAX: usize = 4096;
/// Most bytes of answers and questions remembered (what the tables themselves take is about a hundred bytes more for each).
pub const BYTES_MAX: usize = 4 << 20;
/// An answer is remembered at most so long, whatever it says itself: an hour. (dnsmasq and systemd-resolved 2 h, Unbound a day.)
pub const LIFETIME_MAX: Duration = Duration::from_secs(3_600);
/// That there is nothing is remembered at most so long. RFC 2308 §5 advises one to three hours; beside an application that waits
/// for a name to appear, minutes are long.
pub const NEGATIVE_LIFETIME_MAX: Duration = Duration::from_secs(300);
/// So long after its end an answer may still be given when no resolver answers. RFC 8767 §4 advises one to three days for
/// public resolvers.
pub const STALE_MAX: Duration = Duration::from_secs(3_600);
/// A stale answer is given without asking again for so long (RFC 8767 §5: at least 30 s between attempts is its advice; a sidecar
/// is near enough to its resolver to try more often).
pub const STALE_PAUSE: Duration = Duration::from_secs(5);

/// Answers by question. The caller says what a question is and how long an answer lives.
#[derive(Debug)]
pub struct Cache<V> {
    entries: BTreeMap<Arc<[u8]>, Entry<V>>,
    /// Questions by when they were last asked: the first goes first when there is no room.
    order: BTreeMap<u64, Arc<[u8]>>,
    /// Looks so far.
    turn: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    stored: Instant,
    fresh_until: Instant,
    /// It is stale, and nobody answered lately: given as it is until then.
    reused_until: Instant,
    turn: u64,
}

/// What is remembered of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<V> {
    /// An answer of this age that still holds.
    Fresh(V, Duration),
    /// An answer that has ended, but nobody answered lately.
    Reused(V),
    /// Nothing that could be given without asking.
    Nothing,
}

impl<V: Clone> Cache<V> {
    /// Remembers nothing yet.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), turn: 0, bytes: 0 }
    }

    /// What can be answered without asking.
    pub fn get(&mut self, question: &[u8], now: Instant) -> Found<V> {
        let Some((key, entry)) = self.entries.get_key_value(question) else { return Found::Nothing };
        let found = if now < entry.fresh_until {
            Found::Fresh(entry.value.clone(), now.since(entry.stored))
        } else if now < entry.reused_until {
            Found::Reused(entry.value.clone())
        } else {
            return Found::Nothing;
        };
        let (key, before) = (key.clone(), entry.turn);
        self.touch(key, before);
        found
    }

    /// Remembers an answer of so many bytes. Nothing of it is remembered when its life is nothing, or when it is larger than
    /// everything that may be.
    pub fn insert(&mut self, question: &[u8], value: V, bytes: usize, lifetime: Duration, now: Instant) {
        let bytes = bytes + question.len();
        if lifetime.is_zero() || bytes > BYTES_MAX {
            return;
        }
        self.remove(question);
        while self.entries.len() >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
            let Some(oldest) = self.order.values().next().cloned() else { break };
            self.remove(&oldest);
        }
        self.turn += 1;
        let key: Arc<[u8]> = question.into();
        self.order.insert(self.turn, key.clone());
        self.bytes += bytes;
        let fresh_until = now.after(lifetime.min(LIFETIME_MAX));
        let entry =
            Entry { value, bytes, stored: now, fresh_until, reused_until: Instant::ZERO, turn: self.turn };
        self.entries.insert(key, entry);
    }

    /// Nobody answered: what there was before, if that is not too long ago. It is then given for [`STALE_PAUSE`] without asking.
    pub fn stale(&mut self, question: &[u8], now: Instant) -> Option<V> {
        let entry = self.entries.get_mut(question)?;
        if now >= entry.fresh_until.after(STALE_MAX) {
            self.remove(question);
            return None;
        }
        entry.reused_until = now.after(STALE_PAUSE);
        Some(entry.value.clone())
    }

    /// Answers remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of answers and questions remembered.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn touch(&mut self, key: Arc<[u8]>, before: u64) {
        self.turn += 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.turn = self.turn;
        }
        self.order.remove(&before);
        self.order.insert(self.turn, key);
    }

    fn remove(&mut self, question: &[u8]) {
        if let Some(entry) = self.entries.remove(question) {
            self.order.remove(&entry.turn);
            self.bytes -= entry.bytes;
        }
    }
}

impl<V: Clone> Default for Cache<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
