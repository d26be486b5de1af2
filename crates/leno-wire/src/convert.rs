//! Between the messages and `leno_core::spec`: encode is total, decode refuses with the resource and the field.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::index::{Key, Kind};
use leno_core::name::{Label, ServiceId};
use leno_core::peer::SpiffeId;
use leno_core::proxy_protocol::Version;
use leno_core::spec;
use prost::Message;

use crate::proto::{self, kind_of, resource as wire, xds};

mod care;
mod cors;
mod fault;
mod outside;
mod tries;
mod zones;

pub(crate) use zones::labels_of;
pub use zones::tags;

/// A resource of a kind that Leno knows, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A service.
    Service(spec::ServiceSpec),
    /// The endpoints of a service.
    Endpoints(ServiceId, Vec<spec::EndpointSpec>),
    /// A gateway.
    Gateway(spec::GatewaySpec),
    /// What may leave the mesh.
    Egress(spec::EgressSpec),
}

/// What is wrong with a received resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The resource's name as received; empty when there is none.
    pub resource: String,
    /// Path of the field, such as `rules[2].split[0].service`.
    pub field: String,
    /// What about it.
    pub problem: String,
}

impl Known {
    /// Parses the content of `resource`, whose name must be the one inside.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn decode(resource: &xds::Resource) -> Result<Self, WireError> {
        let named = |error: WireError| WireError { resource: resource.name.clone(), ..error };
        let any = resource.resource.as_ref().ok_or_else(|| named(bad("resource", "is missing")))?;
        let kind = kind_of(&any.type_url).ok_or_else(|| {
            named(bad("type_url", format!("{:?} is no type that Leno knows", any.type_url)))
        })?;
        let known = Self::parse(kind, &any.value).map_err(named)?;
        let inside = full_name(&known.id());
        if inside != resource.name {
            return Err(named(bad("name", format!("the content is named {inside:?}"))));
        }
        Ok(known)
    }

    /// Parses encoded content of `kind`.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, WireError> {
        let garbled = |error: prost::DecodeError| bad("", error.to_string());
        match kind {
            Kind::Service => Ok(Self::Service(wire::Service::decode(bytes).map_err(garbled)?.try_into()?)),
            Kind::Gateway => Ok(Self::Gateway(wire::Gateway::decode(bytes).map_err(garbled)?.try_into()?)),
            Kind::Endpoints => {
                let (id, endpoints) = wire::Endpoints::decode(bytes).map_err(garbled)?.try_into()?;
                Ok(Self::Endpoints(id, endpoints))
            }
            Kind::Egress => {
                Ok(Self::Egress(proto::outside::Egress::decode(bytes).map_err(garbled)?.try_into()?))
            }
        }
    }

    /// The encoded content.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Service(spec) => wire::Service::from(spec).encode_to_vec(),
            Self::Endpoints(id, endpoints) => {
                wire::Endpoints::from((id, endpoints.as_slice())).encode_to_vec()
            }
            Self::Gateway(spec) => wire::Gateway::from(spec).encode_to_vec(),
            Self::Egress(spec) => proto::outside::Egress::from(spec).encode_to_vec(),
        }
    }

    /// Whose resource it is.
    pub fn id(&self) -> ServiceId {
        match self {
            Self::Service(spec) => spec.id.clone(),
            Self::Endpoints(id, _) => id.clone(),
            Self::Gateway(spec) => spec.id.clone(),
            // There is one.
            Self::Egress(_) => Key::egress().id,
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Endpoints(..) => Kind::Endpoints,
            Self::Gateway(_) => Kind::Gateway,
            Self::Egress(_) => Kind::Egress,
        }
    }
}

