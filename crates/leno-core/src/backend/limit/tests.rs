use alloc::vec::Vec;

use super::*;
use crate::backend::bench::{Bench, number, service};
use crate::backend::{NoEndpoint, Permit};
use crate::rng::Rng;
use crate::route::BackendId;
use crate::spec::{Balance, Care, PENDING_MAX};
use crate::time::Duration;

fn bench(endpoints: usize, limits: Limits) -> Bench {
    Bench::new(&alloc::vec![1; endpoints], Balance::LeastRequest, care(limits))
}

fn care(limits: Limits) -> Care {
    Care { limits, ..Care::default() }
}

fn refused(picked: Result<Permit, NoEndpoint>) -> Limit {
    match picked.unwrap_err() {
        NoEndpoint::Limit { by, .. } => by,
        why => panic!("{why:?}"),
    }
}

#[test]
fn requests_are_counted_until_they_end() {
    let mut bench = bench(3, Limits { requests: Some(4), ..Limits::NONE });
    let mut held: Vec<Permit> = (0..4).map(|_| bench.pick()).collect();
    assert_eq!(refused(bench.try_pick(&[])), Limit::Requests);
    held.pop();
    held.push(bench.pick());
    assert_eq!(refused(bench.try_pick(&[])), Limit::Requests);
    // A change of the configuration forgets nobody.
    bench.change(service(&[1, 1], Balance::Random, care(Limits { requests: Some(5), ..Limits::NONE })));
    held.push(bench.pick());
    assert_eq!(refused(bench.try_pick(&[])), Limit::Requests);
    drop(held);
    assert_eq!((0..5).map(|_| bench.pick()).collect::<Vec<_>>().len(), 5);
}

#[test]
fn an_endpoint_takes_no_more_than_its_limit_and_the_others_take_the_rest() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest, Balance::PeakEwma] {
        let limits = Limits { endpoint_requests: Some(2), ..Limits::NONE };
        let mut bench = Bench::new(&[5, 1, 1], balance, care(limits));
        let held: Vec<Permit> = (0..6).map(|_| bench.pick()).collect();
        for at in 0..3 {
            assert_eq!(held.iter().filter(|permit| number(permit) == at).count(), 2, "{balance:?}");
        }
        assert_eq!(refused(bench.try_pick(&[])), Limit::EndpointRequests);
        // A retry has no other place either; with all of them tried, that is what is told.
        let keys: Vec<u64> = (0..3).map(|at| bench.endpoint(at).key).collect();
        assert_eq!(refused(bench.try_pick(&keys[..1])), Limit::EndpointRequests);
        assert_eq!(bench.try_pick(&keys).unwrap_err(), NoEndpoint::AllTried);
    }
}

#[test]
fn retries_have_a_limit_of_their_own() {
    let mut bench = bench(3, Limits { retries: Some(1), ..Limits::NONE });
    let first = bench.pick();
    let tried = [first.endpoint().key];
    let retry = bench.try_pick(&tried).unwrap();
    assert_eq!(refused(bench.try_pick(&tried)), Limit::Retries);
    assert!(bench.try_pick(&[]).is_ok(), "a first attempt is none");
    drop(retry);
    assert!(bench.try_pick(&tried).is_ok());
    // None at all, and a refused retry gives its request's place back.
    let mut bench = self::bench(3, Limits { requests: Some(1), retries: Some(0), ..Limits::NONE });
    let tried = [bench.endpoint(0).key];
    assert_eq!(refused(bench.try_pick(&tried)), Limit::Retries);
    assert!(bench.try_pick(&[]).is_ok());
}

#[test]
fn those_who_wait_and_connections_are_counted() {
    let limits = Limits { requests: Some(1), connections: Some(2), pending: Some(2), ..Limits::NONE };
    let bench = bench(3, limits);
    let wait = || bench.backends.wait(&bench.snapshot, BackendId(0));
    let (first, second) = (wait().unwrap(), wait().unwrap());
    assert!(wait().is_none());
    drop(first);
    assert!(wait().is_some());
    drop(second);
    let connect = || bench.backends.connect(&bench.snapshot, BackendId(0));
    let held = [connect().unwrap().unwrap(), connect().unwrap().unwrap()];
    assert_eq!(connect().unwrap_err(), Limit::Connections);
    drop(held);
    assert!(connect().is_ok());
    // Nothing is set: nobody is counted.
    let bench = self::bench(3, Limits { requests: Some(1), ..Limits::NONE });
    assert!(bench.backends.connect(&bench.snapshot, BackendId(0)).unwrap().is_none());
    let (_, wait) = bench.backends.wait(&bench.snapshot, BackendId(0)).unwrap();
    assert_eq!((wait, PENDING_MAX), (Duration::from_secs(1), 128));
}

#[test]
fn workers_share_the_limits_and_no_interleaving_passes_them() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let limits = Limits {
            requests: rng.one_in(2).then(|| 1 + rng.below(6) as u32),
            endpoint_requests: rng.one_in(2).then(|| 1 + rng.below(3) as u32),
            retries: rng.one_in(2).then(|| rng.below(3) as u32),
            ..Limits::NONE
        };
        let mut bench = bench(3, limits.clone());
        let mut others: Vec<crate::backend::Backends> = (0..3)
            .map(|_| {
                let mut other = crate::backend::Backends::default();
                other.adopt(&bench.snapshot);
                other
            })
            .collect();
        let mut held: Vec<(Permit, bool)> = Vec::new();
        for _ in 0..300 {
            if rng.one_in(3) && !held.is_empty() {
                held.swap_remove(rng.below(held.len() as u64) as usize);
            } else {
                let worker = &mut others[rng.below(3) as usize];
                let retry = rng.one_in(3);
                let avoid = if retry { alloc::vec![u64::MAX] } else { Vec::new() };
                let choice = crate::backend::Choice::Backend(BackendId(0));
                let picked = worker.pick(&bench.snapshot, choice, &avoid, bench.now, &mut rng);
                match picked {
                    Ok(permit) => held.push((permit, retry)),
                    Err(NoEndpoint::Limit { .. }) if limits.is_some() => {}
                    Err(why) => panic!("seed {seed}: {why:?}"),
                }
            }
            let count = held.len() as u32;
            let retries = held.iter().filter(|(_, retry)| *retry).count() as u32;
            assert!(limits.requests.is_none_or(|max| count <= max), "seed {seed}");
            assert!(limits.retries.is_none_or(|max| retries <= max), "seed {seed}");
            for at in 0..3 {
                let on_it = held.iter().filter(|(permit, _)| number(permit) == at).count() as u32;
                assert!(limits.endpoint_requests.is_none_or(|max| on_it <= max), "seed {seed}");
            }
        }
        held.clear();
        // Whatever happened, all places are free again.
        if let Some(max) = limits.requests.filter(|_| limits.endpoint_requests.is_none()) {
            assert_eq!((0..max).map(|_| bench.pick()).collect::<Vec<_>>().len() as u32, max);
        }
    }
}
