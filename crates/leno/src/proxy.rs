//! `leno proxy`: one sidecar or gateway, from a file or from a control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use leno_config::native::Role;
use leno_core::name::{Label, ServiceId};
use leno_proxy::config::{ADMIN_PORT_DEFAULT, DRAIN_DEFAULT, FORWARD_PORT_DEFAULT, MESH_PORT_DEFAULT};
use leno_proxy::{AccessLog, Bound, IdentitySource, ProxyConfig, Source, Workload};
use serde_json::Value;

use crate::capture::flags::CaptureFlags;
use crate::failure::Failure;
use crate::output::Output;
use crate::tags::TagFlags;

/// What was typed.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["file", "control"])))]
pub(crate) struct ProxyArgs {
    /// Take everything from this mesh file, without a control plane.
    #[arg(long, value_name = "FILE", requires = "role")]
    file: Option<PathBuf>,
    /// With --file: the gateway or instance to be.
    #[arg(long, value_name = "NAME", conflicts_with = "control")]
    role: Option<String>,
    /// With --file: the directory of an authority of our own, made at first use [default: beside the file].
    #[arg(long, value_name = "DIR", conflicts_with_all = ["control", "cert", "key", "roots"])]
    identity: Option<PathBuf>,
    /// With --file: the certificate chain, PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "control", requires_all = ["key", "roots"])]
    cert: Option<PathBuf>,
    /// With --file: its private key, PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "control", requires_all = ["cert", "roots"])]
    key: Option<PathBuf>,
    /// With --file: the roots that peers' certificates have to end in, PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "control", requires_all = ["cert", "key"])]
    roots: Option<PathBuf>,

    /// Join the mesh of the control plane at this address.
    #[arg(long, value_name = "HOST:PORT", requires = "becomes", value_parser = host_and_port)]
    control: Option<String>,
    /// With --control: a file with the join token [default: the variable LENO_TOKEN].
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    token_file: Option<PathBuf>,
    /// With --control: be the sidecar of an instance of this service.
    #[arg(long, value_name = "NAME", group = "becomes", conflicts_with = "file",
        requires_all = ["instance", "app"], value_parser = service_id)]
    service: Option<ServiceId>,
    /// With --control: be this gateway.
    #[arg(long, value_name = "NAME", group = "becomes", conflicts_with = "file", value_parser = label)]
    gateway: Option<Label>,
    /// With --service: the instance's name, unique in the service.
    #[arg(long, value_name = "NAME", requires = "service", value_parser = label)]
    instance: Option<Label>,
    /// With --service: the instance's version.
    #[arg(long, value_name = "VERSION", requires = "service", value_parser = label)]
    version: Option<Label>,
    /// With --service: the instance's share beside the others; 0 takes no new requests.
    #[arg(long, value_name = "N", requires = "service", default_value_t = 1)]
    weight: u32,
    /// With --service: where the application listens.
    #[arg(long, value_name = "ADDR", requires = "service")]
    app: Option<SocketAddr>,

    /// Where other sidecars' requests are accepted [default: what the file says; with --control 127.0.0.1:15008].
    #[arg(long, value_name = "ADDR")]
    mesh_listen: Option<SocketAddr>,
    /// The address that other sidecars are told to use [default: where it listens].
    #[arg(long, value_name = "ADDR")]
    mesh_advertise: Option<SocketAddr>,
    /// Where the application's requests are accepted: its HTTP_PROXY [default: what the file says; with --control 127.0.0.1:15001].
    #[arg(long, value_name = "ADDR")]
    proxy_listen: Option<SocketAddr>,
    /// A local address from which requests go to one service; may be given several times.
    #[arg(long, value_name = "SERVICE=ADDR", value_parser = outbound)]
    outbound: Vec<(ServiceId, SocketAddr)>,
    /// Where metrics, readiness and the configuration held are served [default: what the file says; with --control 127.0.0.1:15020].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where the application's questions about names are answered, over UDP and TCP [default: nowhere].
    #[arg(long, value_name = "ADDR")]
    dns_listen: Option<SocketAddr>,
    /// Who answers those about names outside the mesh; may be given several times [default: what /etc/resolv.conf names].
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolver)]
    dns_upstream: Vec<SocketAddr>,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// One JSON line per request: off, stdout, or a file's path.
    #[arg(long, value_name = "WHERE", default_value = "off")]
    access_log: String,
    /// For requests under way when told to stop [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain_seconds: Option<u64>,
    #[command(flatten)]
    tags: TagFlags,
    #[command(flatten)]
    capture: CaptureFlags,
    /// End when stdin does.
    #[arg(long, hide = true)]
    die_with_parent: bool,
}

