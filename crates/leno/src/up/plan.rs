//! From a checked mesh file to the processes that make the mesh: which, with which arguments and environment, on
//! which ports, in which order. Nothing is started here.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use leno_config::native::{InstanceEntry, MeshFile, Run, ServiceEntry};
use leno_core::name::ServiceId;
use leno_core::spec::{GatewaySpec, HttpSpec, Serve, Tags};

use crate::capture::place::Place;
use crate::failure::Failure;
use crate::logging::Level;

use super::ports::Ports;
use super::state::State;
use super::supervise::{MemberId, MemberSpec, Rank};

/// Everything that `leno up` starts.
pub(super) struct Plan {
    /// The mesh's name.
    pub(super) mesh: String,
    /// Where the control plane's API listens.
    pub(super) api: SocketAddr,
    /// Where proxies dial the control plane.
    pub(super) control: SocketAddr,
    /// In start order as far as there is one.
    pub(super) members: Vec<MemberPlan>,
    /// The instances that have to be healthy, in the order of the file.
    pub(super) instances: Vec<InstancePlan>,
    /// The paths that each gateway's rules take, for people who want to try one.
    pub(super) gateway_paths: Vec<Vec<String>>,
    /// What a URL of each gateway's first listener begins with.
    pub(super) gateway_schemes: Vec<&'static str>,
    /// Where each gateway's admin server listens.
    pub(super) gateway_admins: Vec<SocketAddr>,
}

/// One process to be.
pub(super) struct MemberPlan {
    /// Unique; names the process in messages and its log file.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: Kind,
    /// When it starts and stops.
    pub(super) spec: MemberSpec,
    /// What is executed.
    pub(super) program: Program,
    /// What it becomes in the mesh, for which it needs a join token.
    pub(super) joins: Option<Joins>,
    /// What makes it ready.
    pub(super) ready: ReadyBy,
    /// Where a proxy's admin server listens.
    pub(super) admin: Option<SocketAddr>,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The control plane.
    Control,
    /// A proxy beside an instance.
    Sidecar,
    /// A service command.
    Service,
    /// A proxy at the edge.
    Gateway,
}

/// What is executed.
pub(super) enum Program {
    /// This binary, with these arguments. It ends by itself when its stdin does.
    Leno(Vec<OsString>),
    /// Somebody's command, held so that it cannot outlive us.
    Held {
        /// The program and its arguments.
        argv: Vec<OsString>,
        /// Where it runs.
        folder: PathBuf,
        /// Added to our environment.
        env: Vec<(String, String)>,
        /// A network namespace of its own. Held as long as the mesh runs: a command that is started again finds it.
        place: Option<Place>,
    },
}

/// What a proxy becomes.
#[derive(Clone, Debug)]
pub(super) enum Joins {
    /// An instance of this service.
    Service(String),
    /// This gateway.
    Gateway(String),
}

/// What makes a member ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadyBy {
    /// Its ready line.
    Line,
    /// Its ready line, then its admin server's `/ready`.
    Admin,
    /// This instance is healthy in the registry.
    Health(usize),
    /// Both of the above: a sidecar beside an application that runs already.
    AdminAndHealth(usize),
}

/// An instance that has to become healthy.
pub(super) struct InstancePlan {
    /// Its name.
    pub(super) name: String,
    /// Its service, as the API names it.
    pub(super) service: String,
    /// Its version.
    pub(super) version: Option<String>,
    /// Its sidecar's member.
    pub(super) sidecar: MemberId,
    /// Its command's member, unless it runs already.
    pub(super) command: Option<MemberId>,
    /// Where its sidecar serves metrics.
    pub(super) admin: SocketAddr,
}

/// Makes the plan, and binds every port once to see that it is free.
pub(super) struct Planner<'a> {
    mesh: &'a MeshFile,
    file: &'a Path,
    state: &'a State,
    leno: PathBuf,
    log: Option<Level>,
    ports: Ports,
    /// Whether commands get a network namespace each.
    capture: bool,
    members: Vec<MemberPlan>,
    instances: Vec<InstancePlan>,
}

impl<'a> Planner<'a> {
    /// A planner for `mesh`, read from `file`.
    pub(super) fn new(
        mesh: &'a MeshFile,
        file: &'a Path,
        state: &'a State,
        log: Option<Level>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let leno = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find the running program: {error}")))?;
        let (members, instances) = (Vec::new(), Vec::new());
        Ok(Self { mesh, file, state, leno, log, ports: Ports::new(seed), capture: false, members, instances })
    }

    /// With or without a network namespace for each command.
    pub(super) fn capture(self, capture: bool) -> Self {
        Self { capture, ..self }
    }

