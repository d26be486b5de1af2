//! How endpoints are looked after: the same message on the control stream and, as JSON, in the API. What is unset is as
//! [`leno_core::spec::Care::new`] says; where 0 has a meaning, it is "off".

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Care`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Care {
    /// When an endpoint is put out.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// How much of the service a proxy uses at a time.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Endpoints that are compared for one request.
    #[prost(uint32, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<u32>,
    /// In this time the past of a latency loses two thirds of its weight.
    #[prost(uint64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_ms: Option<u64>,
    /// The latency that an endpoint is taken for that has not answered yet.
    #[prost(uint64, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_rtt_ms: Option<u64>,
    /// What a request's key is made of: the first that it has. For the policies that hash.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// No endpoint has more under way than this share of the mean.
    #[prost(uint32, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_percent: Option<u32>,
    /// In this time an endpoint that comes gets its full share; unset: at once.
    #[prost(uint64, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u64>,
    /// The share that it begins with; unset: 10.
    #[prost(uint32, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_percent: Option<u32>,
    /// `NAMESPACE/NAME` of the service that takes the requests when none of the endpoints can.
    #[prost(string, optional, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// What is made of where endpoints are; unset: near ones are preferred.
    #[prost(message, optional, tag = "70")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<super::zones::Locality>,
    /// How many requests it takes in a time.
    #[prost(message, repeated, tag = "50")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<super::rate::RateLimit>,
    /// How many requests each instance works on at a time; unset: all that come.
    #[prost(message, optional, tag = "85")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// `Concurrency`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// So many; unset: it is found out.
    #[prost(uint32, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The fewest, where it is found out; unset: 3.
    #[prost(uint32, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// The most, where it is found out; unset: 1000.
    #[prost(uint32, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long a request waits for a place; 0: nobody waits; unset: 100.
    #[prost(uint64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u64>,
}

/// `KeySpec`: exactly one of `header`, `query`, `cookie` and `source`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// A header's name.
    #[prost(string, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A query parameter's name.
    #[prost(string, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The client's address.
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub source: bool,
    /// A cookie's name.
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Of a cookie; unset: `/`.
    #[prost(string, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a cookie; unset: it ends with the client's session.
    #[prost(uint64, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// `Limits`: unset is no limit.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests under way.
    #[prost(uint32, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Requests under way on each endpoint.
    #[prost(uint32, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_requests: Option<u32>,
    /// Connections for TCP and HTTP/1.1.
    #[prost(uint32, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that wait for a place; 0: nobody waits; unset: 128.
    #[prost(uint32, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// How long each waits; unset: a second.
    #[prost(uint64, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_timeout_ms: Option<u64>,
    /// Retries under way; 0: none.
    #[prost(uint32, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// `Outliers`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outliers {
    /// Nobody is put out; the rest says nothing.
    #[prost(bool, tag = "1")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Answers of 500 and above in a row; 0: not looked at.
    #[prost(uint32, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u32>,
    /// Answers of 502, 503 or 504 in a row; 0: not looked at.
    #[prost(uint32, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_errors: Option<u32>,
    /// Requests without an answer in a row; 0: not looked at.
    #[prost(uint32, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_failures: Option<u32>,
    /// Whether the success rate is compared.
    #[prost(bool, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<bool>,
    /// Share of failures; 0: not looked at.
    #[prost(uint32, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<u32>,
    /// Times the peers' latency; 0: not looked at.
    #[prost(uint32, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<u32>,
    /// Requests in the window before a rate or a latency is looked at.
    #[prost(uint32, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_min: Option<u32>,
    /// How far back rates and latencies look.
    #[prost(uint64, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
    /// How long an endpoint is out the first time.
    #[prost(uint64, optional, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection_ms: Option<u64>,
    /// The longest that it is out.
    #[prost(uint64, optional, tag = "11")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection_max_ms: Option<u64>,
    /// At most this share of the endpoints is out.
    #[prost(uint32, optional, tag = "12")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_percent: Option<u32>,
    /// With fewer left than this share, everybody is asked.
    #[prost(uint32, optional, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_percent: Option<u32>,
    /// Good answers in a row that end a probation.
    #[prost(uint32, optional, tag = "14")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probation: Option<u32>,
}
