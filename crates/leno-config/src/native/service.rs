//! A service: first what it is, then (when every service and version is known) where its requests go.

use std::sync::Arc;
use std::time::Duration;

use leno_core::name::ServiceId;
use leno_core::proxy_protocol::Version;
use leno_core::spec::{Balance, ExternalSpec, HealthSpec, Probe, Protocol, SRV_PORT, ServiceSpec};

use super::care;
use super::check::Claims;
use super::endpoint::{self, Places};
use super::fields::{CHECKS_MAX, HEALTH, HEALTH_WORDS, Kind, SERVICE};
use super::instance::{self, Common, Owner};
use super::model::{InstanceEntry, ServiceEntry};
use super::outside;
use super::read::{Fields, Reader};
use super::rules;
use super::tries;
use super::{value, zones};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value};

/// Most services that one service can name in `calls` or `start_after`.
const REFERENCES_MAX: usize = 1000;

/// How often an instance is checked unless the file says otherwise.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// How long one check may take unless the file says otherwise.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks more often than this would be load, not checks.
const HEALTH_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A service whose rules are not read yet.
pub(crate) struct Draft<'n> {
    /// Everything else.
    pub(crate) entry: ServiceEntry,
    /// The services that `start_after` names, with their places.
    pub(crate) start_after: Vec<(ServiceId, Span)>,
    routes: Option<&'n Node>,
    split: Option<&'n Node>,
}

impl<'n> Draft<'n> {
    /// Reads the service in `entry`; its versions become known to `reader`.
    pub(crate) fn read(
        entry: &'n Entry,
        id: ServiceId,
        claims: &mut Claims,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let mut spec = ServiceSpec {
            id: id.clone(),
            protocol: Protocol::default(),
            balance: Balance::default(),
            care: None,
            rules: Vec::new(),
            calls: Vec::new(),
            health: Some(health_spec(Probe::Tcp)),
            timeout: None,
            tries: None,
            external: None,
            send_proxy: None,
            headless: false,
            srv_port: SRV_PORT,
        };
        // A service of which only the name is written: its instances register themselves.
        if matches!(entry.value.value, Value::Nothing) {
            let entry =
                ServiceEntry { spec, start_after: Vec::new(), instances: Vec::new(), endpoints: Vec::new() };
            return Some(Self { entry, start_after: Vec::new(), routes: None, split: None });
        }
        let mut fields = reader.fields(&entry.value, &SERVICE)?;
        if let Some(node) = fields.get("protocol") {
            spec.protocol = match reader.choice(node, choices("protocol")) {
                Some("http") => Protocol::Http1,
                Some("http2") => Protocol::Http2,
                Some("grpc") => Protocol::Grpc,
                Some("tcp") => Protocol::Tcp,
                _ => Protocol::Auto,
            };
        }
        let (balance, care) = care::read(&id, spec.protocol, &mut fields, reader);
        (spec.balance, spec.care) = (balance, care.map(Arc::new));
        let asks = |care: &Arc<leno_core::spec::Care>| care.rates.iter().any(|rate| rate.looks_at_requests());
        if let Some(span) = fields.key("rate_limits")
            && spec.protocol == Protocol::Tcp
            && spec.care.as_ref().is_some_and(asks)
        {
            let problem = Problem::error(span, "with `protocol: tcp` connections are counted, not requests");
            reader.error(
                problem.hint("of what is asked for, only `from`, `caller` and `client` say something there"),
            );
        }
        if let Some(node) = fields.get("health") {
            spec.health = health(node, reader);
        }
        speak_as(spec.protocol, &mut spec.health);
        let said = tries::read(&mut fields, spec.protocol, true, reader);
        (spec.timeout, spec.tries) = (said.timeout, said.tries);
        spec.headless = fields.get("headless").and_then(|node| reader.flag(node)).unwrap_or_default();
        if let Some(node) = fields.get("srv_port") {
            spec.srv_port = reader.number(node, Kind::Port, value::port).unwrap_or(SRV_PORT);
        }
        let calls = fields.get("calls").map(|node| references(node, reader)).unwrap_or_default();
        spec.calls = calls.into_iter().map(|(id, _)| id).collect();
        let start_after = fields.get("start_after").map(|node| references(node, reader)).unwrap_or_default();
        let (routes, split) = (fields.get("routes"), fields.get("split"));
        let zone = fields.get("zone").and_then(|node| zones::zone(node, reader));
        let common = Common::read(&mut fields, reader);
        let owner = Owner { id: &id, calls: &spec.calls, common: &common, zone: zone.as_ref() };
        let (instances, places) = places(&mut fields, &owner, claims, reader);
        let Places { endpoints, names } = places;
        let tls = fields.entry("tls");
        if let Some(entry) = tls.filter(|_| fields.key("endpoints").is_none() && fields.complete) {
            let problem = Problem::error(entry.key_span, "`tls` goes with `endpoints` alone");
            reader.error(
                problem.hint("between sidecars there is always TLS; inside the machine there is none"),
            );
        }
        let tls = tls.and_then(|entry| outside::tls(&entry.value, reader)).map(Arc::new);
        if tls.is_some() || !names.is_empty() {
            spec.external = Some(Arc::new(ExternalSpec { names: names.clone(), tls }));
        }
        if let Some(entry) = fields.entry("send_proxy") {
            spec.send_proxy = send_proxy(entry, spec.protocol, fields.key("endpoints").is_some(), reader);
        }
        if fields.key("endpoints").is_some() {
            spec.health = None;
        }
        if fields.key("instances").or(fields.key("endpoints")).or(fields.key("run")).is_some() {
            let versions = instances
                .iter()
                .map(|instance| &instance.version)
                .chain(endpoints.iter().map(|endpoint| &endpoint.version))
                .chain(names.iter().map(|named| &named.version));
            reader.versions.insert(id.clone(), versions.flatten().cloned().collect());
            let tagged = (instances.iter().map(|it| (&it.version, &it.tags)))
                .chain(endpoints.iter().map(|it| (&it.version, &it.tags)))
                .chain(names.iter().map(|it| (&it.version, &it.tags)));
            let tagged = tagged.map(|(version, tags)| (version.clone(), tags.labels.clone()));
            reader.tagged.insert(id, tagged.collect());
        }
        fields.finish();
        let ids = start_after.iter().map(|(id, _)| id.clone()).collect();
        let entry = ServiceEntry { spec, start_after: ids, instances, endpoints };
        Some(Self { entry, start_after, routes, split })
    }

