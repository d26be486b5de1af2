//! Which pages of other origins may use what a rule is about: `Cors`. The JSON API has the same form, field for field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Cors`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Pages of one of these.
    #[prost(message, repeated, tag = "1")]
    pub origins: Vec<Origin>,
    /// What they may use; empty: what every page may.
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What they may send besides what every page may.
    #[prost(string, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// They may send any header.
    #[prost(bool, tag = "4")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_header: bool,
    /// What they may see of answers besides what every page may.
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// How long a browser may remember it; unset: as it likes.
    #[prost(uint64, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// With their users' cookies.
    #[prost(bool, tag = "7")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// The service is asked about other origins.
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forward_unmatched: bool,
}

/// Origins: one of these.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Which.
    #[prost(oneof = "OriginForm", tags = "1, 2, 3, 4, 5, 6")]
    #[serde(flatten)]
    pub form: Option<OriginForm>,
}

/// `TextMatch`.
#[derive(Clone, PartialEq, Eq, prost::Oneof, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginForm {
    /// Any, if true.
    #[prost(bool, tag = "1")]
    Any(bool),
    /// This one.
    #[prost(string, tag = "2")]
    Exact(String),
    /// Those that begin with this.
    #[prost(string, tag = "3")]
    Prefix(String),
    /// Those that end with this.
    #[prost(string, tag = "4")]
    Suffix(String),
    /// Those that have this in them.
    #[prost(string, tag = "5")]
    Contains(String),
    /// Those that this matches as a whole.
    #[prost(string, tag = "6")]
    Regex(String),
}