/// `NAMESPACE/NAME`, the form of a name on the wire; parsed back by [`ServiceId::parse`].
pub fn full_name(id: &ServiceId) -> String {
    format!("{}/{}", id.namespace, id.name)
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.resource.is_empty() {
            write!(f, "{}: ", self.resource)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for WireError {}

impl From<&spec::ServiceSpec> for wire::Service {
    fn from(spec: &spec::ServiceSpec) -> Self {
        Self {
            name: full_name(&spec.id),
            protocol: protocol(spec.protocol).into(),
            balance: match spec.balance {
                spec::Balance::RoundRobin => wire::Balance::RoundRobin,
                spec::Balance::Random => wire::Balance::Random,
                spec::Balance::LeastRequest => wire::Balance::LeastRequest,
                spec::Balance::PeakEwma => wire::Balance::PeakEwma,
                spec::Balance::RingHash => wire::Balance::RingHash,
                spec::Balance::Maglev => wire::Balance::Maglev,
            }
            .into(),
            care: spec.care.as_deref().map(proto::care::Care::from),
            rules: spec.rules.iter().map(wire::Rule::from).collect(),
            calls: spec.calls.iter().map(full_name).collect(),
            health: spec.health.as_ref().map(wire::HealthCheck::from),
            timeout_nanos: spec.timeout.map(nanos),
            external: spec.external.as_deref().map(proto::outside::External::from),
            tries: spec.tries.as_deref().map(proto::tries::Tries::from),
            send_proxy: match spec.send_proxy {
                None => 0,
                Some(Version::V1) => 1,
                Some(Version::V2) => 2,
            },
            headless: spec.headless,
            srv_port: (spec.srv_port != spec::SRV_PORT).then(|| spec.srv_port.into()),
        }
    }
}

impl TryFrom<wire::Service> for spec::ServiceSpec {
    type Error = WireError;

    fn try_from(message: wire::Service) -> Result<Self, WireError> {
        let id = id("name", &message.name)?;
        let hashes = [wire::Balance::RingHash, wire::Balance::Maglev].map(i32::from);
        let keyless = message.care.as_ref().is_none_or(|care| care.keys.is_empty());
        if keyless && hashes.contains(&message.balance) {
            return Err(WireError { resource: message.name, ..bad("care.keys", "this policy needs a key") });
        }
        let parse = move || {
            Ok(Self {
                id,
                protocol: parse_protocol("protocol", message.protocol)?,
                balance: match wire::Balance::try_from(message.balance) {
                    Ok(wire::Balance::RoundRobin) => spec::Balance::RoundRobin,
                    Ok(wire::Balance::Random) => spec::Balance::Random,
                    Ok(wire::Balance::LeastRequest) => spec::Balance::LeastRequest,
                    Ok(wire::Balance::PeakEwma) => spec::Balance::PeakEwma,
                    Ok(wire::Balance::RingHash) => spec::Balance::RingHash,
                    Ok(wire::Balance::Maglev) => spec::Balance::Maglev,
                    Ok(wire::Balance::Unspecified) | Err(_) => {
                        return Err(bad("balance", format!("{} is not known here", message.balance)));
                    }
                },
                care: message
                    .care
                    .map(|care| spec::Care::try_from(care).map_err(|e| e.below("care")))
                    .transpose()?
                    .map(Arc::new),
                rules: service_rules(message.rules)?,
                calls: list("calls", message.calls, |name| self::id("", &name))?,
                health: message
                    .health
                    .map(|h| h.try_into().map_err(|e: WireError| e.below("health")))
                    .transpose()?,
                timeout: message.timeout_nanos.map(Duration::from_nanos),
                tries: parse_tries(message.tries)?,
                external: message
                    .external
                    .map(|it| spec::ExternalSpec::try_from(it).map_err(|e| e.below("external")))
                    .transpose()?
                    .map(Arc::new),
                send_proxy: match message.send_proxy {
                    0 => None,
                    1 => Some(Version::V1),
                    2 => Some(Version::V2),
                    number => return Err(bad("send_proxy", format!("{number} is not known here"))),
                },
                headless: message.headless,
                srv_port: message
                    .srv_port
                    .map_or(Ok(spec::SRV_PORT), |port| port_number("srv_port", port))?,
            })
        };
        let spec: Result<Self, WireError> = parse().and_then(|spec: Self| {
            let asks = |care: &Arc<spec::Care>| care.rates.iter().any(|rate| rate.looks_at_requests());
            if spec.protocol == spec::Protocol::Tcp && spec.care.as_ref().is_some_and(asks) {
                return Err(bad(
                    "care.rate_limits",
                    "look at requests, and with this protocol there are none",
                ));
            }
            Ok(spec)
        });
        spec.map_err(|error| WireError { resource: message.name, ..error })
    }
}

impl From<(&ServiceId, &[spec::EndpointSpec])> for wire::Endpoints {
    fn from((id, endpoints): (&ServiceId, &[spec::EndpointSpec])) -> Self {
        let endpoint = |spec: &spec::EndpointSpec| wire::Endpoint {
            name: spec.name.to_string(),
            address: spec.address.to_string(),
            mesh_identity: match &spec.transport {
                spec::Transport::Mesh(identity) => identity.to_uri(),
                // TLS with endpoints is said once, by the service.
                spec::Transport::Plain | spec::Transport::Tls(_) => String::new(),
            },
            version: spec.version.as_ref().map(String::from).unwrap_or_default(),
            weight: spec.weight,
            unhealthy: !spec.healthy,
            zone: zones::zone_of(spec.tags.zone.as_ref()),
            labels: zones::labels_of(&spec.tags.labels),
        };
        Self { name: full_name(id), endpoints: endpoints.iter().map(endpoint).collect() }
    }
}

/// Sorted by name, whatever order they came in; two of one name are refused.
impl TryFrom<wire::Endpoints> for (ServiceId, Vec<spec::EndpointSpec>) {
    type Error = WireError;

    fn try_from(message: wire::Endpoints) -> Result<Self, WireError> {
        let id = id("name", &message.name)?;
        let endpoint =
            |endpoint: wire::Endpoint| {
                if endpoint.name.is_empty() {
                    return Err(bad("name", "is empty"));
                }
                Ok(spec::EndpointSpec {
                    name: endpoint.name.into(),
                    address: address("address", &endpoint.address)?,
                    transport: if endpoint.mesh_identity.is_empty() {
                        spec::Transport::Plain
                    } else {
                        spec::Transport::Mesh(SpiffeId::parse(&endpoint.mesh_identity).map_err(|e| {
                            bad("mesh_identity", format!("{:?}: {e}", endpoint.mesh_identity))
                        })?)
                    },
                    version: optional_label("version", &endpoint.version)?,
                    weight: endpoint.weight,
                    healthy: !endpoint.unhealthy,
                    tags: tags(&endpoint.zone, &endpoint.labels)?,
                })
            };
        let mut endpoints = list("endpoints", message.endpoints, endpoint)
            .map_err(|error| WireError { resource: message.name.clone(), ..error })?;
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = endpoints.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let error = bad("endpoints", format!("two are named {:?}", &*twice[0].name));
            return Err(WireError { resource: message.name, ..error });
        }
        Ok((id, endpoints))
    }
}

impl From<&spec::RuleSpec> for wire::Rule {
    fn from(spec: &spec::RuleSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            when: (spec.when != spec::MatchSpec::default()).then(|| wire::Match::from(&spec.when)),
            then: Some(match &spec.then {
                spec::ActionSpec::Split(targets) => wire::Action::Split(wire::Split {
                    targets: targets
                        .iter()
                        .map(|target| wire::Target {
                            service: full_name(&target.service),
                            version: target.version.as_ref().map(String::from).unwrap_or_default(),
                            weight: target.weight,
                            labels: zones::labels_of(&target.labels),
                        })
                        .collect(),
                }),
                spec::ActionSpec::Service(id) => wire::Action::Service(full_name(id)),
                spec::ActionSpec::Answer(answer) => wire::Action::from(&**answer),
            }),
            timeout_nanos: spec.timeout.map(nanos),
            change: spec.change.as_deref().map(proto::change::Change::from),
            tries: spec.tries.as_deref().map(proto::tries::Tries::from),
        }
    }
}

