//! Connections to servers that speak HTTP/2: few per worker and endpoint, shared by many streams, dialed once however
//! many requests wait for them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use http::Request;
use http::uri::Scheme;
use leno_core::backend::Endpoint;
use leno_core::exchange::{CONNECT_TIMEOUT, ConnectFailure};
use leno_core::h2guard::{Fault, Role};
use leno_core::time::{Duration, Instant};
use tokio::sync::Notify;

use super::call::{Call, OpenedStream, poll_now};
use super::wire::{Io, Wire};
use super::{
    CONNECTION_WINDOW, HEADER_LIST_BYTES_MAX, PING_AFTER, PING_TIMEOUT, Piece, RESETS_REMEMBERED,
    RESETS_REMEMBERED_MAX, SEND_BUFFER_BYTES_MAX, STREAM_WINDOW,
};
use crate::alarm::Alarm;
use crate::io::Stream;
use crate::telemetry::bump;
use crate::worker::Worker;

/// Streams on one connection before another one is made, if the server allows so many: beyond, one lost packet holds up too
/// many.
const STREAMS_PER_CONN: usize = 256;
/// Connections to one endpoint from one worker. Servers allow 100 streams on each at least, nearly all of them.
const CONNS_MAX: usize = 8;
/// How long a request waits for room on connections that are all full.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How long a connection may have no stream before it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may take for its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The shortest wait for a deadline.
const MOMENT: Duration = Duration::from_millis(100);

/// How long it is remembered of an endpoint that it does not speak HTTP/2: it may be another program after that.
const HTTP1_REMEMBERED: Duration = Duration::from_secs(600);

/// A worker's connections to servers.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    peers: BTreeMap<u64, Peer>,
    /// Endpoints that did not answer as HTTP/2 does, and when that was. Each is one of the snapshot's.
    http1: BTreeMap<u64, Instant>,
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoStream {
    /// There is no connection.
    Connect(ConnectFailure),
    /// The server accepts connections, and then does not speak HTTP/2.
    NotHttp2,
}

impl From<ConnectFailure> for NoStream {
    fn from(failure: ConnectFailure) -> Self {
        Self::Connect(failure)
    }
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
    result: RefCell<Option<Result<(), NoStream>>>,
    done: Notify,
}

impl Pools {
    /// Forgets endpoints that are not in `keys`, which is sorted. Their streams go on to their end.
    pub(crate) fn keep_only(&mut self, keys: &[u64]) {
        self.peers.retain(|key, peer| {
            let keep = keys.binary_search(key).is_ok();
            if !keep {
                peer.conns.iter().for_each(|conn| conn.retire());
            }
            keep
        });
        self.http1.retain(|key, _| keys.binary_search(key).is_ok());
    }

    /// True for an endpoint that was found not to speak HTTP/2.
    pub(crate) fn speaks_http1(&self, key: u64, now: Instant) -> bool {
        self.http1.get(&key).is_some_and(|since| now.since(*since) < HTTP1_REMEMBERED)
    }
}

impl Peer {
    /// The connection with the fewest streams that takes another one.
    fn best(&mut self) -> Option<Rc<Conn>> {
        self.conns.retain(|conn| !conn.is_leaving());
        // Every full one is asked, so that each of them rings when it has room.
        self.conns.iter().filter(|conn| conn.can_open()).min_by_key(|conn| conn.open.get()).cloned()
    }
}

/// A stream on a connection that stands already.
pub(crate) fn ready(worker: &Rc<Worker>, endpoint: &Endpoint) -> Option<Box<Call>> {
    let conn = worker.h2_pools.borrow_mut().peers.get_mut(&endpoint.key)?.best()?;
    Some(Box::new(Call::dial(worker, conn)))
}

