//! Which endpoints fail, and whether that is theirs or everybody's.
//!
//! A detector (errors in a row, a rate, a latency) only raises a suspicion. What decides is a comparison with the
//! peers: how likely it is, if the endpoint were like them, that it fails so much more often. That is the likelihood
//! ratio of two proportions, which holds for five requests as for five thousand and needs no number of standard
//! deviations to be set: Envoy's and Istio's detectors take a host's errors for the host's fault, and so eject healthy
//! hosts whenever a bad request or a broken dependency makes all of them fail. It costs one look over the endpoints,
//! which is why a backend is looked over at most every [`LOOKS_APART`], and only when requests come.
//!
//! ```text
//!        worse than its peers              its time is over            so many good answers in a row
//!   in ──────────────────────► out ──────────────────────► on probation ──────────────────────► in
//!                               ▲                                │ a failure: longer
//!                               └────────────────────────────────┘
//! ```

use core::cell::Cell;
use core::cmp::Ordering;

use crate::spec::Outliers;
use crate::time::{Duration, Instant};

/// Looks over a backend's endpoints are at least so far apart, so that failures cost the same among 10 and 10,000.
pub(super) const LOOKS_APART: Duration = Duration::from_millis(100);

/// A backend is looked over so often per window, whether or not something failed.
const STEPS: usize = 5;

/// What the comparison must come to: the exponent of the likelihood ratio. At 14 a healthy endpoint is taken for a
/// worse one about once in ten million looks, and five failures out of five, where nine peers answered five each, are enough.
const EVIDENCE_MIN: f64 = 14.0;

/// The same for failures in a row, beside all that the peers did in the window. Rows begin with every request, so there are
/// many more of them than looks: at 20, one of a service of which every twentieth request fails anyway is put out once in a
/// thousand million requests.
const ROW_EVIDENCE_MIN: f64 = 20.0;

/// Who fails that much more often than its peers, in percent, is worth being put out. Small differences can be certain
/// where there are many requests, and still be none that anybody wants to lose an instance for.
const GAP_PERCENT_MIN: f64 = 10.0;

/// Latencies that differ by less are not compared.
const LATENCY_GAP_MIN: Duration = Duration::from_millis(5);

/// What happened on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that came to an end, good or bad.
    pub requests: u32,
    /// Those that failed.
    pub failures: u32,
    /// What all answers took together, in microseconds.
    pub latency_micros: u64,
}

/// Why an endpoint was put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// Answers of 500 and above in a row.
    Errors,
    /// Answers of 502, 503 or 504 in a row.
    GatewayErrors,
    /// Requests without an answer in a row.
    LocalFailures,
    /// Its success rate.
    SuccessRate,
    /// Its share of failures.
    FailurePercent,
    /// Its latency.
    Latency,
    /// It failed on probation.
    Probation,
}

impl Detector {
    /// The stable snake_case word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::GatewayErrors => "gateway_errors",
            Self::LocalFailures => "local_failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercent => "failure_percent",
            Self::Latency => "latency",
            Self::Probation => "probation",
        }
    }
}

/// What one request taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    Good,
    /// An answer of this status, 500 or above.
    Error(u16),
    /// No answer.
    NoAnswer,
    /// What looked like an answer broke off.
    Cut,
}

/// What one worker has counted of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Since the endpoint is known; wraps.
    total: Cell<Count>,
    /// Kinds of failures in a row.
    errors: Cell<u32>,
    gateway_errors: Cell<u32>,
    local_failures: Cell<u32>,
    /// What `total` was at the beginning of each step of the window, the oldest at `oldest`.
    history: Cell<[Count; STEPS]>,
    oldest: Cell<u8>,
    /// Good answers in a row on probation.
    pub(super) good: Cell<u32>,
    /// Times that it was put out without a long good time between them.
    pub(super) ejections: Cell<u32>,
    /// When it came back the last time, and how long it had been out.
    pub(super) back: Cell<Option<(Instant, Duration)>>,
    /// What is yet to be told.
    pub(super) news: Cell<Option<News>>,
}

/// How a probation ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    Returned,
    /// For so long.
    Relapsed(Duration),
}

impl Tally {
    /// An answer took so long.
    pub(super) fn learn_latency(&self, took: Duration) {
        let mut total = self.total.get();
        let micros = took.as_micros().min(u128::from(u32::MAX)) as u64;
        total.latency_micros = total.latency_micros.wrapping_add(micros);
        self.total.set(total);
    }

    /// A request came to its end.
    pub(super) fn learn(&self, lesson: Lesson) {
        let mut total = self.total.get();
        let next = |row: &Cell<u32>, hit: bool| row.set(if hit { row.get().saturating_add(1) } else { 0 });
        // The head of what was cut has been counted.
        if lesson != Lesson::Cut {
            total.requests = total.requests.wrapping_add(1);
        }
        if lesson != Lesson::Good {
            total.failures = total.failures.wrapping_add(1);
        }
        next(&self.errors, matches!(lesson, Lesson::Error(_)));
        next(&self.gateway_errors, matches!(lesson, Lesson::Error(502..=504)));
        next(&self.local_failures, matches!(lesson, Lesson::NoAnswer | Lesson::Cut));
        self.total.set(total);
    }

