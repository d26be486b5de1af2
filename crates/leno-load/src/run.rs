//! The loop: who sends when.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::connection::{Connection, Progress};
use crate::options::Options;
use crate::result::Measured;

/// All connections of one run.
pub(crate) struct Run<'a> {
    options: &'a Options,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Held open, never looked at.
    _idle: Vec<Connection>,
    buffer: Vec<u8>,
    /// The next of the options' requests.
    next: usize,
    /// All times are since then.
    zero: Instant,
}

/// One stretch of load.
struct Stretch {
    /// Nothing is sent from here on; ns since the run's zero.
    end: u64,
    /// Open loop: the next request is due then, and the following ones by this much later.
    due: u64,
    step: Option<u64>,
    /// Open loop: connections that wait for a request, longest first, and requests that wait for a connection.
    free: VecDeque<usize>,
    queue: VecDeque<u64>,
    under_way: usize,
    measured: Measured,
}

impl<'a> Run<'a> {
    /// Connects, has a first right answer on each connection, and warms up.
    pub(crate) fn start(options: &'a Options) -> Result<Self, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
        let open = |number: usize| {
            let request = &options.requests[number % options.requests.len()];
            Connection::open(options.to, request, &options.body)
                .map_err(|error| format!("connection {number}: {error}"))
        };
        let idle = (0..options.idle).map(open).collect::<Result<_, _>>()?;
        let connections = if options.close {
            Vec::new()
        } else {
            (0..options.connections).map(open).collect::<Result<_, _>>()?
        };
        let mut run = Self {
            options,
            epoll,
            connections,
            _idle: idle,
            buffer: vec![0; BUFFER_BYTES],
            next: 0,
            zero: Instant::now(),
        };
        for at in 0..run.connections.len() {
            run.watch(at)?;
        }
        let mut answered = 0;
        for _ in 0..WARM_TURNS_MAX {
            if options.warm.is_zero() || (answered > 0 && answered >= options.warm_requests) {
                break;
            }
            answered += run.measure(options.warm)?.answers();
        }
        Ok(run)
    }

