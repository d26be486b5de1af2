//! A service in three zones, with callers in each, beside models of what others do.
//!
//! `LENO_SIM_LONG=1 cargo test -p leno-sim --test zones -- --nocapture` prints the table of docs/resilience.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fmt::Write as _;

use leno_core::spec::{Balance, Locality};
use leno_sim::load::Figures;
use leno_sim::load::suite::Scenario;
use leno_sim::load::zones::{self, Who};

/// Seconds of each run, and seeds; the table has more of both.
const SECONDS: u64 = 6;
const SEEDS: u64 = 1;
const LONG_SECONDS: u64 = 12;
const LONG_SEEDS: u64 = 4;

fn scenario(name: &str) -> Scenario {
    zones::all(SECONDS).into_iter().find(|scenario| scenario.name.starts_with(name)).unwrap()
}

fn run(name: &str, who: &Who) -> Figures {
    zones::figures(&scenario(name).plan, who, 0..SEEDS)
}

#[test]
fn in_quiet_times_nothing_leaves_its_zone() {
    let (calm, anywhere) = (run("calm", &Who::leno()), run("calm", &Who::anywhere()));
    assert_eq!(calm.failed, 0);
    assert!(calm.crossed_percent() < 0.5, "{} %", calm.crossed_percent());
    assert!(anywhere.crossed_percent() > 60.0);
    assert!(calm.quantile(990) < anywhere.quantile(990) * 11 / 10);
}

#[test]
fn a_zone_or_half_of_one_that_is_lost_fails_nobody() {
    let calm = run("calm", &Who::leno()).quantile(990);
    for name in ["zone lost", "half of a zone lost"] {
        let figures = run(name, &Who::leno());
        assert_eq!(figures.failed, 0, "{name}: {} of {}", figures.failed, figures.requests);
        assert!(figures.quantile(990) < calm * 3 / 2, "{name}: {:?}", figures.quantile(990));
        assert!(
            figures.crossed_percent() < 35.0,
            "{name}: only what has to leaves: {}",
            figures.crossed_percent()
        );
    }
    assert!(run("zone lost", &Who::Envoy).failed_percent() > 30.0);
}

#[test]
fn a_zone_that_answers_nobody_or_badly_costs_no_more_than_it_takes_to_see_it() {
    for (name, most) in [("zone unreachable", 3.0), ("zone with errors", 3.0)] {
        let (ours, theirs) = (run(name, &Who::leno()), run(name, &Who::Envoy));
        assert!(ours.failed_percent() < most, "{name}: {} %", ours.failed_percent());
        assert!(theirs.failed_percent() > 8.0, "{name}: {} %", theirs.failed_percent());
    }
}

#[test]
fn a_slow_zone_is_used_as_far_as_it_is_fast() {
    for (name, times) in [("zone slow (3 x)", 2), ("zone slow (10 x)", 4)] {
        let figures = run(name, &Who::leno());
        let (calm, theirs) = (run("calm", &Who::leno()), run(name, &Who::Envoy));
        assert_eq!(figures.failed, 0, "{name}");
        assert!(figures.quantile(990) < calm.quantile(990) * times, "{name}: {:?}", figures.quantile(990));
        assert!(theirs.quantile(990) > calm.quantile(990) * 10, "{name}: {:?}", theirs.quantile(990));
    }
}

#[test]
fn a_zone_with_many_callers_and_few_instances_is_not_overloaded() {
    for (name, crossed_max) in [("zone too small", 17.0), ("zone far too small", 25.0)] {
        for who in [Who::leno(), Who::Leno(Balance::RoundRobin, Locality::new())] {
            let plan = scenario(name).plan;
            let figures = zones::figures(&plan, &who, 0..SEEDS);
            let calm = run("calm", &Who::leno()).quantile(990);
            assert_eq!(figures.failed, 0, "{name}");
            assert!(figures.quantile(990) < calm * 3 / 2, "{name}: {:?}", figures.quantile(990));
            // What Envoy's zone-aware routing sends away to have the same load everywhere.
            assert!(figures.crossed_percent() < crossed_max, "{name}: {}", figures.crossed_percent());
            // No instance has more than it can do.
            let most = figures.by_host.iter().max().copied().unwrap_or(0) as f64 / SECONDS as f64;
            let can = zones::CAPACITY as f64 / zones::HOSTS as f64;
            assert!(most < can, "{name}: {most} of {can} requests per second");
            // And those of one zone have the same.
            for zone in 0..3 {
                let of_zone =
                    || plan.zones.hosts.iter().zip(&figures.by_host).filter(move |it| *it.0 == zone);
                let (least, most) = (of_zone().map(|it| it.1).min(), of_zone().map(|it| it.1).max());
                let (least, most) = (*least.unwrap() as f64, *most.unwrap() as f64);
                assert!(most < least * 1.5, "{name}, zone {zone}: {least} to {most}");
            }
        }
    }
}

#[test]
fn the_table_of_the_manual() {
    if std::env::var_os("LENO_SIM_LONG").is_none() {
        return;
    }
    let who = [
        ("Envoy", Who::Envoy),
        ("Envoy, zone-aware", Who::ZoneAware),
        ("Linkerd", Who::Linkerd),
        ("Leno, `prefer: none`", Who::anywhere()),
        ("Leno, `overflow_percent: none`", Who::strict()),
        ("Leno", Who::leno()),
        ("Leno, round robin", Who::Leno(Balance::RoundRobin, Locality::new())),
    ];
    let mut text = String::from("| scenario |");
    who.iter().for_each(|(name, _)| write!(text, " {name} |").unwrap());
    text.push_str("\n|---|");
    who.iter().for_each(|_| text.push_str("---|"));
    for scenario in zones::all(LONG_SECONDS) {
        write!(text, "\n| {} |", scenario.name).unwrap();
        for (_, who) in &who {
            let figures = zones::figures(&scenario.plan, who, 0..LONG_SEEDS);
            let millis = |thousandths| figures.quantile(thousandths).as_secs_f64() * 1_000.0;
            let (p50, p99) = (millis(500), millis(990));
            let (failed, crossed) = (figures.failed_percent(), figures.crossed_percent());
            write!(text, " {failed:.2} %, {p50:.0} / {p99:.0} ms, {crossed:.0} % |").unwrap();
        }
    }
    println!("{text}");
}
