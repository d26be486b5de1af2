//! How many retries a backend allows beside ordinary requests, so that a failing backend is not buried under them.

use crate::spec::{BUDGET_PER_SECOND_MAX, BUDGET_PERCENT_MAX, BudgetSpec};
use crate::time::Instant;

/// Retries allowed per ordinary request: one in five (Linkerd's and Envoy's default ratio of 0.2).
pub const RETRIES_PER_REQUEST: u64 = 5;
/// Retries allowed each second however few requests there are (Linkerd's default, which adds it to the share).
pub const RETRIES_PER_SECOND_MIN: u64 = 10;
/// What can be saved up: this many seconds' worth of the minimum rate (Linkerd's ttl).
const SAVED_SECONDS_MAX: u64 = 10;
/// And, where that is little, what so many requests add.
const SAVED_REQUESTS_MAX: u64 = 100;

/// One retry in the budget's unit, thousandths.
const RETRY: u64 = 1_000;

/// A token bucket filled by requests, or by time where that gives more: with many requests there is never more than the
/// share, with few there is something.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Thousandths of a retry.
    saved: u64,
    /// What a request adds to them.
    per_request: u64,
    /// What a second adds to them where requests add less.
    per_second: u64,
    /// What requests have added since time last filled it; time adds only what is missing in that.
    by_requests: u64,
    /// When time last filled it.
    filled: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Budget {
    /// A full one.
    pub fn new(spec: Option<BudgetSpec>) -> Self {
        let mut budget = Self { saved: 0, per_request: 0, per_second: 0, by_requests: 0, filled: None };
        budget.configure(spec);
        budget.saved = budget.saved_max();
        budget
    }

    /// Follows a change of the configuration; what was saved is kept as far as it may be.
    pub fn configure(&mut self, spec: Option<BudgetSpec>) {
        (self.per_request, self.per_second) = match spec {
            None => (RETRY / RETRIES_PER_REQUEST, RETRIES_PER_SECOND_MIN * RETRY),
            Some(spec) => (
                u64::from(spec.percent.min(BUDGET_PERCENT_MAX)) * RETRY / 100,
                u64::from(spec.per_second.min(BUDGET_PER_SECOND_MAX)) * RETRY,
            ),
        };
        self.saved = self.saved.min(self.saved_max());
    }

    /// An ordinary request was sent.
    pub fn deposit(&mut self, now: Instant) {
        self.fill(now);
        self.saved = (self.saved + self.per_request).min(self.saved_max());
        // What came with the fill belongs to the time before it.
        if self.filled != Some(now) {
            self.by_requests += self.per_request;
        }
    }

    /// Takes one retry; false when there is none left.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.saved.checked_sub(RETRY) {
            Some(rest) => {
                self.saved = rest;
                true
            }
            None => false,
        }
    }

    /// The most that can be saved up. Where time gives nothing, requests must still be able to save for one retry.
    fn saved_max(&self) -> u64 {
        (self.per_second * SAVED_SECONDS_MAX).max(self.per_request * SAVED_REQUESTS_MAX)
    }

    fn fill(&mut self, now: Instant) {
        let passed = match self.filled {
            None => 0,
            Some(filled) => now.as_nanos().saturating_sub(filled.as_nanos()),
        };
        if passed < FILL_EVERY_NANOS && self.filled.is_some() {
            return;
        }
        let earned = match passed.min(SAVED_SECONDS_MAX * NANOS_PER_SECOND).checked_mul(self.per_second) {
            Some(product) => product / NANOS_PER_SECOND,
            // Many retries a second after a long time.
            None => self.saved_max(),
        };
        self.filled = Some(now);
        let missing = earned.saturating_sub(self.by_requests);
        self.by_requests = 0;
        self.saved = (self.saved + missing).min(self.saved_max());
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// How often time fills it, and for how long requests count instead of it.
const FILL_EVERY_NANOS: u64 = 100_000_000;

#[cfg(test)]
mod tests;
