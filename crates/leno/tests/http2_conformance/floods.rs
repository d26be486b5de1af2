//! Floods: clients that send much of what costs them little. Each has to leave the proxy's memory bounded and other clients
//! served, has to be ended where nothing honest looks like it, and has to be counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{HERE, HOLD, get, post, request};
use crate::frame::{
    END_HEADERS, END_STREAM, NONE, WHOLE, code, continuation, data, frame, headers, kind, ping, priority,
    reset, setting, settings, window_update,
};
use crate::hpack::{block, entered, integer, literal};
use crate::origin;
use crate::peer::{CASE_MAX, Event, Peer};
use crate::target::{Target, resident_kib};

/// What a proxy may take in memory for one attacker, above what it had before: a few connections with full buffers, and what
/// the allocator keeps. Without limits each of these attacks takes hundreds of megabytes.
const GROWTH_MAX_KIB: u64 = 48 * 1024;
/// How long the well-behaved client may wait for one answer while all of it happens: far above what it takes, because the
/// machine's cores are shared with the attacker.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause between two requests of the well-behaved client.
const PACE: Duration = Duration::from_millis(20);
/// Frames in one write of an attacker.
const BATCH: usize = 200;
/// What the proxy calls a flood that its implementation of HTTP/2 has noticed before its guard did.
const MACHINE: &str = "h2_flood_machine";
/// The path whose answer never ends.
const ENDLESS: &str = "/endless";

/// Says that it is over, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attacks while a well-behaved client asks on a connection of its own and the memory is watched.
fn attacked<T>(target: &Target, attack: impl FnOnce(SocketAddr) -> T) -> T {
    let over = AtomicBool::new(false);
    // The first request of all makes the connection to the application.
    let mut peer = handshaken(target.address);
    peer.send(&get(1, HERE));
    peer.answer(1).unwrap();
    let (address, pid) = (target.address, target.pid());
    let before = resident_kib(pid);
    let (value, answered, most) = thread::scope(|scope| {
        let client = scope.spawn(|| well_behaved(address, &over));
        let memory = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(resident_kib(pid));
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let guard = Over(&over);
        let value = attack(address);
        drop(guard);
        (value, client.join().unwrap(), memory.join().unwrap())
    });
    println!("{}: {} KiB more, {answered} answers beside", target.name, most.saturating_sub(before));
    assert!(target.lives(), "{} has not survived", target.name);
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH_MAX_KIB, "{before} KiB before, {growth} KiB more during the attack");
    value
}

/// Asks until it is over, and once at least; how many answers it got.
fn well_behaved(to: SocketAddr, over: &AtomicBool) -> u32 {
    let mut peer = handshaken(to);
    let mut answered = 0;
    while answered == 0 || !over.load(Ordering::Relaxed) {
        let stream = answered * 2 + 1;
        peer.within(ANSWER_MAX);
        peer.send(&get(stream, HERE));
        peer.answer(stream).unwrap_or_else(|why| panic!("the well-behaved client: {why}"));
        answered += 1;
        thread::sleep(PACE);
    }
    answered
}

fn handshaken(to: SocketAddr) -> Peer {
    let mut peer = Peer::connect(to).unwrap();
    peer.shake_hands().unwrap();
    peer
}

/// Sends `count` pieces, many at a time, as long as somebody takes them.
fn pour(peer: &mut Peer, count: usize, mut piece: impl FnMut(usize) -> Vec<u8>) {
    let mut sent = 0;
    while sent < count {
        let bytes: Vec<u8> = (sent..count.min(sent + BATCH)).flat_map(&mut piece).collect();
        if !peer.send(&bytes) {
            return;
        }
        sent += BATCH;
    }
}

/// The connection was ended, and if there was a word, it was the right one.
fn ended(peer: &mut Peer) {
    peer.within(CASE_MAX);
    loop {
        match peer.next() {
            Event::Closed => return,
            Event::Silence => panic!("{}", peer.unexpected("the end of the connection")),
            Event::Frame(frame) if frame.kind == kind::GOAWAY => {
                assert_eq!(code::name(frame.code()), code::name(code::ENHANCE_YOUR_CALM));
            }
            Event::Frame(_) => {}
        }
    }
}

