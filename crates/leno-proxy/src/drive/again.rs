//! Between two attempts: whether an answer is held back, what that costs, and the wait.

use std::pin::{Pin, pin};

use leno_core::edit::Edits;
use leno_core::exchange::{Input, NoRetry, RETRIED_HEADER, is_spent};
use leno_core::grpc::Status;
use leno_core::head::{Fields, ResponseHead};
use leno_core::route::BackendId;
use leno_core::time::{Duration, Instant};

use super::Drive;
use super::upload::Upload;
use crate::body::{Chunk, Moved, ResponseSource, Source};
use crate::caller::Caller;
use crate::telemetry::bump;

/// How long the head of a call's answer is held back for a policy that looks at statuses of calls: a server that fails at
/// once sends its trailers right behind it, and one that streams must not wait for its first message.
const HEAD_HELD_MAX: Duration = Duration::from_millis(10);

/// The status of every answer of gRPC.
const CALL_STATUS: u16 = 200;

impl Drive<'_> {
    /// True when the policy has another attempt made instead of this answer, which the client then never sees.
    #[cold]
    pub(super) fn withhold(&mut self, head: &ResponseHead<'_>, sent: &Moved) -> bool {
        self.tell_taken(sent);
        let now = self.worker.now();
        let wanted = self.exchange.wants_another(head, now);
        self.note_deeper(now);
        wanted && self.pay(head.status)
    }

    /// What was tried again below as often as it may be is not tried again here, and not above either.
    fn note_deeper(&self, now: Instant) {
        if self.exchange.record().no_retry == Some(NoRetry::Deeper) {
            self.worker.spent.note(now);
        }
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
            self.worker.spent.note(now);
        }
        allowed
    }

    /// What is changed in the head of an answer on its way to the client.
    #[cold]
    pub(super) fn answer_edits(&self, status: u16) -> Option<Edits> {
        let mut edits = self.mark(status);
        if let Some(cookie) = &self.cookie {
            edits.get_or_insert_default().append(&cookie.edits);
        }
        edits
    }

    /// What a failing answer of the application beside says to its caller, if that is anything; see [`RETRIED_HEADER`].
    fn mark(&self, status: u16) -> Option<Edits> {
        let failed = self.exchange.record().grpc.is_some_and(|status| status != Status::OK);
        if status < 500 && !failed {
            return None;
        }
        let inbound = matches!(self.caller, Caller::Inbound { .. }) && self.leaving.is_none();
        let marked = inbound && is_spent(self.worker.spent.last(), self.worker.now());
        marked.then(|| {
            let mut edits = Edits::new();
            edits.set(RETRIED_HEADER, b"1");
            edits
        })
    }

    /// The same as [`Drive::withhold`] for a call whose answer's head said nothing and that has ended without a message.
    #[cold]
    fn withhold_call(&mut self, trailers: Fields<'_>, ended: Status, sent: &Moved) -> bool {
        self.tell_taken(sent);
        let now = self.worker.now();
        let head = ResponseHead { status: CALL_STATUS, reason: b"", fields: trailers };
        let wanted = self.exchange.wants_another_call(&head, ended, now);
        self.note_deeper(now);
        wanted && self.pay(CALL_STATUS)
    }

    /// Holds the head of a call's answer back until it has a message or ends, for no longer than [`HEAD_HELD_MAX`]. False when
    /// it is not to be relayed: another attempt is made instead of it, or there is nobody to relay it to.
    pub(super) async fn hold(
        &mut self,
        responses: &mut impl ResponseSource,
        mut upload: Pin<&mut impl Future<Output = Upload>>,
        uploading: &mut bool,
        sent: &Moved,
    ) -> bool {
        let until = self.due().min(self.worker.now().after(HEAD_HELD_MAX));
        let ended = {
            let mut held = pin!(ended_without_a_word(responses));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut held => break ended,
                    ended = &mut upload, if *uploading => {
                        match ended {
                            Upload::Gone => self.handle(Input::DownstreamGone),
                            Upload::Malformed => self.handle(Input::RequestMalformed),
                            Upload::Refused | Upload::Done => {
                                *uploading = false;
                                continue;
                            }
                        }
                        return false;
                    }
                    () = self.alarm.until(until) => break None,
                }
            }
        };
        ended.is_none_or(|ended| !self.withhold_call(responses.trailers(), ended, sent))
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

/// Waits until an answer to a call has a message or ends; then its status, if it ended without one. Cancel-safe: nothing is
/// taken.
async fn ended_without_a_word(responses: &mut impl ResponseSource) -> Option<Status> {
    loop {
        match responses.peek() {
            Ok(Chunk::Empty) => responses.wait().await.ok()?,
            Ok(Chunk::End) => return Status::of(responses.trailers()),
            Ok(Chunk::Data(_)) | Err(_) => return None,
        }
    }
}
