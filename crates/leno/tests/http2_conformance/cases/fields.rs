//! What fields a request may have: sections 8.2 and 8.3.

use super::{Case, HERE, get, request_with};
use crate::frame::{WHOLE, code, headers};
use crate::hpack::{block, literal};

pub(super) fn cases() -> Vec<Case> {
    [names_and_values(), connection_specific(), pseudo(), required(), authorities()]
        .into_iter()
        .flatten()
        .collect()
}

const CODES: &[u32] = &[code::PROTOCOL];

/// A GET with one more field of any bytes is malformed.
fn malformed(section: &'static str, title: &'static str, name: &'static str, value: &'static [u8]) -> Case {
    Case::after_hands(section, title, move |peer| {
        let block = [request_with("GET", HERE, &[]), literal(name, value)].concat();
        peer.send(&headers(1, WHOLE, &block));
        peer.stream_error(1, CODES)
    })
}

/// A GET with one more field is in order.
fn fine(section: &'static str, title: &'static str, name: &'static str, value: &'static [u8]) -> Case {
    Case::after_hands(section, title, move |peer| {
        let block = [request_with("GET", HERE, &[]), literal(name, value)].concat();
        peer.send(&headers(1, WHOLE, &block));
        peer.answer(1)
    })
}

/// A request of exactly these fields is malformed.
fn exactly(
    section: &'static str,
    title: &'static str,
    fields: &'static [(&'static str, &'static str)],
) -> Case {
    Case::after_hands(section, title, move |peer| {
        peer.send(&headers(1, WHOLE, &block(fields)));
        peer.stream_error(1, CODES)
    })
}

/// A request of exactly these fields is refused, in one way or the other.
fn refused(
    section: &'static str,
    title: &'static str,
    fields: &'static [(&'static str, &'static str)],
) -> Case {
    Case::after_hands(section, title, move |peer| {
        peer.send(&headers(1, WHOLE, &block(fields)));
        peer.refused(1)
    })
}

fn names_and_values() -> Vec<Case> {
    vec![
        malformed("8.2.1", "an uppercase name is an error", "X-TEST", b"ok"),
        malformed("8.2.1", "one uppercase letter in a name is an error", "x-Test", b"ok"),
        malformed("8.2.1", "an empty name is an error", "", b"ok"),
        malformed("8.2.1", "a space in a name is an error", "x test", b"ok"),
        malformed("8.2.1", "a colon in a name is an error", "x:test", b"ok"),
        malformed("8.2.1", "a line end in a name is an error", "x-a: b\r\nx-test", b"ok"),
        malformed("8.2.1", "a byte above 0x7f in a name is an error", "x-\u{e9}", b"ok"),
        malformed("8.2.1", "NUL in a value is an error", "x-test", b"o\0k"),
        malformed("8.2.1", "CR in a value is an error", "x-test", b"o\rk"),
        malformed("8.2.1", "LF in a value is an error", "x-test", b"o\nk"),
        malformed("8.2.1", "a line end in a value is an error", "x-test", b"ok\r\nx-more: yes"),
        malformed("8.2.1", "a space before a value is an error", "x-test", b" ok"),
        malformed("8.2.1", "a tab after a value is an error", "x-test", b"ok\t"),
        fine("8.2.1", "an empty value is taken", "x-test", b""),
        fine("8.2.1", "bytes above 0x7f in a value are taken", "x-test", b"caf\xc3\xa9 \xff"),
        fine("8.2.3", "cookies in pieces are taken", "cookie", b"a=b"),
    ]
}

fn connection_specific() -> Vec<Case> {
    vec![
        malformed("8.2.2", "connection is an error", "connection", b"keep-alive"),
        malformed("8.2.2", "proxy-connection is an error", "proxy-connection", b"keep-alive"),
        malformed("8.2.2", "keep-alive is an error", "keep-alive", b"timeout=5"),
        malformed("8.2.2", "transfer-encoding is an error", "transfer-encoding", b"chunked"),
        malformed("8.2.2", "upgrade is an error", "upgrade", b"websocket"),
        malformed("8.2.2", "TE other than trailers is an error", "te", b"trailers, deflate"),
        fine("8.2.2", "TE of trailers is taken", "te", b"trailers"),
    ]
}

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const P: (&str, &str) = (":path", "/");
const A: (&str, &str) = (":authority", "server");

