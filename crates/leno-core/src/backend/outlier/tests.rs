use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;
use crate::backend::bench::Bench;
use crate::backend::{Chosen, Outcome, Permit, What};
use crate::rng::Rng;
use crate::spec::{Balance, Care};

fn bench(count: usize, outliers: Outliers, balance: Balance) -> Bench {
    Bench::new(&alloc::vec![1; count], balance, Care { outliers: Some(outliers), ..Care::default() })
}

const FINE: Outcome = Outcome::Answered(200);
const BAD: Outcome = Outcome::Answered(500);

#[test]
fn the_logarithm_is_one() {
    for (x, expected) in [
        (1.0, 0.0),
        (2.0, core::f64::consts::LN_2),
        (10.0, core::f64::consts::LN_10),
        (0.5, -core::f64::consts::LN_2),
        (1.999_999, 0.693_146_68),
        (0.03, -3.506_557_897),
        (12_345.0, 9.421_006_302),
    ] {
        assert!((ln(x) - expected).abs() < 1e-4, "{x}: {} and not {expected}", ln(x));
    }
}

#[test]
fn who_is_worse_is_not_a_matter_of_chance() {
    let count = |requests, failures| Count { requests, failures, latency_micros: 0 };
    for (own, peers, worse) in [
        // Five of five, beside nine peers without a failure.
        (count(5, 5), count(45, 0), true),
        // Among three it takes a few more to be certain.
        (count(5, 5), count(10, 0), false),
        (count(8, 8), count(16, 0), true),
        // Everybody fails.
        (count(40, 40), count(360, 360), false),
        (count(40, 20), count(360, 170), false),
        // A gray failure is found after some twenty requests.
        (count(20, 6), count(180, 0), true),
        (count(10, 3), count(90, 0), false),
        // Certain, and not worth an instance.
        (count(100_000, 2_000), count(900_000, 900), false),
        // Peers of whom nothing is known say nothing.
        (count(50, 50), count(0, 0), false),
        // Few requests of the peers cannot convict many of one's own.
        (count(1_000, 100), count(20, 0), false),
    ] {
        assert_eq!(own.is_worse_than(peers), worse, "{own:?} beside {peers:?}: {}", own.evidence(peers));
    }
}

#[test]
fn who_answers_500_is_put_out_and_its_requests_go_elsewhere() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let mut bench = bench(10, Outliers::default(), balance);
        bench.run(200, |number| if number == 3 { BAD } else { FINE });
        assert_eq!(bench.ejected(), ["e3"], "{balance:?} {:?}", bench.events);
        assert!(bench.endpoint(3).ejected(bench.now));
        let served = bench.run(100, |_| FINE);
        assert!(!served.contains(&3), "{balance:?}");
        let (_, What::Ejected { own, peers, wait, .. }) = bench.events[0] else { panic!() };
        assert!(own.failures == own.requests && peers.failures == 0 && wait == Duration::from_secs(5));
    }
}

#[test]
fn nobody_is_put_out_when_all_fail_alike() {
    for share in [3, 10, 30, 60, 100] {
        let mut bench = bench(10, Outliers::default(), Balance::LeastRequest);
        let mut rng = Rng::new(share);
        bench.run(5_000, |_| if rng.below(100) < share { BAD } else { FINE });
        assert!(bench.events.is_empty(), "{share}: {:?}", bench.events);
    }
}

#[test]
fn it_comes_back_after_a_probation_and_a_failure_in_it_is_punished_longer() {
    let mut bench = bench(10, Outliers::default(), Balance::RoundRobin);
    bench.run(200, |number| if number == 3 { BAD } else { FINE });
    let mut waits = Vec::new();
    // It goes on failing: each time its probation is one request.
    for _ in 0..2 {
        let served = bench.run(3_000, |number| if number == 3 { BAD } else { FINE });
        waits.push(served.iter().filter(|number| **number == 3).count());
    }
    assert!(waits.iter().sum::<usize>() <= 3, "5, 10, 20 s: {waits:?}");
    // It works again.
    let served = bench.run(6_000, |_| FINE);
    assert_eq!(bench.events.last(), Some(&("e3".into(), What::Returned)), "{:?}", bench.events);
    let share = served[5_000..].iter().filter(|number| **number == 3).count();
    assert_eq!(share, 100, "its full share");
    // Soon again: it is not forgotten how often it was out.
    bench.run(200, |number| if number == 3 { BAD } else { FINE });
    let Some((_, What::Ejected { wait, .. })) = bench.events.last() else { panic!() };
    assert!(*wait > Duration::from_secs(5), "{wait:?}");
}

