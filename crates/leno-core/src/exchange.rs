//! One request from head to outcome. The shell says what happened ([`Input`]), the machine says what to do now
//! ([`Action`]); body bytes never pass through, only facts about them.
//!
//! ```text
//!            decide                 pick               dial             response head
//!   new ──────────────► Picking ───────────► Dialing ───────► Waiting ───────────────► Streaming ──► Done
//!    │ no route            ▲  │ no endpoint    │ failed          │ ended early             │ ended      ▲
//!    └────► Reply          │  └──► Reply       │                 │                         └────────────┤
//!             │            └───── retry? ◄─────┴─────────────────┘                                      │
//!             └─────────────────────────────── no ──────► Reply (Ending) ───────────────────────────────┘
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
//! they cost the endpoint nothing.

use alloc::rc::Rc;

use crate::backend::{Choice, Endpoint, NoEndpoint, Outcome, Permit};
use crate::grpc::Status;
use crate::reason::Reason;
use crate::route::{BackendId, Decision, Then};
use crate::time::{Duration, Instant};

/// Attempts per request, the first included (Istio's default is 3).
pub const ATTEMPTS_MAX: usize = 3;
/// How long one connection attempt may take: TCP and, between sidecars, TLS. Linkerd allows 1 s, Envoy 5 s; within
/// one mesh 2 s is far beyond a healthy handshake and leaves time for another endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an exchange may make no progress in either direction (Envoy's stream idle timeout).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

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
    record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Picking,
    Dialing,
    Waiting,
    Streaming,
    /// The client is being told that it failed, or the attempt is being cut.
    Ending,
    Done,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// There is an endpoint, with a place on it.
    Picked(Permit),
    /// There is none.
    NoEndpoint(NoEndpoint),
    /// The connection is there. The shell now sends the head and streams the body.
    Connected {
        /// It had been used before: it may have died since without anybody noticing.
        reused: bool,
    },
    /// There is no connection.
    ConnectFailed(ConnectFailure),
    /// Some of the request's body was taken from the client, so the request cannot be sent again.
    BodyTaken,
    /// A final response head came.
    Response {
        /// Its status.
        status: u16,
    },
    /// The attempt is over.
    UpstreamEnded(Ending),
    /// The client is gone.
    DownstreamGone,
    /// The rest of the client's request is not what its head announced.
    RequestMalformed,
    /// [`Exchange::poll_timeout`] has passed.
    Timeout,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Refused, unreachable, or broken while connecting.
    Refused,
    /// Not in time.
    TimedOut,
    /// The other end is not who it should be, or does not accept us.
    Tls,
    /// The endpoint is at one of its limits.
    Overload,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a complete response, relayed to its last byte.
    Complete,
    /// Early: closed, reset, or given up by the other side.
    Early {
        /// Whether the application may have seen some of the request.
        app_saw: AppSaw,
        /// What to tell the client if there is no other attempt.
        reason: Reason,
    },
}

/// What is known of an application behind a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppSaw {
    /// Provably no byte of the request.
    Nothing,
    /// Possibly some of it.
    Maybe,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the backends for an endpoint; the ones in [`Exchange::tried`] are to be avoided. When `retry` is set, the
    /// backend's budget has to allow it: answer [`Input::NoEndpoint`] with [`NoEndpoint::AllTried`] when it does not.
    Pick {
        /// Where to look.
        choice: Choice,
        /// Take one retry from the budget first.
        budget: bool,
    },
    /// Connect to the picked endpoint.
    Dial,
    /// Send the request head and stream its body, await the response head.
    Send,
    /// Relay the response head and stream its body.
    Relay,
    /// Answer the client: nothing has been sent to it yet.
    Reply(Reason),
    /// Give the client the answer that the rule has.
    Answer,
    /// End the attempt; the client got a part of the answer and must see that the rest is missing.
    Cut(Reason),
    /// Everything is over: read the record.
    Finish,
}

/// What is known of one request when it is over. The only source of access log, metrics and traces.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head had arrived.
    pub started: Instant,
    /// When it was over.
    pub finished: Instant,
    /// Which rule decided.
    pub decision: Decision,
    /// The attempts made, in order.
    attempts: [Option<Attempt>; ATTEMPTS_MAX],
    /// How many there are.
    attempts_made: usize,
    /// The status that the client got; 499 when it left before it got one.
    pub status: u16,
    /// Why it failed, if Leno ended it.
    pub reason: Option<Reason>,
    /// How it ended, if it is a call of gRPC.
    pub grpc: Option<Status>,
}

/// One try at one endpoint.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where.
    pub endpoint: Rc<Endpoint>,
    /// When it was picked.
    pub started: Instant,
    /// Why it failed, if it did.
    pub failed: Option<Reason>,
}

