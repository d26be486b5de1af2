//! Proxies inside this process, so that what their workers ask of the allocator can be seen: one hop, or a pair with
//! mutual TLS between. Load and upstream are another process: see [`crate::load`].

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use leno_config::native;
use leno_proxy::{AccessLog, Bound, CaptureConfig, IdentitySource, ProxyConfig, Source};
use tempfile::TempDir;

use crate::load::Load;

/// What is between client and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A gateway: HTTP/1.1 on both sides.
    Plain,
    /// A caller's sidecar and a callee's.
    Pair,
    /// One proxy and a pair with gRPC on both sides.
    Grpc,
    GrpcPair,
    /// One sidecar and a pair that carry bytes they do not look into.
    Bulk,
    BulkPair,
    /// The same, with [`PEERS`] names for the callee's address, so that the caller dials it as often.
    ManyPeers,
}

impl Kind {
    /// The one upstream that speaks the same.
    pub(crate) fn upstreams(self, load: &Load) -> &[SocketAddr] {
        match self {
            Self::Plain | Self::Pair | Self::ManyPeers => load.upstreams.get(..1).unwrap_or(&[]),
            Self::Grpc | Self::GrpcPair => &load.grpc,
            Self::Bulk | Self::BulkPair => &load.bulk,
        }
    }

    /// The load's command that connects.
    pub(crate) fn open(self) -> &'static str {
        match self {
            Self::Plain | Self::Pair | Self::ManyPeers => "open",
            Self::Grpc | Self::GrpcPair => "open-grpc",
            Self::Bulk | Self::BulkPair => "open-bulk",
        }
    }
}

/// Connections with TLS between the two proxies of [`Kind::ManyPeers`].
pub(crate) const PEERS: usize = 200;

/// A mesh file for one of the two kinds, and the roles in it: the one that clients reach comes last.
pub(crate) struct Plan {
    folder: TempDir,
    pub(crate) roles: &'static [&'static str],
    /// Where requests enter.
    pub(crate) entry: SocketAddr,
    /// Where the callee listens when that is not what the file says.
    mesh_listen: Option<SocketAddr>,
}