    /// The service with its rules.
    pub(crate) fn finish(self, reader: &mut Reader<'_>) -> ServiceEntry {
        let mut entry = self.entry;
        let opaque = entry.spec.protocol == Protocol::Tcp;
        entry.spec.rules = rules::of_service(self.routes, self.split, &entry.spec.id, opaque, reader);
        entry
    }
}

/// The version of the PROXY header that connections begin with.
fn send_proxy(
    entry: &Entry,
    protocol: Protocol,
    endpoints: bool,
    reader: &mut Reader<'_>,
) -> Option<Version> {
    let word = reader.choice(&entry.value, choices("send_proxy"))?;
    let hint = match (protocol, endpoints) {
        (Protocol::Tcp, true) => return [Version::V1, Version::V2].into_iter().find(|it| it.word() == word),
        (Protocol::Tcp, false) => {
            "instances in the mesh get connections from their sidecar; it goes with `endpoints`"
        }
        _ => "it goes with `protocol: tcp`: connections for requests are shared by many clients",
    };
    reader.error(Problem::error(entry.key_span, "`send_proxy` has no meaning here").hint(hint));
    None
}

/// Instances or endpoints; what goes with only one of them is refused with the other.
fn places(
    fields: &mut Fields<'_>,
    owner: &Owner<'_>,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> (Vec<InstanceEntry>, Places) {
    let replicas = fields.entry("replicas").map(|entry| (entry, instance::replicas(&entry.value, reader)));
    let (instances, endpoints) = (fields.entry("instances"), fields.entry("endpoints"));
    if let Some(endpoints) = endpoints {
        for name in ["instances", "run", "replicas", "dir", "env", "health", "calls", "start_after"] {
            if let Some(key) = fields.key(name) {
                let problem = Problem::error(key, format!("`{name}` does not go with `endpoints`"));
                reader.error(
                    problem
                        .related(
                            endpoints.key_span,
                            "these are outside the mesh: no sidecar, nothing to start",
                        )
                        .hint("remove one of the two"),
                );
            }
        }
        return (Vec::new(), endpoint::listed(&endpoints.value, owner.id, owner.zone, reader));
    }
    if let (Some((replicas, _)), Some(instances)) = (replicas, instances) {
        let problem = Problem::error(replicas.key_span, "`replicas` does not go with a list of `instances`");
        reader.error(
            problem
                .related(instances.key_span, "the list")
                .hint("move `replicas` to an instance of the list"),
        );
    }
    if let Some(instances) = instances {
        return (instance::listed(&instances.value, owner, claims, reader), Places::default());
    }
    let Some(run) = fields.key("run") else {
        let idle = fields.key("replicas").or(fields.key("dir")).or(fields.key("env"));
        if let Some(key) = idle.filter(|_| fields.complete) {
            reader.error(
                Problem::error(key, "there is no command that this could hold for").hint("add `run: …`"),
            );
        }
        return (Vec::new(), Places::default());
    };
    let copies = replicas.and_then(|(_, copies)| copies).unwrap_or(1);
    (instance::replicated(owner, copies, run, claims, reader), Places::default())
}

