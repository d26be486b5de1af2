//! One worker: a thread with a single-threaded runtime that owns its listeners, connections, pools and live backend
//! state. Nothing here is shared between workers but the snapshot (immutable), the credential, the log's queue, the time
//! at which a budget of retries was last used up, and the gate before the application.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leno_core::backend::Backends;
use leno_core::detect::{Detected, Port, Verdicts};
use leno_core::http1::Limits;
use leno_core::name::ServiceId;
use leno_core::rng::Rng;
use leno_core::route::{Expected, ListId};
use leno_core::snapshot::Snapshot;
use leno_core::time::Instant;
use leno_identity::ingress::Termination;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::access_log::Log;
use crate::buffer::Stock;
use crate::caller::Caller;
use crate::clock::{Clock, seed};
use crate::dial::Dialer;
use crate::door::Door;
use crate::gateway::certificates::Terminations;
use crate::h1::client::Pools as H1Pools;
use crate::h2;
use crate::io::Stream;
use crate::mux::Buffers;
use crate::mux::accept::Desks;
use crate::mux::pool::Pools as MuxPools;
use crate::names::Lookups;
use crate::outside::{Configs, SystemRoots};
use crate::sys;
use crate::telemetry::{Direction, PAIRS_MAX, PairId, Telemetry};
use crate::tls::TlsState;

pub(crate) mod thread;

/// Connections that one worker accepts at a time, over all listeners. Each costs some KiB while it is active.
pub(crate) const CONNECTIONS_MAX: usize = 50_000;

/// With fewer connections at a time than this a burst is not worth the search for memory to give back, which takes milliseconds.
const BURST_CONNECTIONS: usize = 1_000;

/// What every worker gets when it starts.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// The process's clock.
    pub(crate) clock: Clock,
    /// What to decide by; changes are swapped in whole.
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What to speak TLS with; `None` until there is a certificate.
    pub(crate) tls: watch::Receiver<Option<Arc<TlsState>>>,
    /// What a gateway's listeners speak TLS with.
    pub(crate) terminations: watch::Receiver<Arc<Terminations>>,
    /// Services that a request named and the snapshot does not know.
    pub(crate) demand: mpsc::Sender<ServiceId>,
    /// One line per request.
    pub(crate) log: Log,
    /// Makes connections.
    pub(crate) dialer: Dialer,
    /// The port of the application beside.
    pub(crate) app_port: Option<u16>,
    /// Who this proxy is, as the `source` of what leaves it and the `destination` of what enters.
    pub(crate) own_name: Arc<str>,
    /// Listeners that take what is to be sent on, so that nothing is ever sent to ourselves.
    pub(crate) own_addresses: Arc<[SocketAddr]>,
    /// The authorities that the machine trusts.
    pub(crate) system_roots: SystemRoots,
    /// When a budget of retries was used up.
    pub(crate) spent: Spent,
    /// The gate before the application beside.
    pub(crate) door: Arc<Door>,
}

/// When a budget of retries of any worker was last used up: what the application beside calls comes by another worker than
/// what calls it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent(Arc<AtomicU64>);

impl Spent {
    /// A retry was denied.
    pub(crate) fn note(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// When that was last.
    pub(crate) fn last(&self) -> Option<Instant> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos > 0).then(|| Instant::from_nanos(nanos))
    }
}

/// What the main thread asks of a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Hand out a copy of the counters.
    Scrape(oneshot::Sender<Telemetry>),
    /// Hand out the live state of the backends, as JSON lines.
    Backends(oneshot::Sender<Vec<EndpointView>>),
    /// Stop accepting, finish what is under way. Answered when nothing is left.
    Drain(oneshot::Sender<()>),
    /// End the thread; what is still under way is cut.
    Stop,
}

/// An endpoint as one worker sees it, for the admin address.
#[derive(Clone, Debug)]
pub(crate) struct EndpointView {
    /// The backend's name.
    pub(crate) backend: String,
    /// The endpoint's name.
    pub(crate) endpoint: String,
    /// Requests under way.
    pub(crate) in_flight: u32,
    /// It could not be reached lately, or failed more than its peers, and is left alone.
    pub(crate) cooling: bool,
    /// The second of the two.
    pub(crate) ejected: bool,
}

