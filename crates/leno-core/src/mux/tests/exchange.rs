//! What two honest ends do together.

use std::vec;
use std::vec::Vec;

use super::pair::{Pair, Seen, put_fields, request, response};
use crate::edit::Edits;
use crate::head::Fields;
use crate::mux::{AppSaw, Body, Code, Kind, Limits, Meta, OpenError, SendError};

#[test]
fn a_request_and_its_answer_cross_whole() {
    for chunk in [0, 1, 7] {
        let mut pair = Pair::new();
        pair.chunk = chunk;
        let (buf, index) = request(
            "POST",
            "product:80",
            "/a?b=c",
            &[
                ("Host", "x"),
                ("X-One", "1"),
                ("Content-Length", "5"),
                ("Connection", "close, x-hop"),
                ("X-Hop", "2"),
            ],
        );
        let meta = Meta { body: Body::Length(5), ..Meta::default() };
        let mut edits = Edits::default();
        edits.add(b"x-two", b"2");
        let id = pair.dialer.mux.open(&meta, &index.view(&buf), &edits, false).expect("opens");
        assert_eq!(pair.dialer.mux.send_data(id, b"hello", true), Ok(5));
        pair.run();
        let seen = pair.acceptor.take_seen();
        assert_eq!(
            seen[0],
            (
                1,
                Seen::Request {
                    head: "POST product:80 /a?b=c|X-One=1|x-two=2|content-length=5".into(),
                    body: Body::Length(5),
                    end: false
                }
            )
        );
        assert_eq!(bytes_of(&seen[1..]), (b"hello".to_vec(), true));

        pair.answer(1, 103, false);
        pair.answer(1, 200, false);
        let server = pair.acceptor.id(1);
        assert_eq!(pair.acceptor.mux.send_data(server, b"hi", false), Ok(2));
        let mut buf = Vec::new();
        let fields = put_fields(&mut buf, &[("x-sum", "9"), ("Content-Length", "7")]);
        pair.acceptor.mux.send_trailers(server, &Fields::new(&buf, &fields)).expect("trailers");
        pair.run();
        let seen = pair.dialer.take_seen();
        assert_eq!(seen[0], (1, Seen::Response { status: 103, head: "|server=app".into(), end: false }));
        assert_eq!(seen[1], (1, Seen::Response { status: 200, head: "|server=app".into(), end: false }));
        assert_eq!(bytes_of(&seen[2..seen.len() - 1]), (b"hi".to_vec(), false));
        assert_eq!(seen.last(), Some(&(1, Seen::Trailers("|x-sum=9".into()))));
        assert_eq!((pair.dialer.mux.streams_open(), pair.acceptor.mux.streams_open()), (0, 0));
    }
}

/// Joins Data events.
fn bytes_of(seen: &[(u32, Seen)]) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut ended = false;
    for (_, event) in seen {
        match event {
            Seen::Data(bytes, end) => {
                assert!(!ended, "data after the end");
                all.extend_from_slice(bytes);
                ended = *end;
            }
            other => panic!("expected data, saw {other:?}"),
        }
    }
    (all, ended)
}

#[test]
fn bodies_stop_at_the_window_and_go_on_when_the_reader_does() {
    let mut pair = Pair::new();
    pair.acceptor.auto_release = false;
    let id = pair.get("/", false);
    pair.run();
    let body = vec![7u8; 600 << 10];
    let mut sent = 0;
    let (mut received, mut held) = (0, 0);
    for _ in 0..1000 {
        sent += pair.dialer.mux.send_data(id, &body[sent..], true).unwrap_or(0);
        pair.run();
        let mut got = 0;
        for (_, seen) in pair.acceptor.take_seen() {
            if let Seen::Data(bytes, _) = seen {
                got += bytes.len();
            }
        }
        received += got;
        held += got;
        assert!(sent - received == 0, "everything sent arrives");
        assert!(held <= pair.acceptor.mux.limits().stream_window as usize, "window exceeded");
        if sent == body.len() {
            break;
        }
        // Nothing is writable until the reader releases.
        if pair.dialer.mux.writable(id) == 0 {
            let server = pair.acceptor.id(1);
            pair.acceptor.mux.release(server, core::mem::take(&mut held));
            pair.run();
        }
        assert_eq!(pair.dialer.mux.next_writable(), Some(id));
    }
    assert_eq!(received, body.len());
}

