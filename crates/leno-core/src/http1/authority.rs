//! `host[:port]`, and the four forms of a request target (RFC 9112 §3.2).

use super::error::ParseError;
use crate::head::Span;

/// True for `host[:port]` where the host is a name of letters, digits and `-._~`, or an address in brackets, and the
/// port is from 1 to 65535. Narrower than RFC 3986 §3.2.2: no percent-encoding and no `!$&'()*+,;=`, because no
/// DNS name has them and recipients disagree about what they mean.
pub fn is_authority(text: &[u8]) -> bool {
    host_and_port(text).is_some()
}

/// Where the authority and the path of a target lie.
pub(super) struct Target {
    pub(super) authority: Option<Span>,
    pub(super) path: Span,
}

/// Takes the target at `at` of `buf` apart.
pub(super) fn target(method: &[u8], buf: &[u8], at: Span) -> Result<Target, ParseError> {
    let text = at.of(buf);
    if method == b"CONNECT" {
        return match host_and_port(text) {
            Some(true) => Ok(Target { authority: Some(at), path: Span::default() }),
            _ if text.contains(&b'@') => Err(ParseError::TargetUserinfo),
            _ => Err(ParseError::TargetForm),
        };
    }
    match text {
        [b'/', ..] => Ok(Target { authority: None, path: at }),
        b"*" if method == b"OPTIONS" => Ok(Target { authority: None, path: at }),
        _ => absolute_form(text, at.start as usize),
    }
}

/// `http://host[:port]/path?query`
fn absolute_form(text: &[u8], start: usize) -> Result<Target, ParseError> {
    let colon = memchr::memchr(b':', text).ok_or(ParseError::TargetForm)?;
    if !is_scheme(&text[..colon]) || !text[colon + 1..].starts_with(b"//") {
        return Err(ParseError::TargetForm);
    }
    if !text[..colon].eq_ignore_ascii_case(b"http") {
        return Err(ParseError::TargetScheme);
    }
    let from = colon + 3;
    let rest = &text[from..];
    let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let authority = &rest[..length];
    if authority.contains(&b'@') {
        return Err(ParseError::TargetUserinfo);
    }
    if !is_authority(authority) {
        return Err(ParseError::HostInvalid);
    }
    let path = match rest.get(length) {
        Some(b'/') => Span::new(start + from + length, start + text.len()),
        // An empty path means `/`. A span needs a `/` to point at, and the one before the authority is as good as any.
        None => Span::new(start + from - 1, start + from),
        // `http://host?query` would mean `/?query`, of which the buffer has no contiguous copy. No client in use
        // sends it.
        Some(_) => return Err(ParseError::TargetForm),
    };
    Ok(Target { authority: Some(Span::new(start + from, start + from + length)), path })
}

fn is_scheme(text: &[u8]) -> bool {
    matches!(text, [first, rest @ ..] if first.is_ascii_alphabetic()
        && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))
}

/// None when it is no authority; else whether it has a port.
fn host_and_port(text: &[u8]) -> Option<bool> {
    let host_length = if let [b'[', inside @ ..] = text {
        let close = memchr::memchr(b']', inside)?;
        let address = core::str::from_utf8(&inside[..close]).ok()?;
        address.parse::<core::net::Ipv6Addr>().ok()?;
        close + 2
    } else {
        let length = text.iter().position(|byte| !NAME[usize::from(*byte)]).unwrap_or(text.len());
        if length == 0 {
            return None;
        }
        length
    };
    match &text[host_length..] {
        [] => Some(false),
        [b':', port @ ..] if is_port(port) => Some(true),
        _ => None,
    }
}

/// What a host's name is made of.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

/// 1 to 65535 in at most five digits.
fn is_port(text: &[u8]) -> bool {
    let mut number = 0_u32;
    if text.len() > 5 {
        return false;
    }
    for byte in text {
        if !byte.is_ascii_digit() {
            return false;
        }
        number = number * 10 + u32::from(byte - b'0');
    }
    (1..=65_535).contains(&number)
}
