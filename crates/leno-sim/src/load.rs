//! A service under load: callers, each with its own balancer, and instances that are slow, fail, queue, come and go.
//!
//! What Leno's callers do is decided by the real machines of `leno-core`; beside them the same load is put on models of
//! Envoy and Linkerd with their documented defaults ([`peers`]), so that a figure has something to be compared with. The
//! models know what those proxies decide, not what they cost.

use std::net::SocketAddr;

use leno_core::admission::{Class, Ticket};
use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

use crate::agenda::Agenda;

mod gradient;
pub mod host;
pub mod leno;
pub mod peers;
pub mod suite;
pub mod tail;
pub mod zones;

use host::{Host, HostPlan, Later, Served};

/// From a caller to an instance, or back.
const HOP: Duration = Duration::from_micros(100);
/// The same between two zones.
const FAR_HOP: Duration = Duration::from_micros(500);

/// How long a connection attempt takes that nobody answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens in one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The instances.
    pub hosts: Vec<HostPlan>,
    /// Callers, each with what it alone has learnt.
    pub callers: usize,
    /// Requests per second, of all callers together, from when on.
    pub rates: Vec<(Instant, u64)>,
    /// Requests that arrive at one moment.
    pub bursts: Vec<(Instant, usize)>,
    /// The instances that the callers are told of, from when on.
    pub told: Vec<(Instant, Vec<usize>)>,
    /// When the last request arrives.
    pub length: Duration,
    /// Requests that arrive before this are not measured.
    pub measured_from: Instant,
    /// How long a request may take.
    pub timeout: Duration,
    /// Of a hundred requests so many are of each class; the rest is of [`Class::Normal`].
    pub classes: Vec<(Class, u64)>,
    /// Where the instances and the callers are; empty: all in one place.
    pub zones: Places,
}

/// The zones of instances and callers, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Of each instance.
    pub hosts: Vec<usize>,
    /// Of each caller.
    pub callers: Vec<usize>,
}

impl Places {
    fn hop(&self, caller: usize, host: usize) -> Duration {
        if self.hosts.get(host) == self.callers.get(caller) || self.hosts.is_empty() { HOP } else { FAR_HOP }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests that arrived, measured or not.
    pub arrived: u64,
    /// Requests that were measured.
    pub requests: u64,
    /// Those that were not answered well.
    pub failed: u64,
    /// Times that requests reached an instance, retries and second attempts included.
    pub reached: u64,
    /// Of these, the times of requests that were measured.
    pub asked: u64,
    /// How long the good ones took, sorted.
    pub latencies: Vec<Duration>,
    /// Requests that were measured and those that failed, by class.
    pub by_class: [(u64, u64); Class::ALL.len()],
    /// Good answers in each second of the run, those that are not measured too.
    pub by_second: Vec<u64>,
    /// What the first instance's gate let in at the end of each tenth of a second.
    pub limits: Vec<u32>,
    /// Requests by instance.
    pub by_host: Vec<u64>,
    /// Instances that were put out because of their answers, each time.
    pub ejected: Vec<usize>,
    /// Requests that reached an instance in another zone than their caller's.
    pub crossed: u64,
}

/// How a caller's request ended, or what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A connection to this instance.
    Dial(usize),
    /// Its answer.
    Send(usize),
    /// The other attempt's answer.
    GoOn,
    /// A place under a limit: it looks again after so long.
    Wait(Duration),
    /// It is over; true when it was answered well.
    Over(bool),
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// The connection stands.
    Connected,
    /// Nobody accepted it.
    Refused,
    /// An answer of this status.
    Answer(u16),
    /// The instance's sidecar did not let it in.
    Shed,
    /// The connection broke before an answer.
    Broke,
    /// The request's time is over.
    TimedOut,
}

/// What chooses instances for one caller.
pub trait Caller {
    /// The instances that there are now.
    fn told(&mut self, hosts: &[usize], now: Instant);
    /// A request, with its number.
    fn arrives(&mut self, number: usize, deadline: Instant, now: Instant, rng: &mut Rng) -> Step;
    /// A request that waits looks again.
    fn looks(&mut self, _number: usize, _now: Instant, _rng: &mut Rng) -> Step {
        Step::Over(false)
    }
    /// When a request that waits would get a second attempt beside the one that was just begun.
    fn hedge_at(&self, _number: usize) -> Option<Instant> {
        None
    }
    /// That is now: the instance for it, if there is one.
    fn hedges(&mut self, _number: usize, _now: Instant, _rng: &mut Rng) -> Option<usize> {
        None
    }
    /// What came of that second attempt.
    fn back_of_second(&mut self, _number: usize, _back: Back, _now: Instant, _rng: &mut Rng) -> Step {
        Step::Over(false)
    }
    /// What came of the last step of a request.
    fn back(&mut self, number: usize, back: Back, now: Instant, rng: &mut Rng) -> Step;
    /// Instances put out since this was last asked.
    fn ejected(&mut self) -> Vec<usize> {
        Vec::new()
    }
}

