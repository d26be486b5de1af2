//! What is kept of a request: every attempt, and why there was no further one.

use alloc::boxed::Box;
use alloc::rc::Rc;

use super::hedge::Hedged;
use super::{ATTEMPTS, ATTEMPTS_MAX};
use crate::backend::{Chosen, Endpoint};
use crate::grpc::Status;
use crate::reason::Reason;
use crate::route::Decision;
use crate::time::{Duration, Instant};

/// What is known of one request when it is over. The only source of access log, metrics and traces.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head had arrived.
    pub started: Instant,
    /// When it was over.
    pub finished: Instant,
    /// Which rule decided.
    pub decision: Decision,
    /// The attempts made, in order, but the one that was answered last; as many as there are without configuration.
    attempts: [Option<Attempt>; ATTEMPTS],
    /// Those after them.
    more: Option<Box<[Option<Attempt>; ATTEMPTS_MAX - ATTEMPTS]>>,
    /// Why it failed, if Leno ended it.
    pub reason: Option<Reason>,
    /// How it ended, if it is a call of gRPC.
    pub grpc: Option<Status>,
    /// Why the last attempt was not followed by another one, if it failed.
    pub no_retry: Option<NoRetry>,
    /// What became of a second attempt beside the first one, where it was time for one.
    pub hedged: Option<Hedged>,
    /// The status that the client got; 499 when it left before it got one.
    pub status: u16,
    /// How many attempts there are.
    made: u8,
}

/// One try at one endpoint.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where.
    pub endpoint: Rc<Endpoint>,
    /// How it came that this one was picked.
    pub chosen: Chosen,
    /// When it was picked.
    pub started: Instant,
    /// The status of an answer that was to be tried again; 0: there was none.
    pub status: u16,
    /// Why it failed, if it did.
    pub failed: Option<Reason>,
    /// It was begun beside another one that took long.
    pub hedge: bool,
    /// It was given up because the other one was answered first.
    pub outrun: bool,
}

/// Why a failed attempt is not followed by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoRetry {
    /// The policy does not ask for it, or nothing would come of it.
    NotAsked,
    /// As many attempts were made as there may be.
    Attempts,
    /// Some of the request's body is gone: it was not kept, or was too long to be kept.
    BodyGone,
    /// It may have had an effect, and the request must not have two.
    NotIdempotent,
    /// There would be no time for it.
    Deadline,
    /// The client has got a part of the answer.
    ResponseBegun,
    /// The backend's budget of retries is used up.
    Budget,
    /// The service asks to be left alone for longer than is waited.
    AskedToWait,
    /// Whoever answered had tried again already: one more try here would be one on top of each of those.
    Deeper,
    /// There is no endpoint to try.
    NoEndpoint,
}

impl NoRetry {
    /// The stable word for it, in the access log and the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Attempts => "attempts",
            Self::BodyGone => "body_gone",
            Self::NotIdempotent => "not_idempotent",
            Self::Deadline => "deadline",
            Self::ResponseBegun => "response_begun",
            Self::Budget => "budget",
            Self::AskedToWait => "asked_to_wait",
            Self::Deeper => "retried_deeper",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

impl Record {
    /// Of a request that has just begun.
    #[inline]
    pub(super) const fn new(decision: Decision, now: Instant) -> Self {
        Self {
            started: now,
            finished: now,
            decision,
            attempts: [const { None }; ATTEMPTS],
            more: None,
            reason: None,
            grpc: None,
            no_retry: None,
            hedged: None,
            status: 0,
            made: 0,
        }
    }

    /// The attempts made, in order.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        let more = self.more.iter().flat_map(|more| more.iter().flatten());
        self.attempts.iter().flatten().chain(more)
    }

    /// How many attempts were made.
    pub const fn attempts_made(&self) -> usize {
        self.made as usize
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.finished.since(self.started)
    }

    /// Adds an attempt; false when there is no room for it.
    #[inline]
    pub(super) fn begin(&mut self, attempt: Attempt) -> bool {
        let at = self.attempts_made();
        let slot = match self.attempts.get_mut(at) {
            Some(slot) => slot,
            None => {
                let more = self.more.get_or_insert_with(|| Box::new([const { None }; _]));
                let Some(slot) = more.get_mut(at - ATTEMPTS) else { return false };
                slot
            }
        };
        *slot = Some(attempt);
        self.made += 1;
        true
    }

    /// The attempts that were begun because the one before had failed.
    pub fn retries(&self) -> usize {
        let hedges =
            if self.hedged.is_some() { self.attempts().filter(|attempt| attempt.hedge).count() } else { 0 };
        self.attempts_made().saturating_sub(1 + hedges)
    }

    /// One of the first attempts.
    pub(super) fn at(&mut self, at: usize) -> Option<&mut Attempt> {
        self.attempts.get_mut(at)?.as_mut()
    }

    /// The first attempt goes on, and the one that was begun beside it does not: what goes on is the last one.
    pub(super) const fn swap_first_two(&mut self) {
        self.attempts.swap(0, 1);
    }

    /// When the attempt under way was picked.
    #[inline]
    pub(super) fn last_started(&self) -> Option<Instant> {
        let at = self.attempts_made().checked_sub(1)?;
        let attempt = match self.attempts.get(at) {
            Some(slot) => slot,
            None => self.more.as_ref()?.get(at - ATTEMPTS)?,
        };
        attempt.as_ref().map(|attempt| attempt.started)
    }

    /// The attempt under way.
    pub(super) fn last(&mut self) -> Option<&mut Attempt> {
        let at = self.attempts_made().checked_sub(1)?;
        match self.attempts.get_mut(at) {
            Some(slot) => slot.as_mut(),
            None => self.more.as_mut()?.get_mut(at - ATTEMPTS)?.as_mut(),
        }
    }
}
