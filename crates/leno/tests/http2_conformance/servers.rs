//! The other role: applications that speak HTTP/2 and break its rules. Each is asked for one answer through a gateway; its client
//! must never get a part for the whole, or something that no rule allows.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::deviations;
use crate::frame::{
    ACK, END_HEADERS, END_STREAM, FRAME_BYTES, NONE, PADDED, WHOLE, code, continuation, data, frame, goaway,
    headers, kind, ping, priority, push_promise, reset, setting, settings, window_update,
};
use crate::hpack::{block, entered, integer, literal};
use crate::peer::{Event, Peer};
use crate::target::Target;

/// Far above what an answer takes, and above the time that a proxy waits for an application.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Cases at a time.
const AT_ONCE: usize = 8;

/// What the client has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// 200 and all of the body, which is "hello".
    Whole,
    /// 502: there was no answer that can be passed on.
    Bad,
    /// The head may have been passed on before it went wrong: 502, or an answer that is seen to be cut.
    Cut,
}

use Told::{Bad, Cut, Whole};

/// An application's way to answer the request on a stream.
struct Answer {
    section: &'static str,
    title: &'static str,
    told: Told,
    bytes: fn(u32) -> Vec<u8>,
}

const fn answer(section: &'static str, title: &'static str, told: Told, bytes: fn(u32) -> Vec<u8>) -> Answer {
    Answer { section, title, told, bytes }
}

const OK: (&str, &str) = (":status", "200");

/// A head with status 200.
fn ok(stream: u32) -> Vec<u8> {
    headers(stream, END_HEADERS, &block(&[OK]))
}

/// A whole answer.
fn hello(stream: u32) -> Vec<u8> {
    [ok(stream), data(stream, END_STREAM, b"hello")].concat()
}

/// A head of these fields and a body.
fn with(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    [headers(stream, END_HEADERS, &block(fields)), data(stream, END_STREAM, b"hello")].concat()
}

/// A head with one more field of any bytes, and a body.
fn and(stream: u32, name: &str, value: &[u8]) -> Vec<u8> {
    let block = [block(&[OK]), literal(name, value)].concat();
    [headers(stream, END_HEADERS, &block), data(stream, END_STREAM, b"hello")].concat()
}

fn good() -> Vec<Answer> {
    vec![
        answer("8.1", "an answer", Whole, hello),
        answer("8.1", "an answer with a length", Whole, |s| with(s, &[OK, ("content-length", "5")])),
        answer("8.1", "an answer after interim ones", Whole, |s| {
            let interim = headers(s, END_HEADERS, &block(&[(":status", "103"), ("link", "</a>")]));
            [interim.clone(), interim, hello(s)].concat()
        }),
        answer("8.1", "an answer with trailers", Whole, |s| {
            [ok(s), data(s, NONE, b"hello"), headers(s, WHOLE, &block(&[("x-sum", "1")]))].concat()
        }),
        answer("6.1", "an answer with padding", Whole, |s| {
            let head = headers(s, END_HEADERS | PADDED, &[&[3][..], &block(&[OK]), &[0; 3]].concat());
            [head, data(s, END_STREAM | PADDED, b"\x02hello\0\0")].concat()
        }),
        answer("6.10", "an answer whose head has three frames", Whole, |s| {
            let block = block(&[OK, ("x-a", "b")]);
            let first = [headers(s, NONE, &block[..2]), continuation(s, NONE, &block[2..9])];
            [first.concat(), continuation(s, END_HEADERS, &block[9..]), data(s, END_STREAM, b"hello")]
                .concat()
        }),
        answer("5.5", "an answer among unknown frames", Whole, |s| {
            let unknown = frame(kind::UNKNOWN, 0xff, 0, b"what?");
            [ok(s), unknown, frame(kind::UNKNOWN, NONE, s, &[]), data(s, END_STREAM, b"hello")].concat()
        }),
        answer("6.5", "an answer among settings, pings and priorities", Whole, |s| {
            let between = [settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]), ping(NONE, &[1; 8])].concat();
            [ok(s), between, priority(s, 0, false, 1), data(s, END_STREAM, b"hello")].concat()
        }),
        answer("6.8", "an answer after GOAWAY that names it", Whole, |s| {
            [ok(s), goaway(s, code::NO_ERROR), data(s, END_STREAM, b"hello")].concat()
        }),
        answer("8.1", "an answer, and RST_STREAM that says that no more is wanted", Whole, |s| {
            [hello(s), reset(s, code::NO_ERROR)].concat()
        }),
        answer("7541 6.3", "an answer with a size update before its head", Whole, |s| {
            let block = [vec![0x20], block(&[OK])].concat();
            [headers(s, END_HEADERS, &block), data(s, END_STREAM, b"hello")].concat()
        }),
        answer("8.2.1", "bytes above 0x7f in a value", Whole, |s| and(s, "x-test", b"caf\xe9")),
    ]
}

