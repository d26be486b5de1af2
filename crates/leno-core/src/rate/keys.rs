//! Buckets by key, in a table of fixed size that all workers share. Keys that are known take no lock.
//!
//! A key is known by 64 bits of a keyed hash, and has two groups of places where it can be. A place whose bucket is full
//! again says no more about its key than no place at all, so that it is free for the next one: nothing has to be swept. When
//! none of a key's places is free, as many keys are busy as the table takes: those that come then are counted together, as
//! one key. Nobody passes uncounted.

use alloc::boxed::Box;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Answer, Pace, Sender};
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
/// The key of a place that is just being taken.
const TAKEN: u64 = u64::MAX;
/// How often a key is looked for that loses its place before it has counted anything.
const TRIES: usize = 8;
/// How often somebody looks whether it may look for a place: about a millisecond.
const SPINS_MAX: usize = 20_000;
const GROUPS: usize = KEYS_MAX / GROUP;

/// The table.
#[derive(Debug)]
pub(super) struct Keys {
    seed: (u64, u64),
    places: Box<[Place]>,
    /// A worker is looking for a free place.
    taking: AtomicBool,
    /// When a bucket is full that nobody has touched: later than now when the share has just grown, since what comes in from
    /// then on is more, and not what was there.
    floor: AtomicU64,
}

/// Nobody else is looking for a place.
struct Taking<'k>(&'k AtomicBool);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
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
        Self {
            seed,
            places: (0..KEYS_MAX).map(|_| Place::default()).collect(),
            taking: AtomicBool::new(false),
            floor: AtomicU64::new(0),
        }
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
        hash.finish().clamp(1, TAKEN - 1)
    }

    /// Counts a request of `key`, and says at which place; `None`: there is none for it.
    ///
    /// Who finds its key counts there, and looks afterwards whether the place is still its own. Who has none takes a free one, one
    /// worker at a time, and looks at its bucket again when it is taken: of two that mean the same place one sees the other.
    pub(super) fn count(&self, key: u64, pace: Pace, now: u64) -> Option<(Answer, usize)> {
        for _ in 0..TRIES {
            let Some(at) = self.find(key) else {
                let _taking = self.lock()?;
                if self.find(key).is_some() {
                    continue;
                }
                let (at, place) = places(key).find_map(|at| Some((at, self.claim(at, now)?)))?;
                let answer = pace.take(&place.full, now);
                place.key.store(key, Ordering::SeqCst);
                return Some((answer, at));
            };
            let full = self.full(at)?;
            let answer = pace.take(full, now);
            if self.is_of(at, key) {
                return Some((answer, at));
            }
            if answer.passes {
                pace.give_back(full);
            }
        }
        None
    }

    fn is_of(&self, place: usize, key: u64) -> bool {
        self.places.get(place).is_some_and(|place| place.key.load(Ordering::SeqCst) == key)
    }

    fn find(&self, key: u64) -> Option<usize> {
        places(key).find(|at| self.is_of(*at, key))
    }

    /// Takes a place that nobody has, or whose bucket is full again, out of everybody's sight.
    fn claim(&self, at: usize, now: u64) -> Option<&Place> {
        let place = self.places.get(at)?;
        let before = place.key.load(Ordering::SeqCst);
        let floor = self.floor.load(Ordering::SeqCst);
        let untouched = now.max(floor);
        if place.full.load(Ordering::SeqCst) > untouched {
            return None;
        }
        place.key.store(TAKEN, Ordering::SeqCst);
        if place.full.load(Ordering::SeqCst) > untouched {
            // Whoever had it has just counted something.
            place.key.store(before, Ordering::SeqCst);
            return None;
        }
        place.full.fetch_max(floor, Ordering::SeqCst);
        Some(place)
    }

    /// Lets one worker at a time look for a free place: some nanoseconds, unless that one is put to sleep meanwhile. Then it is
    /// not waited for.
    fn lock(&self) -> Option<Taking<'_>> {
        for _ in 0..SPINS_MAX {
            if !self.taking.swap(true, Ordering::Acquire) {
                return Some(Taking(&self.taking));
            }
            core::hint::spin_loop();
        }
        None
    }

    /// The bucket that nobody has touched.
    pub(super) const fn floor(&self) -> &AtomicU64 {
        &self.floor
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

    /// Two requests a time of 100 apart.
    const PACE: Pace = Pace { interval: 100, tolerance: 200 };

    #[test]
    fn a_key_keeps_its_place_until_its_bucket_is_full_again() {
        let keys = Keys::new(1);
        let count = |key, now| keys.count(key, PACE, now).map(|(answer, place)| (answer.passes, place));
        let (_, place) = count(7, 0).unwrap();
        assert_eq!([count(7, 0), count(7, 0)], [Some((true, place)), Some((false, place))]);
        // Every other key that may be there goes elsewhere while it is busy.
        let rival = 7 + GROUPS as u64;
        assert_ne!(count(rival, 50).unwrap().1, place);
        let late = 7 + 2 * GROUPS as u64;
        assert_eq!(count(late, 200), Some((true, place)), "at 200 it is as good as new");
        assert_ne!(count(7, 200).unwrap().1, place);
    }

    #[test]
    fn a_table_that_is_full_says_so_and_takes_no_busy_place() {
        let keys = Keys::new(1);
        let mut rng = crate::rng::Rng::new(3);
        let mut placed = 0;
        let mut first_refused = None;
        for n in 0..2 * KEYS_MAX {
            match keys.count(rng.next_u64(), PACE, 0) {
                Some((answer, _)) => {
                    assert_eq!(answer.left, 1, "nobody was there");
                    placed += 1;
                }
                None => first_refused = first_refused.or(Some(n)),
            }
        }
        assert!(placed <= KEYS_MAX && placed > KEYS_MAX * 95 / 100, "{placed} of {KEYS_MAX} places used");
        assert!(first_refused.unwrap() > KEYS_MAX / 2, "{first_refused:?}");
        // A time later all of them may go.
        assert!(keys.count(rng.next_u64(), PACE, 1000).is_some());
    }

    /// More keys than there are places for them, over several workers: places change hands all the time, and no key passes more often
    /// than it may.
    #[test]
    fn no_key_gains_anything_while_places_change_hands() {
        let (keys, clock) = (Keys::new(1), AtomicU64::new(1));
        let passed: std::vec::Vec<AtomicU64> = (0..90).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (keys, clock, passed) = (&keys, &clock, &passed);
                scope.spawn(move || {
                    let mut rng = crate::rng::Rng::new(worker);
                    for _ in 0..50_000 {
                        let (n, now) = (rng.below(90), clock.fetch_add(1, Ordering::Relaxed));
                        let counted = keys.count(7 + n * GROUPS as u64, PACE, now);
                        let passes = counted.is_some_and(|(answer, _)| answer.passes);
                        passed[n as usize].fetch_add(u64::from(passes), Ordering::Relaxed);
                    }
                });
            }
        });
        let most = 2 + clock.into_inner() / PACE.interval;
        let passed: std::vec::Vec<u64> = passed.into_iter().map(AtomicU64::into_inner).collect();
        assert!(passed.iter().all(|passed| *passed <= most), "{passed:?} of {most}");
        assert!(passed.iter().sum::<u64>() > 50 * most, "{passed:?} of {most}");
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
