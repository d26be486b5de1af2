//! Connections that nobody looks into: bytes up are the body of one request, bytes down the body of its answer, so that
//! the one exchange machine picks, dials, retries and reports for them too.
//!
//! A connection of which nobody knows what is spoken on it starts as one of these while its first bytes are awaited
//! ([`Choice::Open`]): the upstream is dialed meanwhile, and whoever speaks first decides. When it was the client, in HTTP, the
//! attempt is dropped without a trace and the connection goes on as HTTP.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use leno_core::detect::{Detected, LINE_BYTES_MAX, Verdict, detect};
use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{Fields, RequestHead, RequestIndex, ResponseHead, Span};
use leno_core::http1::BodyFraming;
use leno_core::mux::Kind;
use leno_core::reason::Reason;
use leno_core::route::Expected;

use crate::alarm::Alarm;
use crate::body::{
    Arrived, Broken, Chunk, Hop, Request, RequestSink, ResponseSink, ResponseSource, Sink, Source,
};
use crate::buffer::{ReadBuffer, Stock};
use crate::downstream::Arrival;
use crate::drive::drive;
use crate::io::Stream;
use crate::splice::{Carried, Passage, SMALL_BYTES};
use crate::worker::Worker;

/// Bytes read at a time, from when more than a usual buffer has come.
const BULK_READ_BYTES: u64 = 64 * 1024;
/// When so much has come in pieces that are not small, between two plain sockets the kernel moves the rest.
const BULK_BYTES: u64 = 256 * 1024;
/// Silence of an end before it is asked whether it lives (the kernel's default is two hours).
const PROBE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Serves a connection as bytes to its end.
pub(crate) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let authority = arrival.caller.authority();
    serve_for(worker, arrival, authority).await;
}

/// The same for a client that has said where it wants to go.
pub(crate) async fn serve_for(worker: Rc<Worker>, arrival: Arrival, authority: String) {
    let mut stream = Connection::downstream(&worker, &arrival, Choice::Made);
    converse(&worker, &arrival, authority, &mut stream).await;
    let Some(observed @ (Detected::Http1 | Detected::Http2)) = stream.source.observed else { return };
    let declared = worker.snapshot().expected(arrival.caller.entry());
    match arrival.caller.port() {
        Some(port) if declared == Expected::Anything => worker.verdicts.borrow_mut().forget(&port),
        _ => worker.note_mismatch(&arrival.caller, declared, observed),
    }
}

/// How the wait for somebody's first words ended.
pub(crate) enum Spoken {
    /// The client spoke HTTP of this version; these are its first bytes.
    Http(Detected, Vec<u8>),
    /// The connection was served as bytes, to its end.
    Opaque,
    /// The upstream could not be reached, and nobody has said anything; these bytes of the client have come.
    Unreachable(Vec<u8>),
}

/// Dials the upstream while the client's first words are awaited, and serves the connection as bytes if they are no HTTP;
/// with `stop_at_tls`, a client that begins TLS is handed back like one that speaks HTTP.
pub(crate) async fn speculate(worker: &Rc<Worker>, arrival: &mut Arrival, stop_at_tls: bool) -> Spoken {
    let shared = Rc::new(Undecided { state: Cell::default(), stop_at_tls });
    let mut stream = Connection::downstream(worker, arrival, Choice::Open(shared.clone()));
    arrival.first = Vec::new();
    {
        let authority = arrival.caller.authority();
        let mut conversation = pin!(converse(worker, arrival, authority, &mut stream));
        let mut draining = pin!(worker.drain_begun());
        std::future::poll_fn(|cx| {
            let over = conversation.as_mut().poll(cx).is_ready();
            if over || matches!(shared.state.get(), State::Http(_)) {
                return Poll::Ready(());
            }
            // Nobody has said anything that a stopping proxy would have to wait for.
            if shared.state.get() == State::Waiting { draining.as_mut().poll(cx) } else { Poll::Pending }
        })
        .await;
    }
    match shared.state.get() {
        State::Http(version) => Spoken::Http(version, stream.source.buffer.take_all()),
        State::Failed => Spoken::Unreachable(stream.source.buffer.take_all()),
        State::Waiting | State::Opaque => {
            let verdict = (shared.state.get() == State::Opaque).then_some(Verdict::Opaque);
            if let (Some(port), Some(verdict)) = (arrival.caller.port(), verdict) {
                worker.verdicts.borrow_mut().learn(&port, verdict);
            }
            Spoken::Opaque
        }
    }
}

async fn converse(worker: &Rc<Worker>, arrival: &Arrival, authority: String, stream: &mut Connection) {
    arrival.stream.probe_after(PROBE_AFTER);
    let mut request = Request { kind: Kind::Tcp, framing: BodyFraming::Tunnel, ..Request::default() };
    request.index = RequestIndex { authority: Span::new(0, authority.len()), ..RequestIndex::default() };
    request.bytes = authority.into_bytes();
    let (mut edits, mut alarm) = (Edits::default(), Alarm::new(worker.clock));
    let Connection { source, sink } = stream;
    pin!(drive(worker, &arrival.caller, &arrival.remote, &request, &mut edits, source, sink, &mut alarm))
        .await;
}