/// The state of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) clock: Clock,
    /// When the current turn began, once somebody has asked.
    turn: Cell<Option<Instant>>,
    pub(crate) stock: Stock,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    pub(crate) own_name: Arc<str>,
    pub(crate) dialer: Dialer,
    pub(crate) app_port: Option<u16>,
    pub(crate) own_addresses: Arc<[SocketAddr]>,
    pub(crate) system_roots: SystemRoots,
    /// Names outside the mesh that were looked up.
    pub(crate) lookups: RefCell<Lookups>,
    /// TLS with servers outside the mesh.
    pub(crate) outside: RefCell<Configs>,
    #[allow(
        clippy::redundant_allocation,
        reason = "each request takes a reference: the inner count is shared by all workers, the outer one is ours"
    )]
    snapshot: RefCell<Rc<Arc<Snapshot>>>,
    backends: RefCell<Backends>,
    rng: RefCell<Rng>,
    telemetry: RefCell<Telemetry>,
    /// The counters of each list of the current snapshot, filled at first use.
    outbound_pairs: RefCell<Vec<Option<PairId>>>,
    tls: RefCell<Option<Arc<TlsState>>>,
    terminations: watch::Receiver<Arc<Terminations>>,
    /// Connections at a gateway that are not let in yet.
    pub(crate) entering: Cell<usize>,
    demand: mpsc::Sender<ServiceId>,
    /// Rings when a snapshot was adopted.
    adopted: Notify,
    /// Requests that wait for a place under a limit of their service, and what rings when one may be free.
    pub(crate) waiting: Cell<usize>,
    pub(crate) room: Notify,
    pub(crate) h1_pools: RefCell<H1Pools>,
    pub(crate) spent: Spent,
    pub(crate) door: Arc<Door>,
    /// Bytes of request bodies that are kept to be sent again; see [`crate::drive`].
    pub(crate) kept_bytes: Cell<usize>,
    pub(crate) mux_pools: RefCell<MuxPools>,
    pub(crate) desks: RefCell<Desks>,
    pub(crate) h2_pools: RefCell<h2::client::Pools>,
    pub(crate) h2_desks: RefCell<h2::Desks>,
    pub(crate) h2_heads: RefCell<h2::Heads>,
    pub(crate) mux_buffers: Buffers,
    /// What was found out about ports on which anything may be spoken.
    pub(crate) verdicts: RefCell<Verdicts>,
    /// Client connections by number, so that a drain can end the idle ones.
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// Clients' connections that are not quiet, and the most there were since memory was last given back.
    active: Cell<usize>,
    most_active: Cell<usize>,
    /// Exchanges under way.
    under_way: Cell<usize>,
    /// Of them, copies of requests.
    pub(crate) mirrors_under_way: Cell<usize>,
    /// Requests that are delayed on purpose.
    pub(crate) delayed: Cell<usize>,
    /// Bytes of bodies that are held for copies.
    pub(crate) copied_bytes: Rc<Cell<usize>>,
    draining: Cell<bool>,
    /// Rings when a drain begins, and when something ended during one.
    pub(crate) drain: Notify,
}

/// A client's connection, as a drain sees it.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Rc<Stream>,
    /// Waiting for a request: it may be closed without harm.
    pub(crate) idle: Cell<bool>,
}

