//! Starting a connection, the form of frames, header blocks as a unit, errors and extensions: sections 3 to 5.5 without
//! the states of streams, and PING, GOAWAY and error codes.

use super::{Case, HERE, HOLD, LONG, get, post, request};
use crate::frame::{
    ACK, END_HEADERS, END_STREAM, FRAME_BYTES, NONE, PREFACE, WHOLE, code, continuation, data, frame, goaway,
    headers, kind, ping, priority, reset, settings, window_update,
};
use crate::hpack::literal;
use crate::peer::{Event, Outcome, Peer};

pub(super) fn cases() -> Vec<Case> {
    [preface(), frames(), blocks(), continuations(), pings(), endings()].into_iter().flatten().collect()
}

/// The first frame is SETTINGS and no acknowledgement.
fn begins_with_settings(peer: &mut Peer) -> Outcome {
    match peer.next() {
        Event::Frame(frame) if frame.kind == kind::SETTINGS && !frame.has(ACK) => Ok(None),
        _ => Err(peer.unexpected("SETTINGS first")),
    }
}

fn preface() -> Vec<Case> {
    vec![
        Case::bare("3.4", "the server begins with SETTINGS", |peer| {
            peer.send(&[PREFACE, &settings(&[])].concat());
            begins_with_settings(peer)
        }),
        Case::bare("3.4", "a preface in pieces of one byte is one", |peer| {
            for byte in [PREFACE, &settings(&[])].concat() {
                peer.send(&[byte]);
            }
            begins_with_settings(peer)
        }),
        Case::bare(
            "3.4",
            "a request right behind the preface, before any settings came, is answered",
            |peer| {
                peer.send(&[PREFACE, &settings(&[]), &get(1, HERE)].concat());
                peer.answer(1)
            },
        ),
        // An endpoint that also speaks HTTP/1 answers this in HTTP/1, and closes.
        Case::bare("3.4", "what is no preface ends the connection", |peer| {
            peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
            ends(peer)
        }),
        Case::bare("3.4", "a preface that goes wrong at its end ends the connection", |peer| {
            peer.send(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n");
            ends(peer)
        }),
        Case::bare("3.4", "a preface without SETTINGS behind it is an error", |peer| {
            peer.send(&[PREFACE, &ping(NONE, b"too soon")].concat());
            peer.connection_error(&[code::PROTOCOL])
        }),
        Case::bare("3.4", "a client's first SETTINGS that are an ACK are an error", |peer| {
            peer.send(&[PREFACE, &frame(kind::SETTINGS, ACK, 0, &[])].concat());
            peer.connection_error(&[code::PROTOCOL])
        }),
    ]
}

/// Waits for the end of the connection; bytes before it are not judged.
fn ends(peer: &mut Peer) -> Outcome {
    loop {
        match peer.next() {
            Event::Closed => return Ok(None),
            Event::Silence => return Err(peer.unexpected("the end of the connection")),
            Event::Frame(_) => {}
        }
    }
}

fn frames() -> Vec<Case> {
    vec![
        Case::ignored("4.1", "a frame of unknown type is ignored", || frame(kind::UNKNOWN, NONE, 0, &[0; 8])),
        Case::ignored("5.5", "a frame of unknown type with flags, on a stream, is ignored", || {
            frame(kind::UNKNOWN, 0xff, 1, &[0; 100])
        }),
        Case::after_hands("4.1", "flags without a meaning are ignored", |peer| {
            peer.send(&ping(0xfe, b"flagged!"));
            peer.pong_of(b"flagged!")
        }),
        Case::after_hands("4.1", "the reserved bit is ignored", |peer| {
            peer.send(&frame(kind::PING, NONE, 1 << 31, b"reserved"));
            peer.pong_of(b"reserved")
        }),
        Case::answer("4.1", "flags without a meaning on HEADERS and DATA are ignored", || {
            let request = headers(1, END_HEADERS | 0xc2, &request("POST", HERE));
            [request, data(1, END_STREAM | 0xf6, b"test")].concat()
        }),
        Case::answer("4.2", "DATA of 16,384 bytes is taken", || {
            [post(1, HERE), data(1, END_STREAM, &[b'x'; FRAME_BYTES])].concat()
        }),
        Case::answer("4.2", "HEADERS of 16,384 bytes are taken", || {
            let mut block = request("GET", HERE);
            let rest = FRAME_BYTES - block.len();
            // Two bytes of a literal's head and its name's length, seven of name, three of its value's length.
            block.extend(literal("x-dummy", &vec![b'x'; rest - 2 - 7 - 3]));
            assert_eq!(block.len(), FRAME_BYTES);
            headers(1, WHOLE, &block)
        }),
        Case::after_hands("4.2", "DATA larger than allowed is an error", |peer| {
            let size = peer.frame_max() + 1;
            peer.send(&[post(1, HERE), data(1, END_STREAM, &vec![b'x'; size])].concat());
            peer.stream_error(1, &[code::FRAME_SIZE])
        }),
        Case::after_hands("4.2", "HEADERS larger than allowed are an error of the connection", |peer| {
            let mut block = request("GET", HERE);
            while block.len() <= peer.frame_max() {
                block.extend(literal("x-dummy", &[b'x'; 4000]));
            }
            peer.send(&headers(1, WHOLE, &block));
            peer.connection_error(&[code::FRAME_SIZE])
        }),
        Case::after_hands("4.2", "SETTINGS larger than allowed are an error of the connection", |peer| {
            let many = (peer.frame_max() / 6 + 1) * 6;
            peer.send(&frame(kind::SETTINGS, NONE, 0, &vec![0x7f; many]));
            peer.connection_error(&[code::FRAME_SIZE])
        }),
        Case::after_hands("4.2", "a frame of unknown type larger than allowed is an error", |peer| {
            let size = peer.frame_max() + 1;
            peer.send(&frame(kind::UNKNOWN, NONE, 0, &vec![0; size]));
            peer.connection_error(&[code::FRAME_SIZE])
        }),
        Case::after_hands("5.4.1", "after an error the connection is closed", |peer| {
            peer.send(&frame(kind::PING, NONE, 3, &[0; 8]));
            ends(peer)
        }),
        Case::after_hands("5.4.1", "an error is explained by GOAWAY", |peer| {
            peer.send(&frame(kind::PING, NONE, 3, &[0; 8]));
            match peer.next_of(kind::GOAWAY)?.code() {
                code::PROTOCOL => Ok(None),
                _ => Err(peer.unexpected("PROTOCOL_ERROR")),
            }
        }),
        Case::after_hands("5.4.1", "GOAWAY names the last stream that was begun", |peer| {
            peer.send(&[get(1, HOLD), get(5, HOLD)].concat());
            peer.pong()?;
            peer.send(&frame(kind::PING, NONE, 3, &[0; 8]));
            match peer.next_of(kind::GOAWAY)?.number(0) {
                5 => Ok(None),
                other => Err(format!("expected 5; got {other}")),
            }
        }),
    ]
}

/// A request whose block is not complete.
fn begun(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, &request("GET", HERE))
}

