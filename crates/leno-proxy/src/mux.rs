//! The mesh transport on sockets: one task per connection moves bytes between TLS and the core's machine; each stream
//! has a slot where that task leaves what came and where the stream's own task finds it.
//!
//! Streams write into the machine's output; the connection's task is woken once and runs after everything that was
//! ready in this turn of the worker, so all frames of a turn leave in one TLS write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use leno_core::exchange::AppSaw;
use leno_core::head::{Field, FieldId, ResponseIndex};
use leno_core::http1::BodyFraming;
use leno_core::mux::{self, Body, Code, Event, HeadIndex, Limits, Mux, Role, StreamId};
use leno_core::reason::Reason;
use leno_core::time::Duration;
use leno_identity::reason::Reason as TlsReason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::alarm::Alarm;
use crate::body::{Arrived, Broken, Request};
use crate::clock::Clock;

pub(crate) mod accept;
pub(crate) mod pool;
pub(crate) mod stream;

/// Bytes read from TLS at a time: two records.
const READ_BYTES: usize = 32 * 1024;
/// How long a connection that can make no more use of its peer waits for the last bytes to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes that all streams of a connection together may have unread: a whole window for each of the 256 streams after
/// which the pool makes another connection. With less, a few clients that do not read would use it up and stop every
/// other stream of the connection. It is held only for clients that are slow, 256 KiB for each.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// One connection to a peer, as its streams see it.
#[derive(Debug)]
pub(crate) struct Conn {
    machine: RefCell<Mux>,
    /// By [`StreamId::slot`].
    slots: RefCell<Vec<Option<Rc<Slot>>>>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
    /// The task has been woken and has not run yet.
    woken: Cell<bool>,
    /// The connection is over.
    closed: Cell<bool>,
    /// The peer has said its first words: it accepts us, and its limits are known.
    settled: Cell<bool>,
    /// Somebody wanted to open a stream and could not.
    full: Cell<bool>,
    /// Rings when that somebody may try again.
    room: Rc<Notify>,
    clock: Clock,
}

/// What the connection's task leaves for one stream.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: RefCell<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Body bytes that came and were not taken.
    data: Vec<u8>,
    /// The peer's half has ended.
    ended: bool,
    /// Heads that came and were not taken: interim ones and the final one. The machine bounds their number.
    heads: VecDeque<Head>,
    trailers: Vec<Field>,
    trailer_bytes: Vec<u8>,
    /// The stream was cut off.
    broken: Option<(Broken, Option<Code>)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A response head that waits in a slot.
#[derive(Debug)]
struct Head {
    arrived: Arrived,
    index: ResponseIndex,
    bytes: Vec<u8>,
    /// The protocol that a 101 switches to.
    upgrade: Vec<u8>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            arrived: Arrived { status: 0, framing: BodyFraming::None, interim: false },
            index: ResponseIndex::default(),
            bytes: Vec::new(),
            upgrade: Vec::new(),
        }
    }
}

