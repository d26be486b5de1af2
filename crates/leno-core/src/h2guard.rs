//! A guard in front of an HTTP/2 implementation: it reads nothing but frame headers out of the bytes that come, and says
//! when a peer sends more of what costs it little and us much than anybody honest does.
//!
//! An implementation of HTTP/2 answers each of these frames as the protocol demands, one by one, and so does not see a
//! flood. Here each kind that carries nothing has a bucket that leaks at the rate that honest peers have been seen to need.
//! The guard also notes facts that the layers above want to know about a connection: that the peer's first SETTINGS came, since
//! when something is begun that has to be finished, and the last stream that its GOAWAY names. And it finds what frame headers and
//! settings alone show to be wrong, because it can say so with the code that the specification has for it.
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

/// Why nothing that a peer sends is worth a look any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It sends too much of something.
    Flood(Flood),
    /// Its first frame is not its SETTINGS (RFC 9113 §3.4).
    NoSettings,
    /// A frame has a length that its kind cannot have (§6).
    Length,
    /// The window that it gives our streams is too large (§6.5.2).
    Window,
}

impl Fault {
    /// The error code for its GOAWAY (RFC 9113 §7).
    pub const fn code(self) -> u32 {
        match self {
            Self::NoSettings => 0x1,
            Self::Window => 0x3,
            Self::Length => 0x6,
            Self::Flood(_) => 0xb,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flood(flood) => flood.word(),
            Self::NoSettings => "the first frame is not SETTINGS",
            Self::Length => "a frame has a length that its kind cannot have",
            Self::Window => "a window is larger than windows can be",
        })
    }
}