fn dummy() -> Vec<u8> {
    literal("x-dummy", &[b'x'; 4000])
}

fn blocks() -> Vec<Case> {
    vec![
        Case::connection_error(
            "4.3",
            "a block that cannot be decoded is an error",
            &[code::COMPRESSION],
            || headers(1, WHOLE, &[0x40]),
        ),
        Case::connection_error("4.3", "PRIORITY within a block is an error", &[code::PROTOCOL], || {
            [begun(1), priority(1, 0, false, 255), continuation(1, END_HEADERS, &dummy())].concat()
        }),
        Case::connection_error(
            "4.3",
            "HEADERS of another stream within a block are an error",
            &[code::PROTOCOL],
            || [begun(1), get(3, HERE), continuation(1, END_HEADERS, &dummy())].concat(),
        ),
        Case::connection_error(
            "4.3",
            "a broken block on a stream that is refused is an error",
            &[code::COMPRESSION],
            || {
                // The decoder's state is the connection's: no block may go unread.
                [post(1, HOLD), reset(1, code::CANCEL), headers(3, WHOLE, &[0xff, 0xff, 0xff, 0xff])].concat()
            },
        ),
        Case::connection_error(
            "6.2",
            "PRIORITY after HEADERS without END_HEADERS is an error",
            &[code::PROTOCOL],
            || [headers(1, NONE, &request("GET", HERE)), priority(1, 0, false, 255)].concat(),
        ),
        Case::connection_error(
            "6.2",
            "HEADERS of another stream after HEADERS without END_HEADERS are an error",
            &[code::PROTOCOL],
            || [headers(1, NONE, &request("GET", HERE)), get(3, HERE)].concat(),
        ),
        Case::connection_error("4.3", "PING within a block is an error", &[code::PROTOCOL], || {
            [begun(1), ping(NONE, &[0; 8])].concat()
        }),
        Case::connection_error(
            "5.5",
            "a frame of unknown type within a block is an error",
            &[code::PROTOCOL],
            || [begun(1), frame(kind::UNKNOWN, NONE, 0, &[0; 8])].concat(),
        ),
    ]
}

