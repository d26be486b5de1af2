//! What the fields of a head say about the connection and the body: noted while the fields are read, judged at the
//! end of the head.

use super::error::ParseError;
use crate::head::{FieldId, Span, is_word};

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the end of a message body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body, and no length is announced.
    None,
    /// This many bytes follow.
    Length(u64),
    /// Chunks follow, and a trailer section.
    Chunked,
    /// Everything until the connection ends; only in responses.
    UntilClose,
    /// The connection belongs to another protocol from here on: after CONNECT or an upgrade.
    Tunnel,
}

/// The value of a `Content-Length` field: digits only, below 2^63 so that no peer that counts in signed numbers
/// disagrees.
///
/// # Errors
/// [`ParseError::ContentLengthInvalid`]: anything else, also a list, a sign or an empty value.
pub fn content_length(value: &[u8]) -> Result<u64, ParseError> {
    if value.is_empty() {
        return Err(ParseError::ContentLengthInvalid);
    }
    let mut length = 0_u64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ParseError::ContentLengthInvalid);
        }
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
            .filter(|sum| *sum <= LENGTH_MAX)
            .ok_or(ParseError::ContentLengthInvalid)?;
    }
    Ok(length)
}

/// The largest body or chunk, in bytes.
pub(super) const LENGTH_MAX: u64 = i64::MAX as u64;

/// What was noted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// The one `Host`.
    pub(super) host: Option<Span>,
    /// The one `Content-Length`.
    pub(super) length: Option<u64>,
    /// There is a `Transfer-Encoding`, and it is `chunked`.
    pub(super) chunked: bool,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
    /// `Connection: upgrade`
    pub(super) upgrade_option: bool,
    /// There is an `Upgrade`; whether it is the only one and names nothing that may not be handed over.
    pub(super) upgrade_offer: Option<bool>,
    /// `Expect: 100-continue`
    pub(super) expect_continue: bool,
    /// `TE` has `trailers`.
    pub(super) te_trailers: bool,
}

impl Facts {
    /// Notes a field that means the same in requests and responses.
    pub(super) fn note(&mut self, id: FieldId, value: &[u8]) -> Result<(), ParseError> {
        match id {
            FieldId::ContentLength => {
                let length = content_length(value)?;
                if self.length.replace(length).is_some() {
                    return Err(ParseError::ContentLengthRepeated);
                }
            }
            FieldId::TransferEncoding => {
                // A second field would be a second coding on top of the first one.
                if self.chunked || !is_word(b"chunked", value) {
                    return Err(ParseError::TransferEncodingUnsupported);
                }
                self.chunked = true;
            }
            // What nearly all say, and what nearly all say otherwise.
            FieldId::Connection if is_word(b"keep-alive", value) => self.keep_alive = true,
            FieldId::Connection if is_word(b"close", value) => self.close = true,
            FieldId::Connection => {
                for option in list(value) {
                    self.close |= is_word(b"close", option);
                    self.keep_alive |= is_word(b"keep-alive", option);
                    self.upgrade_option |= is_word(b"upgrade", option);
                }
            }
            FieldId::Upgrade => {
                // An `h2c` that is handed over lets its requests pass every rule unseen; RFC 9110 §7.8 lets us ignore it.
                let unseen =
                    list(value).any(|name| name.get(..3).is_some_and(|n| n.eq_ignore_ascii_case(b"h2c")));
                self.upgrade_offer = Some(self.upgrade_offer.is_none() && !value.is_empty() && !unseen);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes a field of a request.
    pub(super) fn note_request(&mut self, id: FieldId, value: &[u8], at: Span) -> Result<(), ParseError> {
        match id {
            FieldId::Host => {
                if self.host.replace(at).is_some() {
                    return Err(ParseError::HostRepeated);
                }
                if !super::is_authority(value) {
                    return Err(ParseError::HostInvalid);
                }
            }
            FieldId::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(ParseError::Expectation);
                }
                self.expect_continue = true;
            }
            FieldId::Te => {
                self.te_trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
            }
            _ => return self.note(id, value),
        }
        Ok(())
    }

    /// The framing that the fields announce, when there is a body; refused where two recipients could disagree.
    pub(super) fn announced(&self, version: Version) -> Result<Option<BodyFraming>, ParseError> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(ParseError::LengthAndTransferEncoding),
            (true, None) if version == Version::Http10 => Err(ParseError::TransferEncodingInHttp10),
            (true, None) => Ok(Some(BodyFraming::Chunked)),
            (false, Some(length)) => Ok(Some(BodyFraming::Length(length))),
            (false, None) => Ok(None),
        }
    }

    /// True when the sender lets the connection be used again (RFC 9112 §9.3). HTTP/1.0 with `keep-alive` counts:
    /// towards its clients a gateway is the server that they asked.
    pub(super) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// True when the sender offers, or agrees, to hand the connection over to another protocol.
    pub(super) fn upgrade(&self, version: Version) -> bool {
        self.upgrade_offer == Some(true) && self.upgrade_option && version == Version::Http11
    }
}

/// The elements of a comma-separated list without the white space around them; empty elements are left out (RFC
/// 9110 §5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// `text` without spaces and tabs at its ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