/// A stream to `endpoint` on a connection that is made by `dial` if need be. Cancel-safe: the attempt goes on for those
/// who wait for it too.
pub(crate) async fn connect<D, F>(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    scheme: Scheme,
    within: Duration,
    dial: D,
) -> Result<Box<Call>, NoStream>
where
    D: Fn(Rc<Worker>, Rc<Endpoint>) -> F + Clone + 'static,
    F: Future<Output = Result<Stream, ConnectFailure>> + 'static,
{
    enum Wait {
        Dialing(Rc<Dialing>),
        Room(Rc<Notify>),
    }
    let mut patience = None;
    loop {
        let wait = {
            let mut pools = worker.h2_pools.borrow_mut();
            let peer = pools.peers.entry(endpoint.key).or_default();
            let best = peer.best();
            if best.is_none() && peer.dialing.is_none() && peer.conns.len() < CONNS_MAX {
                let dial = dial.clone();
                let dialing = Rc::new(Dialing::default());
                peer.dialing = Some(dialing.clone());
                let room = peer.room.clone();
                let attempt =
                    Attempt { endpoint: endpoint.clone(), dialing, room, scheme: scheme.clone(), within };
                worker.spawn(move |worker| {
                    let stream = dial(worker.clone(), attempt.endpoint.clone());
                    attempt.make(worker, stream)
                });
            }
            match (best, &peer.dialing) {
                (Some(conn), _) => return Ok(Box::new(Call::dial(worker, conn))),
                (None, Some(dialing)) => Wait::Dialing(dialing.clone()),
                (None, None) => Wait::Room(peer.room.clone()),
            }
        };
        match wait {
            Wait::Dialing(dialing) => dialing.done().await?,
            Wait::Room(room) => {
                let until = *patience.get_or_insert_with(|| worker.now().after(ROOM_WAIT));
                let rung = tokio::time::timeout_at(worker.clock.to_tokio(until), room.notified()).await;
                rung.map_err(|_| {
                    bump(&mut worker.telemetry().limits, "h2_streams");
                    ConnectFailure::Overload
                })?;
            }
        }
    }
}

/// A connection in plain text to an endpoint that speaks HTTP/2 without being asked.
pub(crate) async fn dial_plain(worker: Rc<Worker>, endpoint: Rc<Endpoint>) -> Result<Stream, ConnectFailure> {
    let stream = worker.dialer.connect(endpoint.spec.address).await.map_err(|_| ConnectFailure::Refused)?;
    // Frames are written whole turns at a time: waiting for more to say would only delay them.
    stream.set_nodelay(true).map_err(|_| ConnectFailure::Refused)?;
    bump(&mut worker.telemetry().dialed, "h2");
    Ok(stream.into())
}

impl Dialing {
    /// Waits for the end of the attempt.
    async fn done(&self) -> Result<(), NoStream> {
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
    dialing: Rc<Dialing>,
    /// Rings when the connection has room.
    room: Rc<Notify>,
    scheme: Scheme,
    /// How long whoever began it would wait.
    within: Duration,
}

impl Attempt {
    fn announce(&self, worker: &Worker, result: Result<Rc<Conn>, NoStream>) {
        let mut pools = worker.h2_pools.borrow_mut();
        if matches!(result, Err(NoStream::NotHttp2)) {
            pools.http1.insert(self.endpoint.key, worker.now());
        }
        // An endpoint that was forgotten meanwhile is forgotten again at the next swap, and retired with it.
        let peer = pools.peers.entry(self.endpoint.key).or_default();
        peer.dialing = None;
        *self.dialing.result.borrow_mut() = Some(result.map(|conn| peer.conns.push(conn)));
        self.dialing.done.notify_waiters();
    }

    async fn make(self, worker: Rc<Worker>, stream: impl Future<Output = Result<Stream, ConnectFailure>>) {
        let deadline = worker.clock.to_tokio(worker.now().after(self.within.max(CONNECT_TIMEOUT)));
        let made = tokio::time::timeout_at(deadline, async {
            let wire = Wire::new(&worker, Rc::new(stream.await?), Role::Client, Vec::new());
            shake(&wire).await.ok_or(NoStream::NotHttp2)
        });
        match made.await.unwrap_or(Err(ConnectFailure::TimedOut.into())) {
            Ok((send, connection, wire)) => {
                let connection = Box::new(connection);
                worker.spawn(move |worker| self.serve(worker, send, connection, wire, deadline));
            }
            Err(failure) => self.announce(&worker, Err(failure)),
        }
    }

