use alloc::vec::Vec;

use super::*;
use crate::backend::bench::{Bench, number, service};
use crate::backend::{Choice, Chosen, Outcome, Permit};
use crate::rng::Rng;
use crate::route::BackendId;
use crate::spec::{Affinity, Balance, Care, EndpointSpec, KeySpec, Transport};
use crate::time::Duration;

const KEYS: u64 = 20_000;

fn endpoints(weights: &[(usize, u32)]) -> Vec<Arc<EndpointSpec>> {
    let mut all: Vec<Arc<EndpointSpec>> = weights
        .iter()
        .map(|(at, weight)| {
            Arc::new(EndpointSpec {
                name: alloc::format!("e{at:04}").into(),
                address: ([127, 0, 0, 1], 1).into(),
                transport: Transport::Plain,
                version: None,
                weight: *weight,
                healthy: true,
                tags: crate::spec::Tags::NONE,
            })
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The endpoint of each key, by name.
fn homes(endpoints: &[Arc<EndpointSpec>], maglev: bool) -> Vec<Arc<str>> {
    let hashing = Hashing::new(endpoints, maglev, None);
    (0..KEYS)
        .map(|key| endpoints[hashing.pick(of_bytes(&key.to_le_bytes()), |_| true).unwrap()].name.clone())
        .collect()
}

fn moved(before: &[Arc<str>], after: &[Arc<str>]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

#[test]
fn weights_are_met_within_their_bound() {
    for (maglev, bound) in [(false, 25), (true, 6)] {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let weights: Vec<(usize, u32)> = (0..2 + rng.below(12) as usize)
                .map(|at| (at + 100 * seed as usize, [0, 1, 1, 2, 3][rng.below(5) as usize]))
                .collect();
            let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
            if total == 0 {
                continue;
            }
            let endpoints = endpoints(&weights);
            let homes = homes(&endpoints, maglev);
            for endpoint in &endpoints {
                let got = homes.iter().filter(|home| **home == endpoint.name).count() as u64;
                let due = KEYS * u64::from(endpoint.weight) / u64::from(total);
                // What chance makes of so many keys, beside what the table may be off.
                let chance = 4 * due.isqrt();
                assert!(
                    got.abs_diff(due) <= due * bound / 100 + chance,
                    "seed {seed}, maglev {maglev}: {got} of {due} for {weights:?}"
                );
            }
        }
    }
}

#[test]
fn a_change_moves_no_more_than_the_share_that_changes() {
    for maglev in [false, true] {
        for count in [2, 5, 10, 40] {
            let all: Vec<(usize, u32)> = (0..count).map(|at| (at, 1)).collect();
            let before = homes(&endpoints(&all), maglev);
            // One goes: its keys move, and of the others' hardly any.
            let fewer = homes(&endpoints(&all[1..]), maglev);
            let its = before.iter().filter(|home| &***home == "e0000").count();
            let others = moved(&before, &fewer) - its;
            assert!(maglev || others == 0, "{others}");
            assert!(others <= KEYS as usize / 12, "maglev, {count}: {others} of others move");
            // One comes: it takes its share, and nobody else gets anything.
            let more: Vec<(usize, u32)> = (0..=count).map(|at| (at, 1)).collect();
            let grown = homes(&endpoints(&more), maglev);
            let newcomer = alloc::format!("e{count:04}");
            let taken = grown.iter().filter(|home| ***home == *newcomer).count();
            let stirred = moved(&before, &grown) - taken;
            let share = KEYS as usize / (count + 1);
            assert!(taken.abs_diff(share) <= share / 3, "maglev {maglev}, {count}: {taken} of {share}");
            assert!(maglev || stirred == 0, "{stirred}");
            assert!(stirred <= KEYS as usize / 12, "maglev, {count}: {stirred} move among the others");
        }
    }
}

#[test]
fn whose_endpoint_takes_nothing_goes_on_and_nobody_else_moves() {
    for maglev in [false, true] {
        let all = endpoints(&(0..10).map(|at| (at, 1)).collect::<Vec<_>>());
        let hashing = Hashing::new(&all, maglev, None);
        let mut taken = [0_usize; 10];
        for key in 0..KEYS {
            let key = of_bytes(&key.to_le_bytes());
            let home = hashing.pick(key, |_| true).unwrap();
            let without = hashing.pick(key, |at| at != 3).unwrap();
            assert!(home == 3 || home == without, "maglev {maglev}");
            taken[without] += usize::from(home == 3);
        }
        // They spread over all the others.
        assert!(taken.iter().enumerate().all(|(at, count)| (at == 3) == (*count == 0)), "{taken:?}");
        assert_eq!(hashing.pick(7, |at| at == 5), Some(5));
        assert_eq!(hashing.pick(7, |_| false), None);
    }
    assert_eq!(Hashing::new(&[], true, None).pick(7, |_| true), None);
    assert_eq!(Hashing::new(&[], false, None).pick(7, |_| true), None);
    assert_eq!(Hashing::new(&endpoints(&[(1, 0)]), true, None).pick(7, |_| true), None);
}

#[test]
fn what_has_not_changed_is_not_made_anew() {
    let all = endpoints(&[(1, 1), (2, 1)]);
    let before = Hashing::new(&all, true, None);
    let same = |a: &Hashing, b: &Hashing| match (&a.lookup, &b.lookup) {
        (Lookup::Table(a), Lookup::Table(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    assert!(same(&before, &Hashing::new(&all, true, Some(&before))));
    assert!(!same(&before, &Hashing::new(&all[1..], true, Some(&before))));
    assert!(!same(&before, &Hashing::new(&all, false, Some(&before))));
}

fn bench(count: usize, balance: Balance, bound_percent: Option<u32>) -> Bench {
    Bench::new(&alloc::vec![1; count], balance, care(bound_percent))
}

fn care(bound_percent: Option<u32>) -> Care {
    let affinity = Affinity { keys: alloc::vec![KeySpec::Source], bound_percent };
    Care { affinity: Some(affinity.into()), ..Care::default() }
}

fn pick(bench: &mut Bench, key: Option<u64>, avoid: &[u64]) -> Permit {
    let choice = Choice::Backend(BackendId(0));
    bench.backends.pick_by(&bench.snapshot, choice, avoid, bench.now, &mut bench.rng, |_, _| key).unwrap()
}

#[test]
fn a_key_stays_and_a_retry_goes_elsewhere() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut bench = bench(10, balance, None);
        for key in (0..200).map(|key: u64| of_bytes(&key.to_le_bytes())) {
            let first = pick(&mut bench, Some(key), &[]);
            assert_eq!(first.chosen(), Chosen::Affinity);
            assert_eq!(number(&pick(&mut bench, Some(key), &[])), number(&first), "{balance:?}");
            let retry = pick(&mut bench, Some(key), &[first.endpoint().key]);
            let again = pick(&mut bench, Some(key), &[first.endpoint().key]);
            assert_ne!(number(&retry), number(&first));
            assert_eq!(number(&retry), number(&again), "the next one is the same for everybody");
        }
        // Without a key the idler of two.
        let held: Vec<Permit> = (0..100).map(|_| pick(&mut bench, None, &[])).collect();
        assert!(held.iter().all(|permit| permit.chosen() == Chosen::Balanced));
        let most = (0..10).map(|at| bench.endpoint(at).in_flight()).max();
        assert!(most <= Some(14), "{most:?}");
    }
}

#[test]
fn who_is_put_out_or_unhealthy_loses_its_keys_for_the_time() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut bench = bench(10, balance, None);
        let key = of_bytes(b"somebody");
        let first = pick(&mut bench, Some(key), &[]);
        let home = number(&first);
        first.report(Outcome::Unreachable, bench.now);
        drop(first);
        assert_ne!(number(&pick(&mut bench, Some(key), &[])), home, "{balance:?}");
        bench.now = bench.now.after(Duration::from_secs(1));
        let back = pick(&mut bench, Some(key), &[]);
        assert_eq!((number(&back), back.chosen()), (home, Chosen::Probation));
        back.report(Outcome::Reached, bench.now);
        let mut sick = service(&[1; 10], balance, care(None));
        sick.endpoints[home].healthy = false;
        bench.change(sick);
        assert_ne!(number(&pick(&mut bench, Some(key), &[])), home);
    }
}

#[test]
fn one_key_that_everybody_has_does_not_drown_its_endpoint() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        for percent in [100, 125, 200] {
            let mut bench = bench(10, balance, Some(percent));
            let mut held: Vec<Permit> = Vec::new();
            let mut rng = Rng::new(1);
            for turn in 0..2_000 {
                if held.len() > 150 || turn % 5 == 0 && !held.is_empty() {
                    held.swap_remove(rng.below(held.len() as u64) as usize);
                }
                let key = if rng.one_in(3) { rng.next_u64() } else { 7 };
                held.push(pick(&mut bench, Some(key), &[]));
                // The bound is about the moment of the pick: with those that end, others stand out for a while.
                let last = held.last().map(|permit| permit.endpoint().in_flight()).unwrap_or(0);
                let most = (held.len() as u32 * percent).div_ceil(1_000);
                assert!(last <= most, "{balance:?} {percent} %: {last} of {most}");
                if turn == 1_000 {
                    bench.change(service(&[1; 10], balance, care(Some(percent))));
                }
            }
        }
    }
}
