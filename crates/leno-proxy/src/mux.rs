//! The mesh transport on sockets: one task per connection moves bytes between TLS and the core's machine; each stream
//! has a slot where that task leaves what came and where the stream's own task finds it.
//!
//! Streams write into the machine's output; the connection's task is woken once and runs after everything that was
//! ready in this turn of the worker, so all frames of a turn leave in one TLS write.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::{swap, take};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use leno_core::exchange::AppSaw;
use leno_core::head::{FieldId, RequestIndex};
use leno_core::http1::BodyFraming;
use leno_core::mux::{self, Body, Code, Event, HeadIndex, Limits, Meta, Mux, Role, StreamId};
use leno_core::reason::Reason;
use leno_core::time::Duration;
use leno_identity::reason::Reason as TlsReason;
use tokio::sync::Notify;

use crate::alarm::Alarm;
use crate::body::{Arrived, Broken, Request};
use crate::clock::Clock;
use crate::worker::Worker;

pub(crate) mod accept;
mod handshake;
mod input;
pub(crate) mod pool;
mod slot;
pub(crate) mod stream;
mod wire;

use input::Input;
use slot::{Head, Slot};
pub(crate) use wire::Buffers;
use wire::{Received, Wire};

/// How long a connection that can make no more use of its peer waits for the last bytes to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Slots that a connection keeps for streams to come.
const SPARE_SLOTS_MAX: usize = 64;
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
    /// Slots of streams that are over, with the memory that the next ones will need.
    free: RefCell<Vec<Rc<Slot>>>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
    /// The task has been woken and has not run yet.
    woken: Cell<bool>,
    /// The connection is over.
    closed: Cell<bool>,
    /// Streams that have proved to be bulk: others had better go elsewhere.
    bulk: Cell<usize>,
    /// The peer has said its first words: it accepts us, and its limits are known.
    settled: Cell<bool>,
    /// Somebody wanted to open a stream and could not.
    full: Cell<bool>,
    /// Rings when that somebody may try again.
    room: Rc<Notify>,
    clock: Clock,
}