#[test]
fn an_upgraded_stream_is_data_both_ways_with_half_close() {
    let mut pair = Pair::new();
    let (buf, index) = request("GET", "chat", "/", &[("Connection", "upgrade"), ("Upgrade", "websocket")]);
    let meta = Meta { upgrade: b"websocket", ..Meta::default() };
    let id = pair.dialer.mux.open(&meta, &index.view(&buf), &Edits::default(), false).expect("opens");
    pair.run();
    let server = pair.acceptor.id(1);
    let head = "GET chat /|upgrade=websocket".into();
    assert_eq!(pair.acceptor.take_seen(), [(1, Seen::Request { head, body: Body::Unknown, end: false })]);
    let (buf, index) = response(101, &[]);
    pair.acceptor.mux.respond(server, &meta, &index.view(&buf), &Edits::default(), false).expect("101");
    pair.run();
    assert_eq!(
        pair.dialer.take_seen(),
        [(1, Seen::Response { status: 101, head: "|upgrade=websocket".into(), end: false })]
    );
    assert_eq!(pair.dialer.mux.send_data(id, b"ping", false), Ok(4));
    assert_eq!(pair.acceptor.mux.send_data(server, b"pong", false), Ok(4));
    pair.acceptor.mux.send_end(server).expect("half close");
    pair.run();
    assert_eq!(pair.dialer.take_seen(), [(1, Seen::Data(b"pong".to_vec(), false)), (1, Seen::End)]);
    assert_eq!(pair.dialer.mux.send_data(id, b"more", true), Ok(4));
    pair.run();
    assert_eq!(pair.acceptor.take_seen().last(), Some(&(1, Seen::Data(b"more".to_vec(), true))));
    assert_eq!((pair.dialer.mux.streams_open(), pair.acceptor.mux.streams_open()), (0, 0));
}

#[test]
fn an_opaque_stream_carries_only_its_authority() {
    let mut pair = Pair::new();
    let (buf, index) = request("X", "db:5432", "/x", &[("a", "b")]);
    let meta = Meta { kind: Kind::Tcp, ..Meta::default() };
    pair.dialer.mux.open(&meta, &index.view(&buf), &Edits::default(), false).expect("opens");
    pair.run();
    let head = " db:5432 ".into();
    assert_eq!(pair.acceptor.take_seen(), [(1, Seen::Request { head, body: Body::Unknown, end: false })]);
}

#[test]
fn a_reset_says_what_the_application_saw() {
    let mut pair = Pair::new();
    pair.get("/1", true);
    let second = pair.get("/2", false);
    pair.run();
    let server = pair.acceptor.id(1);
    pair.acceptor.mux.reset(server, Code::AppConnectFailed, AppSaw::Nothing);
    pair.dialer.mux.reset(second, Code::Cancel, AppSaw::Maybe);
    pair.run();
    assert_eq!(pair.dialer.take_seen(), [(1, Seen::Reset(Code::AppConnectFailed, AppSaw::Nothing))]);
    assert_eq!(pair.acceptor.take_seen().last(), Some(&(3, Seen::Reset(Code::Cancel, AppSaw::Maybe))));
    assert_eq!(pair.acceptor.mux.send_end(server), Err(SendError::Gone));
}

#[test]
fn a_drain_serves_what_races_with_it_and_refuses_nothing() {
    let mut pair = Pair::new();
    pair.get("/1", true);
    pair.run();
    pair.acceptor.mux.drain(pair.now);
    // Opened before the announcement arrives.
    pair.get("/2", true);
    pair.run();
    assert_eq!(pair.dialer.take_seen(), [(0, Seen::Draining)]);
    let (buf, index) = request("GET", "a", "/", &[]);
    let refused = pair.dialer.mux.open(&Meta::default(), &index.view(&buf), &Edits::default(), true);
    assert_eq!(refused, Err(OpenError::Draining));
    assert!(!pair.acceptor.mux.is_finished());
    pair.answer(1, 200, true);
    pair.answer(3, 200, true);
    pair.run();
    assert_eq!(pair.dialer.take_seen().len(), 2);
    assert!(pair.acceptor.mux.is_finished() && pair.dialer.mux.is_finished());
}

