//! Connections to peers: few per worker and endpoint, shared by many streams, dialed once however many requests wait
//! for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};

use leno_core::backend::Endpoint;
use leno_core::exchange::{CONNECT_TIMEOUT, ConnectFailure};
use leno_core::mux::Role;
use leno_core::peer::SpiffeId;
use leno_core::time::Duration;
use leno_identity::reason::explain_io;
use leno_identity::session::Handshake;
use tokio::sync::Notify;

use super::handshake::shake;
use super::wire::{Wire, failure};
use super::{Conn, Ended, who_refused};
use crate::telemetry::bump;
use crate::tls::ALPN;
use crate::worker::Worker;

/// Streams on one connection before another one is made: beyond, one lost packet holds up too many.
const STREAMS_PER_CONN: usize = 256;
/// Connections to one endpoint from one worker. With the transport's limit of streams per connection that is more
/// than any endpoint can serve at a time.
const CONNS_MAX: usize = 4;
/// How long a request waits for room on connections that are all full: a peer that takes its time to read, not one
/// that is at its end.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// A worker's connections to peers, and from them.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    peers: BTreeMap<u64, Peer>,
    /// Connections that peers made to us, for drains.
    accepted: Vec<Weak<Conn>>,
}

#[derive(Debug, Default)]
struct Peer {
    conns: Vec<Rc<Conn>>,
    dialing: Option<Rc<Dialing>>,
    /// Rings when one of the connections may take a stream that none could take before.
    room: Rc<Notify>,
}

/// A connection attempt that any number of requests may wait for.
#[derive(Debug, Default)]
struct Dialing {
    result: RefCell<Option<Result<(), ConnectFailure>>>,
    done: Notify,
}

impl Pools {
    /// Forgets endpoints that are not in `keys`, which is sorted. Their streams go on to their end.
    pub(crate) fn keep_only(&mut self, keys: &[u64]) {
        self.peers.retain(|key, peer| {
            let keep = keys.binary_search(key).is_ok();
            if !keep {
                peer.conns.iter().for_each(|conn| conn.drain());
            }
            keep
        });
    }

    /// Remembers a connection that a peer made.
    pub(crate) fn accepted(&mut self, conn: &Rc<Conn>) {
        self.accepted.retain(|conn| conn.strong_count() > 0);
        self.accepted.push(Rc::downgrade(conn));
    }

    /// Tells every peer that we are going.
    pub(crate) fn drain(&mut self) {
        for conn in self.accepted.drain(..).filter_map(|conn| conn.upgrade()) {
            conn.drain();
        }
    }

    /// Ends a connection attempt, well or not.
    fn dialed(&mut self, key: u64, dialing: &Dialing, result: Result<Rc<Conn>, ConnectFailure>) {
        // An endpoint that was forgotten meanwhile is forgotten again at the next swap, and drained with it.
        let peer = self.peers.entry(key).or_default();
        peer.dialing = None;
        *dialing.result.borrow_mut() = Some(result.map(|conn| peer.conns.push(conn)));
        dialing.done.notify_waiters();
    }
}

impl Peer {
    /// The connection with the fewest streams, of those without bulk if there are any.
    fn best(&mut self) -> Option<Rc<Conn>> {
        self.conns.retain(|conn| !conn.is_leaving());
        // Every full one is asked, so that each of them rings when it has room.
        self.conns
            .iter()
            .filter(|conn| conn.can_open())
            .min_by_key(|conn| (conn.bulk(), conn.streams_open()))
            .cloned()
    }
}

/// True when a connection to `endpoint` takes a stream now.
pub(crate) fn stands(worker: &Worker, endpoint: &Endpoint) -> bool {
    let mut pools = worker.mux_pools.borrow_mut();
    pools.peers.get_mut(&endpoint.key).is_some_and(|peer| peer.best().is_some())
}

/// What a request without a connection waits for.
enum Wait {
    Dialing(Rc<Dialing>),
    Room(Rc<Notify>),
}

/// A connection to `endpoint` that can take a stream now; true when it stood already. Cancel-safe: the attempt goes on
/// for those who wait for it too.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    id: &SpiffeId,
    within: Duration,
) -> Result<(Rc<Conn>, bool), ConnectFailure> {
    let mut stood = true;
    let mut patience = None;
    loop {
        let wait = {
            let mut pools = worker.mux_pools.borrow_mut();
            let peer = pools.peers.entry(endpoint.key).or_default();
            let best = peer.best();
            let crowded =
                best.as_ref().is_none_or(|best| best.streams_open() >= STREAMS_PER_CONN || best.bulk() > 0);
            if crowded && peer.dialing.is_none() && peer.conns.len() < CONNS_MAX {
                let dialing = Rc::new(Dialing::default());
                peer.dialing = Some(dialing.clone());
                let room = peer.room.clone();
                let attempt = Attempt { endpoint: endpoint.clone(), id: id.clone(), dialing, room, within };
                worker.spawn(move |worker| dial(worker, attempt));
            }
            match (best, &peer.dialing) {
                // A crowded one does until there is another: that one may never come.
                (Some(conn), _) => return Ok((conn, stood)),
                (None, Some(dialing)) => Wait::Dialing(dialing.clone()),
                (None, None) => Wait::Room(peer.room.clone()),
            }
        };
        stood = false;
        match wait {
            Wait::Dialing(dialing) => dialing.done().await?,
            Wait::Room(room) => {
                let until = *patience.get_or_insert_with(|| worker.now().after(ROOM_WAIT));
                let rung = tokio::time::timeout_at(worker.clock.to_tokio(until), room.notified()).await;
                rung.map_err(|_| ConnectFailure::Overload)?;
            }
        }
    }
}

