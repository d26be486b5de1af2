//! Answers that a rule gives by itself.

use super::{Action, Exchange, State};
use crate::grpc::Status;
use crate::reason::Reason;
use crate::route::Then;

impl Exchange {
    /// What the operator wanted answered is no failure.
    pub(super) fn answer(&mut self, status: u16) {
        self.record.status = status;
        self.state = State::Ending;
        self.action = Some(Action::Answer);
    }

    /// The client gets no answer, because a rule wants it so.
    #[cold]
    pub fn break_off(&mut self, reason: Reason) {
        self.record.status = reason.status();
        self.cut(reason);
    }

    /// Its time was over before anything was done.
    #[cold]
    pub fn is_late(&mut self) {
        self.reply(Reason::RequestTimeout);
    }

    /// What a call comes to that a rule answers.
    pub(super) const fn answer_call(&mut self) {
        if let Then::Answer(status) = self.record.decision.then {
            self.record.grpc = Some(Status::of_http(status));
        }
    }
}
