//! The eight bytes before every payload, and the numbers inside payloads.
//!
//! ```text
//!  byte 0          bytes 1..4           bytes 4..8
//!  E O kkkkkk      payload length       stream number, 0 = the connection
//!  | |  `- kind    (big-endian)         (big-endian)
//!  | `- optional: a receiver that does not know the kind skips the frame
//!  `- END: the sender's half of the stream ends with this frame (HEAD and DATA only)
//! ```

use alloc::vec::Vec;

/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 8;

/// Longest payload that the length field can say.
pub(super) const LENGTH_MAX: u32 = (1 << 24) - 1;

/// Longest payload of a SETTINGS or CLOSE frame, in bytes: room for tags and texts of later versions.
pub(super) const CONTROL_BYTES_MAX: usize = 256;

pub(super) const SETTINGS: u8 = 1;
pub(super) const HEAD: u8 = 2;
pub(super) const DATA: u8 = 3;
pub(super) const TRAILERS: u8 = 4;
pub(super) const END: u8 = 5;
pub(super) const RESET: u8 = 6;
pub(super) const CREDIT: u8 = 7;
pub(super) const PING: u8 = 8;
pub(super) const PONG: u8 = 9;
pub(super) const DRAIN: u8 = 10;
pub(super) const CLOSE: u8 = 11;

const KIND_BITS: u8 = 0x3f;
const OPTIONAL_BIT: u8 = 0x40;
const END_BIT: u8 = 0x80;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// One of the constants above, or something that a later version knows.
    pub(super) kind: u8,
    /// Whether a receiver that does not know the kind may skip it.
    pub(super) optional: bool,
    /// The sender's half of the stream ends with this frame.
    pub(super) end: bool,
    /// Payload bytes that follow.
    pub(super) length: usize,
    /// The stream's number; 0 is the connection itself.
    pub(super) stream: u32,
}

impl Header {
    /// The header at the front of `input`; `None` while it is not complete.
    pub(super) fn decode(input: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = input.first_chunk()?;
        let [first, a, b, c, rest @ ..] = *bytes;
        Some(Self {
            kind: first & KIND_BITS,
            optional: first & OPTIONAL_BIT != 0,
            end: first & END_BIT != 0,
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            stream: u32::from_be_bytes(rest),
        })
    }

    /// The bytes of a header that is not optional. `length` is at most [`LENGTH_MAX`].
    pub(super) const fn encode(kind: u8, end: bool, length: usize, stream: u32) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        [if end { kind | END_BIT } else { kind }, a, b, c, d, e, f, g]
    }
}

/// Appends `value` in groups of seven bits, lowest first, the top bit saying that more follow (LEB128).
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint off the front of `input`; `None` when it is cut short or passes 64 bits.
pub(super) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    *input = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
