//! Connections to peers: few per worker and endpoint, shared by many streams, dialed once however many requests wait
//! for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use leno_core::backend::Endpoint;
use leno_core::exchange::{CONNECT_TIMEOUT, ConnectFailure};
use leno_core::mux::Role;
use leno_core::peer::SpiffeId;
use leno_identity::reason::explain_io;
use leno_identity::tls::server_name;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Conn, Ended, who_refused};
use crate::telemetry::bump;
use crate::tls::ALPN;
use crate::worker::Worker;

/// Streams on one connection before another one is made: beyond, one lost packet holds up too many.
const STREAMS_PER_CONN: usize = 256;
/// Connections to one endpoint from one worker. With the transport's limit of streams per connection that is more
/// than any endpoint can serve at a time.
const CONNS_MAX: usize = 4;

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
}

/// A connection attempt that any number of requests may wait for.
#[derive(Debug, Default)]
struct Dialing {
    result: RefCell<Option<Result<Rc<Conn>, ConnectFailure>>>,
    done: Notify,
}

impl Dialing {
    async fn result(&self) -> Result<Rc<Conn>, ConnectFailure> {
        loop {
            let done = self.done.notified();
            if let Some(result) = &*self.result.borrow() {
                return result.clone();
            }
            done.await;
        }
    }
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

    /// The connection with the fewest streams, unless another one should be made.
    fn best(&mut self, key: u64) -> Option<Rc<Conn>> {
        let peer = self.peers.entry(key).or_default();
        peer.conns.retain(|conn| !conn.is_leaving());
        let best = peer.conns.iter().filter(|conn| conn.can_open()).min_by_key(|conn| conn.streams_open())?;
        let crowded = best.streams_open() >= STREAMS_PER_CONN && peer.conns.len() < CONNS_MAX;
        if crowded { None } else { Some(best.clone()) }
    }
}

/// A connection to `endpoint` that can take a stream; true when it stood already. Cancel-safe: the attempt goes on for
/// those who wait for it too.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    id: &SpiffeId,
) -> Result<(Rc<Conn>, bool), ConnectFailure> {
    let mut waited = false;
    // Each turn waits for one connection more, so there are few.
    loop {
        if let Some(conn) = worker.mux_pools.borrow_mut().best(endpoint.key) {
            return Ok((conn, !waited));
        }
        let dialing = {
            let mut pools = worker.mux_pools.borrow_mut();
            let peer = pools.peers.entry(endpoint.key).or_default();
            if let Some(dialing) = &peer.dialing {
                dialing.clone()
            } else if peer.conns.len() >= CONNS_MAX {
                return Err(ConnectFailure::Overload);
            } else {
                let dialing = Rc::new(Dialing::default());
                peer.dialing = Some(dialing.clone());
                let task = dial(worker.clone(), endpoint.clone(), id.clone(), dialing.clone());
                tokio::task::spawn_local(task);
                dialing
            }
        };
        waited = true;
        let conn = dialing.result().await?;
        // Of many that waited for it, the first may have taken all the streams that a peer allows before it has
        // said how many it really does.
        if conn.can_open() {
            return Ok((conn, false));
        }
    }
}

/// Makes a connection, announces the result, and serves the connection to its end.
async fn dial(worker: Rc<Worker>, endpoint: Rc<Endpoint>, id: SpiffeId, dialing: Rc<Dialing>) {
    let deadline = worker.clock.to_tokio(worker.now().after(CONNECT_TIMEOUT));
    let shaken = tokio::time::timeout_at(deadline, handshake(&worker, &endpoint, &id)).await;
    let shaken = shaken.unwrap_or(Err(ConnectFailure::TimedOut));
    let conn = shaken.as_ref().map(|_| Conn::new(Role::Dialer, worker.clock)).map_err(|failure| *failure);
    if let Some(peer) = worker.mux_pools.borrow_mut().peers.get_mut(&endpoint.key) {
        peer.dialing = None;
        if let Ok(conn) = &conn {
            peer.conns.push(conn.clone());
        }
    }
    *dialing.result.borrow_mut() = Some(conn.clone());
    dialing.done.notify_waiters();
    drop(dialing);
    if let (Ok(tls), Ok(conn)) = (shaken, conn) {
        bump(&mut worker.telemetry().dialed, "mesh");
        // A dialer's peer opens no streams; the machine refuses them.
        let ended = conn.clone().run(tls, drop).await;
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
    }
}

async fn handshake(
    worker: &Worker,
    endpoint: &Endpoint,
    id: &SpiffeId,
) -> Result<TlsStream<TcpStream>, ConnectFailure> {
    let refused = |by: &'static str, reason: &str| {
        tracing::warn!(peer = %id, address = %endpoint.spec.address, reason, "a TLS connection was refused");
        *worker.telemetry().tls_refused.entry((by, reason.to_owned())).or_default() += 1;
        ConnectFailure::Tls
    };
    let tls = worker.tls().clone();
    let Some(tls) = tls else { return Err(refused("self", "no_credential")) };
    let config = tls.client(id).map_err(|_| refused("self", "credential"))?;
    let stream = TcpStream::connect(endpoint.spec.address).await.map_err(|_| ConnectFailure::Refused)?;
    // Nagle's delay would undo the coalescing that the transport does itself.
    stream.set_nodelay(true).map_err(|_| ConnectFailure::Refused)?;
    let stream = TlsConnector::from(config).connect(server_name(), stream).await;
    let stream = stream.map_err(|error| match explain_io(&error) {
        Some(reason) => {
            let by = who_refused(&reason);
            tracing::warn!(peer = %id, address = %endpoint.spec.address, %reason, "a TLS connection was refused");
            *worker.telemetry().tls_refused.entry((by, reason.label().to_owned())).or_default() += 1;
            ConnectFailure::Tls
        }
        None => ConnectFailure::Refused,
    })?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(refused("self", "protocol"));
    }
    Ok(stream)
}
