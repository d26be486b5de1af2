//! Time limits and retries as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::declare::{nanos, whole_millis};
use crate::proto::resource::Header;
use crate::proto::tries as wire;

/// How long requests may take and when they are sent again. A time of 0 is no limit; what is left out is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tries {
    /// For one attempt, up to the head of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_timeout_ms: Option<u64>,
    /// For a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
    /// Without progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// When a request is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Second attempts beside slow ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Retries beside ordinary requests; a service's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// When a request is sent again beside when it provably had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts at most, the first included. Default 3.
    pub attempts: u32,
    /// There is no answer. Default true.
    pub on_reset: bool,
    /// First and last status of answers that are tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<(u32, u32)>,
    /// Codes of gRPC that are tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<u32>,
    /// Fields of answers that are tried again: name (lower case) and value; `null`: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Option<String>)>,
    /// Every method may have its effect twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_method: bool,
    /// These may. Default: the idempotent ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The longest first wait. Default 25.
    pub backoff_ms: u64,
    /// The longest wait. Default 250.
    pub backoff_max_ms: u64,
    /// The longest wait that an answer may ask for. Default 5000.
    pub asked_wait_max_ms: u64,
    /// The longest body that is kept to be sent again. Default 65536.
    pub body_bytes_max: u32,
}

/// When a request that takes long gets a second attempt at another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// As long as this share of the answers has taken lately, in percent: 50 to 99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_quantile: Option<u32>,
    /// Or so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Second attempts for each hundred requests that may have one; 0: none.
    pub percent: u32,
}

/// Retries beside ordinary requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// For each hundred requests.
    pub percent: u32,
    /// Each second however few requests there are.
    pub per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self::from(wire::Retry::from(&leno_core::spec::RetrySpec::default()))
    }
}

impl From<Tries> for wire::Tries {
    fn from(tries: Tries) -> Self {
        Self {
            try_nanos: tries.try_timeout_ms.map(nanos),
            connect_nanos: tries.connect_timeout_ms.map(nanos),
            idle_nanos: tries.idle_timeout_ms.map(nanos),
            retry: tries.retry.map(wire::Retry::from),
            hedge: tries.hedge.map(wire::Hedge::from),
            budget: tries.budget.map(|it| wire::Budget { percent: it.percent, per_second: it.per_second }),
        }
    }
}

impl From<wire::Tries> for Tries {
    fn from(tries: wire::Tries) -> Self {
        Self {
            try_timeout_ms: tries.try_nanos.map(whole_millis),
            connect_timeout_ms: tries.connect_nanos.map(whole_millis),
            idle_timeout_ms: tries.idle_nanos.map(whole_millis),
            retry: tries.retry.map(Retry::from),
            hedge: tries.hedge.map(Hedge::from),
            budget: tries.budget.map(|it| Budget { percent: it.percent, per_second: it.per_second }),
        }
    }
}

impl From<Hedge> for wire::Hedge {
    fn from(hedge: Hedge) -> Self {
        let after_nanos = hedge.after_ms.map_or(0, nanos);
        Self { after_quantile: hedge.after_quantile.unwrap_or(0), after_nanos, percent: hedge.percent }
    }
}

impl From<wire::Hedge> for Hedge {
    fn from(hedge: wire::Hedge) -> Self {
        Self {
            after_quantile: Some(hedge.after_quantile).filter(|percent| *percent > 0),
            after_ms: Some(whole_millis(hedge.after_nanos)).filter(|millis| *millis > 0),
            percent: hedge.percent,
        }
    }
}

impl From<Retry> for wire::Retry {
    fn from(retry: Retry) -> Self {
        let range = |(first, last)| wire::StatusRange { first, last };
        Self {
            attempts: retry.attempts,
            on_reset: retry.on_reset,
            statuses: retry.statuses.into_iter().map(range).collect(),
            grpc: retry.grpc.into_iter().fold(0, |bits, code| bits | 1_u32.checked_shl(code).unwrap_or(0)),
            headers: retry.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            any_method: retry.any_method,
            methods: retry.methods,
            backoff_nanos: nanos(retry.backoff_ms),
            backoff_max_nanos: nanos(retry.backoff_max_ms),
            asked_wait_max_nanos: nanos(retry.asked_wait_max_ms),
            body_bytes_max: retry.body_bytes_max,
        }
    }
}

impl From<wire::Retry> for Retry {
    fn from(retry: wire::Retry) -> Self {
        Self {
            attempts: retry.attempts,
            on_reset: retry.on_reset,
            statuses: retry.statuses.iter().map(|range| (range.first, range.last)).collect(),
            grpc: (0..32).filter(|code| retry.grpc >> code & 1 == 1).collect(),
            headers: retry.headers.into_iter().map(|header| (header.name, header.value)).collect(),
            any_method: retry.any_method,
            methods: retry.methods,
            backoff_ms: whole_millis(retry.backoff_nanos),
            backoff_max_ms: whole_millis(retry.backoff_max_nanos),
            asked_wait_max_ms: whole_millis(retry.asked_wait_max_nanos),
            body_bytes_max: retry.body_bytes_max,
        }
    }
}
