//! One proxy process: bind first, run later, drain at the end.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use leno_core::backend::Ledgers;
use leno_core::name::ServiceId;
use leno_core::rate::RateBook;
use leno_core::snapshot::{LocalApp, Snapshot};
use leno_core::spec::{GatewaySpec, World};
use leno_core::vip::Vips;
use leno_identity::credential::Credential;
use leno_identity::ingress::IngressError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::access_log;
use crate::admin::{self, Admin};
use crate::caller::Caller;
use crate::capture;
use crate::clock::Clock;
use crate::config::{Bound, ProxyConfig, Source};
use crate::dial::Dialer;
use crate::dns::{self, Clients};
use crate::gateway::certificates;
use crate::listen::{Listener, Purpose, bind};
use crate::names;
use crate::netns::APP_V4;
use crate::outside::SystemRoots;
use crate::quota;
use crate::source::{self, Feed, Listens, SourceError};
use crate::tls::TlsState;
use crate::worker::thread::{WorkerHandle, start};
use crate::worker::{Order, Seat, Spent};

/// Services that may be asked for at a time.
const DEMANDS_MAX: usize = 256;
/// How long the first world and certificate may take.
const FIRST_WORLD: Duration = Duration::from_secs(15);

/// Why a proxy could not start.
#[derive(Debug)]
pub enum ProxyError {
    /// An address cannot be bound: which, for what.
    Bind(&'static str, SocketAddr, io::Error),
    /// The application's network namespace cannot be entered.
    Namespace(io::Error),
    /// Connections cannot be marked, or not be made inside the application's namespace.
    Capture(io::Error),
    /// There is no world to start with.
    Source(SourceError),
    /// The access log cannot be opened.
    AccessLog(io::Error),
    /// The certificates of a gateway cannot be used.
    Certificates(IngressError),
    /// The operating system refused something else.
    System(io::Error),
    /// This worker's thread is over though nobody told it to end: a fault of ours.
    Worker(usize),
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(what, address, error) => {
                write!(f, "the {what} address {address} cannot be used: {error}")
            }
            Self::Namespace(error) => {
                write!(
                    f,
                    "the application's network namespace cannot be entered: {error}; that needs CAP_SYS_ADMIN"
                )
            }
            Self::Capture(error) => write!(
                f,
                "connections cannot be made in the way that capture needs: {error}; a mark needs CAP_NET_ADMIN, another network namespace CAP_SYS_ADMIN"
            ),
            Self::Source(error) => error.fmt(f),
            Self::Certificates(error) => write!(f, "the gateway's certificates cannot be used: {error}"),
            Self::AccessLog(error) => write!(f, "the access log cannot be opened: {error}"),
            Self::System(error) => write!(f, "the operating system refused to start the proxy: {error}"),
            Self::Worker(number) => {
                write!(f, "worker {number} has ended unexpectedly; this is a fault of Leno")
            }
        }
    }
}

impl std::error::Error for ProxyError {}

impl From<SourceError> for ProxyError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// Runs a proxy until SIGTERM or SIGINT, then drains it. `on_ready` is called once, when every listener answers.
/// A second signal ends it at once.
pub fn run(config: ProxyConfig, on_ready: impl FnOnce(&Bound)) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ProxyError::System)?;
    let result = runtime.block_on(serve(config, on_ready));
    // Tasks that still wait for the control plane are not worth a second.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve(config: ProxyConfig, on_ready: impl FnOnce(&Bound)) -> Result<(), ProxyError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ProxyError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProxyError::System)?;
    tokio::select! {
        started = start_up(config, on_ready) => {
            let mut running = started?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                // Its listeners are gone: whoever watches this process can do better than a proxy that serves by halves.
                Some(number) = running.ended.recv() => return Err(ProxyError::Worker(number)),
            }
            running.shut_down(&mut terminate, &mut interrupt).await;
            Ok(())
        }
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// A proxy that serves.
struct Running {
    workers: Vec<WorkerHandle>,
    /// Numbers of workers whose threads are over.
    ended: mpsc::UnboundedReceiver<usize>,
    ready: watch::Sender<bool>,
    control: Option<crate::agent::AgentHandle>,
    log_writer: Option<std::thread::JoinHandle<()>>,
    drain: Duration,
    seat: Seat,
}

