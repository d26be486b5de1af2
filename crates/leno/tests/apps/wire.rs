//! What crosses a namespace's loopback, captured by tcpdump, and whether it is TLS.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Signal;

use crate::common::until;
use crate::ground::{Ground, Program, SOON, WORK};

/// A capture that goes on.
pub(crate) struct Capture {
    tcpdump: Program,
    name: String,
}

impl Capture {
    /// Starts to capture everything that crosses the ground's loopback.
    pub(crate) fn start(ground: &Ground, name: &str) -> Self {
        let mut command = ground.command("tcpdump");
        command.args(["-i", "lo", "-n", "-U", "-B", BUFFER_KIB, "-Z", "root"]);
        command.arg("-w").arg(format!("{WORK}/{name}.pcap"));
        let log = format!("tcpdump-{name}");
        let mut tcpdump = ground.start(&log, &mut command);
        until("tcpdump listens", SOON, || {
            assert!(tcpdump.ended().is_none(), "tcpdump ended");
            ground.said(&log).contains("listening on")
        });
        Self { tcpdump, name: name.to_owned() }
    }

    /// Ends it, and reads what it holds.
    pub(crate) fn stop(self, ground: &Ground) -> Traffic {
        let path = ground.inside(&format!("{WORK}/{}.pcap", self.name));
        // The kernel hands packets over in blocks: a last one that is known tells that all before it are there.
        let last = format!("last-packet-{}", self.name);
        let shout = format!("printf %s {last} | nc -u -w 0 127.0.0.1 9");
        until("the capture is complete", SOON, || {
            ground.holds(&shout);
            fs::read(&path).is_ok_and(|bytes| find(&bytes, last.as_bytes()))
        });
        self.tcpdump.stop(Signal::INT);
        let said = ground.said(&format!("tcpdump-{}", self.name));
        assert!(said.contains("\n0 packets dropped by kernel"), "the capture is not complete: {said}");
        Traffic::read(&fs::read(&path).unwrap())
    }
}

/// One direction of one connection: who to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    from: u16,
    to: u16,
}

/// What was captured, put together again.
pub(crate) struct Traffic {
    /// The bytes of each direction of each TCP connection, in order.
    streams: Vec<(Way, Vec<u8>)>,
    /// What else was sent: UDP and whatever it is.
    other: Vec<u8>,
}

impl Traffic {
    /// Whether these bytes are in any of it.
    pub(crate) fn holds(&self, wanted: &[u8]) -> bool {
        self.streams.iter().any(|(_, bytes)| find(bytes, wanted)) || find(&self.other, wanted)
    }

    /// Bytes in all TCP connections, without those of a port.
    pub(crate) fn bytes(&self, but: &[u16]) -> usize {
        self.but(but).map(|(_, bytes)| bytes.len()).sum()
    }

    /// Checks that each TCP connection, but for those of some ports, is a row of TLS records from its first byte on.
    pub(crate) fn check_tls(&self, but: &[u16]) {
        for (way, bytes) in self.but(but) {
            if let Err((at, why)) = records(bytes) {
                let shown = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 80)]).into_owned();
                panic!("{way:?} is not TLS after {at} bytes of {}: {why}: {shown:?}", bytes.len());
            }
        }
    }

    fn but<'a>(&'a self, ports: &'a [u16]) -> impl Iterator<Item = &'a (Way, Vec<u8>)> {
        self.streams.iter().filter(|(way, _)| !ports.contains(&way.from) && !ports.contains(&way.to))
    }

    /// Reads a file of tcpdump's: little-endian, microseconds, Ethernet.
    fn read(file: &[u8]) -> Self {
        assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a form of capture that is not known here");
        assert_eq!(file[20..24], [1, 0, 0, 0], "a link that is not Ethernet");
        let mut segments: BTreeMap<Way, Vec<Segment>> = BTreeMap::new();
        let mut other = Vec::new();
        let mut rest = &file[24..];
        while rest.len() >= 16 {
            let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            if rest.len() < 16 + length {
                break;
            }
            match tcp(&rest[16..16 + length]) {
                Some((way, segment)) => segments.entry(way).or_default().push(segment),
                None => other.extend_from_slice(&rest[16..16 + length]),
            }
            rest = &rest[16 + length..];
        }
        let streams = segments.into_iter().flat_map(|(way, segments)| in_order(way, &segments)).collect();
        Self { streams, other }
    }
}

/// What one packet says of a TCP connection.
struct Segment {
    opens: bool,
    sequence: u32,
    bytes: Vec<u8>,
}

