//! A guard in front of an HTTP/2 implementation: it reads nothing but frame headers out of the bytes that come, and says
//! when a peer sends more of what costs it little and us much than anybody honest does.
//!
//! An implementation of HTTP/2 answers each of these frames as the protocol demands, one by one, and so does not see a
//! flood. Here each kind that carries nothing has a bucket that leaks at the rate that honest peers have been seen to need.
//! The guard also notes two facts that the layers above want to know about a connection: that the peer's first SETTINGS came,
//! and the last stream that its GOAWAY names.
//!
//! What it says does not depend on how the bytes were split over reads.

use core::fmt;

use crate::time::{Duration, Instant};

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flood {
    /// Streams that were opened and cut off (CVE-2023-44487).
    Reset,
    /// PING (CVE-2019-9512).
    Ping,
    /// SETTINGS (CVE-2019-9515).
    Settings,
    /// PRIORITY, PRIORITY_UPDATE and frames of unknown kinds (CVE-2019-9513).
    Priority,
    /// WINDOW_UPDATE in slivers (CVE-2019-9511, CVE-2019-9517).
    WindowUpdate,
    /// Frames with nothing in them that end nothing (CVE-2019-9518).
    Empty,
    /// CONTINUATION in one header block (CVE-2024-27316).
    Continuation,
    /// Bytes of one header block, as they are on the wire.
    HeaderBytes,
}

impl Flood {
    /// Every kind, for tables.
    pub const ALL: [Self; 8] = [
        Self::Reset,
        Self::Ping,
        Self::Settings,
        Self::Priority,
        Self::WindowUpdate,
        Self::Empty,
        Self::Continuation,
        Self::HeaderBytes,
    ];

    /// The name in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reset => "h2_flood_reset",
            Self::Ping => "h2_flood_ping",
            Self::Settings => "h2_flood_settings",
            Self::Priority => "h2_flood_priority",
            Self::WindowUpdate => "h2_flood_window_update",
            Self::Empty => "h2_flood_empty",
            Self::Continuation => "h2_flood_continuation",
            Self::HeaderBytes => "h2_flood_header_bytes",
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer is a client: its preface comes first, and it may open streams.
    Server,
    /// The peer is a server: it can cut off only what we have opened, so that its resets are not counted.
    Client,
}

/// The bytes before a client's first frame (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
/// Bytes of a GOAWAY's payload that name the last stream.
const LAST_STREAM_BYTES: usize = 4;

/// A count that leaks.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// How full it is.
    level: u32,
    /// What it holds.
    most: u32,
    /// How much leaks out each second.
    per_second: u32,
    /// When something last leaked out.
    leaked: Instant,
}

impl Bucket {
    const fn new((most, per_second): (u32, u32), now: Instant) -> Self {
        Self { level: 0, most, per_second, leaked: now }
    }

    /// Adds one; false when there was no room for it.
    fn add(&mut self, now: Instant) -> bool {
        if self.level >= self.most {
            let each = Duration::from_secs(1).as_nanos() / u128::from(self.per_second);
            let leaked = now.since(self.leaked).as_nanos() / each;
            self.level = self.level.saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
            if leaked > 0 {
                self.leaked = now;
            }
        }
        if self.level >= self.most {
            return false;
        }
        self.level += 1;
        true
    }

    fn give_back(&mut self, count: u32) {
        self.level = self.level.saturating_sub(count);
    }
}

/// What is counted on one connection. See the [module](self).
#[derive(Clone, Debug)]
pub struct Guard {
    role: Role,
    /// Bytes of the preface that are still to come.
    preface: usize,
    /// The header of the frame that is coming, so far.
    header: [u8; HEADER_BYTES],
    /// How many of its bytes are there.
    filled: usize,
    /// Bytes of the current frame's payload that are still to come.
    payload: usize,
    /// Bytes of a GOAWAY's last stream that are still to come, and the number so far.
    last_stream: (usize, u32),
    resets: Bucket,
    pings: Bucket,
    settings: Bucket,
    priorities: Bucket,
    window_updates: Bucket,
    empties: Bucket,
    /// Bytes that we sent and that no WINDOW_UPDATE was let pass for yet.
    sent: usize,
    /// CONTINUATION frames of the current header block, and its bytes.
    block: (u32, usize),
    settled: bool,
    goaway: Option<u32>,
}

