//! How many requests pass in a time: the same message on the control stream and, but for what a request must look like, as
//! JSON in the API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::resource::Match;

/// `RateSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Unique in its list.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Which requests count; unset: all.
    #[prost(message, optional, tag = "2")]
    #[serde(with = "crate::api::match_json", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::api::Match>")]
    pub when: Option<Match>,
    /// So many in each period.
    #[prost(uint32, tag = "3")]
    pub requests: u32,
    /// The period; unset: a second.
    #[prost(uint64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_ms: Option<u64>,
    /// So many at once; unset: as many as `requests`.
    #[prost(uint32, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What gets a count of its own.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<RateKey>,
    /// It holds over all proxies together.
    #[prost(bool, tag = "7")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mesh: bool,
    /// Nothing is refused, it is only said.
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// `RateKey`: exactly one of these.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateKey {
    /// The calling service.
    #[prost(bool, tag = "1")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub caller: bool,
    /// The client's address.
    #[prost(bool, tag = "2")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client: bool,
    /// A header's name.
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}
