//! More requests than a service can do: what the gates of its instances let in without a number from anybody, and what is left
//! of the capacity.
//!
//! `LENO_SIM_LONG=1 cargo test --release -p leno-sim --test overload -- --nocapture` runs more seeds and prints the table of
//! docs/resilience.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use leno_core::admission::Class;
use leno_core::spec::{Balance, Concurrency};
use leno_core::time::{Duration, Instant};
use leno_sim::load::host::Admission;
use leno_sim::load::suite::{self, CAPACITY, Who};
use leno_sim::load::{Figures, Plan};

fn seeds() -> u64 {
    if std::env::var_os("LENO_SIM_LONG").is_some() { 4 } else { 1 }
}

fn auto() -> Admission {
    Admission::Leno(Concurrency::auto())
}

fn run(plan: Plan, admission: &Admission) -> Figures {
    let who = Who::Leno(Balance::default(), None);
    suite::figures(&plan.admitting(admission), &who, 0..seeds())
}

/// Good answers of the part that is measured, in percent of `capacity` for as long.
fn goodput(figures: &Figures, plan: &Plan, capacity: u64) -> f64 {
    let seconds = plan.length.as_secs_f64() - plan.measured_from.since(Instant::ZERO).as_secs_f64();
    figures.goodput(capacity, seconds * seeds() as f64)
}

fn millis(duration: Duration) -> u128 {
    duration.as_millis()
}

#[test]
fn an_overload_leaves_the_capacity_for_good_answers() {
    for (times, p99) in [(2, 200), (5, 500)] {
        let plan = suite::overload(times, 6);
        let figures = run(plan.clone(), &auto());
        let good = goodput(&figures, &plan, CAPACITY);
        assert!(good >= 95.0, "{times} x: {good} %");
        assert!(millis(figures.quantile(990)) < p99, "{times} x: {:?}", figures.quantile(990));
        // Refused requests are tried once more, within the budget.
        let asked = figures.asked as f64 / figures.requests as f64;
        assert!(asked < 1.21, "{times} x: {asked} times as many");
    }
}

#[test]
fn nobody_is_refused_before_and_after_an_overload() {
    let mut plan = suite::step(12);
    plan.measured_from = Instant::from_nanos(7_000_000_000);
    let after = run(plan, &auto());
    assert_eq!(after.failed, 0, "of {}", after.requests);
    let calm = || suite::all(6).remove(0).plan;
    let (with, without) = (run(calm(), &auto()), run(calm(), &Admission::All));
    assert_eq!((with.failed, with.requests), (0, without.requests));
    assert_eq!(with.quantile(990), without.quantile(990));
}

#[test]
fn what_becomes_slower_is_followed_within_seconds() {
    let plan = suite::slower(4, 16);
    let figures = run(plan, &auto());
    // From the eighth second on it can do a quarter.
    let slow = &figures.by_second[9..15];
    let all = CAPACITY / 4 * seeds();
    assert!(slow.iter().all(|good| *good * 10 >= all * 8), "{slow:?}");
    assert!(slow.iter().sum::<u64>() * 100 >= all * slow.len() as u64 * 92, "{slow:?}");
}

#[test]
fn what_is_critical_is_served_whatever_else_comes() {
    let figures = run(suite::classes(12), &auto());
    let (all, failed) = figures.by_class[Class::Critical.rank()];
    assert!(all > 5_000 && failed * 1_000 <= all, "{failed} of {all}");
    let (all, failed) = figures.by_class[Class::Low.rank()];
    assert!(failed * 10 > all * 4, "half of the others have to go: {failed} of {all}");
}

/// What else can be wrong with a service is not made worse.
#[test]
fn other_scenarios_are_as_they_were() {
    for scenario in suite::all(5) {
        if scenario.name.starts_with("overload") {
            continue;
        }
        let with = run(scenario.plan.clone(), &auto()).failed_percent();
        let without = run(scenario.plan, &Admission::All).failed_percent();
        assert!(with <= without + 0.1, "{}: {with} % and {without} % without", scenario.name);
    }
}

