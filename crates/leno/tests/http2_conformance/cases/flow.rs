//! Flow control: sections 5.2 and 6.9.

use std::time::Duration;

use super::{Case, HERE, HOLD, LONG, get, post, request};
use crate::frame::{
    ACK, END_STREAM, FRAME_BYTES, Frame, NONE, WHOLE, WINDOW, code, data, frame, headers, kind, setting,
    settings, window_update,
};
use crate::peer::{Event, Outcome, Peer};

/// The most that a window may be.
const MOST: u32 = (1 << 31) - 1;
/// For "and nothing more comes": on loopback, what is not there by then was not sent.
const QUIET: Duration = Duration::from_millis(300);
/// Sent beyond every window: whoever takes so much without an error keeps no window.
const UNASKED_BYTES: usize = 64 << 20;

pub(super) fn cases() -> Vec<Case> {
    [form(), overflow(), obedience(), theirs()].into_iter().flatten().collect()
}

fn form() -> Vec<Case> {
    vec![
        Case::ignored("6.9", "WINDOW_UPDATE of the connection is taken", || window_update(0, 1)),
        Case::after_hands("6.9", "WINDOW_UPDATE of a stream is taken", |peer| {
            peer.send(&[get(1, HOLD), window_update(1, 1)].concat());
            peer.pong()
        }),
        Case::connection_error(
            "6.9",
            "an increment of 0 for the connection is an error",
            &[code::PROTOCOL],
            || window_update(0, 0),
        ),
        Case::stream_error("6.9", "an increment of 0 for a stream is an error", &[code::PROTOCOL], || {
            [get(1, HOLD), window_update(1, 0)].concat()
        }),
        Case::connection_error(
            "6.9",
            "WINDOW_UPDATE of three bytes is an error",
            &[code::FRAME_SIZE],
            || frame(kind::WINDOW_UPDATE, NONE, 0, &[0, 0, 1]),
        ),
        Case::connection_error(
            "6.9",
            "WINDOW_UPDATE of five bytes on a stream is an error",
            &[code::FRAME_SIZE],
            || [get(1, HOLD), frame(kind::WINDOW_UPDATE, NONE, 1, &[0, 0, 0, 1, 0])].concat(),
        ),
        Case::after_hands("6.9", "the reserved bit of an increment is ignored", |peer| {
            peer.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), get(1, HERE)].concat());
            peer.send(&window_update(1, 1 << 31 | 1));
            exactly(peer, 1)
        }),
    ]
}

fn overflow() -> Vec<Case> {
    vec![
        Case::connection_error(
            "6.9.1",
            "a window of the connection above 2^31-1 is an error",
            &[code::FLOW_CONTROL],
            || [window_update(0, MOST), window_update(0, MOST)].concat(),
        ),
        Case::stream_error(
            "6.9.1",
            "a window of a stream above 2^31-1 is an error",
            &[code::FLOW_CONTROL],
            || [get(1, HOLD), window_update(1, MOST), window_update(1, MOST)].concat(),
        ),
        Case::ignored("6.9.1", "windows of 2^31-1 are windows", || {
            let most = MOST - WINDOW as u32;
            [window_update(0, most), get(1, HOLD), window_update(1, most)].concat()
        }),
        Case::connection_error(
            "6.9.2",
            "a change of INITIAL_WINDOW_SIZE that takes a window above 2^31-1 is an error",
            &[code::FLOW_CONTROL],
            || {
                let most = window_update(1, MOST - WINDOW as u32);
                [get(1, HOLD), most, settings(&[(setting::INITIAL_WINDOW_SIZE, WINDOW as u32 + 1)])].concat()
            },
        ),
    ]
}

/// The next DATA has so many bytes.
fn exactly(peer: &mut Peer, bytes: usize) -> Outcome {
    match peer.next_of(kind::DATA)?.payload.len() {
        got if got == bytes => Ok(None),
        _ => Err(peer.unexpected(&format!("DATA of {bytes} bytes"))),
    }
}

/// Counts DATA until nothing comes for [`QUIET`].
fn until_quiet(peer: &mut Peer) -> Result<usize, String> {
    let mut bytes = 0;
    loop {
        match peer.next_within(QUIET) {
            Event::Frame(frame) if frame.kind == kind::DATA => bytes += frame.payload.len(),
            Event::Frame(frame) if !matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => {}
            Event::Silence => return Ok(bytes),
            _ => return Err(peer.unexpected("DATA")),
        }
    }
}

fn wait_for_ack(peer: &mut Peer) -> Result<Frame, String> {
    loop {
        let frame = peer.next_of(kind::SETTINGS)?;
        if frame.has(ACK) {
            return Ok(frame);
        }
    }
}