/// A flood that nothing honest looks like: it ends the connection, and `limit` counts it.
fn is_ended(target: &Target, limit: &str, first: &[u8], count: usize, piece: impl FnMut(usize) -> Vec<u8>) {
    attacked(target, |to| {
        let mut peer = handshaken(to);
        peer.send(first);
        pour(&mut peer, count, piece);
        ended(&mut peer);
    });
    counted(target, &[limit, MACHINE]);
}

/// One of these limits was hit.
fn counted(target: &Target, limits: &[&str]) {
    let hits = |limit: &&str| target.metric(&format!("leno_limit_hits_total{{limit=\"{limit}\"}}"));
    assert!(limits.iter().map(hits).sum::<u64>() > 0, "none of {limits:?} was counted");
}

/// The odd numbers from 1.
fn stream(at: usize) -> u32 {
    at as u32 * 2 + 1
}

fn opened_and_cut_off(at: usize) -> Vec<u8> {
    [get(stream(at), HOLD), reset(stream(at), code::CANCEL)].concat()
}

#[test]
fn streams_that_are_cut_off_end_the_connection() {
    // CVE-2023-44487.
    is_ended(&Target::gateway(), "h2_flood_reset", &[], 10_000, opened_and_cut_off);
}

#[test]
fn streams_that_are_cut_off_end_the_connection_to_a_sidecar() {
    is_ended(&Target::sidecars(), "h2_flood_reset", &[], 10_000, opened_and_cut_off);
}

#[test]
fn some_streams_that_are_cut_off_harm_no_sibling() {
    // A client that gives up on all its calls at once, several times.
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        for round in 0..8 {
            peer.send(&(0..100).flat_map(|at| opened_and_cut_off(round * 100 + at)).collect::<Vec<u8>>());
            peer.pong().unwrap();
        }
        peer.send(&get(stream(800), HERE));
        peer.answer(stream(800)).unwrap();
    });
}

#[test]
fn requests_that_make_the_server_cut_them_off_end_the_connection() {
    // CVE-2025-8671: the client never resets anything itself, it breaks a rule on each stream.
    const MOST: u32 = i32::MAX as u32;
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        pour(&mut peer, 20_000, |at| [get(stream(at), HOLD), window_update(stream(at), MOST)].concat());
        ended(&mut peer);
    });
    counted(&target, &["h2_flood_reset", MACHINE]);
}

#[test]
fn a_block_without_end_ends_the_connection() {
    // CVE-2024-27316, with fields.
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        peer.send(&headers(1, END_STREAM, &request("GET", HERE)));
        let more = literal("x-more", &[b'x'; 1000]);
        pour(&mut peer, 10_000, |_| continuation(1, NONE, &more));
        ended(&mut peer);
    });
    counted(&target, &["h2_flood_continuation", "h2_flood_header_bytes", MACHINE]);
}

#[test]
fn a_block_of_empty_frames_ends_the_connection() {
    let first = headers(1, END_STREAM, &request("GET", HERE));
    is_ended(&Target::gateway(), "h2_flood_continuation", &first, 100_000, |_| continuation(1, NONE, &[]));
}

#[test]
fn settings_without_end_end_the_connection() {
    // CVE-2019-9515.
    is_ended(&Target::gateway(), "h2_flood_settings", &[], 100_000, |_| settings(&[]));
}

#[test]
fn pings_without_end_end_the_connection() {
    // CVE-2019-9512: nobody reads the answers.
    is_ended(&Target::gateway(), "h2_flood_ping", &[], 100_000, |_| ping(NONE, &[0; 8]));
}

#[test]
fn empty_data_without_end_ends_the_connection() {
    // CVE-2019-9518.
    is_ended(&Target::gateway(), "h2_flood_empty", &post(1, HOLD), 100_000, |_| data(1, NONE, &[]));
}

#[test]
fn empty_requests_without_end_end_the_connection() {
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        pour(&mut peer, 20_000, |at| headers(stream(at), WHOLE, &[]));
        ended(&mut peer);
    });
}

#[test]
fn priorities_without_end_end_the_connection() {
    // CVE-2019-9513.
    is_ended(&Target::gateway(), "h2_flood_priority", &get(1, HOLD), 100_000, |at| {
        priority(1, stream(at % 1000) + 2, true, at as u8)
    });
}

