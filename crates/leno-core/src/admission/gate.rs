//! The places before one application, and the lines of those who wait for one.
//!
//! ```text
//!            a place is free                    its answer is over
//!   enter ───────────────────► Admitted ──────────────────────────► leave
//!     │                           ▲
//!     │ none, and one may wait    │ its turn
//!     ├──────► Waiting ───────────┘
//!     │          │ too long, or pushed out by a higher class
//!     └──────► Shed
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::auto::Auto;
use super::class::Class;
use crate::spec::{Concurrency, ConcurrencyLimit};
use crate::time::{Duration, Instant};

/// Requests that wait at one gate, of all workers. Each holds a task and the buffers of its connection or stream, some KiB; and a
/// service that answers 10,000 of them a second has as many come within the time that one waits by default.
pub const WAITING_MAX: usize = 1_000;

/// An answer that is still under way so long after its head is a stream (a download, events, a tunnel) and holds no place
/// any more: what the application works on then is seldom what is short, and a few streams would keep everybody out for hours.
pub const STREAM_AFTER: Duration = Duration::from_secs(1);

/// While the line does not empty, whoever comes waits this part of the time.
pub const CONGESTED_PART: u32 = 4;

/// How often it is looked for streams among those that hold a place.
const STREAMS_LOOKED_FOR: Duration = Duration::from_millis(100);

/// The places before one application.
#[derive(Debug)]
pub struct Gate {
    spec: Concurrency,
    auto: Auto,
    slots: Vec<Slot>,
    /// Slots that are free.
    free: Vec<u32>,
    /// Those who wait, by class, the first come first. Somebody who has gone stays until it would be its turn.
    lines: [VecDeque<Ticket>; Class::ALL.len()],
    /// How many of each class wait.
    waiting: [usize; Class::ALL.len()],
    /// Places that are taken.
    taken: u32,
    /// Since when somebody has waited without a break.
    crowded: Option<Instant>,
    /// When it was last looked for streams.
    looked: Instant,
    /// Those whose standing changed without them being asked.
    rung: Vec<Ticket>,
    /// The last place that was given up while there were too many inside went on to somebody critical.
    passed_on: bool,
    counts: Counts,
}

/// One request at the gate.
#[derive(Clone, Copy, Debug)]
struct Slot {
    serial: u32,
    class: Class,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Waiting {
        since: Instant,
        until: Instant,
    },
    Admitted {
        at: Instant,
        /// When its answer's head came.
        headed: Option<Instant>,
        /// It still holds its place.
        counts: bool,
    },
    Shed,
}

/// A request's name at its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: u32,
    serial: u32,
}

impl Ticket {
    /// The number of its slot: small, and nobody else's as long as the request has not left.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What becomes of somebody who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It has a place.
    Admitted(Ticket),
    /// It waits, until then.
    Waiting(Ticket, Instant),
    /// It is refused, and nothing is known of it any more.
    Shed,
}

/// Where somebody stands who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a place.
    Admitted,
    /// It waits.
    Waiting,
    /// It is refused.
    Shed,
}

/// How a request ended that had a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The application has answered it: how long that took says something about it.
    Answered,
    /// It failed, or somebody gave it up.
    Otherwise,
}

/// What happened at a gate since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests let in, by class.
    pub admitted: [u64; Class::ALL.len()],
    /// Requests refused, by class.
    pub shed: [u64; Class::ALL.len()],
    /// How long those waited who were let in, together.
    pub waited: Duration,
    /// How many of them waited at all.
    pub waits: u64,
}

impl Gate {
    /// One that lets in as many as `spec` says.
    pub fn new(spec: &Concurrency, now: Instant) -> Self {
        Self {
            spec: spec.clone(),
            auto: Auto::new(bounds(spec), now),
            slots: Vec::new(),
            free: Vec::new(),
            lines: Default::default(),
            waiting: [0; Class::ALL.len()],
            taken: 0,
            crowded: None,
            looked: now,
            rung: Vec::new(),
            passed_on: false,
            counts: Counts::default(),
        }
    }

    /// Follows another configuration. Whoever has a place keeps it.
    pub fn configure(&mut self, spec: &Concurrency, now: Instant) {
        if *spec == self.spec {
            return;
        }
        let another_kind = core::mem::discriminant(&self.spec.limit) != core::mem::discriminant(&spec.limit);
        self.spec = spec.clone();
        if another_kind {
            self.auto = Auto::new(bounds(spec), now);
        } else {
            self.auto.bound(bounds(spec));
        }
        self.hand_out(now);
    }

    /// How many are let in at a time.
    pub const fn limit(&self) -> u32 {
        match self.spec.limit {
            ConcurrencyLimit::Fixed(limit) => limit,
            ConcurrencyLimit::Auto { .. } => self.auto.limit(),
        }
    }

