//! Connections that were taken on their way out, as capture hands them over: where they go, and by which name.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use leno_core::snapshot::Snapshot;
use leno_core::spec::{EgressMode, EgressRule, EgressSpec, HostMatch, World};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::access_log::Log;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::outside::SystemRoots;
use crate::worker::{Seat, Spent, Worker};
use crate::{downstream, listen};

const SOON: Duration = Duration::from_secs(10);

/// A server outside: sends its banner, then tells of the first bytes of each connection and answers them.
fn server(banner: &'static [u8]) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(banner).unwrap();
            let mut first = vec![0; 4096];
            // A connection that is made and dropped again says nothing.
            let Ok(bytes @ 1..) = stream.read(&mut first) else { continue };
            first.truncate(bytes);
            let http = first.starts_with(b"GET ");
            tell.send(first).ok();
            let answer: &[u8] =
                if http { b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" } else { b"answer" };
            stream.write_all(answer).ok();
        }
    });
    (address, told)
}

fn rule(name: &str, host: &str, allow: bool) -> EgressRule {
    let hosts = vec![HostMatch::Exact(host.into())];
    EgressRule { name: name.into(), from: vec![], hosts, cidrs: vec![], ports: vec![], allow }
}

/// What a client gets that connected to `destination`, was taken, and says `words`.
fn taken(egress: EgressSpec, destination: SocketAddr, words: Vec<u8>) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&words).unwrap();
        let mut answer = vec![0; 4096];
        // A reset is no answer.
        let bytes = stream.read(&mut answer).unwrap_or(0);
        answer.truncate(bytes);
        answer
    });
    let (accepted, peer) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async move {
        let world = World { egress, ..World::default() };
        let (_world, snapshot) = watch::channel(Arc::new(Snapshot::build(&world, None)));
        let (_tls, tls) = watch::channel(None);
        let (demand, _demands) = mpsc::channel(1);
        let seat = Seat {
            clock: Clock::start(),
            snapshot,
            tls,
            terminations: watch::channel(Arc::default()).1,
            demand,
            log: Log::default(),
            dialer: crate::dial::Dialer::default(),
            app_port: None,
            own_name: "cart".into(),
            own_addresses: Arc::new([]),
            system_roots: SystemRoots::default(),
            door: std::sync::Arc::default(),
            spent: Spent::default(),
        };
        let worker = Worker::new(&seat, 0);
        let guard = listen::admit(&worker, "captured").unwrap();
        let stream = tokio::net::TcpStream::from_std(accepted).unwrap();
        downstream::serve(&worker, stream, peer, Caller::Captured { service: None, destination }, guard);
        let done = tokio::task::spawn_blocking(move || client.join().unwrap());
        tokio::time::timeout(SOON, done).await.unwrap().unwrap()
    })
}

fn http(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// The first message of a TLS client that wants `host`.
fn hello(host: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn open(rules: Vec<EgressRule>) -> EgressSpec {
    EgressSpec { mode: EgressMode::Allow, rules, via: None }
}

fn closed(rules: Vec<EgressRule>) -> EgressSpec {
    EgressSpec { mode: EgressMode::RegistryOnly, rules, via: None }
}

fn nobody_came(told: &Receiver<Vec<u8>>) -> bool {
    told.recv_timeout(Duration::from_millis(100)).is_err()
}

#[test]
fn what_no_rule_is_about_goes_where_it_was_going() {
    let (address, told) = server(b"");
    assert!(taken(open(vec![]), address, http("any.example")).ends_with(b"ok"));
    assert!(told.recv_timeout(SOON).unwrap().starts_with(b"GET / HTTP/1.1\r\n"));
    assert_eq!(taken(open(vec![]), address, hello("any.example")), b"answer");
    assert_eq!(told.recv_timeout(SOON).unwrap()[..2], [22, 3]);
    assert_eq!(taken(open(vec![]), address, b"\x00\x01what is this".to_vec()), b"answer");
    assert_eq!(told.recv_timeout(SOON).unwrap(), b"\x00\x01what is this");
}

#[test]
fn a_host_is_denied_by_the_name_that_is_said() {
    let (address, told) = server(b"");
    let rules = || open(vec![rule("no", "evil.example", false)]);
    let answer = taken(rules(), address, http("EVIL.example.:8080"));
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("the rule \"no\" denies it"), "{answer}");
    assert_eq!(taken(rules(), address, hello("evil.example")), b"");
    assert!(nobody_came(&told));
    assert_eq!(taken(rules(), address, hello("good.example")), b"answer");
    assert!(told.recv_timeout(SOON).is_ok());
}

#[test]
fn a_hello_that_cannot_be_read_is_refused() {
    let (address, told) = server(b"");
    let mut words = hello("good.example");
    // The length of the message is over what anybody sends.
    words[6] = 0xff;
    assert_eq!(taken(open(vec![rule("no", "evil.example", false)]), address, words), b"");
    assert!(nobody_came(&told));
}

#[test]
fn a_server_that_speaks_first_is_not_waited_for() {
    let (address, _told) = server(b"220 ready\r\n");
    assert_eq!(taken(open(vec![rule("no", "evil.example", false)]), address, vec![]), b"220 ready\r\n");
    // Nobody has said a name, and none is needed to refuse.
    assert_eq!(taken(closed(vec![]), address, b"EHLO me\r\n".to_vec()), b"");
}

/// The client dialed somewhere else: what leaves by its name goes where the name leads.
#[test]
fn a_name_that_is_only_said_is_not_believed() {
    let (address, told) = server(b"");
    let elsewhere = SocketAddr::from(([127, 0, 0, 99], address.port()));
    let rules = || closed(vec![rule("yes", "localhost", true)]);
    assert!(taken(rules(), elsewhere, http("localhost")).ends_with(b"ok"));
    assert!(told.recv_timeout(SOON).is_ok());
    assert_eq!(taken(rules(), elsewhere, hello("localhost")), b"answer");
    assert!(told.recv_timeout(SOON).is_ok());
    assert_eq!(taken(rules(), address, hello("other.example")), b"");
    assert!(nobody_came(&told));
}
