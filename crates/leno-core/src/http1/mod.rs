//! HTTP/1.0 and HTTP/1.1 (RFC 9112) without I/O, for either end of a connection.
//!
//! A shell owns the buffers. It gives a parser the bytes it has; the parser either needs more, or refuses, or fills
//! an index of [spans](crate::head::Span) and says in a small `Meta` what the message does to the connection: how
//! its body is framed, whether the connection may be used again, whether it turns into a tunnel. No byte of a head is
//! copied to be looked at and nothing is allocated per message: indexes, decoders and output buffers are refilled.
//!
//! ```text
//!   bytes ──> RequestParser / ResponseParser ──> index + meta          (None: read more)
//!   bytes ──> BodyDecoder(meta.framing)      ──> payload spans, trailers
//!   view + Edits ──> encode_request_head / encode_response_head ──> bytes
//!   payload ──> BodyEncoder(framing)         ──> bytes
//! ```
//!
//! **Strict on purpose.** Two parsers that disagree about where a message ends are how requests are smuggled, so
//! whatever is ambiguous is refused and not repaired, also where RFC 9112 lets a recipient be lenient:
//!
//! - lines end in CRLF; a bare LF or CR is refused (§2.2 lets a recipient accept LF);
//! - exactly one space separates the parts of a start line; no line folding; no space before a field's colon;
//! - `Content-Length` comes at most once, as digits only, and never beside `Transfer-Encoding` (§6.1 and §6.3 would
//!   let an equal repetition or an override pass); two equal lengths are refused as well;
//! - `Transfer-Encoding` is `chunked`, once, and only in HTTP/1.1; every other coding is refused with 501;
//! - `HTTP/1.2` and everything else that is not 1.0 or 1.1 is refused with 505;
//! - one `Host`, never empty, made of letters, digits, `-._~`, or an address in brackets, with an optional port;
//! - a target is visible ASCII without a fragment; absolute-form needs `http`, no user, and a path (or neither path nor
//!   query, which then means `/`);
//! - bytes above 0x7f are allowed in field values and reason phrases (obs-text) and nowhere else.
//!
//! Errors come as early as they can be known and do not depend on how the bytes were split over reads.
//! On the way out, framing, `Host` and `Connection` are always written anew from decisions, never passed on.

mod authority;
mod body;
mod body_out;
mod encode;
mod error;
mod facts;
mod limits;
mod request;
mod response;
mod scan;

#[cfg(test)]
mod tests;

pub use authority::is_authority;
pub use body::{BodyDecoder, Decoded};
pub use body_out::{BodyEncoder, BodyLengthError, encode_chunk_header, encode_last_chunk, may_be_trailer};
pub use encode::{
    RequestOptions, ResponseOptions, encode_request_head, encode_response_head, end_to_end, framing_for,
};
pub use error::ParseError;
pub use facts::{BodyFraming, Version, content_length};
pub use limits::Limits;
pub use request::{RequestMeta, RequestParser, parse_request};
pub use response::{ResponseFor, ResponseMeta, ResponseParser, parse_response};
pub use scan::{is_field_value, is_target, is_token};
