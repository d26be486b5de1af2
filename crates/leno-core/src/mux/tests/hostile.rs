//! A peer that does what an honest one never does: no panic, no wrong answer, bounded memory, and the rule that
//! was broken is named.

use std::vec;
use std::vec::Vec;

use super::pair::{End, Pair, Seen, request, response};
use crate::edit::Edits;
use crate::mux::frame::{self, Header};
use crate::mux::{
    AppSaw, BadHead, Body, Code, ConnectionError, Culprit, Event, HeadIndex, Limits, Meta, Mux, OpenError,
    Role, SendError, StreamError, Timeout, Violation,
};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// A frame with any header and payload.
fn frame(kind: u8, end: bool, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Header::encode(kind, end, payload.len(), stream).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn settings() -> Vec<u8> {
    Mux::new(Role::Dialer, Limits::default(), Instant::ZERO).output().to_vec()
}

/// A HEAD payload: kind and metadata as given, then texts with their lengths.
fn head(kind: u8, meta: &[u8], texts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(meta);
    for text in texts {
        frame::put_varint(&mut bytes, text.len() as u64);
        bytes.extend_from_slice(text);
    }
    bytes
}

/// No body declared.
const UNKNOWN: &[u8] = &[0];
/// Body of no bytes.
const NO_BODY: &[u8] = &[12, 0, 0];

/// An acceptor that has read SETTINGS and then these frames.
fn acceptor_after(frames: &[Vec<u8>]) -> End {
    let mut end = End::new(Role::Acceptor, Limits::default());
    end.inbox = settings();
    for frame in frames {
        end.inbox.extend_from_slice(frame);
    }
    end.receive_all(Instant::ZERO);
    end
}

fn good_request(stream: u32, end: bool) -> Vec<u8> {
    frame(frame::HEAD, end, stream, &head(1, UNKNOWN, &[b"GET", b"a", b"/"]))
}

#[test]
fn every_broken_connection_rule_is_named() {
    let cases: &[(&str, Vec<Vec<u8>>, Violation)] = &[
        ("settings twice", vec![settings()], Violation::Settings),
        ("unknown kind", vec![frame(33, false, 0, &[])], Violation::Kind),
        ("kind zero", vec![frame(0, false, 0, &[])], Violation::Kind),
        ("END flag on PING", vec![frame(frame::PING, true, 0, &[0; 8])], Violation::Kind),
        ("short PING", vec![frame(frame::PING, false, 0, &[0; 7])], Violation::Length),
        ("long END", vec![good_request(1, false), frame(frame::END, false, 1, b"x")], Violation::Length),
        ("huge HEAD", vec![Header::encode(frame::HEAD, false, 1 << 20, 1).to_vec()], Violation::Length),
        ("huge DATA", vec![Header::encode(frame::DATA, false, 1 << 20, 1).to_vec()], Violation::Length),
        ("HEAD on the connection", vec![good_request(0, true)], Violation::Stream),
        ("PING on a stream", vec![frame(frame::PING, false, 1, &[0; 8])], Violation::Stream),
        ("DATA on no stream", vec![frame(frame::DATA, false, 1, b"x")], Violation::Stream),
        ("RESET on no stream", vec![frame(frame::RESET, false, 5, &[1, 1])], Violation::Stream),
        (
            "END on an even stream",
            vec![good_request(1, false), frame(frame::END, false, 2, &[])],
            Violation::Stream,
        ),
        ("a number skipped", vec![good_request(3, true)], Violation::Order),
        ("an even number", vec![good_request(2, true)], Violation::Order),
        ("PONG without PING", vec![frame(frame::PONG, false, 0, &[0; 8])], Violation::Pong),
        (
            "credit overflow",
            vec![frame(frame::CREDIT, false, 0, &[0x7f, 255, 255, 255])],
            Violation::CreditOverflow,
        ),
        (
            "stream credit overflow",
            vec![good_request(1, true), frame(frame::CREDIT, false, 1, &[0xff; 4])],
            Violation::CreditOverflow,
        ),
    ];
    for (name, frames, expected) in cases {
        let end = acceptor_after(frames);
        let error = ConnectionError::Peer(*expected);
        assert_eq!(end.error, Some(error), "{name}");
        assert_eq!(error.culprit(), Culprit::Peer);
        // The other side is told which rule it was, and takes the blame.
        let mut dialer = End::new(Role::Dialer, Limits::default());
        dialer.inbox = end.mux.output().to_vec();
        dialer.mux.next_local = 101;
        dialer.receive_all(Instant::ZERO);
        let told = ConnectionError::ClosedByPeer(*expected);
        assert_eq!((dialer.error, told.culprit()), (Some(told), Culprit::Us), "{name}");
    }
}

#[test]
fn the_first_frame_is_settings_of_version_one() {
    let case = |bytes: &[u8]| {
        let mut end = End::new(Role::Acceptor, Limits::default());
        end.inbox = bytes.to_vec();
        end.receive_all(Instant::ZERO);
        end.error
    };
    let bad = Some(ConnectionError::Peer(Violation::Settings));
    assert_eq!(case(&good_request(1, true)), bad);
    assert_eq!(case(b"GET / HTTP/1.1\r\n\r\n"), bad);
    assert_eq!(case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), bad);
    assert_eq!(case(&frame(frame::SETTINGS, false, 0, b"LENO")), bad);
    assert_eq!(case(&frame(frame::SETTINGS, false, 0, b"LENO\x02")), Some(ConnectionError::Version(2)));
    // A stream window of 1 is below what a dialer may have counted on.
    assert_eq!(case(&frame(frame::SETTINGS, false, 0, b"LENO\x01\x02\x01")), bad);
    assert_eq!(case(&frame(frame::SETTINGS, false, 0, b"LENO\x01\x02")), bad);
    // A setting of a later version.
    assert_eq!(case(&frame(frame::SETTINGS, false, 0, b"LENO\x01\x40\x01")), None);
}