/// What it sends fits the client's windows.
fn obedience() -> Vec<Case> {
    let window = |bytes: u32| settings(&[(setting::INITIAL_WINDOW_SIZE, bytes)]);
    vec![
        Case::after_hands("6.9.1", "with a window of 1, 1 byte comes", move |peer| {
            peer.send(&window(1));
            wait_for_ack(peer)?;
            peer.send(&get(1, HERE));
            exactly(peer, 1)?;
            match until_quiet(peer)? {
                0 => Ok(None),
                more => Err(format!("{more} bytes more than the window")),
            }
        }),
        Case::after_hands("6.9.1", "an answer stops at the windows' 65,535 bytes", |peer| {
            peer.send(&get(1, LONG));
            match until_quiet(peer)? {
                WINDOW => Ok(None),
                other => Err(format!("{other} bytes")),
            }
        }),
        Case::after_hands(
            "6.9.1",
            "a window of the stream alone lets nothing pass the connection's",
            |peer| {
                peer.send(&[get(1, LONG), window_update(1, 1 << 20)].concat());
                match until_quiet(peer)? {
                    WINDOW => {}
                    other => return Err(format!("{other} bytes")),
                }
                peer.send(&window_update(0, 1000));
                match until_quiet(peer)? {
                    1000 => Ok(None),
                    other => Err(format!("{other} bytes after 1,000 were allowed")),
                }
            },
        ),
        Case::after_hands(
            "6.9.2",
            "a change of INITIAL_WINDOW_SIZE holds for streams that are open",
            move |peer| {
                peer.send(&window(0));
                wait_for_ack(peer)?;
                peer.send(&get(1, HERE));
                peer.next_of(kind::HEADERS)?;
                peer.send(&window(1));
                exactly(peer, 1)
            },
        ),
        Case::after_hands("6.9.2", "a window can become negative", move |peer| {
            peer.send(&window(3));
            wait_for_ack(peer)?;
            peer.send(&get(1, HERE));
            exactly(peer, 3)?;
            peer.send(&window(2));
            wait_for_ack(peer)?;
            // It is at -1 now, and at 1 with these.
            peer.send(&window_update(1, 2));
            exactly(peer, 1)
        }),
        Case::after_hands("6.9.1", "an answer without a body needs no window", move |peer| {
            peer.send(&window(0));
            wait_for_ack(peer)?;
            peer.send(&headers(1, WHOLE, &request("HEAD", HERE)));
            peer.answer(1)
        }),
        Case::after_hands("5.2", "a stream that may not send holds up no other", |peer| {
            // The first takes the stream's window and not all of the connection's.
            peer.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 20_000)]), get(1, LONG)].concat());
            match until_quiet(peer)? {
                20_000 => {}
                other => return Err(format!("{other} bytes with a window of 20,000")),
            }
            peer.send(&get(3, HERE));
            peer.answer(3)
        }),
    ]
}

/// What is sent to it has to fit the windows that it gives.
fn theirs() -> Vec<Case> {
    vec![
        Case::after_hands("6.9.1", "DATA beyond the window is an error", |peer| {
            // Nobody reads this body: no window grows for long.
            peer.send(&post(1, HOLD));
            let piece = data(1, NONE, &[b'x'; FRAME_BYTES]);
            let mut sent = 0;
            while sent < UNASKED_BYTES && peer.send(&piece) {
                sent += FRAME_BYTES;
            }
            loop {
                match peer.next() {
                    Event::Frame(frame) if matches!(frame.kind, kind::GOAWAY | kind::RST_STREAM) => {
                        return match frame.code() {
                            code::FLOW_CONTROL => Ok(None),
                            _ => Err(peer.unexpected("FLOW_CONTROL_ERROR")),
                        };
                    }
                    Event::Frame(_) => {}
                    // What was still on its way when it was closed takes GOAWAY with it.
                    Event::Closed => return Ok(Some(crate::peer::UNEXPLAINED)),
                    Event::Silence => return Err(peer.unexpected("FLOW_CONTROL_ERROR")),
                }
            }
        }),
        Case::after_hands("6.9", "windows grow again as a long body is read", |peer| {
            // More than any first window; within what is allowed at every moment.
            const BODY_BYTES: usize = 3 << 20;
            let first = peer.window_first();
            let (mut stream, mut connection) = (first as i64, WINDOW as i64);
            peer.send(&post(1, HERE));
            let mut left = BODY_BYTES;
            loop {
                while left > 0 && stream.min(connection) > 0 {
                    let bytes = left.min(FRAME_BYTES).min(stream.min(connection) as usize);
                    left -= bytes;
                    (stream, connection) = (stream - bytes as i64, connection - bytes as i64);
                    let last = if left == 0 { END_STREAM } else { NONE };
                    peer.send(&data(1, last, &vec![b'x'; bytes]));
                }
                if left == 0 {
                    return peer.answer(1);
                }
                match peer.next() {
                    Event::Frame(frame) if frame.kind == kind::WINDOW_UPDATE => match frame.stream {
                        0 => connection += i64::from(frame.number(0)),
                        _ => stream += i64::from(frame.number(0)),
                    },
                    Event::Frame(frame) if !matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => {}
                    _ => return Err(peer.unexpected("WINDOW_UPDATE")),
                }
            }
        }),
        Case::after_hands("6.9.1", "padding counts for the windows, and is given back", |peer| {
            // 255 of each 257 bytes are padding: 4,000 frames are a megabyte for the windows.
            peer.send(&post(1, HERE));
            let first = peer.window_first();
            let (mut stream, mut connection) = (first as i64, WINDOW as i64);
            let padded = data(1, crate::frame::PADDED, &[&[255, b'x'][..], &[0; 255]].concat());
            for _ in 0..4_000 {
                while stream.min(connection) < 257 {
                    match peer.next() {
                        Event::Frame(frame) if frame.kind == kind::WINDOW_UPDATE => match frame.stream {
                            0 => connection += i64::from(frame.number(0)),
                            _ => stream += i64::from(frame.number(0)),
                        },
                        Event::Frame(_) => {}
                        _ => return Err(peer.unexpected("WINDOW_UPDATE")),
                    }
                }
                (stream, connection) = (stream - 257, connection - 257);
                peer.send(&padded);
            }
            peer.send(&data(1, END_STREAM, &[]));
            peer.answer(1)
        }),
    ]
}
