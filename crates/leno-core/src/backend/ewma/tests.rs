use alloc::vec::Vec;

use crate::backend::bench::{Bench, number};
use crate::backend::{Outcome, Permit};
use crate::rng::Rng;
use crate::spec::{Balance, Care};
use crate::time::Duration;

/// Sequential requests, each answered after what `took` says for its endpoint; how many went where.
fn serve(bench: &mut Bench, times: usize, took: impl Fn(usize) -> (Outcome, u64)) -> Vec<usize> {
    let mut counts = Vec::new();
    for _ in 0..times {
        let permit = bench.pick();
        let (started, at) = (bench.now, number(&permit));
        let (outcome, millis) = took(at);
        bench.now = bench.now.after(Duration::from_millis(millis));
        permit.report_since(outcome, || started, bench.now);
        counts.resize(counts.len().max(at + 1), 0);
        counts[at] += 1;
    }
    counts
}

const FINE: Outcome = Outcome::Answered(200);

#[test]
fn a_slow_endpoint_is_found_at_its_first_answer_and_asked_again_by_and_by() {
    let mut bench = Bench::new(&[1; 10], Balance::PeakEwma, Care::default());
    let counts = serve(&mut bench, 2_000, |at| (FINE, if at == 3 { 200 } else { 10 }));
    assert!((1..=8).contains(&counts[3]), "{counts:?}");
    assert!(counts.iter().enumerate().all(|(at, count)| at == 3 || *count > 120), "{counts:?}");
    // It is as fast as the others again; that is found out.
    let counts = serve(&mut bench, 20_000, |_| (FINE, 10));
    assert!(counts[3] > 500, "{counts:?}");
}

#[test]
fn a_quick_failure_does_not_make_anybody_fast() {
    let care = Care { outliers: None, ..Care::default() };
    let mut bench = Bench::new(&[1; 10], Balance::PeakEwma, care);
    serve(&mut bench, 1_000, |_| (FINE, 10));
    let failing = |at| if at == 3 { (Outcome::Answered(500), 1) } else { (FINE, 10) };
    let counts = serve(&mut bench, 2_000, failing);
    assert!(counts[3] <= 300, "no more than its share, about: {counts:?}");
}

#[test]
fn whoever_refuses_is_asked_less_until_it_answers_and_is_not_put_out() {
    for balance in [Balance::PeakEwma, Balance::LeastRequest] {
        let mut bench = Bench::new(&[1; 10], balance, Care::default());
        serve(&mut bench, 1_000, |_| (FINE, 10));
        let shed = |at| if at == 3 { (Outcome::Shed, 1) } else { (FINE, 10) };
        let counts = serve(&mut bench, 2_000, shed);
        assert!(counts[3] < 60, "{balance:?}: {counts:?}");
        // When all refuse alike, they are as before to each other, and nobody is put out.
        let counts = serve(&mut bench, 5_000, |_| (Outcome::Shed, 1));
        assert!(counts.iter().all(|count| *count > 300), "{balance:?}: {counts:?}");
        serve(&mut bench, 1_000, |_| (FINE, 10));
        let counts = serve(&mut bench, 2_000, |_| (FINE, 10));
        assert!(counts[3] > 100, "{balance:?}: {counts:?}");
    }
}

#[test]
fn latency_counts_times_what_is_under_way() {
    let mut bench = Bench::new(&[1, 1], Balance::PeakEwma, Care::default());
    serve(&mut bench, 200, |at| (FINE, if at == 0 { 10 } else { 30 }));
    let held: Vec<Permit> = (0..40).map(|_| bench.pick()).collect();
    let on_fast = held.iter().filter(|permit| number(permit) == 0).count();
    assert!((28..=32).contains(&on_fast), "three times as fast, three times as many: {on_fast}");
}

#[test]
fn who_has_not_answered_yet_is_taken_for_its_peer_or_for_what_is_said() {
    for (default_rtt, expected) in [(None, 15..=25), (Some(Duration::from_millis(100)), 0..=8)] {
        let mut care = Care::default();
        care.ewma.default_rtt = default_rtt;
        let mut bench = Bench::new(&[1, 1], Balance::PeakEwma, care.clone());
        serve(&mut bench, 200, |_| (FINE, 10));
        let mut service = crate::backend::bench::service(&[1, 1, 1], Balance::PeakEwma, care);
        service.endpoints.remove(1);
        bench.change(service);
        let held: Vec<Permit> = (0..40).map(|_| bench.pick()).collect();
        let on_new = held.iter().filter(|permit| number(permit) == 2).count();
        assert!(expected.contains(&on_new), "{default_rtt:?}: {on_new}");
    }
}

#[test]
fn more_choices_find_the_idle_one_more_surely() {
    for balance in [Balance::LeastRequest, Balance::PeakEwma] {
        let mut idle_first = Vec::new();
        for choices in [1, 2, 10] {
            let mut bench = Bench::new(&[1; 10], balance, Care { choices, ..Care::default() });
            let mut found = 0;
            for _ in 0..300 {
                // All but one have something to do.
                let held: Vec<Permit> = (0..200).map(|_| bench.pick()).collect();
                let idle = bench.rng.below(10) as usize;
                let _busy: Vec<Permit> = held.into_iter().filter(|permit| number(permit) != idle).collect();
                found += usize::from(number(&bench.pick()) == idle);
            }
            idle_first.push(found);
        }
        let [one, two, ten] = idle_first[..] else { panic!() };
        assert!(
            (10..=60).contains(&one) && (40..=90).contains(&two) && ten > 190,
            "{balance:?} {idle_first:?}"
        );
    }
}

/// Whatever the policy, with how many requests at a time: the share of each follows its weight.
#[test]
fn weights_are_met_with_any_number_of_requests_at_a_time() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest, Balance::PeakEwma] {
        for at_a_time in [1, 3, 20, 200] {
            let weights = [1, 2, 5, 12];
            let mut bench = Bench::new(&weights, balance, Care::default());
            let mut rng = Rng::new(at_a_time);
            let (mut held, mut counts): (Vec<Permit>, _) = (Vec::new(), [0_usize; 4]);
            for _ in 0..20_000 {
                bench.now = bench.now.after(Duration::from_millis(1));
                if held.len() as u64 >= at_a_time {
                    let permit = held.swap_remove(rng.below(held.len() as u64) as usize);
                    let started = bench.now;
                    permit.report_since(FINE, || started, started.after(Duration::from_millis(10)));
                }
                let permit = bench.pick();
                counts[number(&permit)] += 1;
                held.push(permit);
            }
            for (at, weight) in weights.iter().enumerate() {
                let due = 20_000 * *weight as usize / 20;
                let off = counts[at].abs_diff(due);
                // Few requests at a time cannot be divided finely: comparing two favours the heavier a little.
                assert!(off <= due / 3, "{balance:?}, {at_a_time} at a time: {counts:?} of {weights:?}");
            }
        }
    }
}
