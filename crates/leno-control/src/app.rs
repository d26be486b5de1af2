//! Start, run, stop.
//!
//! Everything that can fail happens in [`Control::bind`]: the state is opened, the mesh file read, both addresses
//! bound. Then it serves. At the end: no new connections, streams told to end, the store closed.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use leno_config::native::MeshFile;
use leno_core::name::TrustDomain;
use leno_core::time::Duration;
use leno_identity::authority::Pin;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::Api;
use crate::clock::Clock;
use crate::error::ControlError;
use crate::mesh::Mesh;
use crate::registry::{Registry, Tokens};
use crate::serve::Serving;
use crate::source::file;
use crate::store::{Loaded, Store};
use crate::{authority, state_dir, stop};

/// How the control plane is to run.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where state is kept.
    pub state: StateDir,
    /// The mesh file that declares services and gateways.
    pub file: Option<PathBuf>,
    /// Whose ids the members of the mesh have. `None`: as the state or the mesh file says, else `leno.mesh`.
    pub trust_domain: Option<TrustDomain>,
    /// Where proxies connect; port 0: any free one.
    pub mesh_listen: SocketAddr,
    /// Where the JSON API listens; port 0: any free one.
    pub api_listen: SocketAddr,
    /// What a change through the API must bring along. `None`: the token in the state directory, made at first
    /// start; a random one for [`StateDir::Ephemeral`].
    pub api_token: Option<String>,
    /// How long an instance stays without a heartbeat.
    pub lease: Duration,
}

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDir {
    /// In this directory, made with mode 0700 if it is not there.
    Path(PathBuf),
    /// In memory: gone with the process.
    Ephemeral,
}

/// What was bound.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Where proxies connect.
    pub mesh: SocketAddr,
    /// Where the JSON API listens.
    pub api: SocketAddr,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// How proxies recognise this control plane.
    pub pin: Pin,
    /// What a change through the API must bring along. A secret.
    pub api_token: String,
}

/// A control plane that is bound and not yet serving.
pub struct Control {
    /// What was bound.
    bound: Bound,
    /// The state.
    mesh: Arc<Mesh>,
    /// For proxies.
    mesh_listener: TcpListener,
    /// For the JSON API.
    api_listener: TcpListener,
    /// The mesh file.
    watched: Option<file::Watched>,
    /// Ends when the store can fail no more.
    store: Store,
    /// The store's thread.
    store_thread: JoinHandle<()>,
}

impl ControlConfig {
    /// Kept in `state`, with every default: loopback, mesh port 15010, API port 15014, lease 10 s.
    pub fn new(state: StateDir) -> Self {
        let local = |port| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
        Self {
            state,
            file: None,
            trust_domain: None,
            mesh_listen: local(15010),
            api_listen: local(15014),
            api_token: None,
            lease: LEASE_DEFAULT,
        }
    }
}

/// Runs the control plane until SIGTERM or SIGINT; a second one ends the process at once. Blocks, with a runtime of its
/// own. `on_ready` is called when everything is bound and loaded.
///
/// # Errors
/// Why it cannot start, or why it cannot go on; each names the file or address.
pub fn run(config: ControlConfig, on_ready: impl FnOnce(&Bound)) -> Result<(), ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ControlError::System { what: "no runtime can be made", error })?;
    let result = runtime.block_on(async {
        let mut terminated = handler(SignalKind::terminate())?;
        let mut interrupted = handler(SignalKind::interrupt())?;
        let control = Control::bind(config).await?;
        on_ready(control.bound());
        let (stop, stopped) = stop::channel();
        tokio::spawn(async move {
            let mut told = false;
            loop {
                tokio::select! {
                    _ = terminated.recv() => {}
                    _ = interrupted.recv() => {}
                }
                if told {
                    tracing::warn!("second signal: ending at once");
                    std::process::exit(1);
                }
                told = true;
                stop.say();
            }
        });
        control.serve(async move { stopped.heard().await }).await
    });
    // Blocking reads of the mesh file may be under way; they hold nothing up.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_WITHIN);
    result
}

impl Control {
    /// Opens the state, reads the mesh file and binds both addresses.
    ///
    /// # Errors
    /// Whatever is wrong, named.
    pub async fn bind(config: ControlConfig) -> Result<Self, ControlError> {
        // Before anything is written: a mesh file with mistakes starts nothing.
        let file = match &config.file {
            Some(path) => Some((path, file::open(path).map_err(ControlError::File)?)),
            None => None,
        };
        let directory = match &config.state {
            StateDir::Path(path) => {
                state_dir::prepare(path)?;
                Some(path.as_path())
            }
            StateDir::Ephemeral => None,
        };
        let (store, loaded, store_thread) = Store::open(directory)?;
        match Self::assemble(&config, directory, file, store.clone(), loaded).await {
            Ok((bound, mesh, listeners, watched)) => {
                let (mesh_listener, api_listener) = listeners;
                Ok(Self { bound, mesh, mesh_listener, api_listener, watched, store, store_thread })
            }
            Err(error) => {
                close(store, store_thread).await;
                Err(error)
            }
        }
    }