/// Services that a list names, each once.
fn references(node: &Node, reader: &mut Reader<'_>) -> Vec<(ServiceId, Span)> {
    let mut references: Vec<(ServiceId, Span)> = Vec::new();
    for item in reader.one_or_more(node, "the name of a service, or a list of names", REFERENCES_MAX) {
        let Some(id) = reader.service(item) else { continue };
        if let Some((_, before)) = references.iter().find(|(known, _)| *known == id) {
            let problem = Problem::error(item.span, format!("\"{}\" is given twice", reader.shown(&id)));
            reader.error(problem.related(*before, "first given here").hint("keep one of the two"));
            continue;
        }
        references.push((id, item.span));
    }
    references
}

/// `tcp`, `none`, a path, or a map.
fn health(node: &Node, reader: &mut Reader<'_>) -> Option<HealthSpec> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text.starts_with('/') => {
            let path = reader.parsed(node, Kind::Path, value::path)?;
            Some(health_spec(Probe::Http(path.to_owned())))
        }
        Value::Scalar(scalar) if scalar.text == "http" => {
            let problem = Problem::error(node.span, "an HTTP check needs a path");
            reader.error(problem.hint("write the path that is asked: `health: /healthz`"));
            None
        }
        Value::Scalar(_) => match reader.choice(node, HEALTH_WORDS)? {
            "none" => None,
            "grpc" => Some(health_spec(Probe::Grpc(String::new()))),
            _ => Some(health_spec(Probe::Tcp)),
        },
        Value::Map(_) => health_map(node, reader),
        _ => {
            reader.expected(node, "tcp, none, grpc, a path such as /healthz, or a map");
            None
        }
    }
}

/// A path is asked in the protocol that the service speaks.
fn speak_as(protocol: Protocol, health: &mut Option<HealthSpec>) {
    if let (Protocol::Http2 | Protocol::Grpc, Some(HealthSpec { probe, .. })) = (protocol, health)
        && let Probe::Http(path) = probe
    {
        *probe = Probe::Http2(std::mem::take(path));
    }
}

fn health_map(node: &Node, reader: &mut Reader<'_>) -> Option<HealthSpec> {
    let mut fields = reader.fields(node, &HEALTH)?;
    let path = fields.get("http").map(|node| reader.parsed(node, Kind::Path, value::path));
    let grpc = fields.get("grpc").map(|node| reader.parsed(node, Kind::Text, value::grpc_service));
    if let (Some(entry), Some(_)) = (fields.entry("grpc"), &path) {
        let problem = Problem::error(entry.key_span, "a check asks either `http` or `grpc`");
        reader.error(problem.hint("leave one of them out"));
        return None;
    }
    let duration = |node: Option<&Node>, reader: &mut Reader<'_>| {
        node.map(|node| (reader.parsed(node, Kind::Duration, value::duration), node.span))
    };
    let interval = duration(fields.get("interval"), reader);
    let timeout = duration(fields.get("timeout"), reader);
    let count = |node: Option<&Node>, default: u32, reader: &mut Reader<'_>| {
        let count = |text: &str| value::number(text, "a number of answers", 1, CHECKS_MAX);
        node.map_or(Some(default), |node| reader.number(node, Kind::Count(CHECKS_MAX), count))
    };
    let healthy_after = count(fields.get("healthy_after"), 1, reader);
    let unhealthy_after = count(fields.get("unhealthy_after"), 2, reader);
    fields.finish();

    let probe = match (path, grpc) {
        (Some(path), _) => Probe::Http(path?.to_owned()),
        (None, Some(service)) => Probe::Grpc(service?.to_owned()),
        (None, None) => Probe::Tcp,
    };
    let every = interval.map_or(Some(HEALTH_INTERVAL), |(interval, _)| interval)?;
    if let Some((_, span)) = interval.filter(|_| every < HEALTH_INTERVAL_MIN) {
        reader.error(Problem::error(span, "an interval below 10ms").hint("at least 10ms; 1s is usual"));
    }
    let wait = match timeout {
        None => HEALTH_TIMEOUT.min(every),
        Some((wait, span)) => {
            let wait = wait?;
            if wait > every {
                let problem =
                    Problem::error(span, "a check may not take longer than the interval between two of them");
                let problem = match interval {
                    Some((_, interval)) => problem.related(interval, "the interval"),
                    None => problem,
                };
                reader.error(problem.hint(format!("at most {every:?}, or a longer `interval`")));
            }
            wait
        }
    };
    Some(HealthSpec {
        probe,
        interval: every,
        timeout: wait,
        healthy_after: healthy_after?,
        unhealthy_after: unhealthy_after?,
    })
}

fn health_spec(probe: Probe) -> HealthSpec {
    HealthSpec {
        probe,
        interval: HEALTH_INTERVAL,
        timeout: HEALTH_TIMEOUT,
        healthy_after: 1,
        unhealthy_after: 2,
    }
}

/// The words of a field of a service.
fn choices(name: &str) -> &'static [(&'static str, &'static str)] {
    let field = SERVICE.fields.iter().find(|field| field.name == name);
    match field.map(|field| field.kind) {
        Some(Kind::Choice(choices)) => choices,
        _ => &[],
    }
}
