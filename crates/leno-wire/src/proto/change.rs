//! What rules change and answer: parts of a `Rule`. The JSON API has the same form, field for field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Change`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Another path; unset: as it came.
    #[prost(oneof = "PathChange", tags = "1, 2, 3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// `host[:port]`; unset: as it came.
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Headers of the request.
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<FieldChanges>,
    /// Headers of the answer.
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<FieldChanges>,
    /// Who gets a copy.
    #[prost(message, repeated, tag = "7")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// `critical`, `high`, `normal` or `low`; unset: as it came.
    #[prost(string, optional, tag = "85")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// What is broken on purpose.
    #[prost(message, optional, tag = "60")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<super::fault::Fault>,
    /// Which pages of other origins may use it.
    #[prost(message, optional, tag = "61")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<super::cors::Cors>,
    /// How many requests pass in a time; of a gateway's rule.
    #[prost(message, repeated, tag = "50")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<super::rate::RateLimit>,
}

/// `Mirror`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Empty: every version.
    #[prost(string, tag = "2")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Of how many requests of a million.
    #[prost(uint32, tag = "3")]
    pub share_ppm: u32,
}

/// `PathChange`.
#[derive(Clone, PartialEq, Eq, prost::Oneof, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathChange {
    /// Instead of what the rule's path has matched.
    #[prost(string, tag = "1")]
    Prefix(String),
    /// Instead of all of it; `{name}` is a part of the rule's template.
    #[prost(string, tag = "2")]
    Whole(String),
    /// Instead of what an expression matches.
    #[prost(message, tag = "3")]
    Regex(Replacing),
}

/// `PathChange::Regex`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replacing {
    /// The expression.
    #[prost(string, tag = "1")]
    pub pattern: String,
    /// `\1` is what its first group matched.
    #[prost(string, tag = "2")]
    pub with: String,
}

/// `FieldChanges`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldChanges {
    /// They go.
    #[prost(string, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// They have this value and no other.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Value>,
    /// They are there too.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Value>,
}

/// A header and its value, in which `{name}` stands for something of the request.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A text with gaps.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Redirect`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// `http` or `https`; unset: as it came.
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Unset: as it came.
    #[prost(string, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Unset: as it came, or the usual one.
    #[prost(uint32, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Unset: as it came.
    #[prost(oneof = "PathChange", tags = "1, 2, 3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    #[prost(uint32, tag = "7")]
    pub status: u32,
}

/// `Direct`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Direct {
    /// 200 to 599.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// Its headers.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Value>,
    /// Empty: none.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
}