impl Conn {
    /// A connection that was just established. `room` rings when a stream can be opened that could not before.
    pub(crate) fn new(role: Role, worker: &Worker, room: Rc<Notify>) -> Rc<Self> {
        let clock = worker.clock;
        let limits = Limits { connection_window: CONNECTION_WINDOW, ..Limits::default() };
        Rc::new(Self {
            machine: RefCell::new(Mux::new(role, limits, clock.now())),
            slots: RefCell::default(),
            free: RefCell::default(),
            waker: RefCell::default(),
            woken: Cell::new(false),
            closed: Cell::new(false),
            bulk: Cell::new(0),
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

    /// Streams under way that move much: a new one would wait behind their bytes.
    pub(crate) const fn bulk(&self) -> usize {
        self.bulk.get()
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
        let slot = self.free.borrow_mut().pop().unwrap_or_default();
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
        let mut free = self.free.borrow_mut();
        let state = &mut *slot.state.borrow_mut();
        if free.len() < SPARE_SLOTS_MAX && !state.is_large() {
            state.clear();
            free.push(slot.clone());
        }
    }

    /// Serves the connection until it is over. `on_request` is called for each stream that the peer opens.
    pub(crate) async fn run(
        self: Rc<Self>,
        mut wire: Box<Wire>,
        mut on_request: impl FnMut(NewStream<'_>),
    ) -> Ended {
        let mut alarm = Alarm::new(self.clock);
        let mut input = Input::default();
        let ended = loop {
            let timeout = self.machine.borrow().poll_timeout();
            let due = timeout.map_or(self.clock.now(), |(at, _)| at);
            let turn = std::future::poll_fn(|cx| self.poll_turn(cx, &mut wire, &mut input, &mut on_request));
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
            ready!(wire.poll_send(cx, &self.machine))?;
            wire.poll_end(cx)
        });
        let _ = tokio::time::timeout_at(deadline, last_words).await;
        ended
    }

    /// Moves bytes both ways until nothing can move; ready when the connection is over.
    fn poll_turn(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        input: &mut Input,
        on_request: &mut impl FnMut(NewStream<'_>),
    ) -> Poll<Ended> {
        self.woken.set(false);
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            slot => *slot = Some(cx.waker().clone()),
        }
        loop {
            if let Poll::Ready(Err(error)) = wire.poll_send(cx, &self.machine) {
                return Poll::Ready(Ended::Lost(error));
            }
            self.wake_writers();
            if self.full.get() && self.can_open() {
                self.room.notify_waiters();
            }
            if self.machine.borrow().is_finished() {
                return Poll::Ready(Ended::Done);
            }
            let received = wire.poll_receive(cx, |bytes| {
                input.add(bytes, |bytes, index| self.receive(bytes, index, on_request))
            });
            match ready!(received) {
                Ok(Ok(Received::Some)) => {}
                Ok(Ok(Received::End)) => return Poll::Ready(Ended::Closed),
                Ok(Err(error)) => return Poll::Ready(Ended::Broken(error)),
                Err(error) => return Poll::Ready(Ended::Lost(error)),
            }
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

    /// Hands what came to the machine and its events to the streams; how much the machine took.
    fn receive(
        &self,
        bytes: &[u8],
        index: &mut HeadIndex,
        on_request: &mut impl FnMut(NewStream<'_>),
    ) -> Result<usize, mux::ConnectionError> {
        let now = self.clock.now();
        let mut start = 0;
        loop {
            let rest = bytes.get(start..).unwrap_or(&[]);
            let (used, event) = self.machine.borrow_mut().receive(now, rest, index)?;
            start += used;
            match event {
                Some(event) => self.deliver(event, index, on_request),
                None => break,
            }
        }
        if start > 0 {
            // Whatever it was, the machine lets nothing pass before SETTINGS.
            self.settled.set(true);
        }
        Ok(start)
    }

    fn deliver(&self, event: Event<'_>, index: &mut HeadIndex, on_request: &mut impl FnMut(NewStream<'_>)) {
        match event {
            Event::Request { stream, meta, payload, end } => {
                let slot = self.enter(stream);
                slot.state.borrow_mut().ended = end;
                on_request(NewStream { stream, slot, meta, payload, index: &mut index.request, end });
            }
            Event::Response { stream, meta, payload, end } => {
                let Some(slot) = self.slot(stream) else { return };
                let state = &mut *slot.state.borrow_mut();
                let status = index.response.status;
                let interim = (100..200).contains(&status) && status != 101;
                let framing = framing(meta.body, end, status == 101);
                // Nearly always there is one head, and it takes the memory of the stream before.
                let mut head =
                    if state.heads.is_empty() { take(&mut state.spare.head) } else { Head::default() };
                head.arrived = Arrived { status, framing, interim };
                swap(&mut head.index, &mut index.response);
                refill(&mut head.bytes, payload);
                refill(&mut head.upgrade, meta.upgrade);
                state.heads.push_back(head);
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
                swap(&mut state.trailers.fields, &mut index.trailers);
                refill(&mut state.trailers.bytes, payload);
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
pub(crate) struct NewStream<'a> {
    stream: StreamId,
    slot: Rc<Slot>,
    meta: Meta<'a>,
    payload: &'a [u8],
    index: &'a mut RequestIndex,
    end: bool,
}

impl NewStream<'_> {
    /// Writes its head into `request`, whose memory is used again.
    fn copy_head(&mut self, request: &mut Request) {
        swap(&mut request.index, self.index);
        refill(&mut request.bytes, self.payload);
        refill(&mut request.upgrade, self.meta.upgrade);
        request.framing = framing(self.meta.body, self.end, !self.meta.upgrade.is_empty());
        // Dropped here, the expectation would leave the client waiting for the application's word, and the
        // application for the client's body.
        let expects = request.head().fields.get(FieldId::Expect);
        request.expect_continue =
            !self.end && expects.is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue"));
        request.te_trailers = true;
        request.time_left = self.meta.deadline;
        request.kind = self.meta.kind;
    }
}

fn refill(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
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
        Code::Denied => Reason::EgressDenied,
        Code::Shed => Reason::ServiceOverloaded,
        Code::RateLimited => Reason::RateLimited,
        Code::Internal | Code::Cancel | Code::AppClosed | Code::Enough => Reason::UpstreamClosed,
    }
}

/// What a reason means to the peer.
const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::TlsRefused | Reason::NameNotResolved => {
            Code::AppConnectFailed
        }
        Reason::UpstreamClosed | Reason::ResponseCut | Reason::AnswerRetried => Code::AppClosed,
        Reason::UpstreamMalformed => Code::AppProtocol,
        Reason::RequestTimeout | Reason::IdleTimeout | Reason::TryTimeout | Reason::OutOfTime => {
            Code::Deadline
        }
        Reason::Overload | Reason::ServiceLimit => Code::Overload,
        Reason::DownstreamGone => Code::Cancel,
        Reason::NoRoute
        | Reason::NoSuchService
        | Reason::NoEndpoint
        | Reason::NoHealthyEndpoint
        | Reason::Draining => Code::Refused,
        Reason::EgressDenied => Code::Denied,
        Reason::ServiceOverloaded => Code::Shed,
        Reason::Fault => Code::Internal,
        Reason::RateLimited => Code::RateLimited,
        Reason::RequestMalformed
        | Reason::RequestHeadTimeout
        | Reason::Unsupported
        | Reason::Misdirected
        | Reason::HttpsOnly => Code::Protocol,
    }
}
