//! How long the exchange waits for what, and which of its limits comes first.

use super::tries::Plan;
use super::{Exchange, IDLE_TIMEOUT, State};
use crate::reason::Reason;
use crate::time::Instant;

impl Exchange {
    /// True as long as it is not answered, or being answered.
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Ending | State::Done)
    }

    /// When [`Input::Timeout`](super::Input::Timeout) is due, and what will have timed out.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        // How long the client may take to be told is the shell's to bound: a deadline that is already past must not
        // take the words out of its mouth.
        if matches!(self.state, State::Ending | State::Done) {
            return None;
        }
        if self.tunnel {
            return None;
        }
        if let Some(plan) = &self.plan {
            return self.poll_planned(plan);
        }
        let idle = !self.silence_allowed;
        let mut next = idle.then(|| (self.progress.after(IDLE_TIMEOUT), Reason::IdleTimeout));
        // On a tie the later one in this order is the reason; the whole exchange's deadline cannot be retried.
        for (at, reason) in
            [(self.connect_deadline, Reason::ConnectTimeout), (self.deadline, Reason::RequestTimeout)]
        {
            if let Some(at) = at
                && next.is_none_or(|next| at <= next.0)
            {
                next = Some((at, reason));
            }
        }
        next
    }

    /// The same by what is configured.
    #[cold]
    pub(super) fn poll_planned(&self, plan: &Plan) -> Option<(Instant, Reason)> {
        let whole = self.deadline.map(|at| (at, Reason::RequestTimeout));
        let waits = if self.state == State::Pausing {
            // Nothing times out by it: the wait is over.
            let why = self.record.attempts().last().and_then(|attempt| attempt.failed);
            [None, None, plan.resume.map(|at| (at, why.unwrap_or(Reason::AnswerRetried))), whole]
        } else {
            let idle = plan.tries.idle_timeout.filter(|_| !self.silence_allowed);
            let before_answer = matches!(self.state, State::Dialing | State::Waiting);
            [
                idle.map(|idle| (self.progress.after(idle), Reason::IdleTimeout)),
                self.connect_deadline.map(|at| (at, Reason::ConnectTimeout)),
                plan.try_deadline.filter(|_| before_answer).map(|at| (at, Reason::TryTimeout)),
                whole,
            ]
        };
        waits.into_iter().flatten().reduce(|next, wait| if wait.0 <= next.0 { wait } else { next })
    }
}