/// Applications of many kinds. What is offered, in percent of what one can do; at least so much of the smaller of the two has to
/// be answered well, in percent.
#[test]
fn every_kind_of_application_is_put_to_use() {
    for case in KINDS {
        let Kind { name, servers, mean, offered, tenth, least } = *case;
        let usual = mean.as_secs_f64() * tenth.map_or(1.0, |times| 0.9 + 0.1 * f64::from(times));
        let capacity = servers as f64 / usual;
        let rate = (capacity * offered / 100.0) as u64;
        let mut plan = suite::single(servers, mean, rate, tenth, 20);
        plan.measured_from = Instant::from_nanos(5_000_000_000);
        let figures = run(plan, &auto());
        let good = (figures.requests - figures.failed) as f64 / 15.0 / seeds() as f64;
        let possible = capacity.min(rate as f64);
        assert!(good >= possible * least / 100.0, "{name}: {good} of {possible} a second");
    }
}

struct Kind {
    name: &'static str,
    servers: usize,
    mean: Duration,
    offered: f64,
    tenth: Option<u32>,
    least: f64,
}

const fn kind(name: &'static str, servers: usize, micros: u64, offered: f64, least: f64) -> Kind {
    Kind { name, servers, mean: Duration::from_micros(micros), offered, tenth: None, least }
}

const KINDS: &[Kind] = &[
    kind("one thread, busy half of the time", 1, 10_000, 50.0, 97.0),
    kind("one thread, overloaded", 1, 10_000, 200.0, 85.0),
    kind("four, busy", 4, 10_000, 75.0, 98.0),
    kind("four, nearly too much", 4, 10_000, 90.0, 97.0),
    kind("a hundred, overloaded", 100, 50_000, 200.0, 92.0),
    kind("a thousand that wait for others, calm", 1_000, 200_000, 40.0, 98.0),
    kind("short ones, overloaded", 20, 4_000, 200.0, 92.0),
    kind("long ones, overloaded", 8, 200_000, 200.0, 85.0),
    kind("a trickle", 4, 10_000, 1.0, 80.0),
    Kind { tenth: Some(30), ..kind("one of ten takes long, calm", 10, 5_000, 50.0, 96.0) },
    Kind { tenth: Some(30), ..kind("one of ten takes long, overloaded", 10, 5_000, 200.0, 80.0) },
];

#[test]
fn the_table_of_the_manual() {
    if seeds() == 1 {
        return;
    }
    let table: [(&str, Plan, u64); 4] = [
        ("2 x", suite::overload(2, 12), CAPACITY),
        ("5 x", suite::overload(5, 12), CAPACITY),
        ("2 x for 70 s", suite::overload(2, 70), CAPACITY),
        ("2 x, then four times as slow", suite::slower(4, 24), CAPACITY * 14 / 23),
    ];
    for (name, plan, capacity) in table {
        let mut line = format!("| {name} |");
        for (callers, admission) in [
            (Who::Envoy, Admission::All),
            (Who::Linkerd, Admission::All),
            (Who::Leno(Balance::default(), None), Admission::All),
            (Who::Leno(Balance::default(), None), Admission::Envoy),
            (Who::Leno(Balance::default(), None), auto()),
        ] {
            let figures = suite::figures(&plan.clone().admitting(&admission), &callers, 0..seeds());
            let good = goodput(&figures, &plan, capacity);
            let (p50, p99) = (millis(figures.quantile(500)), millis(figures.quantile(990)));
            let worst = figures.by_second[2..plan.length.as_secs() as usize].iter().min().unwrap() / seeds();
            line.push_str(&format!(" {good:.1} %, {p50} / {p99} ms, worst second {worst} |"));
        }
        println!("{line}");
    }
    for (who, admission) in [("envoy's filter", Admission::Envoy), ("auto", auto())] {
        let figures = run(suite::classes(12), &admission);
        println!("classes, {who}: {:?}", figures.by_class);
        for case in KINDS {
            let Kind { name, servers, mean, offered, tenth, .. } = *case;
            let usual = mean.as_secs_f64() * tenth.map_or(1.0, |times| 0.9 + 0.1 * f64::from(times));
            let rate = (servers as f64 / usual * offered / 100.0) as u64;
            let figures = run(suite::single(servers, mean, rate, tenth, 20), &admission);
            let good = (figures.requests - figures.failed) as f64 / 19.0 / seeds() as f64;
            println!(
                "{who}: {name}: {good:.0} of {:.0} a second, {:?} / {:?}",
                (servers as f64 / usual).min(rate as f64),
                figures.quantile(500),
                figures.quantile(990)
            );
        }
    }
}
