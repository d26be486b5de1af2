//! `leno proxy`: one sidecar or gateway, from a file or from a control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

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
        Err(Failure::failed("the proxy is not part of this build yet"))
    }
}

/// `SERVICE=ADDR`.
fn outbound(text: &str) -> Result<(leno_core::name::ServiceId, SocketAddr), String> {
    let (service, address) = text.split_once('=').ok_or("expected SERVICE=IP:PORT")?;
    let service =
        leno_core::name::ServiceId::parse(service).map_err(|error| format!("`{service}`: {error}"))?;
    let address = address.parse().map_err(|_| format!("`{address}` is not IP:PORT"))?;
    Ok((service, address))
}
