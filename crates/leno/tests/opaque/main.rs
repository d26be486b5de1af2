//! Connections that nobody looks into, through a pair of sidecars: who speaks first decides, ends and breaks are passed on as
//! what they are, and nobody waits for a time-out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use common::{Running, free_port, leno};
use server::{Act, Seen, Server};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// A pair of sidecars: the client's ends of it.
struct Pair {
    /// The local port of the service.
    service: SocketAddr,
    /// The forward proxy.
    forward: SocketAddr,
    /// The caller's admin address.
    admin: SocketAddr,
    server: Server,
    proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// `declared` stands in the file under the service.
    fn new(declared: &str, act: Act) -> Self {
        let server = Server::start(act);
        let folder = tempfile::tempdir().unwrap();
        let [out, mesh, own, app, forward, admin] = std::array::from_fn(|_| free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", proxy: {forward}, admin: {admin}, outbound: {{server: {out}}}}}\n\
             \x20 server:\n    health: none\n{declared}    instances:\n\
             \x20     - {{name: server, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
            server.address
        );
        std::fs::write(&file, text).unwrap();
        let identity = folder.path().join("identity");
        let proxies = ["server", "client"].map(|role| proxy(&file, role, &identity));
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            service: at(out),
            forward: at(forward),
            admin: at(admin),
            server,
            proxies: proxies.into(),
            _folder: folder,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.service).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

fn proxy(file: &Path, role: &str, identity: &Path) -> Running {
    let mut command = leno();
    command.args(["proxy", "--workers", "1", "--role", role, "--file"]).arg(file);
    command.arg("--identity").arg(identity);
    let running = Running::start(command.stderr(std::process::Stdio::inherit()));
    running.event("ready", SOON);
    running
}

fn read_exactly(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).unwrap();
    read
}

/// Everything until the end; a reset is an error.
fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).map_err(|error| error.kind())?;
    Ok(read)
}

const DECLARATIONS: [&str; 2] = ["", "    protocol: tcp\n"];

#[test]
fn a_server_that_speaks_first_is_heard_by_a_client_that_waits_for_it() {
    for declared in DECLARATIONS {
        let pair = Pair::new(declared, Act::Greet(b"220 ready\r\n"));
        for round in 0..3 {
            let mut client = pair.connect();
            // Nothing was sent: only the server can have decided.
            assert_eq!(read_exactly(&mut client, 11), b"220 ready\r\n", "{declared} {round}");
            client.write_all(b"QUIT\r\n").unwrap();
            assert_eq!(read_exactly(&mut client, 6), b"QUIT\r\n");
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut client), Ok(Vec::new()));
        }
        // Whoever was greeted was the one connection each: none was made to try.
        assert_eq!(pair.server.connections(), 3, "{declared}");
    }
}

#[test]
fn a_client_that_speaks_first_is_understood_whatever_it_speaks() {
    let first_words: [&[u8]; 5] = [
        b"*1\r\n$4\r\nPING\r\n",
        b"get key\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x16\x03\x01\x00\x02hi",
        b"x",
    ];
    for declared in DECLARATIONS {
        for words in first_words {
            let pair = Pair::new(declared, Act::Echo);
            let mut client = pair.connect();
            // In two pieces, so that the first one alone may mean anything.
            let (one, rest) = words.split_at(1);
            client.write_all(one).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            client.write_all(rest).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut client).as_deref(), Ok(words), "{declared} {words:?}");
        }
    }
}

#[test]
fn half_of_a_word_of_http_reaches_a_server_that_speaks_meanwhile() {
    let pair = Pair::new("", Act::Greet(b"hello "));
    let mut client = pair.connect();
    client.write_all(b"REPORT is what I say").unwrap();
    assert_eq!(read_exactly(&mut client, 26), b"hello REPORT is what I say");
}

#[test]
fn http_is_http_where_nothing_is_declared() {
    let pair = Pair::new("", Act::Http);
    for round in 0..4 {
        let mut client = pair.connect();
        if round % 2 == 1 {
            // A client that takes its time: the server is asked meanwhile, and left alone when HTTP comes.
            std::thread::sleep(Duration::from_millis(50));
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
        let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{round}: {answer}");
    }
    // What was found out is remembered: four requests, one of which may have had a look first.
    let seen = pair.server.connections();
    assert!(seen <= 5, "{seen} connections");
    assert!(pair.metrics().contains("status=\"200\""), "{}", pair.metrics());
}

#[test]
fn bytes_never_pass_where_requests_are_looked_at() {
    for declared in ["    protocol: http\n", "    routes:\n      - {path: /a, to: {service: server}}\n"] {
        let pair = Pair::new(declared, Act::Echo);
        let mut client = pair.connect();
        client.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{declared}: {answer}");
        assert_eq!(pair.server.connections(), 0, "{declared}");
        let told =
            "leno_protocol_mismatches_total{service=\"server\",declared=\"http\",observed=\"tcp\"} 1\n";
        assert!(pair.metrics().contains(told), "{}", pair.metrics());
    }
}

#[test]
fn http_where_bytes_are_declared_passes_and_is_reported() {
    let pair = Pair::new("    protocol: tcp\n", Act::Http);
    let mut client = pair.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client).unwrap().ends_with(b"ok"));
    let told = "leno_protocol_mismatches_total{service=\"server\",declared=\"tcp\",observed=\"http\"} 1\n";
    assert!(pair.metrics().contains(told), "{}", pair.metrics());
}

