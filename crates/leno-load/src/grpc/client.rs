//! The caller: some connections with some calls at a time on each, closed loop.

use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::{AUTHORITY, BODY_BYTES, CONTENT_TYPE, MESSAGE_BYTES, Name, PATH, check, message, remembered};
use crate::flags::Flags;
use crate::h2::{self, Fields, Progress, Sending, Side, Wire};
use crate::result::Measured;

/// All connections of one run.
pub(crate) struct Client {
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    zero: Instant,
    pub(crate) length: Duration,
}

struct Connection {
    wire: Wire,
    calls: Calls,
}

/// The calls of one connection.
struct Calls {
    slots: Vec<Call>,
    /// Which slots were answered by what was just read.
    answered: Vec<usize>,
    /// Which wait for the connection to take more.
    waiting: Vec<usize>,
    next_stream: u32,
    next_number: u64,
    /// Names and values of a call: the first time in full, then by what the other end remembers.
    first: bool,
}

/// A place for one call at a time.
struct Call {
    /// 0: free.
    stream: u32,
    number: u64,
    /// When it was sent, in ns since the run's zero.
    since: u64,
    have_head: bool,
    got: usize,
}

impl Client {
    /// Connects and warms up; at least one call is answered on every stream.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, String> {
        let known = ["to", "connections", "streams", "milliseconds", "warm-milliseconds"];
        let flags = Flags::parse(arguments, &known)?;
        let to: SocketAddrV4 = flags.needed("to")?;
        let (count, streams) =
            (flags.count("connections", CONNECTIONS_MAX)?, flags.count("streams", STREAMS_MAX)?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
        let mut connections = Vec::new();
        for number in 0..count {
            let connection = Connection::open(to, streams, (number as u64) << 40)
                .map_err(|error| format!("connection {number}: {error}"))?;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&epoll, &connection.wire.stream, EventData::new_u64(number as u64), interest)
                .map_err(|error| format!("epoll: {error}"))?;
            connections.push(connection);
        }
        let length = flags.time("milliseconds")?;
        let buffer = vec![0; BUFFER_BYTES];
        let mut client = Self { epoll, connections, buffer, zero: Instant::now(), length };
        client.measure(flags.time("warm-milliseconds")?)?;
        Ok(client)
    }

    /// Keeps every stream busy for so long, then waits for the last answers.
    pub(crate) fn measure(&mut self, length: Duration) -> Result<Measured, String> {
        let start = self.now();
        let end = start + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut measured =
            Measured { latencies: Vec::with_capacity(1 << 20), waits: Vec::new(), duration: Duration::ZERO };
        let mut under_way = 0;
        for connection in &mut self.connections {
            for slot in 0..connection.calls.slots.len() {
                connection.calls.call(slot, start, &mut connection.wire.sending);
                under_way += 1;
            }
            connection.wire.flush()?;
        }
        let mut last = start;
        let mut events = Vec::with_capacity(EVENTS);
        while under_way > 0 {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            if self.now() > end + GRACE {
                return Err(format!(
                    "{under_way} answers still missing {} s after the end",
                    GRACE / 1_000_000_000
                ));
            }
            for event in events.drain(..) {
                let at = usize::try_from(event.data.u64()).map_err(|error| error.to_string())?;
                let named = |error: String| format!("connection {at}: {error}");
                let Connection { wire, calls } = &mut self.connections[at];
                if { event.flags }.intersects(!EventFlags::OUT)
                    && wire.receive(&mut self.buffer, calls).map_err(named)? == Progress::Closed
                {
                    return Err(named("closed within a call".into()));
                }
                let now = u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX);
                for _ in 0..calls.answered.len() {
                    let Some(slot) = calls.answered.pop() else { break };
                    measured.latencies.push(now.saturating_sub(calls.slots[slot].since));
                    last = now;
                    if now < end {
                        calls.call(slot, now, &mut wire.sending);
                    } else {
                        under_way -= 1;
                    }
                }
                wire.flush().map_err(named)?;
            }
        }
        measured.duration = Duration::from_nanos(last - start);
        Ok(measured)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Connection {
    fn open(to: SocketAddrV4, streams: usize, first_number: u64) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&to.into(), PATIENCE)
            .map_err(|error| format!("connect to {to}: {error}"))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_nonblocking(true))
            .map_err(|error| error.to_string())?;
        let free = || Call { stream: 0, number: 0, since: 0, have_head: false, got: 0 };
        let calls = Calls {
            slots: (0..streams).map(|_| free()).collect(),
            answered: Vec::new(),
            waiting: Vec::new(),
            next_stream: 1,
            next_number: first_number,
            first: true,
        };
        Ok(Self { wire: Wire::client(stream), calls })
    }
}

