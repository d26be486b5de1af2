//! Heads on the way out, each as a whole text.

use alloc::string::String;
use alloc::vec::Vec;

use crate::edit::Edits;
use crate::head::{RequestIndex, ResponseIndex};
use crate::http1::*;

const PLAIN: RequestOptions = RequestOptions {
    framing: BodyFraming::None,
    keep_alive: true,
    upgrade: false,
    expect_continue: false,
    te_trailers: false,
};

fn request(wire: &str, edits: &Edits, options: &RequestOptions) -> String {
    let mut index = RequestIndex::default();
    parse_request(wire.as_bytes(), &Limits::default(), &mut index).unwrap().unwrap();
    let mut out = Vec::new();
    encode_request_head(&mut out, &index.view(wire.as_bytes()), edits, options);
    String::from_utf8(out).unwrap()
}

fn response(wire: &str, answers: ResponseFor, version: Version, keep_alive: bool) -> (String, BodyFraming) {
    let mut index = ResponseIndex::default();
    let meta = parse_response(wire.as_bytes(), &Limits::default(), answers, &mut index).unwrap().unwrap();
    let mut out = Vec::new();
    let options = ResponseOptions { framing: meta.framing, version, keep_alive, answers };
    let framing = encode_response_head(&mut out, &index.view(wire.as_bytes()), &Edits::default(), &options);
    (String::from_utf8(out).unwrap(), framing)
}

/// To a client of HTTP/1.1 that asked with GET and stays.
fn plain(wire: &str) -> (String, BodyFraming) {
    response(wire, ResponseFor::default(), Version::Http11, true)
}

#[test]
fn fields_of_one_hop_do_not_cross() {
    let wire = "GET / HTTP/1.1\r\nA: 1\r\nConnection: close, X-Hop,x-request-id\r\nKeep-Alive: 5\r\nTE: trailers\r\nHost: h\r\n\
        Proxy-Connection: x\r\nProxy-Authorization: Basic eA==\r\nUpgrade: websocket\r\nx-hop: 1\r\nX-Request-Id: 7\r\n\
        Expect: 100-continue\r\nTrailer: X\r\nContent-Length: 0\r\nB: 2\r\n\r\n";
    assert_eq!(request(wire, &Edits::default(), &PLAIN), "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n\r\n");
}

#[test]
fn the_connection_cannot_name_framing_or_host_away() {
    let wire = "POST / HTTP/1.1\r\nHost: h\r\nConnection: host, content-length\r\nContent-Length: 3\r\n\r\n";
    let options = RequestOptions { framing: BodyFraming::Length(3), ..PLAIN };
    assert_eq!(
        request(wire, &Edits::default(), &options),
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
    );
}

/// What another transport carries of a head that came by HTTP/1.
#[test]
fn what_crosses_still_has_its_framing_and_host() {
    let wire = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: host, content-length, x, date\r\nContent-Length: 3\r\nX: 1\r\nDate: d\r\nY: 2\r\n\r\n";
    let mut index = RequestIndex::default();
    parse_request(wire, &Limits::default(), &mut index).unwrap().unwrap();
    let names: Vec<&[u8]> = end_to_end(index.view(wire).fields).map(|(_, name, _)| name).collect();
    assert_eq!(names, [&b"Host"[..], b"Content-Length", b"Y"]);
}

#[test]
fn our_own_options_are_written() {
    let wire =
        "POST / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\nTrailer: X\r\n\r\n";
    let options = RequestOptions {
        framing: BodyFraming::Chunked,
        keep_alive: false,
        upgrade: true,
        expect_continue: true,
        te_trailers: true,
    };
    assert_eq!(
        request(wire, &Edits::default(), &options),
        "POST / HTTP/1.1\r\nHost: h\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nTE: trailers\r\n\
         Connection: Upgrade, TE\r\nUpgrade: websocket\r\n\r\n"
    );
    let close = RequestOptions { keep_alive: false, ..PLAIN };
    assert!(request(wire, &Edits::default(), &close).ends_with("\r\nConnection: close\r\n\r\n"));
}

