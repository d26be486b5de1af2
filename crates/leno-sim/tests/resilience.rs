//! A service under load whose instances fail in every way that is known, beside models of what others do by default.
//!
//! The ordinary run is short. `LENO_SIM_LONG=1 cargo test --release -p leno-sim --test resilience -- --nocapture` runs every
//! scenario with more seeds and prints the tables of docs/resilience.md.

use leno_core::spec::{Balance, Care};
use leno_sim::load::suite::{self, Who};

#[test]
fn print() {
    let off = Some(Care { outliers: None, ..Care::default() });
    let who = [
        ("Envoy", Who::Envoy),
        ("Linkerd", Who::Linkerd),
        ("RR", Who::Leno(Balance::RoundRobin, off.clone())),
        ("LR", Who::Leno(Balance::LeastRequest, off.clone())),
        ("RR out", Who::Leno(Balance::RoundRobin, None)),
        ("LR out", Who::Leno(Balance::LeastRequest, None)),
    ];
    for scenario in suite::all(6) {
        println!("{}", scenario.name);
        for (name, who) in &who {
            let figures = suite::figures(&scenario.plan, who, 0..1);
            println!(
                "  {name:10} failed {:5.2} % p50 {:?} p99 {:?} ejected {:?} reached {} of {} last {}",
                figures.failed as f64 * 100.0 / figures.requests as f64,
                figures.quantile(500),
                figures.quantile(990),
                figures.ejected,
                figures.reached,
                figures.requests,
                figures.by_host[9]
            );
        }
    }
}
