//! The states and identifiers of streams, how many there may be, priority and RST_STREAM: sections 5.1 to 5.3, 6.3, 6.4.

use super::{Case, HERE, HOLD, get, post, request};
use crate::frame::{
    END_HEADERS, END_STREAM, NONE, PRIORITY, WHOLE, code, continuation, data, dependency, frame, headers,
    kind, priority, reset, setting, settings, window_update,
};
use crate::hpack::literal;
use crate::peer::{Event, Peer};

pub(super) fn cases() -> Vec<Case> {
    [idle(), half_closed(), reset_by_client(), closed(), identifiers(), concurrency(), priorities(), resets()]
        .into_iter()
        .flatten()
        .collect()
}

fn dummy() -> Vec<u8> {
    literal("x-dummy", &[b'x'; 4000])
}

fn idle() -> Vec<Case> {
    vec![
        Case::connection_error("5.1", "idle: DATA is an error", &[code::PROTOCOL], || {
            data(1, END_STREAM, b"test")
        }),
        Case::connection_error("5.1", "idle: RST_STREAM is an error", &[code::PROTOCOL], || {
            reset(1, code::CANCEL)
        }),
        Case::connection_error("5.1", "idle: WINDOW_UPDATE is an error", &[code::PROTOCOL], || {
            window_update(1, 100)
        }),
        Case::connection_error("5.1", "idle: CONTINUATION is an error", &[code::PROTOCOL], || {
            continuation(1, END_HEADERS, &request("GET", HERE))
        }),
        Case::ignored("5.1", "idle: PRIORITY is taken", || priority(1, 0, false, 255)),
    ]
}

/// The client has said all that it has to say, and the answer is not there yet.
fn half_closed() -> Vec<Case> {
    vec![
        Case::stream_error("5.1", "half-closed: DATA is an error", &[code::STREAM_CLOSED], || {
            [get(1, HOLD), data(1, END_STREAM, b"test")].concat()
        }),
        Case::stream_error("5.1", "half-closed: HEADERS are an error", &[code::STREAM_CLOSED], || {
            [get(1, HOLD), get(1, HOLD)].concat()
        }),
        Case::after_hands("5.1", "half-closed: CONTINUATION is an error", |peer| {
            peer.send(&[get(1, HOLD), continuation(1, END_HEADERS, &dummy())].concat());
            // Section 6.10 has a word about it too.
            peer.connection_error(&[code::STREAM_CLOSED, code::PROTOCOL])
        }),
        Case::stream_error(
            "5.1",
            "half-closed after a body: DATA is an error",
            &[code::STREAM_CLOSED],
            || [post(1, HOLD), data(1, END_STREAM, b"all"), data(1, END_STREAM, b"more")].concat(),
        ),
        Case::after_hands("5.1", "half-closed: WINDOW_UPDATE is taken", |peer| {
            peer.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), get(1, HERE)].concat());
            peer.send(&window_update(1, 1));
            peer.next_of(kind::DATA)?;
            Ok(None)
        }),
        Case::after_hands("5.1", "half-closed: PRIORITY is taken", |peer| {
            peer.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), get(1, HERE)].concat());
            peer.send(&[priority(1, 0, false, 255), window_update(1, 1)].concat());
            peer.next_of(kind::DATA)?;
            Ok(None)
        }),
        Case::ignored("5.1", "half-closed: RST_STREAM is taken", || {
            [get(1, HOLD), reset(1, code::CANCEL)].concat()
        }),
    ]
}

fn reset_by_client() -> Vec<Case> {
    const CODES: &[u32] = &[code::STREAM_CLOSED];
    vec![
        Case::stream_error("5.1", "closed by RST_STREAM: DATA is an error", CODES, || {
            [post(1, HOLD), reset(1, code::CANCEL), data(1, END_STREAM, b"test")].concat()
        }),
        Case::stream_error("5.1", "closed by RST_STREAM: HEADERS are an error", CODES, || {
            [post(1, HOLD), reset(1, code::CANCEL), get(1, HOLD)].concat()
        }),
        Case::connection_error(
            "5.1",
            "closed by RST_STREAM: CONTINUATION is an error",
            &[code::STREAM_CLOSED, code::PROTOCOL],
            || [post(1, HOLD), reset(1, code::CANCEL), continuation(1, END_HEADERS, &dummy())].concat(),
        ),
        Case::ignored("5.1", "closed by RST_STREAM: WINDOW_UPDATE and RST_STREAM are ignored", || {
            // They may have been on their way; section 5.1 lets them be an error only after a while.
            [post(1, HOLD), reset(1, code::CANCEL), window_update(1, 1), reset(1, code::CANCEL)].concat()
        }),
    ]
}

