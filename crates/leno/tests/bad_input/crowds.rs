//! Thousands of slow connections: what each may cost, and that nobody else waits for them.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::until;
use crate::way::{Way, plain};
use crate::{Leave, SOON};

/// Connections of a crowd.
const CROWD: usize = 2_000;
/// What one of them may take in memory, in bytes: its task, and a buffer of 16 KiB for the ones that have said something.
const BYTES_EACH_MAX: u64 = 24 * 1024;
/// The same with TLS under way: a session's state and its buffers.
const TLS_BYTES_EACH_MAX: u64 = 48 * 1024;

/// Descriptors for a crowd's client side.
fn descriptors_for_a_crowd() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// A crowd that has said so much each; what it costs, and what is left when it goes.
fn crowd(way: &Way, proxy: usize, said: &[u8], each_max: u64, connect: impl Fn() -> TcpStream) {
    way.serves();
    let (before, memory) = (way.descriptors(), way.resident_kib(proxy));
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..CROWD {
        let mut stream = connect();
        stream.write_all(said).unwrap();
        crowd.push(stream);
    }
    until("the crowd is there", SOON, || way.descriptors()[proxy] >= before[proxy] + CROWD);
    // They trickle on, and somebody else is served between.
    for _ in 0..3 {
        way.serves();
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = way.resident_kib(proxy).saturating_sub(memory) * 1024 / CROWD as u64;
    println!("{}: {grown} bytes for each of {CROWD} that have said {} bytes", way.name, said.len());
    assert!(grown < each_max, "{}: {grown} bytes for each connection", way.name);
    // Half of them go with RST, half with FIN.
    for (at, stream) in crowd.into_iter().enumerate() {
        drop(if at % 2 == 0 { Leave::Reset } else { Leave::Close }.from(stream));
    }
    way.holds_no_more_than(&before, 4);
    way.serves();
}

#[test]
fn a_crowd_with_half_a_head_is_bounded() {
    descriptors_for_a_crowd();
    let way = Way::single(&plain());
    crowd(&way, 0, b"GET / HTTP/1.1\r\nHost: server\r\nx-slow: ", BYTES_EACH_MAX, || way.connect());
}

#[test]
fn a_crowd_that_says_nothing_is_bounded() {
    descriptors_for_a_crowd();
    let way = Way::single(&plain());
    crowd(&way, 0, b"", BYTES_EACH_MAX, || way.connect());
}

#[test]
fn a_crowd_at_the_mesh_port_with_half_a_client_hello_is_bounded() {
    descriptors_for_a_crowd();
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    // The head of a record of 512 bytes and the beginning of a ClientHello that never comes.
    let said = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..], &[7; 64]].concat();
    crowd(&way, 1, &said, TLS_BYTES_EACH_MAX, || crate::way::connect(mesh));
    assert_eq!(way.metric(1, "leno_connections{", "listener=\"mesh\""), 1, "the pair's own");
}
