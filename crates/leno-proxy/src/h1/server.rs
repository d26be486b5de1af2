//! A client's HTTP/1 connection: one request after the other, each driven to its end before the next is looked at.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use leno_core::detect::{Detected, HTTP2_PREFACE, detect};
use leno_core::edit::Edits;
use leno_core::head::{FieldId, Fields, ResponseHead};
use leno_core::http1::{BodyFraming, ParseError, RequestMeta, RequestParser, ResponseFor, Version, is_token};
use leno_core::mux::{Kind, META_TEXT_BYTES_MAX};
use leno_core::reason::{Reason, phrase};
use leno_core::time::Duration;
use tokio::task::coop::consume_budget;

use super::{Reader, Writer};
use crate::alarm::Alarm;
use crate::body::{Request, ResponseSink, Sink};
use crate::buffer::{BUFFER_BYTES, ReadBuffer};
use crate::caller::{Caller, Remote};
use crate::downstream::{self, Arrival};
use crate::drive::drive;
use crate::io::Stream;
use crate::listen::Guard;
use crate::telemetry::bump;
use crate::worker::{Client, ClientGuard, Worker};

/// How long a client may be silent between two requests. Long, because closing under a client that is about to send
/// is what makes its request fail (nginx 75 s, Envoy 1 h).
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(600);
/// How long a request head may take from its first byte (nginx 60 s; Apache 20 s and more with progress).
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long we go on reading after an answer that was given before the request was read, so that the client reads the
/// answer instead of seeing a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much we read then, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long a connection without a request keeps what an exchange needs, some KiB. After that it is watched by a much
/// smaller task, because most connections are quiet for most of their time.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// Serves a client until one of the two closes the connection.
pub(crate) fn serve(worker: &Rc<Worker>, arrival: Arrival) {
    let Some((client, entry)) = worker.enter(&arrival.stream) else { return };
    let Arrival { stream, first, remote, caller, guard } = arrival;
    let visit = Box::new(Visit { stream, client, remote, caller, _entry: entry, guard });
    worker.spawn(move |worker| active(worker, visit, first));
}

/// What a client's connection is, with or without a request under way.
struct Visit {
    stream: Rc<Stream>,
    client: Rc<Client>,
    remote: Remote,
    caller: Caller,
    _entry: ClientGuard,
    guard: Guard,
}

/// Serves one request after the other until there has been none for a while.
///
/// A connection that is new may turn out to be HTTP/2: its first bytes are then what HTTP/1 has refused.
async fn active(worker: Rc<Worker>, visit: Box<Visit>, first: Vec<u8>) {
    let _active = worker.activate();
    let blame = Reason::RequestMalformed;
    let mut connection = Connection {
        reader: Reader::new(visit.stream.clone(), worker.stock.clone(), &worker.limits, blame),
        writer: Writer::new(visit.stream.clone(), worker.stock.clone()),
        parser: RequestParser::default(),
        request: Request::default(),
        alarm: Alarm::new(worker.clock),
        client: visit.client.clone(),
        fresh: true,
        worker,
    };
    if !first.is_empty() {
        connection.reader.buffer = ReadBuffer::beginning_with(connection.worker.stock.clone(), first);
    }
    let mut edits = Edits::default();
    loop {
        // Requests that were sent ahead and are answered here wait for nothing: the others of this worker would.
        consume_budget().await;
        let head = pin!(connection.head()).await;
        let meta = match head {
            Head::Request(meta) => meta,
            Head::Http2 => {
                let first = connection.reader.buffer.take_all();
                let worker = connection.worker.clone();
                drop(connection);
                let Visit { stream, remote, caller, guard, .. } = *visit;
                return downstream::serve_http2(&worker, Arrival { stream, first, remote, caller, guard });
            }
            Head::Refused(error) => {
                if connection.fresh {
                    connection.note_mismatch(&visit.caller);
                }
                return connection.refuse(error).await;
            }
            Head::Late => return connection.refuse_late().await,
            Head::Quiet => {
                let worker = connection.worker.clone();
                drop(connection);
                return worker.spawn(move |worker| quiet(worker, visit));
            }
            Head::Closed => return,
        };
        connection.client.idle.set(false);
        connection.begin(&meta, &visit.caller);
        edits.clear();
        let Connection { reader, writer, request, alarm, worker, .. } = &mut connection;
        let Visit { caller, remote, .. } = &*visit;
        pin!(drive(worker, caller, remote, request, &mut edits, reader, writer, alarm)).await;
        if connection.writer.cut {
            return;
        }
        if !connection.writer.keep_alive || connection.worker.draining() || !connection.reader.body_ended() {
            return connection.close().await;
        }
        connection.client.idle.set(true);
    }
}