#[test]
fn targets_are_written_in_the_form_that_a_server_expects() {
    for (line, expected) in [
        ("GET http://b:80/c?d HTTP/1.1", "GET /c?d HTTP/1.1\r\nHost: b:80"),
        ("GET http://b HTTP/1.1", "GET / HTTP/1.1\r\nHost: b"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1\r\nHost: a"),
        ("CONNECT b:443 HTTP/1.1", "CONNECT b:443 HTTP/1.1\r\nHost: b:443"),
        ("GET / HTTP/1.0", "GET / HTTP/1.1\r\nHost: a"),
    ] {
        let wire = [line, "\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(request(&wire, &Edits::default(), &PLAIN), [expected, "\r\n\r\n"].concat());
    }
}

#[test]
fn edits_are_applied_and_cannot_break_framing() {
    let wire = "GET / HTTP/1.1\r\nHost: h\r\nCookie: x\r\nX-A: 1\r\n\r\n";
    let mut edits = Edits::default();
    edits.remove(b"cookie");
    edits.set(b"x-a", b"2");
    edits.add(b"x-b", b"");
    edits.add(b"transfer-encoding", b"chunked");
    edits.add(b"Content-Length", b"5");
    edits.add(b"host", b"evil");
    edits.add(b"connection", b"close");
    edits.add(b"x-c", b"1\r\nContent-Length: 5");
    edits.add(b"x d", b"1");
    edits.add(b"", b"1");
    assert_eq!(request(wire, &edits, &PLAIN), "GET / HTTP/1.1\r\nHost: h\r\nx-a: 2\r\nx-b: \r\n\r\n");
}

#[test]
fn responses_are_framed_for_their_client() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\n";
    let again = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(plain(until_close), (again.into(), BodyFraming::Chunked));
    assert_eq!(
        plain(chunked),
        (["HTTP/1.1 200 OK\r\nTrailer: X", &again[15..]].concat(), BodyFraming::Chunked)
    );
    for wire in [chunked, until_close] {
        let (text, framing) = response(wire, ResponseFor::default(), Version::Http10, true);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        assert_eq!(framing, BodyFraming::UntilClose);
    }
    let length = "HTTP/1.0 200 Fine\r\ncontent-length: 03\r\n\r\n";
    let (text, framing) = response(length, ResponseFor::default(), Version::Http10, true);
    assert_eq!(text, "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(framing, BodyFraming::Length(3));
}

#[test]
fn a_length_is_kept_where_the_body_is_not_sent() {
    let head = ResponseFor { head: true, ..ResponseFor::default() };
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(response(ok, head, Version::Http11, true), (ok.into(), BodyFraming::None));
    let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(plain(unchanged), (unchanged.into(), BodyFraming::None));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(chunked, head, Version::Http11, true).0, "HTTP/1.1 200 OK\r\n\r\n");
    for answers in [head, ResponseFor::default()] {
        let none = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(response(none, answers, Version::Http11, true).0, "HTTP/1.1 204 No Content\r\n\r\n");
    }
}

#[test]
fn interim_responses_cross_to_those_who_know_them() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    assert_eq!(plain(hints), (hints.into(), BodyFraming::None));
    let old = response(hints, ResponseFor::default(), Version::Http10, true);
    assert_eq!(old, (String::new(), BodyFraming::None));
    // `close` belongs to the final response.
    let closing = response(hints, ResponseFor::default(), Version::Http11, false);
    assert_eq!(closing.0, hints);
}

#[test]
fn hand_overs_are_passed_on() {
    let upgrade = ResponseFor { upgrade: true, ..ResponseFor::default() };
    let wire =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX: 1\r\n\r\n";
    assert_eq!(
        response(wire, upgrade, Version::Http11, false),
        (
            "HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                .into(),
            BodyFraming::Tunnel
        )
    );
    let connect = ResponseFor { connect: true, ..ResponseFor::default() };
    let wire = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        parse_response(wire.as_bytes(), &Limits::default(), connect, &mut ResponseIndex::default()),
        Err(ParseError::LengthAndTransferEncoding)
    );
    let wire = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(
        response(wire, connect, Version::Http11, false),
        ("HTTP/1.1 200 OK\r\n\r\n".into(), BodyFraming::Tunnel)
    );
}

#[test]
fn a_response_of_ours_says_that_it_has_no_body() {
    let index = ResponseIndex { status: 503, ..ResponseIndex::default() };
    let options = ResponseOptions {
        framing: BodyFraming::None,
        version: Version::Http11,
        keep_alive: true,
        answers: ResponseFor::default(),
    };
    let mut out = Vec::new();
    encode_response_head(&mut out, &index.view(b""), &Edits::default(), &options);
    assert_eq!(out, b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n");
}