/// Where the bytes that came stop to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What is wrong.
    pub fault: Fault,
    /// How many of the bytes came before what is wrong.
    pub before: usize,
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
/// Bytes of one setting: its name and its value.
const SETTING_BYTES: usize = 6;
/// SETTINGS_INITIAL_WINDOW_SIZE, and the most that it may be.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;

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
    /// The current frame's payload is settings; the one that is coming, so far.
    setting: Option<([u8; SETTING_BYTES], usize)>,
    /// Since when the peer has begun something that it has to finish.
    unfinished: Option<Instant>,
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
            setting: None,
            unfinished: Some(now),
            settled: false,
            goaway: None,
        }
    }

    /// True once the peer's first SETTINGS have come.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Since when the peer owes us the end of what it has begun: its preface with the first SETTINGS, or a header block.
    pub const fn unfinished(&self) -> Option<Instant> {
        self.unfinished
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
    /// The peer floods us or breaks a rule. What came before that is good.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Stop> {
        let mut rest = bytes;
        let looked = self.look(&mut rest, now);
        looked.map_err(|fault| Stop { fault, before: bytes.len() - rest.len() })
    }

    /// Looks at `bytes` until none are left, or leaves those that are wrong.
    fn look(&mut self, bytes: &mut &[u8], now: Instant) -> Result<(), Fault> {
        *bytes = skip(bytes, &mut self.preface);
        loop {
            if self.setting.is_some() {
                self.settings(bytes)?;
            } else {
                if self.last_stream.0 > 0 {
                    *bytes = self.last_stream(bytes);
                }
                *bytes = skip(bytes, &mut self.payload);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            // Nearly always the whole header is there.
            if self.filled == 0
                && let Some((header, rest)) = bytes.split_first_chunk()
            {
                self.frame(*header, now)?;
                *bytes = rest;
                continue;
            }
            let taken = bytes.len().min(HEADER_BYTES - self.filled);
            let (head, rest) = bytes.split_at(taken);
            if let Some(room) = self.header.get_mut(self.filled..self.filled + taken) {
                room.copy_from_slice(head);
            }
            self.filled += taken;
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.frame(self.header, now)?;
            }
            *bytes = rest;
        }
    }

    /// Reads settings, and leaves the first one that cannot be.
    fn settings(&mut self, bytes: &mut &[u8]) -> Result<(), Fault> {
        let (mut setting, mut filled) = self.setting.unwrap_or_default();
        while self.payload > 0 && !bytes.is_empty() {
            let taken = bytes.len().min(SETTING_BYTES - filled);
            let (part, rest) = bytes.split_at(taken);
            if let Some(room) = setting.get_mut(filled..filled + taken) {
                room.copy_from_slice(part);
            }
            filled += taken;
            if filled == SETTING_BYTES {
                let [name @ .., a, b, c, d] = setting;
                if u16::from_be_bytes(name) == INITIAL_WINDOW_SIZE
                    && u32::from_be_bytes([a, b, c, d]) > WINDOW_MAX
                {
                    return Err(Fault::Window);
                }
                filled = 0;
            }
            self.payload = self.payload.saturating_sub(taken);
            *bytes = rest;
        }
        self.setting = (self.payload > 0).then_some((setting, filled));
        Ok(())
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

    fn frame(&mut self, header: [u8; HEADER_BYTES], now: Instant) -> Result<(), Fault> {
        let [a, b, c, kind, flags, ..] = header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.payload = length;
        let ack = flags & flag::ACK != 0;
        if !self.settled && (kind != kind::SETTINGS || ack) {
            return Err(Fault::NoSettings);
        }
        let possible = match kind {
            kind::PRIORITY => length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => length == 4,
            kind::SETTINGS if ack => length == 0,
            kind::SETTINGS => length.is_multiple_of(SETTING_BYTES),
            kind::PING => length == 8,
            kind::GOAWAY => length >= 8,
            _ => true,
        };
        if !possible {
            return Err(Fault::Length);
        }
        match kind {
            kind::DATA if length == 0 && flags & flag::END_STREAM == 0 => self.empty(now),
            kind::DATA => Ok(()),
            kind::HEADERS => {
                self.block = (0, length);
                self.block_goes_on(flags, now);
                if length == 0 {
                    self.empty(now)?
                }
                self.block_bytes()
            }
            kind::CONTINUATION => {
                self.block = (self.block.0 + 1, self.block.1.saturating_add(length));
                self.block_goes_on(flags, now);
                if self.block.0 > CONTINUATIONS_MAX {
                    return Err(Fault::Flood(Flood::Continuation));
                }
                self.block_bytes()
            }
            kind::RST_STREAM if self.role == Role::Server => limit(&mut self.resets, Flood::Reset, now),
            kind::RST_STREAM => Ok(()),
            kind::SETTINGS if ack => Ok(()),
            kind::SETTINGS => {
                if !self.settled {
                    self.settled = true;
                    self.unfinished = None;
                }
                self.setting = (length > 0).then_some(([0; SETTING_BYTES], 0));
                limit(&mut self.settings, Flood::Settings, now)
            }
            kind::PING if ack => Ok(()),
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

    /// A header block begins, goes on or ends with a frame of these flags.
    const fn block_goes_on(&mut self, flags: u8, now: Instant) {
        if flags & flag::END_HEADERS != 0 {
            self.unfinished = None;
        } else if self.unfinished.is_none() {
            self.unfinished = Some(now);
        }
    }

    fn empty(&mut self, now: Instant) -> Result<(), Fault> {
        limit(&mut self.empties, Flood::Empty, now)
    }

    const fn block_bytes(&self) -> Result<(), Fault> {
        if self.block.1 > BLOCK_BYTES_MAX { Err(Fault::Flood(Flood::HeaderBytes)) } else { Ok(()) }
    }
}

fn limit(bucket: &mut Bucket, flood: Flood, now: Instant) -> Result<(), Fault> {
    if bucket.add(now) { Ok(()) } else { Err(Fault::Flood(flood)) }
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
    pub(super) const PRIORITY: u8 = 2;
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
    pub(super) const END_HEADERS: u8 = 4;
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
mod tests;
