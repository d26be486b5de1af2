//! One request from head to outcome. The shell says what happened ([`Input`]), the machine says what to do now
//! ([`Action`]); body bytes never pass through, only facts about them.
//!
//! ```text
//!            decide                 pick               dial             response head
//!   new ──────────────► Picking ───────────► Dialing ───────► Waiting ───────────────► Streaming ──► Done
//!    │ no route            ▲  │ no endpoint    │ failed          │ ended early             │ ended      ▲
//!    └────► Reply          │  └──► Reply       │                 │                         └────────────┤
//!             │            ├───── retry? ◄─────┴─────────────────┘                                      │
//!             │         Pausing     │                                                                   │
//!             └─────────────────────┴───────── no ──────► Reply (Ending) ───────────────────────────────┘
//! ```
//!
//! Call order: [`Exchange::new`], then again and again: take every [`Exchange::poll_action`], do it, hand the result
//! to [`Exchange::handle`]; when [`Exchange::poll_timeout`] passes, hand in [`Input::Timeout`]. After
//! [`Action::Finish`] the [`Record`] is complete.
//!
//! **Retries.** Before anything of the answer was relayed, and while the request can still be sent again (nothing of
//! its body is gone), an attempt that provably had no effect (no connection, or the peer says that the application
//! saw no byte) is repeated on another endpoint whatever the method; one that may have had an effect only when the
//! method is idempotent (RFC 9110 §9.2.2). Both draw from the backend's retry budget, connection failures excepted:
//! they cost the endpoint nothing. What is configured ([`Tries`]) may widen that: to answers that are held back until it is
//! known whether another attempt is made ([`Exchange::wants_another`]), to other methods, to more attempts with waits
//! between them. What provably had no effect is tried again whatever is configured, as long as attempts are left.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;

use crate::backend::{Choice, Endpoint, NoEndpoint, Outcome, Permit};
use crate::grpc::Status;
use crate::reason::Reason;
use crate::route::{BackendId, Decision, Then};
use crate::time::{Duration, Instant};

mod answer;
mod hedge;
mod policy;
mod record;
mod repeat;
mod talk;
mod tries;
mod waits;

pub use hedge::{Heard, Hedged, Heed, Lane, Rang};
pub use policy::{RETRIED_HEADER, SPENT_REMEMBERED, is_spent};
pub use record::{Attempt, NoRetry, Record};
pub use talk::{Action, AppSaw, ConnectFailure, Ending, Input};
use tries::Plan;
pub use tries::Tries;

/// Attempts per request without configuration, the first included (Istio's default is 3).
pub const ATTEMPTS: usize = 3;
/// Attempts per request that can be configured. More would be load, not help: Kuma's default of 5 retries fits.
pub const ATTEMPTS_MAX: usize = 10;
/// How long one connection attempt may take: TCP and, between sidecars, TLS. Linkerd allows 1 s, Envoy 5 s; within
/// one mesh 2 s is far beyond a healthy handshake and leaves time for another endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an exchange may make no progress in either direction (Envoy's stream idle timeout).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a connection may take to be made where nothing limits it: what Linux gives up after, too.
pub const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(127);
/// Time that a connection needs at the least: TCP and TLS within one machine. With less left before the deadline none is
/// begun.
pub const CONNECT_TIME_MIN: Duration = Duration::from_millis(1);

/// One request.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    /// What to do next; at most one action waits at any time.
    action: Option<Action>,
    /// The method allows doing it twice.
    idempotent: bool,
    /// Nothing of the request's body has been taken from the client: the request can be sent again.
    replayable: bool,
    /// Both ends may be silent for days, and dead peers are the transport's concern.
    silence_allowed: bool,
    /// The connection belongs to the two ends: nothing times out.
    tunnel: bool,
    /// It is a call of gRPC.
    call: bool,
    /// When the whole exchange must be over.
    deadline: Option<Instant>,
    /// When the connection attempt must be over.
    connect_deadline: Option<Instant>,
    /// When something last moved.
    progress: Instant,
    /// The place on the current attempt's endpoint.
    permit: Option<Permit>,
    /// What is known over all attempts; told to a caller that may want to try elsewhere.
    app_saw: AppSaw,
    /// What is configured about its attempts, if anything is.
    plan: Option<Box<Plan>>,
    record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until there is a place at the application beside.
    Entering,
    Picking,
    Dialing,
    Waiting,
    Streaming,
    /// Until the next attempt.
    Pausing,
    /// The client is being told that it failed, or the attempt is being cut.
    Ending,
    Done,
}