/// The address of an instance.
pub fn address(host: usize) -> SocketAddr {
    ([127, 0, 0, 1], 1000 + host as u16).into()
}

enum Event {
    Arrive,
    Burst(usize),
    Told(usize),
    /// An attempt of a request, by its number and how many attempts it had.
    Dialed(usize, u32),
    Reaches(usize, u32),
    /// An instance is done with something.
    Served(usize, Served),
    /// Somebody's wait at an instance's gate is over.
    GiveUp(usize, Ticket),
    /// It is looked what the gates let in.
    Note,
    Back(usize, u32, Back),
    Deadline(usize),
    Look(usize),
    Hedge(usize),
}

struct Request {
    caller: usize,
    arrived: Instant,
    host: usize,
    attempt: u32,
    /// A second attempt beside it: where, and its number.
    second: Option<(usize, u32)>,
    over: bool,
    class: Class,
}

impl Request {
    fn host_of(&self, attempt: u32) -> usize {
        self.second.filter(|(_, second)| *second == attempt).map_or(self.host, |(host, _)| host)
    }
}

/// Runs `plan` with one caller made by `caller` for each.
pub fn run(plan: &Plan, seed: u64, mut caller: impl FnMut(u64) -> Box<dyn Caller>) -> Figures {
    let mut agenda = Agenda::default();
    agenda.plan(Duration::ZERO, Event::Arrive);
    agenda.plan(Duration::ZERO, Event::Note);
    for (at, (when, _)) in plan.bursts.iter().enumerate() {
        agenda.plan_at(*when, Event::Burst(at));
    }
    for (at, (when, _)) in plan.told.iter().enumerate() {
        agenda.plan_at(*when, Event::Told(at));
    }
    let mut run = Run {
        plan,
        rng: Rng::new(seed),
        callers: (0..plan.callers).map(|at| caller(seed.wrapping_mul(31).wrapping_add(at as u64))).collect(),
        hosts: plan.hosts.iter().map(Host::new).collect(),
        requests: Vec::new(),
        figures: Figures { by_host: vec![0; plan.hosts.len()], ..Figures::default() },
        agenda,
    };
    if plan.told.is_empty() {
        let all: Vec<usize> = (0..plan.hosts.len()).collect();
        run.callers.iter_mut().for_each(|caller| caller.told(&all, Instant::ZERO));
    } else {
        run.callers.iter_mut().for_each(|caller| caller.told(&plan.told[0].1, Instant::ZERO));
    }
    while let Some(event) = run.agenda.pop() {
        run.happen(event);
    }
    run.figures.latencies.sort_unstable();
    let seconds = plan.length.as_secs() as usize;
    run.figures.by_second.resize(run.figures.by_second.len().max(seconds), 0);
    run.figures
}

struct Run<'p> {
    plan: &'p Plan,
    rng: Rng,
    callers: Vec<Box<dyn Caller>>,
    hosts: Vec<Host>,
    requests: Vec<Request>,
    figures: Figures,
    agenda: Agenda<Event>,
}

