//! SETTINGS: section 6.5.

use super::{Case, HERE, LONG, get};
use crate::frame::{ACK, END_STREAM, FRAME_BYTES, NONE, code, frame, kind, setting, settings, window_update};
use crate::peer::{Event, Peer};

pub(super) fn cases() -> Vec<Case> {
    [form(), values(), order()].into_iter().flatten().collect()
}

fn form() -> Vec<Case> {
    vec![
        Case::connection_error("6.5", "an ACK with a payload is an error", &[code::FRAME_SIZE], || {
            frame(kind::SETTINGS, ACK, 0, &[0])
        }),
        Case::connection_error("6.5", "an ACK with a whole setting is an error", &[code::FRAME_SIZE], || {
            frame(kind::SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 100])
        }),
        Case::connection_error("6.5", "SETTINGS on a stream are an error", &[code::PROTOCOL], || {
            frame(kind::SETTINGS, NONE, 1, &[0, 3, 0, 0, 0, 100])
        }),
        Case::connection_error("6.5", "SETTINGS of three bytes are an error", &[code::FRAME_SIZE], || {
            frame(kind::SETTINGS, NONE, 0, &[0, 3, 0])
        }),
        Case::connection_error("6.5", "SETTINGS of seven bytes are an error", &[code::FRAME_SIZE], || {
            frame(kind::SETTINGS, NONE, 0, &[0, 3, 0, 0, 0, 100, 0])
        }),
    ]
}

fn values() -> Vec<Case> {
    vec![
        Case::connection_error("6.5.2", "ENABLE_PUSH of 2 is an error", &[code::PROTOCOL], || {
            settings(&[(setting::ENABLE_PUSH, 2)])
        }),
        Case::connection_error(
            "6.5.2",
            "INITIAL_WINDOW_SIZE above 2^31-1 is an error",
            &[code::FLOW_CONTROL],
            || settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
        ),
        Case::connection_error(
            "6.9.2",
            "INITIAL_WINDOW_SIZE of 2^32-1 is an error",
            &[code::FLOW_CONTROL],
            || settings(&[(setting::INITIAL_WINDOW_SIZE, u32::MAX)]),
        ),
        Case::connection_error("6.5.2", "MAX_FRAME_SIZE below 16,384 is an error", &[code::PROTOCOL], || {
            settings(&[(setting::MAX_FRAME_SIZE, 16_383)])
        }),
        Case::connection_error("6.5.2", "MAX_FRAME_SIZE above 2^24-1 is an error", &[code::PROTOCOL], || {
            settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])
        }),
        Case::connection_error(
            "8441 3",
            "ENABLE_CONNECT_PROTOCOL of 2 is an error",
            &[code::PROTOCOL],
            || settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)]),
        ),
        Case::ignored("6.5.2", "an unknown setting is ignored", || {
            settings(&[(0xff, 0), (0xfa_fa, u32::MAX)])
        }),
        Case::answer("6.5.2", "every known setting at once is taken", || {
            let all = settings(&[
                (setting::HEADER_TABLE_SIZE, 4096),
                (setting::ENABLE_PUSH, 0),
                (setting::MAX_CONCURRENT_STREAMS, 100),
                (setting::INITIAL_WINDOW_SIZE, 65_535),
                (setting::MAX_FRAME_SIZE, 16_384),
                (setting::MAX_HEADER_LIST_SIZE, 100_000),
            ]);
            [all, get(1, HERE)].concat()
        }),
        Case::answer("6.5.2", "a client without a table for fields is answered", || {
            [settings(&[(setting::HEADER_TABLE_SIZE, 0)]), get(1, HERE)].concat()
        }),
        Case::after_hands("6.5.2", "no frame is larger than the client allows", |peer| {
            let windows = [window_update(0, 1 << 24), settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 24)])];
            peer.send(&[windows.concat(), get(1, LONG)].concat());
            loop {
                let data = peer.next_of(kind::DATA)?;
                if data.payload.len() > FRAME_BYTES {
                    return Err(peer.unexpected("at most 16,384 bytes"));
                }
                if data.has(END_STREAM) {
                    return Ok(None);
                }
            }
        }),
    ]
}

/// One acknowledgement.
fn acknowledged(peer: &mut Peer) -> Result<(), String> {
    match peer.next_of(kind::SETTINGS)?.has(ACK) {
        true => Ok(()),
        false => Err(peer.unexpected("SETTINGS with ACK")),
    }
}

fn order() -> Vec<Case> {
    vec![
        Case::after_hands("6.5.3", "settings are acknowledged", |peer| {
            peer.send(&settings(&[(setting::ENABLE_PUSH, 0)]));
            acknowledged(peer).map(|()| None)
        }),
        Case::after_hands("6.5.3", "each is acknowledged, in order, with no more", |peer| {
            for _ in 0..3 {
                peer.send(&settings(&[]));
            }
            for _ in 0..3 {
                acknowledged(peer)?;
            }
            peer.send(&crate::frame::ping(NONE, b"finished"));
            loop {
                match peer.next() {
                    Event::Frame(frame) if frame.kind == kind::PING => return Ok(None),
                    Event::Frame(frame) if frame.kind != kind::SETTINGS => {}
                    _ => return Err(peer.unexpected("three acknowledgements")),
                }
            }
        }),
        Case::after_hands("6.5.3", "of two values of one setting the last holds", |peer| {
            let window = |bytes| (setting::INITIAL_WINDOW_SIZE, bytes);
            peer.send(&settings(&[window(100), window(1)]));
            acknowledged(peer)?;
            peer.send(&get(1, HERE));
            match peer.next_of(kind::DATA)?.payload.len() {
                1 => Ok(None),
                _ => Err(peer.unexpected("DATA of 1 byte")),
            }
        }),
        // The specification says nothing about it.
        Case::after_hands("6.5.3", "an ACK of nothing is ignored or an error", |peer| {
            peer.send(&frame(kind::SETTINGS, ACK, 0, &[]));
            peer.lives_or_ends()
        }),
    ]
}
