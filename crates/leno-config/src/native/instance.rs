//! Instances and endpoints: the places where a service answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{EndpointSpec, Transport};

use super::check::Claims;
use super::fields::{ENDPOINT, INSTANCE, Kind, REPLICAS_MAX};
use super::model::{InstanceEntry, Run};
use super::read::{Fields, Reader};
use super::rules::{no_weight, weight};
use super::value;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value, short};

/// Most instances or endpoints of one service.
const INSTANCES_MAX: usize = 1000;

/// Most variables that a file adds to one environment.
const VARIABLES_MAX: usize = 1000;

/// What a service says about all its instances.
pub(crate) struct Common {
    run: Option<Vec<String>>,
    dir: Option<PathBuf>,
    env: Vec<(String, String)>,
}

impl Common {
    /// The service's `run`, `dir` and `env`.
    pub(crate) fn read(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Self {
        Self {
            run: fields.get("run").and_then(|node| reader.command(node)),
            dir: fields.get("dir").and_then(|node| folder(node, reader)),
            env: fields.get("env").map(|node| environment(node, reader)).unwrap_or_default(),
        }
    }

    /// The instances that `run` makes without a list.
    pub(crate) fn replicas(
        &self,
        service: &ServiceId,
        replicas: u32,
        key: Span,
        claims: &mut Claims,
        reader: &mut Reader<'_>,
    ) -> Vec<InstanceEntry> {
        let run = self.run.as_ref().map(|argv| Run {
            argv: argv.clone(),
            dir: self.dir.clone(),
            env: self.env.clone(),
        });
        let mut instances = Vec::new();
        for number in 1..=replicas {
            let Some(name) = numbered(service.name.as_str(), number as usize, key, reader) else { break };
            claims.name(&service.namespace, &name, key, reader);
            instances.push(InstanceEntry {
                name,
                version: None,
                weight: 1,
                run: run.clone(),
                app: None,
                mesh: None,
                proxy: None,
                outbound: Vec::new(),
                admin: None,
            });
        }
        instances
    }
}

/// The instances in the list `node`.
pub(crate) fn instances(
    node: &Node,
    service: &ServiceId,
    calls: &[ServiceId],
    common: &Common,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Vec<InstanceEntry> {
    let mut instances = Vec::new();
    let errors = reader.problems.errors();
    for item in reader.list(node, "a list of instances", INSTANCES_MAX) {
        let before = instances.len();
        instance(item, service, calls, common, claims, reader, &mut instances);
        if instances.len() > INSTANCES_MAX {
            let problem =
                Problem::error(item.span, format!("the service has more than {INSTANCES_MAX} instances"));
            reader.error(problem);
            instances.truncate(before);
            return instances;
        }
    }
    if reader.problems.errors() == errors && instances.iter().all(|instance| instance.weight == 0) {
        reader.error(no_weight(node.span, "instances"));
    }
    instances
}

/// The instance or instances that one item of the list makes.
fn instance(
    node: &Node,
    service: &ServiceId,
    calls: &[ServiceId],
    common: &Common,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
    instances: &mut Vec<InstanceEntry>,
) {
    let Some(mut fields) = reader.fields(node, &INSTANCE) else { return };
    let name_node = fields.get("name");
    let name = name_node
        .and_then(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "an instance's name")));
    let version = version(&mut fields, reader);
    let weight = fields.get("weight").and_then(|node| weight(node, reader)).unwrap_or(1);
    let replicas = fields.entry("replicas").map(|entry| (entry, replicas(&entry.value, reader).unwrap_or(1)));
    let run_entry = fields.entry("run");
    let run = run_entry.and_then(|entry| reader.command(&entry.value));
    let dir = fields.get("dir").and_then(|node| folder(node, reader));
    let env = fields.get("env").map(|node| environment(node, reader)).unwrap_or_default();
    let app = application(&mut fields, reader);
    let mut fixed = |field: &'static str, reader: &mut Reader<'_>| {
        let entry = fields.entry(field)?;
        Some((entry, reader.number(&entry.value, Kind::Address, value::address)?))
    };
    let (mesh, proxy, admin) = (fixed("mesh", reader), fixed("proxy", reader), fixed("admin", reader));
    let outbound =
        fields.get("outbound").map(|node| outbound(node, service, calls, reader)).unwrap_or_default();
    let has_place = ["run", "port", "address"].iter().any(|field| fields.key(field).is_some());
    let (key_dir, key_env) = (fields.key("dir"), fields.key("env"));
    fields.finish();