    /// Places that are taken.
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().sum()
    }

    /// What happened so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is known of the application.
    pub const fn auto(&self) -> &Auto {
        &self.auto
    }

    /// Somebody comes who may wait until `deadline` at the most.
    pub fn enter(&mut self, class: Class, deadline: Option<Instant>, now: Instant) -> Entered {
        self.note(now);
        self.release_streams(now);
        // Whoever waits has found no place, and who finds one was handed it: nobody is passed by.
        if self.taken < self.limit() {
            let ticket = self.slot(class, State::Free);
            self.admit(ticket, now);
            return Entered::Admitted(ticket);
        }
        self.auto.was_full();
        // Whoever is next waits for as long as one may: it is not overtaken.
        let behind = self.waiting.iter().take(class.rank() + 1).any(|waiting| *waiting > 0);
        let hurries = behind && self.is_congested(now);
        let wait = if hurries { self.spec.queue / CONGESTED_PART } else { self.spec.queue };
        let until = now.after(wait);
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        if until <= now || (self.waiting() >= WAITING_MAX && !self.push_out(class)) {
            self.count_shed(class);
            return Entered::Shed;
        }
        let ticket = self.slot(class, State::Waiting { since: now, until });
        self.stand_in_line(class, ticket);
        self.crowded.get_or_insert(now);
        Entered::Waiting(ticket, until)
    }

    /// Where somebody stands.
    pub fn standing(&self, ticket: Ticket) -> Standing {
        match self.state(ticket) {
            Some(State::Admitted { .. }) => Standing::Admitted,
            Some(State::Waiting { .. }) => Standing::Waiting,
            Some(State::Shed | State::Free) | None => Standing::Shed,
        }
    }

    /// Somebody who waits has waited long enough. It still has to leave.
    pub fn give_up(&mut self, ticket: Ticket, now: Instant) -> Standing {
        self.note(now);
        if matches!(self.state(ticket), Some(State::Waiting { .. })) {
            self.shed(ticket);
            self.tidy();
        }
        self.standing(ticket)
    }

    /// The head of its answer is there.
    pub fn headed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(slot) = self.slot_of(ticket)
            && let State::Admitted { headed, .. } = &mut slot.state
        {
            headed.get_or_insert(now);
        }
    }

    /// Somebody is done, or has gone away while it waited.
    pub fn leave(&mut self, ticket: Ticket, how: Left, now: Instant) {
        self.note(now);
        let Some(slot) = self.slot_of(ticket) else { return };
        let (class, state) = (slot.class, slot.state);
        slot.state = State::Free;
        slot.serial = slot.serial.wrapping_add(1);
        self.free.push(ticket.slot);
        match state {
            State::Admitted { at, counts: true, .. } => {
                self.taken = self.taken.saturating_sub(1);
                if matches!(self.spec.limit, ConcurrencyLimit::Auto { .. }) {
                    self.auto.left((how == Left::Answered).then(|| now.since(at)));
                }
            }
            State::Waiting { .. } => self.leave_line(class),
            State::Admitted { counts: false, .. } | State::Shed | State::Free => {}
        }
        if matches!(self.spec.limit, ConcurrencyLimit::Auto { .. }) {
            self.auto.look(now);
            if matches!(state, State::Admitted { counts: true, .. }) && self.taken >= self.limit() {
                // Every other one: else it would never come to be as few, where all are critical.
                self.passed_on = !self.passed_on;
                if self.passed_on {
                    self.pass_on(now);
                }
            }
        }
        self.hand_out(now);
    }

    /// When the limit has just become much smaller, it takes a while until there are as few inside; that is not at the cost of who
    /// is critical: a place that was given up goes on to them.
    fn pass_on(&mut self, now: Instant) {
        if self.waiting[Class::Critical.rank()] > 0
            && let Some(ticket) = self.next_in_line(Class::Critical, now)
        {
            self.call(ticket, now);
        }
    }

    /// Lets somebody in who waits.
    fn call(&mut self, ticket: Ticket, now: Instant) {
        if let Some(State::Waiting { since, .. }) = self.state(ticket) {
            self.counts.waited += now.since(since);
            self.counts.waits += 1;
        }
        self.admit(ticket, now);
        self.rung.push(ticket);
    }

    /// The next one whose standing changed without it being asked.
    pub fn ring(&mut self) -> Option<Ticket> {
        self.rung.pop()
    }

    /// Hands free places to those who wait.
    fn hand_out(&mut self, now: Instant) {
        while self.taken < self.limit() {
            let Some(ticket) = self.next_in_line(Class::Low, now) else { break };
            self.call(ticket, now);
        }
        self.tidy();
    }

    /// Whose turn it is among those of `lowest` and above: of the highest class that waits, the first come, or the last where the line does not empty.
    fn next_in_line(&mut self, lowest: Class, now: Instant) -> Option<Ticket> {
        let last_first = self.is_congested(now);
        for class in Class::ALL.into_iter().take(lowest.rank() + 1) {
            while self.waiting[class.rank()] > 0 {
                let line = &mut self.lines[class.rank()];
                let ticket = if last_first { line.pop_back() } else { line.pop_front() };
                let Some(ticket) = ticket else { break };
                match self.state(ticket) {
                    Some(State::Waiting { until, .. }) if now < until => {
                        self.leave_line(class);
                        return Some(ticket);
                    }
                    // Its own clock has not told it yet.
                    Some(State::Waiting { .. }) => {
                        self.shed(ticket);
                        self.rung.push(ticket);
                    }
                    _ => {}
                }
            }
        }
        None
    }

    fn is_congested(&self, now: Instant) -> bool {
        self.crowded.is_some_and(|since| now.since(since) >= self.spec.queue)
    }

    /// Makes room in the line for `class` at the cost of the one of the lowest class who has waited longest; false when nobody is
    /// lower.
    fn push_out(&mut self, class: Class) -> bool {
        for lower in Class::ALL.into_iter().rev().take_while(|lower| *lower > class) {
            while let Some(ticket) = self.lines[lower.rank()].pop_front() {
                if matches!(self.state(ticket), Some(State::Waiting { .. })) {
                    self.shed(ticket);
                    self.rung.push(ticket);
                    return true;
                }
            }
        }
        false
    }

    fn admit(&mut self, ticket: Ticket, now: Instant) {
        self.taken += 1;
        if let Some(slot) = self.slot_of(ticket) {
            slot.state = State::Admitted { at: now, headed: None, counts: true };
            let rank = slot.class.rank();
            self.counts.admitted[rank] += 1;
        }
    }

    fn shed(&mut self, ticket: Ticket) {
        let Some(slot) = self.slot_of(ticket) else { return };
        slot.state = State::Shed;
        let class = slot.class;
        self.leave_line(class);
        self.count_shed(class);
    }

    const fn count_shed(&mut self, class: Class) {
        self.counts.shed[class.rank()] += 1;
    }

    /// Whose answers have become streams hold no place any more. Looked for only while places are short.
    fn release_streams(&mut self, now: Instant) {
        if self.taken < self.limit() || now.since(self.looked) < STREAMS_LOOKED_FOR {
            return;
        }
        self.looked = now;
        for slot in &mut self.slots {
            if let State::Admitted { headed: Some(headed), counts, .. } = &mut slot.state
                && *counts
                && now.since(*headed) >= STREAM_AFTER
            {
                *counts = false;
                self.taken = self.taken.saturating_sub(1);
            }
        }
        self.hand_out(now);
    }

    /// Tells what counts the use of the places that time has passed.
    fn note(&mut self, now: Instant) {
        self.auto.pass(self.taken, now);
    }

    fn stand_in_line(&mut self, class: Class, ticket: Ticket) {
        // Those who have gone are mostly the first; where they are not, they do not pile up.
        if self.lines[class.rank()].len() >= 2 * WAITING_MAX {
            let mut line = core::mem::take(&mut self.lines[class.rank()]);
            line.retain(|ticket| matches!(self.state(*ticket), Some(State::Waiting { .. })));
            self.lines[class.rank()] = line;
        }
        self.lines[class.rank()].push_back(ticket);
        self.waiting[class.rank()] += 1;
    }

    const fn leave_line(&mut self, class: Class) {
        let waiting = &mut self.waiting[class.rank()];
        *waiting = waiting.saturating_sub(1);
    }

    /// Where nobody waits, nobody has waited.
    fn tidy(&mut self) {
        for class in Class::ALL {
            if self.waiting[class.rank()] == 0 {
                self.lines[class.rank()].clear();
            }
        }
        if self.waiting() == 0 {
            self.crowded = None;
        }
    }

    fn slot(&mut self, class: Class, state: State) -> Ticket {
        if let Some(slot) = self.free.pop()
            && let Some(free) = self.slots.get_mut(slot as usize)
        {
            (free.class, free.state) = (class, state);
            return Ticket { slot, serial: free.serial };
        }
        self.slots.push(Slot { serial: 0, class, state });
        Ticket { slot: self.slots.len() as u32 - 1, serial: 0 }
    }

    fn slot_of(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.slots.get_mut(ticket.slot as usize).filter(|slot| slot.serial == ticket.serial)
    }

    fn state(&self, ticket: Ticket) -> Option<State> {
        let slot = self.slots.get(ticket.slot as usize).filter(|slot| slot.serial == ticket.serial)?;
        Some(slot.state)
    }
}

const fn bounds(spec: &Concurrency) -> (u32, u32) {
    match spec.limit {
        ConcurrencyLimit::Fixed(limit) => (limit, limit),
        ConcurrencyLimit::Auto { min, max } => (min, max),
    }
}