impl Run<'_> {
    fn happen(&mut self, event: Event) {
        let now = self.agenda.now();
        match event {
            Event::Arrive => {
                self.arrive();
                let rate = self.plan.rates.iter().rev().find(|(from, _)| *from <= now).map_or(1, |(_, r)| *r);
                let gap = Duration::from_secs_f64(exponential(&mut self.rng) / rate.max(1) as f64);
                if now.after(gap) < Instant::ZERO.after(self.plan.length) {
                    self.agenda.plan(gap, Event::Arrive);
                }
            }
            Event::Burst(at) => (0..self.plan.bursts[at].1).for_each(|_| self.arrive()),
            Event::Told(at) => {
                let hosts = &self.plan.told[at].1;
                self.callers.iter_mut().for_each(|caller| caller.told(hosts, now));
            }
            Event::Dialed(number, attempt) => {
                let host = self.requests[number].host_of(attempt);
                let back = if self.hosts[host].accepts(now) { Back::Connected } else { Back::Refused };
                self.back(number, attempt, back);
            }
            Event::Reaches(number, attempt) => {
                let host = self.requests[number].host_of(attempt);
                self.figures.reached += 1;
                self.figures.asked += u64::from(self.requests[number].arrived >= self.plan.measured_from);
                self.figures.by_host[host] += 1;
                let far = self.hop(number) != HOP;
                self.figures.crossed += u64::from(far);
                let Request { class, arrived, .. } = self.requests[number];
                let deadline = arrived.after(self.plan.timeout);
                let (agenda, rng) = (&mut self.agenda, &mut self.rng);
                self.hosts[host]
                    .take(number, attempt, class, deadline, now, rng, |it| plan(agenda, host, it));
            }
            Event::Served(host, served) => {
                let agenda = &mut self.agenda;
                let answer = self.hosts[host].done(served, now, &mut self.rng, |it| plan(agenda, host, it));
                if let Some((number, attempt, back)) = answer {
                    let zones = &self.plan.zones;
                    agenda.plan(
                        zones.hop(self.requests[number].caller, host),
                        Event::Back(number, attempt, back),
                    );
                }
            }
            Event::GiveUp(host, ticket) => {
                let agenda = &mut self.agenda;
                self.hosts[host].give_up(ticket, now, &mut self.rng, |it| plan(agenda, host, it));
            }
            Event::Note => {
                self.figures.limits.extend(self.hosts[0].limit());
                if now < Instant::ZERO.after(self.plan.length) {
                    self.agenda.plan(Duration::from_millis(100), Event::Note);
                }
            }
            Event::Back(number, attempt, back) => self.back(number, attempt, back),
            Event::Look(number) | Event::Hedge(number) if self.requests[number].over => {}
            Event::Look(number) => {
                let caller = self.requests[number].caller;
                let step = self.callers[caller].looks(number, now, &mut self.rng);
                self.step(number, 0, step);
            }
            Event::Hedge(number) => {
                let caller = self.requests[number].caller;
                if let Some(host) = self.callers[caller].hedges(number, now, &mut self.rng) {
                    let request = &mut self.requests[number];
                    let attempt = request.attempt + 1;
                    request.second = Some((host, attempt));
                    self.agenda.plan(HOP, Event::Dialed(number, attempt));
                }
            }
            Event::Deadline(number) => {
                let attempt = self.requests[number].attempt;
                self.back(number, attempt, Back::TimedOut);
            }
        }
    }

    fn arrive(&mut self) {
        let now = self.agenda.now();
        let (number, caller) = (self.requests.len(), self.rng.below(self.plan.callers as u64) as usize);
        self.figures.arrived += 1;
        let class = self.class();
        self.requests.push(Request {
            caller,
            arrived: now,
            host: 0,
            attempt: 0,
            second: None,
            over: false,
            class,
        });
        let deadline = now.after(self.plan.timeout);
        self.agenda.plan_at(deadline, Event::Deadline(number));
        let step = self.callers[caller].arrives(number, deadline, now, &mut self.rng);
        self.step(number, 0, step);
    }

    /// From a request's caller to the instance that it is sent to.
    fn hop(&self, number: usize) -> Duration {
        let request = &self.requests[number];
        self.plan.zones.hop(request.caller, request.host)
    }

    fn class(&mut self) -> Class {
        if self.plan.classes.is_empty() {
            return Class::Normal;
        }
        let mut drawn = self.rng.below(100);
        for (class, percent) in &self.plan.classes {
            match drawn.checked_sub(*percent) {
                Some(left) => drawn = left,
                None => return *class,
            }
        }
        Class::Normal
    }

    fn back(&mut self, number: usize, attempt: u32, back: Back) {
        let request = &self.requests[number];
        let of_second = request.second.is_some_and(|(_, second)| second == attempt);
        // What comes back of an attempt that was given up is heard by nobody.
        if request.over || request.attempt != attempt && !of_second {
            return;
        }
        let (now, caller) = (self.agenda.now(), &mut self.callers[request.caller]);
        let step = match of_second {
            true => caller.back_of_second(number, back, now, &mut self.rng),
            false => caller.back(number, back, now, &mut self.rng),
        };
        self.step(number, attempt, step);
    }

    /// A request goes on after this attempt.
    fn step(&mut self, number: usize, attempt: u32, step: Step) {
        let now = self.agenda.now();
        let request = &mut self.requests[number];
        match step {
            Step::Dial(host) => {
                let before = request.second.take().map_or(request.attempt, |(_, second)| second);
                (request.host, request.attempt) = (host, before + 1);
                let hop = self.plan.zones.hop(request.caller, host);
                let wait = if self.hosts[host].is_silent(now) { CONNECT_TIMEOUT } else { hop };
                self.agenda.plan(wait, Event::Dialed(number, request.attempt));
                if let Some(at) = self.callers[request.caller].hedge_at(number) {
                    self.agenda.plan_at(at, Event::Hedge(number));
                }
            }
            Step::Send(host) => {
                debug_assert_eq!(host, request.host_of(attempt));
                let hop = self.plan.zones.hop(request.caller, host);
                self.agenda.plan(hop, Event::Reaches(number, attempt));
            }
            Step::GoOn => {}
            Step::Wait(wait) => self.agenda.plan(wait, Event::Look(number)),
            Step::Over(good) => {
                request.over = true;
                if good {
                    let second = (now.as_nanos() / 1_000_000_000) as usize;
                    if self.figures.by_second.len() <= second {
                        self.figures.by_second.resize(second + 1, 0);
                    }
                    self.figures.by_second[second] += 1;
                }
                if request.arrived >= self.plan.measured_from {
                    self.figures.requests += 1;
                    self.figures.failed += u64::from(!good);
                    let (all, failed) = &mut self.figures.by_class[request.class.rank()];
                    *all += 1;
                    *failed += u64::from(!good);
                    if good {
                        self.figures.latencies.push(now.since(request.arrived));
                    }
                }
                let ejected = self.callers[request.caller].ejected();
                self.figures.ejected.extend(ejected);
            }
        }
    }
}