impl Guard {
    /// A guard of a connection that begins now.
    pub fn new(role: Role, now: Instant) -> Self {
        Self {
            role,
            preface: if role == Role::Server { PREFACE.len() } else { 0 },
            header: [0; HEADER_BYTES],
            filled: 0,
            payload: 0,
            last_stream: (0, 0),
            resets: Bucket::new(RESETS, now),
            pings: Bucket::new(PINGS, now),
            settings: Bucket::new(SETTINGS, now),
            priorities: Bucket::new(PRIORITIES, now),
            window_updates: Bucket::new(WINDOW_UPDATES, now),
            empties: Bucket::new(EMPTIES, now),
            sent: 0,
            block: (0, 0),
            settled: false,
            goaway: None,
        }
    }

    /// True once the peer's first SETTINGS have come.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// The last stream that the peer has seen or will look at, once it has said that it is going.
    pub const fn goaway(&self) -> Option<u32> {
        self.goaway
    }

    /// Notes that so many bytes were sent: for what they carry the peer may send WINDOW_UPDATEs.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let updates = self.sent / SENT_BYTES_PER_WINDOW_UPDATE;
        self.sent %= SENT_BYTES_PER_WINDOW_UPDATE;
        self.window_updates.give_back(u32::try_from(updates).unwrap_or(u32::MAX));
    }

    /// Looks at the bytes that came next.
    ///
    /// # Errors
    /// The peer floods us. Nothing that it sends is worth a look any more.
    pub fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        bytes = skip(bytes, &mut self.preface);
        loop {
            if self.last_stream.0 > 0 {
                bytes = self.last_stream(bytes);
            }
            bytes = skip(bytes, &mut self.payload);
            if bytes.is_empty() {
                return Ok(());
            }
            // Nearly always the whole header is there.
            if self.filled == 0
                && let Some((header, rest)) = bytes.split_first_chunk()
            {
                self.frame(*header, now)?;
                bytes = rest;
                continue;
            }
            let taken = bytes.len().min(HEADER_BYTES - self.filled);
            let (head, rest) = bytes.split_at(taken);
            if let Some(room) = self.header.get_mut(self.filled..self.filled + taken) {
                room.copy_from_slice(head);
            }
            self.filled += taken;
            bytes = rest;
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.frame(self.header, now)?;
            }
        }
    }

    /// Takes the last stream's number out of a GOAWAY.
    fn last_stream<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let taken = bytes.len().min(self.last_stream.0);
        let (number, rest) = bytes.split_at(taken);
        for byte in number {
            self.last_stream.1 = self.last_stream.1 << 8 | u32::from(*byte);
        }
        self.last_stream.0 -= taken;
        self.payload = self.payload.saturating_sub(taken);
        if self.last_stream.0 == 0 {
            // The highest bit is reserved.
            let number = self.last_stream.1 & 0x7fff_ffff;
            // A second GOAWAY may only name a lower one (RFC 9113 §6.8).
            self.goaway = Some(self.goaway.map_or(number, |before| before.min(number)));
        }
        rest
    }

    fn frame(&mut self, header: [u8; HEADER_BYTES], now: Instant) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.payload = length;
        match kind {
            kind::DATA if length == 0 && flags & flag::END_STREAM == 0 => self.empty(now),
            kind::DATA => Ok(()),
            kind::HEADERS => {
                self.block = (0, length);
                if length == 0 {
                    self.empty(now)?
                }
                self.block_bytes()
            }
            kind::CONTINUATION => {
                self.block = (self.block.0 + 1, self.block.1.saturating_add(length));
                if self.block.0 > CONTINUATIONS_MAX {
                    return Err(Flood::Continuation);
                }
                self.block_bytes()
            }
            kind::RST_STREAM if self.role == Role::Server => limit(&mut self.resets, Flood::Reset, now),
            kind::RST_STREAM => Ok(()),
            kind::SETTINGS if flags & flag::ACK != 0 => Ok(()),
            kind::SETTINGS => {
                self.settled = true;
                limit(&mut self.settings, Flood::Settings, now)
            }
            kind::PING if flags & flag::ACK != 0 => Ok(()),
            kind::PING => limit(&mut self.pings, Flood::Ping, now),
            kind::WINDOW_UPDATE => limit(&mut self.window_updates, Flood::WindowUpdate, now),
            kind::GOAWAY => {
                self.last_stream = (length.min(LAST_STREAM_BYTES), 0);
                Ok(())
            }
            // A server's PUSH_PROMISE is refused by whoever reads it: we never allow them.
            _ => limit(&mut self.priorities, Flood::Priority, now),
        }
    }

    fn empty(&mut self, now: Instant) -> Result<(), Flood> {
        limit(&mut self.empties, Flood::Empty, now)
    }

    const fn block_bytes(&self) -> Result<(), Flood> {
        if self.block.1 > BLOCK_BYTES_MAX { Err(Flood::HeaderBytes) } else { Ok(()) }
    }
}

