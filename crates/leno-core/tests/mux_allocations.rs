//! The transport allocates nothing for a small request and its answer once its buffers have grown.
//!
//! One test in its own program: the counter sees the whole process.
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it; it only counts and delegates"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use leno_core::edit::Edits;
use leno_core::head::{Field, FieldId, RequestIndex, ResponseIndex, Span};
use leno_core::mux::{Body, Event, HeadIndex, Limits, Meta, Mux, Role, StreamId};
use leno_core::time::{Duration, Instant};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_small_exchange_allocates_nothing_at_either_end() {
    let mut world = World::new();
    world.greet();
    for _ in 0..200 {
        world.batch();
    }
    let before = COUNT.load(Ordering::Relaxed);
    let (mut bytes, mut exchanges) = (0, 0);
    for _ in 0..1000 {
        bytes += world.batch();
        exchanges += BATCH;
    }
    assert_eq!(COUNT.load(Ordering::Relaxed) - before, 0, "allocations in {exchanges} exchanges");
    assert_eq!((world.dialer.streams_open(), world.acceptor.streams_open()), (0, 0));
    // Request and answer of a typical small call with everything around them.
    let each = bytes / exchanges;
    assert!((300..450).contains(&each), "{each} bytes on the wire for each");
}

/// Requests in flight at once.
const BATCH: usize = 64;

struct World {
    dialer: Mux,
    acceptor: Mux,
    index: HeadIndex,
    request: (Vec<u8>, RequestIndex),
    response: (Vec<u8>, ResponseIndex),
    edits: Edits,
    accepted: Vec<StreamId>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut buf = b"GET".to_vec();
        let method = Span::new(0, 3);
        let authority = put(&mut buf, "product");
        let path = put(&mut buf, "/products/1?fields=name");
        let fields = fields(
            &mut buf,
            &[
                ("Host", "product"),
                ("User-Agent", "curl/8.5.0"),
                ("Accept", "*/*"),
                ("Accept-Encoding", "gzip, br"),
                ("Connection", "keep-alive"),
            ],
        );
        let request = (buf, RequestIndex { method, authority, path, fields });
        let mut buf = Vec::new();
        let fields = fields_of_response(&mut buf);
        let response = (buf, ResponseIndex { status: 200, reason: Span::default(), fields });
        let mut edits = Edits::default();
        edits.add(b"x-request-id", b"0123456789abcdef");
        Self {
            dialer: Mux::new(Role::Dialer, Limits::default(), Instant::ZERO),
            acceptor: Mux::new(Role::Acceptor, Limits::default(), Instant::ZERO),
            index: HeadIndex::default(),
            request,
            response,
            edits,
            accepted: Vec::new(),
            now: Instant::ZERO,
        }
    }

    /// Lets both ends read the other's SETTINGS.
    fn greet(&mut self) {
        let mut none = Vec::new();
        carry(&mut self.dialer, &mut self.acceptor, &mut self.index, self.now, &mut none);
        carry(&mut self.acceptor, &mut self.dialer, &mut self.index, self.now, &mut none);
    }

    /// Sends requests, answers them, returns the bytes that crossed.
    fn batch(&mut self) -> usize {
        let meta = Meta {
            body: Body::None,
            deadline: Some(Duration::from_secs(15)),
            attempt: 1,
            route: b"default",
            generation: 7,
            ..Meta::default()
        };
        for _ in 0..BATCH {
            self.dialer.open(&meta, &self.request.1.view(&self.request.0), &self.edits, true).expect("opens");
        }
        self.now = self.now.after(Duration::from_millis(1));
        let mut bytes =
            carry(&mut self.dialer, &mut self.acceptor, &mut self.index, self.now, &mut self.accepted);
        let meta = Meta { body: Body::Length(128), ..Meta::default() };
        let none = Edits::default();
        for stream in self.accepted.drain(..) {
            let head = self.response.1.view(&self.response.0);
            self.acceptor.respond(stream, &meta, &head, &none, false).expect("responds");
            assert_eq!(self.acceptor.send_data(stream, &[b'x'; 128], true), Ok(128));
        }
        let mut unused = Vec::new();
        bytes += carry(&mut self.acceptor, &mut self.dialer, &mut self.index, self.now, &mut unused);
        bytes + carry(&mut self.dialer, &mut self.acceptor, &mut self.index, self.now, &mut unused)
    }
}

fn carry(
    from: &mut Mux,
    to: &mut Mux,
    index: &mut HeadIndex,
    now: Instant,
    accepted: &mut Vec<StreamId>,
) -> usize {
    let bytes = from.output().len();
    let mut at = 0;
    loop {
        let (used, event) = to.receive(now, &from.output()[at..], index).expect("an honest peer");
        at += used;
        match event {
            Some(Event::Request { stream, .. }) => accepted.push(stream),
            Some(Event::Data { stream, data, .. }) => to.release(stream, data.len()),
            Some(_) => {}
            None => break,
        }
    }
    from.output_sent(bytes);
    bytes
}

fn fields_of_response(buf: &mut Vec<u8>) -> Vec<Field> {
    fields(
        buf,
        &[
            ("Date", "Fri, 20 Nov 2026 12:00:00 GMT"),
            ("Content-Type", "application/json"),
            ("Content-Length", "128"),
            ("Server", "app"),
        ],
    )
}

fn fields(buf: &mut Vec<u8>, fields: &[(&str, &str)]) -> Vec<Field> {
    let field = |(name, value): &(&str, &str)| Field {
        name: put(buf, name),
        value: put(buf, value),
        id: FieldId::of(name.as_bytes()),
    };
    fields.iter().map(field).collect()
}

fn put(buf: &mut Vec<u8>, text: &str) -> Span {
    let start = buf.len();
    buf.extend_from_slice(text.as_bytes());
    Span::new(start, buf.len())
}