    /// Announces a connection once the server has said its first words, and serves it to its end.
    async fn serve(
        self,
        worker: Rc<Worker>,
        send: SendRequest<Piece>,
        connection: Box<Connection<Io, Piece>>,
        wire: Rc<Wire>,
        deadline: tokio::time::Instant,
    ) {
        let conn = Rc::new(Conn {
            send: RefCell::new(Some(send)),
            wire: wire.clone(),
            scheme: self.scheme.clone(),
            open: Cell::new(0),
            closed: Cell::new(false),
            full: Cell::new(false),
            idle_since: Cell::new(worker.now()),
            changed: Notify::new(),
            room: self.room.clone(),
        });
        let mut serving = Serving {
            worker: worker.clone(),
            conn: conn.clone(),
            ping_pong: None,
            asked: false,
            pinged: None,
        };
        let mut connection = connection;
        serving.ping_pong = connection.ping_pong();
        let mut alarm = Alarm::new(worker.clock);
        // Until its SETTINGS are here nobody knows what the server allows, nor whether it speaks HTTP/2 at all.
        let settled = tokio::select! {
            biased;
            ended = poll_fn(|cx| match serving.poll_turn(cx, &mut connection) {
                Poll::Ready(Turn::Over) => Poll::Ready(false),
                _ if wire.is_settled() => Poll::Ready(true),
                _ => Poll::Pending,
            }) => ended,
            () = tokio::time::sleep_until(deadline) => {
                return self.announce(&worker, Err(ConnectFailure::TimedOut.into()));
            }
        };
        if !settled {
            conn.close();
            return self.announce(&worker, Err(NoStream::NotHttp2));
        }
        self.announce(&worker, Ok(conn.clone()));
        loop {
            let due = serving.due();
            let changed = conn.changed.notified();
            tokio::select! {
                biased;
                turn = poll_fn(|cx| serving.poll_turn(cx, &mut connection)) => match turn {
                    Turn::Over => break,
                    Turn::Alive => (serving.asked, serving.pinged) = (false, None),
                },
                () = changed => {}
                () = alarm.until(due) => if serving.rang() { break },
            }
        }
        if let Some(fault) = wire.fault() {
            if let Fault::Flood(flood) = fault {
                bump(&mut worker.telemetry().limits, flood.word());
            }
            let address = self.endpoint.spec.address;
            tracing::warn!(%address, %fault, "a server floods its connection, or breaks the rules of HTTP/2");
        }
        conn.close();
        if let Some(peer) = worker.h2_pools.borrow_mut().peers.get_mut(&self.endpoint.key) {
            peer.conns.retain(|other| !Rc::ptr_eq(other, &conn));
        }
        // Those who wait for room on it may make another one now.
        self.room.notify_waiters();
        // Streams learn now that it is over.
        drop(connection);
        let deadline = worker.clock.to_tokio(worker.now().after(LAST_WORDS));
        // What it still wants to say is worth a moment, not more.
        let _ = tokio::time::timeout_at(deadline, poll_fn(|cx| wire.poll_send(cx))).await;
    }
}

/// Exchanges prefaces.
async fn shake(wire: &Rc<Wire>) -> Option<(SendRequest<Piece>, Connection<Io, Piece>, Rc<Wire>)> {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
        .reset_stream_duration(RESETS_REMEMBERED);
    let (send, connection) = pin!(builder.handshake::<_, Piece>(Io(wire.clone()))).await.ok()?;
    Some((send, connection, wire.clone()))
}

/// A connection to a server, as its streams see it.
#[derive(Debug)]
pub(super) struct Conn {
    /// `None` when it takes no more streams.
    send: RefCell<Option<SendRequest<Piece>>>,
    wire: Rc<Wire>,
    scheme: Scheme,
    /// Streams that are not over.
    open: Cell<usize>,
    /// The connection is over.
    closed: Cell<bool>,
    /// Somebody wanted to open a stream and could not.
    full: Cell<bool>,
    idle_since: Cell<Instant>,
    /// Rings when the first stream was opened, or none is to be opened any more.
    changed: Notify,
    /// Rings when that somebody may try again.
    room: Rc<Notify>,
}

impl Conn {
    /// True when it will never take another stream.
    fn is_leaving(&self) -> bool {
        self.closed.get() || self.wire.goaway().is_some() || self.send.borrow().is_none()
    }

    /// True when a new stream can be opened now.
    fn can_open(&self) -> bool {
        let can = match &mut *self.send.borrow_mut() {
            Some(send) => {
                self.open.get() < send.current_max_send_streams().min(STREAMS_PER_CONN)
                    && !matches!(poll_now(|cx| send.poll_ready(cx)), Poll::Ready(Err(_)))
            }
            None => false,
        };
        self.full.set(!can);
        can
    }

    /// Begins to finish: no new streams, those that are open go on to their end.
    fn retire(&self) {
        self.send.borrow_mut().take();
        self.changed.notify_waiters();
    }

