//! A service under load whose instances fail in every way that is known, beside models of what others do by default.
//!
//! The ordinary run is short. `LENO_SIM_LONG=1 cargo test -p leno-sim --test resilience -- --nocapture` runs every scenario
//! longer and with more seeds, and prints the table of docs/resilience.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fmt::Write as _;

use leno_core::spec::{Balance, Care, HedgeSpec, Limits};
use leno_core::time::Duration;
use leno_sim::load::suite::{self, CAPACITY, Scenario, Who};
use leno_sim::load::{Figures, Plan, tail};

/// Seconds of each run, and seeds; the table has more of both.
const SECONDS: u64 = 6;
const SEEDS: u64 = 1;
const LONG_SECONDS: u64 = 12;
const LONG_SEEDS: u64 = 4;

/// Runs in which nobody may be put out.
const INNOCENT: u64 = 60;
const LONG_INNOCENT: u64 = 1_000;

fn is_long() -> bool {
    std::env::var_os("LENO_SIM_LONG").is_some()
}

/// Leno as it is when nothing is said.
fn defaults() -> Who {
    Who::Leno(Balance::default(), None)
}

fn scenario(name: &str) -> Scenario {
    suite::all(SECONDS).into_iter().find(|scenario| scenario.name.starts_with(name)).unwrap()
}

fn run(name: &str, who: &Who) -> Figures {
    suite::figures(&scenario(name).plan, who, 0..SEEDS)
}

#[test]
fn a_slow_instance_of_ten_leaves_the_99th_percentile_alone() {
    let healthy = run("calm", &defaults()).quantile(990);
    let slow = run("one slow", &defaults());
    assert!(slow.quantile(990) < healthy * 2, "{:?} beside {healthy:?}", slow.quantile(990));
    assert_eq!(slow.failed, 0);
}

#[test]
fn a_restart_or_the_death_of_an_instance_fails_nobody() {
    for name in ["rolling restart", "host killed", "flapping"] {
        let figures = run(name, &defaults());
        assert_eq!(figures.failed, 0, "{name}: {} of {}", figures.failed, figures.requests);
    }
}

#[test]
fn an_instance_that_fails_costs_no_more_than_it_takes_to_see_it() {
    for (name, most) in [("gray failure", 0.8), ("host that fails all", 0.8), ("host unreachable", 0.8)] {
        let (ours, theirs) = (run(name, &defaults()), run(name, &Who::Envoy));
        assert!(ours.failed_percent() < most, "{name}: {} %", ours.failed_percent());
        assert!(theirs.failed_percent() > 2.0, "{name}: {} %", theirs.failed_percent());
        assert!(!name.contains("fails") || ours.ejected.iter().all(|host| *host == suite::HOSTS - 1));
    }
}

#[test]
fn no_healthy_instance_is_put_out() {
    let seeds = if is_long() { LONG_INNOCENT } else { INNOCENT };
    leno_sim::run_each(seeds, |seed| {
        for balance in [Balance::RoundRobin, Balance::default()] {
            let plan = suite::innocent(seed);
            let figures = suite::figures(&plan, &Who::Leno(balance, None), seed..seed + 1);
            if !figures.ejected.is_empty() {
                return Err(format!("{balance:?}: {:?} are put out", figures.ejected));
            }
        }
        Ok(())
    });
}

/// Each of four callers may have as much under way as a fourth of the instances can work on.
fn limited() -> Who {
    let limits =
        Limits { requests: Some(14), pending_timeout: Some(Duration::from_millis(100)), ..Limits::NONE };
    Who::Leno(Balance::default(), Some(Box::new(Care { limits, ..Care::default() })))
}

#[test]
fn with_limits_an_overload_leaves_nine_tenths_of_the_capacity_for_good_answers() {
    let figures = run("overload", &limited());
    let seconds = (SECONDS - 1) as f64;
    let goodput = figures.goodput(CAPACITY, seconds);
    assert!(goodput >= 90.0, "{goodput} %");
    assert!(figures.quantile(990) < Duration::from_millis(400), "{:?}", figures.quantile(990));
}

