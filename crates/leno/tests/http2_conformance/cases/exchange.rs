//! Requests and answers: DATA and padding (section 6.1 and 6.2), the form of an exchange (8.1), CONNECT (8.5), push (8.4).

use super::{Case, HERE, HOLD, get, post, request, request_with};
use crate::frame::{
    END_HEADERS, END_STREAM, NONE, PADDED, WHOLE, code, data, frame, headers, kind, push_promise,
};
use crate::hpack::block;
use crate::peer::Event;

pub(super) fn cases() -> Vec<Case> {
    [exchanges(), padding(), trailers(), lengths(), connect(), push()].into_iter().flatten().collect()
}

fn exchanges() -> Vec<Case> {
    vec![
        Case::answer("8.1", "GET is answered", || get(1, HERE)),
        Case::after_hands("8.1", "HEAD is answered, without DATA", |peer| {
            peer.send(&headers(1, WHOLE, &request("HEAD", HERE)));
            loop {
                match peer.next() {
                    Event::Frame(frame) if frame.kind == kind::DATA && !frame.payload.is_empty() => {
                        return Err(peer.unexpected("no DATA"));
                    }
                    Event::Frame(frame) if frame.ends_stream() => return Ok(None),
                    Event::Frame(frame) if frame.kind != kind::RST_STREAM => {}
                    _ => return Err(peer.unexpected("an answer")),
                }
            }
        }),
        Case::answer("8.1", "POST is answered", || [post(1, HERE), data(1, END_STREAM, b"test")].concat()),
        Case::answer("8.1", "POST with a body in two frames is answered", || {
            [post(1, HERE), data(1, NONE, b"test"), data(1, END_STREAM, b"test")].concat()
        }),
        Case::answer("8.1", "POST whose end is an empty frame is answered", || {
            [post(1, HERE), data(1, NONE, b"test"), data(1, END_STREAM, b"")].concat()
        }),
        Case::answer("8.1", "POST without a body is answered", || headers(1, WHOLE, &request("POST", HERE))),
        Case::after_hands("8.1", "many requests at once are all answered", |peer| {
            const REQUESTS: u32 = 20;
            peer.send(&(0..REQUESTS).flat_map(|at| get(at * 2 + 1, HERE)).collect::<Vec<u8>>());
            let mut answered = 0;
            while answered < REQUESTS {
                match peer.next() {
                    Event::Frame(frame) if frame.ends_stream() => answered += 1,
                    Event::Frame(frame) if !matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => {}
                    _ => return Err(peer.unexpected("20 answers")),
                }
            }
            Ok(None)
        }),
        Case::after_hands("5.2", "a request that is never answered holds up no other", |peer| {
            peer.send(&[get(1, HOLD), post(3, HOLD), get(5, HERE)].concat());
            peer.answer(5)
        }),
        Case::stream_error(
            "8.1",
            "HEADERS after a body without END_STREAM are an error",
            &[code::PROTOCOL],
            || {
                let more = headers(1, END_HEADERS, &block(&[("x-test", "ok")]));
                [post(1, HOLD), data(1, NONE, b"test"), more].concat()
            },
        ),
    ]
}

fn padding() -> Vec<Case> {
    vec![
        Case::answer("6.1", "DATA with padding is taken", || {
            [post(1, HERE), data(1, END_STREAM | PADDED, b"\x05test\0\0\0\0\0")].concat()
        }),
        Case::answer("6.1", "DATA of nothing but padding is taken", || {
            [post(1, HERE), data(1, NONE, b"test"), data(1, END_STREAM | PADDED, b"\x03\0\0\0")].concat()
        }),
        Case::answer("6.2", "HEADERS with padding are taken", || {
            let payload = [&[8][..], &request("GET", HERE), &[0; 8]].concat();
            headers(1, WHOLE | PADDED, &payload)
        }),
        Case::connection_error("6.1", "padding longer than its DATA is an error", &[code::PROTOCOL], || {
            let post = headers(1, END_HEADERS, &request_with("POST", HOLD, &[("content-length", "4")]));
            [post, data(1, END_STREAM | PADDED, b"\x06test")].concat()
        }),
        Case::connection_error("6.1", "padding as long as its DATA is an error", &[code::PROTOCOL], || {
            [post(1, HOLD), data(1, END_STREAM | PADDED, b"\x05test")].concat()
        }),
        Case::connection_error(
            "6.1",
            "DATA without its padding's length is an error",
            &[code::PROTOCOL, code::FRAME_SIZE],
            || [post(1, HOLD), data(1, END_STREAM | PADDED, b"")].concat(),
        ),
        Case::connection_error(
            "6.2",
            "padding longer than its HEADERS is an error",
            &[code::PROTOCOL],
            || {
                let block = request("GET", HERE);
                headers(1, WHOLE | PADDED, &[&[block.len() as u8 + 2][..], &block].concat())
            },
        ),
    ]
}