    /// The plan; every port in it was free a moment ago.
    pub(super) fn plan(mut self) -> Result<Plan, Failure> {
        self.named_ports()?;
        let (api, control) = (self.ports.free()?, self.ports.free()?);
        self.control(api, control)?;
        let mesh = self.mesh;
        for service in &mesh.services {
            for instance in &service.instances {
                self.instance(service, instance, control)?;
            }
        }
        self.order_commands();
        for gateway in &mesh.gateways {
            self.gateway(gateway, control)?;
        }
        self.ports.release();
        let gateways = self.members.iter().filter(|member| member.kind == Kind::Gateway);
        Ok(Plan {
            mesh: mesh.name.to_string(),
            api,
            control,
            gateway_paths: mesh.gateways.iter().map(paths).collect(),
            gateway_schemes: mesh.gateways.iter().map(scheme).collect(),
            gateway_admins: gateways.filter_map(|member| member.admin).collect(),
            members: self.members,
            instances: self.instances,
        })
    }

    /// Takes the addresses that the file names, before anybody gets a free one.
    fn named_ports(&mut self) -> Result<(), Failure> {
        let mesh = self.mesh;
        for gateway in &mesh.gateways {
            for listener in gateway.listeners.iter().filter(|listener| listener.listen.port() != 0) {
                self.ports.named(listener.listen, &format!("gateway `{}`", gateway.id))?;
            }
        }
        for (service, instance) in instances(mesh) {
            let name = self.shown(&service.spec.id, instance);
            let sidecar = format!("sidecar of `{name}`");
            let own = [instance.mesh, instance.proxy, instance.admin].into_iter().flatten();
            for address in own.chain(instance.outbound.iter().map(|(_, address)| *address)) {
                self.ports.named(address, &sidecar)?;
            }
            match instance.app {
                Some(app) if instance.run.is_some() => {
                    self.ports.named(app, &format!("instance `{name}`"))?;
                }
                Some(app) => self.ports.avoid(app.port()),
                None => {}
            }
        }
        Ok(())
    }

    fn control(&mut self, api: SocketAddr, mesh: SocketAddr) -> Result<(), Failure> {
        let file = std::path::absolute(self.file).map_err(|error| {
            Failure::failed(format!("cannot name {} in full: {error}", self.file.display()))
        })?;
        let mut arguments = words(["control", "--state"]);
        arguments.push(self.state.control().into());
        arguments.push("--file".into());
        arguments.push(file.into());
        arguments.extend(words(["--mesh-listen", &mesh.to_string(), "--api-listen", &api.to_string()]));
        self.members.push(MemberPlan {
            name: "control plane".to_owned(),
            kind: Kind::Control,
            spec: MemberSpec { rank: Rank::Control, after: Vec::new() },
            program: self.leno(arguments),
            joins: None,
            ready: ReadyBy::Line,
            admin: None,
        });
        Ok(())
    }

    fn instance(
        &mut self,
        service: &ServiceEntry,
        entry: &InstanceEntry,
        control: SocketAddr,
    ) -> Result<(), Failure> {
        let app = or_free(entry.app, &mut self.ports)?;
        let proxy = or_free(entry.proxy, &mut self.ports)?;
        let mesh = or_free(entry.mesh, &mut self.ports)?;
        let admin = or_free(entry.admin, &mut self.ports)?;
        let mut outbound = Vec::new();
        for call in &service.spec.calls {
            let named = entry.outbound.iter().find(|(id, _)| id == call).map(|(_, address)| *address);
            outbound.push((call.clone(), or_free(named, &mut self.ports)?));
        }

        let place = self.instances.len();
        let name = self.shown(&service.spec.id, entry);
        let sidecar = self.members.len();
        let mut arguments = words(["proxy", "--control", &control.to_string()]);
        arguments.extend(words([
            "--service",
            &service.spec.id.to_string(),
            "--instance",
            entry.name.as_str(),
        ]));
        if let Some(version) = &entry.version {
            arguments.extend(words(["--version", version.as_str()]));
        }
        arguments.extend(crate::tags::arguments(&entry.tags).into_iter().map(OsString::from));
        arguments.extend(words(["--weight", &entry.weight.to_string(), "--app", &app.to_string()]));
        arguments.extend(words(["--mesh-listen", &mesh.to_string(), "--proxy-listen", &proxy.to_string()]));
        for (service, address) in &outbound {
            arguments.extend(words(["--outbound", &format!("{service}={address}")]));
        }
        arguments.extend(words(["--admin", &admin.to_string(), "--drain-seconds", DRAIN_SECONDS]));
        let home = match self.capture && entry.run.is_some() {
            true => Some(Place::make(&name)?),
            false => None,
        };
        let mut command_after = vec![CONTROL];
        if let Some(home) = &home {
            // Before its sidecar listens: until that is ready nobody is there who could connect.
            home.intercept()?;
            arguments.extend(home.proxy_arguments().into_iter().map(OsString::from));
            command_after.push(sidecar);
        }
        self.members.push(MemberPlan {
            name: format!("sidecar of {name}"),
            kind: Kind::Sidecar,
            spec: MemberSpec { rank: Rank::Sidecar, after: vec![CONTROL] },
            program: self.leno(arguments),
            joins: Some(Joins::Service(service.spec.id.to_string())),
            ready: if entry.run.is_some() { ReadyBy::Admin } else { ReadyBy::AdminAndHealth(place) },
            admin: Some(admin),
        });

        let command = match &entry.run {
            Some(run) => {
                let env = app_env(service, entry, run, app.port(), proxy, &outbound);
                let program = self.command(&name, run, app.port(), env, home)?;
                self.members.push(MemberPlan {
                    name: name.clone(),
                    kind: Kind::Service,
                    spec: MemberSpec { rank: Rank::App, after: command_after },
                    program,
                    joins: None,
                    ready: ReadyBy::Health(place),
                    admin: None,
                });
                Some(sidecar + 1)
            }
            None => None,
        };
        self.instances.push(InstancePlan {
            name: entry.name.to_string(),
            service: service.spec.id.to_string(),
            version: entry.version.as_ref().map(ToString::to_string),
            sidecar,
            command,
            admin,
        });
        Ok(())
    }

