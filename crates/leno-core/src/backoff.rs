//! How long to wait before trying again: exponential, capped, with full jitter.
//!
//! Full jitter (any wait between nothing and the cap of the attempt) empties a crowd of clients the fastest when a
//! server comes back, at the price that one of them may try twice in quick succession.

use crate::rng::Rng;
use crate::time::Duration;

/// The waits of one thing that is tried again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The cap of the first wait.
    first: Duration,
    /// The cap of every wait.
    cap: Duration,
    /// Failures since the last success.
    failures: u32,
}

impl Backoff {
    /// Waits up to `first` after the first failure, up to twice as long after each further one, never more than `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// It worked: the next failure is the first one again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed; how long to wait.
    pub fn failed(&mut self, rng: &mut Rng) -> Duration {
        let factor = 1_u32 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let cap = self.first.saturating_mul(factor).min(self.cap);
        let nanos = u64::try_from(cap.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.below(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_with_full_jitter() {
        let mut rng = Rng::new(7);
        let mut longest = [Duration::ZERO; 8];
        let mut shortest = [Duration::MAX; 8];
        for _ in 0..500 {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
            for n in 0..8 {
                let wait = backoff.failed(&mut rng);
                longest[n] = longest[n].max(wait);
                shortest[n] = shortest[n].min(wait);
            }
        }
        for (n, cap) in [50, 100, 200, 400, 500, 500, 500, 500].into_iter().enumerate() {
            let cap = Duration::from_millis(cap);
            assert!(longest[n] <= cap && longest[n] > cap * 9 / 10, "{n}: {longest:?}");
            assert!(shortest[n] < cap / 10, "{n}: {shortest:?}");
        }
    }

    #[test]
    fn a_success_starts_anew_and_no_count_overflows() {
        let mut rng = Rng::new(7);
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::MAX);
        for _ in 0..100_000 {
            backoff.failed(&mut rng);
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut rng) <= Duration::from_millis(1));
    }
}
