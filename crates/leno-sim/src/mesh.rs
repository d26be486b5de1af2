//! Runs a scenario: the real exchange and backend machines, driven as a shell drives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use leno_core::backend::{Backends, COOLING_MAX, Ledgers, Place};
use leno_core::exchange::{Action, AppSaw, ConnectFailure, Ending, Exchange, Input};
use leno_core::head::{Fields, RequestHead};
use leno_core::name::{Label, ServiceId};
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::route::BackendId;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{Balance, EndpointSpec, KnownService, World};
use leno_core::time::{Duration, Instant};
use leno_core::vip::Vips;

use crate::agenda::Agenda;
use crate::model::{Fact, Model, Must, TELLING};
use crate::scenario::{Mood, RequestPlan, Scenario};

mod checks;
mod facts;
mod picks;

use facts::{ensure, live_state, method, mood, promised, usable};

/// What a run came to, for tests that look at more than its success.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests answered by an application, told of a failure, cut, abandoned.
    pub answered: u64,
    /// Clients that were told of a failure by Leno.
    pub told: u64,
    /// Clients that saw an answer break off.
    pub cut: u64,
    /// Clients that left.
    pub left: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Configuration changes.
    pub swaps: u64,
    /// Looks for a place that met a limit.
    pub limited: u64,
}

/// Runs the scenario of `seed` to its end.
///
/// # Errors
/// What went otherwise than promised, with the step.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut mesh = Mesh::new(Scenario::new(seed));
    mesh.run().map_err(|error| {
        format!("seed {seed} step {} at {:?}: {error}", mesh.agenda.planned(), mesh.agenda.now())
    })
}

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A request arrives at the proxy.
    Arrive(usize),
    /// Something happens to an attempt of a request.
    Attempt(usize, usize, Happening),
    /// A wait of a request may be over.
    Timer(usize),
    /// The client of a request leaves.
    Leave(usize),
    /// The client of a request has been told.
    Told(usize),
    /// A request that waits for a place looks again.
    Look(usize),
    /// A configuration change arrives.
    Swap(usize),
}

/// What can happen to an attempt.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Connected,
    NotConnected(ConnectFailure),
    BodyTaken,
    /// The request reaches the endpoint, whether or not anybody waits for the answer.
    Reaches,
    Head,
    Complete,
    Broke(AppSaw, Reason),
}

/// One request under way.
#[derive(Debug)]
struct Run {
    plan: RequestPlan,
    exchange: Exchange,
    model: Model,
    /// The snapshot that it was decided by.
    snapshot: Rc<Snapshot>,
    /// The versions that its rule allows; of a service without rules, any.
    versions: Vec<Option<Label>>,
    /// Version that the first attempt went to.
    version: Option<Option<Label>>,
    attempts: usize,
    /// Where the current attempt goes, and the mood it met there.
    target: Option<(SocketAddr, usize)>,
    /// It waits for a place in this backend until then.
    waits: Option<(Place, BackendId, Instant)>,
    /// When the pending timer event fires.
    timer: Option<Instant>,
    client: Client,
    /// How often an application did what it asks for.
    effects: u32,
    finishes: u32,
}

/// What a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Waits,
    Told(Reason),
    Reads,
    Answered,
    Cut,
    Left,
}

struct Mesh {
    scenario: Scenario,
    agenda: Agenda<Event>,
    rng: Rng,
    world: World,
    snapshot: Rc<Snapshot>,
    vips: Vips,
    ledgers: Ledgers,
    backends: Backends,
    runs: Vec<Option<Run>>,
    /// Requests that are not over.
    active: Vec<usize>,
    /// Taken from retry budgets.
    budgeted: u64,
    /// Nothing fails any more.
    calm: bool,
    /// Answers by endpoint name, in the calm.
    served: BTreeMap<String, u32>,
    summary: Summary,
}