impl ProxyArgs {
    /// Runs the proxy until SIGTERM or SIGINT.
    pub(crate) fn run(self, output: Output) -> Result<ExitCode, Failure> {
        if self.die_with_parent {
            crate::parent::exit_at_stdin_eof();
        }
        let config = self.resolve(output)?;
        leno_proxy::run(config, tell_ready).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// What was typed wins, then what the file says, then the default.
    fn resolve(self, output: Output) -> Result<ProxyConfig, Failure> {
        let (source, named) = match (&self.file, &self.control) {
            (Some(file), _) => self.file_source(file, output)?,
            (None, Some(address)) => self.control_source(address)?,
            (None, None) => return Err(Failure::invalid("neither --file nor --control is given")),
        };
        // Several roles of one file run on one machine: each has the addresses that the file names and no others. Under a
        // control plane one proxy a machine is usual, and has the usual ports.
        let (alone, sidecar) = (self.control.is_some(), named.is_some());
        let named = named.unwrap_or_default();
        let access_log = match self.access_log.as_str() {
            "off" => AccessLog::Off,
            "stdout" => AccessLog::Stdout,
            path => AccessLog::File(path.into()),
        };
        let listen = |typed: Option<SocketAddr>, named: Option<SocketAddr>, usual: bool, port: u16| {
            typed.or(named).or_else(|| usual.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        };
        Ok(ProxyConfig {
            source,
            mesh_listen: listen(self.mesh_listen, named.mesh, alone && sidecar, MESH_PORT_DEFAULT),
            mesh_advertise: self.mesh_advertise,
            forward_listen: listen(self.proxy_listen, named.forward, alone && sidecar, FORWARD_PORT_DEFAULT),
            outbound: self.outbound,
            admin_listen: listen(self.admin, named.admin, alone, ADMIN_PORT_DEFAULT),
            dns_listen: self.dns_listen,
            dns_upstream: self.dns_upstream,
            workers: self.workers.and_then(|workers| NonZeroUsize::new(workers.into())),
            access_log,
            own: self.tags.resolve()?,
            capture: self.capture.resolve(),
            drain: self.drain_seconds.map_or(DRAIN_DEFAULT, Duration::from_secs),
        })
    }

    /// With no control plane. The second: a sidecar's addresses, as far as the file names them.
    fn file_source(&self, file: &Path, output: Output) -> Result<(Source, Option<Named>), Failure> {
        let mesh = crate::up::load(file, output)?;
        let role = self.role.clone().unwrap_or_default();
        let named = match mesh.role(&role) {
            Some(Role::Gateway(_)) => None,
            Some(Role::Instance(_, instance)) => {
                Some(Named { mesh: instance.mesh, forward: instance.proxy, admin: instance.admin })
            }
            None => {
                let known = mesh.role_names().join(", ");
                return Err(Failure::invalid(format!(
                    "{} has no gateway or instance `{role}`; it has {known}",
                    file.display()
                )));
            }
        };
        let identity = match (&self.cert, &self.key, &self.roots, &self.identity) {
            (Some(cert), Some(key), Some(roots), _) => {
                IdentitySource::Files { cert: cert.clone(), key: key.clone(), roots: roots.clone() }
            }
            (.., Some(folder)) => IdentitySource::SelfMade(folder.clone()),
            // Without sidecars nobody asks who we are.
            _ if mesh.services.iter().all(|service| service.instances.is_empty()) => IdentitySource::None,
            _ => IdentitySource::SelfMade(crate::up::default_identity(file, &mesh)?),
        };
        Ok((Source::File { mesh: Box::new(mesh), role, identity }, named))
    }

    fn control_source(&self, address: &str) -> Result<(Source, Option<Named>), Failure> {
        let token = match &self.token_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::failed(format!("the token file {}: {error}", file.display())))?,
            None => std::env::var("LENO_TOKEN").unwrap_or_default(),
        };
        let token = token.trim().to_owned();
        if token.is_empty() {
            return Err(Failure::invalid(
                "no join token: `leno token create` makes one; give it in --token-file or the variable LENO_TOKEN",
            ));
        }
        let (workload, named) = match (&self.service, &self.instance, self.app, &self.gateway) {
            (Some(service), Some(instance), Some(app), _) => (
                Workload::Sidecar {
                    service: service.clone(),
                    instance: instance.clone(),
                    version: self.version.clone(),
                    weight: self.weight,
                    app,
                },
                Some(Named::default()),
            ),
            (.., Some(name)) => (Workload::Gateway { name: name.clone() }, None),
            _ => {
                return Err(Failure::invalid(
                    "--control needs --service, --instance and --app, or --gateway",
                ));
            }
        };
        Ok((Source::Control { address: address.to_owned(), token, workload }, named))
    }
}