impl Exchange {
    /// Begins a request. `deadline` is what is left of a caller's own deadline; the route's timeout may only shorten it, and
    /// one of 0 is none.
    pub fn new(decision: Decision, idempotent: bool, deadline: Option<Instant>, now: Instant) -> Self {
        let routed = decision.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| now.after(timeout));
        let deadline = match (routed, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut exchange = Self {
            state: State::Picking,
            action: None,
            idempotent,
            replayable: true,
            silence_allowed: false,
            tunnel: false,
            call: false,
            deadline,
            connect_deadline: None,
            progress: now,
            permit: None,
            app_saw: AppSaw::Nothing,
            plan: None,
            record: Record::new(decision, now),
        };
        match decision.then {
            Then::Split(split) => {
                exchange.action = Some(Action::Pick { choice: Choice::Split(split), budget: false });
            }
            Then::Admit(_) => {
                exchange.state = State::Entering;
                exchange.action = Some(Action::Admit);
            }
            Then::Direct(address) => {
                exchange.action = Some(Action::Pick { choice: Choice::Direct(address), budget: false });
            }
            Then::NoSuchService => exchange.reply(Reason::NoSuchService),
            Then::Unsupported => exchange.reply(Reason::Unsupported),
            Then::Refused(reason) => exchange.reply(reason),
            Then::Misdirected => exchange.reply(Reason::Misdirected),
            Then::Redirect(status) => {
                exchange.reply(Reason::HttpsOnly);
                exchange.record.status = status;
            }
            Then::Answer(status) => exchange.answer(status),
            // `decide` never answers List; if it did, there would be no route.
            Then::NoRoute | Then::List(_) => exchange.reply(Reason::NoRoute),
        }
        if let Some(deadline) = deadline
            && deadline <= now
            && matches!(exchange.state, State::Picking | State::Entering)
        {
            exchange.reply(Reason::OutOfTime);
        }
        exchange
    }

    /// Says what is configured about the attempts, before anything else happens. `seed` is what the waits between them
    /// follow from.
    #[cold]
    pub fn follow(&mut self, tries: &Arc<Tries>, seed: u64) {
        self.plan = Some(Box::new(Plan::new(tries.clone(), seed)));
    }