/// A packet's TCP segment, if it is one.
fn tcp(frame: &[u8]) -> Option<(Way, Segment)> {
    let packet = frame.get(14..)?;
    let segment = match frame.get(12..14)? {
        [0x08, 0x00] if packet.get(9) == Some(&6) => {
            let head = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            // A length of 0 is a large send that was never cut into packets.
            packet.get(head..if total == 0 { packet.len() } else { total })?
        }
        [0x86, 0xdd] if packet.get(6) == Some(&6) => {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            packet.get(40..if length == 0 { packet.len() } else { 40 + length })?
        }
        _ => return None,
    };
    let number = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    let way = Way { from: number(0)?, to: number(2)? };
    let sequence = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let head = usize::from(segment.get(12)? >> 4) * 4;
    let opens = segment.get(13)? & 2 != 0;
    Some((way, Segment { opens, sequence, bytes: segment.get(head..)?.to_vec() }))
}

/// The streams of one way, one after the other: a pair of ports may be used again.
fn in_order(way: Way, segments: &[Segment]) -> Vec<(Way, Vec<u8>)> {
    let begins = segments.iter().enumerate().filter(|(_, segment)| segment.opens).map(|(at, _)| at);
    let begins: Vec<usize> = begins.collect();
    let ends = begins.iter().skip(1).copied().chain([segments.len()]);
    begins.iter().zip(ends).map(|(begin, end)| (way, stream(way, &segments[*begin..end]))).collect()
}

/// The bytes of one stream. Its first segment opens it; the others may overlap, and change places where two processors sent them.
fn stream(way: Way, segments: &[Segment]) -> Vec<u8> {
    let first = segments[0].sequence.wrapping_add(1);
    // Before the first byte is what only asks whether the other end is there.
    let place = |segment: &Segment| segment.sequence.wrapping_sub(first);
    let mut sorted: Vec<&Segment> = segments[1..].iter().filter(|segment| place(segment) < 1 << 31).collect();
    sorted.sort_by_key(|segment| place(segment));
    let mut bytes: Vec<u8> = Vec::new();
    for segment in sorted.into_iter().filter(|segment| !segment.bytes.is_empty()) {
        let known = bytes.len().checked_sub(place(segment) as usize);
        let known =
            known.unwrap_or_else(|| panic!("{way:?}: bytes after {} are not in the capture", bytes.len()));
        bytes.extend_from_slice(segment.bytes.get(known..).unwrap_or_default());
    }
    bytes
}

/// Whether bytes are TLS records; the last one may be cut. Otherwise where they are not, and why.
fn records(bytes: &[u8]) -> Result<(), (usize, &'static str)> {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 5) {
        if !(20..=23).contains(&head[0]) {
            return Err((at, "no type of record"));
        }
        if head[1] != 3 || head[2] > 4 {
            return Err((at, "no version of TLS"));
        }
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length > (1 << 14) + 256 {
            return Err((at, "longer than a record may be"));
        }
        at += 5 + length;
    }
    Ok(())
}

/// Whether `wanted` is in `bytes`.
fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == wanted[0]) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// What the kernel may hold for tcpdump while it has no turn.
const BUFFER_KIB: &str = "65536";

#[test]
fn records_are_told_from_other_bytes() {
    assert_eq!(records(b"\x16\x03\x01\x00\x02hi\x17\x03\x03\x00\x01x\x17\x03\x03\x00\x09cut"), Ok(()));
    assert_eq!(records(b"\x16\x03\x01\x00\x02hiGET / HTTP/1.1"), Err((7, "no type of record")));
    assert_eq!(records(b"\x16\x05\x01\x00\x00"), Err((0, "no version of TLS")));
    assert_eq!(records(b"\x17\x03\x03\xff\xff"), Err((0, "longer than a record may be")));
}

#[test]
fn streams_are_put_together_again() {
    let segment = |opens, sequence, bytes: &[u8]| Segment { opens, sequence, bytes: bytes.to_vec() };
    let way = Way { from: 1, to: 2 };
    let first = u32::MAX - 1;
    let streams = in_order(
        way,
        &[
            segment(true, first, b""),
            segment(false, first.wrapping_add(1), b"ab"),
            segment(false, first.wrapping_add(4), b"d"),
            segment(false, first.wrapping_add(1), b"abc"),
            segment(false, first, b"?"),
            segment(true, 70, b""),
            segment(false, 71, b"z"),
        ],
    );
    assert_eq!(streams, [(way, b"abcd".to_vec()), (way, b"z".to_vec())]);
}