impl From<&spec::HealthSpec> for wire::HealthCheck {
    fn from(spec: &spec::HealthSpec) -> Self {
        Self {
            http_path: match &spec.probe {
                spec::Probe::Tcp | spec::Probe::Grpc(_) => None,
                spec::Probe::Http(path) | spec::Probe::Http2(path) => Some(path.clone()),
            },
            http2: matches!(spec.probe, spec::Probe::Http2(_)),
            grpc_service: match &spec.probe {
                spec::Probe::Grpc(service) => Some(service.clone()),
                _ => None,
            },
            interval_nanos: nanos(spec.interval),
            timeout_nanos: nanos(spec.timeout),
            healthy_after: spec.healthy_after,
            unhealthy_after: spec.unhealthy_after,
        }
    }
}

/// The longest name of a service of gRPC that a check asks for, in bytes.
const GRPC_SERVICE_BYTES_MAX: usize = 255;

impl TryFrom<wire::HealthCheck> for spec::HealthSpec {
    type Error = WireError;

    fn try_from(message: wire::HealthCheck) -> Result<Self, WireError> {
        Ok(Self {
            probe: match (message.http_path, message.grpc_service) {
                (None, None) => spec::Probe::Tcp,
                (Some(path), None) => {
                    check_path("http_path", &path)?;
                    if message.http2 { spec::Probe::Http2(path) } else { spec::Probe::Http(path) }
                }
                (None, Some(service)) => {
                    if service.len() > GRPC_SERVICE_BYTES_MAX {
                        return Err(bad("grpc_service", "is longer than 255 bytes"));
                    }
                    spec::Probe::Grpc(service)
                }
                (Some(_), Some(_)) => return Err(bad("grpc_service", "stands beside http_path")),
            },
            interval: positive("interval", message.interval_nanos)?,
            timeout: positive("timeout", message.timeout_nanos)?,
            healthy_after: at_least_one("healthy_after", message.healthy_after)?,
            unhealthy_after: at_least_one("unhealthy_after", message.unhealthy_after)?,
        })
    }
}

