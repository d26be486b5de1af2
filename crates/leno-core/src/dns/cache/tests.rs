use super::*;
use crate::rng::Rng;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_answer_lives_as_long_as_it_says() {
    let mut cache = Cache::new();
    cache.insert(b"q", 1, 10, seconds(30), at(100));
    assert_eq!(cache.get(b"q", at(100)), Found::Fresh(1, seconds(0)));
    assert_eq!(cache.get(b"q", at(129)), Found::Fresh(1, seconds(29)));
    assert_eq!(cache.get(b"q", at(130)), Found::Nothing);
    assert_eq!(cache.get(b"other", at(100)), Found::Nothing);
}

#[test]
fn nothing_lives_longer_than_the_cap_or_is_kept_for_no_time() {
    let mut cache = Cache::new();
    cache.insert(b"q", 1, 10, seconds(1_000_000), at(0));
    assert!(matches!(cache.get(b"q", at(3_599)), Found::Fresh(..)));
    assert_eq!(cache.get(b"q", at(3_600)), Found::Nothing);
    cache.insert(b"none", 1, 10, seconds(0), at(0));
    assert_eq!(cache.get(b"none", at(0)), Found::Nothing);
    cache.insert(b"huge", 1, BYTES_MAX, seconds(9), at(0));
    assert_eq!(cache.get(b"huge", at(0)), Found::Nothing);
}

#[test]
fn a_stale_answer_is_given_for_a_while_when_nobody_answers() {
    let mut cache = Cache::new();
    cache.insert(b"q", 1, 10, seconds(30), at(0));
    assert_eq!(cache.get(b"q", at(31)), Found::Nothing);
    assert_eq!(cache.stale(b"q", at(32)), Some(1));
    assert_eq!(cache.get(b"q", at(36)), Found::Reused(1));
    assert_eq!(cache.get(b"q", at(37)), Found::Nothing);
    assert_eq!(cache.stale(b"q", at(3_629)), Some(1));
    assert_eq!(cache.stale(b"q", at(3_630)), None);
    assert!(cache.is_empty());
}

#[test]
fn the_longest_unasked_goes_first() {
    let mut cache = Cache::new();
    for n in 0..ENTRIES_MAX {
        cache.insert(&n.to_be_bytes(), n, 1, seconds(60), at(0));
    }
    assert!(matches!(cache.get(&0_usize.to_be_bytes(), at(1)), Found::Fresh(0, _)));
    cache.insert(b"new", 7, 1, seconds(60), at(1));
    assert_eq!(cache.len(), ENTRIES_MAX);
    assert!(matches!(cache.get(&0_usize.to_be_bytes(), at(1)), Found::Fresh(0, _)));
    assert_eq!(cache.get(&1_usize.to_be_bytes(), at(1)), Found::Nothing);
}

#[test]
fn the_tables_agree_whatever_happens() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut cache = Cache::new();
        let mut now = 0;
        for step in 0..3_000 {
            now += rng.below(3);
            let question = rng.below(400).to_be_bytes();
            match rng.below(4) {
                0 | 1 => {
                    let bytes = rng.below(60_000) as usize;
                    cache.insert(&question, step, bytes, seconds(rng.below(90)), at(now));
                }
                2 => {
                    cache.get(&question, at(now));
                }
                _ => {
                    cache.stale(&question, at(now));
                }
            }
            assert_eq!(cache.entries.len(), cache.order.len(), "seed {seed}");
            assert!(cache.len() <= ENTRIES_MAX && cache.bytes() <= BYTES_MAX, "seed {seed}");
            let sum: usize = cache.entries.values().map(|entry| entry.bytes).sum();
            assert_eq!(sum, cache.bytes(), "seed {seed}");
            assert!(cache.order.iter().all(|(turn, key)| cache.entries[key].turn == *turn), "seed {seed}");
        }
    }
}