fn malformed() -> Vec<Answer> {
    vec![
        answer("8.3.2", "no :status", Bad, |s| with(s, &[("x-test", "ok")])),
        answer("8.3.2", "two :status", Bad, |s| with(s, &[OK, OK])),
        answer("8.3.2", ":status of two digits", Bad, |s| with(s, &[(":status", "20")])),
        answer("8.3.2", ":status of four digits", Bad, |s| with(s, &[(":status", "2000")])),
        answer("8.3.2", ":status of letters", Bad, |s| with(s, &[(":status", "abc")])),
        answer("8.3.2", ":status of 000", Bad, |s| with(s, &[(":status", "000")])),
        answer("8.6", ":status of 101", Bad, |s| with(s, &[(":status", "101")])),
        answer("8.3", "a request's pseudo-field", Bad, |s| with(s, &[OK, (":path", "/")])),
        answer("8.3", "an unknown pseudo-field", Bad, |s| with(s, &[OK, (":test", "ok")])),
        answer("8.3", ":status after a regular field", Bad, |s| with(s, &[("x-test", "ok"), OK])),
        answer("8.2.1", "an uppercase name", Bad, |s| and(s, "X-Test", b"ok")),
        answer("8.2.1", "an empty name", Bad, |s| and(s, "", b"ok")),
        answer("8.2.1", "a line end in a value", Bad, |s| and(s, "x-test", b"ok\r\nset-cookie: a=b")),
        answer("8.2.1", "NUL in a value", Bad, |s| and(s, "x-test", b"o\0k")),
        answer("8.2.2", "connection", Bad, |s| and(s, "connection", b"close")),
        answer("8.2.2", "transfer-encoding", Bad, |s| and(s, "transfer-encoding", b"chunked")),
        answer("8.1.1", "a length that is no number", Bad, |s| and(s, "content-length", b"five")),
        answer("8.1.1", "two lengths that differ", Bad, |s| {
            with(s, &[OK, ("content-length", "5"), ("content-length", "6")])
        }),
        answer("8.1.1", "more than its length", Cut, |s| with(s, &[OK, ("content-length", "3")])),
        answer("8.1.1", "less than its length", Cut, |s| with(s, &[OK, ("content-length", "9")])),
        answer("8.1.1", "a length and no body", Cut, |s| {
            headers(s, WHOLE, &block(&[OK, ("content-length", "9")]))
        }),
        answer("8.1", "an interim answer that ends the stream", Bad, |s| {
            headers(s, WHOLE, &block(&[(":status", "103")]))
        }),
        answer("8.1", "HEADERS after a body without END_STREAM", Cut, |s| {
            let more = headers(s, END_HEADERS, &block(&[("x-test", "ok")]));
            [ok(s), data(s, NONE, b"hello"), more, data(s, END_STREAM, b"more")].concat()
        }),
        answer("8.1", "a pseudo-field in trailers", Cut, |s| {
            [ok(s), data(s, NONE, b"hello"), headers(s, WHOLE, &block(&[OK]))].concat()
        }),
        answer("8.1", "DATA before HEADERS", Bad, |s| data(s, END_STREAM, b"hello")),
        answer("8.2.2", "a connection's field in trailers", Cut, |s| {
            let trailers = headers(s, WHOLE, &block(&[("transfer-encoding", "chunked")]));
            [ok(s), data(s, NONE, b"hello"), trailers].concat()
        }),
    ]
}

