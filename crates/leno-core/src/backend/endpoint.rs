//! One endpoint as one worker knows it, and a request's place on it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::{Cell, OnceCell};

use super::group::Group;
use super::limit::{Counter, Held};
use super::outlier::{News, Tally, ejection};
use super::warming::Warm;
use crate::route::BackendId;
use crate::spec::{EndpointSpec, Near, Outliers};
use crate::time::{Duration, Instant};

/// How long an endpoint that could not be reached gets no requests while others can take them. Doubles with each
/// failure in a row, up to [`COOLING_MAX`].
pub const COOLING_MIN: Duration = Duration::from_millis(500);
/// The longest that an unreachable endpoint stays without a request.
pub const COOLING_MAX: Duration = Duration::from_secs(10);

/// Refusals that count as load, each until there is an answer: enough to prefer others by far, and forgotten soon when it
/// answers again.
const SHED_MAX: u32 = 16;

/// Requests at a time on an endpoint that was put out and has not shown yet that it works again.
const PROBATION_REQUESTS: u32 = 1;

/// One endpoint with its live state.
#[derive(Debug)]
pub struct Endpoint {
    /// What the registry says.
    pub spec: Arc<EndpointSpec>,
    /// Names this endpoint's pools; carried over a swap, never reused.
    pub key: u64,
    pub(super) live: Rc<Live>,
    /// What it has in common with its peers, where there is something to count.
    pub(super) group: Option<Rc<Group>>,
    /// Its requests under way over all workers, where they have a limit.
    pub(super) counter: Option<Arc<Counter>>,
    /// How far down it is in the order of preference; the nearest are 0.
    pub(super) level: u8,
    /// How near it is, where that is known.
    pub(super) near: Near,
}

/// What one worker knows of an endpoint; survives swaps.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Requests under way.
    pub(super) in_flight: Cell<u32>,
    /// Requests that it has refused lately because it had too many: its load is more than what we have there.
    shed: Cell<u32>,
    /// Times in a row that it could not be reached.
    failures: Cell<u32>,
    /// It is put out until then, and from then on probation until it has shown that it works.
    pub(super) out_until: Cell<Option<Instant>>,
    /// It is out because of its answers, not because nobody was there.
    pub(super) judged: Cell<bool>,
    /// Its latency in microseconds as a peak EWMA, where the policy goes by it; 0: it has not answered yet.
    pub(super) rtt: Cell<u64>,
    /// When the latency was last heard of.
    pub(super) heard: Cell<Instant>,
    /// Since when it takes requests, where that matters.
    pub(super) warm: Cell<Warm>,
    /// What is counted where outliers are looked for.
    pub(super) tally: OnceCell<Box<Tally>>,
}

/// One request's place on an endpoint.
#[derive(Debug)]
pub struct Permit {
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) backend: BackendId,
    pub(super) chosen: Chosen,
    pub(super) held: Held,
}

/// How it came that an endpoint was picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chosen {
    /// By the balance policy.
    #[default]
    Balanced,
    /// By the request's key.
    Affinity,
    /// It had been put out, and this request shows whether it works again.
    Probation,
    /// It is put out, but too few others are left.
    Panic,
    /// It is put out, and there is no other.
    LastResort,
    /// Those who are nearer cannot take it, or not all; this one is so near.
    Farther(Near),
    /// It is of the service that backs up the one asked for.
    Backup,
}

impl Chosen {
    /// The stable snake_case word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Affinity => "affinity",
            Self::Probation => "probation",
            Self::Panic => "panic",
            Self::LastResort => "last_resort",
            Self::Farther(Near::Subzone) => "same_subzone",
            Self::Farther(Near::Zone) => "other_subzone",
            Self::Farther(Near::Region) => "other_zone",
            Self::Farther(Near::Elsewhere) => "other_region",
            Self::Backup => "backup",
        }
    }
}

/// What an attempt taught about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered; what the answer is worth is told at its end, by [`Self::Ended`].
    Reached,
    /// It answered with this status.
    Answered(u16),
    /// What it had begun to answer came to this, in terms of HTTP.
    Ended(u16),
    /// It could not be reached, or the application behind it could not.
    Unreachable,
    /// It was reached, and there was no answer.
    NoAnswer,
    /// Its answer broke off.
    Cut,
    /// It has more to do than it can, and refused what it was asked before it began.
    Shed,
    /// Another endpoint answered a request first that was sent to this one before: it takes at least so long.
    Outrun,
}

impl Endpoint {
    /// Requests under way on it, from this worker.
    pub fn in_flight(&self) -> u32 {
        self.live.in_flight.get()
    }

    /// Its requests under way over all workers, where they have a limit.
    pub fn counter(&self) -> Option<&Counter> {
        self.counter.as_deref()
    }

    /// True while it is left alone: it could not be reached, or its answers were worse than its peers'.
    pub fn cooling(&self, now: Instant) -> bool {
        self.live.out_until.get().is_some_and(|until| now < until)
    }

    /// True while it is left alone because its answers were worse than its peers'.
    pub fn ejected(&self, now: Instant) -> bool {
        self.live.judged.get() && self.cooling(now)
    }