/// Addresses that a mesh file names for a sidecar.
#[derive(Default)]
struct Named {
    mesh: Option<SocketAddr>,
    forward: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// One JSON line for whoever started us.
fn tell_ready(bound: &Bound) {
    let mut ready = serde_json::Map::new();
    ready.insert("event".to_owned(), "ready".into());
    let addresses = [
        ("mesh", bound.mesh),
        ("proxy", bound.forward),
        ("gateway", bound.gateway),
        ("admin", bound.admin),
        ("dns", bound.dns.first().copied()),
    ];
    for (name, address) in addresses {
        if let Some(address) = address {
            ready.insert(name.to_owned(), address.to_string().into());
        }
    }
    if !bound.listeners.is_empty() {
        let listeners = bound.listeners.iter();
        let listeners = listeners.map(|(name, address)| (name.clone(), address.to_string().into()));
        ready.insert("listeners".to_owned(), Value::Object(listeners.collect()));
    }
    let intercepted = [("captured", &bound.captured), ("captured_inbound", &bound.captured_inbound)];
    for (name, addresses) in intercepted.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        ready.insert(name.to_owned(), addresses.into());
    }
    if !bound.outbound.is_empty() {
        let outbound = bound.outbound.iter();
        let outbound = outbound.map(|(service, address)| (service.to_string(), address.to_string().into()));
        ready.insert("outbound".to_owned(), Value::Object(outbound.collect()));
    }
    crate::output::line(&Value::Object(ready).to_string()).ok();
}

/// `SERVICE=ADDR`.
fn outbound(text: &str) -> Result<(ServiceId, SocketAddr), String> {
    let (service, address) = text.split_once('=').ok_or("expected SERVICE=IP:PORT")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not IP:PORT"))?;
    Ok((service_id(service)?, address))
}

/// `IP` or `IP:PORT`.
fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
    address.ok_or_else(|| "expected IP or IP:PORT".to_owned())
}

pub(crate) fn service_id(text: &str) -> Result<ServiceId, String> {
    ServiceId::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn label(text: &str) -> Result<Label, String> {
    Label::parse(text).map_err(|error| error.to_string())
}

/// `HOST:PORT`, not looked up yet.
pub(crate) fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT, such as 127.0.0.1:15010".to_owned()),
    }
}
