//! A failing service is not buried under the retries of those before it.

use leno_core::spec::BudgetSpec;
use leno_core::time::Duration;
use leno_sim::run_each;
use leno_sim::storm::{Damage, Storm, run};

/// Retries that a budget saves up.
const SAVED: u64 = 100;

/// Five tiers, each of which would try three times.
fn storm(fails_of_thousand: u64) -> Storm {
    Storm {
        tiers: 5,
        fails_of_thousand,
        closes: true,
        sheds: false,
        requests: 4_000,
        interval: Duration::from_millis(1),
        before: 1_500,
        attempts: 3,
        budget: None,
        told: true,
    }
}

/// Whatever share of its requests the last service fails: it gets at most a fifth more.
#[test]
fn a_storm_over_five_tiers_amplifies_at_most_by_a_fifth() {
    run_each(33, |seed| {
        let share = [20, 50, 100, 150, 165, 180, 200, 300, 500, 800, 1_000][(seed % 11) as usize];
        let damage = run(&storm(share), seed)?;
        let amplification = damage.amplification_percent();
        // Where hardly more fails than may be tried again, what was saved up lasts longer; else there is the part of a retry
        // that each tier had when counting began.
        let saved = if share < 300 { SAVED } else { 5 };
        if (damage.load - saved.min(damage.load)) * 5 > damage.requests * 6 {
            return Err(format!("{amplification} % at {share} of 1,000 failing: {damage:?}"));
        }
        // And it is worth something: what can be saved is.
        let failed = damage.requests - damage.answered;
        if share <= 150 && failed * 1_000 > damage.requests * share / 4 {
            return Err(format!("{failed} of {} failed at {share} of 1,000", damage.requests));
        }
        Ok(())
    });
}

/// The same when the last sidecar refuses because its application has too much to do: nothing of that reaches the application, and
/// the sidecar is not asked much more often either.
#[test]
fn refusals_are_not_multiplied() {
    for share in [100, 500, 900, 1_000] {
        let damage = run(&Storm { sheds: true, ..storm(share) }, 1).unwrap();
        let saved = if share < 300 { SAVED } else { 5 };
        assert!((damage.load - saved) * 5 <= damage.requests * 6, "{share}: {damage:?}");
    }
}

/// What the two things are worth that hold it down, and what it is without them. The figures are in docs/tasks/retries.md.
#[test]
fn without_budgets_it_multiplies() {
    let amplified = |storm: &Storm| run(storm, 1).map(|damage: Damage| damage.amplification_percent());
    let whole = storm(1_000);
    let unlimited = BudgetSpec { percent: 100, per_second: 1_000_000 };
    let small = Storm { requests: 40, before: 0, ..whole.clone() };
    // Three attempts at each of five tiers.
    let none = Storm { budget: Some(unlimited), told: false, ..small };
    assert_eq!(amplified(&none), Ok(24_300));
    // A budget at each tier, and nobody tells: 1.2 to the fifth.
    let alone = amplified(&Storm { told: false, ..whole.clone() });
    assert!(matches!(alone, Ok(240..=250)), "{alone:?}");
    let both = amplified(&whole);
    assert!(matches!(both, Ok(115..=120)), "{both:?}");
}