    /// Tells the machine what happened. Inputs that can no longer matter (a timeout that lost a race, an ending
    /// after the end) are ignored.
    pub fn handle(&mut self, input: Input, now: Instant) {
        // Neither says that something moved: the one is told whenever the shell looks, the other because nothing did.
        if !matches!(input, Input::BodyTaken | Input::Timeout) {
            self.progress = now;
        }
        match (self.state, input) {
            (State::Done, _) => {}
            (_, Input::BodyTaken) => self.replayable = false,
            (State::Entering, Input::Admitted) => self.admitted(),
            (State::Entering, Input::Shed) => self.reply(Reason::ServiceOverloaded),
            (State::Picking, Input::Picked(permit)) => self.picked(permit, now),
            (State::Picking, Input::NoEndpoint(why)) => self.no_endpoint(why),
            (State::Picking | State::Pausing, Input::OverBudget) => self.over_budget(),
            (State::Dialing, Input::Connecting) => {
                if self.is_short_of_time(now) {
                    self.fail_attempt(Reason::OutOfTime, Some(NoRetry::Deadline));
                    self.reply(Reason::OutOfTime);
                }
            }
            (State::Dialing, Input::Connected { .. }) => {
                self.connect_deadline = None;
                self.state = State::Waiting;
                self.action = Some(Action::Send);
            }
            (State::Dialing, Input::ConnectFailed(why)) => self.connect_failed(why, now),
            (State::Waiting, Input::Response { status }) => {
                self.record.status = status;
                if self.call && status != 200 {
                    self.record.grpc = Some(Status::of_http(status));
                }
                // What a call's answer is worth is said at its end.
                let outcome =
                    if self.call && status == 200 { Outcome::Reached } else { Outcome::Answered(status) };
                self.report(outcome, now);
                self.state = State::Streaming;
                self.action = Some(Action::Relay);
            }
            (State::Waiting, Input::Withheld { status }) => {
                let outcome = if self.call && status == 200 {
                    Outcome::Ended(Status::UNAVAILABLE.as_http())
                } else {
                    Outcome::Answered(status)
                };
                self.report(outcome, now);
                self.app_saw = AppSaw::Maybe;
                if let Some(attempt) = self.record.last() {
                    (attempt.status, attempt.failed) = (status, Some(Reason::AnswerRetried));
                }
                self.again(Reason::AnswerRetried, false, now);
            }
            (State::Waiting, Input::UpstreamEnded(Ending::Early { app_saw, reason })) => {
                self.ended_early(app_saw, reason, now);
            }
            // A whole response without a head is not possible; treat it as the other side's fault.
            (State::Waiting, Input::UpstreamEnded(Ending::Complete)) => {
                self.ended_early(AppSaw::Maybe, Reason::UpstreamMalformed, now);
            }
            (State::Streaming, Input::UpstreamEnded(Ending::Complete)) => self.finish(now),
            (State::Streaming, Input::UpstreamEnded(Ending::Early { .. })) => {
                self.report(Outcome::Cut, now);
                self.cut(Reason::ResponseCut);
            }
            (_, Input::DownstreamGone) => {
                self.record.reason = Some(Reason::DownstreamGone);
                if self.record.status == 0 {
                    self.record.status = Reason::DownstreamGone.status();
                }
                self.fail_attempt(Reason::DownstreamGone, None);
                self.finish(now);
            }
            (State::Streaming | State::Ending, Input::RequestMalformed) => self.cut(Reason::RequestMalformed),
            (_, Input::RequestMalformed) => {
                self.fail_attempt(Reason::RequestMalformed, None);
                self.reply(Reason::RequestMalformed);
            }
            (_, Input::Timeout) => self.timed_out(now),
            // The shell's result of an action that a timeout or a gone client has overtaken.
            (
                State::Entering
                | State::Picking
                | State::Dialing
                | State::Waiting
                | State::Streaming
                | State::Pausing
                | State::Ending,
                Input::Admitted
                | Input::Shed
                | Input::Picked(_)
                | Input::NoEndpoint(_)
                | Input::OverBudget
                | Input::Connecting
                | Input::Withheld { .. }
                | Input::Connected { .. }
                | Input::ConnectFailed(_)
                | Input::Response { .. }
                | Input::UpstreamEnded(_),
            ) => {}
        }
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// The request is a call of gRPC: its streams may be silent for any time, but it may have a deadline.
    pub const fn begin_call(&mut self) {
        self.call = true;
        self.silence_allowed = true;
        self.answer_call();
    }

    /// The answer is a stream of events, between which any time may pass.
    pub const fn allow_silence(&mut self) {
        self.silence_allowed = true;
    }

    /// A call's answer says how it ended.
    pub const fn call_ended(&mut self, status: Status) {
        self.record.grpc = Some(status);
    }

    /// The answer opened a tunnel: from here on nothing times out.
    pub const fn begin_tunnel(&mut self) {
        self.tunnel = true;
    }

    /// Something moved: bytes in either direction. Puts off the idle limit.
    pub fn progress(&mut self, now: Instant) {
        self.progress = now;
    }

    /// When the whole exchange must be over.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The endpoint of the current attempt.
    pub fn endpoint(&self) -> Option<&Rc<Endpoint>> {
        self.permit.as_ref().map(Permit::endpoint)
    }

    /// The backend that the current attempt's endpoint is from.
    pub fn backend(&self) -> Option<BackendId> {
        self.permit.as_ref().map(Permit::backend)
    }

    /// What is known of the applications behind all attempts so far.
    pub const fn app_saw(&self) -> AppSaw {
        self.app_saw
    }

    /// Keys of the endpoints tried so far, where nothing is configured about attempts.
    pub fn tried(&self) -> ([u64; ATTEMPTS], usize) {
        let mut keys = [0; ATTEMPTS];
        if self.record.attempts_made() == 0 {
            return (keys, 0);
        }
        for (key, attempt) in keys.iter_mut().zip(self.record.attempts()) {
            *key = attempt.endpoint.key;
        }
        (keys, self.record.attempts_made().min(ATTEMPTS))
    }

    /// The record; complete after [`Action::Finish`].
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// What [`Action::Reply`] or [`Action::Cut`] asked for is done, or could not be: nothing is left to do.
    pub fn ended(&mut self, now: Instant) {
        self.finish(now);
    }

    /// There is room for it at the application beside.
    #[cold]
    fn admitted(&mut self) {
        let Then::Admit(split) = self.record.decision.then else { return };
        self.state = State::Picking;
        self.action = Some(Action::Pick { choice: Choice::Split(split), budget: false });
    }

    fn picked(&mut self, permit: Permit, now: Instant) {
        let (endpoint, chosen) = (permit.endpoint().clone(), permit.chosen());
        let attempt =
            Attempt { endpoint, chosen, started: now, status: 0, failed: None, hedge: false, outrun: false };
        if !self.record.begin(attempt) {
            return self.reply(Reason::ConnectFailed);
        }
        let mut connect = Some(CONNECT_TIMEOUT);
        if let Some(plan) = &mut self.plan {
            plan.tried.push(permit.endpoint().key);
            plan.try_deadline = plan.tries.try_timeout.map(|timeout| now.after(timeout));
            connect = plan.tries.connect_timeout;
        }
        self.permit = Some(permit);
        self.connect_deadline = connect.map(|timeout| now.after(timeout));
        self.state = State::Dialing;
        self.action = Some(Action::Dial);
    }

    fn no_endpoint(&mut self, why: NoEndpoint) {
        let none = match why {
            NoEndpoint::Empty => Reason::NoEndpoint,
            NoEndpoint::Unresolved => Reason::NameNotResolved,
            NoEndpoint::Unhealthy | NoEndpoint::AllTried => Reason::NoHealthyEndpoint,
            NoEndpoint::Limit { .. } => Reason::ServiceLimit,
        };
        self.no_attempt(NoRetry::NoEndpoint, none);
    }

    fn over_budget(&mut self) {
        self.no_attempt(NoRetry::Budget, Reason::NoHealthyEndpoint);
    }

    /// There is no further attempt. When some were made, the client learns why the last one failed, not that there is no
    /// further one.
    fn no_attempt(&mut self, why: NoRetry, first: Reason) {
        let Some(last) = self.record.last() else { return self.reply(first) };
        let (reason, status) = (last.failed.unwrap_or(first), last.status);
        self.record.no_retry = Some(why);
        self.reply(reason);
        if reason == Reason::AnswerRetried && !self.call {
            // The answer itself is gone; its status is not.
            self.record.status = status;
        }
    }

    fn timed_out(&mut self, now: Instant) {
        let Some((_, reason)) = self.poll_timeout() else { return };
        match (self.state, reason) {
            (State::Pausing, Reason::RequestTimeout) => {
                self.fail_attempt(reason, Some(NoRetry::Deadline));
                self.reply(reason);
            }
            (State::Pausing, _) => {
                let Some(choice) = self.plan.as_mut().and_then(|plan| plan.next.take()) else { return };
                self.state = State::Picking;
                self.action = Some(Action::Pick { choice, budget: false });
            }
            (State::Dialing, Reason::ConnectTimeout) => self.connect_failed(ConnectFailure::TimedOut, now),
            (State::Dialing, Reason::TryTimeout) => {
                self.report(Outcome::NoAnswer, now);
                self.retry_or_reply(AppSaw::Nothing, reason, true, now);
            }
            (State::Waiting, Reason::TryTimeout) => {
                self.app_saw = AppSaw::Maybe;
                self.report(Outcome::NoAnswer, now);
                self.retry_or_reply(AppSaw::Maybe, reason, true, now);
            }
            (State::Streaming | State::Ending, _) => self.cut(reason),
            (state, _) => {
                if state == State::Waiting {
                    self.app_saw = AppSaw::Maybe;
                }
                if matches!(state, State::Waiting | State::Dialing) {
                    self.report(Outcome::NoAnswer, now);
                }
                self.fail_attempt(reason, Some(NoRetry::Deadline));
                self.reply(reason);
            }
        }
    }

    fn reply(&mut self, reason: Reason) {
        self.permit = None;
        self.connect_deadline = None;
        // A call is answered by a status of its own.
        self.record.status = if self.call { 200 } else { reason.status() };
        self.record.reason = Some(reason);
        self.state = State::Ending;
        self.action = Some(Action::Reply(reason));
    }

    fn cut(&mut self, reason: Reason) {
        self.record.reason = Some(reason);
        self.fail_attempt(reason, Some(NoRetry::ResponseBegun));
        self.state = State::Ending;
        self.action = Some(Action::Cut(reason));
    }

    fn finish(&mut self, now: Instant) {
        if self.call {
            let said = self.record.grpc.unwrap_or(Status::UNKNOWN);
            if self.state == State::Streaming && self.record.status == 200 && self.record.reason.is_none() {
                self.report(Outcome::Ended(said.as_http()), now);
            }
            self.record.grpc = Some(self.record.reason.map_or(said, Status::of_reason));
        }
        self.permit = None;
        self.record.finished = now;
        self.state = State::Done;
        self.action = Some(Action::Finish);
    }

    #[inline]
    fn report(&self, outcome: Outcome, now: Instant) {
        if let Some(permit) = &self.permit {
            permit.report_since(outcome, || self.record.last_started().unwrap_or(now), now);
        }
    }

    fn fail_attempt(&mut self, reason: Reason, no_retry: Option<NoRetry>) {
        if let Some(attempt) = self.record.last() {
            attempt.failed.get_or_insert(reason);
            self.record.no_retry = self.record.no_retry.or(no_retry);
        }
    }
}

#[cfg(test)]
mod tests;
