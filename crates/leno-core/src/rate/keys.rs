//! Buckets by key, in a table of fixed size that all workers share without a lock.
//!
//! A key is known by 64 bits of a keyed hash, and has two groups of places where it can be. A place whose bucket is full
//! again says no more about its key than no place at all, so that it is free for the next one: nothing has to be swept. When
//! none of a key's places is free, as many keys are busy as the table takes: those that come then are counted together, as
//! one key. Nobody passes uncounted.

use alloc::boxed::Box;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::Sender;
use crate::head::RequestHead;
use crate::spec::RateKey;

/// Keys of one limit that are busy at a time, at most; the table takes 1 MiB. Each has 16 places, so that
/// some find none of their own when more than three quarters are taken.
pub const KEYS_MAX: usize = 65_536;
/// Bytes of a header that tell keys apart; what is behind them does not. A hash over a whole head would be work that a
/// client makes for us.
pub const KEY_BYTES_MAX: usize = 256;

/// Places of one group: two cache lines.
const GROUP: usize = 8;
const GROUPS: usize = KEYS_MAX / GROUP;

/// The table.
#[derive(Debug)]
pub(super) struct Keys {
    seed: (u64, u64),
    places: Box<[Place]>,
}

#[derive(Debug, Default)]
struct Place {
    /// Whose it is; 0: nobody's.
    key: AtomicU64,
    /// When its bucket is full again.
    full: AtomicU64,
}

