//! Connections that peers make to this sidecar: the handshake says who they are, each stream is one request for the
//! application beside. A peer that is no Leno and has a certificate of the mesh may speak HTTP over TLS instead.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use leno_core::client_hello;
use leno_core::edit::Edits;
use leno_core::mux::{Role, StreamId};
use leno_core::peer::SpiffeId;
use leno_core::time::Duration;
use leno_identity::reason::explain_io;
use leno_identity::session::Handshake;
use leno_identity::svid::peer_of;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::handshake::receive;
use super::slot::Slot;
use super::stream::Stream;
use super::wire::{Wire, failure};
use super::{Conn, Ended, NewStream, who_refused};
use crate::alarm::Alarm;
use crate::body::Request;
use crate::caller::{Caller, Remote};
use crate::downstream::{self, Arrival};
use crate::drive::drive;
use crate::h1;
use crate::io;
use crate::listen::Guard;
use crate::telemetry::Direction;
use crate::tls::{ALPN, ALPN_HTTP2};
use crate::worker::Worker;

/// How long a peer may take for its handshake: two round trips and some cryptography.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Shakes hands with a peer and has it served by another task: what a handshake needs is much more than what a
/// connection needs for the rest of its life.
pub(crate) async fn accept(worker: Rc<Worker>, stream: TcpStream, from: SocketAddr, guard: Guard) {
    match handshake(&worker, stream, from).await {
        Some((peer, Spoken::Mesh(wire))) => {
            worker.spawn(move |worker| serve(worker, wire, peer, from, guard));
        }
        Some((peer, Spoken::Http(stream))) => serve_http(&worker, stream, &peer, from, guard),
        None => {}
    }
}

/// What a peer speaks on a connection whose handshake is over.
enum Spoken {
    /// The mesh transport.
    Mesh(Box<Wire>),
    /// HTTP of some version.
    Http(io::Stream),
}

/// Serves a peer that speaks HTTP; its identity was checked like that of any other.
fn serve_http(worker: &Rc<Worker>, stream: io::Stream, peer: &SpiffeId, from: SocketAddr, guard: Guard) {
    let http2 = stream.alpn().as_deref() == Some(ALPN_HTTP2);
    tracing::debug!(%peer, %from, http2, "a peer connected that is no Leno");
    let source = peer.service.to_string().into();
    let pair = worker.telemetry().pair(Direction::Inbound, &source, &worker.own_name);
    let arrival = Arrival {
        stream: Rc::new(stream),
        first: Vec::new(),
        remote: Remote::new(from),
        caller: Caller::Inbound { source, pair },
        guard,
    };
    if http2 {
        downstream::serve_http2(worker, arrival);
    } else {
        h1::server::serve(worker, arrival);
    }
}

/// Serves a peer until the connection ends.
async fn serve(worker: Rc<Worker>, wire: Box<Wire>, peer: SpiffeId, from: SocketAddr, _guard: Guard) {
    tracing::debug!(%peer, %from, "a peer connected");
    let conn = Conn::new(Role::Acceptor, &worker, Rc::default());
    worker.mux_pools.borrow_mut().accepted(&conn);
    if worker.draining() {
        conn.drain();
    }
    let source = peer.service.to_string().into();
    let pair = worker.telemetry().pair(Direction::Inbound, &source, &worker.own_name);
    let visitor = Rc::new(Visitor {
        conn: conn.clone(),
        caller: Caller::Inbound { source, pair },
        remote: Remote::new(from),
    });
    let ended = conn.run(wire, |new| Desk::serve(&worker, &visitor, new)).await;
    match ended {
        Ended::Broken(error) => tracing::warn!(%peer, %from, %error, "a peer's connection failed"),
        ended => tracing::debug!(%peer, %from, ?ended, "a peer's connection ended"),
    }
}

/// A peer's connection, as its requests see it.
#[derive(Debug)]
struct Visitor {
    conn: Rc<Conn>,
    caller: Caller,
    remote: Remote,
}

/// A task that serves one stream after another, of any connection. What a request needs, a task, a timer and memory
/// for its head, is made once and not for each.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    request: RefCell<Request>,
    next: RefCell<Option<Handover>>,
    waker: RefCell<Option<Waker>>,
    /// It is to go home.
    closed: Cell<bool>,
}

/// What a desk is given.
type Handover = (Rc<Visitor>, StreamId, Rc<Slot>);

/// Desks of one worker without a stream to serve.
#[derive(Debug, Default)]
pub(crate) struct Desks(Vec<Rc<Desk>>);

/// Desks that wait at most. Each has some KiB; with more requests at a time than this, tasks come and go.
const DESKS_MAX: usize = 256;

impl Desks {
    /// Sends half of those home that have nothing to do: after a burst the memory goes back within some calls.
    pub(crate) fn sweep(&mut self) {
        let stay = self.0.len() / 2;
        for desk in self.0.drain(..self.0.len() - stay) {
            desk.closed.set(true);
            desk.wake();
        }
    }
}

impl Desk {
    /// Has a new stream served, by an idle desk if there is one.
    fn serve(worker: &Rc<Worker>, visitor: &Rc<Visitor>, mut new: NewStream<'_>) {
        let idle = worker.desks.borrow_mut().0.pop();
        let is_new = idle.is_none();
        let desk = idle.unwrap_or_default();
        new.copy_head(&mut desk.request.borrow_mut());
        *desk.next.borrow_mut() = Some((visitor.clone(), new.stream, new.slot));
        if is_new {
            worker.spawn(move |worker| desk.work(worker));
        } else {
            desk.wake();
        }
    }

