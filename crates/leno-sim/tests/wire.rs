//! The exchange over the real transport, with connections that are cut anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

use leno_sim::wire;

/// Scenarios per run.
const SCENARIOS: u64 = 1_000;

#[test]
fn what_is_said_to_have_had_no_effect_had_none() {
    let [answered, proven, unproven, links] = [const { AtomicU64::new(0) }; 4];
    leno_sim::run_each(SCENARIOS, |seed| {
        let summary = wire::run(seed)?;
        for (sum, part) in [
            (&answered, summary.answered),
            (&proven, summary.proven),
            (&unproven, summary.unproven),
            (&links, summary.links),
        ] {
            sum.fetch_add(part, Ordering::Relaxed);
        }
        Ok(())
    });
    let sums = [answered, proven, unproven, links].map(AtomicU64::into_inner);
    println!("answered, proven, unproven, links: {sums:?}");
    assert!(leno_sim::seeds(SCENARIOS).count() == 1 || sums.iter().all(|sum| *sum > 500), "{sums:?}");
}