    if !has_place && common.run.is_none() {
        let problem = Problem::error(node.span, "nothing says how to start or find this instance");
        reader.error(
            problem.hint("add `run: …` to have `leno up` start it, or `port: …` where it listens already"),
        );
    }
    let argv = run.or_else(|| common.run.clone());
    if let (None, None, Some(key)) = (&argv, run_entry, key_dir.or(key_env)) {
        reader
            .error(Problem::error(key, "there is no command that this could hold for").hint("add `run: …`"));
    }
    let app = app.map(|(_, address)| address);
    let scope = Claims::scope(mesh.map(|(_, address)| address), app);
    let outbound_fixed = outbound.first().map(|(entry, _, _)| *entry);
    let copies = replicas.map_or(1, |(_, copies)| copies);
    let places = [("application", app_entry(node)), ("mesh", mesh.map(|(entry, _)| entry))]
        .into_iter()
        .chain([
            ("proxy", proxy.map(|(entry, _)| entry)),
            ("admin", admin.map(|(entry, _)| entry)),
            ("outbound", outbound_fixed),
        ])
        .find_map(|(_, entry)| entry);
    if let (Some((replicas, copies @ 2..)), Some(entry)) = (replicas, places) {
        let problem = Problem::error(entry.key_span, format!("{copies} replicas cannot share one address"));
        reader.error(
            problem
                .related(replicas.key_span, "so many replicas")
                .hint("remove the address, or write each instance out"),
        );
    }
    let claimed = [app.zip(app_entry(node)), mesh.map(|(entry, address)| (address, entry))];
    let local = [proxy, admin].map(|fixed| fixed.map(|(entry, address)| (address, entry)));
    for (address, entry) in claimed.into_iter().chain(local).flatten() {
        claims.address(scope, address, entry.value.span, reader);
    }
    for (entry, _, address) in &outbound {
        claims.address(scope, *address, entry.value.span, reader);
    }
    let merged_env = merged(&common.env, env);
    let run = argv.map(|argv| Run { argv, dir: dir.or_else(|| common.dir.clone()), env: merged_env });
    for copy in 1..=copies {
        let named = match (&name, name_node) {
            (Some(name), _) if copies == 1 => Some(name.clone()),
            (Some(name), Some(node)) => numbered(name.as_str(), copy as usize, node.span, reader),
            // A name that is wrong was reported.
            (None, Some(_)) => None,
            (_, None) => numbered(service.name.as_str(), instances.len() + 1, node.span, reader),
        };
        let Some(named) = named else { break };
        claims.name(&service.namespace, &named, name_node.map_or(node.span, |node| node.span), reader);
        instances.push(InstanceEntry {
            name: named,
            version: version.clone(),
            weight,
            run: run.clone(),
            app,
            mesh: mesh.map(|(_, address)| address),
            proxy: proxy.map(|(_, address)| address),
            outbound: outbound.iter().map(|(_, service, address)| (service.clone(), *address)).collect(),
            admin: admin.map(|(_, address)| address),
        });
    }
}

/// Where the application listens, from `port` or `address`.
fn application<'n>(fields: &mut Fields<'n>, reader: &mut Reader<'_>) -> Option<(&'n Entry, SocketAddr)> {
    let (port, address) = (fields.entry("port"), fields.entry("address"));
    match (port, address) {
        (Some(port), Some(address)) => {
            let problem = Problem::error(address.key_span, "an instance has either `port` or `address`");
            reader
                .error(problem.related(port.key_span, "this one is given too").hint("remove one of the two"));
            None
        }
        (Some(port), None) => {
            let number = reader.number(&port.value, Kind::Port, value::port)?;
            Some((port, SocketAddr::from(([127, 0, 0, 1], number))))
        }
        (None, Some(address)) => {
            Some((address, reader.number(&address.value, Kind::Address, value::address)?))
        }
        (None, None) => None,
    }
}

/// The entry that [`application`] was read from.
fn app_entry(node: &Node) -> Option<&Entry> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| matches!(&*entry.key, "port" | "address"))
}

fn outbound<'n>(
    node: &'n Node,
    service: &ServiceId,
    calls: &[ServiceId],
    reader: &mut Reader<'_>,
) -> Vec<(&'n Entry, ServiceId, SocketAddr)> {
    let mut outbound: Vec<(&Entry, ServiceId, SocketAddr)> = Vec::new();
    for entry in reader.map(node, "a map from services to addresses") {
        let id = reader.service_named(&entry.key, entry.key_span);
        let address = reader.number(&entry.value, Kind::Address, value::address);
        let (Some(id), Some(address)) = (id, address) else { continue };
        if !calls.contains(&id) {
            let (own, callee) = (reader.shown(service), reader.shown(&id));
            let problem =
                Problem::error(entry.key_span, format!("\"{callee}\" is not among the `calls` of \"{own}\""));
            reader.error(problem.hint(format!("add it: `calls: [{callee}]`")));
        } else if outbound.iter().any(|(_, known, _)| *known == id) {
            reader.error(Problem::error(entry.key_span, format!("\"{}\" is given twice", short(&entry.key))));
        } else {
            outbound.push((entry, id, address));
        }
    }
    outbound
}

