//! Two real ends of the mesh transport and the way between them, which loses nothing until it is cut.

use std::collections::VecDeque;

use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::mux::{
    Body, Code, ConnectionError, Event, HeadIndex, Limits, Meta, Mux, OpenError, Role, SendError, StreamId,
};
use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

/// The end that opens streams.
pub const DIALER: usize = 0;
/// The end that serves them.
pub const ACCEPTOR: usize = 1;

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Both ends.
    ends: [Mux; 2],
    index: HeadIndex,
    /// Bytes on the way to each end, with their arrival.
    wire: [VecDeque<(Instant, Vec<u8>)>; 2],
    /// Bytes that have arrived and are not consumed.
    inbox: [Vec<u8>; 2],
    /// What each end still has to send, by stream.
    sending: [Vec<Sending>; 2],
    /// The ends that know that the connection is over.
    over: [bool; 2],
    /// The ends that had nothing left to do and closed; the other end gets what is on the way and then the end.
    closed: [bool; 2],
    /// Nothing moves any more, and nobody is told.
    silent: bool,
}

/// A body on its way into the transport.
#[derive(Debug)]
struct Sending {
    stream: StreamId,
    rest: Vec<u8>,
    /// The sender's half ends after it.
    end: bool,
}

/// What an end learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A request came; its path.
    Request(StreamId, Vec<u8>),
    /// A response head came; its status.
    Response(StreamId, u16),
    /// Body bytes came.
    Data(StreamId, Vec<u8>),
    /// The other half ended.
    Ended(StreamId),
    /// The stream was given up by the other end, or is lost with the connection.
    Cut(StreamId, Option<Code>, AppSaw),
    /// No new streams.
    Draining,
}

impl Link {
    /// A new connection with small windows, so that bodies run into them.
    pub fn new(rng: &mut Rng, now: Instant) -> Self {
        let limits = Limits {
            stream_window: (16 << 10) + rng.below(40_000) as u32,
            connection_window: 64 << 10,
            output_bytes_max: 4_000 + rng.below(60_000) as u32,
            ..Limits::default()
        };
        let end = |role| Mux::new(role, limits.clone(), now);
        Self {
            ends: [end(Role::Dialer), end(Role::Acceptor)],
            index: HeadIndex::default(),
            wire: Default::default(),
            inbox: Default::default(),
            sending: Default::default(),
            over: [false, false],
            closed: [false, false],
            silent: false,
        }
    }

    /// True when a stream can be opened.
    pub fn can_open(&self) -> bool {
        !self.over[DIALER] && self.ends[DIALER].can_open()
    }

    /// True when the end cannot be reached any more.
    pub fn is_over(&self, side: usize) -> bool {
        self.over[side]
    }

    /// Opens a stream with a body of these bytes.
    ///
    /// # Errors
    /// As [`Mux::open`].
    pub fn open(&mut self, method: &[u8], path: &[u8], body: Vec<u8>) -> Result<StreamId, OpenError> {
        let head = RequestHead { method, authority: b"app", path, fields: Fields::default() };
        let end = body.is_empty();
        let meta =
            Meta { body: if end { Body::None } else { Body::Length(body.len() as u64) }, ..Meta::default() };
        let stream = self.ends[DIALER].open(&meta, &head, &Edits::new(), end)?;
        if !end {
            self.sending[DIALER].push(Sending { stream, rest: body, end: true });
        }
        Ok(stream)
    }

    /// Answers a stream with a body of these bytes, which `end` completes.
    ///
    /// # Errors
    /// As [`Mux::respond`].
    pub fn respond(&mut self, stream: StreamId, body: Vec<u8>, end: bool) -> Result<(), SendError> {
        let head = ResponseHead { status: 200, reason: b"", fields: Fields::default() };
        self.ends[ACCEPTOR].respond(stream, &Meta::default(), &head, &Edits::new(), false)?;
        self.sending[ACCEPTOR].push(Sending { stream, rest: body, end });
        Ok(())
    }

    /// Gives a stream up.
    pub fn reset(&mut self, side: usize, stream: StreamId, code: Code, app_saw: AppSaw) {
        self.ends[side].reset(stream, code, app_saw);
    }

    /// True until the stream is over at that end.
    pub fn is_open(&self, side: usize, stream: StreamId) -> bool {
        self.ends[side].is_open(stream)
    }

    /// The acceptor begins to finish.
    pub fn drain(&mut self, now: Instant) {
        self.ends[ACCEPTOR].drain(now);
    }

    /// From now on nothing moves, and nobody is told.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// Cuts the connection for one end: it first gets some of what is on the way to it.
    ///
    /// # Errors
    /// A rule of the protocol was broken: a bug, since both ends are honest.
    pub fn cut(&mut self, side: usize, rng: &mut Rng, now: Instant) -> Result<Vec<Notice>, ConnectionError> {
        let mut notices = Vec::new();
        if self.over[side] {
            return Ok(notices);
        }
        let coming: Vec<u8> = self.wire[side].drain(..).flat_map(|(_, bytes)| bytes).collect();
        let some = rng.below(coming.len() as u64 + 1) as usize;
        if !self.silent {
            self.inbox[side].extend_from_slice(&coming[..some]);
            self.receive(side, now, &mut notices)?;
        }
        self.lose(side, &mut notices);
        Ok(notices)
    }