    fn close(&self) {
        self.closed.set(true);
        self.send.borrow_mut().take();
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme.clone()
    }

    /// The server has said that it takes WebSockets.
    pub(super) fn takes_sockets(&self) -> bool {
        self.send.borrow().as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Opens a stream. `None`: it was not, and nothing was sent.
    pub(super) fn open(self: &Rc<Self>, request: Request<()>, end: bool) -> Option<OpenedStream> {
        let mut send = self.send.borrow_mut();
        let send = send.as_mut()?;
        let opened = match poll_now(|cx| send.poll_ready(cx)) {
            Poll::Ready(_) => send.send_request(request, end),
            // Its last stream has not left yet. Another handle has no such memory.
            Poll::Pending => send.clone().send_request(request, end),
        };
        let (response, stream) = opened.ok()?;
        let number = stream.stream_id().as_u32();
        if self.open.replace(self.open.get() + 1) == 0 {
            self.changed.notify_waiters();
        }
        Some((response, stream, Place { conn: self.clone(), number, written: self.wire.written() }))
    }
}

/// A stream's place on its connection.
#[derive(Debug)]
pub(super) struct Place {
    conn: Rc<Conn>,
    number: u32,
    /// What had been written when it was opened.
    written: u64,
}

impl Place {
    /// True when the server provably did not see the request: its head has not left, or the server has said that it looks at no
    /// streams above another one.
    pub(super) fn is_unseen(&self) -> bool {
        let wire = &self.conn.wire;
        wire.written() == self.written || wire.goaway().is_some_and(|last| self.number > last)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.conn.open.get().saturating_sub(1);
        self.conn.open.set(open);
        if open == 0 {
            self.conn.idle_since.set(self.conn.wire.now());
        }
        if self.conn.full.get() {
            self.conn.room.notify_waiters();
        }
    }
}

/// A connection being served.
struct Serving {
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    ping_pong: Option<PingPong>,
    /// A PING is not answered yet.
    asked: bool,
    /// Since when its answer is awaited because nothing else comes.
    pinged: Option<Instant>,
}

/// How a turn of the connection ended.
enum Turn {
    /// The connection is over.
    Over,
    /// The server has answered a PING.
    Alive,
}

impl Serving {
    /// Moves frames both ways until nothing can move.
    fn poll_turn(&mut self, cx: &mut Context<'_>, connection: &mut Connection<Io, Piece>) -> Poll<Turn> {
        let over = Pin::new(connection).poll(cx).is_ready();
        let lost = matches!(self.conn.wire.poll_send(cx), Poll::Ready(Err(_)));
        if over || lost || self.conn.wire.fault().is_some() {
            return Poll::Ready(Turn::Over);
        }
        if self.asked
            && let Some(ping_pong) = &mut self.ping_pong
            && let Poll::Ready(Ok(_)) = ping_pong.poll_pong(cx)
        {
            return Poll::Ready(Turn::Alive);
        }
        Poll::Pending
    }

    /// When somebody must look after the connection.
    fn due(&self) -> Instant {
        let due = match self.pinged {
            Some(pinged) => pinged.after(PING_TIMEOUT),
            None if self.conn.open.get() == 0 => self.conn.idle_since.get().after(IDLE_TIMEOUT),
            None => self.conn.wire.heard().after(PING_AFTER),
        };
        due.max(self.worker.now().after(MOMENT))
    }

    /// A deadline has passed, or would have if nothing had moved. True when the server does not live any more.
    fn rang(&mut self) -> bool {
        let now = self.worker.now();
        let heard = self.conn.wire.heard();
        if self.pinged.is_some_and(|pinged| heard > pinged) {
            self.pinged = None;
        }
        if let Some(pinged) = self.pinged {
            return now >= pinged.after(PING_TIMEOUT);
        }
        if self.conn.open.get() == 0 {
            if now >= self.conn.idle_since.get().after(IDLE_TIMEOUT) {
                // The machine ends when nobody can open a stream any more.
                self.conn.retire();
            }
        } else if now >= heard.after(PING_AFTER)
            && let Some(ping_pong) = &mut self.ping_pong
        {
            // One that was not answered while other things came will do.
            self.asked = self.asked || ping_pong.send_ping(Ping::opaque()).is_ok();
            self.pinged = self.asked.then_some(now);
        }
        false
    }
}