impl Client {
    /// The connection.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Worker {
    pub(crate) fn new(seat: &Seat, number: u64) -> Rc<Self> {
        let snapshot = seat.snapshot.borrow().clone();
        let worker = Rc::new(Self {
            clock: seat.clock,
            turn: Cell::new(None),
            stock: Stock::default(),
            limits: Limits::default(),
            log: seat.log.clone(),
            own_name: seat.own_name.clone(),
            dialer: seat.dialer.clone(),
            app_port: seat.app_port,
            own_addresses: seat.own_addresses.clone(),
            system_roots: seat.system_roots.clone(),
            lookups: RefCell::default(),
            outside: RefCell::default(),
            snapshot: RefCell::new(Rc::new(snapshot.clone())),
            backends: RefCell::default(),
            rng: RefCell::new(Rng::new(seed(number))),
            telemetry: RefCell::default(),
            outbound_pairs: RefCell::default(),
            tls: RefCell::new(seat.tls.borrow().clone()),
            terminations: seat.terminations.clone(),
            entering: Cell::new(0),
            demand: seat.demand.clone(),
            adopted: Notify::new(),
            waiting: Cell::new(0),
            room: Notify::new(),
            h1_pools: RefCell::default(),
            spent: seat.spent.clone(),
            door: seat.door.clone(),
            kept_bytes: Cell::new(0),
            mux_pools: RefCell::default(),
            desks: RefCell::default(),
            h2_pools: RefCell::default(),
            h2_desks: RefCell::default(),
            h2_heads: RefCell::default(),
            mux_buffers: Buffers::default(),
            verdicts: RefCell::default(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            active: Cell::new(0),
            most_active: Cell::new(0),
            under_way: Cell::new(0),
            mirrors_under_way: Cell::new(0),
            delayed: Cell::new(0),
            copied_bytes: Rc::default(),
            draining: Cell::new(false),
            drain: Notify::new(),
        });
        worker.adopt(snapshot);
        worker
    }

    /// The time of the current turn of a task made by [`Worker::spawn`]: the clock is read once in a turn, and only
    /// when somebody asks.
    pub(crate) fn now(&self) -> Instant {
        self.turn.get().unwrap_or_else(|| {
            let now = self.clock.now();
            self.turn.set(Some(now));
            now
        })
    }

    /// Runs a task on this worker. `make` makes its future in its place: a future that is moved is copied.
    pub(crate) fn spawn<F>(self: &Rc<Self>, make: impl FnOnce(Rc<Self>) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let mut task = pin!(make(worker.clone()));
            std::future::poll_fn(|cx| {
                worker.turn.set(None);
                task.as_mut().poll(cx)
            })
            .await;
        });
    }

    #[allow(clippy::redundant_allocation, reason = "see the field")]
    /// The snapshot to decide by; a request keeps the one that it began with.
    pub(crate) fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    pub(crate) fn backends(&self) -> RefMut<'_, Backends> {
        self.backends.borrow_mut()
    }

    pub(crate) fn rng(&self) -> RefMut<'_, Rng> {
        self.rng.borrow_mut()
    }

    pub(crate) fn telemetry(&self) -> RefMut<'_, Telemetry> {
        self.telemetry.borrow_mut()
    }

    pub(crate) fn tls(&self) -> Ref<'_, Option<Arc<TlsState>>> {
        self.tls.borrow()
    }

    /// What a gateway's listener speaks TLS with now.
    pub(crate) fn termination(&self, listener: &str) -> Option<Arc<Termination>> {
        self.terminations.borrow().get(listener).cloned()
    }

    /// The counters for requests that leave through a list of the current snapshot.
    pub(crate) fn outbound_pair(&self, snapshot: &Snapshot, list: ListId) -> PairId {
        // Two snapshots may be of one generation; only the same one has the same lists.
        let current = std::ptr::eq(&***self.snapshot.borrow(), snapshot);
        let mut known = self.outbound_pairs.borrow_mut();
        if let Some(Some(pair)) = known.get(list.0 as usize).filter(|_| current) {
            return *pair;
        }
        let destination = match snapshot.list_name(list) {
            "" => "unknown".into(),
            name => Arc::from(name),
        };
        let pair = self.telemetry().pair(Direction::Outbound, &self.own_name, &destination);
        if let Some(slot) = known.get_mut(list.0 as usize).filter(|_| current) {
            *slot = Some(pair);
        }
        pair
    }

    /// The counters for what leaves the mesh for `source`.
    pub(crate) fn outside_pair(&self, source: &Arc<str>) -> PairId {
        self.telemetry().pair(Direction::Outbound, source, &"outside".into())
    }

    /// The service or gateway that this proxy is: what its certificate says, or its name where it needs none.
    pub(crate) fn own_service(&self) -> Option<ServiceId> {
        match &*self.tls.borrow() {
            Some(tls) => Some(tls.credential.id.service.clone()),
            None => ServiceId::parse(&self.own_name).ok(),
        }
    }

    /// Swaps the snapshot in and lets the backends follow.
    pub(crate) fn adopt(&self, snapshot: Arc<Snapshot>) {
        self.backends().adopt(&snapshot);
        self.door.follow(&snapshot, self.clock.now());
        *self.outbound_pairs.borrow_mut() = vec![None; snapshot.lists.len()];
        let mut keys: Vec<u64> = self.backends().keys().collect();
        keys.sort_unstable();
        self.h1_pools.borrow_mut().keep_only(&keys);
        self.h2_pools.borrow_mut().keep_only(&keys);
        self.mux_pools.borrow_mut().keep_only(&keys);
        *self.snapshot.borrow_mut() = Rc::new(snapshot);
        self.adopted.notify_waiters();
    }

    /// Uses a new credential for new connections. Those that stand were verified when they were made.
    pub(crate) fn adopt_tls(&self, tls: Option<Arc<TlsState>>) {
        *self.tls.borrow_mut() = tls;
    }

    /// Asks the control plane for a service. The answer comes as a new snapshot.
    pub(crate) fn demand(&self, service: ServiceId) {
        // A full queue means that the control plane is being asked already; the caller's wait has a deadline.
        let _ = self.demand.try_send(service);
    }

    /// Waits for the next snapshot.
    pub(crate) async fn next_snapshot(&self) {
        self.adopted.notified().await;
    }

    /// Notes that `observed` is spoken where something else is declared. Said once for each service, counted always.
    pub(crate) fn note_mismatch(&self, caller: &Caller, declared: Expected, observed: Detected) {
        let Some(Port::Service(service)) = caller.port() else { return };
        let key = (Arc::from(service.to_string()), declared.word(), observed.word());
        let mismatches = &mut self.telemetry().mismatches;
        if mismatches.len() >= PAIRS_MAX && !mismatches.contains_key(&key) {
            return;
        }
        let count = mismatches.entry(key).or_default();
        *count += 1;
        if *count == 1 {
            tracing::warn!(%service, declared = declared.word(), observed = observed.word(),
                "a client speaks something else than the service's `protocol` says");
        }
    }

    /// Waits until a drain begins.
    pub(crate) async fn drain_begun(&self) {
        loop {
            let rung = self.drain.notified();
            if self.draining() {
                return;
            }
            rung.await;
        }
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Enters a client's connection; `None` at the limit.
    pub(crate) fn enter(self: &Rc<Self>, stream: &Rc<Stream>) -> Option<(Rc<Client>, ClientGuard)> {
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= CONNECTIONS_MAX {
            crate::telemetry::bump(&mut self.telemetry().limits, "connections");
            return None;
        }
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        let client = Rc::new(Client { stream: stream.clone(), idle: Cell::new(true) });
        clients.insert(number, client.clone());
        Some((client, ClientGuard { worker: self.clone(), number }))
    }

    /// Counts an exchange as under way until the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> ExchangeGuard {
        self.under_way.set(self.under_way.get() + 1);
        ExchangeGuard(self.clone())
    }

    /// Counts a connection as active until the guard is dropped.
    pub(crate) fn activate(self: &Rc<Self>) -> ActiveGuard {
        let active = self.active.get() + 1;
        self.active.set(active);
        self.most_active.set(self.most_active.get().max(active));
        ActiveGuard(self.clone())
    }

    /// Requests under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// Lets go of what has not been used for a while. Called every some seconds.
    pub(crate) fn sweep(&self) {
        self.h1_pools.borrow_mut().sweep(self.clock.now());
        self.desks.borrow_mut().sweep();
        self.h2_desks.borrow_mut().sweep();
        self.h2_heads.borrow_mut().sweep();
        self.stock.sweep();
        // What a burst of connections took goes back to the system once most of them are quiet or gone: the allocator
        // alone keeps it, in pieces, for ever.
        let active = self.active.get();
        let most = self.most_active.get().max(active);
        let over = most > BURST_CONNECTIONS && active < most / 2;
        self.most_active.set(if over { active } else { most });
        if over {
            sys::give_memory_back();
        }
    }

    /// Begins a drain: idle clients are closed now, busy ones after their answer.
    pub(crate) fn start_drain(&self) {
        self.draining.set(true);
        for client in self.clients.borrow().values().filter(|client| client.idle.get()) {
            // Its task sees the end of the stream as if the client had closed it.
            client.stream.shutdown_read();
        }
        self.mux_pools.borrow_mut().drain();
        self.drain.notify_waiters();
    }

    /// The live state of the backends.
    pub(crate) fn endpoints(&self) -> Vec<EndpointView> {
        // Asked by the main task, which has no turns: the last one may be long ago.
        let now = self.clock.now();
        let backends = self.backends();
        let views = backends.iter().flat_map(|backend| {
            backend.endpoints().iter().map(move |endpoint| EndpointView {
                backend: backend.name().to_owned(),
                endpoint: endpoint.spec.name.to_string(),
                in_flight: endpoint.in_flight(),
                cooling: endpoint.cooling(now),
                ejected: endpoint.ejected(now),
            })
        });
        views.collect()
    }
}

/// Takes a client out of its worker's list.
#[derive(Debug)]
pub(crate) struct ClientGuard {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
    }
}

/// One connection that is not quiet.
#[derive(Debug)]
pub(crate) struct ActiveGuard(Rc<Worker>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}

/// One exchange under way.
#[derive(Debug)]
pub(crate) struct ExchangeGuard(Rc<Worker>);

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        if self.0.draining() {
            self.0.drain.notify_waiters();
        }
    }
}