fn trailers() -> Vec<Case> {
    fn with(fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
        [post(1, HERE), data(1, NONE, b"test"), headers(1, flags, &block(fields))].concat()
    }
    vec![
        Case::answer("8.1", "POST with trailers is answered", || with(&[("x-test", "ok")], WHOLE)),
        Case::stream_error("8.1", "a pseudo-field in trailers is an error", &[code::PROTOCOL], || {
            with(&[(":method", "POST")], WHOLE)
        }),
        Case::stream_error(
            "8.1",
            "a pseudo-field in trailers without END_STREAM is an error",
            &[code::PROTOCOL],
            || with(&[(":method", "POST")], END_HEADERS),
        ),
        Case::stream_error("8.2.1", "an uppercase name in trailers is an error", &[code::PROTOCOL], || {
            with(&[("X-Test", "ok")], WHOLE)
        }),
        Case::stream_error(
            "8.2.2",
            "a connection's field in trailers is an error",
            &[code::PROTOCOL],
            || with(&[("transfer-encoding", "chunked")], WHOLE),
        ),
    ]
}

fn lengths() -> Vec<Case> {
    fn with(length: &str, more: &[Vec<u8>]) -> Vec<u8> {
        let begun = headers(1, END_HEADERS, &request_with("POST", HERE, &[("content-length", length)]));
        [vec![begun], more.to_vec()].concat().concat()
    }
    const CODES: &[u32] = &[code::PROTOCOL];
    vec![
        Case::answer("8.1.1", "a length that is right is taken", || {
            with("4", &[data(1, END_STREAM, b"test")])
        }),
        Case::stream_error("8.1.1", "more DATA than its length is an error", CODES, || {
            with("1", &[data(1, END_STREAM, b"test")])
        }),
        Case::stream_error("8.1.1", "more DATA in several frames than its length is an error", CODES, || {
            with("1", &[data(1, NONE, b"test"), data(1, END_STREAM, b"test")])
        }),
        Case::stream_error("8.1.1", "less DATA than its length is an error", CODES, || {
            with("5", &[data(1, END_STREAM, b"test")])
        }),
        Case::stream_error("8.1.1", "less DATA in several frames than its length is an error", CODES, || {
            with("9", &[data(1, NONE, b"test"), data(1, END_STREAM, b"test")])
        }),
        Case::stream_error("8.1.1", "a length and no DATA is an error", CODES, || {
            headers(1, WHOLE, &request_with("POST", HERE, &[("content-length", "4")]))
        }),
        Case::stream_error("8.1.1", "less DATA than its length before trailers is an error", CODES, || {
            with("9", &[data(1, NONE, b"test"), headers(1, WHOLE, &block(&[("x-test", "ok")]))])
        }),
        Case::stream_error("8.1.1", "two lengths that differ are an error", CODES, || {
            let two = [("content-length", "4"), ("content-length", "5")];
            let begun = headers(1, END_HEADERS, &request_with("POST", HERE, &two));
            [begun, data(1, END_STREAM, b"test")].concat()
        }),
        Case::after_hands("8.1.1", "a length that is no number is refused", |peer| {
            peer.send(&with("+4", &[data(1, END_STREAM, b"test")]));
            peer.refused(1)
        }),
        Case::after_hands("8.1.1", "a length beyond 64 bits is refused", |peer| {
            peer.send(&with("18446744073709551620", &[data(1, END_STREAM, b"test")]));
            peer.refused(1)
        }),
    ]
}

fn connect() -> Vec<Case> {
    const CODES: &[u32] = &[code::PROTOCOL];
    vec![
        Case::stream_error("8.5", "CONNECT with a path is an error", CODES, || {
            headers(
                1,
                END_HEADERS,
                &block(&[(":method", "CONNECT"), (":path", "/"), (":authority", "server:80")]),
            )
        }),
        Case::stream_error("8.5", "CONNECT with a scheme is an error", CODES, || {
            let fields = [(":method", "CONNECT"), (":scheme", "http"), (":authority", "server:80")];
            headers(1, END_HEADERS, &block(&fields))
        }),
        Case::stream_error("8.5", "CONNECT without an authority is an error", CODES, || {
            headers(1, END_HEADERS, &block(&[(":method", "CONNECT")]))
        }),
        Case::stream_error("8441 4", ":protocol with GET is an error", CODES, || {
            headers(
                1,
                WHOLE,
                &request_with("GET", HERE, &[])
                    .into_iter()
                    .chain(block(&[(":protocol", "websocket")]))
                    .collect::<Vec<u8>>(),
            )
        }),
    ]
}

fn push() -> Vec<Case> {
    vec![
        Case::connection_error("8.4", "PUSH_PROMISE from a client is an error", &[code::PROTOCOL], || {
            push_promise(1, 3, &request("GET", HERE))
        }),
        Case::connection_error(
            "8.4",
            "PUSH_PROMISE on an open stream is an error",
            &[code::PROTOCOL],
            || [post(1, HOLD), push_promise(1, 2, &request("GET", HERE))].concat(),
        ),
        Case::connection_error("6.6", "PUSH_PROMISE on stream 0 is an error", &[code::PROTOCOL], || {
            push_promise(0, 2, &request("GET", HERE))
        }),
        Case::connection_error(
            "6.6",
            "PUSH_PROMISE without a promise is an error",
            &[code::PROTOCOL, code::FRAME_SIZE],
            || [post(1, HOLD), frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[])].concat(),
        ),
    ]
}