impl Plan {
    /// The same with instances whose sidecars let in what `admission` says.
    #[must_use]
    pub fn admitting(mut self, admission: &host::Admission) -> Self {
        self.hosts.iter_mut().for_each(|host| host.admission = admission.clone());
        self
    }
}

impl Figures {
    /// Good answers per second of the part that was measured, in percent of `capacity`.
    pub fn goodput(&self, capacity: u64, seconds: f64) -> f64 {
        (self.requests - self.failed) as f64 / seconds / capacity as f64 * 100.0
    }

    /// The share of the requests that failed, in percent.
    pub fn failed_percent(&self) -> f64 {
        self.failed as f64 * 100.0 / (self.requests.max(1)) as f64
    }

    /// The share of the requests that left their caller's zone, in percent.
    pub fn crossed_percent(&self) -> f64 {
        self.crossed as f64 * 100.0 / (self.reached.max(1)) as f64
    }

    /// The latency that this share of the good answers did not pass, in thousandths.
    pub fn quantile(&self, thousandths: usize) -> Duration {
        let at = (self.latencies.len() * thousandths / 1000).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).copied().unwrap_or_default()
    }

    /// Adds another run of the same plan.
    pub fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.requests += other.requests;
        self.failed += other.failed;
        self.reached += other.reached;
        self.asked += other.asked;
        self.latencies.extend(&other.latencies);
        self.latencies.sort_unstable();
        self.by_host.resize(other.by_host.len(), 0);
        self.by_host.iter_mut().zip(&other.by_host).for_each(|(mine, theirs)| *mine += theirs);
        self.ejected.extend(&other.ejected);
        self.crossed += other.crossed;
        for (mine, theirs) in self.by_class.iter_mut().zip(other.by_class) {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
        self.by_second.resize(self.by_second.len().max(other.by_second.len()), 0);
        self.by_second.iter_mut().zip(&other.by_second).for_each(|(mine, theirs)| *mine += theirs);
        self.limits.extend(&other.limits);
    }
}

/// Plans what comes of something at an instance.
fn plan(agenda: &mut Agenda<Event>, host: usize, later: Later) {
    match later {
        Later::Served(wait, served) => agenda.plan(wait, Event::Served(host, served)),
        Later::GiveUp(until, ticket) => agenda.plan_at(until, Event::GiveUp(host, ticket)),
        Later::Shed(number, attempt) => agenda.plan(HOP, Event::Back(number, attempt, Back::Shed)),
    }
}

/// A draw of the exponential distribution with mean 1.
pub(crate) fn exponential(rng: &mut Rng) -> f64 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    -(1.0 - uniform).ln()
}