fn broken() -> Vec<Answer> {
    vec![
        answer("6.4", "RST_STREAM and no answer", Bad, |s| reset(s, code::PROTOCOL)),
        answer("6.4", "RST_STREAM within an answer", Cut, |s| {
            [ok(s), data(s, NONE, b"hel"), reset(s, code::CANCEL)].concat()
        }),
        answer("6.4", "RST_STREAM with NO_ERROR within an answer", Cut, |s| {
            [ok(s), data(s, NONE, b"hel"), reset(s, code::NO_ERROR)].concat()
        }),
        answer("6.8", "GOAWAY with an error", Bad, |s| goaway(s, code::PROTOCOL)),
        answer("4.3", "a block that cannot be decoded", Bad, |s| headers(s, WHOLE, &[0x40])),
        answer("4.2", "a frame that is too large", Cut, |s| {
            [ok(s), data(s, END_STREAM, &vec![b'x'; (1 << 24) - 1])].concat()
        }),
        answer("5.1", "DATA on a stream that nobody began", Cut, |s| {
            [ok(s), data(s + 100, NONE, b"test")].concat()
        }),
        answer("5.1.1", "HEADERS on a stream that nobody began", Cut, |s| [ok(s), hello(s + 100)].concat()),
        answer("6.1", "DATA on stream 0", Cut, |s| [ok(s), data(0, NONE, b"test")].concat()),
        answer("6.1", "padding longer than its DATA", Cut, |s| {
            [ok(s), data(s, END_STREAM | PADDED, b"\x06test")].concat()
        }),
        answer("6.2", "PING within a block", Cut, |s| {
            [headers(s, NONE, &block(&[OK])), ping(NONE, &[0; 8])].concat()
        }),
        answer("6.5", "SETTINGS of three bytes", Cut, |s| {
            [ok(s), frame(kind::SETTINGS, NONE, 0, &[0; 3])].concat()
        }),
        answer("6.5.2", "MAX_FRAME_SIZE of 0", Cut, |s| {
            [ok(s), settings(&[(setting::MAX_FRAME_SIZE, 0)])].concat()
        }),
        answer("8.4", "PUSH_PROMISE, which was forbidden", Cut, |s| {
            [ok(s), push_promise(s, 2, &block(&[(":method", "GET")]))].concat()
        }),
        answer("6.7", "PING of seven bytes", Cut, |s| [ok(s), ping(NONE, &[0; 7])].concat()),
        answer("6.9", "WINDOW_UPDATE of 0", Cut, |s| [ok(s), window_update(0, 0)].concat()),
        answer("6.9.1", "a window above 2^31-1", Cut, |s| {
            [ok(s), window_update(0, i32::MAX as u32), window_update(0, i32::MAX as u32)].concat()
        }),
        answer("6.10", "CONTINUATION without HEADERS", Cut, |s| {
            [ok(s), continuation(s, END_HEADERS, &block(&[("x-test", "ok")]))].concat()
        }),
        answer("6.10", "CONTINUATION without end", Bad, |s| {
            let more = continuation(s, NONE, &literal("x-more", &[b'x'; 1000]));
            [headers(s, END_STREAM, &block(&[OK])), more.repeat(2_000)].concat()
        }),
        answer("10.5.1", "a small block that stands for a large one", Bad, |s| {
            let block =
                [block(&[OK]), entered("x", &[b'x'; 4_000]), integer(0x80, 7, 62).repeat(4_000)].concat();
            headers(s, WHOLE, &block)
        }),
        answer("10.5", "interim answers without end", Bad, |s| {
            headers(s, END_HEADERS, &block(&[(":status", "103"), ("link", "</a>")])).repeat(5_000)
        }),
        answer("10.5", "settings without end", Cut, |s| [ok(s), settings(&[]).repeat(50_000)].concat()),
        answer("10.5", "pings without end", Cut, |s| [ok(s), ping(NONE, &[0; 8]).repeat(50_000)].concat()),
        answer("10.5", "empty DATA without end", Cut, |s| {
            [ok(s), data(s, NONE, &[]).repeat(50_000)].concat()
        }),
        answer("6.9.1", "DATA beyond every window", Cut, |s| {
            // The client reads nothing of it: more than anybody gives.
            [ok(s), data(s, NONE, &[b'x'; FRAME_BYTES]).repeat(4_000)].concat()
        }),
    ]
}