    /// What is due by itself: PINGs, and their absence.
    pub fn handle_timeout(&mut self, side: usize, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        if !self.over[side] && self.ends[side].handle_timeout(now).is_err() {
            self.lose(side, &mut notices);
        }
        notices
    }

    /// When [`Link::handle_timeout`] wants to be called; `None` when the end has nothing left to wait for.
    pub fn poll_timeout(&self, side: usize) -> Option<Instant> {
        if self.over[side] { None } else { self.ends[side].poll_timeout().map(|(at, _)| at) }
    }

    /// Delivers what has arrived, sends what can be sent. Returns what both ends learned.
    ///
    /// # Errors
    /// A rule of the protocol was broken: a bug, since both ends are honest.
    pub fn turn(
        &mut self,
        now: Instant,
        delay: Duration,
        rng: &mut Rng,
    ) -> Result<[Vec<Notice>; 2], ConnectionError> {
        let mut notices = [Vec::new(), Vec::new()];
        for (side, notices) in notices.iter_mut().enumerate() {
            if self.over[side] {
                continue;
            }
            while let Some((_, bytes)) = self.wire[side].pop_front_if(|(at, _)| *at <= now && !self.silent) {
                self.inbox[side].extend_from_slice(&bytes);
            }
            self.receive(side, now, notices)?;
            self.send(side);
            // Sometimes the socket takes only a part.
            let output = self.ends[side].output();
            let length =
                if rng.one_in(4) { rng.below(output.len() as u64 + 1) as usize } else { output.len() };
            if length > 0 {
                self.wire[1 - side].push_back((now.after(delay), output[..length].to_vec()));
                self.ends[side].output_sent(length);
            }
            self.ends[side].check_invariants();
            if self.ends[side].is_finished() {
                self.over[side] = true;
                self.closed[side] = true;
            }
        }
        for (side, notices) in notices.iter_mut().enumerate() {
            if self.closed[1 - side] && !self.over[side] && self.wire[side].is_empty() && !self.silent {
                self.lose(side, notices);
            }
        }
        Ok(notices)
    }

    /// True when another turn would do something, sooner or later.
    pub fn is_busy(&self) -> bool {
        !self.silent
            && (0..2).any(|side| {
                !self.over[side]
                    && (!self.wire[side].is_empty()
                        || !self.ends[side].output().is_empty()
                        || self.closed[1 - side])
            })
    }

    /// True when an end closed because it had nothing left to do.
    pub fn is_closed(&self) -> bool {
        self.closed != [false, false]
    }

    /// Streams that are not over at an end.
    pub fn streams_open(&self, side: usize) -> usize {
        self.ends[side].streams_open()
    }

    fn receive(
        &mut self,
        side: usize,
        now: Instant,
        notices: &mut Vec<Notice>,
    ) -> Result<(), ConnectionError> {
        let input = core::mem::take(&mut self.inbox[side]);
        let mut at = 0;
        loop {
            let (used, event) = self.ends[side].receive(now, &input[at..], &mut self.index)?;
            at += used;
            let Some(event) = event else { break };
            match event {
                Event::Request { stream, payload, end, .. } => {
                    notices.push(Notice::Request(stream, self.index.request.view(payload).path.to_vec()));
                    if end {
                        notices.push(Notice::Ended(stream));
                    }
                }
                Event::Response { stream, end, .. } => {
                    notices.push(Notice::Response(stream, self.index.response.status));
                    if end {
                        notices.push(Notice::Ended(stream));
                    }
                }
                Event::Data { stream, data, end } => {
                    notices.push(Notice::Data(stream, data.to_vec()));
                    self.ends[side].release(stream, data.len());
                    if end {
                        notices.push(Notice::Ended(stream));
                    }
                }
                Event::Trailers { stream, .. } | Event::End { stream } => notices.push(Notice::Ended(stream)),
                Event::Reset { stream, code, app_saw } => {
                    notices.push(Notice::Cut(stream, Some(code), app_saw));
                }
                Event::Draining => notices.push(Notice::Draining),
                Event::Pong { .. } => {}
                Event::Broken { .. } | Event::BadRequest { .. } => {
                    return Err(ConnectionError::Peer(leno_core::mux::Violation::Unknown));
                }
            }
        }
        self.inbox[side] = input[at..].to_vec();
        Ok(())
    }

    fn send(&mut self, side: usize) {
        let end = &mut self.ends[side];
        while end.next_writable().is_some() {}
        self.sending[side].retain_mut(|sending| {
            match end.send_data(sending.stream, &sending.rest, sending.end) {
                Ok(taken) => {
                    let all = taken == sending.rest.len();
                    sending.rest.drain(..taken);
                    !all
                }
                // It was reset meanwhile.
                Err(_) => false,
            }
        });
    }

    fn lose(&mut self, side: usize, notices: &mut Vec<Notice>) {
        self.over[side] = true;
        while let Some((stream, app_saw)) = self.ends[side].next_lost() {
            notices.push(Notice::Cut(stream, None, app_saw));
        }
    }
}
