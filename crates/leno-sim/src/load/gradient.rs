//! Envoy's adaptive concurrency filter with the numbers of its manual, for comparison: the limit follows the ratio of the
//! smallest latency to the present one; the smallest is measured once a minute, with three requests at a time.
//!
//! - A sample every 100 ms; of it the median (`sample_aggregate_percentile` 50).
//! - `gradient = (min + 25 % of it) / sample`, between 0.5 and 2; `limit = gradient * limit + sqrt(gradient * limit)`.
//! - The minimum is the median of 50 requests at a concurrency of 3, every 60 s, put off by up to 15 %.
//! - Who finds no place is answered 503 at once.

use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
const MIN_EVERY: Duration = Duration::from_secs(60);
const MIN_REQUESTS: usize = 50;
const MIN_CONCURRENCY: f64 = 3.0;
const BUFFER: f64 = 0.25;
const LIMIT_MAX: f64 = 1000.0;

/// The filter of one instance.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    inside: u32,
    /// The smallest latency; `None` while it is measured.
    min: Option<f64>,
    /// What the limit was before that.
    before: f64,
    samples: Vec<f64>,
    sampled: Instant,
    measured: Instant,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            limit: MIN_CONCURRENCY,
            inside: 0,
            min: None,
            before: MIN_CONCURRENCY,
            samples: Vec::new(),
            sampled: Instant::ZERO,
            measured: Instant::ZERO,
        }
    }
}

impl Gradient {
    pub(super) fn lets_in(&mut self, _now: Instant) -> bool {
        let lets = f64::from(self.inside) < self.limit.floor();
        self.inside += u32::from(lets);
        lets
    }

    pub(super) fn done(&mut self, took: Duration, now: Instant, rng: &mut Rng) {
        self.inside -= 1;
        self.samples.push(took.as_secs_f64());
        match self.min {
            None if self.samples.len() >= MIN_REQUESTS => {
                self.min = Some(self.median());
                self.limit = self.before;
                (self.sampled, self.measured) =
                    (now, now.after(MIN_EVERY.mul_f64(rng.below(150) as f64 / 1000.0)));
            }
            None => {}
            Some(_) if now.since(self.measured) >= MIN_EVERY => {
                self.before = self.limit;
                self.limit = MIN_CONCURRENCY;
                self.min = None;
                self.samples.clear();
            }
            Some(min) if now.since(self.sampled) >= INTERVAL => {
                self.sampled = now;
                let gradient = ((min * (1.0 + BUFFER)) / self.median()).clamp(0.5, 2.0);
                let limit = gradient * self.limit;
                self.limit = (limit + limit.sqrt()).clamp(MIN_CONCURRENCY, LIMIT_MAX);
            }
            Some(_) => {}
        }
    }

    fn median(&mut self) -> f64 {
        self.samples.sort_by(f64::total_cmp);
        let median = self.samples[self.samples.len() / 2];
        self.samples.clear();
        median
    }
}
