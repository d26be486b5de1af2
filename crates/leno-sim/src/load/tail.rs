//! Answers that now and then take long, whoever gives them: what second attempts are for, and what they must not make worse.

use leno_core::spec::{HEDGE_PERCENT, HedgeAfter, HedgeSpec};
use leno_core::time::Instant;

use super::Plan;
use super::host::Mood;
use super::suite::{CAPACITY, Who, calm, second};

/// What `hedge: p95` says.
pub const HEDGE: HedgeSpec = HedgeSpec { after: HedgeAfter::Quantile(95), percent: HEDGE_PERCENT };

/// Leno with it.
pub const fn hedging() -> Who {
    Who::Hedging(HEDGE)
}

/// One answer of fifty takes twenty times as long, on every instance.
const TAIL: Mood = Mood::Tail(2, 20);

/// A quarter of the capacity, with a long tail.
pub fn long_tail(seconds: u64) -> Plan {
    let mut plan = calm(seconds);
    plan.rates = vec![(Instant::ZERO, CAPACITY / 4)];
    plan.hosts.iter_mut().for_each(|host| host.moods = vec![(Instant::ZERO, TAIL)]);
    // What is slow has been learnt by then.
    plan.measured_from = second(2);
    plan
}

/// The same, until from the third second on everything takes five times as long: more than the service can do.
pub fn slow_as_a_whole(seconds: u64) -> Plan {
    let mut plan = long_tail(seconds);
    plan.hosts.iter_mut().for_each(|host| host.moods.push((second(3), Mood::Slow(5))));
    plan
}
