//! After a failed attempt: whether and how there is another one.

use super::{ATTEMPTS, Action, AppSaw, CONNECT_TIME_MIN, ConnectFailure, Exchange, NoRetry, State};
use crate::backend::{Choice, Outcome};
use crate::reason::Reason;
use crate::route::{BackendId, Then};
use crate::time::{Duration, Instant};

impl Exchange {
    pub(super) fn connect_failed(&mut self, why: ConnectFailure, now: Instant) {
        let reason = why.reason();
        if why == ConnectFailure::Limit {
            self.fail_attempt(reason, Some(NoRetry::NoEndpoint));
            return self.reply(reason);
        }
        self.connect_deadline = None;
        if why != ConnectFailure::Overload {
            self.report(Outcome::Unreachable, now);
        }
        self.retry_or_reply(AppSaw::Nothing, reason, false, now);
    }

    pub(super) fn ended_early(&mut self, app_saw: AppSaw, reason: Reason, now: Instant) {
        if app_saw == AppSaw::Maybe {
            self.app_saw = AppSaw::Maybe;
        }
        // A peer that says that its application cannot be reached is as good as unreachable.
        if app_saw == AppSaw::Nothing && reason == Reason::ConnectFailed {
            self.report(Outcome::Unreachable, now);
        } else if app_saw == AppSaw::Nothing && reason == Reason::ServiceOverloaded {
            self.report(Outcome::Shed, now);
        } else if app_saw == AppSaw::Maybe {
            self.report(Outcome::NoAnswer, now);
        }
        // The peer knows the attempt's deadline only; there may be time for another one.
        let of_attempt = self.plan.as_ref().is_some_and(|plan| plan.try_deadline.is_some());
        let too_late = self.deadline.is_some_and(|deadline| deadline <= now.after(CONNECT_TIME_MIN));
        let reason = match reason {
            Reason::RequestTimeout if !too_late && of_attempt => Reason::TryTimeout,
            reason => reason,
        };
        self.retry_or_reply(app_saw, reason, true, now);
    }

    pub(super) fn retry_or_reply(&mut self, app_saw: AppSaw, reason: Reason, budget: bool, now: Instant) {
        if let Err(why) = self.may_repeat(app_saw, reason) {
            self.fail_attempt(reason, Some(why));
            return self.reply(reason);
        }
        self.fail_attempt(reason, None);
        let made = self.record.attempts_made();
        if let Some(plan) = &mut self.plan {
            // What cost the endpoint nothing goes to another one at once, unless it has already been to one.
            let at_once = app_saw == AppSaw::Nothing && made == 1;
            plan.wait = if at_once { Duration::ZERO } else { plan.backoff(made) };
            let resume = now.after(plan.wait + CONNECT_TIME_MIN);
            if self.deadline.is_some_and(|deadline| deadline < resume) {
                self.fail_attempt(reason, Some(NoRetry::Deadline));
                return self.reply(reason);
            }
        }
        self.again(reason, budget, now);
    }

    /// Whether a failed attempt may be followed by another one, as far as that does not depend on time and budget.
    pub(super) fn may_repeat(&self, app_saw: AppSaw, reason: Reason) -> Result<(), NoRetry> {
        match reason {
            // The peer's clock and ours measure the same deadline: what is too late there is too late here.
            Reason::RequestTimeout | Reason::OutOfTime => return Err(NoRetry::Deadline),
            // A request that cannot be said to one peer cannot be said to another one.
            Reason::RequestMalformed | Reason::Unsupported => return Err(NoRetry::NotAsked),
            // Whoever has too many of them is not helped by more, wherever they go.
            Reason::RateLimited => return Err(NoRetry::AskedToWait),
            _ => {}
        }
        let mut attempts = ATTEMPTS;
        if let Some(plan) = &self.plan {
            attempts = plan.tries.attempts();
            let asked = plan.tries.retry.as_ref().is_none_or(|retry| retry.on.reset);
            if app_saw == AppSaw::Maybe && reason != Reason::AnswerRetried && !asked {
                return Err(NoRetry::NotAsked);
            }
        }
        if app_saw == AppSaw::Maybe && !self.idempotent {
            return Err(NoRetry::NotIdempotent);
        }
        // One endpoint may have more to do than the others. When two have too much, more asking is more to do.
        let shed = |reason: Option<Reason>| reason == Some(Reason::ServiceOverloaded);
        if shed(Some(reason)) && self.record.attempts().any(|attempt| shed(attempt.failed)) {
            return Err(NoRetry::Attempts);
        }
        if self.record.attempts_made() >= attempts {
            return Err(NoRetry::Attempts);
        }
        if self.replayable { Ok(()) } else { Err(NoRetry::BodyGone) }
    }

    /// Goes on to the next attempt, after a pause if one is planned.
    pub(super) fn again(&mut self, reason: Reason, budget: bool, now: Instant) {
        let Some(backend) = self.permit.take().map(|permit| permit.backend()) else {
            return self.reply(reason);
        };
        self.connect_deadline = None;
        let choice = self.next_choice(backend);
        if let Some(plan) = &mut self.plan
            && !plan.wait.is_zero()
        {
            plan.try_deadline = None;
            plan.resume = Some(now.after(plan.wait));
            plan.next = Some(choice);
            self.state = State::Pausing;
            self.action = Some(Action::Pause { budget: budget.then_some(backend) });
            return;
        }
        self.state = State::Picking;
        self.action = Some(Action::Pick { choice, budget });
    }

    /// Where the next attempt goes: it stays with the version that was chosen.
    const fn next_choice(&self, backend: BackendId) -> Choice {
        match self.record.decision.then {
            Then::Direct(address) => Choice::Direct(address),
            _ => Choice::Backend(backend),
        }
    }
}