/// The protocol's number on the wire.
pub(crate) const fn protocol(protocol: spec::Protocol) -> wire::Protocol {
    match protocol {
        spec::Protocol::Auto => wire::Protocol::Auto,
        spec::Protocol::Http1 => wire::Protocol::Http1,
        spec::Protocol::Http2 => wire::Protocol::Http2,
        spec::Protocol::Grpc => wire::Protocol::Grpc,
        spec::Protocol::Tcp => wire::Protocol::Tcp,
    }
}

/// The protocol with this number.
fn parse_protocol(field: &str, number: i32) -> Result<spec::Protocol, WireError> {
    match wire::Protocol::try_from(number) {
        Ok(wire::Protocol::Auto) => Ok(spec::Protocol::Auto),
        Ok(wire::Protocol::Http1) => Ok(spec::Protocol::Http1),
        Ok(wire::Protocol::Http2) => Ok(spec::Protocol::Http2),
        Ok(wire::Protocol::Grpc) => Ok(spec::Protocol::Grpc),
        Ok(wire::Protocol::Tcp) => Ok(spec::Protocol::Tcp),
        Ok(wire::Protocol::Unspecified) | Err(_) => Err(bad(field, format!("{number} is not known here"))),
    }
}

/// The rules of a service. Its callers' proxies apply them, and none of these sees all of a service's requests.
fn service_rules(messages: Vec<wire::Rule>) -> Result<Vec<spec::RuleSpec>, WireError> {
    let rules = rules(messages)?;
    let counting =
        |rule: &spec::RuleSpec| rule.change.as_ref().is_some_and(|change| !change.rates.is_empty());
    match rules.iter().position(counting) {
        Some(at) => Err(bad(
            &format!("rules[{at}].change.rate_limits"),
            "belongs to gateways; a service has `care.rate_limits`",
        )),
        None => Ok(rules),
    }
}

/// A rule list; names are unique.
fn rules(messages: Vec<wire::Rule>) -> Result<Vec<spec::RuleSpec>, WireError> {
    let rules = list("rules", messages, rule)?;
    let mut names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(bad("rules", format!("two are named {:?}", twice[0]))),
        None => Ok(rules),
    }
}

/// One rule.
fn rule(message: wire::Rule) -> Result<spec::RuleSpec, WireError> {
    if message.name.is_empty() {
        return Err(bad("name", "is empty"));
    }
    let when = spec::MatchSpec::try_from(message.when.unwrap_or_default())?;
    let change = message.change.map(|change| change::change(change, &when)).transpose()?;
    Ok(spec::RuleSpec {
        name: message.name.into(),
        then: match message.then {
            Some(wire::Action::Service(name)) => spec::ActionSpec::Service(id("service", &name)?),
            Some(wire::Action::Split(split)) => {
                let targets = list("split", split.targets, |target| {
                    Ok(spec::TargetSpec {
                        service: id("service", &target.service)?,
                        version: optional_label("version", &target.version)?,
                        labels: zones::labels("labels", &target.labels)?,
                        weight: target.weight,
                    })
                })?;
                if targets.iter().all(|target| target.weight == 0) {
                    return Err(bad("split", "the sum of the weights is 0"));
                }
                spec::ActionSpec::Split(targets)
            }
            Some(wire::Action::Redirect(redirect)) => change::redirect(redirect, &when)?,
            Some(wire::Action::Answer(answer)) => change::direct(answer, &when)?,
            None => return Err(bad("then", "is missing, or of a kind that is not known here")),
        },
        timeout: message.timeout_nanos.map(Duration::from_nanos),
        change: change.map(Arc::new),
        when,
        tries: parse_tries(message.tries)?,
    })
}