/// Second attempts after the 95th percentile: a long tail is gone, for at most 5 % more requests.
#[test]
fn second_attempts_cut_a_long_tail_for_a_twentieth_more() {
    let (seconds, seeds) = if is_long() { (LONG_SECONDS, LONG_SEEDS) } else { (SECONDS, SEEDS) };
    let figures = |plan: &Plan, who: &Who| suite::figures(plan, who, 0..seeds);
    let millis = |figures: &Figures, thousandths| figures.quantile(thousandths).as_secs_f64() * 1_000.0;
    let who = [
        ("Envoy", Who::Envoy),
        ("Linkerd", Who::Linkerd),
        ("Leno", defaults()),
        ("Leno, `hedge: p95`", tail::hedging()),
        (
            "Leno, `hedge: {after: p95, percent: 100}`",
            Who::Hedging(HedgeSpec { percent: 100, ..tail::HEDGE }),
        ),
    ];
    for (name, plan) in
        [("long tail", tail::long_tail(seconds)), ("slow as a whole", tail::slow_as_a_whole(seconds))]
    {
        for (who, what) in &who {
            let it = figures(&plan, what);
            println!(
                "{name} | {who} | {:.2} %, {:.0} / {:.0} / {:.0} ms, {:.3} for each",
                it.failed_percent(),
                millis(&it, 500),
                millis(&it, 950),
                millis(&it, 990),
                it.reached as f64 / it.arrived as f64
            );
        }
    }
    let plan = tail::long_tail(seconds);
    let (without, with) = (figures(&plan, &defaults()), figures(&plan, &tail::hedging()));
    assert!(
        with.quantile(990) * 2 < without.quantile(990),
        "{:?} of {:?}",
        with.quantile(990),
        without.quantile(990)
    );
    assert_eq!((without.failed, with.failed), (0, 0));
    assert!(
        with.reached > with.arrived && with.reached * 100 <= with.arrived * 105,
        "{} of {}",
        with.reached,
        with.arrived
    );
    // A service that is slow as a whole is not asked twice as often for it.
    let plan = tail::slow_as_a_whole(seconds);
    let with = figures(&plan, &tail::hedging());
    assert!(
        with.reached * 1_000 <= with.arrived * if is_long() { 1_030 } else { 1_045 },
        "{} of {}",
        with.reached,
        with.arrived
    );
}

#[test]
fn the_table_of_the_manual() {
    if !is_long() {
        return;
    }
    let off = || Some(Box::new(Care { outliers: None, ..Care::default() }));
    let who = [
        ("Envoy", Who::Envoy),
        ("Linkerd", Who::Linkerd),
        ("round robin", Who::Leno(Balance::RoundRobin, None)),
        ("least request", Who::Leno(Balance::LeastRequest, None)),
        ("peak EWMA", Who::Leno(Balance::PeakEwma, None)),
        ("peak EWMA, no outliers", Who::Leno(Balance::PeakEwma, off())),
        ("limits", limited()),
    ];
    let mut text = String::from("| scenario |");
    who.iter().for_each(|(name, _)| write!(text, " {name} |").unwrap());
    text.push_str("\n|---|");
    who.iter().for_each(|_| text.push_str("---|"));
    for scenario in suite::all(LONG_SECONDS) {
        write!(text, "\n| {} |", scenario.name).unwrap();
        for (_, who) in &who {
            let figures = suite::figures(&scenario.plan, who, 0..LONG_SEEDS);
            let millis = |thousandths| figures.quantile(thousandths).as_secs_f64() * 1_000.0;
            let (p50, p99) = (millis(500), millis(990));
            write!(text, " {:.2} %, {p50:.0} / {p99:.0} ms |", figures.failed_percent()).unwrap();
        }
    }
    println!("{text}");
}