#[test]
fn what_later_versions_say_is_skipped() {
    let mut unknown = frame(60, false, 0, b"whatever");
    unknown[0] |= 0x40;
    // Metadata tags 20 (number) and 21 (text) are not known.
    let meta = [12, 0, 40, 5, 43, 2, b'h', b'i', 0];
    let request = frame(frame::HEAD, true, 1, &head(1, &meta, &[b"GET", b"a", b"/"]));
    let end = acceptor_after(&[unknown, request]);
    assert_eq!(end.error, None);
    assert_eq!(end.seen, [(1, Seen::Request { head: "GET a /".into(), body: Body::None, end: true })]);
}

#[test]
fn a_head_that_could_smuggle_is_refused_and_the_connection_goes_on() {
    let cases: &[(&str, Vec<u8>, BadHead)] = &[
        ("empty", vec![9], BadHead::Truncated),
        ("a response", head(2, UNKNOWN, &[]), BadHead::Kind),
        ("no method", head(1, UNKNOWN, &[b"", b"a", b"/"]), BadHead::Method),
        ("space in method", head(1, UNKNOWN, &[b"GET /x", b"a", b"/"]), BadHead::Method),
        ("CRLF in path", head(1, UNKNOWN, &[b"GET", b"a", b"/ HTTP/1.1\r\nx: y"]), BadHead::Path),
        ("space in path", head(1, UNKNOWN, &[b"GET", b"a", b"/a b"]), BadHead::Path),
        ("relative path", head(1, UNKNOWN, &[b"GET", b"a", b"x"]), BadHead::Path),
        ("no path", head(1, UNKNOWN, &[b"GET", b"a", b""]), BadHead::Path),
        ("CONNECT with a path", head(1, UNKNOWN, &[b"CONNECT", b"a", b"/"]), BadHead::Path),
        ("star", head(1, UNKNOWN, &[b"GET", b"a", b"*"]), BadHead::Path),
        ("CRLF in authority", head(1, UNKNOWN, &[b"GET", b"a\r\nb", b"/"]), BadHead::Authority),
        ("path in authority", head(1, UNKNOWN, &[b"GET", b"a/b", b"/"]), BadHead::Authority),
        ("user in authority", head(1, UNKNOWN, &[b"GET", b"a@b", b"/"]), BadHead::Authority),
        ("two hosts", head(1, UNKNOWN, &[b"GET", b"a,b", b"/"]), BadHead::Authority),
        ("CR in value", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x", b"1\r2"]), BadHead::Value),
        ("LF in value", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x", b"1\n2"]), BadHead::Value),
        ("NUL in value", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x", b"1\x002"]), BadHead::Value),
        ("space around value", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x", b" 1"]), BadHead::Value),
        ("colon in name", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x:", b"1"]), BadHead::Name),
        ("space in name", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x ", b"1"]), BadHead::Name),
        ("no name", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"", b"1"]), BadHead::Name),
        ("name without value", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"x"]), BadHead::Truncated),
        ("host", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"HOST", b"b"]), BadHead::Forbidden),
        (
            "transfer-encoding",
            head(1, UNKNOWN, &[b"GET", b"a", b"/", b"Transfer-Encoding", b"chunked"]),
            BadHead::Forbidden,
        ),
        ("connection", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"connection", b"x"]), BadHead::Forbidden),
        ("upgrade", head(1, UNKNOWN, &[b"GET", b"a", b"/", b"upgrade", b"h2c"]), BadHead::Forbidden),
        (
            "length without a declared body",
            head(1, UNKNOWN, &[b"GET", b"a", b"/", b"content-length", b"5"]),
            BadHead::Length,
        ),
        (
            "length and no body",
            head(1, NO_BODY, &[b"GET", b"a", b"/", b"content-length", b"5"]),
            BadHead::Length,
        ),
        ("declared, no field", head(1, &[12, 6, 0], &[b"GET", b"a", b"/"]), BadHead::Length),
        (
            "other length",
            head(1, &[12, 6, 0], &[b"GET", b"a", b"/", b"content-length", b"6"]),
            BadHead::Length,
        ),
        (
            "signed length",
            head(1, &[12, 6, 0], &[b"GET", b"a", b"/", b"content-length", b"+5"]),
            BadHead::Length,
        ),
        (
            "two lengths",
            head(1, &[12, 6, 0], &[b"GET", b"a", b"/", b"content-length", b"5", b"content-length", b"5"]),
            BadHead::Length,
        ),
        (
            "overflowing length",
            head(1, &[12, 6, 0], &[b"GET", b"a", b"/", b"content-length", b"18446744073709551621"]),
            BadHead::Length,
        ),
        ("metadata twice", head(1, &[2, 1, 2, 1, 0], &[b"GET", b"a", b"/"]), BadHead::Meta),
        ("metadata with LF", head(1, &[7, 2, b'a', b'\n', 0], &[b"GET", b"a", b"/"]), BadHead::Meta),
        ("upgrade to h2c", head(1, &[15, 3, b'h', b'2', b'c', 0], &[b"GET", b"a", b"/"]), BadHead::Meta),
        ("upgrade unsaid", head(1, &[15, 1, b'a', 0], &[b"GET", b"a", b"/"]), BadHead::Forbidden),
        (
            "upgrade to something else",
            head(1, &[15, 1, b'a', 0], &[b"GET", b"a", b"/", b"Upgrade", b"b"]),
            BadHead::Forbidden,
        ),
        ("upgrade with colon", head(1, &[15, 2, b'a', b':', 0], &[b"GET", b"a", b"/"]), BadHead::Meta),
        (
            "endless number",
            head(1, &[2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], &[]),
            BadHead::Truncated,
        ),
        ("opaque with more", head(3, UNKNOWN, &[b"db:1", b"x"]), BadHead::Truncated),
    ];
    for (name, payload, bad) in cases {
        let end = acceptor_after(&[frame(frame::HEAD, false, 1, payload), good_request(3, true)]);
        assert_eq!(end.error, None, "{name}");
        assert_eq!(end.seen[0], (0, Seen::BadRequest(1, StreamError::Head(*bad))), "{name}");
        assert!(matches!(end.seen[1], (3, Seen::Request { .. })), "{name}");
        // The dialer learns that nobody saw it.
        let reset = frame(frame::RESET, false, 1, &[Code::Protocol as u8, 0]);
        assert!(end.mux.output().windows(reset.len()).any(|w| w == reset), "{name}");
    }
    let mut many: Vec<&[u8]> = vec![b"GET", b"a", b"/"];
    many.extend((0..2 * 513).map(|_| &b"x"[..]));
    let end = acceptor_after(&[frame(frame::HEAD, true, 1, &head(1, NO_BODY, &many))]);
    assert_eq!(end.seen, [(0, Seen::BadRequest(1, StreamError::Head(BadHead::TooLarge)))]);
}