/// Watches a connection until the client says something or has been silent for too long.
async fn quiet(worker: Rc<Worker>, visit: Box<Visit>) {
    let mut alarm = Alarm::new(worker.clock);
    let deadline = worker.now().after(KEEP_ALIVE_IDLE);
    let said = tokio::select! {
        biased;
        said = poll_fn(|cx| visit.stream.poll_read_ready(cx)) => said.is_ok(),
        () = alarm.until(deadline) => false,
    };
    if said {
        worker.spawn(move |worker| active(worker, visit, Vec::new()));
    }
}

/// One client's connection.
struct Connection {
    worker: Rc<Worker>,
    client: Rc<Client>,
    /// No request has come yet.
    fresh: bool,
    reader: Reader,
    writer: Writer,
    parser: RequestParser,
    request: Request,
    alarm: Alarm,
}

enum Head {
    Request(RequestMeta),
    /// The connection is one of HTTP/2.
    Http2,
    Refused(ParseError),
    /// Not in time, after it had begun.
    Late,
    /// Not for a while.
    Quiet,
    /// The client closed between two requests.
    Closed,
}

impl Connection {
    /// Waits for the next request head.
    async fn head(&mut self) -> Head {
        let limit = self.worker.limits.head_bytes_max;
        let mut begun = None;
        loop {
            let filled = self.reader.buffer.filled();
            match self.parser.parse(filled, &self.worker.limits, &mut self.request.index) {
                Ok(Some(meta)) => return Head::Request(meta),
                Ok(None) => {}
                // The preface of HTTP/2 is made to be refused by HTTP/1 (RFC 9113 §3.4).
                Err(_)
                    if self.fresh
                        && HTTP2_PREFACE.starts_with(filled)
                        && filled.len() < HTTP2_PREFACE.len() => {}
                Err(_) if self.fresh && filled.starts_with(HTTP2_PREFACE) => return Head::Http2,
                Err(error) => return Head::Refused(error),
            }
            let idle = filled.is_empty();
            if idle && self.worker.draining() {
                return Head::Closed;
            }
            let since =
                if idle { self.worker.now() } else { *begun.get_or_insert_with(|| self.worker.now()) };
            let deadline = since.after(if idle { QUIET_AFTER } else { HEAD_TIMEOUT });
            tokio::select! {
                biased;
                read = self.reader.fill(limit) => match read {
                    Ok(0) if !idle => return Head::Refused(ParseError::Truncated),
                    Ok(0) | Err(_) => return Head::Closed,
                    Ok(_) => {}
                },
                () = self.alarm.until(deadline) => return if idle { Head::Quiet } else { Head::Late },
            }
        }
    }

