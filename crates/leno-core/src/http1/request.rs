//! Request heads.

use super::authority::target;
use super::error::ParseError;
use super::facts::{BodyFraming, Facts, Version};
use super::limits::Limits;
use super::scan::{Halt, Progress, Scan, field_section, line_end, target_end, token_end};
use crate::head::{RequestIndex, Span};

/// What a request head says to the connection it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMeta {
    /// Length of the head with its empty line, in bytes; the body begins there.
    pub head_bytes: usize,
    /// The version of the sender.
    pub version: Version,
    /// How the body ends: [`BodyFraming::None`], [`BodyFraming::Length`] or [`BodyFraming::Chunked`].
    pub framing: BodyFraming,
    /// The sender wants to use the connection for another request.
    pub keep_alive: bool,
    /// The sender waits for a `100 Continue` before it sends the body. Never true when there is no body.
    pub expect_continue: bool,
    /// The sender offers to hand the connection over to the protocol in `Upgrade`. Never true for `h2c`, and never
    /// with a body: its bytes and those of the tunnel must not be taken for one another. RFC 9110 §7.8 lets us ignore
    /// any offer.
    pub upgrade: bool,
    /// The target was in absolute-form, as sent to a forward proxy.
    pub absolute_form: bool,
    /// The method is CONNECT: the index has an authority with a port and an empty path.
    pub connect: bool,
    /// The sender understands trailers (`TE: trailers`).
    pub te_trailers: bool,
}

/// Parses the request head at the start of `buf`, of which all has come or more will come; see [`RequestParser`] for
/// heads that come in many pieces.
///
/// # Errors
/// The reason for which the head is refused. It is also given when the head is not complete yet and cannot become
/// acceptable any more.
pub fn parse_request(
    buf: &[u8],
    limits: &Limits,
    index: &mut RequestIndex,
) -> Result<Option<RequestMeta>, ParseError> {
    RequestParser::default().parse(buf, limits, index)
}

/// Parses one request head after the other, each over a buffer that grows until the head is complete.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {
    /// What came before the field section, once it is through.
    line: Option<RequestLine>,
    /// Where to go on.
    progress: Progress,
    /// What the fields said so far.
    facts: Facts,
}

/// A request line that is through.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    version: Version,
    absolute_form: bool,
    connect: bool,
    has_authority: bool,
}