#[test]
fn a_response_that_could_smuggle_is_refused() {
    let cases: &[(&str, Vec<u8>, StreamError)] = &[
        ("a request", head(1, NO_BODY, &[b"GET", b"a", b"/"]), StreamError::Head(BadHead::Kind)),
        ("status 99", head(2, &[12, 0, 0, 99], &[b""]), StreamError::Head(BadHead::Status)),
        ("status 1000", head(2, &[12, 0, 0, 0xe8, 7], &[b""]), StreamError::Head(BadHead::Status)),
        ("204 with a body", head(2, &[0, 0xcc, 1], &[b""]), StreamError::Head(BadHead::Status)),
        ("CRLF in reason", head(2, &[12, 0, 0, 0xc8, 1], &[b"O\r\nK"]), StreamError::Head(BadHead::Value)),
        (
            "chunked",
            head(2, &[0, 0xc8, 1], &[b"", b"transfer-encoding", b"chunked"]),
            StreamError::Head(BadHead::Forbidden),
        ),
        (
            "length unsaid",
            head(2, &[0, 0xc8, 1], &[b"", b"content-length", b"1"]),
            StreamError::Head(BadHead::Length),
        ),
    ];
    for (name, payload, expected) in cases {
        let mut pair = Pair::new();
        pair.get("/", true);
        pair.run();
        pair.dialer.inbox = frame(frame::HEAD, false, 1, payload);
        pair.dialer.receive_all(pair.now);
        assert_eq!(pair.dialer.error, None, "{name}");
        assert_eq!(pair.dialer.take_seen(), [(1, Seen::Broken(*expected))], "{name}");
        assert_eq!(pair.dialer.mux.streams_open(), 0);
    }
}