/// The request is answered.
fn closed() -> Vec<Case> {
    fn answered(peer: &mut Peer) -> Result<(), String> {
        peer.send(&get(1, HERE));
        peer.answer(1).map(drop)
    }
    vec![
        Case::after_hands("5.1", "closed: DATA is an error", |peer| {
            answered(peer)?;
            peer.send(&data(1, END_STREAM, b"test"));
            peer.stream_error(1, &[code::STREAM_CLOSED])
        }),
        Case::after_hands("5.1", "closed: HEADERS are an error", |peer| {
            answered(peer)?;
            peer.send(&get(1, HERE));
            peer.connection_error(&[code::STREAM_CLOSED])
        }),
        Case::after_hands("5.1", "closed: CONTINUATION is an error", |peer| {
            answered(peer)?;
            peer.send(&continuation(1, END_HEADERS, &dummy()));
            peer.connection_error(&[code::STREAM_CLOSED, code::PROTOCOL])
        }),
        Case::after_hands("5.1", "closed: PRIORITY is taken", |peer| {
            answered(peer)?;
            peer.send(&priority(1, 0, false, 255));
            peer.pong()
        }),
        Case::after_hands("5.1", "closed: WINDOW_UPDATE and RST_STREAM are ignored", |peer| {
            answered(peer)?;
            peer.send(&[window_update(1, 1), reset(1, code::NO_ERROR)].concat());
            peer.pong()
        }),
    ]
}

fn identifiers() -> Vec<Case> {
    vec![
        Case::connection_error("5.1.1", "a request on an even stream is an error", &[code::PROTOCOL], || {
            get(2, HERE)
        }),
        Case::connection_error(
            "5.1.1",
            "a stream below one that was begun is an error",
            &[code::PROTOCOL],
            || [get(5, HOLD), get(3, HERE)].concat(),
        ),
        Case::connection_error("5.1.1", "DATA on an even stream is an error", &[code::PROTOCOL], || {
            data(2, END_STREAM, b"test")
        }),
        Case::after_hands("5.1.1", "streams may be left out", |peer| {
            peer.send(&get(4_001, HERE));
            peer.answer(4_001)
        }),
        Case::after_hands("5.1.1", "the highest identifier is one", |peer| {
            peer.send(&get(0x7fff_ffff, HERE));
            peer.answer(0x7fff_ffff)
        }),
        Case::connection_error("6.2", "HEADERS on stream 0 are an error", &[code::PROTOCOL], || get(0, HERE)),
        Case::connection_error("6.1", "DATA on stream 0 is an error", &[code::PROTOCOL], || {
            data(0, END_STREAM, b"test")
        }),
    ]
}

/// Streams that are begun to find a limit that was announced; a larger one cannot be reached in a case's time.
const STREAMS_MAX: u32 = 20_000;

fn concurrency() -> Vec<Case> {
    vec![Case::after_hands("5.1.2", "a stream above the announced number is refused", |peer| {
        let Some(limit) = peer.setting(setting::MAX_CONCURRENT_STREAMS).filter(|most| *most < STREAMS_MAX)
        else {
            return Ok(Some("no limit is announced"));
        };
        let last = limit * 2 + 1;
        let requests: Vec<u8> = (0..=limit).flat_map(|at| get(at * 2 + 1, HOLD)).collect();
        peer.send(&requests);
        loop {
            match peer.next() {
                Event::Frame(frame) if frame.kind == kind::RST_STREAM => {
                    let right = matches!(frame.code(), code::REFUSED_STREAM | code::PROTOCOL);
                    return match right && frame.stream == last {
                        true => peer.pong(),
                        false => Err(peer.unexpected(&format!("RST_STREAM of {last}: REFUSED_STREAM"))),
                    };
                }
                Event::Frame(frame) if frame.kind != kind::GOAWAY => {}
                Event::Closed => return Ok(Some(crate::peer::UNEXPLAINED)),
                _ => return Err(peer.unexpected(&format!("RST_STREAM of {last}: REFUSED_STREAM"))),
            }
        }
    })]
}

