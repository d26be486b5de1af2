//! Bulk: some connections that receive or send as fast as it goes, for a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Order, Pattern, RECEIPT_BYTES};
use crate::flags::Flags;

/// All connections of one run.
pub(crate) struct Bulk {
    epoll: std::os::fd::OwnedFd,
    order: Order,
    connections: Vec<Connection>,
    pattern: Pattern,
    buffer: Vec<u8>,
    pub(crate) length: Duration,
}

struct Connection {
    stream: TcpStream,
    /// Bytes received, or written, so far.
    place: usize,
    /// Upload: bytes that the far end has acknowledged as right.
    good: usize,
}

/// What was moved, and how long that took.
pub(crate) struct Moved {
    bytes: usize,
    time: Duration,
}

impl Moved {
    /// One line; a thousand bytes count as a request.
    pub(crate) fn json(&self) -> String {
        let micros = self.time.as_secs_f64() * 1e6;
        format!("{{\"requests\":{},\"duration_us\":{micros:.0}}}", self.bytes / 1_000)
    }
}

impl Bulk {
    /// Connects, orders, and warms up; on each connection at least something has arrived.
    pub(crate) fn start(order: Order, arguments: &[String]) -> Result<Self, String> {
        let flags = Flags::parse(arguments, &["to", "connections", "milliseconds", "warm-milliseconds"])?;
        let to: SocketAddrV4 = flags.needed("to")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
        let mut connections = Vec::new();
        for number in 0..flags.count("connections", CONNECTIONS_MAX)? {
            let text = |error: std::io::Error| format!("connection {number}: {error}");
            let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE).map_err(text)?;
            stream.set_nodelay(true).map_err(text)?;
            stream.write_all(order.bytes()).map_err(text)?;
            stream.set_nonblocking(true).map_err(text)?;
            // Levels, not edges: nobody is served between two measurements, and what is there then counts next time.
            let interest =
                if order == Order::Download { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
            epoll::add(&epoll, &stream, EventData::new_u64(number as u64), interest)
                .map_err(|error| format!("epoll: {error}"))?;
            connections.push(Connection { stream, place: 0, good: 0 });
        }
        let mut bulk = Self {
            epoll,
            order,
            connections,
            pattern: Pattern::new(),
            buffer: vec![0; BUFFER_BYTES],
            length: flags.time("milliseconds")?,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            bulk.measure(flags.time("warm-milliseconds")?.max(WARM_MIN))?;
            match bulk.connections.iter().position(|connection| connection.good == 0) {
                None => return Ok(bulk),
                Some(at) if Instant::now() > deadline => {
                    return Err(format!("nothing comes on connection {at}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Moves bytes for so long. What was checked within it counts.
    pub(crate) fn measure(&mut self, length: Duration) -> Result<Moved, String> {
        let start = Instant::now();
        let good = |bulk: &Self| bulk.connections.iter().map(|connection| connection.good).sum::<usize>();
        let before = good(self);
        let mut events = Vec::with_capacity(CONNECTIONS_MAX);
        while start.elapsed() < length {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in events.drain(..) {
                let at = usize::try_from(event.data.u64()).map_err(|error| error.to_string())?;
                let connection = &mut self.connections[at];
                let done = if self.order == Order::Download {
                    connection.receive(&self.pattern, &mut self.buffer)
                } else {
                    connection.send(&self.pattern, { event.flags }.contains(EventFlags::OUT))
                };
                done.map_err(|error| format!("connection {at}: {error}"))?;
            }
        }
        Ok(Moved { bytes: good(self) - before, time: start.elapsed() })
    }
}

impl Connection {
    fn receive(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<(), String> {
        match self.stream.read(buffer) {
            Ok(0) => Err("closed".into()),
            Ok(count) => {
                pattern.check(self.place, &buffer[..count])?;
                self.place += count;
                self.good = self.place;
                Ok(())
            }
            Err(error) if again(&error) => Ok(()),
            Err(error) => Err(format!("receive: {error}")),
        }
    }

    fn send(&mut self, pattern: &Pattern, writable: bool) -> Result<(), String> {
        if writable {
            match self.stream.write(pattern.from(self.place)) {
                Ok(count) => self.place += count,
                Err(error) if again(&error) => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        let mut receipts = [0; 64];
        match self.stream.read(&mut receipts) {
            Ok(0) => Err("closed: the far end has found a wrong byte, or was cut off".into()),
            Ok(count) => {
                self.good += count * RECEIPT_BYTES;
                if self.good <= self.place { Ok(()) } else { Err("more was acknowledged than sent".into()) }
            }
            Err(error) if again(&error) => Ok(()),
            Err(error) => Err(format!("receive: {error}")),
        }
    }
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

const CONNECTIONS_MAX: usize = 1_000;
const BUFFER_BYTES: usize = 256 * 1024;
/// How often the end is looked for when nothing comes.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// A shorter warm-up moves nothing.
const WARM_MIN: Duration = Duration::from_millis(20);
/// How long a connection and its first bytes may take.
const PATIENCE: Duration = Duration::from_secs(10);
