//! Two real ends joined by a wire that the test controls.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::edit::Edits;
use crate::head::{Field, FieldId, RequestIndex, ResponseIndex, Span};
use crate::mux::{
    AppSaw, Code, ConnectionError, Event, HeadIndex, Limits, Meta, Mux, Role, StreamError, StreamId,
};
use crate::time::Instant;

/// An event with its own bytes, for comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Request { head: String, body: crate::mux::Body, end: bool },
    Response { status: u16, head: String, end: bool },
    Data(Vec<u8>, bool),
    Trailers(String),
    End,
    Reset(Code, AppSaw),
    Broken(StreamError),
    BadRequest(u32, StreamError),
    Draining,
    Pong,
}

/// One end and what it saw.
pub(super) struct End {
    pub(super) mux: Mux,
    pub(super) index: HeadIndex,
    /// Bytes that arrived and are not consumed.
    pub(super) inbox: Vec<u8>,
    /// Bytes on the way to this end, with their arrival.
    pub(super) wire: VecDeque<(Instant, Vec<u8>)>,
    pub(super) seen: Vec<(u32, Seen)>,
    /// Releases data as it comes.
    pub(super) auto_release: bool,
    pub(super) error: Option<ConnectionError>,
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) dialer: End,
    pub(super) acceptor: End,
    /// How long bytes travel.
    pub(super) delay: Duration,
    /// Most bytes handed over at once; 0 for all.
    pub(super) chunk: usize,
}

impl End {
    pub(super) fn new(role: Role, limits: Limits) -> Self {
        Self {
            mux: Mux::new(role, limits, Instant::ZERO),
            index: HeadIndex::default(),
            inbox: Vec::new(),
            wire: VecDeque::new(),
            seen: Vec::new(),
            auto_release: true,
            error: None,
        }
    }

    pub(super) fn receive_all(&mut self, now: Instant) {
        let input = core::mem::take(&mut self.inbox);
        let mut at = 0;
        loop {
            match self.mux.receive(now, &input[at..], &mut self.index) {
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
                Ok((used, event)) => {
                    at += used;
                    // The check walks every stream.
                    if self.mux.streams_open() < 100 {
                        self.mux.check_invariants();
                    }
                    let Some(event) = event else { break };
                    let (number, seen, release) = own(&event, &self.index);
                    self.seen.push((number, seen));
                    if let (true, Some((stream, bytes))) = (self.auto_release, release) {
                        self.mux.release(stream, bytes);
                    }
                }
            }
        }
        assert!(input.len() - at <= self.mux.limits().read_buffer_bytes(), "more left over than promised");
        self.inbox = input[at..].to_vec();
    }

    /// The id of a stream by its number.
    pub(super) fn id(&self, number: u32) -> StreamId {
        self.mux.table.find(number).expect("stream is open")
    }

    pub(super) fn take_seen(&mut self) -> Vec<(u32, Seen)> {
        core::mem::take(&mut self.seen)
    }
}

