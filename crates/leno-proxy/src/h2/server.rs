//! A client's HTTP/2 connection: each stream is one request, driven by a task of its own, while this one moves frames.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Response, StatusCode, header};
use leno_core::h2guard::{Fault, Role};
use leno_core::time::{Duration, Instant};

use super::desk::Desk;
use super::head::Heads;
use super::request::{self, Refusal};
use super::stream::NewStream;
use super::wire::{Io, Wire};
use super::{
    BROKEN_STREAMS_MAX, CONNECTION_WINDOW, HEADER_LIST_BYTES_MAX, OUTSIDE_CONNECTION_WINDOW, PING_AFTER,
    PING_TIMEOUT, Piece, RESETS_REMEMBERED, RESETS_REMEMBERED_MAX, RESETS_UNSEEN_MAX, SEND_BUFFER_BYTES_MAX,
    STREAM_WINDOW, STREAMS_MAX,
};
use crate::alarm::Alarm;
use crate::caller::{Caller, Remote};
use crate::downstream::Arrival;
use crate::telemetry::bump;
use crate::worker::Worker;

/// How long a client may take for its preface after the first bytes of it, for the SETTINGS that belong to it, and for a header
/// block that it has begun (as for a request head in HTTP/1).
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may have no stream open, as between two requests in HTTP/1.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How old a connection from outside becomes before its client is asked to make another one, give or take
/// [`AGE_JITTER_PERCENT`]: gateways that were added get their share of clients that never leave. What is under way goes on to its
/// end. Inside the mesh, where each request is balanced by itself, age means nothing and there is no limit.
const OUTSIDE_AGE: Duration = Duration::from_secs(3600);
const AGE_JITTER_PERCENT: u64 = 10;
/// How long a client without streams may take to notice that we are going.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what we say last may take, and how long and how much we go on reading, so that the client reads it too instead of
/// seeing a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Serves a client until one of the two closes the connection.
pub(crate) fn serve(worker: &Rc<Worker>, arrival: Arrival) {
    worker.spawn(move |worker| run(worker, arrival));
}

/// A client's connection, as its streams see it.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) remote: Remote,
}

/// How a turn of the connection ended.
enum Turn {
    /// A stream was opened where there was none.
    Opened,
    /// The client has answered a PING.
    Alive,
    /// It sends too much of something, or something that cannot be.
    Fault(Fault),
    /// The machine is done.
    Done,
    /// The connection is gone, or the client broke the protocol.
    Broken(Option<h2::Reason>),
}

async fn run(worker: Rc<Worker>, arrival: Arrival) {
    let Arrival { stream, first, remote, caller, guard: _guard, .. } = arrival;
    let Some((client, _entry)) = worker.enter(&stream) else { return };
    // A drain tells us, and must not cut the connection.
    client.idle.set(false);
    let _active = worker.activate();
    let outside = matches!(caller, Caller::Gateway(_));
    let wire = Wire::new(&worker, stream, Role::Server, first);
    let Some(mut connection) = shake(&worker, &wire, outside).await else { return };
    let ping_pong = connection.ping_pong();
    let age = outside.then(|| worker.now().after(age(worker.rng().next_u64())));
    let mut serving = Serving {
        visitor: Rc::new(Visitor { caller, remote }),
        pings: Pings { ping_pong, asked: false, sent: None },
        idle_since: worker.now(),
        busy: false,
        age,
        going: None,
        worker: worker.clone(),
        wire: wire.clone(),
    };
    let mut alarm = Alarm::new(worker.clock);
    // Held while the client is told that we are going, so that a drain waits for what is still on its way to us.
    let mut under_way = None;
    let ended = loop {
        let draining = worker.drain.notified();
        if worker.draining() && serving.going.is_none() {
            connection.graceful_shutdown();
            serving.going = Some(worker.now());
            under_way = Some(worker.begin());
        }
        let due = serving.due();
        tokio::select! {
            biased;
            turn = poll_fn(|cx| serving.poll_turn(cx, &mut connection)) => match turn {
                Turn::Opened => {}
                Turn::Alive => (serving.pings.asked, serving.pings.sent) = (false, None),
                turn => break turn,
            },
            () = draining, if serving.going.is_none() => {}
            () = alarm.until(due) => match serving.rang() {
                Rang::Nothing => {}
                Rang::Dead => break Turn::Broken(None),
                Rang::Leave => {
                    connection.graceful_shutdown();
                    serving.going.get_or_insert(worker.now());
                }
                Rang::Gone => break Turn::Done,
            },
        }
    };
    let reason = match ended {
        Turn::Fault(fault) => {
            let reason = h2::Reason::from(fault.code());
            if let Fault::Flood(flood) = fault {
                bump(&mut worker.telemetry().limits, flood.word());
                tracing::warn!(from = %serving.visitor.remote.address, %flood, "a client floods its connection");
            } else {
                bump(&mut worker.telemetry().malformed, word_of(reason));
            }
            Some(reason)
        }
        Turn::Broken(Some(h2::Reason::ENHANCE_YOUR_CALM)) => {
            // The machine has limits of its own, below which one turn's frames may be too many for it.
            bump(&mut worker.telemetry().limits, "h2_flood_machine");
            None
        }
        Turn::Broken(Some(reason)) => {
            bump(&mut worker.telemetry().malformed, word_of(reason));
            None
        }
        _ => None,
    };
    if let Some(reason) = reason {
        connection.abrupt_shutdown(reason);
    }
    let flooded = matches!(ended, Turn::Fault(Fault::Flood(_)));
    let deadline = worker.now().after(LINGER);
    tokio::select! {
        biased;
        () = farewell(&mut connection, &wire, flooded) => {}
        () = alarm.until(deadline) => {}
    }
    drop(connection);
    drop(under_way);
}