/// Whether it is known that the bytes are to pass.
#[derive(Debug)]
pub(crate) enum Choice {
    /// They are.
    Made,
    /// The first bytes of either side will tell.
    Open(Rc<Undecided>),
}

/// What both halves of an undecided connection share.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    state: Cell<State>,
    /// Which host a TLS client wants is to be known before its bytes pass.
    stop_at_tls: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody has said enough.
    #[default]
    Waiting,
    /// The bytes pass.
    Opaque,
    /// The client speaks HTTP of this version.
    Http(Detected),
    /// There is nobody to pass them to.
    Failed,
}

impl Choice {
    fn state(&self) -> State {
        match self {
            Self::Made => State::Opaque,
            Self::Open(shared) => shared.state.get(),
        }
    }

    fn stops_at_tls(&self) -> bool {
        matches!(self, Self::Open(shared) if shared.stop_at_tls)
    }

    fn set(&self, state: State) {
        if let Self::Open(shared) = self {
            shared.state.set(state);
        }
    }
}

/// Both halves of a connection, to the client or to an application.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) source: Reader,
    pub(crate) sink: Writer,
}

impl Connection {
    /// Connects to an application. The caller bounds the wait.
    pub(crate) async fn dial(worker: &Worker, address: SocketAddr) -> io::Result<Self> {
        let stream = worker.dialer.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(worker, Rc::new(Stream::Plain(stream))))
    }

    /// A connection to an application that was made.
    pub(crate) fn over(worker: &Worker, stream: Rc<Stream>) -> Self {
        stream.probe_after(PROBE_AFTER);
        Self::new(stream, ReadBuffer::new(worker.stock.clone()), &Choice::Made)
    }

    /// Sends what comes before everything else, on a connection that is new: it fits into the socket's empty buffer.
    pub(crate) fn begin_with(&self, header: &[u8]) -> io::Result<()> {
        match self.sink.stream.try_send(header, &[])? {
            sent if sent == header.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The client's connection.
    fn downstream(worker: &Worker, arrival: &Arrival, choice: Choice) -> Self {
        let buffer = beginning_with(worker.stock.clone(), &arrival.first);
        Self::new(arrival.stream.clone(), buffer, &choice)
    }

    fn new(stream: Rc<Stream>, buffer: ReadBuffer, choice: &Choice) -> Self {
        let share = || match choice {
            Choice::Made => Choice::Made,
            Choice::Open(shared) => Choice::Open(shared.clone()),
        };
        Self {
            source: Reader {
                stream: stream.clone(),
                buffer,
                ended: false,
                shown: 0,
                read: 0,
                observed: None,
                choice: share(),
            },
            sink: Writer { stream, ended: false, choice: share() },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A connection that nobody ended is cut: what is missing must not look like an end. One that becomes HTTP goes on.
        let goes_on = matches!(self.source.choice.state(), State::Http(_) | State::Failed | State::Waiting);
        let over = self.source.ended && self.sink.ended;
        if !goes_on && !over {
            self.sink.stream.reset_on_close();
        }
    }
}

fn beginning_with(stock: Stock, first: &[u8]) -> ReadBuffer {
    if first.is_empty() { ReadBuffer::new(stock) } else { ReadBuffer::beginning_with(stock, first.to_vec()) }
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Rc<Stream>,
    buffer: ReadBuffer,
    /// The other end has closed its direction.
    ended: bool,
    /// Bytes that were shown and not yet taken.
    shown: usize,
    /// Bytes read since the last small piece.
    read: u64,
    /// What the first bytes look like, although they pass whatever they are.
    observed: Option<Detected>,
    choice: Choice,
}

impl Reader {
    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            match self.buffer.try_read(&self.stream, limit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Ok(0));
                }
                Ok(bytes) => {
                    self.read = if bytes < SMALL_BYTES { 0 } else { self.read + bytes as u64 };
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Looks at what has come while nobody knows what it is.
    fn decide(&self) {
        if self.choice.state() != State::Waiting {
            return;
        }
        match detect(self.buffer.filled()) {
            // A client that has ended without a whole word of HTTP spoke something else; one that said nothing may listen.
            Detected::NeedMore if self.ended => self.choice.set(State::Opaque),
            Detected::NeedMore => {}
            Detected::Tls if self.choice.stops_at_tls() => self.choice.set(State::Http(Detected::Tls)),
            Detected::Tls | Detected::Opaque => self.choice.set(State::Opaque),
            http @ (Detected::Http1 | Detected::Http2) => self.choice.set(State::Http(http)),
        }
    }
}

impl Source for Reader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        self.decide();
        if self.choice.state() != State::Opaque {
            return Ok(Chunk::Empty);
        }
        let bytes = self.buffer.filled();
        self.shown = bytes.len();
        if self.observed.is_none() && !bytes.is_empty() {
            self.observed = Some(detect(bytes));
        }
        Ok(match bytes {
            [] if self.ended => Chunk::End,
            [] => Chunk::Empty,
            bytes => Chunk::Data(bytes),
        })
    }

    fn consume(&mut self) {
        self.buffer.consume(std::mem::take(&mut self.shown));
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        if self.read > BULK_READ_BYTES {
            self.buffer.expect(BULK_READ_BYTES);
        }
        let read = std::future::poll_fn(|cx| match self.choice.state() {
            // It was the other side that decided.
            State::Opaque if self.ended || !self.buffer.is_empty() => Poll::Ready(Ok(0)),
            State::Http(_) | State::Failed => Poll::Pending,
            State::Waiting if self.ended => Poll::Pending,
            State::Waiting => {
                let read = self.poll_fill(cx, LINE_BYTES_MAX);
                self.decide();
                read
            }
            State::Opaque => self.poll_fill(cx, BULK_READ_BYTES as usize),
        });
        match read.await {
            Ok(_) => Ok(()),
            Err(_) => Err(Broken::CLOSED),
        }
    }

    fn trailers(&self) -> Fields<'_> {
        Fields::default()
    }

    fn passage(&self) -> Option<Passage> {
        let bulk = self.read > BULK_BYTES && !self.ended && self.buffer.is_empty();
        if !bulk || self.stream.session().is_some() || self.choice.state() != State::Opaque {
            return None;
        }
        Some(Passage { stream: self.stream.clone(), stock: self.buffer.stock().clone() })
    }

    fn passed(&mut self, carried: Carried) {
        match carried {
            Carried::End => self.ended = true,
            Carried::NoBulk => self.read = 0,
        }
    }

    async fn gone(&mut self) {
        // The end of the client's direction is no end of the connection; only an error is.
        loop {
            let limit = LINE_BYTES_MAX;
            let waits = !self.ended
                && self.buffer.filled().len() < limit
                && matches!(self.choice.state(), State::Waiting | State::Opaque);
            if !waits {
                return std::future::pending().await;
            }
            if std::future::poll_fn(|cx| self.poll_fill(cx, limit)).await.is_err() {
                return;
            }
            self.decide();
        }
    }

    fn cut_off(&self) -> impl Future<Output = ()> + use<> {
        let stream = self.stream.clone();
        async move { stream.failed().await }
    }
}

