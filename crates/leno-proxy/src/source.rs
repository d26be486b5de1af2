//! Where a proxy's world and identity come from: a mesh file, or a control plane. Both end in the same channels.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use leno_core::name::ServiceId;
use leno_core::snapshot::LocalApp;
use leno_core::spec::World;
use leno_identity::credential::Credential;
use tokio::sync::watch;

pub(crate) mod control;
pub(crate) mod file;

/// What a proxy follows while it runs.
pub(crate) struct Feed {
    /// What it has been told.
    pub(crate) world: watch::Receiver<Arc<World>>,
    /// Who it is; `None` until there is a certificate.
    pub(crate) credential: watch::Receiver<Option<Arc<Credential>>>,
    /// Whom to ask for a service that is not in the world, and to tell when we leave.
    pub(crate) control: Option<crate::agent::AgentHandle>,
    /// Keeps the file source's channels open.
    pub(crate) _keep: Option<file::Keep>,
}

/// What a proxy is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The service, or the gateway, as its own name in logs and metrics.
    pub(crate) name: Arc<str>,
    /// The application beside, in a sidecar.
    pub(crate) app: Option<LocalApp>,
    /// True for a gateway.
    pub(crate) gateway: bool,
}

/// Where it listens besides what the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listens {
    pub(crate) mesh: Option<SocketAddr>,
    pub(crate) forward: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) outbound: Vec<(ServiceId, SocketAddr)>,
}

/// Why there is no world to start with.
#[derive(Debug)]
pub enum SourceError {
    /// No gateway or instance has this name; those that there are.
    NoSuchRole(String, Vec<String>),
    /// The role needs something that the file does not say.
    Incomplete(String),
    /// The certificates cannot be used.
    Identity(String),
    /// The control plane did not let us in, or did not answer in time.
    Control(String),
    /// A state directory or file cannot be used.
    State(PathBuf, String),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchRole(role, known) => {
                write!(
                    f,
                    "the mesh file has no gateway or instance called \"{role}\"; it has {}",
                    known.join(", ")
                )
            }
            Self::Incomplete(what) | Self::Identity(what) | Self::Control(what) => f.write_str(what),
            Self::State(path, what) => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for SourceError {}
