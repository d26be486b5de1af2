//! What the peer says: frames are decoded in place, payloads are handed out as slices of the shell's buffer.

use super::codec::{self, Body, HeadIndex};
use super::error::{Code, ConnectionError, StreamError, Violation};
use super::event::Event;
use super::frame::{self, HEADER_BYTES, Header};
use super::limits::{CREDIT_MAX, FLOOR, Settings};
use super::send::is_interim;
use super::stream::{Half, Stream, StreamId, Wants};
use super::{AppSaw, Drain, INTERIM_HEADS_MAX, Mux, Role};
use crate::time::Instant;

/// A DATA frame whose payload is being handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// Its stream; `None` when the bytes are for nobody.
    stream: Option<StreamId>,
    /// Bytes still to come.
    pub(super) left: usize,
    /// The peer's half ends after them.
    end: bool,
}

/// What one frame came to.
enum Step<'a> {
    /// It is not complete.
    Need,
    /// It took so many bytes and needs nobody's attention.
    Used(usize),
    /// It took so many bytes and somebody must know.
    Event(usize, Event<'a>),
}

impl Mux {
    /// Takes bytes off the front of `input` until something happened or more bytes are needed. Returns how many
    /// it took, and what happened. Call it again with the rest until there is no event; keep the rest, at most
    /// [`Limits::read_buffer_bytes`](super::Limits::read_buffer_bytes), in front of the bytes that come next.
    ///
    /// # Errors
    /// The connection is over: write what is left of [`Mux::output`], close the socket, call [`Mux::next_lost`].
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        input: &'a [u8],
        index: &mut HeadIndex,
    ) -> Result<(usize, Option<Event<'a>>), ConnectionError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        if !input.is_empty() {
            self.heard = now;
        }
        let mut at = 0;
        loop {
            // A DRAIN is one frame and many events.
            if let Some(event) = self.next_refused() {
                return Ok((at, Some(event)));
            }
            let step = self.step(now, &input[at..], index).and_then(|step| {
                self.check_output()?;
                Ok(step)
            });
            match step {
                Ok(Step::Need) => return Ok((at, None)),
                Ok(Step::Used(bytes)) => at += bytes,
                Ok(Step::Event(bytes, event)) => return Ok((at + bytes, Some(event))),
                Err(error) => return Err(self.die(error)),
            }
        }
    }

    fn step<'a>(
        &mut self,
        now: Instant,
        input: &'a [u8],
        index: &mut HeadIndex,
    ) -> Result<Step<'a>, ConnectionError> {
        if self.incoming.is_some() {
            return Ok(self.on_data_bytes(input));
        }
        let Some(header) = Header::decode(input) else { return Ok(Step::Need) };
        if !self.settled && header.kind != frame::SETTINGS {
            return Err(violation(Violation::Settings));
        }
        self.check_header(&header)?;
        if header.kind == frame::DATA {
            return self.on_data(now, &header);
        }
        if header.kind > frame::CLOSE {
            // Optional, else it had not passed the check. Its payload goes the way of bytes that nobody wants.
            self.take_idle(now)?;
            return Ok(self.skip(&header, input));
        }
        let used = HEADER_BYTES + header.length;
        let Some(payload) = input.get(HEADER_BYTES..used) else { return Ok(Step::Need) };
        let event = match header.kind {
            frame::SETTINGS => self.on_settings(payload)?,
            frame::HEAD if self.role == Role::Acceptor => self.on_request(now, &header, payload, index)?,
            frame::HEAD => self.on_response(now, &header, payload, index)?,
            frame::TRAILERS => self.on_trailers(now, &header, payload, index)?,
            frame::END => self.on_end(now, &header)?,
            frame::RESET => self.on_reset(now, &header, payload)?,
            frame::CREDIT => self.on_credit(now, &header, payload)?,
            frame::PING => self.on_ping(now, payload)?,
            frame::PONG => self.on_pong(now, payload)?,
            frame::DRAIN => self.on_drain(payload)?,
            _ => {
                let told = payload.first().map_or(Violation::Unknown, |byte| Violation::from_wire(*byte));
                return Err(ConnectionError::ClosedByPeer(told));
            }
        };
        Ok(match event {
            Some(event) => Step::Event(used, event),
            None => Step::Used(used),
        })
    }

    /// Everything about a frame that its header alone tells.
    fn check_header(&self, header: &Header) -> Result<(), ConnectionError> {
        let head = self.limits.head_bytes_max as usize;
        let (shortest, longest, on_stream) = match header.kind {
            frame::SETTINGS => (0, frame::CONTROL_BYTES_MAX, false),
            frame::HEAD => (1, head, true),
            frame::DATA => (0, self.limits.data_bytes_max as usize, true),
            frame::TRAILERS => (0, head, true),
            frame::END => (0, 0, true),
            frame::RESET => (2, frame::CONTROL_BYTES_MAX, true),
            frame::CREDIT => (4, 4, header.stream != 0),
            frame::PING | frame::PONG => (8, 8, false),
            frame::DRAIN => (4, 4, false),
            frame::CLOSE => (1, frame::CONTROL_BYTES_MAX, false),
            _ if header.optional => (0, frame::CONTROL_BYTES_MAX, header.stream != 0),
            _ => return Err(violation(Violation::Kind)),
        };
        if header.end && !matches!(header.kind, frame::HEAD | frame::DATA) {
            return Err(violation(Violation::Kind));
        }
        if !(shortest..=longest).contains(&header.length) {
            return Err(violation(Violation::Length));
        }
        if on_stream != (header.stream != 0) {
            return Err(violation(Violation::Stream));
        }
        Ok(())
    }

    fn on_settings<'a>(&mut self, payload: &[u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        if self.settled {
            return Err(violation(Violation::Settings));
        }
        self.settled = true;
        self.peer = Settings::decode(payload)?;
        self.send_credit += self.peer.connection_window - FLOOR.connection_window;
        let more = self.peer.stream_window - FLOOR.stream_window;
        let mut from = 0;
        while let Some((id, _)) = self.table.next_from(from) {
            from = id.slot() + 1;
            self.add_credit(id, more)?;
        }
        Ok(None)
    }

    fn on_request<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &'a [u8],
        index: &mut HeadIndex,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        if header.stream < self.next_remote {
            let Some(stream) = self.lookup(header.stream)? else { return Ok(None) };
            return self.broken(now, stream, StreamError::State).map(Some);
        }
        if header.stream != self.next_remote {
            return Err(violation(Violation::Order));
        }
        self.next_remote += 2;
        // Streams that ended but hold unreleased bytes are in our table and not in the peer's count, so it may
        // honestly open more than the limit; twice as many bounds the table.
        let most = self.limits.streams_max.saturating_mul(2) as usize;
        if self.drain == Drain::Final || self.table.len() >= most {
            self.take_reset(now)?;
            self.push_reset(header.stream, Code::Refused, AppSaw::Nothing);
            return Ok(None);
        }
        let decoded = codec::decode_request(payload, self.limits.head_fields_max, &mut index.request)
            .map_err(StreamError::Head)
            .and_then(|meta| Ok((meta, body_left(meta.body, header.end)?)));
        let (meta, body_left) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.take_reset(now)?;
                self.push_reset(header.stream, Code::Protocol, AppSaw::Nothing);
                return Ok(Some(Event::BadRequest { number: header.stream, error }));
            }
        };
        let stream = self.table.insert(Stream {
            number: header.stream,
            send: Half::Head,
            receive: if header.end { Half::Done } else { Half::Body },
            send_credit: self.peer.stream_window,
            receive_credit: self.limits.stream_window,
            held: 0,
            due: 0,
            body_left,
            head_end: 0,
            interim: 0,
            wants: Wants::Nothing,
            queued: false,
        });
        Ok(Some(Event::Request { stream, meta, payload, end: header.end }))
    }

    fn on_response<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &'a [u8],
        index: &mut HeadIndex,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(stream) = self.lookup(header.stream)? else { return Ok(None) };
        let decoded = self
            .expect(stream, Half::Head)
            .and_then(|()| {
                codec::decode_response(payload, self.limits.head_fields_max, &mut index.response)
                    .map_err(StreamError::Head)
            })
            .and_then(|meta| Ok((meta, body_left(meta.body, header.end)?)));
        let (meta, body_left) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.broken(now, stream, error).map(Some),
        };
        let interim = is_interim(index.response.status);
        let Some(state) = self.table.get_mut(stream) else { return Ok(None) };
        if interim {
            state.interim = state.interim.saturating_add(1);
            if header.end || state.interim > INTERIM_HEADS_MAX {
                let error = if header.end { StreamError::State } else { StreamError::InterimHeads };
                return self.broken(now, stream, error).map(Some);
            }
        } else {
            state.receive = if header.end { Half::Done } else { Half::Body };
            state.body_left = body_left;
            self.settle(stream);
        }
        Ok(Some(Event::Response { stream, meta, payload, end: header.end }))
    }

    fn on_data<'a>(&mut self, now: Instant, header: &Header) -> Result<Step<'a>, ConnectionError> {
        let length = header.length;
        let credit = length as u32;
        let found = self.lookup(header.stream)?;
        if credit > self.receive_credit {
            return Err(violation(Violation::Credit));
        }
        if length == 0 && !header.end {
            self.take_idle(now)?;
        }
        let mut broken = None;
        if let Some(stream) = found {
            let expected = self.expect(stream, Half::Body);
            let Some(state) = self.table.get_mut(stream) else { return Ok(Step::Used(HEADER_BYTES)) };
            if credit > state.receive_credit {
                return Err(violation(Violation::Credit));
            }
            let left = state.body_left;
            let fits =
                left == u64::MAX || if header.end { length as u64 == left } else { length as u64 <= left };
            match expected.and(if fits { Ok(()) } else { Err(StreamError::BodyLength) }) {
                Ok(()) => {
                    state.receive_credit -= credit;
                    if left != u64::MAX {
                        state.body_left -= length as u64;
                    }
                }
                Err(error) => broken = Some((stream, error)),
            }
        }
        self.receive_credit -= credit;
        self.incoming =
            Some(Incoming { stream: found.filter(|_| broken.is_none()), left: length, end: header.end });
        match broken {
            Some((stream, error)) => Ok(Step::Event(HEADER_BYTES, self.broken(now, stream, error)?)),
            None => Ok(Step::Used(HEADER_BYTES)),
        }
    }

    /// Hands out as much of the DATA frame under way as is there.
    fn on_data_bytes<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let Some(frame) = self.incoming.as_mut() else { return Step::Need };
        if frame.left > 0 && input.is_empty() {
            return Step::Need;
        }
        let bytes = frame.left.min(input.len());
        let data = &input[..bytes];
        frame.left -= bytes;
        let (stream, end) = (frame.stream, frame.end && frame.left == 0);
        if frame.left == 0 {
            self.incoming = None;
        }
        let live = stream.and_then(|id| self.table.get_mut(id).map(|state| (id, state)));
        let Some((stream, state)) = live else {
            self.credit_connection(bytes as u32);
            return Step::Used(bytes);
        };
        state.held += bytes as u32;
        if end {
            state.receive = Half::Done;
        }
        self.held += bytes as u32;
        match (bytes, end) {
            (0, false) => Step::Used(0),
            (0, true) => {
                self.settle(stream);
                Step::Event(0, Event::End { stream })
            }
            _ => Step::Event(bytes, Event::Data { stream, data, end }),
        }
    }

    /// Skips an optional frame of a kind that we do not know; it is short, so it is waited for.
    fn skip<'a>(&self, header: &Header, input: &[u8]) -> Step<'a> {
        let used = HEADER_BYTES + header.length;
        if input.len() < used { Step::Need } else { Step::Used(used) }
    }

    fn on_trailers<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &'a [u8],
        index: &mut HeadIndex,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(stream) = self.lookup(header.stream)? else { return Ok(None) };
        let decoded = self.expect_end(stream).and_then(|()| {
            codec::decode_trailers(payload, self.limits.head_fields_max, &mut index.trailers)
                .map_err(StreamError::Head)
        });
        if let Err(error) = decoded {
            return self.broken(now, stream, error).map(Some);
        }
        self.ended(stream);
        Ok(Some(Event::Trailers { stream, payload }))
    }

    fn on_end<'a>(&mut self, now: Instant, header: &Header) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(stream) = self.lookup(header.stream)? else { return Ok(None) };
        if let Err(error) = self.expect_end(stream) {
            return self.broken(now, stream, error).map(Some);
        }
        self.ended(stream);
        Ok(Some(Event::End { stream }))
    }

    fn on_reset<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &[u8],
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(stream) = self.lookup(header.stream)? else { return Ok(None) };
        let (code, saw) = match payload {
            [code, saw, ..] => (Code::from_wire(*code), *saw),
            _ => return Err(violation(Violation::Length)),
        };
        self.take_reset(now)?;
        self.forget(stream);
        let app_saw = if saw == 0 { AppSaw::Nothing } else { AppSaw::Maybe };
        Ok(Some(Event::Reset { stream, code, app_saw }))
    }

    fn on_credit<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &[u8],
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let bytes = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let connection = header.stream == 0;
        let window = if connection { self.peer.connection_window } else { self.peer.stream_window };
        // An honest end grants half a window at a time.
        if bytes < window / 4 {
            self.take_idle(now)?;
        }
        if connection {
            let sum = self.send_credit.checked_add(bytes).filter(|sum| *sum <= CREDIT_MAX);
            self.send_credit = sum.ok_or(violation(Violation::CreditOverflow))?;
        } else if let Some(stream) = self.lookup(header.stream)? {
            self.add_credit(stream, bytes)?;
        }
        Ok(None)
    }

    fn on_ping<'a>(&mut self, now: Instant, payload: &[u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        if !self.pings.take(now) {
            return Err(violation(Violation::PingFlood));
        }
        self.push_pong(payload);
        Ok(None)
    }

    fn on_pong<'a>(&mut self, now: Instant, payload: &[u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = payload.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        // PONGs come in the order of their PINGs, each once.
        if number != self.pongs_heard + 1 || number > self.pings_sent {
            return Err(violation(Violation::Pong));
        }
        self.pongs_heard = number;
        if self.drain == Drain::Announced(number) {
            // Numbers are odd and the next one is not taken, so the last one is two below it; none is 0.
            self.push_drain(self.next_remote.saturating_sub(2));
            self.drain = Drain::Final;
        }
        let sent = self.ping.filter(|(last, _)| *last == number).map(|(_, sent)| sent);
        Ok(sent.map(|sent| {
            self.ping = None;
            Event::Pong { round_trip: now.since(sent) }
        }))
    }

    fn on_drain<'a>(&mut self, payload: &[u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        let last = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        if self.role == Role::Acceptor {
            // We open no streams towards a dialer, so it has nothing to refuse.
            return Ok(None);
        }
        let known = last == u32::MAX || last < self.next_local;
        if !known || self.peer_last.is_some_and(|earlier| last > earlier) {
            return Err(violation(Violation::Drain));
        }
        let first = self.peer_last.replace(last).is_none();
        self.refuse_from = Some(0);
        Ok(first.then_some(Event::Draining))
    }

    /// The next of our streams above the last one that the draining peer processes.
    fn next_refused<'a>(&mut self) -> Option<Event<'a>> {
        let last = self.peer_last?;
        let mut from = self.refuse_from?;
        while let Some((stream, _)) = self.table.next_from(from) {
            from = stream.slot() + 1;
            self.refuse_from = Some(from);
            if stream.number > last {
                self.forget(stream);
                return Some(Event::Reset { stream, code: Code::Refused, app_saw: AppSaw::Nothing });
            }
        }
        self.refuse_from = None;
        None
    }

    /// The stream of a number that must have been opened; `None` when it is over.
    fn lookup(&self, number: u32) -> Result<Option<StreamId>, ConnectionError> {
        let next = match self.role {
            Role::Dialer => self.next_local,
            Role::Acceptor => self.next_remote,
        };
        if number.is_multiple_of(2) || number >= next {
            return Err(violation(Violation::Stream));
        }
        Ok(self.table.find(number))
    }

    fn expect(&self, stream: StreamId, half: Half) -> Result<(), StreamError> {
        let receive = self.table.get(stream).map_or(Half::Done, |state| state.receive);
        if receive == half { Ok(()) } else { Err(StreamError::State) }
    }

    /// The peer's half may end now: its body is under way and as long as declared.
    fn expect_end(&self, stream: StreamId) -> Result<(), StreamError> {
        self.expect(stream, Half::Body)?;
        match self.table.get(stream).map_or(0, |state| state.body_left) {
            0 | u64::MAX => Ok(()),
            _ => Err(StreamError::BodyLength),
        }
    }

    fn ended(&mut self, stream: StreamId) {
        if let Some(state) = self.table.get_mut(stream) {
            state.receive = Half::Done;
        }
        self.settle(stream);
    }

    /// Gives up a stream on which the peer broke a rule.
    fn broken<'a>(
        &mut self,
        now: Instant,
        stream: StreamId,
        error: StreamError,
    ) -> Result<Event<'a>, ConnectionError> {
        self.take_reset(now)?;
        self.push_reset(stream.number, Code::Protocol, AppSaw::Maybe);
        self.forget(stream);
        Ok(Event::Broken { stream, error })
    }

    fn add_credit(&mut self, stream: StreamId, bytes: u32) -> Result<(), ConnectionError> {
        let Some(state) = self.table.get_mut(stream) else { return Ok(()) };
        let sum = state.send_credit.checked_add(bytes).filter(|sum| *sum <= CREDIT_MAX);
        state.send_credit = sum.ok_or(violation(Violation::CreditOverflow))?;
        if state.wants == Wants::Data && !state.queued && state.send_credit > 0 {
            state.queued = true;
            self.queue.push_back(stream);
        }
        Ok(())
    }

    /// Counts a stream that the peer cut off or made us cut off. A dialer opened them itself, so it need not.
    fn take_reset(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.role == Role::Acceptor && !self.resets.take(now) {
            return Err(violation(Violation::ResetFlood));
        }
        Ok(())
    }

    fn take_idle(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.idles.take(now) { Ok(()) } else { Err(violation(Violation::IdleFlood)) }
    }
}

/// What a declared body leaves to come; `u64::MAX` when nothing is declared.
fn body_left(body: Body, end: bool) -> Result<u64, StreamError> {
    match body {
        Body::Length(length) if end && length > 0 => Err(StreamError::BodyLength),
        Body::Length(length) => Ok(length),
        Body::None => Ok(0),
        Body::Unknown => Ok(u64::MAX),
    }
}

const fn violation(violation: Violation) -> ConnectionError {
    ConnectionError::Peer(violation)
}