#[test]
fn each_direction_ends_by_itself() {
    for declared in DECLARATIONS {
        let pair = Pair::new(declared, Act::AnswerAtEnd);
        let mut client = pair.connect();
        let request: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        client.write_all(&request).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = read_all(&mut client).unwrap();
        assert_eq!(answer.len(), request.len(), "{declared}");
        assert!(answer == request, "{declared}: some bytes were changed");
    }
}

#[test]
fn a_reset_is_a_reset_at_the_other_end() {
    for declared in DECLARATIONS {
        let pair = Pair::new(declared, Act::ResetAfter(5));
        let mut client = pair.connect();
        client.write_all(b"hello").unwrap();
        assert_eq!(read_all(&mut client), Err(ErrorKind::ConnectionReset), "{declared}: of the server");

        let pair = Pair::new(declared, Act::Echo);
        let mut client = pair.connect();
        client.write_all(b"hello").unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"hello");
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(pair.server.ended(SOON), Seen::Reset, "{declared}: of the client");
    }
}

#[test]
fn nobody_there_is_told_by_a_reset_and_http_by_an_answer() {
    for declared in DECLARATIONS {
        let pair = Pair::new(declared, Act::Gone);
        let mut client = pair.connect();
        client.write_all(b"\x00hello").unwrap();
        assert_eq!(read_all(&mut client), Err(ErrorKind::ConnectionReset), "{declared}");
    }
    let pair = Pair::new("", Act::Gone);
    let mut client = pair.connect();
    std::thread::sleep(Duration::from_millis(100));
    client.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("leno-reason: connect_failed"), "{answer}");
}

#[test]
fn a_proxy_that_stops_does_not_wait_for_clients_that_say_nothing() {
    let mut pair = Pair::new("", Act::Echo);
    let mut silent = pair.connect();
    // The server has been asked what it says: nobody knows yet what is spoken here.
    until("the look at the server", || pair.server.connections() == 1);
    // The time for requests under way is 10 s.
    silent.set_read_timeout(Some(SOON / 2)).unwrap();
    pair.proxies[1].signal(Signal::TERM);
    assert_eq!(read_all(&mut silent), Ok(Vec::new()));
    assert_eq!(pair.proxies[1].wait(SOON / 2).code(), Some(0));
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tunnel_through_the_forward_proxy_is_a_connection() {
    let pair = Pair::new("", Act::Greet(b"hello\n"));
    let mut client = TcpStream::connect(pair.forward).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"CONNECT server:25 HTTP/1.1\r\nHost: server:25\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello\n") {
        answer.extend(read_exactly(&mut client, 1));
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    client.write_all(b"over").unwrap();
    assert_eq!(read_exactly(&mut client, 4), b"over");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), Ok(Vec::new()));
}

#[test]
fn a_tunnel_to_a_service_whose_requests_are_looked_at_is_refused() {
    let pair = Pair::new("    protocol: http\n", Act::Echo);
    let mut client = TcpStream::connect(pair.forward).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"CONNECT server:80 HTTP/1.1\r\nHost: server:80\r\nConnection: close\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert_eq!(pair.server.connections(), 0);
}

#[test]
fn much_moves_both_ways_at_once_beside_a_connection_that_is_not_read() {
    let pair = Pair::new("    protocol: tcp\n", Act::Echo);
    // This one sends and never reads: it may hold a window, and nothing of the others.
    let mut stuck = pair.connect();
    stuck.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let block = vec![7_u8; 64 << 10];
    let mut stuffed = 0;
    while let Ok(written) = stuck.write(&block) {
        stuffed += written;
        assert!(stuffed < 64 << 20, "nothing holds this one back");
    }
    let clients: Vec<_> = (0..4_u8)
        .map(|number| {
            let mut writer = pair.connect();
            let mut reader = writer.try_clone().unwrap();
            std::thread::spawn(move || {
                let sent: Vec<u8> = (0..12_000_000_u32).map(|at| (at % 253) as u8 ^ number).collect();
                let expected = sent.clone();
                let sender = std::thread::spawn(move || {
                    writer.write_all(&sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let received = read_all(&mut reader).unwrap();
                sender.join().unwrap();
                assert!(received == expected, "{number}: {} bytes", received.len());
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
