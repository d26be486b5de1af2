//! `leno proxy`: one sidecar or gateway, from a file or from a control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use leno_core::name::{Label, ServiceId};
use leno_proxy::config::{ADMIN_PORT_DEFAULT, FORWARD_PORT_DEFAULT, MESH_PORT_DEFAULT};
use leno_proxy::{AccessLog, Bound, IdentitySource, ProxyConfig, Source, Workload};

use crate::failure::Failure;

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
    /// With --file: a directory for self-made certificates [default: none are needed for a plain gateway].
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
    #[arg(long, value_name = "ADDR", requires = "becomes")]
    control: Option<SocketAddr>,
    /// With --control: a file with the join token [default: the variable LENO_TOKEN].
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    token_file: Option<PathBuf>,
    /// With --control: be the sidecar of an instance of this service.
    #[arg(long, value_name = "NAME", group = "becomes", conflicts_with = "file", requires_all = ["instance", "app"])]
    service: Option<String>,
    /// With --control: be this gateway.
    #[arg(long, value_name = "NAME", group = "becomes", conflicts_with = "file")]
    gateway: Option<String>,
    /// With --service: the instance's name, unique in the service.
    #[arg(long, value_name = "NAME", requires = "service")]
    instance: Option<String>,
    /// With --service: the instance's version.
    #[arg(long, value_name = "VERSION", requires = "service")]
    version: Option<String>,
    /// With --service: the instance's share beside the others; 0 takes no new requests.
    #[arg(long, value_name = "N", requires = "service", default_value_t = 1)]
    weight: u32,
    /// With --service: where the application listens.
    #[arg(long, value_name = "ADDR", requires = "service")]
    app: Option<SocketAddr>,

    /// Where other sidecars' requests are accepted [default: 127.0.0.1:15008].
    #[arg(long, value_name = "ADDR")]
    mesh_listen: Option<SocketAddr>,
    /// The address that other sidecars are told to use [default: where it listens].
    #[arg(long, value_name = "ADDR")]
    mesh_advertise: Option<SocketAddr>,
    /// Where the application's requests are accepted: its HTTP_PROXY [default: 127.0.0.1:15001].
    #[arg(long, value_name = "ADDR")]
    proxy_listen: Option<SocketAddr>,
    /// A local address from which requests go to one service; may be given several times.
    #[arg(long, value_name = "SERVICE=ADDR", value_parser = outbound)]
    outbound: Vec<(leno_core::name::ServiceId, SocketAddr)>,
    /// Where metrics, readiness and the configuration held are served [default: 127.0.0.1:15020].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// One JSON line per request: off, stdout, or a file's path.
    #[arg(long, value_name = "WHERE", default_value = "off")]
    access_log: String,
    /// For requests under way when told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain_seconds: u64,
    /// End when stdin does.
    #[arg(long, hide = true)]
    die_with_parent: bool,
}

impl ProxyArgs {
    /// Runs the proxy until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.die_with_parent {
            crate::parent::exit_at_stdin_eof();
        }
        let config = self.resolve()?;
        leno_proxy::run(config, |bound| {
            // A closed stdout: nobody waits for the line.
            let _ = crate::output::line(&ready(bound).to_string());
        })
        .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// What was typed, checked against the files that it names.
    fn resolve(self) -> Result<ProxyConfig, Failure> {
        let from_file = self.file.is_some();
        let gateway = self.gateway.is_some();
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A role in a file says itself where it listens; a sidecar started by hand has the usual ports.
        let usual = |port| (!from_file && !gateway).then(|| loopback(port));
        let workers = self.workers.and_then(|workers| NonZeroUsize::new(workers.into()));
        Ok(ProxyConfig {
            mesh_listen: self.mesh_listen.or_else(|| usual(MESH_PORT_DEFAULT)),
            mesh_advertise: self.mesh_advertise,
            forward_listen: self.proxy_listen.or_else(|| usual(FORWARD_PORT_DEFAULT)),
            outbound: self.outbound.clone(),
            admin_listen: self.admin.or_else(|| (!from_file).then(|| loopback(ADMIN_PORT_DEFAULT))),
            workers,
            access_log: match self.access_log.as_str() {
                "off" => AccessLog::Off,
                "stdout" => AccessLog::Stdout,
                path => AccessLog::File(path.into()),
            },
            drain: Duration::from_secs(self.drain_seconds),
            source: self.source()?,
        })
    }

    fn source(self) -> Result<Source, Failure> {
        if let Some(file) = self.file {
            let mesh = leno_config::native::load(&file).map_err(|diagnostics| {
                eprint!("{diagnostics}");
                Failure::Silent(crate::failure::INVALID)
            })?;
            let identity = match (self.identity, self.cert, self.key, self.roots) {
                (Some(dir), ..) => IdentitySource::SelfMade(dir),
                (None, Some(cert), Some(key), Some(roots)) => IdentitySource::Files { cert, key, roots },
                _ => IdentitySource::None,
            };
            let role = self.role.unwrap_or_default();
            return Ok(Source::File { mesh: Box::new(mesh), role, identity });
        }
        let address = self.control.map(|address| address.to_string()).unwrap_or_default();
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                Failure::failed(format!("the token file {} cannot be read: {error}", path.display()))
            })?,
            None => std::env::var("LENO_TOKEN").map_err(|_| {
                Failure::invalid("a join token is needed: give --token-file FILE or set LENO_TOKEN; `leno token create` makes one")
            })?,
        };
        let label = |what: &str, text: &str| {
            Label::parse(text).map_err(|error| Failure::invalid(format!("--{what} `{text}`: {error}")))
        };
        let workload = match (&self.service, &self.instance, self.app, &self.gateway) {
            (Some(service), Some(instance), Some(app), _) => Workload::Sidecar {
                service: ServiceId::parse(service)
                    .map_err(|error| Failure::invalid(format!("--service `{service}`: {error}")))?,
                instance: label("instance", instance)?,
                version: self.version.as_deref().map(|version| label("version", version)).transpose()?,
                weight: self.weight,
                app,
            },
            (.., Some(gateway)) => Workload::Gateway { name: label("gateway", gateway)? },
            _ => {
                return Err(Failure::invalid("--service with --instance and --app, or --gateway, is needed"));
            }
        };
        Ok(Source::Control { address, token: token.trim().to_owned(), workload })
    }
}

/// The line that says where everything listens.
fn ready(bound: &Bound) -> serde_json::Value {
    let mut line = serde_json::json!({ "event": "ready" });
    let places =
        [("mesh", bound.mesh), ("proxy", bound.forward), ("gateway", bound.gateway), ("admin", bound.admin)];
    for (name, address) in places {
        if let Some(address) = address {
            line[name] = address.to_string().into();
        }
    }
    if !bound.outbound.is_empty() {
        let ports =
            bound.outbound.iter().map(|(service, address)| (service.to_string(), address.to_string().into()));
        line["outbound"] = serde_json::Value::Object(ports.collect());
    }
    line
}

/// `SERVICE=ADDR`.
fn outbound(text: &str) -> Result<(leno_core::name::ServiceId, SocketAddr), String> {
    let (service, address) = text.split_once('=').ok_or("expected SERVICE=IP:PORT")?;
    let service =
        leno_core::name::ServiceId::parse(service).map_err(|error| format!("`{service}`: {error}"))?;
    let address = address.parse().map_err(|_| format!("`{address}` is not IP:PORT"))?;
    Ok((service, address))
}
