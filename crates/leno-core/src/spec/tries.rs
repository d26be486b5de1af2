//! How long requests may take and how often they are tried, as far as a service or a rule says it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::HedgeSpec;
use crate::time::Duration;

/// What one service or rule says. What is unset is inherited: by a rule from its service, by a service from the defaults.
/// A time of 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TriesSpec {
    /// From the pick of an endpoint to the head of its answer.
    pub try_timeout: Option<Duration>,
    /// For a connection to be made, TLS included.
    pub connect_timeout: Option<Duration>,
    /// Without any progress in either direction.
    pub idle_timeout: Option<Duration>,
    /// When a request is sent again. A rule's takes the place of its service's as a whole.
    pub retry: Option<RetrySpec>,
    /// When a request gets a second attempt beside the first one. A rule's takes the place of its service's as a whole.
    pub hedge: Option<HedgeSpec>,
    /// How many retries its endpoints take beside ordinary requests; a service's alone.
    pub budget: Option<BudgetSpec>,
}

/// When a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetrySpec {
    /// Attempts, the first included; 1 is no retry. At most [`crate::exchange::ATTEMPTS_MAX`].
    pub attempts: u32,
    /// What is tried again beside what provably had no effect.
    pub on: RetryOn,
    /// Which requests may have an effect twice.
    pub methods: RetryMethods,
    /// The longest wait before the first retry; doubles with each further one.
    pub backoff: Duration,
    /// The longest wait before any.
    pub backoff_max: Duration,
    /// The longest wait that a service may ask for; one that asks for more is not asked again.
    pub asked_wait_max: Duration,
    /// The longest request body that is kept to be sent again, in bytes.
    pub body_bytes_max: u32,
}

/// What is tried again beside what provably had no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryOn {
    /// There is no answer: the connection was closed, or nothing came in the time of an attempt.
    pub reset: bool,
    /// An answer with one of these statuses.
    pub statuses: Vec<StatusRange>,
    /// An answer to a call of gRPC with one of these codes: bit n is code n.
    pub grpc: u32,
    /// An answer with one of these fields.
    pub headers: Vec<AnswerHeader>,
}

/// Statuses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusRange {
    /// 100 to 599.
    pub first: u16,
    /// No less than the first.
    pub last: u16,
}

/// A field of an answer; the name in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnswerHeader {
    /// The field's name.
    pub name: Arc<str>,
    /// What its value must be; `None`: it is enough that it is there.
    pub value: Option<Arc<str>>,
}

/// Which requests may be sent again after they may have had an effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryMethods {
    /// Those of which two are as good as one (RFC 9110 §9.2.2), and those with an `Idempotency-Key`.
    #[default]
    Idempotent,
    /// All.
    Any,
    /// Those with one of these methods, and those with an `Idempotency-Key`.
    These(Vec<Arc<str>>),
}

/// How many retries endpoints take beside ordinary requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BudgetSpec {
    /// Retries for each hundred ordinary requests.
    pub percent: u32,
    /// Retries each second however few requests there are.
    pub per_second: u32,
}

/// Most retries for each hundred requests: one for each.
pub const BUDGET_PERCENT_MAX: u32 = 100;
/// Most retries each second that a budget allows without any requests.
pub const BUDGET_PER_SECOND_MAX: u32 = 1_000_000;
/// The longest body that can be kept (Envoy's default buffer).
pub const BODY_BYTES_MAX: u32 = 1 << 20;

impl Default for RetrySpec {
    /// What holds for a policy that says nothing else. Attempts: Istio's and ours without any policy. Backoff: Envoy's
    /// base and ten times that. A body of 64 KiB: Linkerd's.
    fn default() -> Self {
        Self {
            attempts: 3,
            on: RetryOn { reset: true, ..RetryOn::default() },
            methods: RetryMethods::default(),
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            asked_wait_max: Duration::from_secs(5),
            body_bytes_max: 64 << 10,
        }
    }
}

impl TriesSpec {
    /// What holds where `self` is said within `outer`.
    #[must_use]
    pub fn within(&self, outer: Option<&Self>) -> Self {
        let Some(outer) = outer else { return self.clone() };
        Self {
            try_timeout: self.try_timeout.or(outer.try_timeout),
            connect_timeout: self.connect_timeout.or(outer.connect_timeout),
            idle_timeout: self.idle_timeout.or(outer.idle_timeout),
            retry: self.retry.clone().or_else(|| outer.retry.clone()),
            hedge: self.hedge.or(outer.hedge),
            budget: None,
        }
    }

    /// True when it says anything about single requests.
    pub fn concerns_requests(&self) -> bool {
        self.try_timeout.or(self.connect_timeout).or(self.idle_timeout).is_some()
            || self.retry.is_some()
            || self.hedge.is_some()
    }
}

impl RetryOn {
    /// True when no answer can be one that is tried again.
    pub fn takes_every_answer(&self) -> bool {
        self.statuses.is_empty() && self.grpc == 0 && self.headers.is_empty()
    }
}