fn own(event: &Event<'_>, index: &HeadIndex) -> (u32, Seen, Option<(StreamId, usize)>) {
    match event {
        Event::Request { stream, payload, end, meta } => {
            let head = index.request.view(payload);
            let mut text =
                alloc::format!("{} {} {}", lossy(head.method), lossy(head.authority), lossy(head.path));
            for (_, name, value) in head.fields.iter() {
                text += &alloc::format!("|{}={}", lossy(name), lossy(value));
            }
            (stream.number(), Seen::Request { head: text, body: meta.body, end: *end }, None)
        }
        Event::Response { stream, payload, end, .. } => {
            let head = index.response.view(payload);
            let mut text = String::new();
            for (_, name, value) in head.fields.iter() {
                text += &alloc::format!("|{}={}", lossy(name), lossy(value));
            }
            (stream.number(), Seen::Response { status: head.status, head: text, end: *end }, None)
        }
        Event::Data { stream, data, end } => {
            (stream.number(), Seen::Data(data.to_vec(), *end), Some((*stream, data.len())))
        }
        Event::Trailers { stream, payload } => {
            let fields = crate::head::Fields::new(payload, &index.trailers);
            let mut text = String::new();
            for (_, name, value) in fields.iter() {
                text += &alloc::format!("|{}={}", lossy(name), lossy(value));
            }
            (stream.number(), Seen::Trailers(text), None)
        }
        Event::End { stream } => (stream.number(), Seen::End, None),
        Event::Reset { stream, code, app_saw } => (stream.number(), Seen::Reset(*code, *app_saw), None),
        Event::Broken { stream, error } => (stream.number(), Seen::Broken(*error), None),
        Event::BadRequest { number, error } => (0, Seen::BadRequest(*number, *error), None),
        Event::Draining => (0, Seen::Draining, None),
        Event::Pong { .. } => (0, Seen::Pong, None),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Limits::default(), Limits::default())
    }

    pub(super) fn with(dialer: Limits, acceptor: Limits) -> Self {
        Self {
            now: Instant::ZERO,
            dialer: End::new(Role::Dialer, dialer),
            acceptor: End::new(Role::Acceptor, acceptor),
            delay: Duration::from_millis(1),
            chunk: 0,
        }
    }

    /// Moves bytes both ways until nothing moves any more.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            self.send();
            let next = [self.dialer.wire.front(), self.acceptor.wire.front()]
                .into_iter()
                .flatten()
                .map(|(at, _)| *at)
                .min();
            let Some(next) = next else { return };
            self.now = self.now.max(next);
            self.deliver();
        }
        panic!("the pair never comes to rest");
    }

    /// Puts what the ends have to say on the wire.
    pub(super) fn send(&mut self) {
        let arrives = self.now.after(self.delay);
        for (from, to) in
            [(&mut self.dialer.mux, &mut self.acceptor.wire), (&mut self.acceptor.mux, &mut self.dialer.wire)]
        {
            if !from.output().is_empty() {
                to.push_back((arrives, from.output().to_vec()));
                let sent = from.output().len();
                from.output_sent(sent);
                from.check_invariants();
            }
        }
    }

    /// Hands over what has arrived.
    pub(super) fn deliver(&mut self) {
        for end in [&mut self.dialer, &mut self.acceptor] {
            while end.wire.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = end.wire.pop_front().expect("checked");
                let chunk = if self.chunk == 0 { bytes.len() } else { self.chunk };
                for piece in bytes.chunks(chunk) {
                    end.inbox.extend_from_slice(piece);
                    end.receive_all(self.now);
                }
            }
        }
    }

    /// Opens a stream with a small request.
    pub(super) fn get(&mut self, path: &str, end: bool) -> StreamId {
        let (buf, index) = request("GET", "product", path, &[("accept", "*/*")]);
        let meta = Meta {
            body: if end { crate::mux::Body::None } else { crate::mux::Body::Unknown },
            ..Meta::default()
        };
        self.dialer.mux.open(&meta, &index.view(&buf), &Edits::default(), end).expect("opens")
    }

    /// Answers stream `number`.
    pub(super) fn answer(&mut self, number: u32, status: u16, end: bool) {
        let (buf, index) = response(status, &[("server", "app")]);
        let body = if end { crate::mux::Body::None } else { crate::mux::Body::Unknown };
        let meta = Meta { body, ..Meta::default() };
        let id = self.acceptor.id(number);
        self.acceptor.mux.respond(id, &meta, &index.view(&buf), &Edits::default(), end).expect("responds");
    }
}

/// A request head made of literals.
pub(super) fn request(
    method: &str,
    authority: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> (Vec<u8>, RequestIndex) {
    let mut buf = Vec::new();
    let mut index = RequestIndex {
        method: put(&mut buf, method),
        authority: put(&mut buf, authority),
        path: put(&mut buf, path),
        fields: Vec::new(),
    };
    index.fields = put_fields(&mut buf, fields);
    (buf, index)
}

/// A response head made of literals.
pub(super) fn response(status: u16, fields: &[(&str, &str)]) -> (Vec<u8>, ResponseIndex) {
    let mut buf = Vec::new();
    let fields = put_fields(&mut buf, fields);
    (buf, ResponseIndex { status, reason: Span::default(), fields })
}

pub(super) fn put_fields(buf: &mut Vec<u8>, fields: &[(&str, &str)]) -> Vec<Field> {
    fields
        .iter()
        .map(|(name, value)| Field {
            name: put(buf, name),
            value: put(buf, value),
            id: FieldId::of(name.as_bytes()),
        })
        .collect()
}

fn put(buf: &mut Vec<u8>, text: &str) -> Span {
    let start = buf.len();
    buf.extend_from_slice(text.as_bytes());
    Span::new(start, buf.len())
}
