//! What a rule breaks on purpose: `Fault`. The JSON API has the same form, field for field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Fault`; it does at least one of the first four.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Requests wait.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Requests are answered here.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Of how many requests of a million the connection is closed without an answer.
    #[prost(uint32, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_ppm: Option<u32>,
    /// The bodies of answers come slowly.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Of a million requests no more get anything of it; unset: as many as chance says.
    #[prost(uint32, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_ppm: Option<u32>,
    /// Over from then on, in seconds since 1970; unset: with the rule.
    #[prost(uint64, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Over at once when too many other requests fail.
    #[prost(message, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// A wait.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// How long.
    #[prost(uint64, tag = "1")]
    pub ms: u64,
    /// Of how many requests of a million.
    #[prost(uint32, tag = "2")]
    pub share_ppm: u32,
}

/// An answer: one of `status` and `grpc`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// 200 to 599.
    #[prost(uint32, optional, tag = "1")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// A code of gRPC, 1 to 16.
    #[prost(uint32, optional, tag = "2")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<u32>,
    /// Of how many requests of a million.
    #[prost(uint32, tag = "3")]
    pub share_ppm: u32,
}

/// A pace.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// Bytes of a body.
    #[prost(uint32, tag = "1")]
    pub bytes_per_second: u32,
    /// Of how many requests of a million.
    #[prost(uint32, tag = "2")]
    pub share_ppm: u32,
}

/// `Stop`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// More than this share of the requests without a fault, 0 to 99.
    #[prost(uint32, tag = "1")]
    pub failed_percent: u32,
    /// Requests before it is looked at; unset: 20.
    #[prost(uint32, optional, tag = "2")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_min: Option<u32>,
    /// How far back; unset: 10 s.
    #[prost(uint64, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}