    /// Keeps the head until the exchange is over and makes both halves ready for the body and the answer.
    fn begin(&mut self, meta: &RequestMeta, caller: &Caller) {
        self.fresh = false;
        let request = &mut self.request;
        request.bytes.clear();
        let head = self.reader.buffer.filled().get(..meta.head_bytes).unwrap_or(&[]);
        request.bytes.extend_from_slice(head);
        self.reader.buffer.consume(meta.head_bytes);
        request.expect_continue = meta.expect_continue;
        request.te_trailers = meta.te_trailers;
        request.upgrade.clear();
        // A request with a body that also offers an upgrade is served without it, as RFC 9110 §7.8 allows: the next hop
        // could not tell where the body ends and the other protocol begins.
        if meta.upgrade && meta.framing == BodyFraming::None {
            let offer = request.index.view(&request.bytes).fields.get(FieldId::Upgrade).unwrap_or(&[]);
            if names_protocol(offer) {
                request.upgrade.extend_from_slice(offer);
            }
        }
        let upgrade = !request.upgrade.is_empty();
        let method = request.index.method.of(&request.bytes);
        // A tunnel through the forward proxy is a connection of the client's own: bytes that nobody looks into.
        let tunnel = method == b"CONNECT" && matches!(caller, Caller::Forward);
        let answers = ResponseFor::request(method, upgrade);
        request.kind = if tunnel { Kind::Tcp } else { Kind::Http };
        let framing = if tunnel { BodyFraming::Tunnel } else { meta.framing };
        request.framing = framing;
        self.reader.begin_body(framing);
        let keep_alive = meta.keep_alive && !self.worker.draining();
        self.writer.begin_answer(answers, meta.version, keep_alive);
    }

    /// The first bytes are no HTTP: perhaps they never were meant to be.
    fn note_mismatch(&self, caller: &Caller) {
        let observed = detect(self.reader.buffer.filled());
        if matches!(observed, Detected::Tls | Detected::Opaque) {
            let declared = self.worker.snapshot().expected(caller.entry());
            self.worker.note_mismatch(caller, declared, observed);
        }
    }

    /// Answers a request that is not HTTP, and closes.
    async fn refuse(&mut self, error: ParseError) {
        bump(&mut self.worker.telemetry().malformed, error.reason());
        self.answer(error.status(), error.reason(), &error.to_string()).await;
    }

    async fn refuse_late(&mut self) {
        let reason = Reason::RequestHeadTimeout;
        bump(&mut self.worker.telemetry().malformed, reason.word());
        self.answer(reason.status(), reason.word(), reason.sentence()).await;
    }

    async fn answer(&mut self, status: u16, word: &str, sentence: &str) {
        self.writer.discard();
        self.writer.begin_answer(ResponseFor::default(), Version::Http11, false);
        let body = format!("leno: {word}: {sentence}\n");
        let mut edits = Edits::default();
        edits.add(b"leno-reason", word.as_bytes());
        edits.add(b"content-type", b"text/plain; charset=utf-8");
        let head = ResponseHead { status, reason: phrase(status), fields: Fields::default() };
        let framing = BodyFraming::Length(body.len() as u64);
        let sent = async {
            ResponseSink::head(&mut self.writer, &head, &edits, framing, b"").await?;
            self.writer.write(body.as_bytes()).await?;
            self.writer.finish(Fields::default()).await
        };
        // The client has as long to take the answer as it had to send its head.
        let deadline = self.worker.clock.to_tokio(self.worker.now().after(HEAD_TIMEOUT));
        if let Ok(Ok(())) = tokio::time::timeout_at(deadline, sent).await {
            self.linger().await;
        }
    }

    /// Closes after the last answer. What the client is still sending is read for a moment, so that the kernel does
    /// not reset the connection under an answer that the client has not read yet.
    async fn close(&mut self) {
        // Requests that were sent ahead and will not be answered count too: unread bytes make the kernel reset.
        if !self.reader.body_ended() || !self.reader.buffer.is_empty() {
            self.linger().await;
        }
    }

    async fn linger(&mut self) {
        self.client.stream().shutdown_write();
        let deadline = self.worker.now().after(LINGER);
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let filled = self.reader.buffer.filled().len();
            self.reader.buffer.consume(filled);
            tokio::select! {
                biased;
                read = self.reader.fill(BUFFER_BYTES) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                },
                () = self.alarm.until(deadline) => return,
            }
        }
    }
}

/// True for `name` or `name/version`, which is what every hop can pass on; a list of protocols or anything else is served
/// as a request without an offer.
fn names_protocol(offer: &[u8]) -> bool {
    let mut parts = offer.splitn(2, |byte| *byte == b'/');
    offer.len() <= META_TEXT_BYTES_MAX && parts.all(is_token)
}
