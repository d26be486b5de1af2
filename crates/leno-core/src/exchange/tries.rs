//! What is configured about one request's attempts, compiled, and where its attempts stand by it. A request about which
//! nothing is configured has none of this.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::hedge::Race;
use super::{ATTEMPTS, ATTEMPTS_MAX, CONNECT_TIMEOUT, IDLE_TIMEOUT};
use crate::backend::Choice;
use crate::grpc::{self, Status};
use crate::head::{RequestHead, ResponseHead};
use crate::rng::Rng;
use crate::spec::{HEDGE_BODY_BYTES_MAX, HedgeSpec, RetryMethods, RetrySpec, TriesSpec};
use crate::time::{Duration, Instant};

/// How long the attempts of a request may take and when there is another one. `None`: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// From the pick of an endpoint to the head of its answer.
    pub(super) try_timeout: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    /// `None`: as without configuration.
    pub(super) retry: Option<RetrySpec>,
    /// `None`: no second attempt beside the first one.
    pub(super) hedge: Option<HedgeSpec>,
    /// The policy looks at answers.
    pub(super) judges: bool,
}

impl From<&TriesSpec> for Tries {
    fn from(spec: &TriesSpec) -> Self {
        let limit = |time: Option<Duration>, default: Option<Duration>| match time {
            None => default,
            Some(Duration::ZERO) => None,
            time => time,
        };
        Self {
            try_timeout: limit(spec.try_timeout, None),
            connect_timeout: limit(spec.connect_timeout, Some(CONNECT_TIMEOUT)),
            idle_timeout: limit(spec.idle_timeout, Some(IDLE_TIMEOUT)),
            judges: spec.retry.as_ref().is_some_and(|retry| !retry.on.takes_every_answer()),
            retry: spec.retry.clone(),
            hedge: spec.hedge.filter(|hedge| hedge.percent > 0),
        }
    }
}

impl Tries {
    /// Attempts at most, the first included.
    pub(super) fn attempts(&self) -> usize {
        self.retry.as_ref().map_or(ATTEMPTS, |retry| retry.attempts as usize).clamp(1, ATTEMPTS_MAX)
    }

    /// True when a request may be sent again that may have had an effect.
    pub fn repeats(&self, head: &RequestHead<'_>) -> bool {
        let by_method = match self.retry.as_ref().map(|retry| &retry.methods) {
            None => return head.is_idempotent(),
            Some(RetryMethods::Any) => return true,
            Some(RetryMethods::Idempotent) => head.is_idempotent(),
            Some(RetryMethods::These(methods)) => {
                methods.iter().any(|method| method.as_bytes() == head.method)
            }
        };
        // Who sends a key takes care that two of them are one.
        by_method || head.fields.get_named(b"idempotency-key").is_some_and(|key| !key.is_empty())
    }

    /// Bytes of a request's body that are kept so that it can be sent again; 0: none are.
    pub fn body_bytes_max(&self) -> usize {
        match &self.retry {
            Some(retry) if retry.attempts > 1 => retry.body_bytes_max as usize,
            _ if self.hedge.is_some() => HEDGE_BODY_BYTES_MAX as usize,
            _ => 0,
        }
    }

    /// True when requests may get a second attempt beside the first one.
    pub const fn hedges(&self) -> bool {
        self.hedge.is_some()
    }

    /// How long a connection may take to be made; `None`: no limit.
    pub const fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// True when the policy wants another attempt instead of this answer.
    pub(super) fn retries(&self, head: &ResponseHead<'_>, call: bool) -> bool {
        let Some(retry) = self.retry.as_ref().filter(|_| self.judges) else { return false };
        let status = head.status;
        retry.on.statuses.iter().any(|range| (range.first..=range.last).contains(&status))
            || call && retries_call(retry, Status::of(head.fields).or_else(|| of_http(status)))
            || retry.on.headers.iter().any(|header| {
                let found = head.fields.get_named(header.name.as_bytes());
                found.is_some_and(|found| {
                    header.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == found)
                })
            })
    }

    /// True when a call that ended like this is tried again.
    pub(super) fn retries_status(&self, status: Status) -> bool {
        self.retry.as_ref().is_some_and(|retry| retries_call(retry, Some(status)))
    }

    /// True when how a call ended may want another attempt.
    pub(super) fn judges_calls(&self) -> bool {
        self.retry.as_ref().is_some_and(|retry| retry.on.grpc != 0)
    }
}

/// What a call comes to whose answer is no answer of gRPC. An answer that is one has no status yet.
fn of_http(status: u16) -> Option<Status> {
    (status != 200).then(|| Status::of_http(status))
}

fn retries_call(retry: &RetrySpec, status: Option<Status>) -> bool {
    status.is_some_and(|status| retry.on.grpc >> u32::from(status.0.min(31)) & 1 == 1)
}

/// How long the one who answered asks to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing is said that can be understood; a date is not, since a core has no calendar.
    Nothing,
    /// So long.
    Wait(Duration),
    /// For ever: gRPC's way to forbid a retry.
    Never,
}

impl Asked {
    /// What a head says.
    pub(super) fn of(head: &ResponseHead<'_>, call: bool) -> Self {
        if call && let Some(text) = head.fields.get_named(grpc::PUSHBACK) {
            // What is no number forbids a retry as a negative one does (gRPC's proposal A6).
            return number(text).map_or(Self::Never, |millis| Self::Wait(Duration::from_millis(millis)));
        }
        let seconds = head.fields.get_named(b"retry-after").and_then(number);
        seconds.map_or(Self::Nothing, |seconds| Self::Wait(Duration::from_secs(seconds)))
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Where one request's attempts stand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tries: Arc<Tries>,
    /// For the waits.
    pub(super) rng: Rng,
    /// When the attempt has to have an answer.
    pub(super) try_deadline: Option<Instant>,
    /// When the next attempt begins.
    pub(super) resume: Option<Instant>,
    /// Where it goes.
    pub(super) next: Option<Choice>,
    /// How long it was decided to wait before the next attempt.
    pub(super) wait: Duration,
    /// What is known of a second attempt beside the one under way.
    pub(super) race: Race,
    /// Keys of every endpoint tried.
    pub(super) tried: Vec<u64>,
}

impl Plan {
    pub(super) const fn new(tries: Arc<Tries>, seed: u64) -> Self {
        let wait = Duration::ZERO;
        Self {
            tries,
            rng: Rng::new(seed),
            try_deadline: None,
            resume: None,
            next: None,
            wait,
            race: Race::NONE,
            tried: Vec::new(),
        }
    }

    /// The wait before the next attempt after `made` ones: full jitter below a cap that doubles. See [`crate::backoff`].
    pub(super) fn backoff(&mut self, made: usize) -> Duration {
        let Some(retry) = &self.tries.retry else { return Duration::ZERO };
        let doubled = retry.backoff.saturating_mul(1 << made.saturating_sub(1).min(16));
        let cap = doubled.min(retry.backoff_max);
        Duration::from_nanos(self.rng.below(u64::try_from(cap.as_nanos()).unwrap_or(u64::MAX)))
    }
}
