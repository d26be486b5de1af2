//! The mesh transport: many streams over one ordered byte stream between two Lenos (TLS 1.3, ALPN `leno/1`).
//!
//! [`Mux`] is one end. It does no I/O: the shell hands it what it read ([`Mux::receive`]) and writes what it has
//! to say ([`Mux::output`]), in one TLS write for everything that became ready in one turn of the worker. In the
//! steady state nothing is allocated: frames are decoded in place, payloads are handed out as slices of the
//! shell's read buffer, frames to send are appended to one buffer.
//!
//! # One turn of the shell
//!
//! 1. Read bytes. Call [`Mux::receive`] until it returns no event; drop what it consumed; act on each event.
//!    For every [`Event::Data`], call [`Mux::release`] once the bytes are out of this process's memory.
//! 2. Send: [`Mux::open`], [`Mux::respond`], [`Mux::send_data`]... Whatever fitted only in part is named again by
//!    [`Mux::next_writable`] when there is room.
//! 3. Write [`Mux::output`], call [`Mux::output_sent`].
//! 4. Sleep until the socket is ready or [`Mux::poll_timeout`] is due, then [`Mux::handle_timeout`].
//!
//! When the socket or the machine fails, [`Mux::next_lost`] names each stream that was cut off, and whether its
//! request can have been seen.
//!
//! # Frames
//!
//! Every frame has an eight-byte header (`frame.rs`): kind, END flag, payload length, stream number.
//!
//! | frame    | on         | payload |
//! |----------|------------|---------|
//! | SETTINGS | connection | magic, version, limits; the first frame of each end, once |
//! | HEAD     | stream     | a message head and metadata (`codec.rs`); the first one opens the stream |
//! | DATA     | stream     | body bytes; spends credit of the stream and of the connection |
//! | TRAILERS | stream     | fields; ends the sender's half |
//! | END      | stream     | nothing; ends the sender's half |
//! | RESET    | stream     | code, whether the application saw a byte; ends both halves |
//! | CREDIT   | both       | bytes that may be sent in addition |
//! | PING, PONG | connection | a number, and the same number back |
//! | DRAIN    | connection | the last stream number that is or will be processed |
//! | CLOSE    | connection | which rule the receiver broke; the last frame |
//!
//! A dialer may open streams before it has read the acceptor's SETTINGS: version 1 guarantees a floor for every
//! limit. A frame kind marked optional is skipped by who does not know it, as are unknown metadata tags and
//! settings, so that a newer Leno can say more to an older one.
//!
//! # What proves that a request was not processed
//!
//! * RESET or an own verdict with [`AppSaw::Nothing`];
//! * a stream number above the one in DRAIN;
//! * a connection that died before the HEAD had wholly left [`Mux::output`].
//!
//! # Drain
//!
//! [`Mux::drain`] announces DRAIN with the highest number, "open no more", and a PING. When its PONG comes, every
//! stream that was opened before the announcement arrived is here, and a second DRAIN names the exact last one.
//! So no request is refused by a drain; a request that races with it either is served or is never sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

pub use codec::{BadHead, Body, HeadIndex, Kind, META_TEXT_BYTES_MAX, Meta};
pub use error::{Code, ConnectionError, Culprit, OpenError, SendError, StreamError, Violation};
pub use event::Event;
pub use limits::Limits;
pub use stream::StreamId;

pub use crate::exchange::AppSaw;
use crate::time::Instant;
use limits::{FLOOR, Settings};
use stream::Table;

mod codec;
mod error;
mod event;
mod frame;
mod limits;
mod receive;
mod send;
mod stream;
#[cfg(test)]
mod tests;

/// Which end of the connection this is. Only the dialer opens streams; its numbers are odd, even ones are kept
/// for the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that connected.
    Dialer,
    /// The end that accepted.
    Acceptor,
}

/// Why [`Mux::poll_timeout`] wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The peer's SETTINGS are due.
    Settings,
    /// The connection was silent; a PING is due.
    Ping,
    /// The answer to a PING is due.
    Pong,
}