/// Takes all descriptors that the process may have: a connection needs two, and the usual soft limit of 1,024 is made for
/// programs that still use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves what there was; accepting then fails with a reason of its own.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn start_up(config: ProxyConfig, on_ready: impl FnOnce(&Bound)) -> Result<Running, ProxyError> {
    raise_descriptor_limit();
    let namespace = capture::namespace(&config.capture)?;
    let dialer = Dialer::new(config.capture.mark, namespace.as_ref()).map_err(ProxyError::Capture)?;
    let clock = Clock::start();
    let count = workers(config.workers);
    let mut listeners = Vec::new();
    let mut listens = Listens {
        mesh: config.mesh_listen,
        forward: config.forward_listen,
        admin: config.admin_listen,
        outbound: config.outbound.clone(),
    };
    let (feed, mut own) = match &config.source {
        Source::File { mesh, role, identity } => {
            let (feed, own, from_file) = source::file::open(mesh, role, identity, &config.own)?;
            listens.mesh = listens.mesh.or(from_file.mesh);
            listens.forward = listens.forward.or(from_file.forward);
            listens.admin = listens.admin.or(from_file.admin);
            for (service, address) in from_file.outbound {
                if !listens.outbound.iter().any(|(known, _)| *known == service) {
                    listens.outbound.push((service, address));
                }
            }
            if let Some(address) = listens.mesh {
                listeners.push(bound("mesh", Purpose::Mesh, address, count)?);
            }
            (feed, own)
        }
        Source::Control { address, token, workload } => {
            // The registry is told where peers reach us, so that address comes first.
            let mesh = match listens.mesh {
                Some(address) => {
                    let listener = bound("mesh", Purpose::Mesh, address, count)?;
                    let at = config.mesh_advertise.unwrap_or(listener.address);
                    listeners.push(listener);
                    Some(at)
                }
                None => None,
            };
            let workload = capture::placed(workload, namespace.as_ref());
            source::control::open(address, token, &workload, mesh, dialer.clone(), &config.own)?
        }
    };
    if let Some(app) = own.app.as_mut().filter(|_| namespace.is_some()) {
        app.address.set_ip(APP_V4.into());
    }
    first_world(&feed).await?;

    let gateway = feed.world.borrow().gateway.clone().filter(|_| own.gateway);
    let terminations = match &gateway {
        Some(_) => certificates::follow(feed.world.clone()).map_err(ProxyError::Certificates)?,
        None => watch::channel(Arc::default()).1,
    };
    for listener in gateway.iter().flat_map(|gateway| &gateway.listeners) {
        listeners.push(bound("gateway", Purpose::Gateway(listener.name.clone()), listener.listen, count)?);
    }
    if let Some(gateway) = gateway {
        tokio::spawn(watch_listeners(gateway, feed.world.clone()));
    }
    // What the workload is told must be reachable from where it lives.
    let place = namespace.as_ref();
    let via = feed.world.borrow().egress.via.clone();
    let identity = feed.credential.borrow().as_ref().map(|credential| credential.id.clone());
    if let Some(via) = via.filter(|via| own.gateway && identity.as_ref() == Some(&via.identity)) {
        listeners.push(bound("egress", Purpose::Mesh, via.address, count)?);
    }
    if let Some(address) = listens.forward {
        listeners.push(capture::bind_one(
            place,
            "forward proxy",
            Purpose::Http(Caller::Forward),
            address,
            count,
        )?);
    }
    for (service, address) in listens.outbound {
        let authority = host_of(&service);
        let purpose = Purpose::Http(Caller::Dependency { service, authority });
        listeners.push(capture::bind_one(place, "dependency", purpose, address, count)?);
    }
    listeners.extend(capture::bind(&config.capture, place, count)?);
    let admin = match listens.admin {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|error| ProxyError::Bind("admin", address, error))?)
        }
        None => None,
    };
    let dns = capture::bind_dns(config.dns_listen.iter().chain(&config.capture.dns), place)?;
    let mut addresses = addresses(&listeners, admin.as_ref());
    addresses.dns = dns.iter().filter_map(|sockets| sockets.address().ok()).collect();

    let (log, log_writer) = access_log::open(&config.access_log).map_err(ProxyError::AccessLog)?;
    let book = RateBook::new(secret_seed().map_err(ProxyError::System)?, feed.control.is_some());
    let snapshot = follow_world(names::follow(feed.world.clone()).await, own.app.clone(), book);
    if let Some(control) = &feed.control {
        tokio::spawn(quota::follow(clock, snapshot.clone(), control.clone()));
    }
    let tls = follow_credential(feed.credential.clone());
    let (demand, demands) = mpsc::channel(DEMANDS_MAX);
    tokio::spawn(follow_demand(demands, feed.control.clone()));
    let takes = listeners.iter().filter(|listener| !matches!(listener.purpose, Purpose::Mesh));
    let seat = Seat {
        clock,
        snapshot,
        tls,
        terminations,
        demand,
        log,
        dialer,
        app_port: own.app.as_ref().map(|app| app.address.port()),
        own_name: own.name.clone(),
        own_addresses: takes.map(|listener| listener.address).collect(),
        system_roots: SystemRoots::default(),
        spent: Spent::default(),
        door: Arc::default(),
    };
    let mut workers = Vec::with_capacity(count);
    let (tell_ended, ended) = mpsc::unbounded_channel();
    for number in 0..count {
        let share = listeners
            .iter_mut()
            .filter_map(|listener| Some((listener.purpose.clone(), listener.sockets.pop()?)));
        let worker = start(seat.clone(), number, share.collect(), tell_ended.clone());
        workers.push(worker.map_err(ProxyError::System)?);
    }
    let (ready, is_ready) = watch::channel(true);
    let dns = match dns.is_empty() {
        false => {
            let settings = dns::Settings {
                clock,
                snapshot: seat.snapshot.clone(),
                control: feed.control.clone(),
                namespace: own.app.as_ref().map(|app| app.service.namespace.clone()),
                upstream: config.dns_upstream,
                clients: if namespace.is_some() { Clients::Everybody } else { Clients::ThisHost },
                dialer: seat.dialer.clone(),
            };
            Some(dns::start(dns, settings).map_err(ProxyError::System)?)
        }
        true => None,
    };
    if let Some(listener) = admin {
        let admin = Admin {
            workers: workers.iter().map(|worker| worker.orders.clone()).collect(),
            snapshot: seat.snapshot.clone(),
            ready: is_ready,
            name: own.name.clone(),
            capture: capture::to_json(&addresses, config.capture.mark).into(),
            door: seat.door.clone(),
            dns,
            control: feed.control.as_ref().map(crate::agent::AgentHandle::status),
        };
        tokio::spawn(admin::serve(listener, admin));
    }
    tracing::info!(name = &*own.name, workers = count, ?addresses, "the proxy is ready");
    on_ready(&addresses);
    Ok(Running { workers, ended, ready, control: feed.control, log_writer, drain: config.drain, seat })
}

