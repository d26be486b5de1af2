//! How many retries a backend allows beside ordinary requests, so that a failing backend is not buried under them.

use crate::time::{Duration, Instant};

/// Retries allowed per ordinary request: one in five (Linkerd's and Envoy's default ratio of 0.2).
pub const RETRIES_PER_REQUEST: u64 = 5;
/// Retries allowed each second however few requests there are (Linkerd's default).
pub const RETRIES_PER_SECOND_MIN: u64 = 10;
/// What can be saved up: this many seconds' worth of the minimum rate (Linkerd's ttl).
const SAVED_SECONDS_MAX: u64 = 10;

/// One retry in the budget's unit, thousandths.
const RETRY: u64 = 1_000;
/// The most that can be saved up.
const SAVED_MAX: u64 = RETRIES_PER_SECOND_MIN * SAVED_SECONDS_MAX * RETRY;

/// A token bucket filled by requests and by time.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Thousandths of a retry.
    saved: u64,
    /// When time last filled it.
    filled: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: SAVED_MAX, filled: None }
    }
}

impl Budget {
    /// An ordinary request was sent.
    pub fn deposit(&mut self, now: Instant) {
        self.fill(now);
        self.saved = (self.saved + RETRY / RETRIES_PER_REQUEST).min(SAVED_MAX);
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

    fn fill(&mut self, now: Instant) {
        let passed = self.filled.map_or(Duration::ZERO, |filled| now.since(filled));
        let earned = passed.as_millis().min(u128::from(SAVED_SECONDS_MAX * 1_000)) as u64
            * RETRIES_PER_SECOND_MIN
            * RETRY
            / 1_000;
        if earned > 0 || self.filled.is_none() {
            self.filled = Some(now);
            self.saved = (self.saved + earned).min(SAVED_MAX);
        }
    }
}