fn limit(bucket: &mut Bucket, flood: Flood, now: Instant) -> Result<(), Flood> {
    if bucket.add(now) { Ok(()) } else { Err(flood) }
}

/// Skips up to `left` bytes.
fn skip<'a>(bytes: &'a [u8], left: &mut usize) -> &'a [u8] {
    let skipped = bytes.len().min(*left);
    *left -= skipped;
    bytes.get(skipped..).unwrap_or(&[])
}

/// Kinds of frames (RFC 9113 §6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
mod flag {
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const ACK: u8 = 1;
}

// Each limit: how many at once, and how many each second after that.

/// Streams that a client may cut off. nghttp2 lets 1000 pass and 33 each second; a sidecar's application that hedges its
/// calls cuts off more of them in the long run.
pub const RESETS: (u32, u32) = (1000, 100);
/// PINGs. gRPC measures a link's bandwidth with one in each round trip while data flows, which on one machine can be some
/// hundreds a second; Envoy lets 1000 answers queue up.
pub const PINGS: (u32, u32) = (1000, 1000);
/// SETTINGS. Honest peers send one, and some another one when they change their windows.
pub const SETTINGS: (u32, u32) = (100, 10);
/// PRIORITY and unknown kinds. Browsers send some for each stream (Envoy: 100 for each).
pub const PRIORITIES: (u32, u32) = (2000, 500);
/// WINDOW_UPDATEs beside those for what we sent.
pub const WINDOW_UPDATES: (u32, u32) = (10_000, 1000);
/// For so many bytes that we sent, the peer may send one WINDOW_UPDATE beside: some implementations send one for the stream and
/// one for the connection after each DATA frame, and a gRPC message is often no larger than this.
pub const SENT_BYTES_PER_WINDOW_UPDATE: usize = 64;
/// Frames without content. Envoy allows one in a row; some libraries send one before a body.
pub const EMPTIES: (u32, u32) = (200, 50);
/// CONTINUATIONs in one header block: with the usual frames of 16 KiB more than [`BLOCK_BYTES_MAX`].
pub const CONTINUATIONS_MAX: u32 = 16;
/// Bytes of one header block on the wire: twice of what a head may have once it is decoded, because a block may be
/// coded badly, but not at will.
pub const BLOCK_BYTES_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        BLOCK_BYTES_MAX, CONTINUATIONS_MAX, EMPTIES, Flood, Guard, PINGS, PREFACE, PRIORITIES, RESETS, Role,
        SENT_BYTES_PER_WINDOW_UPDATE, SETTINGS, WINDOW_UPDATES,
    };
    use crate::rng::Rng;
    use crate::time::{Duration, Instant};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut out = Vec::from(&length[1..]);
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    fn server() -> Guard {
        let mut guard = Guard::new(Role::Server, Instant::ZERO);
        guard.receive(PREFACE, Instant::ZERO).unwrap();
        guard
    }

    #[test]
    fn each_kind_has_a_burst_and_a_rate() {
        let rows: [(Flood, Vec<u8>, (u32, u32)); 6] = [
            (Flood::Reset, frame(3, 0, 1, &[0; 4]), RESETS),
            (Flood::Ping, frame(6, 0, 0, &[0; 8]), PINGS),
            (Flood::Settings, frame(4, 0, 0, &[]), SETTINGS),
            (Flood::Priority, frame(2, 0, 1, &[0; 5]), PRIORITIES),
            (Flood::WindowUpdate, frame(8, 0, 0, &[0, 0, 0, 1]), WINDOW_UPDATES),
            (Flood::Empty, frame(0, 0, 1, &[]), EMPTIES),
        ];
        for (flood, bytes, (burst, rate)) in rows {
            let mut guard = server();
            for at in 0..burst {
                assert_eq!(guard.receive(&bytes, Instant::ZERO), Ok(()), "{flood} number {at}");
            }
            assert_eq!(guard.clone().receive(&bytes, Instant::ZERO), Err(flood));
            let later = Instant::ZERO.after(Duration::from_secs(1));
            for at in 0..rate {
                assert_eq!(guard.receive(&bytes, later), Ok(()), "{flood} number {at} a second later");
            }
            assert_eq!(guard.receive(&bytes, later), Err(flood));
        }
    }

    #[test]
    fn what_carries_something_or_answers_is_not_counted() {
        let rows = [
            frame(0, 1, 1, &[]),
            frame(0, 0, 1, b"x"),
            frame(1, 4, 1, &[0x82]),
            frame(4, 1, 0, &[]),
            frame(6, 1, 0, &[0; 8]),
        ];
        for bytes in rows {
            let mut guard = server();
            for _ in 0..20_000 {
                assert_eq!(guard.receive(&bytes, Instant::ZERO), Ok(()), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_header_block_has_limits_of_its_own() {
        let mut guard = server();
        guard.receive(&frame(1, 0, 1, &[0x82]), Instant::ZERO).unwrap();
        for _ in 0..CONTINUATIONS_MAX {
            guard.receive(&frame(9, 0, 1, &[]), Instant::ZERO).unwrap();
        }
        assert_eq!(guard.receive(&frame(9, 0, 1, &[]), Instant::ZERO), Err(Flood::Continuation));
        let mut guard = server();
        let half = std::vec![0; BLOCK_BYTES_MAX / 2];
        guard.receive(&frame(1, 0, 1, &half), Instant::ZERO).unwrap();
        guard.receive(&frame(9, 0, 1, &half), Instant::ZERO).unwrap();
        assert_eq!(guard.clone().receive(&frame(9, 0, 1, b"x"), Instant::ZERO), Err(Flood::HeaderBytes));
        // The next block begins at nothing.
        guard.receive(&frame(9, 4, 1, b""), Instant::ZERO).unwrap();
        assert_eq!(guard.receive(&frame(1, 4, 3, &half), Instant::ZERO), Ok(()));
    }

    #[test]
    fn what_we_send_allows_window_updates() {
        let mut guard = server();
        for _ in 0..5 * WINDOW_UPDATES.0 {
            guard.sent(SENT_BYTES_PER_WINDOW_UPDATE);
            assert_eq!(guard.receive(&frame(8, 0, 0, &[0, 0, 0, 64]), Instant::ZERO), Ok(()));
        }
    }

    #[test]
    fn a_server_may_cut_off_what_we_opened() {
        let mut guard = Guard::new(Role::Client, Instant::ZERO);
        for _ in 0..5 * RESETS.0 {
            assert_eq!(guard.receive(&frame(3, 0, 1, &[0; 4]), Instant::ZERO), Ok(()));
        }
    }

    #[test]
    fn a_goaway_names_the_last_stream_and_settings_settle() {
        let mut guard = Guard::new(Role::Client, Instant::ZERO);
        assert!(!guard.is_settled());
        guard.receive(&frame(4, 1, 0, &[]), Instant::ZERO).unwrap();
        assert!(!guard.is_settled(), "an acknowledgement says nothing");
        guard.receive(&frame(4, 0, 0, &[]), Instant::ZERO).unwrap();
        assert!(guard.is_settled());
        assert_eq!(guard.goaway(), None);
        let goaway = |last: u32| frame(7, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"bye"].concat());
        guard.receive(&goaway(0x7fff_ffff), Instant::ZERO).unwrap();
        assert_eq!(guard.goaway(), Some(0x7fff_ffff));
        guard.receive(&goaway(0x8000_0007), Instant::ZERO).unwrap();
        assert_eq!(guard.goaway(), Some(7));
        guard.receive(&goaway(9), Instant::ZERO).unwrap();
        assert_eq!(guard.goaway(), Some(7));
    }

    /// Whole frames and parts of them, of every kind, in pieces of every size: the verdict, and after how many bytes it comes, are
    /// those of one byte at a time.
    #[test]
    fn arbitrary_splits_count_the_same() {
        for seed in 0..300_u64 {
            let mut rng = Rng::new(seed);
            let role = if seed.is_multiple_of(2) { Role::Server } else { Role::Client };
            let mut bytes = Vec::new();
            if role == Role::Server {
                bytes.extend(PREFACE);
            }
            let favourite = rng.next_u64() as u8 % 12;
            for _ in 0..1500 {
                let kind = if rng.next_u64().is_multiple_of(4) { rng.next_u64() as u8 % 12 } else { favourite };
                let length = [0, 0, 1, 4, 8, 300][rng.next_u64() as usize % 6];
                let flags = [0, 1, 4][rng.next_u64() as usize % 3];
                bytes.extend(frame(kind, flags, 1, &std::vec![0; length]));
            }
            let verdict = |mut next: std::boxed::Box<dyn FnMut() -> usize>| {
                let mut guard = Guard::new(role, Instant::ZERO);
                let mut at = 0;
                while at < bytes.len() {
                    let end = (at + next().max(1)).min(bytes.len());
                    if let Err(flood) = guard.receive(&bytes[at..end], Instant::ZERO) {
                        return (Some(flood), guard.is_settled(), guard.goaway());
                    }
                    at = end;
                }
                (None, guard.is_settled(), guard.goaway())
            };
            let whole = verdict(std::boxed::Box::new(|| usize::MAX / 2));
            let single = verdict(std::boxed::Box::new(|| 1));
            assert_eq!(whole, single, "seed {seed}");
            for round in 0..4 {
                let mut sizes = Rng::new(seed * 10 + round);
                let split = verdict(std::boxed::Box::new(move || sizes.next_u64() as usize % 50));
                assert_eq!(whole, split, "seed {seed}, round {round}");
            }
        }
    }

    #[test]
    fn any_bytes_at_all_are_taken() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut guard = Guard::new(Role::Server, Instant::ZERO);
            for _ in 0..200 {
                let bytes: Vec<u8> = (0..rng.next_u64() % 64).map(|_| rng.next_u64() as u8).collect();
                if guard.receive(&bytes, Instant::ZERO).is_err() {
                    break;
                }
            }
        }
    }
}