/// Applications, each with its answer on every connection; the connection is left a moment later.
fn application(bytes: fn(u32) -> Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut peer = Peer::accepted(stream);
                peer.within(ANSWER_MAX);
                peer.send(&settings(&[]));
                if !peer.past_preface() {
                    return;
                }
                loop {
                    match peer.next() {
                        Event::Frame(frame) if frame.kind == kind::HEADERS => {
                            peer.send(&bytes(frame.stream));
                            // What is left unsaid now will never come.
                            peer.within(Duration::from_millis(500));
                        }
                        Event::Frame(frame) if frame.kind == kind::SETTINGS && !frame.has(ACK) => {
                            peer.send(&crate::frame::frame(kind::SETTINGS, ACK, 0, &[]));
                        }
                        Event::Frame(_) => {}
                        Event::Closed | Event::Silence => return,
                    }
                }
            });
        }
    });
    address
}

/// Whether what a client of HTTP/1 got is what it has to be told.
fn judge(told: Told, got: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(got);
    let short: String = text.chars().take(200).collect();
    // Interim answers stand before the last one.
    let last = text.rfind("HTTP/1.1 ").map_or("", |at| &text[at..]);
    let chunked = last.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let whole = match chunked {
        true => last.contains("5\r\nhello\r\n0\r\n"),
        false => last.ends_with("\r\n\r\nhello"),
    };
    let ends = chunked && (last.ends_with("0\r\n\r\n") || last.contains("\r\n0\r\n"));
    let bad = last.starts_with("HTTP/1.1 502 ");
    let right = match told {
        Whole => last.starts_with("HTTP/1.1 200 ") && whole,
        Bad => bad,
        Cut => bad || last.is_empty() || last.starts_with("HTTP/1.1 200 ") && !ends,
    };
    if right { Ok(()) } else { Err(format!("expected {told:?}; got {short:?}")) }
}

#[test]
fn a_gateway_tells_clients_the_truth_about_servers() {
    let answers: Vec<Answer> = [good(), malformed(), broken()].into_iter().flatten().collect();
    let (mut routes, mut services) = (String::new(), String::new());
    for (at, answer) in answers.iter().enumerate() {
        let address = application(answer.bytes);
        writeln!(routes, "    - {{path: /{at}/, to: web-{at}}}").unwrap();
        writeln!(services, "  web-{at}:\n    protocol: http2\n    endpoints: [\"{address}\"]").unwrap();
    }
    let target = Target::gateway_to(&routes, &services);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (address, answers, failed) = (target.address, Arc::new(answers), Arc::new(failed));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(answer) = answers.get(at) else { return };
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
                    let request = format!("GET /{at}/ HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut got = Vec::new();
                    let hangs = stream.read_to_end(&mut got).is_err_and(|error| {
                        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                    });
                    let verdict = if hangs { Err("it hangs".to_owned()) } else { judge(answer.told, &got) };
                    if let Err(what) = verdict {
                        let name = format!("{} {}", answer.section, answer.title);
                        println!("deviation {name}: {what}");
                        failed.lock().unwrap().push((name, what));
                    }
                }
            });
        }
    });
    let failed = failed.lock().unwrap();
    println!("a gateway's servers: {} of {} cases", answers.len() - failed.len(), answers.len());
    assert!(target.lives(), "the gateway has not survived");
    deviations::are_explained("a gateway's servers", deviations::AS_A_CLIENT, &failed);
}