fn priorities() -> Vec<Case> {
    vec![
        Case::answer("6.2", "HEADERS with priority are taken", || {
            let payload = [dependency(0, false, 255), request("GET", HERE)].concat();
            headers(1, WHOLE | PRIORITY, &payload)
        }),
        Case::answer("6.3", "the lowest weight is taken", || {
            [priority(1, 0, false, 0), get(1, HERE)].concat()
        }),
        Case::answer("6.3", "the highest weight is taken", || {
            [priority(1, 0, false, 255), get(1, HERE)].concat()
        }),
        Case::answer("6.3", "a dependency on another idle stream is taken", || {
            [priority(3, 1, false, 0), get(1, HERE)].concat()
        }),
        Case::answer("6.3", "an exclusive dependency is taken", || {
            [priority(1, 0, true, 0), get(1, HERE)].concat()
        }),
        Case::answer("6.3", "PRIORITY on a higher stream begins none", || {
            [priority(3, 0, false, 255), get(1, HERE)].concat()
        }),
        // RFC 9113 has nothing to say of what priorities mean; most peers still refuse these two.
        Case::stream_error(
            "7540 5.3.1",
            "HEADERS that depend on themselves are an error",
            &[code::PROTOCOL],
            || {
                let payload = [dependency(1, false, 255), request("GET", HERE)].concat();
                headers(1, WHOLE | PRIORITY, &payload)
            },
        ),
        Case::stream_error(
            "7540 5.3.1",
            "PRIORITY that depends on itself is an error",
            &[code::PROTOCOL],
            || priority(1, 1, false, 255),
        ),
        Case::connection_error("6.3", "PRIORITY on stream 0 is an error", &[code::PROTOCOL], || {
            priority(0, 0, false, 255)
        }),
        Case::stream_error("6.3", "PRIORITY of four bytes is an error", &[code::FRAME_SIZE], || {
            frame(kind::PRIORITY, NONE, 1, &[0x80, 0, 0, 1])
        }),
        Case::stream_error("6.3", "PRIORITY of six bytes is an error", &[code::FRAME_SIZE], || {
            [post(1, HOLD), frame(kind::PRIORITY, NONE, 1, &[0; 6])].concat()
        }),
        Case::stream_error(
            "6.2",
            "HEADERS too short for their priority are an error",
            &[code::FRAME_SIZE, code::PROTOCOL],
            || headers(1, WHOLE | PRIORITY, &[0; 4]),
        ),
    ]
}

fn resets() -> Vec<Case> {
    vec![
        Case::ignored("6.4", "RST_STREAM of an open stream is taken", || {
            [post(1, HOLD), reset(1, code::CANCEL)].concat()
        }),
        Case::after_hands("6.4", "after RST_STREAM the next stream is answered", |peer| {
            peer.send(&[post(1, HOLD), reset(1, code::CANCEL), get(3, HERE)].concat());
            peer.answer(3)
        }),
        Case::connection_error("6.4", "RST_STREAM of stream 0 is an error", &[code::PROTOCOL], || {
            reset(0, code::CANCEL)
        }),
        Case::connection_error("6.4", "RST_STREAM of an idle stream is an error", &[code::PROTOCOL], || {
            [get(1, HOLD), reset(3, code::CANCEL)].concat()
        }),
        Case::connection_error("6.4", "RST_STREAM of three bytes is an error", &[code::FRAME_SIZE], || {
            [get(1, HOLD), frame(kind::RST_STREAM, NONE, 1, &[0; 3])].concat()
        }),
        Case::connection_error("6.4", "RST_STREAM of five bytes is an error", &[code::FRAME_SIZE], || {
            [get(1, HOLD), frame(kind::RST_STREAM, NONE, 1, &[0; 5])].concat()
        }),
    ]
}
