//! Response heads.

use super::error::ParseError;
use super::facts::{BodyFraming, Facts, Version};
use super::limits::Limits;
use super::request::version;
use super::scan::{Halt, Progress, Scan, field_section, line_end, value_end};
use crate::head::{ResponseIndex, Span};

/// What a response answers. Without it nobody can say whether a response has a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFor {
    /// The request was HEAD: the response has no body, whatever its fields announce.
    pub head: bool,
    /// The request was CONNECT: a 2xx turns the connection into a tunnel.
    pub connect: bool,
    /// The request offered an upgrade: a 101 may answer it.
    pub upgrade: bool,
}

impl ResponseFor {
    /// What answers a request of this method, sent with or without an upgrade offer.
    pub fn request(method: &[u8], upgrade: bool) -> Self {
        Self { head: method == b"HEAD", connect: method == b"CONNECT", upgrade }
    }
}

/// What a response head says to the connection it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseMeta {
    /// Length of the head with its empty line, in bytes; the body begins there.
    pub head_bytes: usize,
    /// The version of the sender.
    pub version: Version,
    /// How the body ends.
    pub framing: BodyFraming,
    /// The connection may be used for another request once the body has ended. Never true with
    /// [`BodyFraming::UntilClose`] and [`BodyFraming::Tunnel`].
    pub keep_alive: bool,
    /// 1xx other than 101: the response that answers the request is still to come.
    pub interim: bool,
}

/// Parses the response head at the start of `buf`, of which all has come or more will come; see [`ResponseParser`]
/// for heads that come in many pieces.
///
/// # Errors
/// The reason for which the head is refused. It is also given when the head is not complete yet and cannot become
/// acceptable any more.
pub fn parse_response(
    buf: &[u8],
    limits: &Limits,
    answers: ResponseFor,
    index: &mut ResponseIndex,
) -> Result<Option<ResponseMeta>, ParseError> {
    ResponseParser::default().parse(buf, limits, answers, index)
}

/// Parses one response head after the other, each over a buffer that grows until the head is complete.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseParser {
    /// The version in the status line, once that line is through.
    version: Option<Version>,
    /// Where to go on.
    progress: Progress,
    /// What the fields said so far.
    facts: Facts,
}

impl ResponseParser {
    /// Looks at `buf`, which begins where the head begins, and holds at least what it held at the last call. `index`
    /// must be the one of that call too. `None`: more bytes are needed. After anything else the parser is ready for
    /// the next head.
    ///
    /// # Errors
    /// As [`parse_response`].
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        answers: ResponseFor,
        index: &mut ResponseIndex,
    ) -> Result<Option<ResponseMeta>, ParseError> {
        let visible = &buf[..buf.len().min(limits.head_bytes_max)];
        let full = buf.len() >= limits.head_bytes_max;
        if !self.progress.worth_looking(visible, full) {
            return Ok(None);
        }
        match self.scan(visible, limits, answers, index) {
            Ok(meta) => {
                *self = Self::default();
                Ok(Some(meta))
            }
            Err(Halt::Short) if !full => {
                self.progress.fell_short(visible);
                Ok(None)
            }
            Err(halt) => {
                *self = Self::default();
                match halt {
                    Halt::Short => Err(ParseError::HeadTooLarge),
                    Halt::Refused(error) => Err(error),
                }
            }
        }
    }

    fn scan(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        answers: ResponseFor,
        index: &mut ResponseIndex,
    ) -> Scan<ResponseMeta> {
        let version = match self.version {
            Some(version) => version,
            None => {
                index.fields.clear();
                let (version, next) = status_line(buf, index)?;
                self.progress.line = next;
                *self.version.insert(version)
            }
        };
        let facts = &mut self.facts;
        let head_bytes = field_section(buf, limits, &mut self.progress, &mut index.fields, |id, value| {
            facts.note(id, value.of(buf))
        })?;
        Ok(judge(index.status, version, facts, answers, head_bytes)?)
    }
}

/// What the whole head comes to: the cases of RFC 9112 §6.3 in its order.
fn judge(
    status: u16,
    version: Version,
    facts: &Facts,
    answers: ResponseFor,
    head_bytes: usize,
) -> Result<ResponseMeta, ParseError> {
    let announced = facts.announced(version)?;
    let interim = (100..200).contains(&status) && status != 101;
    let empty = matches!(announced, None | Some(BodyFraming::Length(0)));
    if (100..200).contains(&status) && !empty {
        return Err(ParseError::InterimWithBody);
    }
    if status == 101 && !answers.upgrade {
        return Err(ParseError::UpgradeNotAsked);
    }
    let framing = if status == 101 || answers.connect && (200..300).contains(&status) {
        BodyFraming::Tunnel
    } else if answers.head || interim || matches!(status, 204 | 304) {
        BodyFraming::None
    } else {
        announced.unwrap_or(BodyFraming::UntilClose)
    };
    // A 204 that announces a body is a server that may send one: what it sent would be read as the next response.
    let trustworthy = status != 204 || empty;
    let ends = matches!(framing, BodyFraming::None | BodyFraming::Length(_) | BodyFraming::Chunked);
    let keep_alive = facts.persistent(version) && ends && trustworthy;
    Ok(ResponseMeta { head_bytes, version, framing, keep_alive, interim })
}

/// The status line; the position after it.
fn status_line(buf: &[u8], index: &mut ResponseIndex) -> Scan<(Version, usize)> {
    let version = version(buf, 0)?;
    let mut status = 0;
    for at in 8..12 {
        let byte = *buf.get(at).ok_or(Halt::Short)?;
        match at {
            8 if byte == b' ' => {}
            8 => return Err(ParseError::Version.into()),
            9 if byte == b'0' => return Err(ParseError::StatusCode.into()),
            _ if byte.is_ascii_digit() => status = status * 10 + u16::from(byte - b'0'),
            _ => return Err(ParseError::StatusCode.into()),
        }
    }
    // The space before an empty reason is often left out.
    let reason = if buf.get(12) == Some(&b' ') { 13 } else { 12 };
    let stop = if reason == 13 { value_end(buf, reason) } else { reason };
    let otherwise = if reason == 13 { ParseError::ReasonPhrase } else { ParseError::StatusCode };
    let next = line_end(buf, stop, otherwise)?;
    index.status = status;
    index.reason = Span::new(reason, stop);
    Ok((version, next))
}
