//! An instance: some requests at a time, the others in line.

use std::collections::VecDeque;

use leno_core::admission::{Class, Entered, Gate, Left, Standing, Ticket};
use leno_core::rng::Rng;
use leno_core::spec::Concurrency;
use leno_core::time::{Duration, Instant};

use super::gradient::Gradient;
use super::{Back, exponential};

/// An instance, and what becomes of it.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Requests that it works on at a time.
    pub servers: usize,
    /// The mean time for one: half of it fixed, half of it exponential.
    pub mean: Duration,
    /// What it is like, from when on; before the first, [`Mood::Fine`].
    pub moods: Vec<(Instant, Mood)>,
    /// One request of ten takes so many times as long.
    pub tenth: Option<u32>,
    /// What its sidecar lets in.
    pub admission: Admission,
}

/// What the sidecar of an instance lets in.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// Everything.
    #[default]
    All,
    /// As Leno's gate decides.
    Leno(Concurrency),
    /// As Envoy's filter decides by its documented defaults.
    Envoy,
}

/// What an instance is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Fine,
    /// Everything takes so many times as long.
    Slow(u32),
    /// This share of the answers, in percent, is 500, at once.
    Errors(u32),
    /// This share of the answers, in percent, takes so many times as long.
    Tail(u32, u32),
    /// Nobody listens; what it worked on breaks.
    Dead,
    /// It takes no new connections and finishes what it has.
    Stopping,
    /// Connection attempts are never answered.
    Silent,
    /// It has just started: everything takes so many times as long at first, and as it should after so many requests.
    Cold(u32, u32),
}

/// Something that an instance is done with.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    number: usize,
    attempt: u32,
    status: u16,
    /// Its place at the gate, if there is one, and when it was let in.
    ticket: Option<Ticket>,
    at: Instant,
}

pub(super) struct Host {
    plan: HostPlan,
    busy: usize,
    line: VecDeque<Work>,
    served: u32,
    gate: Option<Gate>,
    gradient: Option<Gradient>,
    /// Requests at the gate, by the slots of their tickets.
    at_gate: Vec<Option<(usize, u32)>>,
}

/// A request at the application.
#[derive(Clone, Copy, Debug)]
struct Work {
    number: usize,
    attempt: u32,
    ticket: Option<Ticket>,
    at: Instant,
}

/// What happens at an instance later, or at once.
#[derive(Clone, Copy, Debug)]
pub enum Later {
    /// Something is served after so long.
    Served(Duration, Served),
    /// Somebody's wait at the gate is over then.
    GiveUp(Instant, Ticket),
    /// Somebody was refused.
    Shed(usize, u32),
}

impl Host {
    pub(super) fn new(plan: &HostPlan) -> Self {
        let gate = match &plan.admission {
            Admission::Leno(spec) => Some(Gate::new(spec, Instant::ZERO)),
            Admission::All | Admission::Envoy => None,
        };
        let gradient = matches!(plan.admission, Admission::Envoy).then(Gradient::default);
        Self {
            plan: plan.clone(),
            busy: 0,
            line: VecDeque::new(),
            served: 0,
            gate,
            gradient,
            at_gate: Vec::new(),
        }
    }

    fn mood(&self, now: Instant) -> Mood {
        self.plan.moods.iter().rev().find(|(from, _)| *from <= now).map_or(Mood::Fine, |(_, mood)| *mood)
    }

    pub(super) fn accepts(&self, now: Instant) -> bool {
        !matches!(self.mood(now), Mood::Dead | Mood::Silent | Mood::Stopping)
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.mood(now) == Mood::Silent
    }

    /// What its gate lets in now.
    pub(super) fn limit(&self) -> Option<u32> {
        self.gate.as_ref().map(Gate::limit)
    }

    /// A request arrives that the caller waits for until `deadline`; `later` is called with what comes of it.
    #[allow(clippy::too_many_arguments, reason = "each is a fact about the request")]
    pub(super) fn take(
        &mut self,
        number: usize,
        attempt: u32,
        class: Class,
        deadline: Instant,
        now: Instant,
        rng: &mut Rng,
        mut later: impl FnMut(Later),
    ) {
        if let Some(gradient) = &mut self.gradient
            && !gradient.lets_in(now)
        {
            return later(Later::Shed(number, attempt));
        }
        let Some(gate) = &mut self.gate else {
            return self.begin(Work { number, attempt, ticket: None, at: now }, now, rng, &mut later);
        };
        match gate.enter(class, Some(deadline), now) {
            Entered::Admitted(ticket) => {
                self.begin(Work { number, attempt, ticket: Some(ticket), at: now }, now, rng, &mut later);
            }
            Entered::Waiting(ticket, until) => {
                if self.at_gate.len() <= ticket.slot() {
                    self.at_gate.resize(ticket.slot() + 1, None);
                }
                self.at_gate[ticket.slot()] = Some((number, attempt));
                later(Later::GiveUp(until, ticket));
            }
            Entered::Shed => later(Later::Shed(number, attempt)),
        }
        self.answer_bells(now, rng, &mut later);
    }