fn continuations() -> Vec<Case> {
    vec![
        Case::answer("6.10", "a block in two frames is one", || {
            let block = request("GET", HERE);
            [headers(1, END_STREAM, &block[..5]), continuation(1, END_HEADERS, &block[5..])].concat()
        }),
        Case::answer("6.10", "a block in three frames is one", || {
            let block = request("GET", HERE);
            let first = headers(1, END_STREAM, &block[..5]);
            [first, continuation(1, NONE, &block[5..10]), continuation(1, END_HEADERS, &block[10..])].concat()
        }),
        Case::answer("6.10", "a block in five frames, some of one byte and one empty, is one", || {
            let block = request("GET", HERE);
            let first = [headers(1, END_STREAM, &[]), continuation(1, NONE, &block[..1])].concat();
            let second = [continuation(1, NONE, &block[1..2]), continuation(1, NONE, &[])].concat();
            [first, second, continuation(1, END_HEADERS, &block[2..])].concat()
        }),
        // Many more than the fields that are taken at all would need: an implementation may find that too much.
        Case::answer("6.10", "a block in 40 frames is one", || {
            let block = request("GET", HERE);
            let mut bytes = headers(1, END_STREAM, &[]);
            bytes.extend(block[..38].iter().flat_map(|byte| continuation(1, NONE, &[*byte])));
            bytes.extend(continuation(1, END_HEADERS, &block[38..]));
            bytes
        }),
        Case::answer("6.10", "long fields in several CONTINUATION frames are taken", || {
            let (one, two) = (literal("x-one", &[b'x'; 4000]), literal("x-two", &[b'x'; 4000]));
            [begun(1), continuation(1, NONE, &one), continuation(1, END_HEADERS, &two)].concat()
        }),
        Case::connection_error(
            "6.10",
            "DATA after CONTINUATION without END_HEADERS is an error",
            &[code::PROTOCOL],
            || {
                let begun = headers(1, NONE, &request("POST", HERE));
                [begun, continuation(1, NONE, &dummy()), data(1, END_STREAM, b"test")].concat()
            },
        ),
        Case::connection_error("6.10", "CONTINUATION on stream 0 is an error", &[code::PROTOCOL], || {
            [begun(1), continuation(0, END_HEADERS, &dummy())].concat()
        }),
        Case::connection_error(
            "6.10",
            "CONTINUATION on another stream is an error",
            &[code::PROTOCOL],
            || [begun(1), continuation(3, END_HEADERS, &dummy())].concat(),
        ),
        Case::connection_error(
            "6.10",
            "CONTINUATION after HEADERS with END_HEADERS is an error",
            &[code::PROTOCOL],
            || [get(1, HOLD), continuation(1, END_HEADERS, &dummy())].concat(),
        ),
        Case::connection_error(
            "6.10",
            "CONTINUATION after one with END_HEADERS is an error",
            &[code::PROTOCOL],
            || {
                let hold = headers(1, END_STREAM, &request("GET", HOLD));
                [hold, continuation(1, END_HEADERS, &dummy()), continuation(1, END_HEADERS, &dummy())]
                    .concat()
            },
        ),
        Case::connection_error("6.10", "CONTINUATION after DATA is an error", &[code::PROTOCOL], || {
            [post(1, HOLD), data(1, NONE, b"test"), continuation(1, END_HEADERS, &dummy())].concat()
        }),
    ]
}

fn pings() -> Vec<Case> {
    vec![
        Case::after_hands("6.7", "PING is answered with its own bytes", |peer| {
            peer.send(&ping(NONE, b"c\0nf\xffrm!"));
            peer.pong_of(b"c\0nf\xffrm!")
        }),
        Case::after_hands("6.7", "an answer to a PING is not answered", |peer| {
            peer.send(&[ping(ACK, b"invalid!"), ping(NONE, b"answered")].concat());
            peer.pong_of(b"answered")
        }),
        Case::connection_error("6.7", "PING on a stream is an error", &[code::PROTOCOL], || {
            frame(kind::PING, NONE, 1, &[0; 8])
        }),
        Case::connection_error("6.7", "PING of six bytes is an error", &[code::FRAME_SIZE], || {
            ping(NONE, &[0; 6])
        }),
        Case::connection_error("6.7", "PING of nine bytes is an error", &[code::FRAME_SIZE], || {
            ping(NONE, &[0; 9])
        }),
        Case::connection_error("6.7", "an empty answer to a PING is an error", &[code::FRAME_SIZE], || {
            ping(ACK, &[])
        }),
    ]
}

fn endings() -> Vec<Case> {
    vec![
        Case::after_hands("6.8", "GOAWAY is taken", |peer| {
            peer.send(&goaway(0, code::NO_ERROR));
            peer.lives_or_ends()
        }),
        Case::after_hands("6.8", "a request under way is answered after GOAWAY", |peer| {
            peer.send(&[get(1, HERE), goaway(0, code::NO_ERROR)].concat());
            peer.answer(1)
        }),
        Case::after_hands("6.8", "a long answer is whole after GOAWAY", |peer| {
            let more = [window_update(0, 1 << 24), window_update(1, 1 << 24)].concat();
            peer.send(&[get(1, LONG), more, goaway(0, code::NO_ERROR)].concat());
            peer.answer(1)
        }),
        Case::connection_error("6.8", "GOAWAY on a stream is an error", &[code::PROTOCOL], || {
            frame(kind::GOAWAY, NONE, 1, &[0; 8])
        }),
        Case::connection_error("6.8", "GOAWAY that is too short is an error", &[code::FRAME_SIZE], || {
            frame(kind::GOAWAY, NONE, 0, &[0; 7])
        }),
        Case::after_hands("7", "GOAWAY with an unknown code does nothing special", |peer| {
            peer.send(&goaway(0, 0xff));
            peer.lives_or_ends()
        }),
        Case::ignored("7", "RST_STREAM with an unknown code does nothing special", || {
            [post(1, HOLD), reset(1, 0xff)].concat()
        }),
    ]
}
