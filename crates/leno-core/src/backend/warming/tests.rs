use crate::backend::Outcome;
use crate::backend::bench::{Bench, service};
use crate::spec::{Balance, Care, SlowStart};
use crate::time::Duration;

fn care() -> Care {
    let slow_start = SlowStart { duration: Duration::from_secs(10), from_percent: 10 };
    Care { slow_start: Some(slow_start), ..Care::default() }
}

/// The share of `e3` in 1,000 requests during two seconds, in percent of a fourth.
fn share(bench: &mut Bench) -> usize {
    let mut count = 0;
    for _ in 0..1_000 {
        bench.now = bench.now.after(Duration::from_millis(2));
        let permit = bench.pick();
        count += usize::from(&*permit.endpoint().spec.name == "e3");
        permit.report(Outcome::Answered(200), bench.now);
    }
    count * 100 / 250
}

#[test]
fn an_endpoint_that_comes_gets_its_share_by_and_by() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest, Balance::PeakEwma] {
        let mut bench = Bench::new(&[1, 1, 1], balance, care());
        share(&mut bench);
        bench.change(service(&[1, 1, 1, 1], balance, care()));
        let shares: alloc::vec::Vec<usize> = (0..6).map(|_| share(&mut bench)).collect();
        // 10 % at first and 1 % more each 110 ms: the means of two seconds each, and what chance adds.
        for (found, expected) in shares.iter().zip([19, 37, 55, 73, 91, 100]) {
            assert!(found.abs_diff(expected) <= 22, "{balance:?}: {shares:?}");
        }
        assert!(shares[0] <= 45, "{balance:?}: {shares:?}");
    }
}

#[test]
fn those_who_come_first_or_all_at_a_time_have_their_shares_at_once() {
    let mut bench = Bench::new(&[1, 1, 1, 1], Balance::RoundRobin, care());
    assert_eq!(share(&mut bench), 100);
    // One that gets well again comes like a new one; one that only has another weight does not.
    let mut sick = service(&[1, 1, 1, 1], Balance::RoundRobin, care());
    sick.endpoints[3].healthy = false;
    bench.change(sick);
    assert_eq!(share(&mut bench), 0);
    bench.change(service(&[1, 1, 1, 1], Balance::RoundRobin, care()));
    assert!(share(&mut bench) <= 45);
    let mut bench = Bench::new(&[1, 1, 1, 1], Balance::RoundRobin, care());
    bench.change(service(&[1, 1, 1, 2], Balance::RoundRobin, care()));
    assert!(share(&mut bench) >= 100);
}

#[test]
fn when_only_those_are_there_that_warm_up_they_take_everything() {
    let mut bench = Bench::new(&[1, 1, 1, 1], Balance::LeastRequest, care());
    let mut changed = service(&[1, 1, 1, 1, 1, 1], Balance::LeastRequest, care());
    for at in 0..4 {
        changed.endpoints[at].healthy = false;
    }
    bench.change(changed);
    for _ in 0..100 {
        bench.pick();
    }
}
