//! Clients that leave at every stage of an exchange.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::way::{Application, LONG_BYTES, Way, path, plain, read_head};
use crate::{Leave, SOON};

/// What a client has sent when it leaves.
const STAGES: [(&str, &[u8]); 13] = [
    ("nothing", b""),
    ("half a request line", b"GET /pl"),
    ("a request line", b"GET / HTTP/1.1\r\n"),
    ("half a field", b"GET / HTTP/1.1\r\nHost: ser"),
    ("all but the last line end", b"GET / HTTP/1.1\r\nHost: server\r\n\r"),
    ("a head and no body", b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 10\r\n\r\n"),
    ("half a body", b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 10\r\n\r\nhello"),
    ("half a chunk's size", b"POST / HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n1"),
    ("half a chunk", b"POST / HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello"),
    ("no last chunk", b"POST / HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ("half a trailer", b"POST / HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-a: "),
    ("a request that is not answered", b"GET /wait HTTP/1.1\r\nHost: server\r\n\r\n"),
    ("two requests", b"GET / HTTP/1.1\r\nHost: server\r\n\r\nGET /wait HTTP/1.1\r\nHost: server\r\n\r\n"),
];

/// Connections to the application that a proxy keeps for the next request.
const KEPT: usize = 4;

fn each(test: impl Fn(&Way)) {
    let application = plain();
    test(&Way::single(&application));
    test(&Way::pair(&application));
}

#[test]
fn a_client_that_leaves_at_any_stage_leaves_nothing() {
    each(|way| {
        way.serves();
        let before = way.descriptors();
        let mut halves = Vec::new();
        for (stage, bytes) in STAGES {
            for leave in Leave::ALL {
                let mut stream = way.connect();
                stream.write_all(bytes).unwrap_or_else(|error| panic!("{} {stage}: {error}", way.name));
                halves.extend(leave.from(stream).map(|half| (stage, half)));
            }
        }
        // Whoever has said all and waits gets an answer, or an end; nobody waits for ever.
        for (stage, mut half) in halves {
            if stage.starts_with("a request that is not") || stage == "two requests" {
                // A half-closed client may still want its answer.
                continue;
            }
            let mut answer = Vec::new();
            if let Err(error) = half.read_to_end(&mut answer) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{} {stage}: {error}", way.name);
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{} {stage}: {answer}", way.name);
        }
        way.holds_no_more_than(&before, KEPT);
        way.serves();
    });
}

#[test]
fn a_client_that_leaves_within_its_answer_leaves_nothing() {
    each(|way| {
        way.serves();
        let before = way.descriptors();
        for leave in Leave::ALL {
            for read in [0, 1, 100, 100_000] {
                let mut stream = way.connect();
                stream.write_all(b"GET /long HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
                stream.read_exact(&mut vec![0; read]).unwrap();
                // The half that stays open is not read: it is dropped here.
                drop(leave.from(stream));
            }
        }
        way.holds_no_more_than(&before, KEPT);
        way.serves();
    });
}

#[test]
fn a_client_that_has_said_all_and_leaves_half_is_not_waited_for() {
    // FIN behind a request is taken for a client that has gone, as nginx and Envoy take it. What it must not be is a part of an
    // answer that looks whole, or a connection that nobody ends.
    each(|way| {
        way.serves();
        let before = way.descriptors();
        let mut stream = way.connect();
        stream.write_all(b"GET /long HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
        let mut stream = Leave::Half.from(stream).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => assert!(
                answer.is_empty() || answer.len() > LONG_BYTES,
                "{}: {} bytes",
                way.name,
                answer.len()
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{}: {error}", way.name),
        }
        way.holds_no_more_than(&before, KEPT);
    });
}

#[test]
fn a_client_that_is_reset_while_its_body_is_not_read_leaves_nothing() {
    // An application that reads the head and no more, and a body that fills everything on the way.
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let application: Application = Arc::new(move |mut stream| {
        if read_head(&mut stream).is_some_and(|head| path(&head) == "/unread") {
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").ok();
        }
    });
    for way in [Way::single(&application), Way::pair(&application)] {
        way.serves();
        let before = way.descriptors();
        for _ in 0..3 {
            let mut stream = way.connect();
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let head = b"POST /unread HTTP/1.1\r\nHost: server\r\nContent-Length: 1000000000\r\n\r\n";
            stream.write_all(head).unwrap();
            // Until nothing takes any more.
            while stream.write_all(&[b'x'; 100_000]).is_ok() {}
            drop(Leave::Reset.from(stream));
        }
        way.holds_no_more_than(&before, 1);
        way.serves();
    }
    over.store(true, Ordering::Relaxed);
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    each(|way| {
        let mut stream = way.connect();
        for byte in b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" {
            stream.write_all(&[*byte]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", way.name);
    });
}

#[test]
fn bytes_of_no_protocol_are_answered_or_ended() {
    each(|way| {
        way.serves();
        let before = way.descriptors();
        // Always the same ones.
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..2_000)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let mut stream = way.connect();
            stream.write_all(&bytes).ok();
            let Some(mut stream) = Leave::Half.from(stream) else { continue };
            let started = std::time::Instant::now();
            stream.read_to_end(&mut Vec::new()).ok();
            assert!(started.elapsed() < SOON, "{}: noise is waited on", way.name);
        }
        way.holds_no_more_than(&before, KEPT);
        way.serves();
    });
}
