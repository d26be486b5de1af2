//! What a mesh file says, checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use leno_core::name::{Label, ServiceId, TrustDomain};
use leno_core::spec::{EgressSpec, EndpointSpec, GatewaySpec, ServiceSpec, Tags};

use crate::diagnostic::Diagnostic;

/// A mesh file in which nothing is left to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFile {
    /// The mesh's name.
    pub name: Label,
    /// What its certificates vouch for. Default `NAME.mesh`.
    pub trust_domain: TrustDomain,
    /// The namespace of names that are written without one. Default `default`.
    pub namespace: Label,
    /// The folder the file is in (empty: the current one): where commands run and relative paths begin.
    pub folder: PathBuf,
    /// Where requests enter the mesh; a single `gateway:` is called `gateway`. Port 0 in `listen`: a free one.
    pub gateways: Vec<GatewaySpec>,
    /// What may leave the mesh.
    pub egress: EgressSpec,
    /// Services in the order of the file.
    pub services: Vec<ServiceEntry>,
    /// What is suspicious but usable.
    pub warnings: Vec<Diagnostic>,
}

/// A service of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// What the mesh needs to know of it.
    pub spec: ServiceSpec,
    /// `leno up` starts it when these are healthy. Never a cycle.
    pub start_after: Vec<ServiceId>,
    /// Its instances in the mesh; empty when they register themselves, or when there are `endpoints`.
    pub instances: Vec<InstanceEntry>,
    /// Plain endpoints of a service outside the mesh, sorted by name; never beside `instances`.
    pub endpoints: Vec<EndpointSpec>,
}

/// One instance of a service, with a sidecar beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceEntry {
    /// Unique in its namespace, among gateways too. Default `SERVICE-N`, N counted from 1.
    pub name: Label,
    /// Its version.
    pub version: Option<Label>,
    /// Where it is, and its labels.
    pub tags: Tags,
    /// Its share beside the service's other instances. Default 1; 0 takes no new requests.
    pub weight: u32,
    /// The command that `leno up` starts; `None`: it runs already, at `app`.
    pub run: Option<Run>,
    /// Where the application listens. `None`: `leno up` picks a free loopback port and passes it in `PORT`.
    pub app: Option<SocketAddr>,
    /// Where its sidecar accepts mesh traffic. `None`: a free port.
    pub mesh: Option<SocketAddr>,
    /// Where its sidecar's forward proxy listens. `None`: a free port.
    pub proxy: Option<SocketAddr>,
    /// Local addresses of dependencies that are fixed; other dependencies get free ports. Each is in `calls`.
    pub outbound: Vec<(ServiceId, SocketAddr)>,
    /// Where its sidecar's admin server listens. `None`: a free port.
    pub admin: Option<SocketAddr>,
}

/// A command to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; never empty. `{port}` in them stands for the application's port.
    pub argv: Vec<String>,
    /// Where it runs, relative to the file's folder. `None`: in that folder.
    pub dir: Option<PathBuf>,
    /// Added to its environment; `{port}` in values stands for the application's port. Never `PORT` itself.
    pub env: Vec<(String, String)>,
}

/// What `leno proxy --file FILE --role NAME` is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// This gateway.
    Gateway(&'a GatewaySpec),
    /// The sidecar beside this instance.
    Instance(&'a ServiceEntry, &'a InstanceEntry),
}

impl MeshFile {
    /// The service called `id`.
    pub fn service(&self, id: &ServiceId) -> Option<&ServiceEntry> {
        self.services.iter().find(|service| service.spec.id == *id)
    }

    /// The gateway or instance called `name` (in the file's namespace) or `namespace/name`.
    pub fn role(&self, name: &str) -> Option<Role<'_>> {
        self.roles()
            .find(|(namespace, role, _)| match name.split_once('/') {
                Some((wanted, name)) => wanted == namespace.as_str() && name == role.as_str(),
                None => **namespace == self.namespace && name == role.as_str(),
            })
            .map(|(_, _, role)| role)
    }

    /// Every role as [`MeshFile::role`] takes it, for a message that lists them.
    pub fn role_names(&self) -> Vec<String> {
        let shown = |(namespace, name, _): (&Label, &Label, Role<'_>)| {
            if *namespace == self.namespace { name.to_string() } else { format!("{namespace}/{name}") }
        };
        self.roles().map(shown).collect()
    }

    fn roles(&self) -> impl Iterator<Item = (&Label, &Label, Role<'_>)> {
        let gateways = self
            .gateways
            .iter()
            .map(|gateway| (&gateway.id.namespace, &gateway.id.name, Role::Gateway(gateway)));
        let instances = self.services.iter().flat_map(|service| {
            let role = move |instance| Role::Instance(service, instance);
            service
                .instances
                .iter()
                .map(move |instance| (&service.spec.id.namespace, &instance.name, role(instance)))
        });
        gateways.chain(instances)
    }

    /// Where `run` runs: its `dir` under the file's folder, or that folder.
    pub fn working_folder(&self, run: &Run) -> PathBuf {
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        run.dir.as_ref().map_or_else(|| folder.to_owned(), |dir| folder.join(dir))
    }
}

impl Run {
    /// The program and its arguments for an application on `port`.
    pub fn argv_on(&self, port: u16) -> Vec<String> {
        self.argv.iter().map(|word| with_port(word, port)).collect()
    }

    /// What to add to the environment of an application on `port`, `PORT` included.
    pub fn env_on(&self, port: u16) -> Vec<(String, String)> {
        let own = self.env.iter().map(|(name, value)| (name.clone(), with_port(value, port)));
        std::iter::once(("PORT".to_owned(), port.to_string())).chain(own).collect()
    }
}

fn with_port(text: &str, port: u16) -> String {
    text.replace("{port}", &port.to_string())
}