/// Time limits and retries, if anything is said about them.
fn parse_tries(message: Option<proto::tries::Tries>) -> Result<Option<Arc<spec::TriesSpec>>, WireError> {
    let tries = message.map(|tries| spec::TriesSpec::try_from(tries).map_err(|e| e.below("tries")));
    Ok(tries.transpose()?.map(Arc::new))
}

/// `example.com`, or `.example.com` for every host below it.
fn host_text(host: &spec::HostMatch) -> String {
    match host {
        spec::HostMatch::Exact(text) | spec::HostMatch::Suffix(text) => text.to_string(),
    }
}

/// A host as [`host_text`] writes it.
fn host(host: String) -> Result<spec::HostMatch, WireError> {
    if host.is_empty() || host == "." || host.bytes().any(|b| b.is_ascii_uppercase() || b <= b' ') {
        return Err(bad("", format!("{host:?} is no lower-case host")));
    }
    Ok(if host.starts_with('.') {
        spec::HostMatch::Suffix(host.into())
    } else {
        spec::HostMatch::Exact(host.into())
    })
}

/// Parses each of `items`; an error gets `field[i]` put before its own path.
fn list<M, T>(
    field: &str,
    items: Vec<M>,
    mut parse: impl FnMut(M) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let indexed = items.into_iter().enumerate();
    indexed.map(|(i, item)| parse(item).map_err(|error| error.below(&format!("{field}[{i}]")))).collect()
}

/// A service's full name.
fn id(field: &str, text: &str) -> Result<ServiceId, WireError> {
    ServiceId::parse(text).map_err(|error| bad(field, format!("{text:?}: {error}")))
}

/// A label, or `None` when empty.
fn optional_label(field: &str, text: &str) -> Result<Option<Label>, WireError> {
    if text.is_empty() {
        return Ok(None);
    }
    Label::parse(text).map(Some).map_err(|error| bad(field, format!("{text:?}: {error}")))
}

/// `IP:PORT`.
fn address(field: &str, text: &str) -> Result<SocketAddr, WireError> {
    text.parse().map_err(|_| bad(field, format!("{text:?} is not IP:PORT")))
}

/// A port that is not 0.
fn port_number(field: &str, number: u32) -> Result<u16, WireError> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| bad(field, format!("{number} is no port")))
}

/// A path as it stands in a request line: begins with `/`, no blank, no control character.
fn check_path(field: &str, path: &str) -> Result<(), WireError> {
    if path.starts_with('/') && path.bytes().all(|b| b > b' ' && b != 0x7f) {
        return Ok(());
    }
    Err(bad(field, format!("{path:?} does not begin with '/' or has a blank in it")))
}

/// A duration that is not 0.
fn positive(field: &str, nanos: u64) -> Result<Duration, WireError> {
    if nanos == 0 { Err(bad(field, "is 0")) } else { Ok(Duration::from_nanos(nanos)) }
}

/// A count that is not 0.
fn at_least_one(field: &str, count: u32) -> Result<u32, WireError> {
    if count == 0 { Err(bad(field, "is 0")) } else { Ok(count) }
}

/// Nanoseconds, at most 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An error about `field`, of a resource yet to be named.
fn bad(field: &str, problem: impl Into<String>) -> WireError {
    WireError { resource: String::new(), field: field.to_owned(), problem: problem.into() }
}

impl WireError {
    /// The same error with `field` put before its path.
    fn below(self, field: &str) -> Self {
        let joined = if self.field.is_empty() { field.to_owned() } else { format!("{field}.{}", self.field) };
        Self { field: joined, ..self }
    }
}

mod change;
mod gateway;
mod matching;
mod rate;
#[cfg(test)]
mod tests;
