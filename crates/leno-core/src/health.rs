//! Whether an instance works, from the outcomes of its checks: thresholds so that one lost packet takes nobody out, and
//! exceptions where waiting would be wrong.
//!
//! ```text
//!            good * healthy_after                  bad * unhealthy_after, or refused once
//!   Unknown ---------------------->  Healthy  ------------------------------------------->  Unhealthy
//!      |                                ^------------------- good * healthy_after -------------|
//!      '--------------------------- any bad or refused --------------------------------------->|
//! ```
//!
//! A refused connection counts at once: nobody listens, so every request would fail. An instance that has just started
//! is not yet anything; the first bad answer says so without waiting, because no request depends on it yet.

use alloc::string::String;
use alloc::sync::Arc;

use crate::spec::{HealthSpec, Probe};
use crate::time::Duration;

/// The state of one instance's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// So many good answers in a row make it healthy; at least 1.
    healthy_after: u32,
    /// So many bad answers in a row make it unhealthy; at least 1.
    unhealthy_after: u32,
    /// Between the starts of two checks, while nothing is wrong.
    interval: Duration,
    /// What is told to others.
    state: Health,
    /// Outcomes in a row that speak against the state.
    against: u32,
    /// The last outcome was a refused connection.
    refused: bool,
}

/// What is known about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not checked yet.
    Unknown,
    /// It may get requests.
    Healthy,
    /// It may not, and why.
    Unhealthy(Arc<str>),
}

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// Nobody listens at its address.
    Refused,
    /// In any other way, and which.
    Bad(String),
}

/// While an instance is starting or nobody listens, it is checked this often, so that it gets requests as soon as it
/// works. A refused connection costs both sides next to nothing.
pub const STARTING_INTERVAL: Duration = Duration::from_millis(100);
/// Without a health check of the service's own, a connection is tried this often: a dead process is known within a
/// second.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a check may take by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// No check is made more often than this, whatever is declared.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// What is checked when the service declares nothing: that a connection is accepted.
pub fn default_spec() -> HealthSpec {
    HealthSpec {
        probe: Probe::Tcp,
        interval: DEFAULT_INTERVAL,
        timeout: DEFAULT_TIMEOUT,
        healthy_after: 1,
        unhealthy_after: 2,
    }
}

impl Checks {
    /// Nothing known yet.
    pub fn new(spec: &HealthSpec) -> Self {
        let mut checks = Self {
            healthy_after: 1,
            unhealthy_after: 1,
            interval: DEFAULT_INTERVAL,
            state: Health::Unknown,
            against: 0,
            refused: false,
        };
        checks.reconfigure(spec);
        checks
    }

    /// Other thresholds from now on; what is known stays.
    pub fn reconfigure(&mut self, spec: &HealthSpec) {
        self.healthy_after = spec.healthy_after.max(1);
        self.unhealthy_after = spec.unhealthy_after.max(1);
        self.interval = spec.interval.max(INTERVAL_MIN);
    }

    /// Takes in how a check ended; true if the state (not only its reason) changed and others must be told at once.
    pub fn handle(&mut self, outcome: Outcome) -> bool {
        self.refused = outcome == Outcome::Refused;
        let (good, reason) = match outcome {
            Outcome::Good => (true, String::new()),
            Outcome::Refused => (false, "connection refused".into()),
            Outcome::Bad(reason) => (false, reason),
        };
        let for_the_state = match &self.state {
            Health::Unknown => false,
            Health::Healthy => good,
            Health::Unhealthy(_) => !good,
        };
        if for_the_state {
            self.against = 0;
            if let Health::Unhealthy(known) = &mut self.state
                && **known != *reason
            {
                *known = reason.into();
            }
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = match (&self.state, good) {
            (_, true) => self.healthy_after,
            (Health::Unknown, false) => 1,
            (_, false) if self.refused => 1,
            (_, false) => self.unhealthy_after,
        };
        if self.against < enough {
            return false;
        }
        self.against = 0;
        self.state = if good { Health::Healthy } else { Health::Unhealthy(reason.into()) };
        true
    }

    /// What is known.
    pub const fn state(&self) -> &Health {
        &self.state
    }

    /// From the start of the last check to the start of the next one.
    pub fn interval(&self) -> Duration {
        match self.state {
            Health::Unknown => self.interval.min(STARTING_INTERVAL),
            _ if self.refused => self.interval.min(STARTING_INTERVAL),
            _ => self.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(healthy_after: u32, unhealthy_after: u32) -> Checks {
        Checks::new(&HealthSpec { healthy_after, unhealthy_after, ..default_spec() })
    }

    fn bad() -> Outcome {
        Outcome::Bad("status 503".into())
    }

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let mut checks = checks(2, 3);
        assert!(!checks.handle(Outcome::Good));
        assert_eq!(*checks.state(), Health::Unknown);
        assert!(checks.handle(Outcome::Good));
        assert_eq!(*checks.state(), Health::Healthy);
        for _ in 0..5 {
            assert!(!checks.handle(bad()));
            assert!(!checks.handle(bad()));
            assert!(!checks.handle(Outcome::Good), "a good answer starts the count anew");
        }
        assert!(!checks.handle(bad()));
        assert!(!checks.handle(bad()));
        assert!(checks.handle(bad()));
        assert_eq!(*checks.state(), Health::Unhealthy("status 503".into()));
        assert!(!checks.handle(Outcome::Good));
        assert!(!checks.handle(bad()));
        assert!(!checks.handle(Outcome::Good));
        assert!(checks.handle(Outcome::Good));
    }

    #[test]
    fn a_refused_connection_counts_at_once() {
        let mut checks = checks(1, 3);
        checks.handle(Outcome::Good);
        assert!(checks.handle(Outcome::Refused));
        assert_eq!(*checks.state(), Health::Unhealthy("connection refused".into()));
    }

    #[test]
    fn the_first_bad_answer_of_an_unknown_instance_says_so() {
        let mut checks = checks(3, 3);
        assert!(checks.handle(bad()));
        assert_eq!(*checks.state(), Health::Unhealthy("status 503".into()));
        let mut half_way = self::checks(3, 3);
        half_way.handle(Outcome::Good);
        assert!(half_way.handle(bad()));
    }

    #[test]
    fn the_reason_follows_without_being_a_change() {
        let mut checks = checks(1, 1);
        checks.handle(Outcome::Refused);
        assert!(!checks.handle(bad()));
        assert_eq!(*checks.state(), Health::Unhealthy("status 503".into()));
    }

    #[test]
    fn a_starting_or_dead_instance_is_checked_often_a_sick_one_is_not() {
        let mut checks = checks(1, 1);
        assert_eq!(checks.interval(), STARTING_INTERVAL);
        checks.handle(Outcome::Good);
        assert_eq!(checks.interval(), DEFAULT_INTERVAL);
        checks.handle(Outcome::Refused);
        assert_eq!(checks.interval(), STARTING_INTERVAL);
        checks.handle(bad());
        assert_eq!(checks.interval(), DEFAULT_INTERVAL);
    }

    #[test]
    fn zero_thresholds_and_intervals_mean_the_least() {
        let spec =
            HealthSpec { healthy_after: 0, unhealthy_after: 0, interval: Duration::ZERO, ..default_spec() };
        let mut checks = Checks::new(&spec);
        assert!(checks.handle(Outcome::Good));
        assert!(checks.handle(bad()));
        assert_eq!(checks.interval(), INTERVAL_MIN);
    }
}