#[test]
fn a_dead_connection_tells_unsent_requests_from_sent_ones() {
    let mut pair = Pair::new();
    let sent = pair.get("/1", true);
    pair.run();
    let half = pair.get("/2", true);
    let bytes = pair.dialer.mux.output().len();
    pair.dialer.mux.output_sent(bytes - 1);
    let unsent = pair.get("/3", true);
    let mut lost = Vec::new();
    while let Some(each) = pair.dialer.mux.next_lost() {
        lost.push(each);
    }
    lost.sort_by_key(|(stream, _)| *stream);
    assert_eq!(lost, [(sent, AppSaw::Maybe), (half, AppSaw::Nothing), (unsent, AppSaw::Nothing)]);
}

#[test]
fn a_head_that_has_just_left_may_have_been_seen() {
    for (kept_back, expected) in [(0, AppSaw::Maybe), (1, AppSaw::Nothing)] {
        let mut pair = Pair::new();
        let id = pair.get("/1", true);
        let bytes = pair.dialer.mux.output().len();
        pair.dialer.mux.output_sent(bytes - kept_back);
        assert_eq!(pair.dialer.mux.next_lost(), Some((id, expected)));
    }
}

#[test]
fn the_peers_stream_limit_holds() {
    let mut pair = Pair::with(Limits::default(), Limits { streams_max: 130, ..Limits::default() });
    pair.run();
    let (buf, index) = request("GET", "a", "/", &[]);
    let mut open = || pair.dialer.mux.open(&Meta::default(), &index.view(&buf), &Edits::default(), true);
    for _ in 0..130 {
        open().expect("below the limit");
    }
    assert_eq!(open(), Err(OpenError::Streams));
}

#[test]
fn bulk_leaves_room_for_requests() {
    let mut pair = Pair::new();
    pair.run();
    let bulk = pair.get("/bulk", false);
    let sent = pair.dialer.mux.send_data(bulk, &vec![0; 1 << 20], false).expect("takes some");
    assert!(sent < 1 << 20);
    // Nothing has left yet, and requests still fit.
    for _ in 0..100 {
        pair.get("/small", true);
    }
    assert!(pair.dialer.mux.output().len() < pair.dialer.mux.limits().output_bytes_max as usize);
}

#[test]
fn trailers_wait_for_room_and_not_for_credit() {
    let small = Limits { stream_window: 16 << 10, ..Limits::default() };
    let mut pair = Pair::with(Limits { output_bytes_max: 8 << 10, ..Limits::default() }, small);
    pair.acceptor.auto_release = false;
    let id = pair.get("/", false);
    pair.run();
    let mut rest = 16 << 10;
    while rest > 0 {
        rest -= pair.dialer.mux.send_data(id, &vec![0; rest], false).expect("takes some");
        if rest > 0 {
            pair.run();
            assert_eq!(pair.dialer.mux.next_writable(), Some(id));
        }
    }
    // No credit is left, and small requests fill the output.
    assert_eq!(pair.dialer.mux.writable(id), 0);
    while pair.dialer.mux.can_open() {
        pair.get("/", true);
    }
    assert_eq!(pair.dialer.mux.send_trailers(id, &Fields::default()), Err(SendError::Full));
    assert_eq!(pair.dialer.mux.next_writable(), None);
    pair.run();
    assert_eq!(pair.dialer.mux.next_writable(), Some(id));
    assert_eq!(pair.dialer.mux.send_trailers(id, &Fields::default()), Ok(()));
    pair.run();
    assert!(pair.acceptor.take_seen().contains(&(1, Seen::Trailers("".into()))));
}