impl Running {
    /// Readiness off, peers and registry told, listeners stopped, what is under way finished or cut at the deadline.
    async fn shut_down(self, terminate: &mut Signal, interrupt: &mut Signal) {
        let _ = self.ready.send(false);
        let drained = async {
            if let Some(control) = &self.control {
                control.leave().await;
            }
            let mut answers = Vec::new();
            for worker in &self.workers {
                let (answer, answered) = oneshot::channel();
                if worker.orders.send(Order::Drain(answer)).await.is_ok() {
                    answers.push(answered);
                }
            }
            for answer in answers {
                let _ = answer.await;
            }
        };
        tokio::select! {
            () = drained => tracing::info!("drained: nothing is under way any more"),
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!(seconds = self.drain.as_secs(), "the drain deadline passed; what is under way is cut");
            }
            _ = terminate.recv() => tracing::warn!("a second signal: stopping at once"),
            _ = interrupt.recv() => tracing::warn!("a second signal: stopping at once"),
        }
        let Self { workers, seat, log_writer, .. } = self;
        for WorkerHandle { orders, thread } in workers {
            // A worker that cannot be told has ended already.
            let _ = orders.send(Order::Stop).await;
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
        drop(seat);
        if let Some(writer) = log_writer {
            let _ = writer.join();
        }
    }
}

/// Waits until there is something to decide by, and a certificate where one is needed.
async fn first_world(feed: &Feed) -> Result<(), ProxyError> {
    let Some(control) = &feed.control else { return Ok(()) };
    let why = match tokio::time::timeout(FIRST_WORLD, control.ready()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(_) => match control.last_error() {
            none if none.is_empty() => "it did not answer in time".to_owned(),
            why => why,
        },
    };
    Err(SourceError::Control(format!("the control plane did not let this proxy start: {why}")).into())
}

fn bound(
    what: &'static str,
    purpose: Purpose,
    address: SocketAddr,
    workers: usize,
) -> Result<Listener, ProxyError> {
    bind(purpose, address, workers).map_err(|error| ProxyError::Bind(what, address, error))
}

