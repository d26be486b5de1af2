//! First bytes of a connection -> what is spoken on it.
//!
//! Nothing here waits: [`detect`] says what the bytes so far prove, and [`Detected::NeedMore`] when they prove nothing yet.
//! Whoever asks goes on listening to both ends meanwhile: in a protocol in which the server speaks first (SMTP, MySQL, SSH) the
//! client's bytes never come, and the server's decide. So no time-out is ever in the path.
//!
//! HTTP/1 is recognised by a known method and the slash of a path, or by `HTTP/` in a whole first line of any other form: what means to
//! be HTTP and is malformed is refused as HTTP instead of passing unseen. Without them a line is something else: `get x` is
//! memcached's, `OPTIONS rtsp://x RTSP/1.0` a camera's. A first byte that no method can have decides at once, which is nearly always
//! the case (TLS, Redis, `PostgreSQL`, Kafka, AMQP).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::SocketAddr;

use crate::name::ServiceId;

/// What the client's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A TLS ClientHello begins.
    Tls,
    /// An HTTP/1 request line.
    Http1,
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2,
    /// None of these: bytes that nobody looks into.
    Opaque,
    /// It could be any of them still.
    NeedMore,
}

impl Detected {
    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Opaque => "tcp",
            Self::NeedMore => "nothing",
        }
    }
}

/// The first bytes of every HTTP/2 connection.
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Methods in use, of the registry of RFC 9110 §16.1.1 and beside it. A line whose beginning is none of these is no HTTP until it is
/// whole and says so.
const METHODS: [&[u8]; 29] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"MERGE",
    b"BIND",
    b"LINK",
    b"UNLINK",
    b"PURGE",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"NOTIFY",
    b"M-SEARCH",
    b"QUERY",
    b"ACL",
];
/// Ends of lines before a first word that HTTP may still follow.
const EMPTY_LINES_BYTES_MAX: usize = 16;
/// Longest request line looked for, in bytes: as long as an HTTP/1 head may be.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// What `bytes`, the first of a client, say.
pub fn detect(bytes: &[u8]) -> Detected {
    match bytes {
        [] | [0x16] => return Detected::NeedMore,
        // A handshake record of TLS 1.0 to 1.3, or of SSL 3.0 (RFC 8446 §5.1).
        [0x16, 0x03, ..] => return Detected::Tls,
        _ => {}
    }
    let compared = bytes.len().min(HTTP2_PREFACE.len());
    if bytes.get(..compared) == HTTP2_PREFACE.get(..compared) {
        return if compared == HTTP2_PREFACE.len() { Detected::Http2 } else { Detected::NeedMore };
    }
    detect_http1(bytes)
}

fn detect_http1(bytes: &[u8]) -> Detected {
    // Empty lines before a request are no part of it, of whatever form (RFC 9112 §2.2).
    let Some(begin) = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < EMPTY_LINES_BYTES_MAX { Detected::NeedMore } else { Detected::Opaque };
    };
    let line = &bytes[begin..];
    if let Some(end) = memchr::memchr(b'\n', line) {
        let is_http = memchr::memmem::find(&line[..end], b" HTTP/").is_some();
        let usual =
            METHODS.iter().any(|method| behind(method, line).is_some_and(|rest| rest.starts_with(b"/")));
        return if is_http || usual { Detected::Http1 } else { Detected::Opaque };
    }
    for method in METHODS {
        match behind(method, line) {
            Some([b'/', ..]) => return Detected::Http1,
            Some(rest) if rest.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | 0x80..)) => {
                return if line.len() > LINE_BYTES_MAX { Detected::Opaque } else { Detected::NeedMore };
            }
            Some(_) => return Detected::Opaque,
            None if method.starts_with(line) => return Detected::NeedMore,
            None => {}
        }
    }
    Detected::Opaque
}

/// What stands behind `method` and a space.
fn behind<'a>(method: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    line.strip_prefix(method)?.strip_prefix(b" ")
}

/// What was found out about a port, for the connections to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Clients speak HTTP there: its first words are awaited, the server is not asked meanwhile.
    Http,
    /// Anything else: the connection goes through at once.
    Opaque,
}

/// Where a connection goes, as far as its protocol may depend on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// A service.
    Service(ServiceId),
    /// An address outside the mesh.
    Address(SocketAddr),
}

/// Verdicts of one worker.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    verdicts: BTreeMap<Arc<Port>, Verdict>,
}

/// Ports that are remembered; when there are more, all are found out again.
pub const VERDICTS_MAX: usize = 4096;

impl Verdicts {
    /// What is known of `port`.
    pub fn get(&self, port: &Port) -> Option<Verdict> {
        self.verdicts.get(port).copied()
    }

    /// Remembers what a connection to `port` has shown.
    pub fn learn(&mut self, port: &Port, verdict: Verdict) {
        if let Some(known) = self.verdicts.get_mut(port) {
            *known = verdict;
            return;
        }
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(Arc::new(port.clone()), verdict);
    }

