//! The exchange where something is configured about its attempts, and what one Leno tells another so that not both try again.

use super::tries::Asked;
use super::{AppSaw, CONNECT_TIME_MIN, CONNECT_TIMEOUT, CONNECT_TIMEOUT_MAX, Exchange, NoRetry, Tries};
use crate::grpc::Status;
use crate::head::ResponseHead;
use crate::reason::Reason;
use crate::time::{Duration, Instant};

/// The field of an answer that fails because of what its sender calls, who has tried again as often as it may: one more
/// attempt here would be one on top of each of those. Sidecars add it for [`SPENT_REMEMBERED`] after a budget of retries of
/// the application beside them was used up, or after they got such an answer themselves, so that in a chain of services only
/// the one next to the failure tries again.
pub const RETRIED_HEADER: &[u8] = b"leno-retried";
/// How long a budget that was used up counts as such: some turns of the requests that failed.
pub const SPENT_REMEMBERED: Duration = Duration::from_secs(1);

/// True when failing answers are to carry [`RETRIED_HEADER`]: `spent` is when a budget of what is called from here was last
/// used up.
pub fn is_spent(spent: Option<Instant>, now: Instant) -> bool {
    spent.is_some_and(|spent| now.since(spent) < SPENT_REMEMBERED)
}

impl Exchange {
    /// Says whether the policy wants another attempt instead of this answer, and nothing stands against it but the backend's
    /// budget. Then either [`Input::Withheld`](super::Input::Withheld) follows, or [`Exchange::denied`] and [`Input::Response`](super::Input::Response).
    pub fn wants_another(&mut self, head: &ResponseHead<'_>, now: Instant) -> bool {
        match &self.plan {
            None => false,
            Some(plan) => plan.tries.retries(head, self.call) && self.allows_another(head, now),
        }
    }

    /// The same for a call whose answer's head says nothing, when it has ended without a message.
    pub fn wants_another_call(&mut self, head: &ResponseHead<'_>, ended: Status, now: Instant) -> bool {
        match &self.plan {
            None => false,
            Some(plan) => plan.tries.retries_status(ended) && self.allows_another(head, now),
        }
    }

    #[cold]
    fn allows_another(&mut self, head: &ResponseHead<'_>, now: Instant) -> bool {
        let asked = Asked::of(head, self.call);
        let deeper = head.fields.get_named(RETRIED_HEADER).is_some();
        let allowed = self.may_repeat(AppSaw::Maybe, Reason::AnswerRetried).and_then(|()| {
            let made = self.record.attempts_made();
            let Some(plan) = &mut self.plan else { return Err(NoRetry::NotAsked) };
            let longest = plan.tries.retry.as_ref().map_or(Duration::ZERO, |retry| retry.asked_wait_max);
            let asked = match asked {
                Asked::Nothing => Duration::ZERO,
                Asked::Wait(wait) if wait <= longest => wait,
                Asked::Wait(_) | Asked::Never => return Err(NoRetry::AskedToWait),
            };
            if deeper {
                return Err(NoRetry::Deeper);
            }
            plan.wait = asked + plan.backoff(made);
            let resume = now.after(plan.wait + CONNECT_TIME_MIN);
            if self.deadline.is_some_and(|deadline| deadline < resume) {
                return Err(NoRetry::Deadline);
            }
            Ok(())
        });
        if let Err(why) = allowed {
            self.not_again(head.status, why);
        }
        allowed.is_ok()
    }

    /// The budget does not allow the attempt that was wanted instead of this answer.
    #[cold]
    pub fn denied(&mut self, status: u16) {
        self.not_again(status, NoRetry::Budget);
    }

    fn not_again(&mut self, status: u16, why: NoRetry) {
        if let Some(attempt) = self.record.last() {
            attempt.status = status;
            attempt.failed = Some(Reason::AnswerRetried);
            self.record.no_retry = Some(why);
        }
    }

    /// How long a connection may take to be made: a long time where there is no limit.
    pub fn connect_timeout(&self) -> Duration {
        match &self.plan {
            None => CONNECT_TIMEOUT,
            Some(plan) => plan.tries.connect_timeout.unwrap_or(CONNECT_TIMEOUT_MAX),
        }
    }

    /// What is configured about the attempts.
    pub fn tries(&self) -> Option<&Tries> {
        self.plan.as_ref().map(|plan| &*plan.tries)
    }

    /// True when how a call ends may want another attempt, so that its answer is held until it says a word or ends.
    pub fn judges_call(&self) -> bool {
        self.call && self.plan.as_ref().is_some_and(|plan| plan.tries.judges_calls())
    }

    /// True when less is left before the deadline than a connection needs to be made.
    pub fn is_short_of_time(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline.since(now) < CONNECT_TIME_MIN)
    }

    /// When the attempt under way must be over, to be told to the next hop.
    pub fn attempt_deadline(&self) -> Option<Instant> {
        match &self.plan {
            None => self.deadline,
            Some(plan) => [self.deadline, plan.try_deadline].into_iter().flatten().min(),
        }
    }

    /// The same where something is. When there is no other endpoint, one of these may be tried again.
    pub fn planned_tried(&self) -> Option<&[u64]> {
        self.plan.as_ref().map(|plan| &*plan.tried)
    }
}