fn pseudo() -> Vec<Case> {
    vec![
        exactly("8.3", "an unknown pseudo-field is an error", &[M, S, P, A, (":test", "ok")]),
        exactly("8.3", "a response's pseudo-field is an error", &[M, S, P, A, (":status", "200")]),
        exactly("8.3", "a pseudo-field after a regular one is an error", &[("x-test", "ok"), M, S, P, A]),
        exactly(
            "8.3",
            "the last pseudo-field after a regular one is an error",
            &[M, S, P, ("x-test", "ok"), A],
        ),
        exactly("8.3", "two :method are an error", &[M, M, S, P, A]),
        exactly("8.3", "two :scheme are an error", &[M, S, S, P, A]),
        exactly("8.3", "two :path are an error", &[M, S, P, P, A]),
        exactly("8.3", "two :authority are an error", &[M, S, P, A, A]),
        exactly("8.3", "two :path that differ are an error", &[M, S, P, (":path", "/other"), A]),
        exactly("8.3", "an uppercase pseudo-field is an error", &[(":Method", "GET"), S, P, A]),
    ]
}

fn required() -> Vec<Case> {
    vec![
        exactly("8.3.1", "no :method is an error", &[S, P, A]),
        exactly("8.3.1", "no :scheme is an error", &[M, P, A]),
        exactly("8.3.1", "no :path is an error", &[M, S, A]),
        exactly("8.3.1", "nothing at all is an error", &[]),
        exactly("8.3.1", "an empty :path is an error", &[M, S, (":path", ""), A]),
        exactly("8.3.1", "an empty :method is an error", &[(":method", ""), S, P, A]),
        exactly("8.3.1", "an empty :scheme is an error", &[M, (":scheme", ""), P, A]),
        refused("8.3.1", "a :path that begins with no slash is refused", &[M, S, (":path", "here"), A]),
        refused("8.3.1", "a :path with a space is refused", &[M, S, (":path", "/a b"), A]),
        exactly("8.3.1", "a :path with a line end is an error", &[M, S, (":path", "/ HTTP/1.1\r\nx: y"), A]),
        refused("8.3.1", "a :method with a space is refused", &[(":method", "GET /"), S, P, A]),
        exactly("8.3.1", "a :scheme with a line end is an error", &[M, (":scheme", "http\r\n"), P, A]),
        refused("8.3.1", "a star with GET is refused", &[M, S, (":path", "*"), A]),
    ]
}

fn authorities() -> Vec<Case> {
    vec![
        Case::answer("8.3.1", "host instead of :authority is taken", || {
            headers(1, WHOLE, &block(&[M, S, P, ("host", "server")]))
        }),
        Case::answer("8.3.1", "host beside the same :authority is taken", || {
            headers(1, WHOLE, &block(&[M, S, P, A, ("host", "server")]))
        }),
        refused("8.3.1", "host that differs from :authority is refused", &[M, S, P, A, ("host", "other")]),
        refused("8.3.1", "two host are refused", &[M, S, P, ("host", "server"), ("host", "other")]),
        refused("8.3.1", ":authority with a user is refused", &[M, S, P, (":authority", "user@server")]),
        exactly(
            "8.3.1",
            ":authority with a line end is an error",
            &[M, S, P, (":authority", "server\r\nx: y")],
        ),
        refused("8.3.1", "neither :authority nor host is refused", &[M, S, P]),
        Case::after_hands("8.1.1", "after a malformed request the next is answered", |peer| {
            peer.send(&headers(1, WHOLE, &block(&[S, P, A])));
            peer.stream_error(1, CODES)?;
            peer.send(&get(3, HERE));
            peer.answer(3)
        }),
    ]
}