    /// Load compared between endpoints.
    pub(super) fn load(&self) -> u32 {
        self.live.load()
    }

    /// True when it takes requests like its peers, or as many as somebody on probation does.
    pub(super) fn takes(&self, now: Instant, panic: bool) -> bool {
        self.live.out_until.get().is_none_or(|until| self.takes_although_out(until, now, panic))
    }

    #[cold]
    fn takes_although_out(&self, until: Instant, now: Instant, panic: bool) -> bool {
        if now < until {
            // A refused connection is no opinion: it takes nothing, however few others there are.
            return panic && self.live.judged.get();
        }
        self.live.in_flight.get() < PROBATION_REQUESTS
    }

    /// How it came that it was picked.
    pub(super) fn chosen(&self, now: Instant, panic: bool) -> Chosen {
        match self.live.out_until.get() {
            None => Chosen::Balanced,
            Some(until) if now >= until => Chosen::Probation,
            Some(_) if panic && self.live.judged.get() => Chosen::Panic,
            Some(_) => Chosen::LastResort,
        }
    }
}

impl Permit {
    pub(super) fn new(endpoint: Rc<Endpoint>, backend: BackendId, chosen: Chosen, held: Held) -> Self {
        endpoint.live.in_flight.set(endpoint.live.in_flight.get() + 1);
        Self { endpoint, backend, chosen, held }
    }

    /// The endpoint that it is a place on.
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// The backend that the endpoint was picked from.
    pub const fn backend(&self) -> BackendId {
        self.backend
    }

    /// How it came that this endpoint was picked.
    pub const fn chosen(&self) -> Chosen {
        self.chosen
    }

    /// Teaches the endpoint what happened just now.
    pub fn report(&self, outcome: Outcome, now: Instant) {
        self.report_since(outcome, || now, now);
    }

    /// Teaches the endpoint what happened to an attempt that began at `started`.
    pub fn report_since(&self, outcome: Outcome, started: impl FnOnce() -> Instant, now: Instant) {
        let live = &*self.endpoint.live;
        match outcome {
            Outcome::Reached | Outcome::Answered(_) => {
                live.failures.set(0);
                if !live.judged.get() {
                    live.out_until.set(None);
                }
                if live.shed.get() > 0 {
                    live.shed.set(live.shed.get() - 1);
                }
            }
            Outcome::Shed => live.shed.set((live.shed.get() + 1).min(SHED_MAX)),
            Outcome::Unreachable if !live.judged.get() => live.cool(now),
            Outcome::Unreachable | Outcome::Ended(_) | Outcome::NoAnswer | Outcome::Cut | Outcome::Outrun => {
            }
        }
        if let Some(group) = &self.endpoint.group {
            group.learn(&self.endpoint, outcome, now.since(started()), now);
        }
    }
}

impl Live {
    /// Requests under way here from this worker, and signs of more from others.
    pub(super) fn load(&self) -> u32 {
        self.in_flight.get() + self.shed.get()
    }

    /// It could not be reached.
    fn cool(&self, now: Instant) {
        // Requests that fail together are one failure: the first has already set the pause.
        if self.out_until.get().is_none_or(|until| now >= until) {
            let failures = self.failures.get();
            let pause = COOLING_MIN.saturating_mul(1 << failures.min(8)).min(COOLING_MAX);
            self.failures.set(failures.saturating_add(1));
            self.out_until.set(Some(now.after(pause)));
        }
    }

    /// Its answers are worse than its peers': it is out for the time that is told.
    pub(super) fn eject(&self, spec: &Outliers, now: Instant) -> Duration {
        let Some(tally) = self.tally.get() else { return Duration::ZERO };
        // Twice as long well as it was out: the past is forgotten.
        if tally.back.get().is_some_and(|(back, was_out)| now.since(back) >= was_out * 2) {
            tally.ejections.set(0);
        }
        let wait = ejection(spec, tally.ejections.get());
        tally.ejections.set(tally.ejections.get().saturating_add(1));
        tally.forget();
        self.judged.set(true);
        self.out_until.set(Some(now.after(wait)));
        wait
    }

    /// Nobody judges it any more.
    pub(super) fn acquit(&self) {
        if self.judged.replace(false) {
            self.out_until.set(None);
        }
    }

    /// A request came to its end on probation.
    pub(super) fn tried(&self, good: bool, spec: &Outliers, now: Instant) {
        let Some(tally) = self.tally.get() else { return };
        if !good {
            let wait = self.eject(spec, now);
            return tally.news.set(Some(News::Relapsed(wait)));
        }
        tally.good.set(tally.good.get() + 1);
        if tally.good.get() >= spec.probation {
            let was_out = ejection(spec, tally.ejections.get().saturating_sub(1));
            tally.forget();
            tally.back.set(Some((now, was_out)));
            tally.news.set(Some(News::Returned));
            self.judged.set(false);
            self.out_until.set(None);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let in_flight = &self.endpoint.live.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
        if self.held != Held::NOTHING
            && let Some(group) = &self.endpoint.group
        {
            group.leave(self.held, &self.endpoint);
        }
    }
}
