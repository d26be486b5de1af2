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

/// Keys of one limit that are busy at a time, at most; the table takes 1 MiB. Each has 64 places, so that
/// some find none of their own when more than half are taken.
pub const KEYS_MAX: usize = 65_536;
/// Bytes of a header that tell keys apart; what is behind them does not. A hash over a whole head would be work that a
/// client makes for us.
pub const KEY_BYTES_MAX: usize = 256;

/// Places of one group.
const GROUP: usize = 32;
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

    /// What a request's key is known by.
    pub(super) fn key(&self, by: &[RateKey], head: &RequestHead<'_>, sender: &Sender<'_>) -> u64 {
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
        hash.finish().max(1)
    }

    /// The place of a key; `None`: there is none for it. Whoever counts there asks [`Self::is_of`] afterwards.
    pub(super) fn place(&self, key: u64, now: u64) -> Option<usize> {
        if let Some(known) = self.find(key) {
            return Some(known);
        }
        // The first free one, whoever looks: so two workers with one new key want the same place.
        let free = places(key).find(|at| self.claim(*at, key, now))?;
        // Unless a bucket has become full just between their looks: then the first of the two places is it.
        let first = self.find(key).unwrap_or(free);
        if first != free
            && let Some(place) = self.places.get(free)
        {
            // It has counted nothing yet.
            let _ = place.key.compare_exchange(key, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        Some(first)
    }

    /// True while a place is this key's. A place is free until something was counted there: between finding it and that,
    /// another key may have taken it.
    pub(super) fn is_of(&self, place: usize, key: u64) -> bool {
        self.places.get(place).is_some_and(|place| place.key.load(Ordering::SeqCst) == key)
    }

    fn find(&self, key: u64) -> Option<usize> {
        places(key).find(|at| self.is_of(*at, key))
    }

    /// Takes a place that nobody has, or whose bucket is full again.
    fn claim(&self, at: usize, key: u64, now: u64) -> bool {
        let Some(place) = self.places.get(at) else { return false };
        let before = place.key.load(Ordering::SeqCst);
        if before == key {
            return true;
        }
        if before != 0 && place.full.load(Ordering::SeqCst) > now {
            return false;
        }
        if let Err(found) = place.key.compare_exchange(before, key, Ordering::SeqCst, Ordering::SeqCst) {
            return found == key;
        }
        // Whoever had it may have counted something meanwhile. It asks whose the place is after that, as this looks at the
        // bucket after taking the place: one of the two sees the other.
        if place.full.load(Ordering::SeqCst) <= now {
            return true;
        }
        let _ = place.key.compare_exchange(key, before, Ordering::SeqCst, Ordering::Relaxed);
        false
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

/// The places that a key may have, in the order in which they are looked at.
fn places(key: u64) -> impl Iterator<Item = usize> {
    let groups = [(key as u32) as usize % GROUPS, (key >> 32) as usize % GROUPS];
    groups.into_iter().flat_map(|group| group * GROUP..(group + 1) * GROUP)
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
        let place = keys.place(7, 0).unwrap();
        keys.full(place).unwrap().store(100, Ordering::Relaxed);
        assert_eq!(keys.place(7, 50), Some(place));
        // Every other key that may be there goes elsewhere while it is busy.
        let rival = 7 + GROUPS as u64;
        assert_ne!(keys.place(rival, 50), Some(place));
        let late = 7 + 2 * GROUPS as u64;
        assert_eq!(keys.place(late, 100), Some(place), "at 100 it is as good as new");
        keys.full(place).unwrap().store(200, Ordering::Relaxed);
        assert_ne!(keys.place(7, 100), Some(place));
    }

    #[test]
    fn a_table_that_is_full_says_so_and_takes_no_busy_place() {
        let keys = Keys::new(1);
        let mut rng = crate::rng::Rng::new(3);
        let mut placed = 0;
        let mut first_refused = None;
        for n in 0..2 * KEYS_MAX {
            match keys.place(rng.next_u64(), 0) {
                Some(place) => {
                    let before = keys.full(place).unwrap().swap(1000, Ordering::Relaxed);
                    assert_eq!(before, 0, "nobody was there");
                    placed += 1;
                }
                None => first_refused = first_refused.or(Some(n)),
            }
        }
        assert!(placed <= KEYS_MAX && placed > KEYS_MAX * 95 / 100, "{placed} of {KEYS_MAX} places used");
        assert!(first_refused.unwrap() > KEYS_MAX / 2, "{first_refused:?}");
        // A time later all of them may go.
        assert!(keys.place(rng.next_u64(), 1000).is_some());
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
