//! What a proxy process is told when it starts: resolved by the command line, never read from the environment here.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use leno_config::native::MeshFile;
use leno_core::name::{Label, ServiceId};
use leno_core::spec::Tags;

/// How long a stopping proxy waits for requests under way.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Where a sidecar accepts mesh traffic when nothing else is said.
pub const MESH_PORT_DEFAULT: u16 = 15008;
/// Where a workload finds its forward proxy when nothing else is said.
pub const FORWARD_PORT_DEFAULT: u16 = 15001;
/// Where the admin address is when nothing else is said.
pub const ADMIN_PORT_DEFAULT: u16 = 15020;
/// Where a workload's intercepted connections go when nothing else is said.
pub const CAPTURE_OUTBOUND_PORT_DEFAULT: u16 = 15011;
/// Where intercepted connections to an application go when nothing else is said (Istio's port for them).
pub const CAPTURE_INBOUND_PORT_DEFAULT: u16 = 15006;
/// Where a workload's questions for names go when nothing else is said (Istio's port for them).
pub const CAPTURE_DNS_PORT_DEFAULT: u16 = 15053;
/// The mark of a proxy's own sockets when nothing else is said: no other program's that we know of.
pub const CAPTURE_MARK_DEFAULT: u32 = 0x1e40;

/// Everything that one proxy process needs to start.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Where the world and the identity come from.
    pub source: Source,
    /// Where peers reach this sidecar; `None` in a gateway. Port 0: any free port.
    pub mesh_listen: Option<SocketAddr>,
    /// The address that the registry names for this sidecar, when it differs from the one bound.
    pub mesh_advertise: Option<SocketAddr>,
    /// Where the workload's `HTTP_PROXY` points to; `None`: no forward proxy.
    pub forward_listen: Option<SocketAddr>,
    /// A local port for each declared dependency.
    pub outbound: Vec<(ServiceId, SocketAddr)>,
    /// Where the workload's resolver listens, for datagrams and streams; `None`: nowhere, but for what `capture` says.
    pub dns_listen: Option<SocketAddr>,
    /// Who resolves names outside the mesh; empty: whom /etc/resolv.conf names.
    pub dns_upstream: Vec<SocketAddr>,
    /// The admin address; `None`: none.
    pub admin_listen: Option<SocketAddr>,
    /// Worker threads; `None`: one for each core that this process may use.
    pub workers: Option<NonZeroUsize>,
    /// Where one JSON line per request goes.
    pub access_log: AccessLog,
    /// How long a stopping proxy waits for requests under way.
    pub drain: Duration,
    /// What is intercepted, and how to let our own connections through.
    pub capture: CaptureConfig,
    /// Where this proxy and the application beside it are, and its labels; from a mesh file, what it says where this says nothing.
    pub own: Tags,
}

/// Interception of the connections of a workload that knows nothing of its sidecar. By default there is none.
#[derive(Clone, Debug, Default)]
pub struct CaptureConfig {
    /// Where the workload's own connections arrive, one address for each family. In the application's namespace, if it has one.
    pub outbound: Vec<SocketAddr>,
    /// Where connections to the application arrive that came from outside the mesh.
    pub inbound: Vec<SocketAddr>,
    /// Where the workload's questions for names arrive, by UDP and TCP. In the application's namespace, if it has one.
    pub dns: Vec<SocketAddr>,
    /// How connections to `inbound` were diverted.
    pub mode: CaptureMode,
    /// A link to the network namespace in which the application lives; `None`: it is ours. The application is then reached on
    /// whichever address in it listens on its port.
    pub app_namespace: Option<PathBuf>,
    /// `SO_MARK` of every socket that we connect, so that capture's rules let it through. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
}

/// How a connection was diverted to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// Its destination was replaced; connection tracking remembers which it was.
    #[default]
    Redirect,
    /// Nothing was replaced (TPROXY): the local address is the destination. Needs CAP_NET_ADMIN.
    Tproxy,
}

/// Where a proxy's world and identity come from.
#[derive(Debug)]
pub enum Source {
    /// A control plane.
    Control {
        /// `host:port` of its mesh listener.
        address: String,
        /// Proves who this proxy may become.
        token: String,
        /// What it is.
        workload: Workload,
    },
    /// A mesh file and nothing else.
    File {
        /// The file, checked.
        mesh: Box<MeshFile>,
        /// A gateway's name, or an instance's.
        role: String,
        /// Where certificates come from.
        identity: IdentitySource,
    },
}

/// What a proxy under a control plane is.
#[derive(Clone, Debug)]
pub enum Workload {
    /// The sidecar of one instance.
    Sidecar {
        /// The service it is an instance of.
        service: ServiceId,
        /// The instance's name, unique in the service.
        instance: Label,
        /// Its version, if it has one.
        version: Option<Label>,
        /// Its share beside the others.
        weight: u32,
        /// Where the application listens.
        app: SocketAddr,
    },
    /// A gateway of this name.
    Gateway {
        /// As in the mesh file.
        name: Label,
    },
}

/// Where a proxy without a control plane gets its certificates.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// No identity: every endpoint is plain.
    None,
    /// An authority kept in this directory, made on first use, shared by every proxy that can read it.
    SelfMade(PathBuf),
    /// PEM files.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The leaf's key, PKCS#8.
        key: PathBuf,
        /// The trust roots.
        roots: PathBuf,
    },
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// The addresses that a proxy has bound, once everything is ready.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Where peers reach it.
    pub mesh: Option<SocketAddr>,
    /// The forward proxy.
    pub forward: Option<SocketAddr>,
    /// The first of the gateway's listeners.
    pub gateway: Option<SocketAddr>,
    /// Each of the gateway's listeners, by name.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The admin address.
    pub admin: Option<SocketAddr>,
    /// The local port of each dependency.
    pub outbound: Vec<(ServiceId, SocketAddr)>,
    /// Where the workload's intercepted connections arrive.
    pub captured: Vec<SocketAddr>,
    /// Where intercepted connections to the application arrive.
    pub captured_inbound: Vec<SocketAddr>,
    /// The workload's resolver.
    pub dns: Vec<SocketAddr>,
}
