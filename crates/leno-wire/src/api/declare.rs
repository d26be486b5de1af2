//! A service's declaration as JSON, and its way to and from `ServiceSpec`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leno_core::name::ServiceId;
use leno_core::proxy_protocol::Version;
use leno_core::spec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tries::Tries;
use crate::WireError;
use crate::proto::care::Care;
use crate::proto::change::{Change, Direct, Redirect};
use crate::proto::resource as wire;

mod matching;

pub use matching::{Call, FieldMatch, FieldTest, Host, Match, Path, TextTest};

/// What an owner declares about a service: the body of `PUT /v1/services/{namespace}/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceDeclaration {
    /// What instances speak. Default `auto`.
    pub protocol: Protocol,
    /// How one of several endpoints is chosen. Default `peak_ewma`.
    pub balance: Balance,
    /// How endpoints are looked after: when one that fails is put out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub care: Option<Care>,
    /// First match wins; a request that none matches goes to every endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The services that instances call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// How sidecars check their instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// For a whole request; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Other time limits, and retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<Tries>,
    /// Connections begin with a PROXY header; for opaque bytes to plain endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy: Option<ProxyHeader>,
    /// The name resolves to the instances, each with a name and an address of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// What SRV records say. Default 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srv_port: Option<u16>,
}

/// Versions of the PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What instances speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// What the client speaks.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The less loaded of two picked by chance.
    LeastRequest,
    /// Of two picked by chance the one with the smaller latency (peak EWMA) times load.
    #[default]
    PeakEwma,
    /// The same for the same key (`care.keys`), on a ring.
    RingHash,
    /// The same for the same key (`care.keys`), in Maglev's table.
    Maglev,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique in its list.
    pub name: String,
    /// All of it must hold. Default: every request.
    #[serde(default, skip_serializing_if = "Match::is_empty")]
    pub when: Match,
    /// What then happens.
    pub then: Action,
    /// Overrides the service's timeout; 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What it changes in the request and in its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Overrides the service's other time limits, and its retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<Tries>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// One of these, by weight.
    Split(Vec<Target>),
    /// The service's own rules.
    Service(String),
    /// Ask elsewhere.
    Redirect(Redirect),
    /// This answer.
    Answer(Direct),
}

/// One target of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Whose endpoints.
    pub service: String,
    /// Only of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Only with all of these labels; `version` is one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its share is this over the sum.
    pub weight: u32,
}

/// How a sidecar checks its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path of a GET; unset: a TCP connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// The GET is one of HTTP/2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// Set: the health service of gRPC is asked for this service, empty for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_service: Option<String>,
    /// Between the starts of two checks. Default 1000.
    #[serde(default = "one_second")]
    pub interval_ms: u64,
    /// For one check. Default 1000.
    #[serde(default = "one_second")]
    pub timeout_ms: u64,
    /// Good answers in a row. Default 1.
    #[serde(default = "one")]
    pub healthy_after: u32,
    /// Bad answers in a row. Default 2.
    #[serde(default = "two")]
    pub unhealthy_after: u32,
}

impl ServiceDeclaration {
    /// Checks the declaration of `id`; the rules are those of the control stream.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn parse(self, id: &ServiceId) -> Result<spec::ServiceSpec, WireError> {
        wire::Service {
            name: crate::full_name(id),
            protocol: match self.protocol {
                Protocol::Auto => wire::Protocol::Auto,
                Protocol::Http1 => wire::Protocol::Http1,
                Protocol::Http2 => wire::Protocol::Http2,
                Protocol::Grpc => wire::Protocol::Grpc,
                Protocol::Tcp => wire::Protocol::Tcp,
            }
            .into(),
            balance: match self.balance {
                Balance::RoundRobin => wire::Balance::RoundRobin,
                Balance::Random => wire::Balance::Random,
                Balance::LeastRequest => wire::Balance::LeastRequest,
                Balance::PeakEwma => wire::Balance::PeakEwma,
                Balance::RingHash => wire::Balance::RingHash,
                Balance::Maglev => wire::Balance::Maglev,
            }
            .into(),
            care: self.care,
            rules: self.rules.into_iter().map(wire::Rule::from).collect(),
            calls: self.calls,
            health: self.health.map(|health| wire::HealthCheck {
                http_path: health.http_path,
                http2: health.http2,
                grpc_service: health.grpc_service,
                interval_nanos: nanos(health.interval_ms),
                timeout_nanos: nanos(health.timeout_ms),
                healthy_after: health.healthy_after,
                unhealthy_after: health.unhealthy_after,
            }),
            timeout_nanos: self.timeout_ms.map(nanos),
            tries: self.tries.map(Into::into),
            // Services outside the mesh are declared in the mesh file.
            external: None,
            send_proxy: match self.send_proxy {
                None => 0,
                Some(ProxyHeader::V1) => 1,
                Some(ProxyHeader::V2) => 2,
            },
            headless: self.headless,
            srv_port: self.srv_port.map(u32::from),
        }
        .try_into()
    }
}

