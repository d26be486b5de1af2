use super::*;
use crate::rng::Rng;
use crate::time::Duration;

fn spec(percent: u32, per_second: u32) -> Option<BudgetSpec> {
    Some(BudgetSpec { percent, per_second })
}

/// Whatever is asked and whenever: no more retries than requests, time and what was saved allow.
#[test]
fn a_budget_is_never_exceeded() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (percent, per_second) = (rng.below(101) as u32, rng.below(50) as u32);
        let configured = if seed == 0 { None } else { spec(percent, per_second) };
        let (percent, per_second) = if seed == 0 { (20, 10) } else { (percent, per_second) };
        let mut budget = Budget::new(configured);
        let saved = budget.saved / RETRY;
        let (mut now, mut requests, mut retries) = (Instant::ZERO, 0_u64, 0_u64);
        budget.deposit(now);
        for _ in 0..5_000 {
            now = now.after(Duration::from_micros(rng.below(3_000)));
            if rng.one_in(2) {
                budget.deposit(now);
                requests += 1;
            } else if budget.withdraw(now) {
                retries += 1;
            }
            let by_requests = (requests + 1) * u64::from(percent);
            let by_time = u128::from(per_second) * u128::from(now.as_nanos()) / 10_000_000;
            // Each counts where it is more, and which one that is may change all the time.
            let allowed = saved * 100 + by_requests + by_time as u64 + 100;
            assert!(
                retries * 100 <= allowed,
                "seed {seed}: {retries} retries of {requests} requests at {now:?}"
            );
        }
    }
}

/// With many requests the share is all there is.
#[test]
fn time_adds_nothing_to_a_larger_share() {
    let mut budget = Budget::new(None);
    while budget.withdraw(Instant::ZERO) {}
    let (mut now, mut retries) = (Instant::ZERO, 0);
    for _ in 0..10_000 {
        now = now.after(Duration::from_millis(1));
        budget.deposit(now);
        retries += u32::from(budget.withdraw(now));
    }
    assert!((1_998..=2_010).contains(&retries), "{retries}");
    // With one a second time gives ten, and that one its share.
    let mut retries = 0;
    for _ in 0..10 {
        now = now.after(Duration::from_secs(1));
        budget.deposit(now);
        while budget.withdraw(now) {
            retries += 1;
        }
    }
    assert!((99..=103).contains(&retries), "{retries}");
}

#[test]
fn nothing_is_nothing() {
    let mut budget = Budget::new(spec(0, 0));
    budget.deposit(Instant::ZERO);
    assert!(!budget.withdraw(Instant::ZERO.after(Duration::from_secs(3600))));
}

#[test]
fn a_change_keeps_what_was_used_up() {
    let mut budget = Budget::new(None);
    while budget.withdraw(Instant::ZERO) {}
    budget.configure(spec(50, 0));
    assert!(!budget.withdraw(Instant::ZERO));
    budget.deposit(Instant::ZERO);
    assert!(!budget.withdraw(Instant::ZERO));
    budget.deposit(Instant::ZERO);
    assert!(budget.withdraw(Instant::ZERO));
    budget.configure(None);
    assert!(!budget.withdraw(Instant::ZERO));
}

#[test]
fn a_long_silence_overflows_nothing() {
    let mut budget = Budget::new(spec(100, BUDGET_PER_SECOND_MAX));
    budget.deposit(Instant::ZERO);
    assert!(budget.withdraw(Instant::from_nanos(u64::MAX)));
}