impl Calls {
    /// Begins a call in a free slot.
    #[inline]
    fn call(&mut self, slot: usize, since: u64, out: &mut Sending) {
        let number = self.next_number;
        self.next_number += 1;
        self.slots[slot] = Call { stream: 0, number, since, have_head: false, got: 0 };
        if out.spend(MESSAGE_BYTES) {
            self.send(slot, out);
        } else {
            self.waiting.push(slot);
        }
    }

    fn send(&mut self, slot: usize, out: &mut Sending) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let call = &mut self.slots[slot];
        call.stream = stream;
        if std::mem::take(&mut self.first) {
            out.frame(h2::HEADERS, h2::END_HEADERS, stream, &first_head());
        } else {
            out.frame(h2::HEADERS, h2::END_HEADERS, stream, HEAD);
        }
        out.frame(h2::DATA, h2::END_STREAM, stream, &message(call.number));
    }

    #[inline]
    fn find(&self, stream: u32) -> Result<usize, String> {
        let found = self.slots.iter().position(|call| call.stream == stream);
        found.ok_or_else(|| format!("an answer on stream {stream}, on which nobody asked"))
    }
}

impl Side for Calls {
    #[inline]
    fn head(&mut self, _: &mut Sending, stream: u32, fields: &Fields, end: bool) -> Result<(), String> {
        let slot = self.find(stream)?;
        let call = &mut self.slots[slot];
        let wrong = |what: &str| {
            let all: Vec<String> = fields
                .iter()
                .map(|(name, value)| {
                    format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                })
                .collect();
            Err(format!("{what}: {}", all.join(", ")))
        };
        if !call.have_head {
            if fields.get(b":status") != Some(b"200") || end {
                return wrong("not the head of an answer");
            }
            if fields.get(b"content-type") != Some(CONTENT_TYPE) {
                return wrong("no gRPC");
            }
            call.have_head = true;
            return Ok(());
        }
        if !end || fields.get(b"grpc-status") != Some(b"0") {
            return wrong("not a good end");
        }
        if call.got != MESSAGE_BYTES {
            return Err(format!("{} bytes of a message of {BODY_BYTES}", call.got));
        }
        call.stream = 0;
        self.answered.push(slot);
        Ok(())
    }

    #[inline]
    fn data(&mut self, _: &mut Sending, stream: u32, bytes: &[u8], end: bool) -> Result<(), String> {
        let slot = self.find(stream)?;
        let call = &mut self.slots[slot];
        if end {
            return Err("an answer without trailers".into());
        }
        let until = call.got + bytes.len();
        if message(call.number).get(call.got..until) != Some(bytes) {
            check(bytes)?;
            return Err("another call's message".into());
        }
        call.got = until;
        Ok(())
    }

    fn reset(&mut self, stream: u32, code: u32) -> Result<(), String> {
        // A stream that is over may be reset with NO_ERROR.
        if self.find(stream).is_ok() {
            Err(format!("stream {stream} was reset, code {code}"))
        } else {
            Ok(())
        }
    }

    fn credit(&mut self, out: &mut Sending) -> Result<(), String> {
        while let Some(slot) = self.waiting.pop() {
            if !out.spend(MESSAGE_BYTES) {
                self.waiting.push(slot);
                break;
            }
            self.send(slot, out);
        }
        Ok(())
    }
}

/// POST, http; then all that the other end shall remember.
fn first_head() -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    remembered(Name::Known(4), PATH, &mut head);
    remembered(Name::Known(1), AUTHORITY, &mut head);
    remembered(Name::Known(31), CONTENT_TYPE, &mut head);
    remembered(Name::New(b"te"), b"trailers", &mut head);
    remembered(Name::Known(58), b"leno-load", &mut head);
    head
}

/// The same, remembered: the youngest has the number 62.
const HEAD: &[u8] = &[0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
const CONNECTIONS_MAX: usize = 10_000;
/// What servers allow where nobody says otherwise.
const STREAMS_MAX: usize = 100;
const BUFFER_BYTES: usize = 64 * 1024;
/// Events per wake-up.
const EVENTS: usize = 512;
/// How often it is looked whether answers are overdue.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long the last answers may take, in ns.
const GRACE: u64 = 10_000_000_000;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
