//! Faults on purpose: which requests get one, and when there are no more. What is thrown here is carried out by the shell.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::rng::Rng;
use crate::spec::{ALL_PPM, Abort, Fault, Share};
use crate::time::{Duration, Instant, UnixTime};

/// Faults that a budget can save up, so that chance has some room below it.
const SAVED_MAX: u64 = 10;

/// The faults of one rule and what came of them so far, over all workers of a process. It lives as long as the rule's
/// faults stay as they are.
#[derive(Debug)]
pub struct Experiment {
    /// Whose rule it is.
    pub list: Arc<str>,
    /// The rule.
    pub rule: Arc<str>,
    /// What is done.
    pub fault: Arc<Fault>,
    /// What the budget still allows, in millionths of a request.
    saved: AtomicU64,
    /// When the window began that is looked at, in nanoseconds.
    window: AtomicU64,
    /// Requests without a fault that ended in it.
    ended: AtomicU32,
    /// Those of them that failed.
    failed: AtomicU32,
    /// The service failed by itself.
    stopped: AtomicBool,
}

/// What one request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// It waits so long first.
    pub delay: Option<Duration>,
    /// It is answered with this.
    pub abort: Option<Abort>,
    /// It is cut off.
    pub reset: bool,
    /// Its answer's body comes at so many bytes a second.
    pub slow: Option<u32>,
}

impl Injected {
    /// Nothing.
    pub const NOTHING: Self = Self { delay: None, abort: None, reset: false, slow: None };

    /// True when it gets anything.
    pub fn is_something(&self) -> bool {
        *self != Self::NOTHING
    }

    /// What it gets when another rule on its way has thrown something too: the first rule's of each kind.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            delay: self.delay.or(other.delay),
            abort: self.abort.or(other.abort),
            reset: self.reset || other.reset,
            slow: self.slow.or(other.slow),
        }
    }

    /// The words for it in logs and metrics.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let ends = self.reset || self.abort.is_some();
        [
            self.delay.map(|_| "delay"),
            self.reset.then_some("reset"),
            self.abort.filter(|_| !self.reset).map(|_| "abort"),
            self.slow.filter(|_| !ends).map(|_| "slow"),
        ]
        .into_iter()
        .flatten()
    }
}

