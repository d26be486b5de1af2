//! When to ask for a new certificate.
//!
//! First at a random moment between 50 % and 70 % of the life that was left when the certificate came: early enough
//! that the authority may be away for hours, random so that proxies that started together do not all ask together. A
//! failure is followed by growing pauses; they shrink again as the end comes near, because a proxy that is late should
//! rather ask too often than stop serving. After the end the proxy keeps asking every few seconds: an authority that
//! comes back may still know it (until its lease and connection are gone).
//!
//! Wall-clock time, because certificates are; it may jump. Whoever sleeps until [`Renewal::wait`] should wake at least
//! once a minute ([`LOOK_AGAIN`], already included).

use crate::rng::Rng;
use crate::time::{Duration, UnixTime};

/// The schedule of one certificate's renewal; a new certificate makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When the certificate ends.
    not_after: UnixTime,
    /// When to ask next.
    due: UnixTime,
    /// Failures in a row.
    failures: u32,
}

/// How pressing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Not yet time.
    Fresh,
    /// Time to ask, no harm if it takes longer.
    Due,
    /// Failures have eaten most of the reserve: worth a warning.
    Late,
    /// The certificate has ended; peers refuse it.
    Expired,
}

/// The part of the remaining life after which to ask, in percent: at least this.
pub const SHARE_PERCENT_MIN: u64 = 50;
/// And below this.
pub const SHARE_PERCENT_MAX: u64 = 70;
/// The first pause after a failure; doubled with each further one.
pub const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The longest pause once the certificate has ended.
pub const PAUSE_EXPIRED: Duration = Duration::from_secs(5);
/// A pause is at most this part of what is left, so that several attempts always fit.
const REMAINING_PARTS: u64 = 8;
/// Waits are cut to this, because the wall clock may have jumped meanwhile (a laptop that slept, a corrected clock).
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// With less than this left and a failure, renewal is late.
const LATE: Duration = Duration::from_secs(3600);

impl Renewal {
    /// The schedule for a certificate that came `now` and ends at `not_after`.
    pub fn new(not_after: UnixTime, now: UnixTime, rng: &mut Rng) -> Self {
        let life = not_after.since(now).as_secs();
        let share = SHARE_PERCENT_MIN * 1000 + rng.below((SHARE_PERCENT_MAX - SHARE_PERCENT_MIN) * 1000);
        let wait = u128::from(life) * u128::from(share) / 100_000;
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        Self { not_after, due: now.after(Duration::from_secs(wait)), failures: 0 }
    }

    /// True when it is time to ask.
    pub fn is_due(&self, now: UnixTime) -> bool {
        now >= self.due
    }

    /// How long to sleep before looking again; zero when it is time to ask.
    pub fn wait(&self, now: UnixTime) -> Duration {
        self.due.since(now).min(LOOK_AGAIN)
    }

    /// An attempt failed; the next one is due after a pause with jitter.
    pub fn failed(&mut self, now: UnixTime, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        let doubled = PAUSE_MIN.as_secs().saturating_mul(1 << (self.failures - 1).min(16));
        let left = self.not_after.since(now).as_secs();
        let longest = if left == 0 {
            PAUSE_EXPIRED
        } else {
            PAUSE_MAX.min(Duration::from_secs(left / REMAINING_PARTS))
        };
        let pause = doubled.min(longest.as_secs()).max(1);
        // Half of it fixed, so that attempts stay apart; half by chance, so that proxies do.
        let pause = pause - rng.below(pause / 2 + 1);
        self.due = now.after(Duration::from_secs(pause));
    }

