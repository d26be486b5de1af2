//! The one place in the data plane that reads clocks.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use leno_core::time::{Instant, UnixTime};

/// A monotonic clock with its origin at the process's start, the same for every thread that copies it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: StdInstant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self { origin: StdInstant::now() }
    }

    /// The instant in the core's terms.
    pub(crate) fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A core instant in tokio's terms, for timers.
    pub(crate) fn to_tokio(self, at: Instant) -> tokio::time::Instant {
        let since = std::time::Duration::from_nanos(at.as_nanos());
        // Far beyond any real deadline an addition could overflow; a day is as good as never.
        let at = self.origin.checked_add(since);
        at.unwrap_or_else(|| StdInstant::now() + std::time::Duration::from_secs(86_400)).into()
    }
}

/// Wall-clock seconds, for certificates and logs; 0 when the clock stands before 1970.
pub(crate) fn unix_now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Wall-clock microseconds, for log lines.
pub(crate) fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A seed that differs between processes and workers. Not for secrets.
pub(crate) fn seed(salt: u64) -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    (nanos as u64) ^ (u64::from(std::process::id()) << 32) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