    /// Makes every command wait for the instances of the services that its own is started after.
    fn order_commands(&mut self) {
        for service in &self.mesh.services {
            let mut after = Vec::new();
            for earlier in &service.start_after {
                let earlier = earlier.to_string();
                let instances = self.instances.iter().filter(|instance| instance.service == earlier);
                after.extend(instances.map(|instance| instance.command.unwrap_or(instance.sidecar)));
            }
            let own = service.spec.id.to_string();
            let commands = self.instances.iter().filter(|instance| instance.service == own);
            for command in commands.filter_map(|instance| instance.command) {
                self.members[command].spec.after.extend(&after);
            }
        }
    }

    fn gateway(&mut self, gateway: &GatewaySpec, control: SocketAddr) -> Result<(), Failure> {
        let admin = self.ports.free()?;
        let name = gateway.id.to_string();
        let mut arguments = words([
            "proxy",
            "--control",
            &control.to_string(),
            "--gateway",
            gateway.id.name.as_str(),
            "--admin",
            &admin.to_string(),
            "--drain-seconds",
            DRAIN_SECONDS,
        ]);
        let own = Tags { zone: gateway.zone.clone(), ..Tags::NONE };
        arguments.extend(crate::tags::arguments(&own).into_iter().map(OsString::from));
        // After everything, so that the first request that anybody can send finds every instance.
        let after = (0..self.members.len()).filter(|&id| self.members[id].kind != Kind::Gateway).collect();
        self.members.push(MemberPlan {
            name: format!("gateway {name}"),
            kind: Kind::Gateway,
            spec: MemberSpec { rank: Rank::Gateway, after },
            program: self.leno(arguments),
            joins: Some(Joins::Gateway(name)),
            ready: ReadyBy::Admin,
            admin: Some(admin),
        });
        Ok(())
    }

    /// Somebody's command, found before anything is started.
    fn command(
        &self,
        name: &str,
        run: &Run,
        port: u16,
        env: Vec<(String, String)>,
        place: Option<Place>,
    ) -> Result<Program, Failure> {
        let folder = self.mesh.working_folder(run);
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Failure::failed(format!("instance `{name}`: its folder {folder} does not exist")));
        }
        let mut argv: Vec<OsString> = run.argv_on(port).into_iter().map(OsString::from).collect();
        let Some(program) = argv.first_mut() else {
            return Err(Failure::failed(format!("instance `{name}`: its command is empty")));
        };
        if program == "leno" {
            *program = self.leno.clone().into();
        } else {
            let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.into());
            let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
            executable(Path::new(program), &folder, &path)
                .map_err(|why| Failure::failed(format!("instance `{name}`: its command {why}")))?;
        }
        Ok(Program::Held { argv, folder, env, place })
    }

    fn leno(&self, mut arguments: Vec<OsString>) -> Program {
        arguments.push("--die-with-parent".into());
        if let Some(level) = self.log {
            arguments.extend(words(["--log", level.word()]));
        }
        Program::Leno(arguments)
    }

    /// An instance's name, unique in the mesh.
    fn shown(&self, service: &ServiceId, instance: &InstanceEntry) -> String {
        if service.namespace == self.mesh.namespace {
            instance.name.to_string()
        } else {
            format!("{}/{}", service.namespace, instance.name)
        }
    }
}

impl Kind {
    /// The word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Sidecar => "sidecar",
            Self::Service => "service",
            Self::Gateway => "gateway",
        }
    }
}