impl Mesh {
    fn new(scenario: Scenario) -> Self {
        let mut agenda = Agenda::default();
        for (at, request) in scenario.requests.iter().enumerate() {
            agenda.plan_at(request.at, Event::Arrive(at));
        }
        for (at, swap) in scenario.swaps.iter().enumerate() {
            agenda.plan_at(swap.at, Event::Swap(at));
        }
        let world = scenario.world.clone();
        let (mut vips, mut ledgers) = (Vips::new(), Ledgers::default());
        let snapshot = Rc::new(Snapshot::build_with(&world, None, &mut vips, &mut ledgers));
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        Self {
            agenda,
            rng: Rng::new(!scenario.seed),
            world,
            snapshot,
            vips,
            ledgers,
            backends,
            runs: scenario.requests.iter().map(|_| None).collect(),
            active: Vec::new(),
            budgeted: 0,
            calm: false,
            served: BTreeMap::new(),
            summary: Summary::default(),
            scenario,
        }
    }

    fn run(&mut self) -> Result<Summary, String> {
        self.play()?;
        self.check_end()?;
        self.recover()?;
        Ok(self.summary.clone())
    }

    /// Lets everything happen that is planned.
    fn play(&mut self) -> Result<(), String> {
        while let Some(event) = self.agenda.pop() {
            self.happen(event).map_err(|error| format!("{event:?}: {error}"))?;
            // A place that leaks stays leaked: looking now and then finds it, at a quarter of the cost.
            if self.agenda.planned().is_multiple_of(4) {
                self.check_places()?;
            }
            self.check_limits()?;
        }
        self.check_places()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive(at) => self.arrive(at),
            Event::Swap(at) => self.swap(at),
            Event::Attempt(at, attempt, happening) => self.attempt(at, attempt, happening),
            Event::Leave(at) => self.feed(at, Input::DownstreamGone, Fact::Left),
            Event::Told(at) => self.told(at),
            Event::Look(at) => self.look(at),
            Event::Timer(at) => {
                let now = self.agenda.now();
                let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
                run.timer = None;
                let due = run.exchange.poll_timeout();
                if run.model.is_settled() {
                    return ensure(due.is_none(), || format!("a settled exchange waits for {due:?}"));
                }
                ensure(due == Some(run.model.wait()), || {
                    format!("waits for {due:?} and not {:?}", run.model.wait())
                })?;
                if due.is_some_and(|(at, _)| at <= now) {
                    self.feed(at, Input::Timeout, Fact::Waited)
                } else {
                    self.plan_timer(at);
                    Ok(())
                }
            }
        }
    }

    fn arrive(&mut self, at: usize) -> Result<(), String> {
        let plan = self.scenario.requests[at].clone();
        let now = self.agenda.now();
        let method: &[u8] = if plan.idempotent { b"GET" } else { b"POST" };
        let head = RequestHead {
            method,
            authority: plan.service.as_bytes(),
            path: plan.path.as_bytes(),
            fields: Fields::default(),
        };
        let decision = self.snapshot.decide(Entry::Forward, &head);
        let mut exchange = Exchange::new(decision, head.is_idempotent(), plan.deadline, now);
        let service = self.service(&plan.service);
        let (versions, timeout) = service.map_or((Vec::new(), None), |service| promised(service, plan.path));
        let deadline = [timeout.map(|timeout| now.after(timeout)), plan.deadline].into_iter().flatten().min();
        ensure(service.is_none() || exchange.deadline() == deadline, || {
            format!("deadline {:?} and not {deadline:?}", exchange.deadline())
        })?;
        let mut model = Model::new(plan.idempotent, exchange.deadline(), now);
        let first = exchange.poll_action();
        let must = if service.is_some() && deadline == Some(now) {
            model.after(Fact::NotFound(Reason::OutOfTime), now)
        } else if service.is_some() {
            Must::Choose(false)
        } else {
            model.after(Fact::NotFound(Reason::NoSuchService), now)
        };
        ensure(must.is(first), || format!("{must:?} must follow, not {first:?}"))?;
        if let Some(leaves) = plan.leaves {
            self.agenda.plan_at(leaves, Event::Leave(at));
        }
        self.active.push(at);
        self.runs[at] = Some(Run {
            plan,
            exchange,
            model,
            snapshot: self.snapshot.clone(),
            versions,
            version: None,
            attempts: 0,
            target: None,
            waits: None,
            timer: None,
            client: Client::Waits,
            effects: 0,
            finishes: 0,
        });
        self.follow(at, first)
    }

    /// Tells the exchange and the model what happened, compares what they say, and does it.
    fn feed(&mut self, at: usize, input: Input, fact: Fact) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        let late = run.exchange.deadline().is_some_and(|deadline| now > deadline);
        let must = run.model.after(fact, now);
        run.exchange.handle(input, now);
        if !matches!(must, Must::Nothing) {
            run.waits = None;
        }
        let action = run.exchange.poll_action();
        ensure(must.is(action), || format!("after {fact:?} {must:?} must follow, not {action:?}"))?;
        let more = run.exchange.poll_action();
        ensure(more.is_none(), || format!("a second action {more:?}"))?;
        ensure(!late || matches!(must, Must::Nothing | Must::Finish), || {
            format!("{must:?} later than the deadline")
        })?;
        self.follow(at, action)
    }

    /// Does what the exchange asks for.
    fn follow(&mut self, at: usize, action: Option<Action>) -> Result<(), String> {
        match action {
            None => {}
            Some(Action::Pick { choice, budget }) => return self.pick(at, choice, budget),
            Some(Action::Dial) => self.dial(at),
            Some(Action::Send) => {
                let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
                let attempt = run.attempts;
                if let Some(body) = run.plan.body {
                    self.agenda.plan(body, Event::Attempt(at, attempt, Happening::BodyTaken));
                }
                self.agenda.plan(HOP, Event::Attempt(at, attempt, Happening::Reaches));
            }
            Some(Action::Relay) => self.client(at, Client::Waits, Client::Reads)?,
            Some(Action::Reply(reason)) => {
                self.client(at, Client::Waits, Client::Told(reason))?;
                self.agenda.plan(TELLING, Event::Told(at));
            }
            Some(Action::Answer) => return Err("no rule here answers by itself".into()),
            Some(Action::Admit) => return Err("nobody here has a limit of its own".into()),
            Some(Action::Cut(_)) => {
                self.client(at, Client::Reads, Client::Cut)?;
                self.agenda.plan(TELLING, Event::Told(at));
            }
            // Nothing is configured about attempts here; `storm` has what is.
            Some(Action::Pause { .. }) => return Err("a pause that nobody asked for".into()),
            Some(Action::Finish) => self.finished(at)?,
        }
        self.plan_timer(at);
        Ok(())
    }

    fn dial(&mut self, at: usize) {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return };
        let Some((address, _)) = run.target else { return };
        let (turn, mood) = mood(&self.scenario.hosts, address, now);
        run.target = Some((address, turn));
        let busy = !self.calm && self.scenario.faults && self.rng.one_in(40);
        let happening = match mood {
            _ if busy => Happening::NotConnected(ConnectFailure::Overload),
            Mood::Unreachable => return,
            Mood::Dead => Happening::NotConnected(ConnectFailure::Refused),
            Mood::Stranger => Happening::NotConnected(ConnectFailure::Tls),
            _ => Happening::Connected,
        };
        let attempt = run.attempts;
        self.agenda.plan(HOP, Event::Attempt(at, attempt, happening));
    }

    fn attempt(&mut self, at: usize, attempt: usize, happening: Happening) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        let current = run.attempts == attempt;
        if let Happening::BodyTaken = happening {
            // Whichever attempt took it: it is gone for all.
            return self.feed(at, Input::BodyTaken, Fact::BodyTaken);
        }
        // What an abandoned attempt sent may still arrive; nobody hears of it. After the exchange is over its last
        // attempt is heard once more, and must be ignored.
        let Some((address, turn)) = run.target.filter(|_| current) else { return Ok(()) };
        let (turn_now, mood_now) = mood(&self.scenario.hosts, address, now);
        // Whoever is connected to something that dies is cut off.
        let died = turn_now != turn && mood_now == Mood::Dead;
        let closed = Happening::Broke(AppSaw::Maybe, Reason::UpstreamClosed);
        let happening = match happening {
            Happening::Connected if died => Happening::NotConnected(ConnectFailure::Refused),
            Happening::Reaches | Happening::Head | Happening::Complete if died => closed,
            other => other,
        };
        match happening {
            Happening::Connected => {
                let reused = self.rng.one_in(2);
                self.feed(at, Input::Connected { reused }, Fact::Connected)
            }
            Happening::NotConnected(why) => {
                let reason = match why {
                    ConnectFailure::Refused => Reason::ConnectFailed,
                    ConnectFailure::TimedOut => Reason::ConnectTimeout,
                    ConnectFailure::Tls => Reason::TlsRefused,
                    ConnectFailure::Overload => Reason::Overload,
                    ConnectFailure::Limit => Reason::ServiceLimit,
                };
                self.feed(at, Input::ConnectFailed(why), Fact::NotConnected(reason))
            }
            Happening::Reaches => {
                self.reaches(at, attempt, mood_now);
                Ok(())
            }
            Happening::Head => {
                let then = match mood_now {
                    Mood::Stammers => Happening::Broke(AppSaw::Maybe, Reason::UpstreamClosed),
                    _ => Happening::Complete,
                };
                self.agenda
                    .plan(Duration::from_micros(1 + self.rng.below(3000)), Event::Attempt(at, attempt, then));
                self.feed(at, Input::Response { status: 200 }, Fact::Answered)
            }
            Happening::Complete => self.feed(at, Input::UpstreamEnded(Ending::Complete), Fact::Complete),
            Happening::Broke(app_saw, reason) => {
                let ending = Ending::Early { app_saw, reason };
                self.feed(at, Input::UpstreamEnded(ending), Fact::Broke(app_saw, reason))
            }
            Happening::BodyTaken => Ok(()),
        }
    }

    /// A request gets to an endpoint in some mood.
    fn reaches(&mut self, at: usize, attempt: usize, mood: Mood) {
        let Some(run) = self.runs[at].as_mut() else { return };
        let nothing = |reason| Happening::Broke(AppSaw::Nothing, reason);
        let (effect, wait, then) = match mood {
            Mood::Unreachable => return,
            Mood::Silent => (1, HOP, None),
            Mood::AppDown => (0, HOP, Some(nothing(Reason::ConnectFailed))),
            Mood::Overloaded => (0, HOP, Some(nothing(Reason::Overload))),
            Mood::Closes | Mood::Dead => {
                (1, HOP * 2, Some(Happening::Broke(AppSaw::Maybe, Reason::UpstreamClosed)))
            }
            Mood::Stammers | Mood::Stranger => (1, HOP * 3, Some(Happening::Head)),
            Mood::Fine(wait) => (1, wait, Some(Happening::Head)),
        };
        run.effects += effect;
        if let Some(then) = then {
            self.agenda.plan(wait, Event::Attempt(at, attempt, then));
        }
    }

    fn told(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        if run.model.is_over() {
            // The client left while it was told.
            return Ok(());
        }
        let must = run.model.after(Fact::Told, now);
        run.exchange.ended(now);
        let action = run.exchange.poll_action();
        ensure(must.is(action), || format!("{must:?} must follow, not {action:?}"))?;
        self.follow(at, action)
    }

    /// The client of a request sees something; it must have seen `from` before.
    fn client(&mut self, at: usize, from: Client, to: Client) -> Result<(), String> {
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        ensure(run.client == from, || format!("a client that saw {:?} sees {to:?}", run.client))?;
        run.client = to;
        Ok(())
    }

    fn finished(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        run.finishes += 1;
        let record = run.exchange.record();
        ensure(run.finishes == 1, || "finished twice".into())?;
        ensure(record.finished == now && record.started == run.plan.at, || "times are wrong".into())?;
        ensure(record.attempts().count() == run.attempts, || "attempts are missing".into())?;
        ensure(run.exchange.endpoint().is_none(), || "a place is kept".into())?;
        // Told or cut clients may have left since; that is what the record then says.
        let left = record.reason == Some(Reason::DownstreamGone);
        let expected = match run.client {
            _ if left => Client::Left,
            Client::Reads if record.reason.is_none() && record.status == 200 => Client::Answered,
            Client::Told(reason) if record.reason == Some(reason) && record.status == reason.status() => {
                run.client
            }
            Client::Cut if record.reason.is_some() && record.status == 200 => Client::Cut,
            other => return Err(format!("a client that saw {other:?} has the record {record:?}")),
        };
        run.client = expected;
        match expected {
            Client::Answered => self.summary.answered += 1,
            Client::Told(_) => self.summary.told += 1,
            Client::Cut => self.summary.cut += 1,
            _ => self.summary.left += 1,
        }
        if expected == Client::Answered && self.calm {
            let last = record.attempts().last().map(|attempt| attempt.endpoint.spec.name.to_string());
            *self.served.entry(last.unwrap_or_default()).or_insert(0) += 1;
        }
        self.active.retain(|other| *other != at);
        Ok(())
    }

    fn swap(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let before = live_state(&self.backends, now);
        let newest = before.values().map(|live| live.0).max().unwrap_or(0);
        self.world = self.scenario.swaps[at].world.clone();
        let snapshot = Snapshot::build_with(&self.world, None, &mut self.vips, &mut self.ledgers);
        self.snapshot = Rc::new(snapshot);
        self.backends.adopt(&self.snapshot);
        self.summary.swaps += 1;
        for (name, live) in live_state(&self.backends, now) {
            match before.get(&name) {
                Some(old) => {
                    ensure(*old == live, || format!("{name:?} lost its live state: {old:?}, {live:?}"))?
                }
                None => ensure(live.0 > newest && live.1 == 0, || format!("{name:?} is not new"))?,
            }
        }
        Ok(())
    }

    fn plan_timer(&mut self, at: usize) {
        let Some(run) = self.runs[at].as_mut() else { return };
        let Some((due, _)) = run.exchange.poll_timeout() else { return };
        if run.timer.is_none_or(|timer| due < timer) {
            run.timer = Some(due);
            self.agenda.plan_at(due, Event::Timer(at));
        }
    }

    fn service(&self, name: &str) -> Option<&KnownService> {
        self.world.services.get(&ServiceId::parse(name).ok()?)
    }

    /// Once everything is well, every request is answered, and no endpoint starves.
    fn recover(&mut self) -> Result<(), String> {
        self.calm = true;
        let last = self.scenario.hosts.values().filter_map(|host| host.life.last()).map(|(at, _)| *at).max();
        let calm = self.agenda.now().max(last.unwrap_or_default()).after(COOLING_MAX);
        self.agenda.wait_until(calm);
        let services: Vec<KnownService> = self.world.services.values().cloned().collect();
        for service in services {
            let usable: Vec<&EndpointSpec> = service.endpoints.iter().filter(|e| usable(e)).collect();
            if usable.is_empty() || !service.spec.rules.is_empty() {
                continue;
            }
            let turns = usable.iter().map(|endpoint| endpoint.weight).sum::<u32>();
            self.served.clear();
            let before = self.summary.answered;
            for _ in 0..2 * turns {
                let at = self.runs.len();
                self.scenario.requests.push(RequestPlan {
                    at: self.agenda.now(),
                    service: service.spec.id.name.to_string(),
                    path: "/",
                    idempotent: true,
                    body: None,
                    deadline: None,
                    leaves: None,
                });
                self.runs.push(None);
                self.agenda.plan(Duration::ZERO, Event::Arrive(at));
                self.play()?;
            }
            let answered = self.summary.answered - before;
            ensure(answered == u64::from(2 * turns), || {
                format!("{answered} of {} answered in the calm", 2 * turns)
            })?;
            // Whoever has just come gets less than its share, where that is asked for.
            let warms_up = service.spec.care.as_ref().is_some_and(|care| care.slow_start.is_some());
            if service.spec.balance == Balance::RoundRobin && !warms_up {
                for endpoint in usable {
                    let served = self.served.get(&*endpoint.name).copied().unwrap_or(0);
                    ensure(served.abs_diff(2 * endpoint.weight) <= 1, || {
                        format!(
                            "{} served {served} of {} by weight {}",
                            endpoint.name,
                            2 * turns,
                            endpoint.weight
                        )
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// From the proxy to an endpoint, or back.
const HOP: Duration = Duration::from_micros(100);