#[test]
fn on_probation_it_gets_one_request_at_a_time() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let mut bench = bench(5, Outliers::default(), balance);
        bench.run(100, |number| if number == 3 { BAD } else { FINE });
        assert_eq!(bench.ejected(), ["e3"]);
        bench.now = bench.now.after(Duration::from_secs(6));
        let held: Vec<Permit> = (0..100).map(|_| bench.pick()).collect();
        let tried: Vec<Chosen> =
            held.iter().filter(|permit| &*permit.endpoint().spec.name == "e3").map(Permit::chosen).collect();
        assert_eq!(tried, [Chosen::Probation], "{balance:?}");
    }
}

#[test]
fn no_more_than_the_share_is_out_and_at_least_one_of_three() {
    for (endpoints, percent, most) in
        [(2, 10, 0), (2, 50, 1), (3, 10, 1), (9, 10, 1), (10, 10, 1), (20, 10, 2), (20, 50, 10), (5, 1, 1)]
    {
        let outliers = Outliers { ejected_percent: percent, ..Outliers::default() };
        assert_eq!(outliers.ejected_max(endpoints), most, "{percent} % of {endpoints}");
        let mut bench = bench(endpoints, outliers, Balance::RoundRobin);
        let failing = (endpoints / 2).max(1);
        let mut now_out = 0;
        for _ in 0..300 {
            bench.run(10, |number| if number < failing { BAD } else { FINE });
            now_out = (0..endpoints).filter(|at| bench.endpoint(*at).ejected(bench.now)).count();
            assert!(now_out <= most, "{now_out} of {endpoints} are out, {percent} %");
        }
        assert!(most == 0 || now_out > 0 || bench.ejected().len() >= most, "{percent} % of {endpoints}");
    }
}

#[test]
fn with_too_few_left_everybody_is_asked() {
    let ejection = Duration::from_secs(60);
    let outliers = Outliers { ejected_percent: 100, panic_percent: 50, ejection, ..Outliers::default() };
    let mut bench = bench(4, outliers, Balance::RoundRobin);
    // One after the other fails, each while the others are well.
    for bad in 0..3 {
        bench.run(200, |number| if number <= bad { BAD } else { FINE });
    }
    assert_eq!(bench.ejected().len(), 3, "{:?}", bench.events);
    let served = bench.run(40, |number| if number <= 2 { BAD } else { FINE });
    for number in 0..4 {
        assert!(served.contains(&number), "{served:?}");
    }
    assert!((0..4).any(|_| bench.pick().chosen() == Chosen::Panic));
}

#[test]
fn who_cannot_be_reached_is_not_asked_in_a_panic() {
    let outliers = Outliers { panic_percent: 100, ..Outliers::default() };
    let mut bench = bench(4, outliers, Balance::RoundRobin);
    let served = bench.run(40, |number| if number == 1 { Outcome::Unreachable } else { FINE });
    assert_eq!(served.iter().filter(|number| **number == 1).count(), 1, "{served:?}");
}