#[test]
fn frames_out_of_state_break_only_their_stream() {
    let data = |end, bytes: &[u8]| frame(frame::DATA, end, 1, bytes);
    let five =
        frame(frame::HEAD, false, 1, &head(1, &[12, 6, 0], &[b"GET", b"a", b"/", b"content-length", b"5"]));
    let cases: &[(&str, Vec<Vec<u8>>, StreamError)] = &[
        ("head twice", vec![good_request(1, false), good_request(1, false)], StreamError::State),
        ("data after the end", vec![good_request(1, true), data(false, b"x")], StreamError::State),
        ("end twice", vec![good_request(1, true), frame(frame::END, false, 1, &[])], StreamError::State),
        (
            "trailers after the end",
            vec![good_request(1, true), frame(frame::TRAILERS, false, 1, &[])],
            StreamError::State,
        ),
        ("body too long", vec![five.clone(), data(false, b"123456")], StreamError::BodyLength),
        (
            "body too long in two",
            vec![five.clone(), data(false, b"1234"), data(false, b"56")],
            StreamError::BodyLength,
        ),
        ("body too short", vec![five.clone(), data(true, b"1234")], StreamError::BodyLength),
        (
            "body cut short",
            vec![five, data(false, b"1"), frame(frame::END, false, 1, &[])],
            StreamError::BodyLength,
        ),
        (
            "length in trailers",
            vec![good_request(1, false), frame(frame::TRAILERS, false, 1, b"\x0econtent-length\x011")],
            StreamError::Head(BadHead::Forbidden),
        ),
    ];
    for (name, frames, expected) in cases {
        let mut frames = frames.clone();
        frames.push(good_request(3, true));
        let end = acceptor_after(&frames);
        assert_eq!(end.error, None, "{name}");
        assert!(end.seen.contains(&(1, Seen::Broken(*expected))), "{name}: {:?}", end.seen);
        assert!(matches!(end.seen.last(), Some((3, Seen::Request { .. }))), "{name}");
        end.mux.check_invariants();
    }
}