/// One end of a transport connection. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Mux {
    /// Which end this is.
    role: Role,
    /// What we allow the peer.
    limits: Limits,
    /// What the peer allows us; the floor until its SETTINGS came.
    peer: Settings,
    /// Whether the peer's SETTINGS came.
    settled: bool,
    /// The open streams.
    table: Table,
    /// Number of the next stream that we open; above [`NUMBER_MAX`] there is none.
    next_local: u32,
    /// Number of the next stream that the peer opens.
    next_remote: u32,

    /// The DATA frame whose payload is being handed out.
    incoming: Option<receive::Incoming>,
    /// DATA bytes we may still send on all streams together.
    send_credit: u32,
    /// DATA bytes the peer may still send on all streams together.
    receive_credit: u32,
    /// Bytes handed to the shell on all streams and not yet released.
    held: u32,
    /// Bytes released for which no connection CREDIT was sent yet.
    due: u32,

    /// Frames to be written, from `out_start` on.
    out: Vec<u8>,
    /// Bytes at the front of `out` that the shell has written.
    out_start: usize,
    /// Bytes ever taken out by the shell.
    out_taken: u64,
    /// Set when something did not fit into the output, cleared when half of it has left.
    out_full: bool,
    /// Streams that wait for room for a head or trailers, first come first served.
    heads: VecDeque<StreamId>,
    /// Streams that wait for room and the connection's credit for data, likewise.
    queue: VecDeque<StreamId>,

    /// When the machine was made: SETTINGS are due from then on.
    created: Instant,
    /// When the last byte came.
    heard: Instant,
    /// The PING whose PONG is out: its number and when it was sent.
    ping: Option<(u64, Instant)>,
    /// PINGs sent so far.
    pings_sent: u64,
    /// PONGs received so far.
    pongs_heard: u64,
    /// PINGs the peer may still send.
    pings: Bucket,
    /// Streams the peer may still cut off.
    resets: Bucket,
    /// Frames that carry nothing that the peer may still send.
    idles: Bucket,

    /// How far our own drain is.
    drain: Drain,
    /// The last stream of ours that the draining peer processes.
    peer_last: Option<u32>,
    /// Slot from which streams above `peer_last` are still to be reported as refused.
    refuse_from: Option<usize>,
    /// Why the connection is over.
    dead: Option<ConnectionError>,
}

/// Our own drain.
///
/// ```text
///   No --drain()--> Announced --PONG--> Final
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Streams are welcome.
    No,
    /// The peer was told to open no more; the PONG to this PING says that it knows.
    Announced(u64),
    /// Every stream the peer will ever open is known.
    Final,
}

impl Mux {
    /// An end of a connection that was just established.
    pub fn new(role: Role, limits: Limits, now: Instant) -> Self {
        let limits = limits.at_least_floor();
        let mut mux = Self {
            role,
            peer: FLOOR,
            settled: false,
            table: Table::default(),
            next_local: 1,
            next_remote: 1,
            incoming: None,
            send_credit: FLOOR.connection_window,
            receive_credit: limits.connection_window,
            held: 0,
            due: 0,
            out: Vec::new(),
            out_start: 0,
            out_taken: 0,
            out_full: false,
            heads: VecDeque::new(),
            queue: VecDeque::new(),
            created: now,
            heard: now,
            ping: None,
            pings_sent: 0,
            pongs_heard: 0,
            pings: Bucket::new(PING_BURST, PINGS_PER_SECOND, now),
            resets: Bucket::new(
                limits.streams_max.saturating_mul(2).max(RESET_BURST),
                RESETS_PER_SECOND,
                now,
            ),
            idles: Bucket::new(IDLE_BURST, IDLES_PER_SECOND, now),
            drain: Drain::No,
            peer_last: None,
            refuse_from: None,
            dead: None,
            limits,
        };
        mux.push_settings();
        mux
    }

    /// The limits in force at this end.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Streams that are not over.
    pub fn streams_open(&self) -> usize {
        self.table.len()
    }

