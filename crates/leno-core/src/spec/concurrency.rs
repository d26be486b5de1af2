//! How many requests an instance works on at a time, and what becomes of those that are too many.

use crate::time::Duration;

/// How many requests the sidecar of an instance lets through to it at a time, and how long the others wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// How many.
    pub limit: ConcurrencyLimit,
    /// How long a request waits for a place before it is refused; zero: nobody waits.
    pub queue: Duration,
}

/// How many requests at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConcurrencyLimit {
    /// So many. At least 1.
    Fixed(u32),
    /// As many as the instance turns out to work on without having them wait, within these bounds.
    Auto {
        /// Never fewer. At least 1.
        min: u32,
        /// Never more. At least `min`.
        max: u32,
    },
}

/// The fewest that a limit which is found out may come to (Envoy's): with one, a single slow request would keep out everybody.
pub const CONCURRENCY_MIN: u32 = 3;
/// The most (Envoy's and Netflix's bound for theirs).
pub const CONCURRENCY_MAX: u32 = 1_000;
/// The most that can be declared.
pub const CONCURRENCY_LIMIT_MAX: u32 = 1_000_000;
/// The longest that a request may wait: whoever waits longer has gone.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a request waits where nothing is said: long enough for a burst, short beside what people notice.
pub const QUEUE_WAIT: Duration = Duration::from_millis(100);

impl Concurrency {
    /// A limit that is found out.
    pub const fn auto() -> Self {
        Self::new(ConcurrencyLimit::Auto { min: CONCURRENCY_MIN, max: CONCURRENCY_MAX })
    }

    /// This limit, with what holds where nothing else is said.
    pub const fn new(limit: ConcurrencyLimit) -> Self {
        Self { limit, queue: QUEUE_WAIT }
    }
}