#[test]
fn floods_are_cut_off() {
    let flood = |make: &dyn Fn(u32) -> Vec<u8>| {
        let mut end = End::new(Role::Acceptor, Limits::default());
        end.inbox = settings();
        end.receive_all(Instant::ZERO);
        for i in 0..20_000 {
            end.inbox.extend_from_slice(&make(i));
            end.receive_all(Instant::ZERO);
            end.seen.clear();
            let pending = end.mux.output().len();
            assert!(pending < 700 << 10, "{pending} bytes of output");
            if let Some(error) = end.error {
                return error;
            }
        }
        panic!("the flood is never cut off");
    };
    let broken = ConnectionError::Peer;
    assert_eq!(flood(&|_| frame(frame::PING, false, 0, &[0; 8])), broken(Violation::PingFlood));
    let cut = |i: u32| {
        let mut bytes = good_request(2 * i + 1, false);
        bytes.extend(frame(frame::RESET, false, 2 * i + 1, &[1, 1]));
        bytes
    };
    assert_eq!(flood(&cut), broken(Violation::ResetFlood));
    let bad = |i: u32| frame(frame::HEAD, true, 2 * i + 1, &head(1, NO_BODY, &[b"", b"", b""]));
    assert_eq!(flood(&bad), broken(Violation::ResetFlood));
    let empty = |i: u32| if i == 0 { good_request(1, false) } else { frame(frame::DATA, false, 1, &[]) };
    assert_eq!(flood(&empty), broken(Violation::IdleFlood));
    assert_eq!(flood(&|_| frame(frame::CREDIT, false, 0, &[0, 0, 0, 1])), broken(Violation::IdleFlood));
    let more = |i: u32| good_request(2 * i + 1, true);
    assert_eq!(flood(&more), broken(Violation::ResetFlood));
    let data =
        |i: u32| if i == 0 { good_request(1, false) } else { frame(frame::DATA, false, 1, &[0; 16384]) };
    let mut end = End::new(Role::Acceptor, Limits::default());
    end.auto_release = false;
    end.inbox = settings();
    for i in 0..100 {
        end.inbox.extend(data(i));
    }
    end.receive_all(Instant::ZERO);
    assert_eq!(end.error, Some(broken(Violation::Credit)));
    assert_eq!(end.seen.len(), 1 + 16, "one window and no more");
}

#[test]
fn too_many_interim_heads_break_the_stream() {
    let mut pair = Pair::new();
    pair.get("/", true);
    for _ in 0..17 {
        pair.run();
        pair.answer(1, 103, false);
    }
    pair.run();
    assert_eq!(pair.dialer.take_seen().last(), Some(&(1, Seen::Broken(StreamError::InterimHeads))));
}

#[test]
fn a_drain_that_contradicts_is_refused_and_one_that_refuses_is_obeyed() {
    let drain = |last: u32| frame(frame::DRAIN, false, 0, &last.to_be_bytes());
    let after = |frames: &[Vec<u8>]| {
        let mut pair = Pair::new();
        pair.get("/1", true);
        pair.get("/2", false);
        pair.run();
        pair.dialer.inbox = frames.concat();
        pair.dialer.receive_all(pair.now);
        (pair.dialer.error, pair.dialer.take_seen())
    };
    let bad = Some(ConnectionError::Peer(Violation::Drain));
    assert_eq!(after(&[drain(7)]).0, bad, "never opened");
    assert_eq!(after(&[drain(1), drain(3)]).0, bad, "back up");
    let refused = (3, Seen::Reset(Code::Refused, AppSaw::Nothing));
    assert_eq!(after(&[drain(u32::MAX), drain(1)]), (None, vec![(0, Seen::Draining), refused]));
}

