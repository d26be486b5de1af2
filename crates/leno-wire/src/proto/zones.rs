//! What callers make of where endpoints are, and callers by labels: the same messages on the control stream and, as JSON, in the
//! API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Locality`. What is unset is as [`leno_core::spec::Locality::new`] says.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Locality {
    /// `none`, `region`, `zone` or `subzone`; unset: `zone`.
    #[prost(string, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// Where requests go behind those who are preferred, in this order, then anywhere; empty: by nearness.
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<String>,
    /// How callers in some places divide their requests.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distribute: Vec<Distribution>,
    /// A place takes all while 100 of so many percent of its endpoints are there; at least 100; unset: 140.
    #[prost(uint32, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overprovision_percent: Option<u32>,
    /// With fewer endpoints a place is not preferred; unset: 1.
    #[prost(uint32, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints_min: Option<u32>,
    /// What is under way in a place that does not keep up, in percent of quiet times; at least 100; 0: no limit; unset: 150.
    #[prost(uint32, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow_percent: Option<u32>,
}

/// `Distribution`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Distribution {
    /// Where the callers are.
    #[prost(string, tag = "1")]
    pub from: String,
    /// Where their requests go; the first place that covers an endpoint counts it.
    #[prost(message, repeated, tag = "2")]
    pub to: Vec<Share>,
}

/// A place and its share.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Share {
    /// The place.
    #[prost(string, tag = "1")]
    pub zone: String,
    /// Its share is this over the sum.
    #[prost(uint32, tag = "2")]
    pub weight: u32,
}

/// `SourceMatch` with labels.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// `NAMESPACE/NAME`, or `NAMESPACE/*`; empty: anybody.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// All of these.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
}