/// The endpoints in the list `node`, sorted by name.
pub(crate) fn endpoints(node: &Node, service: &ServiceId, reader: &mut Reader<'_>) -> Vec<EndpointSpec> {
    let mut endpoints: Vec<EndpointSpec> = Vec::new();
    let mut addresses: BTreeMap<SocketAddr, Span> = BTreeMap::new();
    let mut names: BTreeMap<Label, Span> = BTreeMap::new();
    let errors = reader.problems.errors();
    for (index, item) in reader.list(node, "a list of addresses", INSTANCES_MAX).iter().enumerate() {
        let Some((endpoint, name, place)) = endpoint(item, service, index, reader) else { continue };
        if let Some(before) = addresses.get(&endpoint.address) {
            let problem = Problem::error(place, format!("the address {} is given twice", endpoint.address));
            reader.error(
                problem
                    .related(*before, "first given here")
                    .hint("use `weight` to give an endpoint a larger share"),
            );
        } else if let Some(before) = names.get(&name) {
            let problem = Problem::error(item.span, format!("two endpoints are called \"{name}\""));
            reader.error(problem.related(*before, "the first one").hint("give each a name of its own"));
        }
        addresses.entry(endpoint.address).or_insert(place);
        names.entry(name).or_insert(item.span);
        endpoints.push(endpoint);
    }
    if reader.problems.errors() == errors && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        reader.error(no_weight(node.span, "endpoints"));
    }
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    endpoints
}

fn endpoint(
    node: &Node,
    service: &ServiceId,
    index: usize,
    reader: &mut Reader<'_>,
) -> Option<(EndpointSpec, Label, Span)> {
    let (address, name, version, weight, place) = if let Value::Map(_) = &node.value {
        let mut fields = reader.fields(node, &ENDPOINT)?;
        let place = fields.get("address");
        let address = place.and_then(|node| reader.number(node, Kind::Address, value::address));
        let name = fields
            .get("name")
            .map(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "an endpoint's name")));
        let version = version(&mut fields, reader);
        let weight = fields.get("weight").and_then(|node| weight(node, reader)).unwrap_or(1);
        fields.finish();
        (address, name, version, weight, place.map_or(node.span, |node| node.span))
    } else {
        (reader.number(node, Kind::Address, value::address), None, None, 1, node.span)
    };
    let name = match name {
        Some(name) => name?,
        None => numbered(service.name.as_str(), index + 1, node.span, reader)?,
    };
    let endpoint = EndpointSpec {
        name: name.as_str().into(),
        address: address?,
        transport: Transport::Plain,
        version,
        weight,
        healthy: true,
    };
    Some((endpoint, name, place))
}

fn version(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Label> {
    let node = fields.get("version")?;
    reader.parsed(node, Kind::Version, |text| value::label(text, "a version"))
}

/// A number of replicas.
pub(crate) fn replicas(node: &Node, reader: &mut Reader<'_>) -> Option<u32> {
    reader.number(node, Kind::Count(REPLICAS_MAX), |text| {
        value::number(text, "a number of replicas", 1, REPLICAS_MAX)
    })
}

/// `NAME-N`.
fn numbered(name: &str, number: usize, span: Span, reader: &mut Reader<'_>) -> Option<Label> {
    let text = format!("{name}-{number}");
    let label = Label::parse(&text).ok();
    if label.is_none() {
        let problem =
            Problem::error(span, format!("the name \"{}\" that this would get is too long", short(&text)));
        reader.error(problem.hint("give it a shorter `name`"));
    }
    label
}

fn folder(node: &Node, reader: &mut Reader<'_>) -> Option<PathBuf> {
    let scalar = reader.scalar(node, &Kind::Folder.expected())?;
    if scalar.text.is_empty() {
        reader.error(Problem::error(node.span, "the folder is empty").hint("`.` is the folder of this file"));
        return None;
    }
    Some(PathBuf::from(&scalar.text))
}

fn environment(node: &Node, reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for entry in reader.map(node, "a map from variables to values").iter().take(VARIABLES_MAX) {
        let name = reader.checked(entry.key_span, value::variable(&entry.key));
        if matches!(entry.value.value, Value::Nothing) {
            let problem = Problem::error(
                entry.key_span,
                format!("the variable \"{}\" has no value", short(&entry.key)),
            );
            reader.error(problem.hint("write \"\" for an empty one"));
            continue;
        }
        let value = reader.scalar(&entry.value, &Kind::Text.expected());
        if let (Some(name), Some(value)) = (name, value) {
            variables.push((name.to_owned(), value.text.clone()));
        }
    }
    variables
}

/// `own` on top of `common`, in the order of the names.
fn merged(common: &[(String, String)], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let variables: BTreeMap<String, String> = common.iter().cloned().chain(own).collect();
    variables.into_iter().collect()
}