#[test]
fn silence_is_asked_about_and_then_fatal() {
    let mut pair = Pair::new();
    pair.run();
    let (due, why) = pair.dialer.mux.poll_timeout().expect("always one");
    assert_eq!(why, Timeout::Ping);
    pair.now = due;
    assert_eq!(pair.dialer.mux.handle_timeout(pair.now), Ok(()));
    pair.run();
    assert_eq!(pair.dialer.take_seen(), [(0, Seen::Pong)]);
    // The next one is not answered.
    let (due, _) = pair.dialer.mux.poll_timeout().expect("always one");
    assert_eq!(pair.dialer.mux.handle_timeout(due), Ok(()));
    let (due, why) = pair.dialer.mux.poll_timeout().expect("always one");
    assert_eq!(why, Timeout::Pong);
    assert_eq!(pair.dialer.mux.handle_timeout(due), Err(ConnectionError::PingTimeout));
    assert_eq!(ConnectionError::PingTimeout.culprit(), Culprit::Network);
    assert_eq!(pair.dialer.mux.poll_timeout(), None);

    let mut silent = Mux::new(Role::Acceptor, Limits::default(), Instant::ZERO);
    let (due, why) = silent.poll_timeout().expect("always one");
    assert_eq!(why, Timeout::Settings);
    assert_eq!(silent.handle_timeout(due), Err(ConnectionError::SettingsTimeout));
}

#[test]
fn callers_mistakes_are_told_and_harm_nothing() {
    let mut pair = Pair::new();
    let (buf, index) = request("GE T", "a", "/", &[]);
    let open = |pair: &mut Pair, buf: &[u8], index: &crate::head::RequestIndex, edits: &Edits| {
        pair.dialer.mux.open(&Meta::default(), &index.view(buf), edits, true)
    };
    let bad = |bad| Err(OpenError::Head(bad));
    assert_eq!(open(&mut pair, &buf, &index, &Edits::default()), bad(BadHead::Method));
    let (buf, index) = request("GET", "a", "/", &[]);
    let mut edits = Edits::default();
    edits.add(b"x", b"1\r\ny: 2");
    assert_eq!(open(&mut pair, &buf, &index, &edits), bad(BadHead::Value));
    let long = "x".repeat(70_000);
    let (buf, index) = request("GET", "a", "/", &[("x", &long)]);
    assert_eq!(open(&mut pair, &buf, &index, &Edits::default()), bad(BadHead::TooLarge));
    // An edit of Host is one of the authority.
    let (buf, index) = request("GET", "a", "/", &[]);
    let mut edits = Edits::default();
    edits.set(b"Host", b"b");
    let id = open(&mut pair, &buf, &index, &edits).expect("opens");
    pair.run();
    assert_eq!(
        pair.acceptor.take_seen()[0].1,
        Seen::Request { head: "GET b /".into(), body: Body::Unknown, end: true }
    );
    assert_eq!(pair.dialer.mux.send_data(id, b"x", false), Err(SendError::State));
    let server = pair.acceptor.id(1);
    assert_eq!(pair.acceptor.mux.send_data(server, b"x", false), Err(SendError::State));
    pair.answer(1, 204, false);
    let (buf, index) = response(200, &[]);
    let again =
        pair.acceptor.mux.respond(server, &Meta::default(), &index.view(&buf), &Edits::default(), true);
    assert_eq!(again, Err(SendError::State));
    pair.acceptor.mux.release(server, 1000);
    pair.acceptor.mux.check_invariants();
}