impl Exchange {
    /// Begins a request. `deadline` is what is left of a caller's own deadline; the route's timeout may only shorten it.
    pub fn new(decision: Decision, idempotent: bool, deadline: Option<Instant>, now: Instant) -> Self {
        let routed = decision.timeout.map(|timeout| now.after(timeout));
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
            record: Record {
                started: now,
                finished: now,
                decision,
                attempts: [const { None }; ATTEMPTS_MAX],
                attempts_made: 0,
                status: 0,
                reason: None,
                grpc: None,
            },
        };
        match decision.then {
            Then::Split(split) => {
                exchange.action = Some(Action::Pick { choice: Choice::Split(split), budget: false });
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
        exchange
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
            (State::Picking, Input::Picked(permit)) => self.picked(permit, now),
            (State::Picking, Input::NoEndpoint(why)) => self.no_endpoint(why),
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
                self.report(Outcome::Reached, now);
                self.state = State::Streaming;
                self.action = Some(Action::Relay);
            }
            (State::Waiting, Input::UpstreamEnded(Ending::Early { app_saw, reason })) => {
                self.ended_early(app_saw, reason, now);
            }
            // A whole response without a head is not possible; treat it as the other side's fault.
            (State::Waiting, Input::UpstreamEnded(Ending::Complete)) => {
                self.ended_early(AppSaw::Maybe, Reason::UpstreamMalformed, now);
            }
            (State::Streaming, Input::UpstreamEnded(Ending::Complete)) => self.finish(now),
            (State::Streaming, Input::UpstreamEnded(Ending::Early { .. })) => self.cut(Reason::ResponseCut),
            (_, Input::DownstreamGone) => {
                self.record.reason = Some(Reason::DownstreamGone);
                if self.record.status == 0 {
                    self.record.status = Reason::DownstreamGone.status();
                }
                self.fail_attempt(Reason::DownstreamGone);
                self.finish(now);
            }
            (State::Streaming | State::Ending, Input::RequestMalformed) => self.cut(Reason::RequestMalformed),
            (_, Input::RequestMalformed) => {
                self.fail_attempt(Reason::RequestMalformed);
                self.reply(Reason::RequestMalformed);
            }
            (_, Input::Timeout) => self.timed_out(now),
            // The shell's result of an action that a timeout or a gone client has overtaken.
            (
                State::Picking | State::Dialing | State::Waiting | State::Streaming | State::Ending,
                Input::Picked(_)
                | Input::NoEndpoint(_)
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

    /// When [`Input::Timeout`] is due, and what will have timed out.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        // How long the client may take to be told is the shell's to bound: a deadline that is already past must not
        // take the words out of its mouth.
        if matches!(self.state, State::Ending | State::Done) {
            return None;
        }
        if self.tunnel {
            return None;
        }
        let idle =
            (!self.silence_allowed).then_some((self.progress.after(IDLE_TIMEOUT), Reason::IdleTimeout));
        let connect = self.connect_deadline.map(|at| (at, Reason::ConnectTimeout));
        let whole = self.deadline.map(|at| (at, Reason::RequestTimeout));
        // On a tie the later one in this order is the reason; the whole exchange's deadline cannot be retried.
        [idle, connect, whole]
            .into_iter()
            .flatten()
            .reduce(|next, wait| if wait.0 <= next.0 { wait } else { next })
    }

    /// The request is a call of gRPC: its streams may be silent for any time, but it may have a deadline.
    pub const fn begin_call(&mut self) {
        self.call = true;
        self.silence_allowed = true;
        if let Then::Answer(status) = self.record.decision.then {
            self.record.grpc = Some(Status::of_http(status));
        }
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

    /// When the whole exchange must be over, to be told to the next hop.
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

    /// Keys of the endpoints tried so far.
    pub fn tried(&self) -> ([u64; ATTEMPTS_MAX], usize) {
        let mut keys = [0; ATTEMPTS_MAX];
        for (key, attempt) in keys.iter_mut().zip(self.record.attempts()) {
            *key = attempt.endpoint.key;
        }
        (keys, self.record.attempts_made)
    }

    /// The record; complete after [`Action::Finish`].
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// What [`Action::Reply`] or [`Action::Cut`] asked for is done, or could not be: nothing is left to do.
    pub fn ended(&mut self, now: Instant) {
        self.finish(now);
    }

    fn picked(&mut self, permit: Permit, now: Instant) {
        let attempt = Attempt { endpoint: permit.endpoint().clone(), started: now, failed: None };
        match self.record.attempts.get_mut(self.record.attempts_made) {
            Some(slot) => *slot = Some(attempt),
            None => return self.reply(Reason::ConnectFailed),
        }
        self.record.attempts_made += 1;
        self.permit = Some(permit);
        self.connect_deadline = Some(now.after(CONNECT_TIMEOUT));
        self.state = State::Dialing;
        self.action = Some(Action::Dial);
    }

    fn no_endpoint(&mut self, why: NoEndpoint) {
        // When attempts were made, the client learns why the last one failed, not that there is no further one.
        let last = self.record.attempts().last().and_then(|attempt| attempt.failed);
        self.reply(last.unwrap_or(match why {
            NoEndpoint::Empty => Reason::NoEndpoint,
            NoEndpoint::Unresolved => Reason::NameNotResolved,
            NoEndpoint::Unhealthy | NoEndpoint::AllTried => Reason::NoHealthyEndpoint,
        }));
    }

    fn connect_failed(&mut self, why: ConnectFailure, now: Instant) {
        let reason = match why {
            ConnectFailure::Refused => Reason::ConnectFailed,
            ConnectFailure::TimedOut => Reason::ConnectTimeout,
            ConnectFailure::Tls => Reason::TlsRefused,
            ConnectFailure::Overload => Reason::Overload,
        };
        self.connect_deadline = None;
        if why != ConnectFailure::Overload {
            self.report(Outcome::Unreachable, now);
        }
        self.retry_or_reply(reason, false);
    }

    fn ended_early(&mut self, app_saw: AppSaw, reason: Reason, now: Instant) {
        if app_saw == AppSaw::Maybe {
            self.app_saw = AppSaw::Maybe;
        }
        // A peer that says that its application cannot be reached is as good as unreachable.
        if app_saw == AppSaw::Nothing && reason == Reason::ConnectFailed {
            self.report(Outcome::Unreachable, now);
        }
        // The peer's clock and ours measure the same deadline: what is too late there is too late here.
        // A request that cannot be said to one peer cannot be said to another one.
        let worth_it =
            !matches!(reason, Reason::RequestTimeout | Reason::RequestMalformed | Reason::Unsupported);
        if worth_it && self.replayable && (app_saw == AppSaw::Nothing || self.idempotent) {
            self.retry_or_reply(reason, true);
        } else {
            self.fail_attempt(reason);
            self.reply(reason);
        }
    }

    fn retry_or_reply(&mut self, reason: Reason, budget: bool) {
        self.fail_attempt(reason);
        let backend = self.permit.take().map(|permit| permit.backend());
        match backend {
            Some(backend) if self.record.attempts_made < ATTEMPTS_MAX && self.replayable => {
                self.state = State::Picking;
                let choice = match self.record.decision.then {
                    Then::Direct(address) => Choice::Direct(address),
                    _ => Choice::Backend(backend),
                };
                self.action = Some(Action::Pick { choice, budget });
            }
            _ => self.reply(reason),
        }
    }

    fn timed_out(&mut self, now: Instant) {
        let Some((_, reason)) = self.poll_timeout() else { return };
        match (self.state, reason) {
            (State::Dialing, Reason::ConnectTimeout) => self.connect_failed(ConnectFailure::TimedOut, now),
            (State::Streaming | State::Ending, _) => self.cut(reason),
            (state, _) => {
                if state == State::Waiting {
                    self.app_saw = AppSaw::Maybe;
                }
                self.fail_attempt(reason);
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

    /// What the operator wanted answered is no failure.
    fn answer(&mut self, status: u16) {
        self.record.status = status;
        self.state = State::Ending;
        self.action = Some(Action::Answer);
    }

    fn cut(&mut self, reason: Reason) {
        self.record.reason = Some(reason);
        self.fail_attempt(reason);
        self.state = State::Ending;
        self.action = Some(Action::Cut(reason));
    }

    fn finish(&mut self, now: Instant) {
        self.permit = None;
        if self.call {
            let said = self.record.grpc.unwrap_or(Status::UNKNOWN);
            self.record.grpc = Some(self.record.reason.map_or(said, Status::of_reason));
        }
        self.record.finished = now;
        self.state = State::Done;
        self.action = Some(Action::Finish);
    }

    fn report(&self, outcome: Outcome, now: Instant) {
        if let Some(permit) = &self.permit {
            permit.report(outcome, now);
        }
    }

    fn fail_attempt(&mut self, reason: Reason) {
        let last = self.record.attempts_made.checked_sub(1);
        if let Some(Some(attempt)) = last.and_then(|last| self.record.attempts.get_mut(last)) {
            attempt.failed.get_or_insert(reason);
        }
    }
}

impl Record {
    /// The attempts made, in order.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().flatten()
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.finished.since(self.started)
    }
}

#[cfg(test)]
mod tests;