/// What is spoken at a gateway's first listener, as a URL says it.
fn scheme(gateway: &GatewaySpec) -> &'static str {
    match gateway.listeners.first().map(|listener| &listener.serve) {
        None | Some(Serve::Http(HttpSpec { tls: None, .. })) => "http",
        Some(Serve::Http(_)) => "https",
        Some(Serve::Passthrough(_) | Serve::Tcp { tls: Some(_), .. }) => "tls",
        Some(Serve::Tcp { tls: None, .. }) => "tcp",
    }
}

/// The paths that a gateway's rules take.
fn paths(gateway: &GatewaySpec) -> Vec<String> {
    let paths = gateway.rules.iter().filter_map(|rule| rule.when.path.as_ref());
    paths.map(|path| path.as_str().to_owned()).take(PATHS_SHOWN).collect()
}

/// Where a client on this machine reaches what listens on `address`.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(loopback, address.port())
}

/// An application's environment: where its sidecar is, in the words that HTTP clients know, and its own name. What
/// the file says comes last and wins.
fn app_env(
    service: &ServiceEntry,
    instance: &InstanceEntry,
    run: &Run,
    port: u16,
    proxy: SocketAddr,
    outbound: &[(ServiceId, SocketAddr)],
) -> Vec<(String, String)> {
    let proxy = format!("http://{}", reachable(proxy));
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
    set("HTTP_PROXY", proxy.clone());
    set("http_proxy", proxy);
    set("NO_PROXY", NO_PROXY.to_owned());
    set("no_proxy", NO_PROXY.to_owned());
    set("SERVICE", service.spec.id.name.to_string());
    set("INSTANCE", instance.name.to_string());
    if let Some(version) = &instance.version {
        set("VERSION", version.to_string());
    }
    for (called, address) in outbound {
        let address = reachable(*address);
        set(&variable(called, "URL"), format!("http://{address}"));
        // For what is no HTTP.
        set(&variable(called, "ADDRESS"), address.to_string());
    }
    env.extend(run.env_on(port));
    env
}

/// `LENO_PRODUCT_URL` for `product` and `URL`, `LENO_SHOP_PRODUCT_URL` for `shop/product`.
fn variable(service: &ServiceId, what: &str) -> String {
    let name = service.to_string().to_uppercase();
    format!("LENO_{}_{what}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// Finds `program` as `execvp` would, from `folder`.
pub(crate) fn executable(program: &Path, folder: &Path, path: &OsString) -> Result<(), String> {
    let may_run = |file: &Path| {
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        let file = folder.join(program);
        return match (may_run(&file), file.exists()) {
            (true, _) => Ok(()),
            (false, true) => Err(format!("`{}` is not an executable file", program.display())),
            (false, false) => Err(format!("`{}` does not exist", program.display())),
        };
    }
    if std::env::split_paths(path).any(|place| may_run(&folder.join(place).join(program))) {
        Ok(())
    } else {
        Err(format!("`{}` does not exist in PATH", program.display()))
    }
}

fn instances(mesh: &MeshFile) -> impl Iterator<Item = (&ServiceEntry, &InstanceEntry)> {
    mesh.services.iter().flat_map(|service| service.instances.iter().map(move |instance| (service, instance)))
}

fn or_free(address: Option<SocketAddr>, ports: &mut Ports) -> Result<SocketAddr, Failure> {
    address.map_or_else(|| ports.free(), Ok)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// The control plane's place among the members.
const CONTROL: MemberId = 0;
/// For requests under way when a proxy is told to stop; below the supervisor's patience.
const DRAIN_SECONDS: &str = "3";
/// Hosts that applications reach without their sidecar: themselves, and Leno's local ports.
const NO_PROXY: &str = "127.0.0.1,localhost";
/// More would not fit a line.
const PATHS_SHOWN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_becomes_a_variable() {
        assert_eq!(variable(&ServiceId::parse("product").unwrap(), "URL"), "LENO_PRODUCT_URL");
        assert_eq!(
            variable(&ServiceId::parse("shop/price-list").unwrap(), "URL"),
            "LENO_SHOP_PRICE_LIST_URL"
        );
    }

    #[test]
    fn commands_are_found_as_the_system_finds_them() {
        let path = OsString::from("/nowhere:/bin:/usr/bin");
        let here = Path::new("/");
        assert_eq!(executable(Path::new("sh"), here, &path), Ok(()));
        assert_eq!(executable(Path::new("bin/sh"), here, &path), Ok(()));
        let missing = executable(Path::new("no-such-command"), here, &path).unwrap_err();
        assert_eq!(missing, "`no-such-command` does not exist in PATH");
        let no_program = executable(Path::new("/etc/passwd"), here, &path).unwrap_err();
        assert_eq!(no_program, "`/etc/passwd` is not an executable file");
    }

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("127.0.0.2:80".parse().unwrap()).to_string(), "127.0.0.2:80");
    }
}