fn addresses(listeners: &[Listener], admin: Option<&TcpListener>) -> Bound {
    let mut bound = Bound { admin: admin.and_then(|admin| admin.local_addr().ok()), ..Bound::default() };
    for Listener { purpose, address, .. } in listeners {
        match purpose {
            Purpose::Mesh => bound.mesh = Some(*address),
            Purpose::Http(Caller::Forward) => bound.forward = Some(*address),
            Purpose::Gateway(name) => {
                bound.gateway = bound.gateway.or(Some(*address));
                bound.listeners.push((name.to_string(), *address));
            }
            Purpose::Http(Caller::Dependency { service, .. }) => {
                bound.outbound.push((service.clone(), *address));
            }
            Purpose::Captured => bound.captured.push(*address),
            Purpose::CapturedInbound(_) => bound.captured_inbound.push(*address),
            Purpose::Http(
                Caller::Gateway(_)
                | Caller::Passage { .. }
                | Caller::Inbound { .. }
                | Caller::Mirror { .. }
                | Caller::Captured { .. },
            ) => {}
        }
    }
    bound
}

/// Says when the configuration has listeners at other addresses than the ones that were bound at the start.
async fn watch_listeners(bound: GatewaySpec, mut world: watch::Receiver<Arc<World>>) {
    let addresses = |gateway: &GatewaySpec| -> Vec<(Arc<str>, SocketAddr)> {
        gateway.listeners.iter().map(|listener| (listener.name.clone(), listener.listen)).collect()
    };
    let mut said = addresses(&bound);
    while world.changed().await.is_ok() {
        let now = world.borrow_and_update().gateway.as_ref().map(addresses);
        if let Some(now) = now.filter(|now| *now != said) {
            tracing::warn!(
                "the gateway's listeners have changed; their addresses are taken when the proxy starts again"
            );
            said = now;
        }
    }
}

/// The host name by which requests on a dependency's port call it: the `/` of its own name has no place in one.
fn host_of(service: &ServiceId) -> Arc<str> {
    if service.in_default_namespace() {
        service.name.to_string().into()
    } else {
        format!("{}.{}", service.name, service.namespace).into()
    }
}

fn workers(wanted: Option<NonZeroUsize>) -> usize {
    wanted.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Builds a snapshot for each world, beside the workers.
fn follow_world(
    mut world: watch::Receiver<Arc<World>>,
    app: Option<LocalApp>,
    rates: RateBook,
) -> watch::Receiver<Arc<Snapshot>> {
    let first = world.borrow_and_update().clone();
    // Names keep their addresses as long as the process lives; this is the only writer.
    let (mut vips, mut ledgers) = (Vips::new(), Ledgers::new(rates));
    let mut build =
        move |world: &World| Arc::new(Snapshot::build_with(world, app.as_ref(), &mut vips, &mut ledgers));
    let (sender, receiver) = watch::channel(build(&first));
    tokio::spawn(async move {
        while world.changed().await.is_ok() {
            let next = world.borrow_and_update().clone();
            if sender.send(build(&next)).is_err() {
                return;
            }
        }
        // Without a source the last snapshot serves on.
        sender.closed().await;
    });
    receiver
}

/// What nobody outside knows, for tables whose keys come from clients.
fn secret_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Makes TLS configurations of each credential.
fn follow_credential(
    mut credential: watch::Receiver<Option<Arc<Credential>>>,
) -> watch::Receiver<Option<Arc<TlsState>>> {
    let first = credential.borrow_and_update().clone();
    let (sender, receiver) = watch::channel(first.and_then(tls_state));
    tokio::spawn(async move {
        while credential.changed().await.is_ok() {
            let next = credential.borrow_and_update().clone();
            if let Some(state) = next.and_then(tls_state)
                && sender.send(Some(state)).is_err()
            {
                return;
            }
        }
        sender.closed().await;
    });
    receiver
}

fn tls_state(credential: Arc<Credential>) -> Option<Arc<TlsState>> {
    match TlsState::new(credential) {
        Ok(state) => Some(Arc::new(state)),
        Err(error) => {
            tracing::error!(%error, "a certificate cannot be used; the one before stays in use");
            None
        }
    }
}

/// Passes on what requests ask for.
async fn follow_demand(mut demands: mpsc::Receiver<ServiceId>, control: Option<crate::agent::AgentHandle>) {
    while let Some(service) = demands.recv().await {
        if let Some(control) = &control {
            control.subscribe(service);
        }
    }
}