impl ResponseSource for Reader {
    async fn head(&mut self) -> Result<Arrived, Broken> {
        // That it is connected is all that there is to say.
        Ok(Arrived { status: CONNECTED, framing: BodyFraming::Tunnel, interim: false })
    }

    fn view(&self) -> ResponseHead<'_> {
        ResponseHead { status: CONNECTED, reason: b"OK", fields: Fields::default() }
    }

    fn upgrade(&self) -> &[u8] {
        b""
    }
}

/// What stands for a connection that is there.
const CONNECTED: u16 = 200;

/// The writing half.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: Rc<Stream>,
    /// Our direction has ended.
    ended: bool,
    choice: Choice,
}

impl Writer {
    fn poll_write(&self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            match self.stream.try_send(rest, &[]) {
                Ok(bytes) => *rest = rest.get(bytes..).unwrap_or(&[]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.stream.poll_flush(cx)
    }
}

impl Sink for Writer {
    async fn write(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let undecided = self.choice.state() == State::Waiting;
        if undecided {
            self.choice.set(State::Opaque);
        }
        let mut rest = payload;
        let mut wake = undecided;
        std::future::poll_fn(|cx| {
            if std::mem::take(&mut wake) {
                // Half of a first word may be waiting on the other side, which had its turn before this one.
                cx.waker().wake_by_ref();
            }
            self.poll_write(cx, &mut rest)
        })
        .await
        .map_err(|_| Broken::CLOSED)
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        std::future::poll_fn(|cx| self.stream.poll_flush(cx)).await.map_err(|_| Broken::CLOSED)
    }

    fn passage(&self) -> Option<Rc<Stream>> {
        let plain = self.stream.session().is_none() && self.choice.state() == State::Opaque;
        plain.then(|| self.stream.clone())
    }

    async fn finish(&mut self, _trailers: Fields<'_>) -> Result<(), Broken> {
        // A server that ends without a word has decided, too.
        if self.choice.state() == State::Waiting {
            self.choice.set(State::Opaque);
        }
        self.stream.shutdown_write();
        self.ended = true;
        self.flush().await
    }
}

impl RequestSink for Writer {
    fn head(&mut self, _: &RequestHead<'_>, _: &Edits, _: &Hop<'_>) -> Result<(), Broken> {
        Ok(())
    }
}

impl ResponseSink for Writer {
    async fn head(
        &mut self,
        _: &ResponseHead<'_>,
        _: &Edits,
        _: BodyFraming,
        _: &[u8],
    ) -> Result<(), Broken> {
        Ok(())
    }

    fn refuse(&mut self, _reason: Reason, _app_saw: AppSaw) -> bool {
        // There is no way to say why on a connection that nobody looks into; the record says it.
        if self.choice.state() == State::Waiting {
            self.choice.set(State::Failed);
        } else {
            self.stream.reset_on_close();
        }
        true
    }

    fn cut(&mut self, _reason: Reason) {
        self.stream.reset_on_close();
    }
}