#[test]
fn frames_of_unknown_types_without_end_end_the_connection() {
    is_ended(&Target::gateway(), "h2_flood_priority", &[], 100_000, |_| frame(kind::UNKNOWN, NONE, 0, &[]));
}

#[test]
fn slivers_of_window_without_end_end_the_connection() {
    // CVE-2019-9511.
    is_ended(&Target::gateway(), "h2_flood_window_update", &get(1, HOLD), 100_000, |_| window_update(1, 1));
}

#[test]
fn a_small_block_that_stands_for_a_large_one_is_refused() {
    // An entry of 4,000 bytes and an index for it: 4,000 bytes on the wire are 16 MB of fields, each time.
    let target = Target::gateway();
    attacked(&target, |to| {
        for _ in 0..4 {
            let mut peer = handshaken(to);
            let filled = [request("GET", HERE), entered("x", &[b'x'; 4_000])].concat();
            peer.send(&headers(1, WHOLE, &filled));
            let indices = integer(0x80, 7, 62).repeat(4_000);
            let bomb = [request("GET", HERE), indices].concat();
            pour(&mut peer, 50, |at| headers(stream(at + 1), WHOLE, &bomb));
            // Each is refused by its stream or by its answer; that none is answered with 200 is what counts.
            for _ in 0..50 {
                match peer.next_within(Duration::from_millis(500)) {
                    Event::Frame(frame) if frame.kind == kind::HEADERS && frame.stream > 1 => {
                        let status = crate::hpack::status(frame.block());
                        assert_ne!(status, Some(200), "a header list of 16 MB was taken");
                    }
                    Event::Frame(_) => {}
                    Event::Closed | Event::Silence => break,
                }
            }
        }
    });
}

#[test]
fn many_cookies_that_are_joined_are_refused() {
    // Cookie pieces are joined for HTTP/1: thousands of small ones must not become one that is large.
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        let filled = [request("GET", HERE), entered("cookie", b"a=b")].concat();
        peer.send(&headers(1, WHOLE, &filled));
        peer.answer(1).unwrap();
        let bomb = [request("GET", HERE), integer(0x80, 7, 62).repeat(16_000)].concat();
        for at in 1..20 {
            peer.send(&headers(stream(at), WHOLE, &bomb));
            match peer.next() {
                Event::Frame(frame) if frame.kind == kind::HEADERS => {
                    assert_ne!(crate::hpack::status(frame.block()), Some(200), "16,000 cookies were taken");
                }
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => break,
            }
        }
    });
}

/// Streams with answers that nobody reads.
const UNREAD: usize = 90;

#[test]
fn answers_that_nobody_reads_are_not_collected() {
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = Peer::connect(to).unwrap();
        peer.shake_hands_with(&[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
        peer.send(&window_update(0, 1 << 30));
        for at in 0..UNREAD {
            peer.send(&get(stream(at), ENDLESS));
        }
        // Let them fill what there is to fill.
        thread::sleep(Duration::from_secs(1));
        // A sibling is served all the while.
        for at in UNREAD..UNREAD + 5 {
            peer.within(ANSWER_MAX);
            peer.send(&[get(stream(at), HERE), window_update(stream(at), 100)].concat());
            peer.answer(stream(at)).unwrap();
        }
    });
}

#[test]
fn answers_that_nobody_reads_are_not_collected_by_sidecars() {
    let target = Target::sidecars();
    attacked(&target, |to| {
        let mut peer = Peer::connect(to).unwrap();
        peer.shake_hands_with(&[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
        peer.send(&window_update(0, 1 << 30));
        for at in 0..UNREAD {
            peer.send(&get(stream(at), ENDLESS));
        }
        thread::sleep(Duration::from_secs(1));
        peer.within(ANSWER_MAX);
        peer.send(&[get(stream(UNREAD), HERE), window_update(stream(UNREAD), 100)].concat());
        peer.answer(stream(UNREAD)).unwrap();
    });
}

#[test]
fn a_connection_that_reads_nothing_holds_up_nobody() {
    // Large windows and nobody at the socket: what is written stops at the kernel's buffers.
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peers: Vec<Peer> = Vec::new();
        for _ in 0..8 {
            let mut peer = Peer::connect(to).unwrap();
            peer.shake_hands_with(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]).unwrap();
            peer.send(&window_update(0, 1 << 30));
            for at in 0..10 {
                peer.send(&get(stream(at), ENDLESS));
            }
            peers.push(peer);
        }
        thread::sleep(Duration::from_secs(1));
    });
}