impl Experiment {
    /// One that has not broken anything yet.
    pub fn new(list: Arc<str>, rule: Arc<str>, fault: Arc<Fault>) -> Self {
        Self {
            list,
            rule,
            fault,
            saved: AtomicU64::new(u64::from(ALL_PPM)),
            window: AtomicU64::new(0),
            ended: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// True when the service failed by itself, so that nothing is broken any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Throws the dice for one request.
    pub fn throw(&self, now: UnixTime, rng: &mut Rng) -> Injected {
        if self.is_stopped() || self.fault.until.is_some_and(|until| now >= until) {
            return Injected::NOTHING;
        }
        let Fault { delay, abort, reset, slow, .. } = &*self.fault;
        let injected = Injected {
            delay: thrown(delay.as_ref(), rng),
            abort: thrown(abort.as_ref(), rng),
            reset: thrown(reset.as_ref(), rng).is_some(),
            slow: thrown(slow.as_ref(), rng),
        };
        let allowed = self.fault.most_ppm.is_none_or(|most| self.pay(most, injected.is_something()));
        if allowed { injected } else { Injected::NOTHING }
    }

    /// Adds a request's share to the budget, and takes a fault from it if one is `wanted`.
    fn pay(&self, most_ppm: u32, wanted: bool) -> bool {
        let fault = u64::from(ALL_PPM);
        let spent = |saved: u64| {
            let saved = saved.saturating_add(u64::from(most_ppm)).min(SAVED_MAX * fault);
            if wanted { saved.checked_sub(fault).unwrap_or(saved) } else { saved }
        };
        let before = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| Some(spent(saved)))
            .unwrap_or_default();
        wanted && before.saturating_add(u64::from(most_ppm)).min(SAVED_MAX * fault) >= fault
    }

    /// A request ended that this experiment has done nothing to. True when that was what has stopped it.
    pub fn learn(&self, failed: bool, now: Instant) -> bool {
        let Some(stop) = &self.fault.stop else { return false };
        // Two workers that begin a window at the same time lose a few requests of it, which changes no decision.
        let began = Instant::from_nanos(self.window.load(Ordering::Relaxed));
        if now.since(began) > stop.window {
            self.window.store(now.as_nanos(), Ordering::Relaxed);
            self.ended.store(0, Ordering::Relaxed);
            self.failed.store(0, Ordering::Relaxed);
        }
        let ended = self.ended.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let failed = if failed {
            self.failed.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        } else {
            self.failed.load(Ordering::Relaxed)
        };
        let too_many = u64::from(failed) * 100 > u64::from(stop.failed_percent) * u64::from(ended);
        ended >= stop.requests_min && too_many && !self.stopped.swap(true, Ordering::Relaxed)
    }
}

fn thrown<T: Copy>(share: Option<&Share<T>>, rng: &mut Rng) -> Option<T> {
    let share = share?;
    (rng.below(u64::from(ALL_PPM)) < u64::from(share.ppm)).then_some(share.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Stop;

    const NOW: UnixTime = UnixTime(1_000);

    fn half(what: Abort) -> Option<Share<Abort>> {
        Some(Share { what, ppm: ALL_PPM / 2 })
    }

    fn experiment(fault: Fault) -> Experiment {
        Experiment::new("list".into(), "rule".into(), Arc::new(fault))
    }

    #[test]
    fn shares_hold_and_are_independent() {
        let fault = Fault {
            delay: Some(Share { what: Duration::from_secs(1), ppm: 100_000 }),
            abort: half(Abort::Http(503)),
            ..Fault::default()
        };
        let (experiment, mut rng) = (experiment(fault), Rng::new(1));
        let mut counts = [0; 4];
        for _ in 0..100_000 {
            let it = experiment.throw(NOW, &mut rng);
            counts[usize::from(it.delay.is_some()) + 2 * usize::from(it.abort.is_some())] += 1;
            assert!(!it.reset && it.slow.is_none());
        }
        for (count, expected) in counts.into_iter().zip([45_000, 5_000, 45_000, 5_000]) {
            assert!((expected - 1_000..expected + 1_000).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn a_budget_is_never_passed_in_any_stretch() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let most = 10_000 + rng.below(300_000) as u32;
            let fault = Fault { abort: half(Abort::Http(500)), most_ppm: Some(most), ..Fault::default() };
            let experiment = experiment(fault);
            let hits: std::vec::Vec<bool> =
                (0..3_000).map(|_| experiment.throw(NOW, &mut rng).is_something()).collect();
            for start in (0..3_000).step_by(37) {
                let mut hit = 0_u64;
                for (length, is_hit) in hits[start..].iter().enumerate() {
                    hit += u64::from(*is_hit);
                    let allowed = (length as u64 + 1) * u64::from(most) / 1_000_000 + SAVED_MAX;
                    assert!(hit <= allowed, "seed {seed}: {hit} of {length} from {start}, at most {allowed}");
                }
            }
            let all = hits.iter().filter(|hit| **hit).count() as u64;
            assert!(all * 1_000_000 >= 3_000 * u64::from(most) * 8 / 10, "seed {seed}: only {all} at {most}");
        }
    }

    #[test]
    fn an_experiment_ends_at_its_time() {
        let fault = Fault {
            reset: Some(Share { what: (), ppm: ALL_PPM }),
            until: Some(UnixTime(1_001)),
            ..Fault::default()
        };
        let (experiment, mut rng) = (experiment(fault), Rng::new(1));
        assert!(experiment.throw(NOW, &mut rng).reset);
        assert_eq!(experiment.throw(UnixTime(1_001), &mut rng), Injected::NOTHING);
    }

    #[test]
    fn an_experiment_stops_when_the_service_fails_by_itself() {
        let stop = Stop { failed_percent: 10, requests_min: 20, window: Duration::from_secs(10) };
        let fault = Fault { abort: half(Abort::Http(500)), stop: Some(stop), ..Fault::default() };
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        // Ten percent is not more than ten percent; failures of long ago do not count.
        let calm = experiment(fault.clone());
        for second in 0..100 {
            assert!(!calm.learn(second % 10 == 0, at(second)));
        }
        let few = experiment(fault.clone());
        for _ in 0..19 {
            assert!(!few.learn(true, at(1)));
        }
        assert!(!few.is_stopped());
        assert!(few.learn(true, at(2)), "the twentieth");
        assert!(few.is_stopped() && !few.learn(true, at(3)), "it stops once");
        assert_eq!(few.throw(NOW, &mut Rng::new(1)), Injected::NOTHING);
        let late = experiment(fault);
        for second in 0..40 {
            assert!(!late.learn(true, at(second)), "never twenty within ten seconds");
        }
    }

    #[test]
    fn what_ends_a_request_is_named_once() {
        let words = |it: Injected| it.words().collect::<std::vec::Vec<_>>().join("+");
        let delay = Some(Duration::from_secs(1));
        assert_eq!(words(Injected::NOTHING), "");
        assert_eq!(
            words(Injected { delay, abort: Some(Abort::Http(500)), reset: false, slow: Some(9) }),
            "delay+abort"
        );
        assert_eq!(
            words(Injected { delay, abort: Some(Abort::Http(500)), reset: true, slow: None }),
            "delay+reset"
        );
        assert_eq!(words(Injected { slow: Some(9), ..Injected::NOTHING }), "slow");
    }
}
