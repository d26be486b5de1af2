//! What must happen to one request, written down a second time: no machine, no permits, no clocks, only the rules
//! that a user was promised. The run compares every action of the real exchange with it.

use leno_core::exchange::{ATTEMPTS, Action, AppSaw, CONNECT_TIMEOUT, IDLE_TIMEOUT};
use leno_core::reason::Reason;
use leno_core::time::{Duration, Instant};

/// One request, as promised.
#[derive(Clone, Debug)]
pub struct Model {
    /// It may be done twice.
    idempotent: bool,
    /// When it must be over.
    deadline: Option<Instant>,
    /// Its body is still here.
    replayable: bool,
    /// Attempts begun.
    attempts: usize,
    /// Why the last one failed.
    failed: Option<Reason>,
    phase: Phase,
    /// When something last moved, and when the current connection attempt began.
    moved: Instant,
    dialed: Instant,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between attempts.
    Choosing,
    /// Waiting for a connection.
    Dialing,
    /// Sent; nothing came back.
    Sent,
    /// The client has seen a part of the answer.
    Answering,
    /// The client was told that it failed.
    Told,
    /// Over.
    Over,
}

/// What happened, as far as the promise goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An endpoint was found.
    Found,
    /// None was.
    NotFound(Reason),
    /// Connected.
    Connected,
    /// Not connected.
    NotConnected(Reason),
    /// A part of the body is gone.
    BodyTaken,
    /// The answer began.
    Answered,
    /// The answer is complete.
    Complete,
    /// The attempt broke.
    Broke(AppSaw, Reason),
    /// The client left.
    Left,
    /// The wait that [`Model::wait`] names is over.
    Waited,
    /// The client has been told.
    Told,
}

/// What must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// Nothing.
    Nothing,
    /// Look for an endpoint; of the budget or not.
    Choose(bool),
    /// Connect.
    Dial,
    /// Send.
    Send,
    /// Relay.
    Relay,
    /// Tell the client.
    Reply(Reason),
    /// Cut the answer.
    Cut(Reason),
    /// Be done.
    Finish,
}

impl Model {
    /// A request that arrived at `now`, with the time that its route and its caller leave it.
    pub fn new(idempotent: bool, deadline: Option<Instant>, now: Instant) -> Self {
        Self {
            idempotent,
            deadline,
            replayable: true,
            attempts: 0,
            failed: None,
            phase: Phase::Choosing,
            moved: now,
            dialed: now,
        }
    }

    /// The next wait that ends, and the reason it gives.
    pub fn wait(&self) -> (Instant, Reason) {
        let mut waits = vec![(self.moved.after(IDLE_TIMEOUT), 2, Reason::IdleTimeout)];
        if self.phase == Phase::Dialing {
            waits.push((self.dialed.after(CONNECT_TIMEOUT), 1, Reason::ConnectTimeout));
        }
        if let Some(deadline) = self.deadline {
            waits.push((deadline, 0, Reason::RequestTimeout));
        }
        waits.sort_by_key(|(at, order, _)| (*at, *order));
        (waits[0].0, waits[0].2)
    }

    /// True when nothing more may happen.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// True when nothing is waited for: the client is told at its own pace, which the shell bounds.
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Told | Phase::Over)
    }

    /// What must follow `fact`.
    pub fn after(&mut self, fact: Fact, now: Instant) -> Must {
        let (_, reason_of_wait) = self.wait();
        // A look at the body or the clock moves nothing.
        if !matches!(fact, Fact::BodyTaken | Fact::Waited) {
            self.moved = now;
        }
        match (self.phase, fact) {
            (Phase::Over, _) => Must::Nothing,
            (_, Fact::BodyTaken) => {
                self.replayable = false;
                Must::Nothing
            }
            (_, Fact::Left) | (Phase::Told, Fact::Told) | (Phase::Answering, Fact::Complete) => {
                self.go(Phase::Over, Must::Finish)
            }
            (Phase::Choosing, Fact::Found) => {
                self.attempts += 1;
                self.dialed = now;
                self.go(Phase::Dialing, Must::Dial)
            }
            (Phase::Choosing, Fact::NotFound(reason)) => self.tell(self.failed.unwrap_or(reason)),
            (Phase::Dialing, Fact::Connected) => self.go(Phase::Sent, Must::Send),
            (Phase::Dialing, Fact::NotConnected(reason)) => self.again(reason, true, false),
            (Phase::Sent, Fact::Answered) => self.go(Phase::Answering, Must::Relay),
            (Phase::Sent, Fact::Broke(app_saw, reason)) => {
                let harmless = app_saw == AppSaw::Nothing || self.idempotent;
                self.again(reason, harmless && reason != Reason::RequestTimeout, true)
            }
            (Phase::Answering, Fact::Broke(..)) => self.go(Phase::Told, Must::Cut(Reason::ResponseCut)),
            (Phase::Dialing, Fact::Waited) if reason_of_wait == Reason::ConnectTimeout => {
                self.again(reason_of_wait, true, false)
            }
            (Phase::Told, Fact::Waited) => Must::Nothing,
            (Phase::Answering, Fact::Waited) => self.go(Phase::Told, Must::Cut(reason_of_wait)),
            (_, Fact::Waited) => self.tell(reason_of_wait),
            _ => Must::Nothing,
        }
    }

    /// The promise about retries.
    fn again(&mut self, reason: Reason, harmless: bool, budget: bool) -> Must {
        self.failed = Some(reason);
        if harmless && self.replayable && self.attempts < ATTEMPTS {
            self.go(Phase::Choosing, Must::Choose(budget))
        } else {
            self.tell(reason)
        }
    }

    fn tell(&mut self, reason: Reason) -> Must {
        self.go(Phase::Told, Must::Reply(reason))
    }

    fn go(&mut self, phase: Phase, must: Must) -> Must {
        self.phase = phase;
        must
    }
}

impl Must {
    /// True when `action` is what must follow.
    pub fn is(self, action: Option<Action>) -> bool {
        match (self, action) {
            (Self::Nothing, None)
            | (Self::Dial, Some(Action::Dial))
            | (Self::Send, Some(Action::Send))
            | (Self::Relay, Some(Action::Relay))
            | (Self::Finish, Some(Action::Finish)) => true,
            (Self::Choose(wanted), Some(Action::Pick { budget, .. })) => wanted == budget,
            (Self::Reply(wanted), Some(Action::Reply(reason)))
            | (Self::Cut(wanted), Some(Action::Cut(reason))) => wanted == reason,
            _ => false,
        }
    }
}

/// How long a reply takes to reach the client.
pub const TELLING: Duration = Duration::from_micros(50);