impl Dialing {
    /// Waits for the end of the attempt.
    async fn done(&self) -> Result<(), ConnectFailure> {
        loop {
            let done = self.done.notified();
            if let Some(result) = *self.result.borrow() {
                return result;
            }
            done.await;
        }
    }
}

/// A connection attempt under way.
struct Attempt {
    endpoint: Rc<Endpoint>,
    id: SpiffeId,
    dialing: Rc<Dialing>,
    /// Rings when the connection has room.
    room: Rc<Notify>,
    /// How long whoever began it would wait.
    within: Duration,
}

impl Attempt {
    fn announce(&self, worker: &Worker, result: Result<Rc<Conn>, ConnectFailure>) {
        worker.mux_pools.borrow_mut().dialed(self.endpoint.key, &self.dialing, result);
    }
}

/// Makes a connection and has it served by another task: what a handshake needs is much more than what a connection
/// needs for the rest of its life.
async fn dial(worker: Rc<Worker>, attempt: Attempt) {
    let deadline = worker.clock.to_tokio(worker.now().after(attempt.within.max(CONNECT_TIMEOUT)));
    let shaken = tokio::time::timeout_at(deadline, handshake(&worker, &attempt.endpoint, &attempt.id)).await;
    match shaken.unwrap_or(Err(ConnectFailure::TimedOut)) {
        Ok(wire) => worker.spawn(move |worker| serve(worker, attempt, wire, deadline)),
        Err(failure) => attempt.announce(&worker, Err(failure)),
    }
}

/// Announces a connection once the peer has said its first words, and serves it to its end.
async fn serve(worker: Rc<Worker>, attempt: Attempt, wire: Box<Wire>, deadline: tokio::time::Instant) {
    bump(&mut worker.telemetry().dialed, "mesh");
    let Attempt { endpoint, id, room, .. } = &attempt;
    let conn = Conn::new(Role::Dialer, &worker, room.clone());
    // A dialer's peer opens no streams; the machine refuses them.
    let mut serving = pin!(conn.clone().run(wire, |_| {}));
    // In TLS 1.3 our side of the handshake ends before the peer has looked at our certificate, and until its SETTINGS
    // are here only the smallest limits hold. Requests wait for its first words: what it refuses before them, it
    // provably has not seen, and what it takes is taken whole and at once in the numbers that it allows.
    let early = tokio::select! {
        biased;
        ended = &mut serving => Some(ended),
        () = conn.settled() => None,
        () = tokio::time::sleep_until(deadline) => {
            return attempt.announce(&worker, Err(ConnectFailure::TimedOut));
        }
    };
    let ended = match early {
        Some(ended) => {
            let failure = match &ended {
                Ended::Lost(error) if explain_io(error).is_some() => ConnectFailure::Tls,
                _ => ConnectFailure::Refused,
            };
            attempt.announce(&worker, Err(failure));
            ended
        }
        None => {
            attempt.announce(&worker, Ok(conn.clone()));
            serving.await
        }
    };
    match &ended {
        Ended::Lost(error) if explain_io(error).is_some() => {
            let reason = explain_io(error).map_or_else(String::new, |reason| reason.to_string());
            tracing::warn!(peer = %id, address = %endpoint.spec.address, reason, "a peer refused us");
            *worker.telemetry().tls_refused.entry(("peer", "after_handshake".into())).or_default() += 1;
        }
        Ended::Broken(error) => {
            tracing::warn!(peer = %id, address = %endpoint.spec.address, %error, "a connection failed");
        }
        ended => {
            tracing::debug!(peer = %id, address = %endpoint.spec.address, ?ended, "a connection ended")
        }
    }
    if let Some(peer) = worker.mux_pools.borrow_mut().peers.get_mut(&endpoint.key) {
        peer.conns.retain(|other| !Rc::ptr_eq(other, &conn));
    }
    // Those who wait for room on it may make another one now.
    room.notify_waiters();
}

async fn handshake(worker: &Worker, endpoint: &Endpoint, id: &SpiffeId) -> Result<Box<Wire>, ConnectFailure> {
    let refused = |by: &'static str, reason: &str| {
        tracing::warn!(peer = %id, address = %endpoint.spec.address, reason, "a TLS connection was refused");
        *worker.telemetry().tls_refused.entry((by, reason.to_owned())).or_default() += 1;
        ConnectFailure::Tls
    };
    let tls = worker.tls().clone();
    let Some(tls) = tls else { return Err(refused("self", "no_credential")) };
    let config = tls.client(id).map_err(|_| refused("self", "credential"))?;
    let mut handshake = Handshake::client(config).map_err(|_| refused("self", "credential"))?;
    let socket = worker.dialer.connect(endpoint.spec.address).await.map_err(|_| ConnectFailure::Refused)?;
    // Nagle's delay would undo the coalescing that the transport does itself.
    socket.set_nodelay(true).map_err(|_| ConnectFailure::Refused)?;
    let broken = |error: io::Error| match explain_io(&error) {
        Some(reason) => {
            let by = who_refused(&reason);
            tracing::warn!(peer = %id, address = %endpoint.spec.address, %reason, "a TLS connection was refused");
            *worker.telemetry().tls_refused.entry((by, reason.label().to_owned())).or_default() += 1;
            ConnectFailure::Tls
        }
        None => ConnectFailure::Refused,
    };
    shake(&socket, &mut handshake, Vec::new()).await.map_err(broken)?;
    if handshake.alpn() != Some(ALPN) {
        return Err(refused("self", "protocol"));
    }
    let established = handshake.finish().map_err(failure).map_err(broken)?;
    Ok(Box::new(Wire::new(socket, established, worker.mux_buffers.clone())))
}
