//! Slow start: an endpoint that comes to those that are there already gets a part of its share at first. It stays in its
//! weight class, and lets a part of its turns and draws go by, so that nothing has to be counted anew while it warms up.

use super::endpoint::{Endpoint, Live};
use crate::rng::Rng;
use crate::spec::SlowStart;
use crate::time::Instant;

/// Since when an endpoint takes requests, as far as its share depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Warm {
    /// Long enough.
    #[default]
    Up,
    /// It has just come; the next pick notes when.
    New,
    Since(Instant),
}

/// What one pick leaves to chance: who of those that warm up takes part in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Luck(u64);

/// Parts of a share that are told apart.
const PARTS: u64 = 1 << 16;

impl Luck {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self(rng.next_u64())
    }

    /// True when the endpoint takes part in this pick.
    pub(super) fn has(self, endpoint: &Endpoint, spec: &SlowStart, now: Instant) -> bool {
        let Warm::Since(since) = endpoint.live.warm.get() else { return true };
        // Each has luck of its own.
        let ticket = (self.0 ^ endpoint.key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
            >> 48;
        ticket < share(spec, since, now)
    }
}

impl Live {
    /// Notes when a new endpoint came; true while it warms up.
    pub(super) fn warms_up(&self, spec: &SlowStart, now: Instant) -> bool {
        match self.warm.get() {
            Warm::Up => false,
            Warm::New => {
                self.warm.set(Warm::Since(now));
                true
            }
            Warm::Since(since) if now.since(since) < spec.duration => true,
            Warm::Since(_) => {
                self.warm.set(Warm::Up);
                false
            }
        }
    }
}

/// Its part of its share by now, of [`PARTS`].
fn share(spec: &SlowStart, since: Instant, now: Instant) -> u64 {
    let from = PARTS * u64::from(spec.from_percent.min(100)) / 100;
    let whole = spec.duration.as_micros().max(1);
    let passed = now.since(since).as_micros().min(whole);
    from + ((u128::from(PARTS - from) * passed / whole) as u64)
}

#[cfg(test)]
mod tests;