impl From<Rule> for wire::Rule {
    fn from(rule: Rule) -> Self {
        Self {
            name: rule.name,
            when: Some(rule.when.into()),
            then: Some(match rule.then {
                Action::Service(name) => wire::Action::Service(name),
                Action::Redirect(redirect) => wire::Action::Redirect(redirect),
                Action::Answer(answer) => wire::Action::Answer(answer),
                Action::Split(targets) => wire::Action::Split(wire::Split {
                    targets: targets
                        .into_iter()
                        .map(|target| wire::Target {
                            service: target.service,
                            version: target.version.unwrap_or_default(),
                            labels: target.labels,
                            weight: target.weight,
                        })
                        .collect(),
                }),
            }),
            timeout_nanos: rule.timeout_ms.map(nanos),
            change: rule.change,
            tries: rule.tries.map(Into::into),
        }
    }
}

impl From<&spec::ServiceSpec> for ServiceDeclaration {
    fn from(spec: &spec::ServiceSpec) -> Self {
        Self {
            protocol: match spec.protocol {
                spec::Protocol::Auto => Protocol::Auto,
                spec::Protocol::Http1 => Protocol::Http1,
                spec::Protocol::Http2 => Protocol::Http2,
                spec::Protocol::Grpc => Protocol::Grpc,
                spec::Protocol::Tcp => Protocol::Tcp,
            },
            balance: match spec.balance {
                spec::Balance::RoundRobin => Balance::RoundRobin,
                spec::Balance::Random => Balance::Random,
                spec::Balance::LeastRequest => Balance::LeastRequest,
                spec::Balance::PeakEwma => Balance::PeakEwma,
                spec::Balance::RingHash => Balance::RingHash,
                spec::Balance::Maglev => Balance::Maglev,
            },
            care: spec.care.as_deref().map(Care::from),
            rules: spec.rules.iter().map(Rule::from).collect(),
            calls: spec.calls.iter().map(ToString::to_string).collect(),
            health: spec.health.as_ref().map(|health| {
                let asked = wire::HealthCheck::from(health);
                HealthCheck {
                    http_path: asked.http_path,
                    http2: asked.http2,
                    grpc_service: asked.grpc_service,
                    interval_ms: millis(health.interval),
                    timeout_ms: millis(health.timeout),
                    healthy_after: health.healthy_after,
                    unhealthy_after: health.unhealthy_after,
                }
            }),
            timeout_ms: spec.timeout.map(limit),
            tries: spec.tries.as_deref().map(|tries| crate::proto::tries::Tries::from(tries).into()),
            send_proxy: spec.send_proxy.map(|version| match version {
                Version::V1 => ProxyHeader::V1,
                Version::V2 => ProxyHeader::V2,
            }),
            headless: spec.headless,
            srv_port: (spec.srv_port != spec::SRV_PORT).then_some(spec.srv_port),
        }
    }
}

impl From<&spec::RuleSpec> for Rule {
    fn from(spec: &spec::RuleSpec) -> Self {
        let text = |text: &Arc<str>| text.to_string();
        Self {
            name: text(&spec.name),
            when: Match::from(&spec.when),
            then: match &spec.then {
                spec::ActionSpec::Service(id) => Action::Service(id.to_string()),
                spec::ActionSpec::Answer(answer) => match wire::Action::from(&**answer) {
                    wire::Action::Redirect(redirect) => Action::Redirect(redirect),
                    wire::Action::Answer(direct) => Action::Answer(direct),
                    // An answer is none of these.
                    wire::Action::Service(name) => Action::Service(name),
                    wire::Action::Split(_) => Action::Split(Vec::new()),
                },
                spec::ActionSpec::Split(targets) => Action::Split(
                    targets
                        .iter()
                        .map(|target| Target {
                            service: target.service.to_string(),
                            version: target.version.as_ref().map(String::from),
                            labels: crate::convert::labels_of(&target.labels),
                            weight: target.weight,
                        })
                        .collect(),
                ),
            },
            timeout_ms: spec.timeout.map(limit),
            change: spec.change.as_deref().map(Change::from),
            tries: spec.tries.as_deref().map(|tries| crate::proto::tries::Tries::from(tries).into()),
        }
    }
}

/// Nanoseconds of `millis`, at most 584 years.
pub(super) const fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

/// Whole milliseconds, at least 1 so that a short limit does not read as none.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A limit in whole milliseconds: 0 is none, and a short one is not.
fn limit(duration: Duration) -> u64 {
    if duration.is_zero() { 0 } else { millis(duration) }
}

/// The same for nanoseconds.
pub(super) const fn whole_millis(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000)
}

/// Default of the times of a health check, in milliseconds.
const fn one_second() -> u64 {
    1000
}

/// Default of `healthy_after`.
const fn one() -> u32 {
    1
}

/// Default of `unhealthy_after`.
const fn two() -> u32 {
    2
}