/// A recording of what a dialer says in a busy life.
fn recording() -> Vec<u8> {
    let mut dialer = Mux::new(Role::Dialer, Limits::default(), Instant::ZERO);
    let mut rng = Rng::new(9);
    for i in 0..12 {
        let (buf, index) = request("POST", "product", "/a/b", &[("accept", "*/*"), ("x-a", "some text")]);
        let meta =
            Meta { attempt: 1, route: b"default", deadline: Some(Duration::from_secs(1)), ..Meta::default() };
        let id = dialer.open(&meta, &index.view(&buf), &Edits::default(), i % 3 == 0).expect("opens");
        if i % 3 != 0 {
            let body = vec![1; rng.below(300) as usize];
            dialer.send_data(id, &body, i % 2 == 0).expect("sends");
        }
        if i % 5 == 4 {
            dialer.reset(id, Code::Cancel, AppSaw::Maybe);
        }
    }
    dialer.output().to_vec()
}

/// Feeds bytes in random pieces; returns the events.
fn feed(role: Role, bytes: &[u8], rng: &mut Rng) -> usize {
    let mut mux = Mux::new(role, Limits::default(), Instant::ZERO);
    if role == Role::Dialer {
        let (buf, index) = request("GET", "a", "/", &[]);
        for _ in 0..10 {
            mux.open(&Meta::default(), &index.view(&buf), &Edits::default(), false).expect("opens");
        }
    }
    let mut index = HeadIndex::default();
    let (mut start, mut end, mut events) = (0, 0, 0);
    while end < bytes.len() {
        end = (end + 1 + rng.below(200) as usize).min(bytes.len());
        loop {
            match mux.receive(Instant::ZERO, &bytes[start..end], &mut index) {
                Err(_) => return events,
                Ok((used, event)) => {
                    start += used;
                    mux.check_invariants();
                    let Some(event) = event else { break };
                    events += 1;
                    if let Event::Data { stream, data, .. } = event {
                        mux.release(stream, data.len());
                    }
                }
            }
        }
        assert!(end - start <= mux.limits().read_buffer_bytes());
    }
    events
}

#[test]
fn random_bytes_and_flipped_bits_never_panic() {
    let valid = recording();
    let mut rng = Rng::new(3);
    let whole = feed(Role::Acceptor, &valid, &mut rng);
    assert!(whole > 20, "{whole}");
    for _ in 0..3000 {
        let mut bytes = valid.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        feed(Role::Acceptor, &bytes, &mut rng);
        feed(Role::Dialer, &bytes, &mut rng);
    }
    for _ in 0..1000 {
        let mut bytes = settings();
        for _ in 0..rng.below(40) {
            // A plausible header and any payload.
            let length = rng.below(40) as usize;
            let number = rng.below(8) as u32;
            bytes.extend(Header::encode(rng.below(13) as u8, rng.one_in(5), length, number));
            bytes.extend((0..length).map(|_| rng.next_u64() as u8));
        }
        feed(Role::Acceptor, &bytes, &mut rng);
        feed(Role::Dialer, &bytes, &mut rng);
    }
}

#[test]
fn memory_of_a_peer_that_reads_nothing_is_bounded() {
    let limits = Limits { output_bytes_max: 32 << 10, ..Limits::default() };
    let mut mux = Mux::new(Role::Dialer, limits, Instant::ZERO);
    let mut index = HeadIndex::default();
    let (used, _) = mux.receive(Instant::ZERO, &settings(), &mut index).expect("settings");
    assert!(used > 0);
    let (buf, head) = request("POST", "a", "/", &[]);
    let mut open = Vec::new();
    while let Ok(id) = mux.open(&Meta::default(), &head.view(&buf), &Edits::default(), false) {
        open.push(id);
        let _ = mux.send_data(id, &[0; 1000], false);
    }
    for id in &open {
        assert!(mux.send_data(*id, &[0; 100_000], false).is_ok());
    }
    assert!(mux.output().len() <= (32 << 10) + 64);
    mux.check_invariants();
}
