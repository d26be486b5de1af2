//! The one place of this crate that reads a clock.

use std::time::{Instant as Monotonic, SystemTime, UNIX_EPOCH};

use leno_core::time::{Duration, Instant, UnixTime};

/// The process's clock; its origin is when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Monotonic);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Monotonic::now())
    }

    /// Time since the origin.
    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO.after(self.0.elapsed())
    }

    /// `instant` as the timer wants it.
    pub(crate) fn timer(&self, instant: Instant) -> tokio::time::Instant {
        let wait = instant.since(Instant::ZERO);
        // A wait beyond the timer's range is as good as a year.
        let far = self.0 + Duration::from_secs(365 * 86_400);
        tokio::time::Instant::from_std(self.0.checked_add(wait).unwrap_or(far).min(far))
    }

    /// The time of day.
    #[allow(
        clippy::unused_self,
        reason = "all time comes from this value, so that it can be replaced as one"
    )]
    pub(crate) fn unix(&self) -> UnixTime {
        UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}