    /// Forgets a verdict that a connection has shown to be wrong.
    pub fn forget(&mut self, port: &Port) {
        self.verdicts.remove(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_of_many_protocols() {
        for (bytes, detected) in [
            (&b""[..], Detected::NeedMore),
            (b"\x16", Detected::NeedMore),
            (b"\x16\x03", Detected::Tls),
            (b"\x16\x03\x01\x02\x00\x01", Detected::Tls),
            (b"\x16\x02", Detected::Opaque),
            (b"P", Detected::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Detected::NeedMore),
            (HTTP2_PREFACE, Detected::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Detected::Http1),
            (b"PRI / HTTP/1.1\r\n", Detected::Http1),
            (b"GET", Detected::NeedMore),
            (b"GET ", Detected::NeedMore),
            (b"GET /", Detected::Http1),
            (b"GET / HTTP/1.1\r\n", Detected::Http1),
            (b"GET / HTTP/1.0\nHost: a\n\n", Detected::Http1),
            (b"\r\nGET / HTTP/1.1\r\n", Detected::Http1),
            (b"\r", Detected::NeedMore),
            (b"\r\n", Detected::NeedMore),
            (b"GET / HTTP/1.1\r\r\n", Detected::Http1),
            (b"PUT  / HTTP/1.1\r\n", Detected::Http1),
            (b"get / HTTP/1.1\r\n", Detected::Http1),
            (b"REPORT", Detected::NeedMore),
            (b"REPORT x", Detected::NeedMore),
            (b"REPORT x\r\n", Detected::Opaque),
            (b"REPORT x HTTP/1.1\r\n", Detected::Http1),
            (b"FROB /a HTTP/1.1\r\n", Detected::Http1),
            // A fixed word without an end, after which its sender waits
            (b"hello", Detected::Opaque),
            (b"HELO", Detected::Opaque),
            (b"FROB", Detected::Opaque),
            (b"GET key\r\n", Detected::Opaque),
            (b"CONNECT a:1 HTTP/1.1\r\n", Detected::Http1),
            (b"OPTIONS rtsp://camera RTSP/1.0\r\n", Detected::Opaque),
            (b"INVITE sip:a@b SIP/2.0\r\n", Detected::Opaque),
            // memcached's text protocol
            (b"get key\r\n", Detected::Opaque),
            (b"set key 0 0 5\r\nhello\r\n", Detected::Opaque),
            // Redis, as libraries and as people write it
            (b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),
            (b"*1\r\n", Detected::Opaque),
            (b"PING\r\n", Detected::Opaque),
            // PostgreSQL's SSLRequest
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Detected::Opaque),
            // AMQP, MQTT, Kafka
            (b"AMQP\x00\x00\x09\x01", Detected::Opaque),
            (b"\x10\x0c\x00\x04MQTT", Detected::Opaque),
            (b"\x00\x00\x00\x23\x00\x12", Detected::Opaque),
            // what clients of server-first protocols would say first
            (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", Detected::Opaque),
            (b"EHLO example.com\r\n", Detected::Opaque),
            (b"REPORT \x00 /a\r\n", Detected::Opaque),
        ] {
            assert_eq!(detect(bytes), detected, "{:?}", alloc::string::String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_verdict_never_changes_with_more_bytes() {
        for whole in [
            &b"GET /a/b?c=d HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"\x16\x03\x01\x00\x05",
            b"REPORT /a HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00",
            b"get key and another key\r\n",
            b"\r\nHEAD / HTTP/1.0\r\n\r\n",
        ] {
            let mut verdict = Detected::NeedMore;
            for length in 0..=whole.len() {
                let next = detect(&whole[..length]);
                assert!(verdict == Detected::NeedMore || verdict == next, "{length}: {verdict:?} {next:?}");
                verdict = next;
            }
            assert_ne!(verdict, Detected::NeedMore);
        }
    }

    #[test]
    fn a_line_without_end_is_not_waited_for_for_ever() {
        let mut line = b"REPORT *".to_vec();
        line.resize(LINE_BYTES_MAX, b'a');
        assert_eq!(detect(&line), Detected::NeedMore);
        line.resize(LINE_BYTES_MAX + 1, b'a');
        assert_eq!(detect(&line), Detected::Opaque);
    }

    #[test]
    fn verdicts_are_bounded() {
        let mut verdicts = Verdicts::default();
        let port =
            |number: usize| Port::Address(SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 1)));
        for number in 0..VERDICTS_MAX * 2 + 5 {
            verdicts.learn(&port(number), Verdict::Http);
            assert_eq!(verdicts.get(&port(number)), Some(Verdict::Http));
            assert!(verdicts.verdicts.len() <= VERDICTS_MAX);
        }
        verdicts.learn(&port(1), Verdict::Opaque);
        verdicts.forget(&port(1));
        assert_eq!(verdicts.get(&port(1)), None);
    }
}
