//! Connections of which nobody has said what they speak: whoever leaves in the middle of the first word, and an application that
//! leaves in the middle of its greeting. What is not HTTP goes through as it is.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::until;
use crate::way::{Application, Way};
use crate::{Leave, SOON};

/// Connections that nobody has to look at, that end in the middle of a word of HTTP, HTTP/2 or TLS, or that only look like it.
const FIRST: [&[u8]; 9] = [
    b"",
    b"\0",
    b"GE",
    b"PRI * HTTP/2.0\r\n\r\nSM",
    b"\x16\x03\x01",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-test\r\n",
    b"EHLO me\r\n",
    &[0xa5; 100_000],
];

/// Sends back what comes, until no more does; counts who is there.
fn echo(there: &Arc<AtomicUsize>) -> Application {
    let there = there.clone();
    Arc::new(move |mut stream| {
        there.fetch_add(1, Ordering::SeqCst);
        let mut buffer = [0; 16_384];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        drop(stream);
        there.fetch_sub(1, Ordering::SeqCst);
    })
}

/// What comes until the end; none when it was a reset.
fn rest(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    match stream.read_to_end(&mut read) {
        Ok(_) => Some(read),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error} after {} bytes: {:?}", read.len(), read.get(..20)),
    }
}

#[test]
fn whoever_leaves_in_the_first_word_is_seen_to_leave() {
    let there = Arc::new(AtomicUsize::new(0));
    let way = Way::unknown(&echo(&there));
    // The pair has its connection, and keeps it.
    let mut stream = way.connect();
    stream.write_all(b"\0first").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream).unwrap(), b"\0first");
    drop(stream);
    let before = way.descriptors();
    for bytes in FIRST {
        for leave in Leave::ALL {
            let mut stream = way.connect();
            stream.write_all(bytes).unwrap();
            if let Some(mut half) = leave.from(stream) {
                // What is no whole word of HTTP is not HTTP: it is the application's.
                let echoed = rest(&mut half).unwrap_or_else(|| panic!("{:?} is reset", bytes.get(..8)));
                assert!(echoed == bytes, "{} of {} bytes", echoed.len(), bytes.len());
            }
        }
    }
    until("the application is alone again", SOON, || there.load(Ordering::SeqCst) == 0);
    way.holds_no_more_than(&before, 4);
}

#[test]
fn an_application_that_leaves_in_its_greeting_is_seen_to_leave() {
    // One that resets a connection before a word was said may as well not be there: its client is told after a while, because
    // a client of HTTP, which says something, could be told more.
    const GREETINGS: [(Leave, &[u8]); 8] = [
        (Leave::Half, b""),
        (Leave::Half, b"2"),
        (Leave::Half, b"220 mail.test ESMTP\r\n"),
        (Leave::Close, b""),
        (Leave::Close, b"2"),
        (Leave::Close, b"220 mail.test ESMTP\r\n"),
        (Leave::Reset, b"2"),
        (Leave::Reset, b"220 mail.test ESMTP\r\n"),
    ];
    let next = AtomicUsize::new(0);
    let application: Application = Arc::new(move |mut stream| {
        let (leave, greeting) = GREETINGS[next.fetch_add(1, Ordering::SeqCst) % GREETINGS.len()];
        stream.write_all(greeting).ok();
        if let Some(mut half) = leave.from(stream) {
            half.read_to_end(&mut Vec::new()).ok();
        }
    });
    let way = Way::unknown(&application);
    for (leave, greeting) in GREETINGS {
        let mut stream = way.connect();
        // A client that waits for the other to speak first.
        let (mut read, what) = (Vec::new(), format!("{leave:?} after {} bytes", greeting.len()));
        match stream.read_to_end(&mut read) {
            Ok(_) => assert!(read == greeting, "{what}: {read:?}"),
            // A reset is passed on as one, and may overtake.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                assert!(matches!(leave, Leave::Reset), "{what}: a reset where there was none");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn silence_on_both_sides_costs_little() {
    const SILENT: usize = 500;
    /// Both halves of a connection through both sidecars.
    const BYTES_EACH_MAX: u64 = 64 * 1024;
    let there = Arc::new(AtomicUsize::new(0));
    let way = Way::unknown(&echo(&there));
    let mut stream = way.connect();
    stream.write_all(b"\0first").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    rest(&mut stream).unwrap();
    drop(stream);
    let (before, memory) = (way.descriptors(), way.resident_kib(0));
    let mut silent: Vec<TcpStream> = (0..SILENT).map(|_| way.connect()).collect();
    until("the crowd is there", SOON, || way.descriptors()[0] >= before[0] + SILENT);
    // The last of them speaks after all.
    let last = silent.last_mut().unwrap();
    last.write_all(b"\0here").unwrap();
    let mut answer = [0; 5];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0here");
    let grown = way.resident_kib(0).saturating_sub(memory) * 1024 / SILENT as u64;
    println!("{grown} bytes for each of {SILENT} silent connections");
    assert!(grown < BYTES_EACH_MAX, "{grown} bytes for each connection");
    drop(silent);
    until("the application is alone again", SOON, || there.load(Ordering::SeqCst) == 0);
    way.holds_no_more_than(&before, 4);
}