    /// How pressing it is, for logs and status.
    pub fn urgency(&self, now: UnixTime) -> Urgency {
        let left = self.not_after.since(now);
        if left.is_zero() {
            Urgency::Expired
        } else if self.failures > 0 && left < LATE {
            Urgency::Late
        } else if self.failures > 0 || self.is_due(now) {
            Urgency::Due
        } else {
            Urgency::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const START: UnixTime = UnixTime(1_800_000_000);

    fn renewal(life: u64, seed: u64) -> (Renewal, Rng) {
        let mut rng = Rng::new(seed);
        (Renewal::new(START.after(Duration::from_secs(life)), START, &mut rng), rng)
    }

    #[test]
    fn the_first_attempt_is_spread_over_half_to_seven_tenths_of_life() {
        let mut buckets = [0_u32; 20];
        for seed in 0..2000 {
            let (renewal, _) = renewal(DAY, seed);
            let percent = renewal.due.since(START).as_secs() * 100 / DAY;
            assert!((50..70).contains(&percent), "{percent}");
            buckets[(percent - 50) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (50..150).contains(count)), "{buckets:?}");
    }

    #[test]
    fn it_is_due_when_the_time_has_come_and_wakes_every_minute_before() {
        let (renewal, _) = renewal(DAY, 1);
        assert!(!renewal.is_due(START));
        assert_eq!(renewal.wait(START), LOOK_AGAIN);
        assert_eq!(renewal.urgency(START), Urgency::Fresh);
        let shortly_before = UnixTime(renewal.due.0 - 7);
        assert_eq!(renewal.wait(shortly_before), Duration::from_secs(7));
        assert!(renewal.is_due(renewal.due));
        assert_eq!(renewal.wait(renewal.due), Duration::ZERO);
        assert_eq!(renewal.urgency(renewal.due), Urgency::Due);
        // A clock that jumped far ahead: at once.
        assert!(renewal.is_due(START.after(Duration::from_secs(10 * DAY))));
    }

    /// An authority that never answers: attempts go on for ever, never further apart than the limits say, more often
    /// towards the end, and at a bounded rate in all.
    #[test]
    fn failures_pause_longer_then_shorter_and_never_stop() {
        for seed in 0..50 {
            let (mut renewal, mut rng) = renewal(DAY, seed);
            let mut attempts = 0;
            let (mut longest, mut last_before_end) = (0, 0);
            let end = START.after(Duration::from_secs(DAY));
            while renewal.due.0 < end.0 + 600 {
                let now = renewal.due;
                attempts += 1;
                renewal.failed(now, &mut rng);
                let pause = renewal.due.since(now);
                assert!(pause >= Duration::from_secs(1) && pause <= PAUSE_MAX);
                longest = longest.max(pause.as_secs());
                if now < end {
                    last_before_end = pause.as_secs();
                    let left = end.since(now).as_secs();
                    assert!(pause.as_secs() <= (left / REMAINING_PARTS).max(1));
                } else {
                    assert!(pause <= PAUSE_EXPIRED);
                    assert_eq!(renewal.urgency(now), Urgency::Expired);
                }
            }
            assert!(longest > PAUSE_MAX.as_secs() / 2);
            assert!(last_before_end <= 2);
            assert!((100..600).contains(&attempts), "{attempts}");
        }
    }

    #[test]
    fn it_is_late_when_failures_have_eaten_the_reserve() {
        let (mut renewal, mut rng) = renewal(DAY, 3);
        renewal.failed(START.after(Duration::from_secs(DAY / 2)), &mut rng);
        assert_eq!(renewal.urgency(START.after(Duration::from_secs(DAY / 2))), Urgency::Due);
        assert_eq!(renewal.urgency(START.after(Duration::from_secs(DAY - 3599))), Urgency::Late);
        assert_eq!(renewal.urgency(START.after(Duration::from_secs(DAY))), Urgency::Expired);
    }

    #[test]
    fn odd_times_do_no_harm() {
        let mut rng = Rng::new(1);
        let mut ended = Renewal::new(UnixTime(5), UnixTime(9), &mut rng);
        assert!(ended.is_due(UnixTime(9)));
        ended.failed(UnixTime(u64::MAX), &mut rng);
        let mut endless = Renewal::new(UnixTime(u64::MAX), UnixTime(0), &mut rng);
        for _ in 0..100 {
            endless.failed(UnixTime(7), &mut rng);
        }
        assert!(endless.due.since(UnixTime(7)) <= PAUSE_MAX);
    }
}