    /// Makes load for so long, then waits for the last answers.
    pub(crate) fn measure(&mut self, length: Duration) -> Result<Measured, String> {
        let start = self.now();
        let step = self.options.rate.map(|rate| 1_000_000_000 / u64::from(rate));
        let mut stretch = Stretch {
            end: start + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2),
            due: start + step.unwrap_or(0),
            step,
            free: VecDeque::new(),
            queue: VecDeque::new(),
            under_way: 0,
            measured: Measured {
                latencies: Vec::with_capacity(1 << 20),
                waits: Vec::new(),
                duration: Duration::ZERO,
            },
        };
        // Edges of a clock that wakes us exactly: the usual timeouts have 50 us of slack.
        let timer = self.timer(step.unwrap_or(TICK))?;
        for at in 0..self.options.connections {
            if self.options.close {
                // Fresh ones only: the last stretch's are closed.
                let connection = Connection::dial(self.options.to)?;
                if at < self.connections.len() {
                    self.connections[at] = connection;
                } else {
                    self.connections.push(connection);
                }
                self.watch(at)?;
            }
            if step.is_some() {
                stretch.free.push_back(at);
            } else {
                let now = self.now();
                self.send(at, now, &mut stretch)?;
            }
        }
        let mut last_answer = start;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let now = self.now();
            self.send_due(now, &mut stretch)?;
            let nothing_left = stretch.queue.is_empty() && stretch.under_way == 0;
            if now >= stretch.end && nothing_left {
                break;
            }
            if now > stretch.end + GRACE {
                let missing = stretch.under_way + stretch.queue.len();
                return Err(format!(
                    "{missing} answers still missing {} s after the end",
                    GRACE / 1_000_000_000
                ));
            }
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in events.drain(..) {
                let data = event.data.u64();
                if data == CLOCK {
                    // An interval goes on only when its expiries are read.
                    let _ = rustix::io::read(&timer, &mut [0; 8]);
                } else {
                    let at = usize::try_from(data).map_err(|error| error.to_string())?;
                    self.handle(at, event.flags, &mut stretch, &mut last_answer)?;
                }
            }
        }
        stretch.measured.duration = Duration::from_nanos(last_answer - start);
        Ok(stretch.measured)
    }

    #[inline]
    fn handle(
        &mut self,
        at: usize,
        flags: EventFlags,
        stretch: &mut Stretch,
        last_answer: &mut u64,
    ) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let named = |error: String| format!("connection {at}: {error}");
        if flags.contains(EventFlags::OUT) && connection.since.is_some() {
            connection.send_rest(&self.options.requests).map_err(named)?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        let mut progress = connection.receive(&mut self.buffer, &self.options.body).map_err(named)?;
        if progress == Progress::Answered {
            let now = self.now();
            let connection = &mut self.connections[at];
            if let Some(since) = connection.since.take() {
                stretch.measured.latencies.push(now.saturating_sub(since));
                stretch.under_way -= 1;
                *last_answer = now;
            }
            if !self.options.close {
                return self.free(at, now, stretch);
            }
            // The end of the connection may have come with the same edge.
            progress = connection.receive(&mut self.buffer, &self.options.body).map_err(named)?;
        }
        match progress {
            Progress::Closed if self.options.close => {
                if self.now() < stretch.end {
                    let since = self.now();
                    self.connections[at] = Connection::dial(self.options.to).map_err(named)?;
                    self.watch(at)?;
                    return self.send(at, since, stretch);
                }
                Ok(())
            }
            Progress::Closed => Err(named("closed between two requests".into())),
            Progress::Waiting | Progress::Answered => Ok(()),
        }
    }

    /// A connection has nothing to do: the next request, if there is one.
    #[inline]
    fn free(&mut self, at: usize, now: u64, stretch: &mut Stretch) -> Result<(), String> {
        if stretch.step.is_none() {
            return if now < stretch.end { self.send(at, now, stretch) } else { Ok(()) };
        }
        match stretch.queue.pop_front() {
            Some(due) => {
                stretch.measured.waits.push(now.saturating_sub(due));
                self.send(at, due, stretch)
            }
            None => {
                stretch.free.push_back(at);
                Ok(())
            }
        }
    }

    /// Open loop: what is due by now goes out, or waits for a free connection; its time runs since it was due.
    fn send_due(&mut self, now: u64, stretch: &mut Stretch) -> Result<(), String> {
        let Some(step) = stretch.step else { return Ok(()) };
        while stretch.due <= now && stretch.due < stretch.end {
            let due = stretch.due;
            stretch.due += step;
            match stretch.free.pop_front() {
                Some(at) => {
                    stretch.measured.waits.push(now - due);
                    self.send(at, due, stretch)?;
                }
                None if stretch.queue.len() < QUEUE_MAX => stretch.queue.push_back(due),
                None => return Err(format!("more than {QUEUE_MAX} requests wait for a connection")),
            }
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, at: usize, since: u64, stretch: &mut Stretch) -> Result<(), String> {
        let which = self.next;
        self.next = if which + 1 == self.options.requests.len() { 0 } else { which + 1 };
        stretch.under_way += 1;
        self.connections[at]
            .send(which, &self.options.requests, since)
            .map_err(|error| format!("connection {at}: {error}"))
    }

    fn watch(&self, at: usize) -> Result<(), String> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &self.connections[at].stream, EventData::new_u64(at as u64), flags)
            .map_err(|error| format!("epoll: {error}"))
    }

    fn timer(&self, step: u64) -> Result<OwnedFd, String> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(|error| format!("timer: {error}"))?;
        let time = Timespec {
            tv_sec: i64::try_from(step / 1_000_000_000).unwrap_or(0),
            tv_nsec: i64::try_from(step % 1_000_000_000).unwrap_or(0),
        };
        let both = Itimerspec { it_interval: time, it_value: time };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &both)
            .map_err(|error| format!("timer: {error}"))?;
        epoll::add(&self.epoll, &timer, EventData::new_u64(CLOCK), EventFlags::IN | EventFlags::ET)
            .map_err(|error| format!("epoll: {error}"))?;
        Ok(timer)
    }

    #[inline]
    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How often the warm-up is repeated at most.
const WARM_TURNS_MAX: usize = 60;
/// Large answers are read in few calls.
const BUFFER_BYTES: usize = 256 * 1024;
/// Events per wake-up.
const EVENTS: usize = 512;
/// What the timer's events are called.
const CLOCK: u64 = u64::MAX;
/// Closed loop: how often the end is looked for when no answer comes, in ns.
const TICK: u64 = 50_000_000;
/// How long the last answers may take, in ns.
const GRACE: u64 = 10_000_000_000;
/// More waiting requests mean that the candidate is hopelessly behind.
const QUEUE_MAX: usize = 100_000;
