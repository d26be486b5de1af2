//! What a proxy must know of gRPC over HTTP/2: which requests are calls, how a call ended, how long it may take, and how
//! to answer one in its own terms.

use alloc::vec::Vec;

use crate::head::Fields;
use crate::reason::Reason;
use crate::time::Duration;

/// The content type of an answer that Leno makes.
pub const CONTENT_TYPE: &[u8] = b"application/grpc";

/// The field by which a server asks for a pause before the next attempt, in milliseconds; a negative one forbids it.
pub const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

/// A status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u8);

impl Status {
    /// The call succeeded.
    pub const OK: Self = Self(0);
    /// The caller gave up.
    pub const CANCELLED: Self = Self(1);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The caller may not.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Some resource is used up.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// There is nobody who could do this.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// Something is broken.
    pub const INTERNAL: Self = Self(13);
    /// Not now; the call may be made again.
    pub const UNAVAILABLE: Self = Self(14);
    /// The caller is not known.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The highest code that has a name.
    pub const LAST: u8 = 16;

    /// The status in a `grpc-status` field. A code that does not exist is unknown, as clients see it.
    pub fn parse(value: &[u8]) -> Self {
        let code = core::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        Self(code.filter(|code| *code <= Self::LAST).unwrap_or(Self::UNKNOWN.0))
    }

    /// The status in a head or trailer section, if it is in there.
    pub fn of(fields: Fields<'_>) -> Option<Self> {
        fields.get_named(b"grpc-status").map(Self::parse)
    }

    /// What a call comes to whose answer is no answer of gRPC: the table that clients use.
    pub const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }

    /// What it would be over HTTP, as far as it says whether the server or the caller is to blame.
    pub const fn as_http(self) -> u16 {
        match self {
            Self::UNKNOWN | Self::INTERNAL | Self(15) => 500,
            Self::UNAVAILABLE => 503,
            Self::DEADLINE_EXCEEDED => 504,
            _ => 200,
        }
    }

    /// What a call comes to that Leno answers or ends. Whoever can try again is told so by UNAVAILABLE.
    pub const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::RequestTimeout | Reason::IdleTimeout | Reason::TryTimeout | Reason::OutOfTime => {
                Self::DEADLINE_EXCEEDED
            }
            Reason::DownstreamGone => Self::CANCELLED,
            Reason::RequestMalformed | Reason::RequestHeadTimeout | Reason::UpstreamMalformed => {
                Self::INTERNAL
            }
            Reason::NoRoute | Reason::Unsupported => Self::UNIMPLEMENTED,
            Reason::RateLimited => Self::RESOURCE_EXHAUSTED,
            _ => Self::UNAVAILABLE,
        }
    }

    /// The code in digits.
    pub const fn text(self) -> &'static str {
        const TEXTS: [&str; 17] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
        if self.0 <= Self::LAST { TEXTS[self.0 as usize] } else { "2" }
    }

    /// The name that people know it by.
    pub const fn word(self) -> &'static str {
        const WORDS: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        if self.0 <= Self::LAST { WORDS[self.0 as usize] } else { "UNKNOWN" }
    }
}

/// True for the content type of a call: `application/grpc`, alone or followed by `+` or `;`. Not gRPC-Web, whose status is
/// in the body.
pub fn is_content_type(value: &[u8]) -> bool {
    let Some((kind, rest)) = value.split_at_checked(CONTENT_TYPE.len()) else { return false };
    kind.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// True for a request that is a call.
pub fn is_call(fields: Fields<'_>) -> bool {
    fields.get_named(b"content-type").is_some_and(is_content_type)
}

/// The time in a `grpc-timeout` field: up to eight digits and a unit. `None` for anything else, which is no deadline.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Appends a `grpc-timeout` for `left`: never more than is left, and at least something.
pub fn write_timeout(out: &mut Vec<u8>, left: Duration) {
    const UNITS: [(u8, u128); 6] = [
        (b'n', 1),
        (b'u', 1_000),
        (b'm', 1_000_000),
        (b'S', 1_000_000_000),
        (b'M', 60_000_000_000),
        (b'H', 3_600_000_000_000),
    ];
    let nanos = left.as_nanos().max(1);
    for (unit, each) in UNITS {
        let number = nanos / each;
        if number <= TIMEOUT_MAX || unit == b'H' {
            let number = number.min(TIMEOUT_MAX) as u32;
            let mut digits = [0; TIMEOUT_DIGITS_MAX];
            let mut at = digits.len();
            let mut rest = number;
            while at > 0 {
                at -= 1;
                if let Some(digit) = digits.get_mut(at) {
                    *digit = b'0' + (rest % 10) as u8;
                }
                rest /= 10;
                if rest == 0 {
                    break;
                }
            }
            out.extend_from_slice(digits.get(at..).unwrap_or(&[]));
            out.push(unit);
            return;
        }
    }
}

/// Appends `text` as a `grpc-message`: percent-encoded besides what can be printed.
pub fn write_message(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Digits of a timeout at most, and the number that they can say.
const TIMEOUT_DIGITS_MAX: usize = 8;
const TIMEOUT_MAX: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::{Status, is_content_type, parse_timeout, write_message, write_timeout};
    use crate::reason::Reason;
    use crate::time::Duration;

    #[test]
    fn calls_are_told_by_their_content_type() {
        for (text, call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("Application/gRPC+json", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_content_type(text.as_bytes()), call, "{text}");
        }
    }

    #[test]
    fn timeouts_are_read_and_written() {
        let rows = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1x", None),
        ];
        for (text, time) in rows {
            assert_eq!(parse_timeout(text.as_bytes()), time, "{text}");
        }
        for left in [0, 1, 99_999_999, 100_000_000, 123_456_789_012, 86_400_000_000_000, u64::MAX] {
            let left = Duration::from_nanos(left);
            let mut out = Vec::new();
            write_timeout(&mut out, left);
            let read = parse_timeout(&out).unwrap();
            assert!(read <= left.max(Duration::from_nanos(1)), "{left:?} became {read:?}");
            assert!(read > left / 2 || left < Duration::from_nanos(2), "{left:?} became {read:?}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        write_message(&mut out, "50 % of größe\n");
        assert_eq!(String::from_utf8(out).unwrap(), "50 %25 of gr%C3%B6%C3%9Fe%0A");
    }

    #[test]
    fn every_reason_is_a_failure() {
        for reason in Reason::ALL {
            assert_ne!(Status::of_reason(reason), Status::OK, "{reason}");
        }
        assert_eq!(Status::of_reason(Reason::ConnectFailed), Status::UNAVAILABLE);
        assert_eq!(Status::of_reason(Reason::RateLimited), Status::RESOURCE_EXHAUSTED);
        assert_eq!(Status::of_reason(Reason::RequestTimeout), Status::DEADLINE_EXCEEDED);
    }

    #[test]
    fn a_code_that_does_not_exist_is_unknown() {
        for (text, code) in [("0", 0), ("14", 14), ("17", 2), ("-1", 2), ("", 2), ("999", 2)] {
            assert_eq!(Status::parse(text.as_bytes()), Status(code), "{text}");
            assert!(Status(code).text().parse::<u8>().unwrap() == code);
        }
    }
}