/// Exchanges prefaces.
async fn shake(worker: &Rc<Worker>, wire: &Rc<Wire>, outside: bool) -> Option<Connection<Io, Piece>> {
    let window = if outside { OUTSIDE_CONNECTION_WINDOW } else { CONNECTION_WINDOW };
    let mut shaking = pin!(
        Builder::new()
            .max_concurrent_streams(STREAMS_MAX)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
            .max_local_error_reset_streams(Some(BROKEN_STREAMS_MAX))
            .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
            .reset_stream_duration(RESETS_REMEMBERED)
            .enable_connect_protocol()
            .handshake::<_, Piece>(Io(wire.clone()))
    );
    let shaken = poll_fn(|cx| {
        let shaken = shaking.as_mut().poll(cx);
        if let Poll::Ready(Err(_)) = wire.poll_send(cx) {
            return Poll::Ready(None);
        }
        shaken.map(Result::ok)
    });
    let deadline = worker.clock.to_tokio(worker.now().after(HEAD_TIMEOUT));
    tokio::time::timeout_at(deadline, shaken).await.ok()?
}

/// Says what is left to say, and reads what is on its way, unless it is too much already.
async fn farewell(connection: &mut Connection<Io, Piece>, wire: &Wire, flooded: bool) {
    // The connection is over either way.
    let _ = poll_fn(|cx| {
        let closed = connection.poll_closed(cx);
        match wire.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) if closed.is_ready() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    wire.stream.shutdown_write();
    let mut left = if flooded { 0 } else { LINGER_BYTES_MAX };
    let mut scratch = Vec::with_capacity(4 * 1024);
    while left > 0 {
        if poll_fn(|cx| wire.stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        scratch.clear();
        match wire.stream.try_receive(&mut scratch) {
            Ok(0) => return,
            Ok(bytes) => left = left.saturating_sub(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A connection being served.
struct Serving {
    worker: Rc<Worker>,
    wire: Rc<Wire>,
    visitor: Rc<Visitor>,
    pings: Pings,
    /// When the last stream was seen to be over.
    idle_since: Instant,
    /// There were streams when somebody last looked.
    busy: bool,
    /// When the client is asked to leave.
    age: Option<Instant>,
    /// Since when it knows that we are going.
    going: Option<Instant>,
}

/// Our questions whether the client lives.
struct Pings {
    ping_pong: Option<PingPong>,
    /// One is not answered yet.
    asked: bool,
    /// Since when its answer is awaited because nothing else comes.
    sent: Option<Instant>,
}

/// What a deadline came to.
enum Rang {
    Nothing,
    /// The client does not answer.
    Dead,
    /// It is to leave.
    Leave,
    /// It has left, or does not notice.
    Gone,
}

impl Serving {
    /// No stream is open.
    fn is_idle(&self) -> bool {
        // Each stream holds on to its visitor until it is over.
        Rc::strong_count(&self.visitor) == 1
    }

    /// Moves frames both ways until nothing can move.
    fn poll_turn(&mut self, cx: &mut Context<'_>, connection: &mut Connection<Io, Piece>) -> Poll<Turn> {
        let mut opened = false;
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    opened |= self.is_idle();
                    self.open(request, respond);
                }
                Poll::Ready(Some(Err(error))) => {
                    // The machine has said why, if it could.
                    drop(self.wire.poll_send(cx));
                    return Poll::Ready(Turn::Broken(error.reason().filter(|_| error.is_library())));
                }
                Poll::Ready(None) => return Poll::Ready(Turn::Done),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(_)) = self.wire.poll_send(cx) {
            return Poll::Ready(Turn::Broken(None));
        }
        if let Some(fault) = self.wire.fault() {
            return Poll::Ready(Turn::Fault(fault));
        }
        if self.pings.asked
            && let Some(ping_pong) = &mut self.pings.ping_pong
            && let Poll::Ready(Ok(_)) = ping_pong.poll_pong(cx)
        {
            return Poll::Ready(Turn::Alive);
        }
        if opened {
            self.busy = true;
            return Poll::Ready(Turn::Opened);
        }
        Poll::Pending
    }

    /// Has a request served.
    fn open(&self, request: http::Request<RecvStream>, mut respond: SendResponse<Piece>) {
        let worker = &self.worker;
        let (parts, body) = request.into_parts();
        let desk = Desk::free(worker);
        let begun = {
            let target = &mut *desk.request().borrow_mut();
            let ended = body.is_end_stream();
            request::begin(&parts, ended, &worker.limits, &mut worker.rng(), target)
        };
        worker.h2_heads.borrow_mut().give(parts.headers);
        match begun {
            Ok(websocket) => {
                let visitor = self.visitor.clone();
                desk.serve(worker, NewStream { visitor, body, respond, websocket });
            }
            Err(refusal) => {
                desk.give_back(worker);
                bump(&mut worker.telemetry().malformed, refusal.word);
                match refusal.status {
                    Some(status) => answer(&mut worker.h2_heads.borrow_mut(), respond, status, &refusal),
                    None => respond.send_reset(h2::Reason::PROTOCOL_ERROR),
                }
            }
        }
    }

    /// When somebody must look after the connection.
    fn due(&mut self) -> Instant {
        let now = self.worker.now();
        let idle = self.is_idle();
        if idle && std::mem::take(&mut self.busy) {
            self.idle_since = now;
        }
        let due = match (self.pings.sent, self.going) {
            (Some(sent), _) => sent.after(PING_TIMEOUT),
            (None, Some(since)) if idle => since.after(FAREWELL),
            (None, _) if idle => self.idle_since.after(IDLE_TIMEOUT),
            (None, _) => self.wire.heard().after(PING_AFTER),
        };
        let age = self.age.filter(|_| self.going.is_none());
        let due = self.wire.unfinished().map_or(due, |begun| due.min(begun.after(HEAD_TIMEOUT)));
        // What has passed already while streams come and go is looked at again in a moment.
        due.min(age.unwrap_or(due)).max(now.after(MOMENT))
    }

    /// A deadline has passed, or would have if nothing had moved.
    fn rang(&mut self) -> Rang {
        let now = self.worker.now();
        if self.wire.unfinished().is_some_and(|begun| now >= begun.after(HEAD_TIMEOUT)) {
            return Rang::Dead;
        }
        if self.pings.sent.is_some_and(|sent| self.wire.heard() > sent) {
            // Whatever it said, it lives.
            self.pings.sent = None;
        }
        if let Some(sent) = self.pings.sent {
            return if now >= sent.after(PING_TIMEOUT) { Rang::Dead } else { Rang::Nothing };
        }
        if let Some(since) = self.going {
            if self.is_idle() && now >= since.after(FAREWELL) {
                return Rang::Gone;
            }
        } else if self.age.is_some_and(|age| now >= age)
            || self.is_idle() && !self.busy && now >= self.idle_since.after(IDLE_TIMEOUT)
        {
            return Rang::Leave;
        }
        if !self.is_idle()
            && now >= self.wire.heard().after(PING_AFTER)
            && let Some(ping_pong) = &mut self.pings.ping_pong
        {
            // One that was not answered while other things came will do.
            self.pings.asked = self.pings.asked || ping_pong.send_ping(Ping::opaque()).is_ok();
            self.pings.sent = self.pings.asked.then_some(now);
        }
        Rang::Nothing
    }
}

/// The shortest wait for a deadline.
const MOMENT: Duration = Duration::from_millis(100);

/// How old a connection becomes, by chance.
fn age(chance: u64) -> Duration {
    let percent = 100 - AGE_JITTER_PERCENT + chance % (2 * AGE_JITTER_PERCENT + 1);
    OUTSIDE_AGE * u32::try_from(percent).unwrap_or(100) / 100
}

/// Answers a request that never reaches a service.
fn answer(heads: &mut Heads, mut respond: SendResponse<Piece>, status: u16, refusal: &Refusal) {
    let body = format!("leno: {}: {}\n", refusal.word, refusal.sentence);
    let mut map = heads.map();
    heads.add(&mut map, b"leno-reason", refusal.word.as_bytes());
    heads.add(&mut map, b"content-type", b"text/plain; charset=utf-8");
    heads.add_number(&mut map, header::CONTENT_LENGTH, body.len() as u64);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    *response.headers_mut() = map;
    // A client that is gone already needs no answer.
    if let Ok(mut stream) = respond.send_response(response, false) {
        let piece = Piece::copy(body.as_bytes(), &crate::buffer::Stock::default());
        let _ = stream.send_data(piece, true);
    }
}

/// A client's mistake, in metrics.
const fn word_of(reason: h2::Reason) -> &'static str {
    match reason {
        h2::Reason::PROTOCOL_ERROR => "h2_protocol_error",
        h2::Reason::FLOW_CONTROL_ERROR => "h2_flow_control_error",
        h2::Reason::FRAME_SIZE_ERROR => "h2_frame_size_error",
        h2::Reason::COMPRESSION_ERROR => "h2_compression_error",
        _ => "h2_error",
    }
}

#[cfg(test)]
mod tests {
    use super::{OUTSIDE_AGE, age};

    #[test]
    fn ages_differ_by_ten_percent_at_most() {
        let ages: Vec<_> = (0..100).map(age).collect();
        assert!(ages.iter().all(|age| *age >= OUTSIDE_AGE * 9 / 10 && *age <= OUTSIDE_AGE * 11 / 10));
        assert!(ages.iter().any(|age| *age != ages[0]));
    }
}