    async fn work(self: Rc<Self>, worker: Rc<Worker>) {
        let mut alarm = Alarm::new(worker.clock);
        let mut edits = Edits::default();
        while let Some((visitor, stream, slot)) = self.next().await {
            let request = self.request.take();
            let mut stream = Stream::accept(visitor.conn.clone(), stream, slot);
            let Stream { reader, writer } = &mut stream;
            edits.clear();
            let Visitor { caller, remote, .. } = &*visitor;
            pin!(drive(&worker, caller, remote, &request, &mut edits, reader, writer, &mut alarm)).await;
            drop(stream);
            // A head that was unusually large is not worth keeping.
            if request.bytes.capacity() <= HEAD_BYTES_KEPT {
                *self.request.borrow_mut() = request;
            }
            let mut desks = worker.desks.borrow_mut();
            if desks.0.len() >= DESKS_MAX {
                return;
            }
            desks.0.push(self.clone());
        }
    }

    /// Waits for a stream; `None` when the desk is to go.
    async fn next(&self) -> Option<Handover> {
        std::future::poll_fn(|cx| {
            if let Some(next) = self.next.take() {
                return Poll::Ready(Some(next));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            match &mut *self.waker.borrow_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                unknown => *unknown = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The largest memory for a head that is kept for the next request, in bytes.
const HEAD_BYTES_KEPT: usize = 4 * 1024;

async fn handshake(worker: &Worker, socket: TcpStream, from: SocketAddr) -> Option<(SpiffeId, Spoken)> {
    let refused = |by: &'static str, reason: String| {
        // Whose fault it is is in the reason; for us it is a peer's mistake, not an error of ours.
        tracing::warn!(%from, reason, "refused a TLS connection");
        *worker.telemetry().tls_refused.entry((by, reason)).or_default() += 1;
    };
    let Some(tls) = worker.tls().clone() else {
        refused("self", "no_credential".into());
        return None;
    };
    let deadline = worker.clock.to_tokio(worker.now().after(HANDSHAKE_TIMEOUT));
    let shaken = shake(worker, socket, tls.server.clone());
    let refusal = match tokio::time::timeout_at(deadline, shaken).await {
        Err(_) => Refusal::Late,
        Ok(Err(refusal)) => refusal,
        Ok(Ok(shaken)) => return Some(shaken),
    };
    match refusal {
        Refusal::Late => refused("self", "handshake_timeout".into()),
        Refusal::Lost => refused("peer", "connection_lost".into()),
        Refusal::NoProtocol => refused("self", "protocol".into()),
        Refusal::NotSpiffe => refused("self", "not_spiffe".into()),
        Refusal::Tls(reason) => {
            tracing::warn!(%from, %reason, "a TLS connection was refused");
            let by = who_refused(&reason);
            *worker.telemetry().tls_refused.entry((by, reason.label().to_owned())).or_default() += 1;
        }
    }
    None
}

/// Why there is no connection with a peer.
enum Refusal {
    Late,
    Lost,
    NoProtocol,
    NotSpiffe,
    Tls(leno_identity::reason::Reason),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        explain_io(&error).map_or(Self::Lost, Self::Tls)
    }
}

/// Shakes hands with a peer in the way that suits what it offers to speak.
async fn shake(
    worker: &Worker,
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(SpiffeId, Spoken), Refusal> {
    let (first, offers_mesh) = hello(&socket).await?;
    if !offers_mesh {
        let stream = io::Stream::server(socket, first, config).await?;
        if stream.alpn().is_none() {
            return Err(Refusal::NoProtocol);
        }
        let certificate = stream.peer_certificate();
        let peer = peer_of(certificate.as_slice()).map_err(|_| Refusal::NotSpiffe)?;
        return Ok((peer, Spoken::Http(stream)));
    }
    let mut handshake = Handshake::server(config).map_err(failure)?;
    super::handshake::shake(&socket, &mut handshake, first).await?;
    if handshake.alpn() != Some(ALPN) {
        return Err(Refusal::NoProtocol);
    }
    let peer = peer_of(handshake.peer_certificates()).map_err(|_| Refusal::NotSpiffe)?;
    let established = handshake.finish().map_err(failure)?;
    Ok((peer, Spoken::Mesh(Box::new(Wire::new(socket, established, worker.mux_buffers.clone())))))
}

/// Reads what a client says first, and whether it offers the mesh transport. What is no such message is left to rustls, which
/// says what is wrong with it.
async fn hello(socket: &TcpStream) -> std::io::Result<(Vec<u8>, bool)> {
    let (mut reader, mut first) = (client_hello::Reader::default(), Vec::new());
    loop {
        first.reserve(HELLO_BYTES);
        let before = first.len();
        if receive(socket, &mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match reader.take(first.get(before..).unwrap_or(&[])) {
            Ok(None) => {}
            Ok(Some(hello)) => return Ok((first, hello.protocols.iter().any(|offered| offered == ALPN))),
            Err(_) => return Ok((first, true)),
        }
    }
}

/// Bytes of a client's first message that are read at a time: nearly always all of it.
const HELLO_BYTES: usize = 2 * 1024;
