//! Ten thousand seeds through the real machines, each step compared with the model.

use std::sync::atomic::{AtomicU64, Ordering};

use leno_sim::mesh;

/// Scenarios per run; every one takes a millisecond or two in a debug build.
const SCENARIOS: u64 = 10_000;

#[test]
fn every_request_comes_to_its_one_promised_end() {
    let [answered, told, cut, left, retries, swaps, limited] = [const { AtomicU64::new(0) }; 7];
    leno_sim::run_each(SCENARIOS, |seed| {
        let summary = mesh::run(seed)?;
        for (sum, part) in [
            (&answered, summary.answered),
            (&told, summary.told),
            (&cut, summary.cut),
            (&left, summary.left),
            (&retries, summary.retries),
            (&swaps, summary.swaps),
            (&limited, summary.limited),
        ] {
            sum.fetch_add(part, Ordering::Relaxed);
        }
        Ok(())
    });
    let sums = [answered, told, cut, left, retries, swaps, limited].map(AtomicU64::into_inner);
    println!("answered, told, cut, left, retries, swaps, limited: {sums:?}");
    // Every kind of end was seen, unless a single seed was asked for.
    assert!(leno_sim::seeds(SCENARIOS).count() == 1 || sums.iter().all(|sum| *sum > 1_000), "{sums:?}");
}