impl SlotState {
    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn break_off(&mut self, broken: Broken, code: Option<Code>) {
        self.broken.get_or_insert((broken, code));
        self.wake_reader();
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl Conn {
    /// A connection that was just established. `room` rings when a stream can be opened that could not before.
    pub(crate) fn new(role: Role, clock: Clock, room: Rc<Notify>) -> Rc<Self> {
        let limits = Limits { connection_window: CONNECTION_WINDOW, ..Limits::default() };
        Rc::new(Self {
            machine: RefCell::new(Mux::new(role, limits, clock.now())),
            slots: RefCell::default(),
            waker: RefCell::default(),
            woken: Cell::new(false),
            closed: Cell::new(false),
            settled: Cell::new(false),
            full: Cell::new(false),
            room,
            clock,
        })
    }

    /// True when a new stream can be opened now.
    pub(crate) fn can_open(&self) -> bool {
        let can = !self.closed.get() && self.machine.borrow().can_open();
        self.full.set(!can);
        can
    }

    /// Waits until the peer has said its first words. Polled beside [`Conn::run`] by one task, whose every turn it sees.
    pub(crate) async fn settled(&self) {
        std::future::poll_fn(|_| if self.settled.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// True when it will never take another stream.
    pub(crate) fn is_leaving(&self) -> bool {
        self.closed.get() || self.machine.borrow().is_draining()
    }

    /// Streams that are not over.
    pub(crate) fn streams_open(&self) -> usize {
        self.machine.borrow().streams_open()
    }

    /// Begins to finish: no new streams, those that are open go on to their end.
    pub(crate) fn drain(&self) {
        self.machine.borrow_mut().drain(self.clock.now());
        self.wake();
    }

    /// Lets the connection's task run after everything that is ready now.
    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    fn enter(&self, stream: StreamId) -> Rc<Slot> {
        let slot = Rc::new(Slot::default());
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= stream.slot() {
            slots.resize(stream.slot() + 1, None);
        }
        if let Some(place) = slots.get_mut(stream.slot()) {
            *place = Some(slot.clone());
        }
        slot
    }

    fn slot(&self, stream: StreamId) -> Option<Rc<Slot>> {
        self.slots.borrow().get(stream.slot())?.clone()
    }

    fn leave(&self, stream: StreamId, slot: &Rc<Slot>) {
        // The place may already be another stream's.
        if let Some(place) = self.slots.borrow_mut().get_mut(stream.slot())
            && place.as_ref().is_some_and(|placed| Rc::ptr_eq(placed, slot))
        {
            *place = None;
        }
    }

    /// Serves the connection until it is over. `on_request` is called for each stream that the peer opens.
    pub(crate) async fn run<S>(self: Rc<Self>, mut tls: S, mut on_request: impl FnMut(NewStream)) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut alarm = Alarm::new(self.clock);
        let mut input = Input { bytes: vec![0; READ_BYTES], filled: 0, index: HeadIndex::default() };
        let ended = loop {
            let timeout = self.machine.borrow().poll_timeout();
            let due = timeout.map_or(self.clock.now(), |(at, _)| at);
            let turn = std::future::poll_fn(|cx| self.poll_turn(cx, &mut tls, &mut input, &mut on_request));
            tokio::select! {
                biased;
                ended = turn => break ended,
                () = alarm.until(due) => {
                    let handled = self.machine.borrow_mut().handle_timeout(self.clock.now());
                    if let Err(error) = handled {
                        break Ended::Broken(error);
                    }
                }
            }
        };
        self.closed.set(true);
        self.lose_streams();
        // What the machine still wants to say (why it closed) is worth a moment, not more.
        let deadline = self.clock.to_tokio(self.clock.now().after(LAST_WORDS));
        let last_words = std::future::poll_fn(|cx| {
            ready!(self.poll_write(cx, &mut tls))?;
            Pin::new(&mut tls).poll_shutdown(cx)
        });
        let _ = tokio::time::timeout_at(deadline, last_words).await;
        ended
    }

    /// Moves bytes both ways until nothing can move; ready when the connection is over.
    fn poll_turn<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        tls: &mut S,
        input: &mut Input,
        on_request: &mut impl FnMut(NewStream),
    ) -> Poll<Ended> {
        self.woken.set(false);
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            slot => *slot = Some(cx.waker().clone()),
        }
        loop {
            if let Poll::Ready(Err(error)) = self.poll_write(cx, tls) {
                return Poll::Ready(Ended::Lost(error));
            }
            self.wake_writers();
            if self.full.get() && self.can_open() {
                self.room.notify_waiters();
            }
            if self.machine.borrow().is_finished() {
                return Poll::Ready(Ended::Done);
            }
            let mut space = ReadBuf::new(input.bytes.get_mut(input.filled..).unwrap_or(&mut []));
            match Pin::new(&mut *tls).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if space.filled().is_empty() => return Poll::Ready(Ended::Closed),
                Poll::Ready(Ok(())) => input.filled += space.filled().len(),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Lost(error)),
                Poll::Pending => return Poll::Pending,
            }
            if let Err(error) = self.receive(input, on_request) {
                return Poll::Ready(Ended::Broken(error));
            }
        }
    }

    fn poll_write<S: AsyncWrite + Unpin>(&self, cx: &mut Context<'_>, tls: &mut S) -> Poll<io::Result<()>> {
        loop {
            let mut machine = self.machine.borrow_mut();
            let output = machine.output();
            if output.is_empty() {
                drop(machine);
                return Pin::new(tls).poll_flush(cx);
            }
            let sent = ready!(Pin::new(&mut *tls).poll_write(cx, output))?;
            machine.output_sent(sent);
        }
    }

    fn wake_writers(&self) {
        loop {
            let Some(stream) = self.machine.borrow_mut().next_writable() else { return };
            if let Some(slot) = self.slot(stream)
                && let Some(waker) = slot.state.borrow_mut().writer.take()
            {
                waker.wake();
            }
        }
    }

    /// Hands what came to the machine and its events to the streams.
    fn receive(
        &self,
        input: &mut Input,
        on_request: &mut impl FnMut(NewStream),
    ) -> Result<(), mux::ConnectionError> {
        let now = self.clock.now();
        let mut start = 0;
        loop {
            let rest = input.bytes.get(start..input.filled).unwrap_or(&[]);
            let (used, event) = self.machine.borrow_mut().receive(now, rest, &mut input.index)?;
            start += used;
            match event {
                Some(event) => self.deliver(event, &mut input.index, on_request),
                None => break,
            }
        }
        if start > 0 {
            // Whatever it was, the machine lets nothing pass before SETTINGS.
            self.settled.set(true);
        }
        input.bytes.copy_within(start..input.filled, 0);
        input.filled -= start;
        // A head may be longer than one read; the machine says how much it can leave at most.
        let needed = self.machine.borrow().limits().read_buffer_bytes();
        if input.filled == input.bytes.len() && input.bytes.len() < needed {
            input.bytes.resize((input.bytes.len() * 2).min(needed), 0);
        }
        Ok(())
    }

    fn deliver(&self, event: Event<'_>, index: &mut HeadIndex, on_request: &mut impl FnMut(NewStream)) {
        match event {
            Event::Request { stream, meta, payload, end } => {
                let slot = self.enter(stream);
                slot.state.borrow_mut().ended = end;
                let fields = index.request.view(payload).fields;
                // Dropped here, the expectation would leave the client waiting for the application's word, and the
                // application for the client's body.
                let expects = fields.get(FieldId::Expect);
                let expect_continue = expects.is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue"));
                let request = Request {
                    bytes: payload.to_vec(),
                    index: std::mem::take(&mut index.request),
                    framing: framing(meta.body, end, !meta.upgrade.is_empty()),
                    upgrade: meta.upgrade.to_vec(),
                    expect_continue: expect_continue && !end,
                    te_trailers: true,
                    time_left: meta.deadline,
                };
                on_request(NewStream { stream, slot, request });
            }
            Event::Response { stream, meta, payload, end } => {
                let Some(slot) = self.slot(stream) else { return };
                let state = &mut *slot.state.borrow_mut();
                let status = index.response.status;
                let interim = (100..200).contains(&status) && status != 101;
                let framing = framing(meta.body, end, status == 101);
                state.heads.push_back(Head {
                    arrived: Arrived { status, framing, interim },
                    index: std::mem::take(&mut index.response),
                    bytes: payload.to_vec(),
                    upgrade: meta.upgrade.to_vec(),
                });
                state.ended |= end && !interim;
                state.wake_reader();
            }
            Event::Data { stream, data, end } => match self.slot(stream) {
                Some(slot) => {
                    let state = &mut *slot.state.borrow_mut();
                    state.data.extend_from_slice(data);
                    state.ended |= end;
                    state.wake_reader();
                }
                // Nobody is interested any more; the credit goes back at once.
                None => self.machine.borrow_mut().release(stream, data.len()),
            },
            Event::Trailers { stream, payload } => {
                let Some(slot) = self.slot(stream) else { return };
                let state = &mut *slot.state.borrow_mut();
                std::mem::swap(&mut state.trailers, &mut index.trailers);
                state.trailer_bytes = payload.to_vec();
                state.ended = true;
                state.wake_reader();
            }
            Event::End { stream } => {
                let Some(slot) = self.slot(stream) else { return };
                let state = &mut *slot.state.borrow_mut();
                state.ended = true;
                state.wake_reader();
            }
            Event::Reset { stream, code, app_saw } => {
                let broken = Broken { app_saw, reason: reason_of(code) };
                self.break_off(stream, broken, Some(code));
            }
            Event::Broken { stream, .. } => {
                let broken = Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed };
                self.break_off(stream, broken, None);
            }
            _ => {}
        }
    }

    fn break_off(&self, stream: StreamId, broken: Broken, code: Option<Code>) {
        if let Some(slot) = self.slot(stream) {
            slot.state.borrow_mut().break_off(broken, code);
        }
    }

    /// Tells every stream that the connection is over.
    fn lose_streams(&self) {
        loop {
            let Some((stream, app_saw)) = self.machine.borrow_mut().next_lost() else { return };
            let broken = Broken { app_saw, reason: Reason::UpstreamClosed };
            self.break_off(stream, broken, None);
        }
    }
}

