//! A new connection for each short exchange, some at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::{EXCHANGE_BYTES, ORDER_BYTES, Order};
use crate::connection::dial;
use crate::flags::Flags;
use crate::result::Measured;

/// One run.
pub(crate) struct Exchanges {
    epoll: std::os::fd::OwnedFd,
    to: SocketAddrV4,
    at_a_time: usize,
    zero: Instant,
    next: u64,
    pub(crate) length: Duration,
}

struct Exchange {
    stream: TcpStream,
    said: [u8; EXCHANGE_BYTES],
    sent: bool,
    got: usize,
    since: u64,
}

impl Exchanges {
    /// Warms up.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, String> {
        let flags = Flags::parse(arguments, &["to", "connections", "milliseconds", "warm-milliseconds"])?;
        let mut exchanges = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?,
            to: flags.needed("to")?,
            at_a_time: flags.count("connections", CONNECTIONS_MAX)?,
            zero: Instant::now(),
            next: 0,
            length: flags.time("milliseconds")?,
        };
        exchanges.measure(flags.time("warm-milliseconds")?)?;
        Ok(exchanges)
    }

    /// Connects again and again for so long, then waits for the last answers.
    pub(crate) fn measure(&mut self, length: Duration) -> Result<Measured, String> {
        let start = self.now();
        let end = start + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut measured =
            Measured { latencies: Vec::with_capacity(1 << 18), waits: Vec::new(), duration: Duration::ZERO };
        let mut places = Vec::new();
        for at in 0..self.at_a_time {
            places.push(Some(self.open(at)?));
        }
        let (mut under_way, mut last) = (places.len(), start);
        let mut events = Vec::with_capacity(CONNECTIONS_MAX);
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
                let Some(Some(exchange)) = places.get_mut(at) else { continue };
                if !exchange.go_on()? {
                    continue;
                }
                let now = self.now();
                measured.latencies.push(now.saturating_sub(exchange.since));
                last = now;
                places[at] = None;
                if now < end {
                    places[at] = Some(self.open(at)?);
                } else {
                    under_way -= 1;
                }
            }
        }
        measured.duration = Duration::from_nanos(last - start);
        Ok(measured)
    }

    fn open(&mut self, at: usize) -> Result<Exchange, String> {
        let mut said = [b'e'; EXCHANGE_BYTES];
        said[..ORDER_BYTES].copy_from_slice(Order::Exchange.bytes());
        said[ORDER_BYTES..ORDER_BYTES + 8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let exchange = Exchange { stream: dial(self.to)?, said, sent: false, got: 0, since: self.now() };
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &exchange.stream, EventData::new_u64(at as u64), interest)
            .map_err(|error| format!("epoll: {error}"))?;
        Ok(exchange)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Exchange {
    /// True when it is over and was right.
    fn go_on(&mut self) -> Result<bool, String> {
        if !self.sent {
            match self.stream.write(&self.said) {
                Ok(EXCHANGE_BYTES) => self.sent = true,
                Ok(count) => return Err(format!("a fresh socket took only {count} bytes")),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(false);
                }
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        let mut bytes = [0; EXCHANGE_BYTES + 1];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) if self.got == EXCHANGE_BYTES => return Ok(true),
                Ok(0) => return Err(format!("closed after {} bytes", self.got)),
                Ok(count) => {
                    if self.said.get(self.got..self.got + count) != Some(&bytes[..count]) {
                        return Err(format!("wrong bytes from {}", self.got));
                    }
                    self.got += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
        }
    }
}

const CONNECTIONS_MAX: usize = 1_000;
/// How often it is looked whether answers are overdue.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long the last answers may take, in ns.
const GRACE: u64 = 10_000_000_000;
