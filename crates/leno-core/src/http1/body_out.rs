//! Bodies on the way out.

use alloc::vec::Vec;
use core::fmt;

use super::encode::write_field;
use super::facts::BodyFraming;
use crate::head::{FieldId, Fields};

/// Frames payload, and sees to it that exactly as many bytes are written as were announced.
#[derive(Clone, Copy, Debug)]
pub struct BodyEncoder {
    framing: BodyFraming,
    /// Bytes still to be written when the framing is a length.
    left: u64,
}

/// The payload does not have the length that was announced: the connection must be closed, since its peer counts on
/// that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLengthError {
    /// There was more payload than announced; what was too much has not been written.
    TooLong,
    /// The payload ended this many bytes too early.
    TooShort(u64),
}

impl BodyEncoder {
    /// An encoder for a body that was announced like this.
    pub const fn new(framing: BodyFraming) -> Self {
        let left = match framing {
            BodyFraming::Length(bytes) => bytes,
            _ => 0,
        };
        Self { framing, left }
    }

    /// Appends `payload` with its framing to `out`.
    ///
    /// # Errors
    /// [`BodyLengthError::TooLong`], and nothing has been written.
    pub fn payload(&mut self, out: &mut Vec<u8>, payload: &[u8]) -> Result<(), BodyLengthError> {
        self.before(out, payload.len())?;
        out.extend_from_slice(payload);
        self.after(out, payload.len());
        Ok(())
    }

    /// Appends what stands before `bytes` of payload that the caller writes itself, for instance without copying them.
    ///
    /// # Errors
    /// [`BodyLengthError::TooLong`], and nothing has been written.
    pub fn before(&mut self, out: &mut Vec<u8>, bytes: usize) -> Result<(), BodyLengthError> {
        match self.framing {
            // An empty chunk would end the body.
            BodyFraming::Chunked if bytes > 0 => encode_chunk_header(out, bytes as u64),
            BodyFraming::Length(_) | BodyFraming::None => {
                self.left = self.left.checked_sub(bytes as u64).ok_or(BodyLengthError::TooLong)?;
            }
            BodyFraming::Chunked | BodyFraming::UntilClose | BodyFraming::Tunnel => {}
        }
        Ok(())
    }

    /// Appends what stands after `bytes` of payload.
    pub fn after(&self, out: &mut Vec<u8>, bytes: usize) {
        if self.framing == BodyFraming::Chunked && bytes > 0 {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends what stands at the end of the body. Trailers are written only where there is a place for them.
    ///
    /// # Errors
    /// [`BodyLengthError::TooShort`].
    pub fn finish(&mut self, out: &mut Vec<u8>, trailers: Fields<'_>) -> Result<(), BodyLengthError> {
        if self.framing == BodyFraming::Chunked {
            encode_last_chunk(out, trailers);
        }
        if self.left > 0 { Err(BodyLengthError::TooShort(self.left)) } else { Ok(()) }
    }
}

/// Appends the size line of a chunk of `bytes`, which must not be 0.
pub fn encode_chunk_header(out: &mut Vec<u8>, bytes: u64) {
    debug_assert!(bytes > 0, "an empty chunk ends the body");
    let digits = (u64::BITS - (bytes | 1).leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(bytes >> (digit * 4)) as usize & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailer section, without the fields that may not be in one.
pub fn encode_last_chunk(out: &mut Vec<u8>, trailers: Fields<'_>) {
    out.extend_from_slice(b"0\r\n");
    for (id, name, value) in trailers.iter() {
        if may_be_trailer(id, name) {
            write_field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// False for fields that a recipient needs before the body, or that frame, route, authenticate or control the message
/// (RFC 9110 §6.5.1): in a trailer they could only say something else than the head did.
pub fn may_be_trailer(id: FieldId, name: &[u8]) -> bool {
    match id {
        FieldId::Other => !NOT_IN_TRAILERS.iter().any(|other| other.eq_ignore_ascii_case(name)),
        FieldId::RequestId => true,
        _ => false,
    }
}

/// Names that have no [`FieldId`]; those that have one are not trailers either, besides `x-request-id`.
const NOT_IN_TRAILERS: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expires",
    b"forwarded",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

impl fmt::Display for BodyLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the body is longer than its announced length"),
            Self::TooShort(bytes) => write!(f, "the body ended {bytes} bytes before its announced length"),
        }
    }
}

impl core::error::Error for BodyLengthError {}