    /// A step of the window is over; `steps` of them.
    pub(super) fn step(&self, steps: usize) {
        let (mut history, mut oldest) = (self.history.get(), usize::from(self.oldest.get()));
        for _ in 0..steps.min(STEPS) {
            if let Some(slot) = history.get_mut(oldest) {
                *slot = self.total.get();
            }
            oldest = (oldest + 1) % STEPS;
        }
        self.history.set(history);
        self.oldest.set(oldest as u8);
    }

    /// Begins anew: what was is not held against it.
    pub(super) fn forget(&self) {
        self.history.set([self.total.get(); STEPS]);
        self.errors.set(0);
        self.gateway_errors.set(0);
        self.local_failures.set(0);
        self.good.set(0);
    }

    /// What happened in the window.
    pub(super) fn recent(&self) -> Count {
        let history = self.history.get();
        let before = history.get(usize::from(self.oldest.get())).copied().unwrap_or_default();
        self.total.get().less(before)
    }

    /// Why it is to be put out, if it is: beside peers that together had `peers`.
    pub(super) fn verdict(&self, own: Count, peers: Count, spec: &Outliers) -> Option<Detector> {
        let reached = |row: &Cell<u32>, limit: Option<u32>| limit.is_some_and(|limit| row.get() >= limit);
        let rows = [
            (Detector::GatewayErrors, &self.gateway_errors, spec.gateway_errors),
            (Detector::Errors, &self.errors, spec.errors),
            (Detector::LocalFailures, &self.local_failures, spec.local_failures),
        ];
        if let Some((detector, row, _)) = rows.into_iter().find(|(_, row, limit)| reached(row, *limit)) {
            // The row alone shows what has begun just now, after a good time.
            let alone = Count { requests: row.get(), failures: row.get(), ..own };
            if alone.evidence(peers) >= ROW_EVIDENCE_MIN && alone.is_worse_than(peers)
                || own.is_worse_than(peers)
            {
                return Some(detector);
            }
        }
        if own.requests < spec.requests_min {
            return None;
        }
        let percent = |count: Count| count.rate() * 100.0;
        let too_many = spec
            .failure_percent
            .map(f64::from)
            .is_some_and(|limit| percent(own) >= limit && percent(peers) < limit && own.is_worse_than(peers));
        if too_many {
            return Some(Detector::FailurePercent);
        }
        if spec.success_rate && own.is_worse_than(peers) {
            return Some(Detector::SuccessRate);
        }
        let slow = spec.latency.is_some_and(|times| {
            let (own, theirs) = (own.latency(), peers.latency());
            peers.requests >= spec.requests_min
                && own >= theirs.saturating_mul(times)
                && own >= theirs + LATENCY_GAP_MIN
        });
        slow.then_some(Detector::Latency)
    }
}

/// How long a step of a window is.
pub(super) fn step(spec: &Outliers) -> Duration {
    spec.window / STEPS as u32
}

/// How long an endpoint is out the `times`th time, from 0.
pub(super) fn ejection(spec: &Outliers, times: u32) -> Duration {
    spec.ejection.saturating_mul(1 << times.min(16)).min(spec.ejection_max)
}

impl Count {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.wrapping_add(other.requests),
            failures: self.failures.wrapping_add(other.failures),
            latency_micros: self.latency_micros.wrapping_add(other.latency_micros),
        }
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self {
            requests: self.requests.wrapping_sub(other.requests),
            failures: self.failures.wrapping_sub(other.failures),
            latency_micros: self.latency_micros.wrapping_sub(other.latency_micros),
        }
    }

    /// The mean of its answers.
    fn latency(self) -> Duration {
        let answers = u64::from(self.requests).max(1);
        Duration::from_micros(self.latency_micros / answers)
    }

    /// The share that failed. A failure without its request (an answer that broke off later) makes no more than all.
    fn rate(self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        f64::from(self.failures.min(self.requests)) / f64::from(self.requests)
    }

    /// Which of two is worse: more failures, then more time.
    pub(super) fn compare(self, other: Self) -> Ordering {
        self.rate().total_cmp(&other.rate()).then_with(|| self.latency().cmp(&other.latency()))
    }

    /// True when it is not by chance that this one fails more often than `peers` together.
    fn is_worse_than(self, peers: Self) -> bool {
        (self.rate() - peers.rate()) * 100.0 >= GAP_PERCENT_MIN && self.evidence(peers) >= EVIDENCE_MIN
    }

    /// The logarithm of how much better two rates explain both counts than one does (the G-test's statistic, halved).
    fn evidence(self, peers: Self) -> f64 {
        if self.requests == 0 || peers.requests == 0 {
            return 0.0;
        }
        let both = self.plus(peers).rate();
        f64::from(self.requests) * divergence(self.rate(), both)
            + f64::from(peers.requests) * divergence(peers.rate(), both)
    }
}

/// Kullback and Leibler's, of two Bernoulli trials.
fn divergence(a: f64, b: f64) -> f64 {
    let part = |a: f64, b: f64| if a > 0.0 && b > 0.0 { a * ln(a / b) } else { 0.0 };
    part(a, b) + part(1.0 - a, 1.0 - b)
}

/// The natural logarithm of a positive normal number, to five digits: this crate has no mathematical library.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // 2 artanh(s), with s at most a third.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0)));
    f64::from(exponent) * core::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests;