    /// The rest of [`Control::bind`], with the store open.
    async fn assemble(
        config: &ControlConfig,
        directory: Option<&Path>,
        file: Option<(&PathBuf, (file::Watched, MeshFile))>,
        store: Store,
        mut loaded: Loaded,
    ) -> Result<(Bound, Arc<Mesh>, (TcpListener, TcpListener), Option<file::Watched>), ControlError> {
        let api_token = match (config.api_token.clone(), directory) {
            (Some(token), _) => token,
            (None, Some(directory)) => state_dir::api_token(directory)?,
            (None, None) => state_dir::random_token()?,
        };
        let clock = Clock::start();
        let asked = config.trust_domain.clone();
        let asked = asked.or_else(|| file.as_ref().map(|(_, (_, file))| file.trust_domain.clone()));
        let kept = loaded.authority.take();
        let authority = authority::open(&store, kept, asked, clock.unix()).await?;
        let trust_domain = authority.trust_domain().clone();
        let tokens = Tokens::restore(std::mem::take(&mut loaded.tokens));
        let registry = Registry::restore(trust_domain.clone(), config.lease, loaded, clock.now());
        let mesh = Arc::new(Mesh::new(clock, authority, store, registry, tokens));
        // Before anybody can subscribe: nobody may be told that a service is gone because it was not yet read.
        let watched = file.map(|(path, (watched, file))| {
            file::put_in_force(&mesh, path, file);
            watched
        });
        let (mesh_listener, mesh_address) = listen("mesh", config.mesh_listen).await?;
        let (api_listener, api_address) = listen("api", config.api_listen).await?;
        let bound = Bound { mesh: mesh_address, api: api_address, trust_domain, pin: mesh.pin(), api_token };
        Ok((bound, mesh, (mesh_listener, api_listener), watched))
    }

    /// What was bound.
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Serves until `stop` is done, then ends in order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ControlError> {
        let Self { bound, mesh, mesh_listener, api_listener, watched, store, store_thread } = self;
        let (stopping, told) = stop::channel();
        let serving = Serving::new(mesh.clone(), told.clone())?;
        let api = Api::new(mesh.clone(), bound.api_token.clone(), bound.api.ip().is_loopback());
        let mut listeners = tokio::task::JoinSet::new();
        listeners.spawn(serving.clone().accept(mesh_listener));
        listeners.spawn(api.accept(api_listener, told));
        let mut helpers = tokio::task::JoinSet::new();
        helpers.spawn(async move { serving.renew_own().await });
        let timekeeper = mesh.clone();
        helpers.spawn(async move { timekeeper.keep_time().await });
        if let Some(watched) = watched {
            helpers.spawn(watched.follow(mesh.clone()));
        }
        if !bound.api.ip().is_loopback() {
            tracing::warn!(api = %bound.api, "the API is plain HTTP and not on loopback: its token crosses the network");
        }
        tracing::info!(mesh = %bound.mesh, api = %bound.api, trust_domain = %bound.trust_domain, "serving");

        let result = tokio::select! {
            () = stop => Ok(()),
            error = store.failed() => {
                tracing::error!(%error, "the store failed; ending, since nothing can be promised any more");
                Err(error.into())
            }
        };
        tracing::info!("stopping: no new connections, streams told to end");
        stopping.say();
        while listeners.join_next().await.is_some() {}
        helpers.shutdown().await;
        drop(mesh);
        close(store, store_thread).await;
        tracing::info!("stopped");
        result
    }
}

/// Waits until the store's thread has ended and the file is closed, which is when the last handle is gone.
async fn close(store: Store, thread: JoinHandle<()>) {
    drop(store);
    let closed = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(STORE_CLOSE_WITHIN, closed).await.is_err() {
        tracing::warn!("the store is not closed yet; what was acknowledged is on disk");
    }
}

/// Binds an address.
async fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ControlError> {
    let failed = |error| ControlError::Listen { what, address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Listens for a signal.
fn handler(kind: SignalKind) -> Result<tokio::signal::unix::Signal, ControlError> {
    signal(kind).map_err(|error| ControlError::System { what: "signals cannot be handled", error })
}

/// Three heartbeats may be lost before an instance is.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// For the store's thread to end; what was acknowledged is on disk already.
const STORE_CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// For blocking work at the end.
const RUNTIME_SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);
