//! Messages cost no allocation once the buffers of a connection have grown: counted, not promised.

#![allow(unsafe_code, reason = "counting what the allocator is asked for takes a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use leno_core::edit::Edits;
use leno_core::head::{RequestIndex, ResponseIndex};
use leno_core::http1::{
    BodyDecoder, BodyEncoder, BodyFraming, Limits, RequestOptions, RequestParser, ResponseFor,
    ResponseOptions, ResponseParser, Version, encode_request_head, encode_response_head,
};

thread_local! {
    /// Allocations of this thread; the test harness has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`, and `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// What a connection owns.
struct Connection {
    limits: Limits,
    requests: RequestParser,
    responses: ResponseParser,
    request: RequestIndex,
    response: ResponseIndex,
    body: BodyDecoder,
    edits: Edits,
    out: Vec<u8>,
}

impl Connection {
    /// A request with a chunked body and a trailer comes in pieces and goes out; a response comes back.
    fn exchange(&mut self) {
        let wire = REQUEST;
        let split = 70;
        let early = self.requests.parse(&wire[..split], &self.limits, &mut self.request);
        assert_eq!(early, Ok(None));
        let meta = self.requests.parse(wire, &self.limits, &mut self.request);
        let meta = meta.expect("it is accepted").expect("it is complete");
        let options = RequestOptions {
            framing: meta.framing,
            keep_alive: true,
            upgrade: false,
            expect_continue: false,
            te_trailers: false,
        };
        self.edits.clear();
        self.edits.set(b"x-request-id", b"0123456789abcdef");
        self.out.clear();
        encode_request_head(&mut self.out, &self.request.view(wire), &self.edits, &options);
        self.body.reset(meta.framing);
        let mut encoder = BodyEncoder::new(meta.framing);
        for piece in wire[meta.head_bytes..].chunks(9) {
            let mut at = 0;
            while at < piece.len() {
                let decoded = self.body.decode(&piece[at..]).expect("it is accepted");
                encoder.payload(&mut self.out, &piece[at..][decoded.payload]).expect("chunks have no length");
                at += decoded.consumed;
            }
        }
        assert!(self.body.is_ended());
        encoder.finish(&mut self.out, self.body.trailers()).expect("chunks have no length");

        let answers = ResponseFor::default();
        let meta = self.responses.parse(RESPONSE, &self.limits, answers, &mut self.response);
        let meta = meta.expect("it is accepted").expect("it is complete");
        let options =
            ResponseOptions { framing: meta.framing, version: Version::Http11, keep_alive: true, answers };
        let head = self.response.view(RESPONSE);
        encode_response_head(&mut self.out, &head, &self.edits, &options);
    }
}

#[test]
fn messages_cost_no_allocation() {
    let limits = Limits::default();
    let mut connection = Connection {
        limits,
        requests: RequestParser::default(),
        responses: ResponseParser::default(),
        request: RequestIndex::default(),
        response: ResponseIndex::default(),
        body: BodyDecoder::new(BodyFraming::None, &limits),
        edits: Edits::default(),
        out: Vec::new(),
    };
    let before = ALLOCATIONS.get();
    connection.exchange();
    assert!(ALLOCATIONS.get() > before, "the counter counts");
    let before = ALLOCATIONS.get();
    for _ in 0..1000 {
        connection.exchange();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in 1000 exchanges");
}

const REQUEST: &[u8] =
    b"POST /cart/1/items?x=y HTTP/1.1\r\nHost: cart:8080\r\nUser-Agent: test\r\nAccept: */*\r\n\
    Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\nX-Request-Id: a\r\n\r\n\
    5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx-sum: 7\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 128\r\n\
    Date: Fri, 20 Nov 2026 23:00:00 GMT\r\nServer: test\r\nKeep-Alive: timeout=5\r\n\r\n";