/// A stream that the peer opened.
#[derive(Debug)]
pub(crate) struct NewStream {
    stream: StreamId,
    slot: Rc<Slot>,
    request: Request,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// After a drain, with nothing left.
    Done,
    /// The peer closed it.
    Closed,
    /// The socket failed, or TLS: a peer that refuses our certificate says so only after the handshake.
    Lost(io::Error),
    /// The protocol failed.
    Broken(mux::ConnectionError),
}

/// Who ended a handshake: `self` or `peer`.
pub(crate) const fn who_refused(reason: &TlsReason) -> &'static str {
    match reason {
        TlsReason::RefusedByPeer(_) => "peer",
        _ => "self",
    }
}

/// Bytes read and not yet understood.
struct Input {
    bytes: Vec<u8>,
    filled: usize,
    index: HeadIndex,
}

const fn framing(body: Body, end: bool, tunnel: bool) -> BodyFraming {
    match body {
        _ if tunnel => BodyFraming::Tunnel,
        Body::None => BodyFraming::None,
        Body::Length(bytes) => BodyFraming::Length(bytes),
        Body::Unknown if end => BodyFraming::None,
        Body::Unknown => BodyFraming::Chunked,
    }
}

/// What a RESET means to the exchange that it ends.
const fn reason_of(code: Code) -> Reason {
    match code {
        Code::AppConnectFailed => Reason::ConnectFailed,
        Code::AppProtocol | Code::Protocol => Reason::UpstreamMalformed,
        Code::Deadline => Reason::RequestTimeout,
        Code::Refused | Code::Overload => Reason::Overload,
        Code::Internal | Code::Cancel | Code::AppClosed | Code::Enough => Reason::UpstreamClosed,
    }
}

/// What a reason means to the peer.
const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::TlsRefused => Code::AppConnectFailed,
        Reason::UpstreamClosed | Reason::ResponseCut => Code::AppClosed,
        Reason::UpstreamMalformed => Code::AppProtocol,
        Reason::RequestTimeout | Reason::IdleTimeout => Code::Deadline,
        Reason::Overload => Code::Overload,
        Reason::DownstreamGone => Code::Cancel,
        Reason::NoRoute
        | Reason::NoSuchService
        | Reason::NoEndpoint
        | Reason::NoHealthyEndpoint
        | Reason::Draining => Code::Refused,
        Reason::RequestMalformed | Reason::RequestHeadTimeout | Reason::Unsupported => Code::Protocol,
    }
}
