//! What the shell and the machine say to each other.

use crate::backend::{Choice, NoEndpoint, Permit};
use crate::reason::Reason;
use crate::route::BackendId;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// There is a place at the application beside.
    Admitted,
    /// There is none, and there will be none in time.
    Shed,
    /// There is an endpoint, with a place on it.
    Picked(Permit),
    /// There is none.
    NoEndpoint(NoEndpoint),
    /// The backend's budget does not allow the retry that was asked for.
    OverBudget,
    /// No connection stands; one would have to be made.
    Connecting,
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
    /// The answer is not relayed: [`Exchange::wants_another`](super::Exchange::wants_another) said so, and the backend's budget allows it.
    Withheld {
        /// Its status.
        status: u16,
    },
    /// The attempt is over.
    UpstreamEnded(Ending),
    /// The client is gone.
    DownstreamGone,
    /// The rest of the client's request is not what its head announced.
    RequestMalformed,
    /// [`Exchange::poll_timeout`](super::Exchange::poll_timeout) has passed.
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
    /// The service has as many connections as it may: another endpoint would not help.
    Limit,
}

impl ConnectFailure {
    /// What the client is told, if there is no other attempt.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Refused => Reason::ConnectFailed,
            Self::TimedOut => Reason::ConnectTimeout,
            Self::Tls => Reason::TlsRefused,
            Self::Overload => Reason::Overload,
            Self::Limit => Reason::ServiceLimit,
        }
    }
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
    /// Ask for a place at the application beside.
    Admit,
    /// Ask the backends for an endpoint; the ones in [`Exchange::tried`](super::Exchange::tried) are to be avoided. When `budget` is set, the
    /// backend's budget has to allow it: answer [`Input::OverBudget`] when it does not.
    Pick {
        /// Where to look.
        choice: Choice,
        /// Take one retry from the budget first.
        budget: bool,
    },
    /// Wait until [`Exchange::poll_timeout`](super::Exchange::poll_timeout), or until the client is gone. When `budget` is set, the budget of this backend
    /// has to allow it first: answer [`Input::OverBudget`] when it does not.
    Pause {
        /// Take one retry from the budget first.
        budget: Option<BackendId>,
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