impl RequestParser {
    /// Looks at `buf`, which begins where the head begins, and holds at least what it held at the last call. `index`
    /// must be the one of that call too. `None`: more bytes are needed. After anything else the parser is ready for
    /// the next head.
    ///
    /// # Errors
    /// As [`parse_request`].
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        index: &mut RequestIndex,
    ) -> Result<Option<RequestMeta>, ParseError> {
        let visible = &buf[..buf.len().min(limits.head_bytes_max)];
        let full = buf.len() >= limits.head_bytes_max;
        if !self.progress.worth_looking(visible, full) {
            return Ok(None);
        }
        match self.scan(visible, limits, index) {
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

    /// True when part of a head has been seen: an end of the connection now is a truncated request and not a quiet
    /// end.
    pub fn is_inside_head(&self) -> bool {
        self.line.is_some()
    }

    fn scan(&mut self, buf: &[u8], limits: &Limits, index: &mut RequestIndex) -> Scan<RequestMeta> {
        let line = match self.line {
            Some(line) => line,
            None => {
                index.fields.clear();
                let (line, next) = request_line(buf, limits, index)?;
                self.progress.line = next;
                *self.line.insert(line)
            }
        };
        let facts = &mut self.facts;
        let head_bytes = field_section(buf, limits, &mut self.progress, &mut index.fields, |id, value| {
            facts.note_request(id, value.of(buf), value)
        })?;
        if !line.has_authority {
            index.authority = facts.host.unwrap_or_default();
        }
        Ok(judge(line, facts, head_bytes)?)
    }
}

/// What the whole head comes to.
fn judge(line: RequestLine, facts: &Facts, head_bytes: usize) -> Result<RequestMeta, ParseError> {
    let RequestLine { version, absolute_form, connect, .. } = line;
    if facts.host.is_none() && version == Version::Http11 {
        return Err(ParseError::HostMissing);
    }
    let framing = facts.announced(version)?.unwrap_or(BodyFraming::None);
    if connect && !matches!(framing, BodyFraming::None | BodyFraming::Length(0)) {
        return Err(ParseError::ConnectWithBody);
    }
    let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
    Ok(RequestMeta {
        head_bytes,
        version,
        framing,
        keep_alive: facts.persistent(version),
        // An HTTP/1.0 client cannot be sent a 100 (RFC 9110 §10.1.1).
        expect_continue: facts.expect_continue && version == Version::Http11 && has_body,
        upgrade: facts.upgrade(version) && !connect && !has_body,
        absolute_form,
        connect,
        te_trailers: facts.te_trailers,
    })
}

/// The request line and the empty lines before it; the position after it.
fn request_line(buf: &[u8], limits: &Limits, index: &mut RequestIndex) -> Scan<(RequestLine, usize)> {
    let start = skip_empty_lines(buf)?;
    let method_end = token_end(buf, start);
    if method_end - start > limits.method_bytes_max {
        return Err(ParseError::MethodTooLong.into());
    }
    match buf.get(method_end) {
        Some(b' ') if method_end > start => {}
        None => return Err(Halt::Short),
        Some(_) => return Err(ParseError::Method.into()),
    }
    let target_start = method_end + 1;
    let target_stop = target_end(buf, target_start);
    if target_stop - target_start > limits.target_bytes_max {
        return Err(ParseError::TargetTooLong.into());
    }
    match buf.get(target_stop) {
        Some(b' ') if target_stop > target_start => {}
        None => return Err(Halt::Short),
        // `GET /` and the end of the line: HTTP/0.9.
        Some(b'\r' | b'\n') => return Err(ParseError::Version.into()),
        Some(_) => return Err(ParseError::Target.into()),
    }
    let version = version(buf, target_stop + 1)?;
    let next = line_end(buf, target_stop + 9, ParseError::Version)?;

    index.method = Span::new(start, method_end);
    let method = &buf[start..method_end];
    let parts = target(method, buf, Span::new(target_start, target_stop))?;
    index.path = parts.path;
    index.authority = parts.authority.unwrap_or_default();
    let connect = method == b"CONNECT";
    let line = RequestLine {
        version,
        connect,
        absolute_form: parts.authority.is_some() && !connect,
        has_authority: parts.authority.is_some(),
    };
    Ok((line, next))
}

/// A server should ignore an empty line or two before a request (RFC 9112 §2.2): old clients sent one after a body.
fn skip_empty_lines(buf: &[u8]) -> Scan<usize> {
    let mut at = 0;
    while matches!(buf.get(at), Some(b'\r' | b'\n')) {
        if at == EMPTY_LINES_MAX * 2 {
            return Err(ParseError::LeadingEmptyLines.into());
        }
        at = line_end(buf, at, ParseError::LineEnd)?;
    }
    Ok(at)
}

/// Empty lines that are skipped before a request.
const EMPTY_LINES_MAX: usize = 2;

/// The eight bytes of `HTTP/1.x` at `at`.
pub(super) fn version(buf: &[u8], at: usize) -> Scan<Version> {
    let text = buf.get(at..).unwrap_or(&[]);
    match text.first_chunk::<8>() {
        Some(b"HTTP/1.1") => return Ok(Version::Http11),
        Some(b"HTTP/1.0") => return Ok(Version::Http10),
        _ => {}
    }
    let fits = |(at, byte): (usize, &u8)| match at {
        5 | 7 => byte.is_ascii_digit(),
        _ => *byte == b"HTTP/1.1"[at],
    };
    if !text.iter().take(8).enumerate().all(fits) {
        return Err(ParseError::Version.into());
    }
    Err(if text.len() < 8 { Halt::Short } else { ParseError::VersionUnsupported.into() })
}
