//! Between two attempts: whether an answer is held back, what that costs, and the wait.

use std::pin::pin;

use leno_core::exchange::Input;
use leno_core::head::ResponseHead;
use leno_core::route::BackendId;

use super::Drive;
use crate::body::{Moved, Source};
use crate::telemetry::bump;

impl Drive<'_> {
    /// True when the policy has another attempt made instead of this answer, which the client then never sees.
    #[cold]
    pub(super) fn withhold(&mut self, head: &ResponseHead<'_>, sent: &Moved) -> bool {
        self.tell_taken(sent);
        let now = self.worker.now();
        self.exchange.wants_another(head, now) && self.pay(head.status)
    }

    /// Takes the attempt that is wanted instead of an answer from the budget; false when it is used up, so that the answer is
    /// relayed after all.
    pub(super) fn pay(&mut self, status: u16) -> bool {
        let allowed = self.exchange.backend().is_some_and(|backend| self.budget_allows(backend));
        if allowed {
            self.handle(Input::Withheld { status });
        } else {
            self.exchange.denied(status);
        }
        allowed
    }

    /// Takes one retry from the backend's budget.
    pub(super) fn budget_allows(&self, backend: BackendId) -> bool {
        let now = self.worker.now();
        let allowed = self.worker.backends().try_retry(self.snapshot, backend, now);
        if !allowed {
            bump(&mut self.worker.telemetry().limits, "retry_budget");
        }
        allowed
    }

    /// Waits for the next attempt, unless the client goes away.
    pub(super) async fn pause<S: Source>(&mut self, budget: Option<BackendId>, source: &mut S) {
        if budget.is_some_and(|backend| !self.budget_allows(backend)) {
            return self.handle(Input::OverBudget);
        }
        let due = self.due();
        let mut gone = pin!(source.gone());
        let input = tokio::select! {
            biased;
            () = &mut gone => Input::DownstreamGone,
            () = self.alarm.until(due) => Input::Timeout,
        };
        self.handle(input);
    }
}
