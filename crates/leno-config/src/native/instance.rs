//! Instances: the places in the mesh where a service answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{Tags, Zone};

use super::check::Claims;
use super::fields::{INSTANCE, Kind, REPLICAS_MAX};
use super::model::{InstanceEntry, Run};
use super::read::{Fields, INSTANCE_BYTES_MAX, Reader};
use super::rules::{no_weight, weight};
use super::{value, zones};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value, short};

/// Most instances of one service: each may be a process to start.
const INSTANCES_MAX: usize = 1000;

/// Most variables that a file adds to one environment.
const VARIABLES_MAX: usize = 1000;

/// What a service says about all its instances.
pub(crate) struct Common {
    /// True when there is a `run`, right or wrong.
    has_run: bool,
    argv: Option<Vec<String>>,
    dir: Option<PathBuf>,
    env: Vec<(String, String)>,
}

/// The service whose instances are read.
pub(crate) struct Owner<'a> {
    pub(crate) id: &'a ServiceId,
    pub(crate) calls: &'a [ServiceId],
    pub(crate) common: &'a Common,
    /// Where instances are that say nothing.
    pub(crate) zone: Option<&'a Zone>,
}

impl Common {
    /// The service's `run`, `dir` and `env`.
    pub(crate) fn read(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Self {
        let run = fields.get("run");
        Self {
            has_run: run.is_some(),
            argv: run.and_then(|node| reader.command(node)),
            dir: fields.get("dir").and_then(|node| folder(node, reader)),
            env: fields.get("env").map(|node| environment(node, reader)).unwrap_or_default(),
        }
    }

    /// What an instance runs that says `own` about it, and nothing about the rest.
    fn run(
        &self,
        argv: Option<Vec<String>>,
        dir: Option<PathBuf>,
        env: Vec<(String, String)>,
    ) -> Option<Run> {
        let argv = argv.or_else(|| self.argv.clone())?;
        // An instance's own variables win over the service's.
        let env: BTreeMap<String, String> = self.env.iter().cloned().chain(env).collect();
        Some(Run { argv, dir: dir.or_else(|| self.dir.clone()), env: env.into_iter().collect() })
    }
}

/// The instances that a service's `run` makes without a list.
pub(crate) fn replicated(
    owner: &Owner<'_>,
    replicas: u32,
    key: Span,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Vec<InstanceEntry> {
    let model = InstanceEntry {
        name: owner.id.name.clone(),
        version: None,
        tags: Tags { zone: owner.zone.cloned(), ..Tags::NONE },
        weight: 1,
        run: owner.common.run(None, None, Vec::new()),
        app: None,
        mesh: None,
        proxy: None,
        outbound: Vec::new(),
        admin: None,
    };
    let mut instances = Vec::new();
    for number in 1..=replicas {
        let Some(name) = numbered(owner.id.name.as_str(), number as usize, key, reader) else { break };
        if !afford(&model, key, reader) {
            break;
        }
        claims.name(&owner.id.namespace, &name, key);
        instances.push(InstanceEntry { name, ..model.clone() });
    }
    instances
}

/// The instances in the list `node`.
pub(crate) fn listed(
    node: &Node,
    owner: &Owner<'_>,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Vec<InstanceEntry> {
    let mut instances = Vec::new();
    let errors = reader.problems.errors();
    for item in reader.list(node, "a list of instances", INSTANCES_MAX) {
        instance(item, owner, claims, reader, &mut instances);
    }
    if reader.problems.errors() == errors && instances.iter().all(|instance| instance.weight == 0) {
        reader.error(no_weight(node.span, "instances"));
    }
    instances
}

/// Adds the instance, or instances, that one item of the list makes.
fn instance(
    node: &Node,
    owner: &Owner<'_>,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
    instances: &mut Vec<InstanceEntry>,
) {
    let Some(mut fields) = reader.fields(node, &INSTANCE) else { return };
    let name_node = fields.get("name");
    let label = |text: &str| value::label(text, "an instance's name");
    let name = name_node.map(|node| reader.parsed(node, Kind::Name, label));
    let version = version(&mut fields, reader);
    let tags = zones::tags(&mut fields, owner.zone, reader);
    let weight = fields.get("weight").and_then(|node| weight(node, reader)).unwrap_or(1);
    let replicas_entry = fields.entry("replicas");
    let replicas = replicas_entry.and_then(|entry| replicas(&entry.value, reader)).unwrap_or(1);
    let run = run(&mut fields, owner.common, reader);
    let places = Places::read(&mut fields, owner, reader);
    let findable =
        owner.common.has_run || ["run", "port", "address"].iter().any(|name| fields.key(name).is_some());
    if !findable && fields.complete {
        let problem = Problem::error(node.span, "nothing says how to start or find this instance");
        reader.error(
            problem.hint("add `run: …` to have `leno up` start it, or `port: …` where it listens already"),
        );
    }
    fields.finish();

    if let (Some(entry), Some(place)) = (replicas_entry.filter(|_| replicas > 1), places.first_key()) {
        let problem = Problem::error(place, format!("{replicas} replicas cannot share one address"));
        let problem = problem.related(entry.key_span, "so many replicas");
        reader.error(problem.hint("remove the address, or write each instance out"));
    }
    places.claim(claims);
    // An instance whose name is wrong was reported; it gets no other name.
    let Some(name) = name.map_or(Some(None), |name| name.map(Some)) else { return };
    let model = InstanceEntry {
        name: owner.id.name.clone(),
        version,
        tags,
        weight,
        run,
        app: places.app.map(|(_, address)| address),
        mesh: places.mesh.map(|(_, address)| address),
        proxy: places.proxy.map(|(_, address)| address),
        outbound: places.outbound.into_iter().map(|(_, service, address)| (service, address)).collect(),
        admin: places.admin.map(|(_, address)| address),
    };
    let name_span = name_node.map_or(node.span, |node| node.span);
    for copy in 1..=replicas {
        let name = match &name {
            Some(name) if replicas == 1 => Some(name.clone()),
            Some(name) => numbered(name.as_str(), copy as usize, name_span, reader),
            None => numbered(owner.id.name.as_str(), instances.len() + 1, name_span, reader),
        };
        let Some(name) = name.filter(|_| afford(&model, node.span, reader)) else { break };
        claims.name(&owner.id.namespace, &name, name_span);
        instances.push(InstanceEntry { name, ..model.clone() });
    }
}

/// What an instance runs: its own `run`, `dir` and `env` on top of the service's.
fn run(fields: &mut Fields<'_>, common: &Common, reader: &mut Reader<'_>) -> Option<Run> {
    let argv_node = fields.get("run");
    let argv = argv_node.and_then(|node| reader.command(node));
    let dir = fields.get("dir").and_then(|node| folder(node, reader));
    let env = fields.get("env").map(|node| environment(node, reader)).unwrap_or_default();
    let idle = fields.key("dir").or(fields.key("env"));
    if let Some(key) = idle.filter(|_| argv_node.is_none() && !common.has_run && fields.complete) {
        reader
            .error(Problem::error(key, "there is no command that this could hold for").hint("add `run: …`"));
    }
    common.run(argv, dir, env)
}

/// The addresses of an instance and its sidecar that the file fixes, each with the entry that says so.
struct Places<'n> {
    app: Option<(&'n Entry, SocketAddr)>,
    mesh: Option<(&'n Entry, SocketAddr)>,
    proxy: Option<(&'n Entry, SocketAddr)>,
    admin: Option<(&'n Entry, SocketAddr)>,
    outbound: Vec<(&'n Entry, ServiceId, SocketAddr)>,
}

impl<'n> Places<'n> {
    fn read(fields: &mut Fields<'n>, owner: &Owner<'_>, reader: &mut Reader<'_>) -> Self {
        let app = application(fields, reader);
        let mut fixed = |name: &'static str, reader: &mut Reader<'_>| {
            let entry = fields.entry(name)?;
            Some((entry, reader.number(&entry.value, Kind::Address, value::address)?))
        };
        let (mesh, proxy, admin) = (fixed("mesh", reader), fixed("proxy", reader), fixed("admin", reader));
        let outbound = fields.get("outbound").map(|node| outbound(node, owner, reader)).unwrap_or_default();
        Self { app, mesh, proxy, admin, outbound }
    }

    /// Every address with its entry.
    fn all(&self) -> impl Iterator<Item = (&'n Entry, SocketAddr)> {
        let outbound = self.outbound.iter().map(|(entry, _, address)| (*entry, *address));
        [self.app, self.mesh, self.proxy, self.admin].into_iter().flatten().chain(outbound)
    }

    fn first_key(&self) -> Option<Span> {
        self.all().next().map(|(entry, _)| entry.key_span)
    }

    fn claim(&self, claims: &mut Claims) {
        let address = |place: Option<(&Entry, SocketAddr)>| place.map(|(_, address)| address);
        let scope = Claims::scope(address(self.mesh), address(self.app));
        for (entry, address) in self.all() {
            claims.address(scope, address, entry.value.span);
        }
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

fn outbound<'n>(
    node: &'n Node,
    owner: &Owner<'_>,
    reader: &mut Reader<'_>,
) -> Vec<(&'n Entry, ServiceId, SocketAddr)> {
    let mut outbound: Vec<(&Entry, ServiceId, SocketAddr)> = Vec::new();
    for entry in reader.map(node, "a map from services to addresses") {
        let id = reader.service_named(&entry.key, entry.key_span);
        let address = reader.number(&entry.value, Kind::Address, value::address);
        let (Some(id), Some(address)) = (id, address) else { continue };
        if !owner.calls.contains(&id) {
            let (own, callee) = (reader.shown(owner.id), reader.shown(&id));
            let message = format!("\"{callee}\" is not among the `calls` of \"{own}\"");
            reader
                .error(Problem::error(entry.key_span, message).hint(format!("add it: `calls: [{callee}]`")));
        } else if outbound.iter().any(|(_, known, _)| *known == id) {
            let message = format!("\"{}\" is given twice", short(&entry.key));
            reader.error(Problem::error(entry.key_span, message).hint("keep one of the two"));
        } else {
            outbound.push((entry, id, address));
        }
    }
    outbound
}

/// True when one more instance like `model` stays within what a file may make.
fn afford(model: &InstanceEntry, span: Span, reader: &mut Reader<'_>) -> bool {
    const INSTANCE_BYTES: usize = 512;
    let text = |text: &String| text.len() + size_of::<String>();
    let run = model.run.as_ref().map_or(0, |run| {
        let env: usize = run.env.iter().map(|(name, value)| text(name) + text(value)).sum();
        env + run.argv.iter().map(text).sum::<usize>()
    });
    let bytes = INSTANCE_BYTES + run + size_of_val(&*model.outbound);
    match reader.instance_bytes_left.checked_sub(bytes) {
        Some(left) => reader.instance_bytes_left = left,
        None if reader.instance_bytes_left == 0 => {}
        None => {
            reader.instance_bytes_left = 0;
            let limit = INSTANCE_BYTES_MAX / (1024 * 1024);
            let problem =
                Problem::error(span, format!("the instances of this file take more than {limit} MiB"));
            reader.error(problem.hint("fewer replicas, or a smaller `env`"));
        }
    }
    reader.instance_bytes_left > 0
}

/// A version, if there is one.
pub(crate) fn version(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Label> {
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
pub(crate) fn numbered(name: &str, number: usize, span: Span, reader: &mut Reader<'_>) -> Option<Label> {
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
    let text = reader.text(node, Kind::Folder)?;
    if text.is_empty() {
        reader.error(Problem::error(node.span, "the folder is empty").hint("`.` is the folder of this file"));
        return None;
    }
    Some(PathBuf::from(text))
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
