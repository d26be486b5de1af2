//! How long an endpoint takes, remembered as a peak EWMA (Finagle's, as Linkerd uses it): a slow answer is believed at
//! once, a fast one by and by. The cost of an endpoint is its latency times the requests under way there with this one.
//!
//! The past loses weight with time, and not only when there is an answer: who is slow gets no requests, and would else be
//! taken for slow for ever. That is done when a backend is looked over, every two seconds or so, so that a pick reads two
//! numbers and no clock.

use super::endpoint::{Live, Outcome};
use crate::spec::Ewma;
use crate::time::{Duration, Instant};

/// The longest latency that is told apart, in microseconds: some seventeen minutes.
const MICROS_MAX: u64 = 1_000_000_000;

impl Live {
    /// A request came to this after so long.
    pub(super) fn hear(&self, outcome: Outcome, took: Duration, ewma: &Ewma, now: Instant) {
        let micros = (took.as_micros().min(u128::from(MICROS_MAX)) as u64).max(1);
        let known = self.rtt.get();
        // A quick failure does not make anybody fast.
        let well = match outcome {
            // It was no answer; what it says is said of the load.
            Outcome::Shed => return,
            Outcome::Reached => true,
            Outcome::Answered(status) => status < 500,
            Outcome::Ended(_) | Outcome::Cut => return,
            Outcome::Unreachable | Outcome::NoAnswer | Outcome::Outrun => false,
        };
        if micros > known {
            if well || known > 0 {
                self.rtt.set(micros);
            }
        } else if well {
            let (part, whole) = share(now.since(self.heard.get()), ewma.decay);
            self.rtt.set((known - (known - micros) * part / whole).max(1));
        }
        self.heard.set(now);
    }

    /// Nothing was heard since the endpoints were looked over at `looked`, if that is so.
    pub(super) fn fade(&self, looked: Instant, ewma: &Ewma, now: Instant) {
        if self.heard.get() < looked && self.rtt.get() > 0 {
            let (part, whole) = share(now.since(looked), ewma.decay);
            self.rtt.set((self.rtt.get() * (whole - part) / whole).max(1));
        }
    }

    /// What a request more costs here, beside `other`.
    pub(super) fn cost(&self, other: &Self, default_rtt: u64) -> u64 {
        let or = |rtt: u64, otherwise: u64| if rtt > 0 { rtt } else { otherwise };
        let rtt = or(self.rtt.get(), or(default_rtt, or(other.rtt.get(), 1)));
        rtt.saturating_mul(u64::from(self.load()) + 1)
    }
}

/// The weight of what comes `after` the last word: `after / (after + decay)`, which is what an exponential begins like.
fn share(after: Duration, decay: Duration) -> (u64, u64) {
    let micros = |it: Duration| it.as_micros().min(u128::from(MICROS_MAX)) as u64;
    let (after, decay) = (micros(after), micros(decay).max(1));
    (after, after + decay)
}

#[cfg(test)]
mod tests;