/// Bodies in frames of one byte, as many as the windows take, on streams whose bodies nobody reads.
fn slivers_of_data(to: SocketAddr) {
    const STREAMS: usize = 3;
    /// More than what a stream's window and the kernel's buffers behind it take.
    const FRAMES: usize = 1_000_000;
    let mut peer = handshaken(to);
    for at in 0..STREAMS {
        peer.send(&post(stream(at), HOLD));
    }
    let (mut sent, mut windows) = (0, [peer.window_first() as i64; STREAMS]);
    while sent < FRAMES {
        let free: Vec<usize> = (0..STREAMS).filter(|at| windows[*at] > 0).collect();
        if free.is_empty() {
            // All that fits is there; what is taken after all makes room for more.
            match peer.next_within(Duration::from_millis(500)) {
                Event::Frame(frame) if frame.kind == kind::WINDOW_UPDATE && frame.stream > 0 => {
                    windows[frame.stream as usize / 2] += i64::from(frame.number(0));
                }
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => break,
            }
            continue;
        }
        let pieces = free.iter().cycle().take(BATCH);
        let bytes: Vec<u8> = pieces.clone().flat_map(|at| data(stream(*at), NONE, b"x")).collect();
        pieces.for_each(|at| windows[*at] -= 1);
        if !peer.send(&bytes) {
            break;
        }
        sent += BATCH;
    }
    println!("{sent} frames of one byte");
}

#[test]
fn bodies_in_single_bytes_that_nobody_reads_are_bounded() {
    // Each frame carries something, so none is refused; what is kept for each must not be many times what it carries.
    attacked(&Target::gateway_before("http", origin::start_narrow()), slivers_of_data);
}

#[test]
fn bodies_in_single_bytes_that_nobody_reads_are_bounded_at_sidecars() {
    attacked(&Target::sidecars(), slivers_of_data);
}

#[test]
fn prefaces_that_trickle_are_bounded() {
    const SLOW: usize = 300;
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peers: Vec<Peer> = (0..SLOW).map(|_| Peer::connect(to).unwrap()).collect();
        for byte in &crate::frame::PREFACE[..20] {
            for peer in &mut peers {
                peer.send(&[*byte]);
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(peers.len(), SLOW);
    });
}

#[test]
fn whoever_begins_and_says_no_more_is_ended() {
    // The time for a request's head, which is the time for a preface and its SETTINGS.
    const HEAD_MAX: Duration = Duration::from_secs(15);
    let target = Target::gateway();
    let begun: [Vec<u8>; 3] = [
        crate::frame::PREFACE[..10].to_vec(),
        crate::frame::PREFACE.to_vec(),
        [crate::frame::PREFACE, &settings(&[]), &headers(1, END_STREAM, &block(&[(":method", "GET")]))]
            .concat(),
    ];
    let started = Instant::now();
    let mut peers: Vec<Peer> = begun.iter().map(|_| Peer::connect(target.address).unwrap()).collect();
    for (peer, bytes) in peers.iter_mut().zip(&begun) {
        peer.send(bytes);
    }
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.within((HEAD_MAX + CASE_MAX).saturating_sub(started.elapsed()));
        loop {
            match peer.next() {
                Event::Closed => break,
                Event::Silence => panic!("beginning {at}: {}", peer.unexpected("the end of the connection")),
                Event::Frame(_) => {}
            }
        }
    }
}

#[test]
fn a_body_that_trickles_holds_up_no_sibling() {
    let target = Target::gateway();
    attacked(&target, |to| {
        let mut peer = handshaken(to);
        peer.send(&headers(1, END_HEADERS, &request("POST", HERE)));
        for at in 1..20 {
            peer.send(&[data(1, NONE, b"x"), get(stream(at), HERE)].concat());
            peer.within(ANSWER_MAX);
            peer.answer(stream(at)).unwrap();
        }
        peer.send(&data(1, END_STREAM, b"x"));
        peer.answer(1).unwrap();
    });
}
