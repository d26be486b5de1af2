//! When second attempts beside slow ones are begun at a backend, and how many there may be. Made when the first request comes
//! that may have one.

use alloc::boxed::Box;

use super::times::Times;
use super::{Backend, Backends};
use crate::route::BackendId;
use crate::snapshot::Snapshot;
use crate::spec::{HedgeAfter, HedgeSpec};
use crate::time::Duration;

/// All of something, in its thousandths.
const WHOLE: u32 = 1_000;
/// What one second attempt takes from what was saved: each request saves its percentage, in thousandths.
const HEDGE: u32 = 100 * WHOLE;
/// Second attempts that can be saved up, so that a quiet hour does not pay for a bad minute.
pub const HEDGES_SAVED_MAX: u32 = 10;

/// When fewer of the second attempts than this are answered first, in thousandths, there are fewer of them. Against a long tail it is
/// one of three or more; where everything is slow it is hardly any, since the second one is as slow as the first.
const WORTH: u32 = 100;
/// The least share of the budget that is left then, in thousandths, so that it is seen when they are worth it again.
const LEFT_MIN: u32 = 100;
/// So many second attempts back are remembered, more or less.
const REMEMBERED: u32 = 8;

/// What is known of a backend whose requests may have second attempts.
#[derive(Clone, Debug)]
pub(super) struct Hedging {
    /// Parts of a second attempt. Nothing at first: there are never more than the share of the requests so far.
    saved: u32,
    /// How many of the second attempts are answered first, in thousandths. All, as long as nothing is known.
    won: u32,
    /// How long its answers take.
    times: Times,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { saved: 0, won: WHOLE, times: Times::default() }
    }
}

impl Hedging {
    /// A request that may have a second attempt was sent.
    fn deposit(&mut self, percent: u32) {
        let left = (self.won * WHOLE / WORTH).clamp(LEFT_MIN, WHOLE);
        self.saved = (self.saved + percent * left).min(HEDGES_SAVED_MAX * HEDGE);
    }

    /// A second attempt was answered first.
    fn won(&mut self) {
        self.won = (self.won + WHOLE / REMEMBERED).min(WHOLE);
    }

    fn withdraw(&mut self) -> bool {
        match self.saved.checked_sub(HEDGE) {
            Some(rest) => {
                self.saved = rest;
                // It counts as lost until it has won: what is slow is not waited for to learn that it is.
                self.won -= self.won / REMEMBERED;
                true
            }
            None => false,
        }
    }
}

impl Backends {
    /// Counts a request that may have a second attempt, and says after how long; `None`: it is not known yet what is slow, or
    /// there is nobody else to ask.
    pub fn hedge_delay(&mut self, snapshot: &Snapshot, id: BackendId, spec: &HedgeSpec) -> Option<Duration> {
        let live = self.live_mut(snapshot, id).filter(|live| live.endpoints.len() > 1)?;
        let hedging = live.hedging.get_or_insert_default();
        hedging.deposit(spec.percent);
        match spec.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Quantile(percent) => hedging.times.quantile(percent),
        }
    }

    /// The first attempt of such a request was answered, or was given up for the second one's answer, after so long.
    pub fn hedge_learns(&mut self, snapshot: &Snapshot, id: BackendId, took: Duration) {
        if let Some(hedging) = self.hedging(snapshot, id) {
            hedging.times.add(took);
        }
    }

    /// A second attempt was answered first.
    pub fn hedge_won(&mut self, snapshot: &Snapshot, id: BackendId) {
        if let Some(hedging) = self.hedging(snapshot, id) {
            hedging.won();
        }
    }

    /// True when a second attempt may be made now.
    pub fn may_hedge(&mut self, snapshot: &Snapshot, id: BackendId) -> bool {
        self.hedging(snapshot, id).is_some_and(|hedging| hedging.saved >= HEDGE)
    }

    /// Takes one second attempt from what was saved; false when there is none left.
    pub fn take_hedge(&mut self, snapshot: &Snapshot, id: BackendId) -> bool {
        self.hedging(snapshot, id).is_some_and(Hedging::withdraw)
    }

    fn hedging(&mut self, snapshot: &Snapshot, id: BackendId) -> Option<&mut Hedging> {
        self.live_mut(snapshot, id)?.hedging.as_deref_mut()
    }
}

impl Backend {
    /// What a backend of the same name knew before.
    pub(super) fn hedging_of(before: Option<&Self>) -> Option<Box<Hedging>> {
        before?.hedging.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Whatever is asked and whenever: no more second attempts than the share of the requests so far, and after a quiet time
    /// no more than can be saved up.
    #[test]
    fn the_share_is_never_exceeded() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let percent = 1 + rng.below(100) as u32;
            let mut hedging = Hedging::default();
            let (mut requests, mut hedges, mut since) = (0_u64, 0_u64, (0, 0));
            for _ in 0..5_000 {
                // Now many are slow, now few.
                let slow = 1 + rng.below(4);
                if rng.below(1 + slow) == 0 {
                    let made = hedging.withdraw();
                    hedges += u64::from(made);
                    if made && rng.below(4) >= slow - 1 {
                        hedging.won();
                    }
                } else {
                    hedging.deposit(percent);
                    requests += 1;
                }
                assert!(hedges * 100 <= requests * u64::from(percent), "seed {seed}: {hedges} of {requests}");
                let (then, before) = since;
                let lately = (requests - then) * u64::from(percent) + u64::from(HEDGES_SAVED_MAX * 100);
                assert!((hedges - before) * 100 <= lately, "seed {seed}");
                if rng.below(500) == 0 {
                    since = (requests, hedges);
                }
            }
        }
    }

    /// Second attempts that are hardly ever answered first become few, and as many as before soon after they are again.
    #[test]
    fn what_is_no_use_becomes_rare() {
        let made = |hedging: &mut Hedging, won: &mut dyn FnMut() -> bool| {
            (0..10_000).fold(0, |made, _| {
                hedging.deposit(5);
                let hedges = hedging.withdraw();
                if hedges && won() {
                    hedging.won();
                }
                made + u32::from(hedges)
            })
        };
        let mut rng = Rng::new(3);
        let mut hedging = Hedging::default();
        // One of three is enough to have all of them.
        assert!(made(&mut hedging, &mut || rng.below(3) == 0) > 470);
        assert!(made(&mut hedging, &mut || false) < 90);
        assert!(made(&mut hedging, &mut || false) <= 60);
        assert!(made(&mut hedging, &mut || rng.below(3) == 0) > 400);
    }
}