impl Plan {
    pub(crate) fn new(kind: Kind, upstreams: &[SocketAddr]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let (entry, mesh) = (free_address()?, free_address()?);
        let first = upstreams.first().ok_or("no upstream")?;
        let protocol = match kind {
            Kind::Plain | Kind::Pair | Kind::ManyPeers => "",
            Kind::Grpc | Kind::GrpcPair => "    protocol: grpc\n",
            Kind::Bulk | Kind::BulkPair => "    protocol: tcp\n",
        };
        // Nothing calls the caller, so nothing listens on its port.
        let caller = format!(
            "  caller:
    calls: app
    health: none
    instances:
      - {{name: caller-1, port: 9, outbound: {{app: \"{entry}\"}}}}
"
        );
        let (roles, text) = match kind {
            Kind::Bulk => {
                let text = format!(
                    "mesh: guard\nservices:\n  app:\n{protocol}    endpoints: [\"{first}\"]\n{caller}"
                );
                (&["caller-1"][..], text)
            }
            Kind::Plain | Kind::Grpc => {
                let endpoints: Vec<String> =
                    upstreams.iter().map(|address| format!("\"{address}\"")).collect();
                let services =
                    format!("services:\n  app:\n{protocol}    endpoints: [{}]\n", endpoints.join(", "));
                let gateway = format!("gateway:\n  listen: \"{entry}\"\n  routes:\n    - to: app\n");
                (&["gateway"][..], format!("mesh: guard\n{gateway}{services}"))
            }
            Kind::Pair | Kind::ManyPeers | Kind::GrpcPair | Kind::BulkPair => {
                // 127.0.0.0/8 is one machine: all these are the callee that listens on every address.
                let others = (2..=PEERS).take_while(|_| kind == Kind::ManyPeers).map(|number| {
                    let port = mesh.port();
                    format!(
                        "\n      - {{name: app-{number}, port: {}, mesh: \"127.0.0.{number}:{port}\"}}",
                        1_000 + number
                    )
                });
                let others: String = others.collect();
                let text = format!(
                    "mesh: guard
services:
  app:
{protocol}    health: none
    balance: round-robin
    instances:
      - {{name: app-1, address: \"{first}\", mesh: \"{mesh}\"}}{others}
{caller}"
                );
                (&["app-1", "caller-1"][..], text)
            }
        };
        std::fs::write(folder.path().join(FILE), text).map_err(|error| error.to_string())?;
        let mesh_listen =
            (kind == Kind::ManyPeers).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, mesh.port())));
        Ok(Self { folder, roles, entry, mesh_listen })
    }

    /// The mesh file.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.folder.path().join(FILE)
    }

    /// Where the pair's authority is kept.
    pub(crate) fn identity(&self) -> std::path::PathBuf {
        self.folder.path().join("identity")
    }
}

/// Proxies that serve until this process ends.
pub(crate) struct Proxies {
    /// Where requests enter.
    pub(crate) entry: SocketAddr,
    /// The kernel's ids of the workers' threads, in the order of [`Plan::roles`].
    pub(crate) workers: Vec<u32>,
    _plan: Plan,
}

impl Proxies {
    /// With the load's upstream for what is spoken.
    pub(crate) fn before(kind: Kind, load: &Load) -> Result<Self, String> {
        Self::start(kind, kind.upstreams(load))
    }

    pub(crate) fn start(kind: Kind, upstreams: &[SocketAddr]) -> Result<Self, String> {
        let plan = Plan::new(kind, upstreams)?;
        let mut workers = Vec::new();
        for role in plan.roles {
            let before = worker_threads()?;
            start(&plan, role)?;
            workers.push(new_worker(&before).map_err(|error| format!("{role}: {error}"))?);
        }
        Ok(Self { entry: plan.entry, workers, _plan: plan })
    }
}

fn start(plan: &Plan, role: &str) -> Result<Bound, String> {
    let mesh = native::load(&plan.file()).map_err(|diagnostics| diagnostics.to_string())?;
    let config = ProxyConfig {
        own: leno_core::spec::Tags::NONE,
        dns_listen: None,
        capture: CaptureConfig::default(),
        dns_upstream: Vec::new(),
        source: Source::File {
            mesh: Box::new(mesh),
            role: role.to_owned(),
            identity: IdentitySource::SelfMade(plan.identity()),
        },
        mesh_listen: plan.mesh_listen.filter(|_| role == "app-1"),
        mesh_advertise: None,
        forward_listen: None,
        outbound: Vec::new(),
        admin_listen: None,
        workers: NonZeroUsize::new(1),
        access_log: AccessLog::Off,
        drain: Duration::from_secs(1),
    };
    let (tell, told) = mpsc::channel();
    let ready = tell.clone();
    std::thread::spawn(move || {
        let ended = leno_proxy::run(config, move |bound| drop(ready.send(Ok(bound.clone()))));
        let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        let _ = tell.send(Err(why));
    });
    told.recv_timeout(READY).map_err(|error| format!("{role} is not ready: {error}"))?
}

/// The worker thread that was not there before. It takes its name when it first runs, which may be after the proxy is ready.
fn new_worker(before: &BTreeSet<u32>) -> Result<u32, String> {
    let deadline = Instant::now() + READY;
    loop {
        let new: Vec<u32> = worker_threads()?.difference(before).copied().collect();
        match new[..] {
            [worker] => return Ok(worker),
            [] if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => return Err(format!("{} new workers, not 1", new.len())),
        }
    }
}

/// The kernel's ids of all threads that call themselves a worker.
fn worker_threads() -> Result<BTreeSet<u32>, String> {
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|error| error.to_string())?;
    let ids = tasks.flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    });
    Ok(ids.filter_map(|task| task.file_name().to_string_lossy().parse().ok()).collect())
}

/// A free address, from below the range of outgoing connections: it stays free until somebody asks for it. Processes
/// that run at once begin at different places.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61);
    for _ in 0..PORTS {
        let port = FIRST_PORT + start.wrapping_add(NEXT.fetch_add(1, Relaxed)) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap_or_default()));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}

/// Below what Linux gives to outgoing connections (32768), and above what our tests use.
const FIRST_PORT: u32 = 16_000;
const PORTS: u32 = 10_000;
const FILE: &str = "mesh.yaml";
/// How long a proxy may take to start; under an instrument it is fifty times slower than else.
const READY: Duration = Duration::from_secs(60);