#[test]
fn each_detector_finds_its_kind_of_failure() {
    let off = Outliers {
        errors: None,
        gateway_errors: None,
        local_failures: None,
        success_rate: false,
        failure_percent: None,
        ..Outliers::default()
    };
    let some = |outcome: Outcome| move |_: u64| outcome;
    let slow = Outliers { latency: Some(3), ..off.clone() };
    type Happens = alloc::boxed::Box<dyn Fn(u64) -> Outcome>;
    let every_third = |turn: u64| if turn.is_multiple_of(3) { BAD } else { FINE };
    let cases: [(Outliers, Happens, Option<Detector>); 9] = [
        (off.clone(), Box::new(some(BAD)), None),
        (Outliers { errors: Some(5), ..off.clone() }, Box::new(some(BAD)), Some(Detector::Errors)),
        (Outliers { errors: Some(5), ..off.clone() }, Box::new(every_third), None),
        (
            Outliers { gateway_errors: Some(5), ..off.clone() },
            Box::new(some(Outcome::Answered(503))),
            Some(Detector::GatewayErrors),
        ),
        (Outliers { gateway_errors: Some(5), ..off.clone() }, Box::new(some(BAD)), None),
        (
            Outliers { local_failures: Some(5), ..off.clone() },
            Box::new(some(Outcome::NoAnswer)),
            Some(Detector::LocalFailures),
        ),
        (Outliers { success_rate: true, ..off.clone() }, Box::new(every_third), Some(Detector::SuccessRate)),
        (
            Outliers { failure_percent: Some(30), ..off.clone() },
            Box::new(every_third),
            Some(Detector::FailurePercent),
        ),
        (Outliers { failure_percent: Some(50), ..off }, Box::new(every_third), None),
    ];
    for (outliers, happens, expected) in cases {
        let shown = alloc::format!("{outliers:?}");
        let mut bench = bench(10, outliers, Balance::RoundRobin);
        let mut turn = 0;
        bench.run(900, |number| {
            turn += u64::from(number == 3);
            if number == 3 { happens(turn) } else { FINE }
        });
        let by = bench.events.iter().find_map(|(name, what)| match what {
            What::Ejected { by, .. } => Some((name.to_string(), *by)),
            _ => None,
        });
        assert_eq!(by, expected.map(|by| ("e3".to_string(), by)), "{shown}");
    }
    let mut bench = self::bench(10, slow, Balance::RoundRobin);
    for _ in 0..900 {
        bench.now = bench.now.after(Duration::from_millis(10));
        let permit = bench.pick();
        let took = if &*permit.endpoint().spec.name == "e3" { 40 } else { 10 };
        let started = bench.now;
        permit.report_since(FINE, || started, started.after(Duration::from_millis(took)));
    }
    assert_eq!(bench.ejected(), ["e3"]);
}

#[test]
fn a_call_is_judged_by_how_it_ends_and_a_cut_answer_is_a_failure() {
    let mut bench = bench(10, Outliers::default(), Balance::RoundRobin);
    for _ in 0..900 {
        bench.now = bench.now.after(Duration::from_millis(10));
        let permit = bench.pick();
        permit.report(Outcome::Reached, bench.now);
        let status = if &*permit.endpoint().spec.name == "e3" { 503 } else { 200 };
        permit.report(Outcome::Ended(status), bench.now);
    }
    assert_eq!(bench.ejected()[0], "e3");
    let mut bench = self::bench(10, Outliers::default(), Balance::RoundRobin);
    for _ in 0..900 {
        bench.now = bench.now.after(Duration::from_millis(10));
        let permit = bench.pick();
        permit.report(FINE, bench.now);
        if &*permit.endpoint().spec.name == "e3" {
            permit.report(Outcome::Cut, bench.now);
        }
    }
    assert_eq!(bench.ejected()[0], "e3");
}

#[test]
fn old_failures_are_forgotten_with_the_window() {
    let mut bench = bench(10, Outliers { errors: None, ..Outliers::default() }, Balance::RoundRobin);
    let mut turn = 0;
    // A fifth fails, but in bursts further apart than the window and too small for it.
    for _ in 0..20 {
        bench.run(20, |number| {
            turn += u64::from(number == 3);
            if number == 3 { BAD } else { FINE }
        });
        bench.now = bench.now.after(Duration::from_secs(30));
    }
    assert!(turn >= 40 && bench.events.is_empty(), "{:?}", bench.events);
}