    /// Somebody's wait at the gate is over.
    pub(super) fn give_up(
        &mut self,
        ticket: Ticket,
        now: Instant,
        rng: &mut Rng,
        mut later: impl FnMut(Later),
    ) {
        let Some(gate) = &mut self.gate else { return };
        if gate.standing(ticket) == Standing::Waiting && gate.give_up(ticket, now) == Standing::Shed {
            gate.leave(ticket, Left::Otherwise, now);
            if let Some((number, attempt)) = self.at_gate[ticket.slot()].take() {
                later(Later::Shed(number, attempt));
            }
        }
        self.answer_bells(now, rng, &mut later);
    }

    /// Lets those in, or away, whom the gate has called.
    fn answer_bells(&mut self, now: Instant, rng: &mut Rng, later: &mut impl FnMut(Later)) {
        while let Some(ticket) = self.gate.as_mut().and_then(Gate::ring) {
            let Some((number, attempt)) = self.at_gate.get_mut(ticket.slot()).and_then(Option::take) else {
                continue;
            };
            let Some(gate) = &mut self.gate else { return };
            if gate.standing(ticket) == Standing::Admitted {
                self.begin(Work { number, attempt, ticket: Some(ticket), at: now }, now, rng, later);
            } else {
                gate.leave(ticket, Left::Otherwise, now);
                later(Later::Shed(number, attempt));
            }
        }
    }

    fn begin(&mut self, work: Work, now: Instant, rng: &mut Rng, later: &mut impl FnMut(Later)) {
        if self.busy < self.plan.servers {
            self.busy += 1;
            self.serve(work, now, rng, later);
        } else {
            self.line.push_back(work);
        }
    }

    fn serve(&mut self, work: Work, now: Instant, rng: &mut Rng, later: &mut impl FnMut(Later)) {
        let Work { number, attempt, ticket, at } = work;
        let (wait, status) = self.work(now, rng);
        later(Later::Served(wait, Served { number, attempt, status, ticket, at }));
    }

    /// Something is served: who is told what, and the next in line begins.
    pub(super) fn done(
        &mut self,
        served: Served,
        now: Instant,
        rng: &mut Rng,
        mut later: impl FnMut(Later),
    ) -> Option<(usize, u32, Back)> {
        self.served += 1;
        match self.line.pop_front() {
            Some(work) => self.serve(work, now, rng, &mut later),
            None => self.busy -= 1,
        }
        if let Some(gradient) = &mut self.gradient {
            gradient.done(now.since(served.at), now, rng);
        }
        if let (Some(gate), Some(ticket)) = (&mut self.gate, served.ticket) {
            let how = if served.status < 500 { Left::Answered } else { Left::Otherwise };
            gate.leave(ticket, how, now);
        }
        self.answer_bells(now, rng, &mut later);
        let back = match self.mood(now) {
            Mood::Dead => Back::Broke,
            Mood::Silent => return None,
            _ => Back::Answer(served.status),
        };
        Some((served.number, served.attempt, back))
    }

    /// How long a request takes, and what comes of it.
    fn work(&self, now: Instant, rng: &mut Rng) -> (Duration, u16) {
        let mut usual = self.plan.mean.mul_f64(0.5 + 0.5 * exponential(rng));
        if let Some(times) = self.plan.tenth
            && rng.one_in(10)
        {
            usual *= times;
        }
        match self.mood(now) {
            Mood::Slow(times) => (usual * times, 200),
            Mood::Tail(percent, times) if rng.below(100) < u64::from(percent) => (usual * times, 200),
            Mood::Errors(percent) if rng.below(100) < u64::from(percent) => (self.plan.mean / 10, 500),
            Mood::Cold(times, requests) if self.served < requests => {
                let left = f64::from(requests - self.served) / f64::from(requests);
                (usual.mul_f64(1.0 + f64::from(times - 1) * left), 200)
            }
            Mood::Dead => (Duration::ZERO, 200),
            _ => (usual, 200),
        }
    }
}
