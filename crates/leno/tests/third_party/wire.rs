//! A tap between two sidecars: what it sees is TLS 1.3 and nothing of a request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::mesh::{Mesh, exchange};

/// Bytes seen, from the caller and from the callee; one entry per connection.
type Seen = Arc<Mutex<Vec<[Vec<u8>; 2]>>>;

#[test]
fn a_capture_shows_tls_13_and_no_readable_byte() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in upstream.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut piece = [0; 4_096];
                // One request per connection; its body ends it.
                while !request.ends_with(REQUEST_MARK.as_bytes()) {
                    match stream.read(&mut piece) {
                        Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
                        _ => return,
                    }
                }
                let length = ANSWER_MARK.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{HEAD_MARK}: 1\r\nconnection: close\r\n\r\n{ANSWER_MARK}"
                );
            });
        }
    });
    let seen = Seen::default();
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::with_wire(address, |real| {
        let here = tap.local_addr().unwrap();
        let seen = Arc::clone(&seen);
        std::thread::spawn(move || relay(&tap, real, &seen));
        here
    });

    let entry = mesh.caller.address("/outbound/app");
    let request = format!(
        "POST /{HEAD_MARK} HTTP/1.1\r\nHost: app\r\n{HEAD_MARK}: {HEAD_MARK}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{REQUEST_MARK}",
        REQUEST_MARK.len()
    );
    for _ in 0..3 {
        let answer = exchange(entry, request.as_bytes());
        assert!(answer.contains(ANSWER_MARK), "{answer}");
    }

    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty(), "nothing went through the tap");
    for [from_caller, from_callee] in seen.iter() {
        assert!(!from_caller.is_empty() && !from_callee.is_empty(), "a connection in one direction only");
        for (bytes, hello) in [(from_caller, CLIENT_HELLO), (from_callee, SERVER_HELLO)] {
            only_tls(bytes, hello);
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            for word in [HEAD_MARK, REQUEST_MARK, ANSWER_MARK, "http/1.1", "content-length", "spiffe"] {
                assert!(!text.contains(word), "`{word}` is readable on the wire");
            }
        }
        assert_eq!(version(from_callee), Some(TLS_1_3), "the server chose another version");
    }
}

/// Accepts, connects on, and remembers what passes.
fn relay(tap: &TcpListener, real: SocketAddr, seen: &Seen) {
    for caller in tap.incoming().map_while(Result::ok) {
        let Ok(callee) = TcpStream::connect(real) else { continue };
        let mut all = seen.lock().unwrap();
        let number = all.len();
        all.push([Vec::new(), Vec::new()]);
        drop(all);
        for (direction, from, to) in [(0, &caller, &callee), (1, &callee, &caller)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let seen = Arc::clone(seen);
            std::thread::spawn(move || {
                let mut piece = [0; 16_384];
                while let Ok(length) = from.read(&mut piece) {
                    seen.lock().unwrap()[number][direction].extend_from_slice(&piece[..length]);
                    if length == 0 || to.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}

/// Every byte belongs to a TLS record: first one handshake message in the clear, from then on only encrypted ones.
fn only_tls(bytes: &[u8], hello: u8) {
    let mut at = 0;
    let mut number = 0;
    while at < bytes.len() {
        let Some([kind, major, _minor, high, low]) =
            bytes.get(at..at + 5).and_then(|head| <[u8; 5]>::try_from(head).ok())
        else {
            panic!("the last record has no whole header");
        };
        assert_eq!(major, 3, "record {number} is not TLS");
        match kind {
            HANDSHAKE => {
                assert_eq!(number, 0, "record {number} is a handshake in the clear");
                assert_eq!(bytes[at + 5], hello, "another message than the hello");
            }
            // For middle boxes; one byte that says nothing.
            CHANGE_CIPHER_SPEC => assert_eq!((high, low), (0, 1)),
            APPLICATION_DATA => {}
            other => panic!("record {number} has type {other}"),
        }
        at += 5 + usize::from(u16::from_be_bytes([high, low]));
        number += 1;
    }
    assert!(number > 2, "a handshake has more than {number} records");
}

/// What the server chose, from the extension `supported_versions` of its hello (RFC 8446 §4.2.1).
fn version(from_callee: &[u8]) -> Option<u16> {
    // Record header, message header, legacy version, random.
    let mut at = 5 + 4 + 2 + 32;
    let session = usize::from(*from_callee.get(at)?);
    // Session id, cipher suite, compression, length of the extensions.
    at += 1 + session + 2 + 1 + 2;
    loop {
        let field = |at: usize| Some(u16::from_be_bytes([*from_callee.get(at)?, *from_callee.get(at + 1)?]));
        let (kind, length) = (field(at)?, usize::from(field(at + 2)?));
        if kind == SUPPORTED_VERSIONS {
            return field(at + 4);
        }
        at += 4 + length;
    }
}

const HEAD_MARK: &str = "x-head-in-the-clear";
const REQUEST_MARK: &str = "the-request-body-in-the-clear";
const ANSWER_MARK: &str = "the-answer-in-the-clear";
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_3: u16 = 0x0304;