impl Keys {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = crate::rng::Rng::new(seed);
        let seed = (rng.next_u64(), rng.next_u64());
        Self { seed, places: (0..KEYS_MAX).map(|_| Place::default()).collect() }
    }

    /// The place of a request's key; `None`: there is none for it.
    pub(super) fn place(
        &self,
        by: &[RateKey],
        head: &RequestHead<'_>,
        sender: &Sender<'_>,
        now: u64,
    ) -> Option<usize> {
        let mut hash = Sip::new(self.seed);
        for part in by {
            match part {
                RateKey::Caller => hash.part(sender.caller.as_bytes()),
                RateKey::Client => match sender.client.to_canonical() {
                    IpAddr::V4(address) => hash.part(&address.octets()),
                    IpAddr::V6(address) => hash.part(&address.octets()),
                },
                RateKey::Header(name) => {
                    let value = head.fields.get_named(name.as_bytes()).unwrap_or(b"");
                    hash.part(value.get(..KEY_BYTES_MAX).unwrap_or(value));
                }
            }
        }
        self.place_of(hash.finish().max(1), now)
    }

    fn place_of(&self, key: u64, now: u64) -> Option<usize> {
        if let Some(known) = self.find(key) {
            return Some(known);
        }
        // A free place of the group that has more of them: so groups fill evenly, and the table nearly whole. Another worker
        // may take it for another key, or for the same one.
        let [first, second] = groups(key);
        let free = |group: usize| of(group).filter(|at| self.is_free(*at, now)).count();
        let order = if free(second) > free(first) { [second, first] } else { [first, second] };
        let free = order.into_iter().flat_map(of).find(|at| self.claim(*at, key, now))?;
        // Two workers that saw different times may have found two places for one key: the first one is it.
        let first = self.find(key).unwrap_or(free);
        if first != free
            && let Some(place) = self.places.get(free)
        {
            // It has counted nothing yet.
            let _ = place.key.compare_exchange(key, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        Some(first)
    }

    fn find(&self, key: u64) -> Option<usize> {
        let mut places = groups(key).into_iter().flat_map(of);
        places.find(|at| self.places.get(*at).is_some_and(|place| place.key.load(Ordering::SeqCst) == key))
    }

    fn is_free(&self, at: usize, now: u64) -> bool {
        let free = |place: &Place| {
            place.key.load(Ordering::Relaxed) == 0 || place.full.load(Ordering::Relaxed) <= now
        };
        self.places.get(at).is_some_and(free)
    }

    /// Takes a place that nobody has, or whose bucket is full again.
    fn claim(&self, at: usize, key: u64, now: u64) -> bool {
        let Some(place) = self.places.get(at) else { return false };
        let before = place.key.load(Ordering::SeqCst);
        if before == key {
            return true;
        }
        (before == 0 || place.full.load(Ordering::Relaxed) <= now)
            && (place.key.compare_exchange(before, key, Ordering::SeqCst, Ordering::SeqCst))
                .map_or_else(|found| found == key, |_| true)
    }

    /// The bucket of a place.
    pub(super) fn full(&self, place: usize) -> Option<&AtomicU64> {
        self.places.get(place).map(|place| &place.full)
    }

    /// Goes over the buckets of all keys.
    pub(super) fn each(&self, mut change: impl FnMut(&AtomicU64)) {
        for place in self.places.iter().filter(|place| place.key.load(Ordering::Relaxed) != 0) {
            change(&place.full);
        }
    }
}

/// The groups in which a key may be.
const fn groups(key: u64) -> [usize; 2] {
    [(key as u32) as usize % GROUPS, (key >> 32) as usize % GROUPS]
}

/// The places of a group.
const fn of(group: usize) -> core::ops::Range<usize> {
    group * GROUP..(group + 1) * GROUP
}

/// SipHash-1-3 (Aumasson and Bernstein) over parts, each with its length: keys come from clients, who must not be able to
/// choose which of them share a place.
struct Sip {
    v: [u64; 4],
}

impl Sip {
    const fn new((a, b): (u64, u64)) -> Self {
        Self {
            v: [
                a ^ 0x736f_6d65_7073_6575,
                b ^ 0x646f_7261_6e64_6f6d,
                a ^ 0x6c79_6765_6e65_7261,
                b ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut whole = [0; 8];
            whole.copy_from_slice(word);
            self.word(u64::from_le_bytes(whole));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    const fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
    }

    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    fn finish(mut self) -> u64 {
        self.v[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_place_until_its_bucket_is_full_again() {
        let keys = Keys::new(1);
        let place = keys.place_of(7, 0).unwrap();
        keys.full(place).unwrap().store(100, Ordering::Relaxed);
        assert_eq!(keys.place_of(7, 50), Some(place));
        // Every other key that may be there goes elsewhere while it is busy.
        let rival = 7 + GROUPS as u64;
        assert_ne!(keys.place_of(rival, 50), Some(place));
        let late = 7 + 2 * GROUPS as u64;
        assert_eq!(keys.place_of(late, 100), Some(place), "at 100 it is as good as new");
        keys.full(place).unwrap().store(200, Ordering::Relaxed);
        assert_ne!(keys.place_of(7, 100), Some(place));
    }

    #[test]
    fn a_table_that_is_full_says_so_and_takes_no_busy_place() {
        let keys = Keys::new(1);
        let mut rng = crate::rng::Rng::new(3);
        let mut placed = 0;
        let mut first_refused = None;
        for n in 0..2 * KEYS_MAX {
            match keys.place_of(rng.next_u64(), 0) {
                Some(place) => {
                    let before = keys.full(place).unwrap().swap(1000, Ordering::Relaxed);
                    assert_eq!(before, 0, "nobody was there");
                    placed += 1;
                }
                None => first_refused = first_refused.or(Some(n)),
            }
        }
        assert!(placed <= KEYS_MAX && placed > KEYS_MAX * 95 / 100, "{placed} of {KEYS_MAX} places used");
        assert!(first_refused.unwrap() > KEYS_MAX * 3 / 4, "{first_refused:?}");
        // A time later all of them may go.
        assert!(keys.place_of(rng.next_u64(), 1000).is_some());
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let of = |parts: &[&[u8]]| {
            let mut sip = Sip::new((1, 2));
            parts.iter().for_each(|part| sip.part(part));
            sip.finish()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"", b"a"]), of(&[b"a", b""]));
        assert_ne!(of(&[b"a"]), of(&[b"a\0"]));
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    }
}
