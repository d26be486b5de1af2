//! The JSON API, version 1: what the command line, a dashboard and other programs read and write.
//!
//! Times are Unix seconds (`_unix`) or milliseconds from now (`_ms`). Names are `NAME` in the default namespace, else
//! `NAMESPACE/NAME`. Fields may be added within version 1; readers skip what they do not know, requests with unknown
//! fields are refused.

mod declare;
pub(crate) mod match_json;
mod tries;

use std::collections::BTreeMap;

pub use declare::{
    Action, Balance, Call, FieldMatch, FieldTest, HealthCheck, Host, Match, Path, Protocol, Rule,
    ServiceDeclaration, Target, TextTest,
};
pub use tries::{Budget, Retry, Tries};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The trust domain.
    pub mesh: String,
    /// The control plane's version.
    pub version: String,
    /// Grows with every change of what proxies are told.
    pub generation: u64,
    /// Milliseconds since the control plane started.
    pub uptime_ms: u64,
    /// How many there are.
    pub counts: Counts,
    /// The mesh file, when one is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileView>,
    /// Every proxy with a lease, sorted by service and name.
    pub proxies: Vec<ProxyView>,
}

/// How many of each there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Declared services.
    pub services: u64,
    /// Declared gateways.
    pub gateways: u64,
    /// Live instances, of whatever health.
    pub instances: u64,
    /// Those that may get requests.
    pub healthy: u64,
    /// Proxies with a lease.
    pub proxies: u64,
    /// Those with a stream open now.
    pub connected: u64,
}

/// The mesh file as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileView {
    /// Where it is.
    pub path: String,
    /// When the version in force was read.
    pub loaded_unix: u64,
    /// Why the newest version is not in force, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One proxy: `GET /v1/proxies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProxyView {
    /// The instance's name.
    pub name: String,
    /// What it is.
    pub kind: ProxyKind,
    /// The service of its certificate; the gateway's name for a gateway.
    pub service: String,
    /// Whether its streams are open now.
    pub connected: bool,
    /// The generation that its snapshot is built from, as it last said.
    pub generation_acknowledged: u64,
    /// Whether it has acknowledged everything that it subscribed to.
    pub up_to_date: bool,
    /// Its own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Resources that it refused, with reasons; at most a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
}

/// A resource that a proxy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Which, `KIND NAME`.
    pub resource: String,
    /// Why, in the proxy's words.
    pub reason: String,
}

/// What a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    /// Beside an instance.
    Sidecar,
    /// Where requests enter the mesh.
    Gateway,
}

/// One service: `GET /v1/services`, `GET /v1/services/{namespace}/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Where its declaration comes from.
    pub source: Source,
    /// Live instances, of whatever health.
    pub instances: u64,
    /// Those that may get requests.
    pub healthy: u64,
    /// Versions of live instances, sorted.
    pub versions: Vec<String>,
    /// What its owner declares.
    pub declaration: ServiceDeclaration,
}

/// Where a declaration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The mesh file; the API does not change it.
    File,
    /// The API.
    Api,
}

/// One instance: `GET /v1/instances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceView {
    /// Unique in its service.
    pub name: String,
    /// Its service.
    pub service: String,
    /// How others reach it.
    pub transport: TransportKind,
    /// `IP:PORT`: its sidecar's mesh port, or its own for a plain one.
    pub address: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its share beside the others.
    pub weight: u32,
    /// Where it is: `region/zone/subzone`, as much of it as is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it is.
    pub health: HealthState,
    /// Why it is not healthy, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until its lease ends unless its sidecar says otherwise; unset for a plain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_remaining_ms: Option<u64>,
    /// Whether its sidecar's stream is open now; unset for a plain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// The generation that its sidecar acknowledged; unset for a plain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_acknowledged: Option<u64>,
}

/// How an instance is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// Through its sidecar, over mutual TLS.
    Mesh,
    /// Directly, in plain text.
    Plain,
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It gets requests.
    Healthy,
    /// Its sidecar's checks fail; it gets none.
    Unhealthy,
    /// Its lease ended; it gets none and is shown for a while.
    Expired,
}

/// `POST /v1/services/{namespace}/{name}/instances`: a plain endpoint registered by hand. It has no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceRegistration {
    /// Unique in its service; 1 to 63 of `a-z 0-9 -`.
    pub name: String,
    /// `IP:PORT`.
    pub address: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its share beside the others; 0 takes no new requests. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Where it is: `region/zone/subzone`, one to three parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its labels, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/tokens`: what the token may become, how often and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The service that a joining proxy becomes; or `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The gateway that a joining proxy becomes; or `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// How many proxies may join with it, 1 to 10,000. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Seconds until it ends, 1 to 31,536,000. Default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A token: `GET /v1/tokens` (never with its secret), `POST /v1/tokens` (once, with `token`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Its public part.
    pub id: String,
    /// The service or gateway that a joining proxy becomes.
    pub subject: String,
    /// Which of the two.
    pub kind: ProxyKind,
    /// How often it may still be used.
    pub uses_left: u32,
    /// When it ends.
    pub expires_unix: u64,
    /// The whole token, shown once: in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiError {
    /// For programs: a word in `snake_case` that never changes, such as `not_found`.
    pub reason: String,
    /// For people: what is wrong.
    pub message: String,
    /// For people: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests;