    /// True until the stream is over: both halves ended or reset, and every byte released.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.table.get(stream).is_some()
    }

    /// True when [`Mux::open`] would not fail for want of streams, because of a drain or of a full output.
    pub fn can_open(&self) -> bool {
        self.refuses_open().is_none()
    }

    /// True when either end drains: no new stream is begun.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No || self.peer_last.is_some()
    }

    /// True when the connection has no further use and everything is written: it died, or it drains and its last
    /// stream is over. The shell then closes the socket.
    pub fn is_finished(&self) -> bool {
        let done = match self.role {
            Role::Dialer => self.is_draining(),
            Role::Acceptor => self.drain == Drain::Final,
        };
        self.output().is_empty() && (self.dead.is_some() || (done && self.table.len() == 0))
    }

    /// Why the connection is over, when it is.
    pub const fn error(&self) -> Option<ConnectionError> {
        self.dead
    }

    /// When [`Mux::handle_timeout`] wants to be called, and why. Changes with every call that takes `now`.
    pub fn poll_timeout(&self) -> Option<(Instant, Timeout)> {
        if self.dead.is_some() {
            return None;
        }
        let silence = match self.ping {
            Some((_, sent)) => (self.heard.max(sent).after(self.limits.ping_timeout), Timeout::Pong),
            None => (self.heard.after(self.limits.ping_interval), Timeout::Ping),
        };
        let settings = (self.created.after(self.limits.ping_timeout), Timeout::Settings);
        Some(if !self.settled && settings.0 <= silence.0 { settings } else { silence })
    }

    /// Does what is due at `now`; nothing when it is called early.
    ///
    /// # Errors
    /// The peer was silent for too long. The connection is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        let Some((_, why)) = self.poll_timeout().filter(|(due, _)| *due <= now) else { return Ok(()) };
        match why {
            Timeout::Settings => Err(self.die(ConnectionError::SettingsTimeout)),
            Timeout::Pong => Err(self.die(ConnectionError::PingTimeout)),
            Timeout::Ping => {
                self.push_ping(now);
                Ok(())
            }
        }
    }

    /// Hands out, one by one, the streams that a dead connection cut off, and forgets them; call it until it
    /// returns `None`. The connection takes no further calls that do anything.
    pub fn next_lost(&mut self) -> Option<(StreamId, AppSaw)> {
        if self.dead.is_none() {
            // The socket failed under a healthy machine: nothing is to be written any more.
            self.dead = Some(ConnectionError::Lost);
        }
        let (id, stream) = self.table.next_from(0)?;
        let unsent = stream.head_end > self.out_taken;
        let refused = self.peer_last.is_some_and(|last| id.number > last);
        let local = self.role == Role::Dialer;
        self.forget(id);
        Some((id, if local && (unsent || refused) { AppSaw::Nothing } else { AppSaw::Maybe }))
    }

    /// Ends the connection with `error` and, when the peer is at fault, tells it so.
    fn die(&mut self, error: ConnectionError) -> ConnectionError {
        if self.dead.is_none() {
            self.dead = Some(error);
            self.incoming = None;
            if let ConnectionError::Peer(violation) = error {
                self.push_close(violation);
            }
        }
        error
    }

    /// Removes a stream and gives back the connection credit that it holds.
    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.table.get(id) else { return };
        let held = stream.held;
        self.table.remove(id);
        self.give_back(held);
    }

    /// Removes a stream when it is over.
    fn settle(&mut self, id: StreamId) {
        if self.table.get(id).is_some_and(stream::Stream::is_over) {
            self.table.remove(id);
        }
    }

    /// Panics when the machine's parts contradict each other; for tests.
    pub fn check_invariants(&self) {
        self.table.check_invariants();
        let mut held = 0;
        let mut from = 0;
        while let Some((id, stream)) = self.table.next_from(from) {
            from = id.slot() + 1;
            held += u64::from(stream.held);
            assert!(!stream.is_over(), "stream {} is over and still here", id.number);
            let known = u64::from(stream.held) + u64::from(stream.due) + u64::from(stream.receive_credit);
            assert!(
                known <= u64::from(self.limits.stream_window),
                "stream {} has too much credit",
                id.number
            );
        }
        assert_eq!(held, u64::from(self.held), "held bytes do not add up");
        let coming = self.incoming.as_ref().map_or(0, |frame| frame.left as u64);
        let known = held + coming + u64::from(self.due) + u64::from(self.receive_credit);
        assert_eq!(known, u64::from(self.limits.connection_window), "connection credit leaks");
        assert!(self.out_start <= self.out.len(), "written more than there was");
        let places = 2 * self.table.len() + 2;
        assert!(self.heads.len() <= places && self.queue.len() <= places, "the queues have no bound");
        let most = self.limits.output_bytes_max as usize + CONTROL_RESERVE_BYTES;
        let one_head = self.limits.head_bytes_max as usize + 2 * frame::CONTROL_BYTES_MAX;
        assert!(self.output().len() <= most + one_head, "the output has no bound");
    }
}

/// A token bucket: a burst, refilled at a rate.
#[derive(Clone, Debug)]
struct Bucket {
    /// Tokens left.
    level: u32,
    /// Tokens when full.
    most: u32,
    /// Tokens that come back each second.
    per_second: u32,
    /// When tokens last came back.
    filled: Instant,
}

impl Bucket {
    const fn new(most: u32, per_second: u32, now: Instant) -> Self {
        Self { level: most, most, per_second, filled: now }
    }

    /// Takes one token; false when there is none.
    fn take(&mut self, now: Instant) -> bool {
        if self.level == 0 {
            let each = Duration::from_secs(1) / self.per_second;
            let back = now.since(self.filled).as_nanos() / each.as_nanos();
            self.level = u32::try_from(back).unwrap_or(u32::MAX).min(self.most);
            self.filled = now;
        }
        if self.level == 0 {
            return false;
        }
        self.level -= 1;
        true
    }
}

/// Highest stream number; a connection that reaches it drains. Two thousand million streams take a day at 25,000
/// per second.
const NUMBER_MAX: u32 = (1 << 31) - 1;

/// Interim (1xx) heads on one stream. Real servers send one or two.
pub const INTERIM_HEADS_MAX: u8 = 16;

/// PINGs a peer may send at once, and per second after that. An honest one sends one per silent interval and one
/// per drain (CVE-2019-9512).
pub const PING_BURST: u32 = 16;
const PINGS_PER_SECOND: u32 = 2;

/// Streams a peer may cut off at once: at least this many, and twice as many as it may have open, because a
/// gateway whose clients all leave is honest. Per second after that (CVE-2023-44487).
const RESET_BURST: u32 = 1024;
const RESETS_PER_SECOND: u32 = 1024;

/// Frames without content at once, and per second after that: empty DATA, slivers of CREDIT, optional frames
/// (CVE-2019-9518).
const IDLE_BURST: u32 = 1024;
const IDLES_PER_SECOND: u32 = 256;

/// Room in the output above [`Limits::output_bytes_max`] for frames that cannot wait: RESET, CREDIT, PONG, END.
/// A peer that makes us fill it does not read its answers. 256 KiB are 16,000 RESETs.
const CONTROL_RESERVE_BYTES: usize = 256 << 10;
