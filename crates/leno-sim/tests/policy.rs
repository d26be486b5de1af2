//! Many requests at a time under policies made by chance, against endpoints that answer, fail, close, refuse, say nothing or
//! are slow. Whatever the policy: what is not idempotent takes effect once at most, deadlines and attempts are kept, retries
//! stay within the budget, and no place is kept.

use std::sync::Arc;

use leno_core::backend::{Backends, Choice};
use leno_core::exchange::{Action, AppSaw, ConnectFailure, Ending, Exchange, Input, NoRetry};
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::name::ServiceId;
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::route::BackendId;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{
    Balance, BudgetSpec, EndpointSpec, KnownService, Protocol, RetryMethods, RetryOn, RetrySpec, ServiceSpec,
    StatusRange, Transport, TriesSpec, World,
};
use leno_core::time::{Duration, Instant};
use leno_sim::agenda::Agenda;
use leno_sim::run_each;

const REQUESTS: usize = 300;
const MILLIS: Duration = Duration::from_millis(1);
/// Retries that a budget saves up at the least, when requests fill it.
const SAVED_REQUESTS: u64 = 100;

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(usize),
    /// Something happens to an attempt of a request.
    Step(usize, usize, Step),
    Timer(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Connected,
    Refused,
    Answer(u16),
    Closed,
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Fine,
    Fails,
    Closes,
    Refuses,
    Silent,
    Slow,
}

struct Run {
    exchange: Exchange,
    idempotent: bool,
    effects: u32,
    mood: Mood,
    over: bool,
}

struct Sim {
    agenda: Agenda<Event>,
    rng: Rng,
    snapshot: Snapshot,
    backends: Backends,
    moods: Vec<Mood>,
    tries: TriesSpec,
    runs: Vec<Option<Run>>,
    /// Retries that were taken from the budget, and those that it denied.
    paid: u64,
    denied: u64,
}

#[test]
fn no_policy_breaks_a_promise() {
    run_each(400, |seed| Sim::new(seed).run());
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let all = [Mood::Fine, Mood::Fails, Mood::Closes, Mood::Refuses, Mood::Silent, Mood::Slow];
        let moods: Vec<Mood> = (0..1 + rng.below(5)).map(|_| all[rng.below(6) as usize]).collect();
        let tries = TriesSpec {
            try_timeout: rng.one_in(2).then(|| MILLIS * rng.below(60) as u32),
            connect_timeout: rng.one_in(2).then(|| MILLIS * rng.below(60) as u32),
            idle_timeout: Some(MILLIS * 500),
            hedge: None,
            retry: Some(RetrySpec {
                attempts: 1 + rng.below(10) as u32,
                on: RetryOn {
                    reset: rng.one_in(2),
                    statuses: vec![StatusRange { first: 500, last: 599 }],
                    ..RetryOn::default()
                },
                methods: RetryMethods::Idempotent,
                backoff: MILLIS * rng.below(20) as u32,
                backoff_max: MILLIS * 100,
                ..RetrySpec::default()
            }),
            budget: Some(BudgetSpec { percent: rng.below(101) as u32, per_second: rng.below(200) as u32 }),
        };
        let snapshot = Snapshot::build(&world(&tries, moods.len()), None);
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        let runs = (0..REQUESTS).map(|_| None).collect();
        let agenda = Agenda::default();
        Self { agenda, rng, snapshot, backends, moods, tries, runs, paid: 0, denied: 0 }
    }

    fn run(mut self) -> Result<(), String> {
        for at in 0..REQUESTS {
            let wait = MILLIS * self.rng.below(2_000) as u32;
            self.agenda.plan(wait + MILLIS, Event::Arrive(at));
        }
        while let Some(event) = self.agenda.pop() {
            self.happen(event).map_err(|error| format!("{event:?}: {error}"))?;
        }
        let seconds = self.agenda.now().as_nanos() / 1_000_000_000 + 1;
        let budget = self.tries.budget.unwrap_or(BudgetSpec { percent: 0, per_second: 0 });
        let saved = u64::from(budget.per_second) * 10 + u64::from(budget.percent) * SAVED_REQUESTS / 100;
        let earned =
            REQUESTS as u64 * u64::from(budget.percent) / 100 + u64::from(budget.per_second) * seconds;
        if self.paid > saved + earned + 1 {
            return Err(format!("{} retries, {saved} saved and {earned} earned", self.paid));
        }
        let places: u32 =
            self.backends.iter().flat_map(|backend| backend.endpoints()).map(|it| it.in_flight()).sum();
        if places > 0 || self.runs.iter().flatten().any(|run| !run.over) {
            return Err(format!("{places} places are kept, or a request never ended"));
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let now = self.agenda.now();
        match event {
            Event::Arrive(at) => {
                let idempotent = self.rng.one_in(2);
                let head = RequestHead {
                    method: if idempotent { b"GET" } else { b"POST" },
                    authority: b"next",
                    path: b"/",
                    fields: Fields::default(),
                };
                let decision = self.snapshot.decide(Entry::Forward, &head);
                let tries = self.snapshot.tries(&decision).ok_or("no policy")?.clone();
                let deadline = self.rng.one_in(2).then(|| now.after(MILLIS * self.rng.below(300) as u32));
                let mut exchange = Exchange::new(decision, tries.repeats(&head), deadline, now);
                exchange.follow(&tries, self.rng.next_u64());
                self.runs[at] = Some(Run { exchange, idempotent, effects: 0, mood: Mood::Fine, over: false });
                self.follow(at)
            }
            Event::Timer(at) => {
                let Some(run) = self.runs[at].as_mut().filter(|run| !run.over) else { return Ok(()) };
                match run.exchange.poll_timeout() {
                    Some((due, _)) if due <= now => run.exchange.handle(Input::Timeout, now),
                    _ => return Ok(()),
                }
                self.follow(at)
            }
            Event::Step(at, attempt, step) => {
                let Some(run) = self.runs[at].as_mut().filter(|run| !run.over) else { return Ok(()) };
                if run.exchange.record().attempts_made() != attempt || run.exchange.endpoint().is_none() {
                    return Ok(());
                }
                let input = match step {
                    Step::Connected => Input::Connected { reused: false },
                    Step::Refused => Input::ConnectFailed(ConnectFailure::Refused),
                    Step::Closed => Input::UpstreamEnded(Ending::Early {
                        app_saw: AppSaw::Maybe,
                        reason: Reason::UpstreamClosed,
                    }),
                    Step::Complete => Input::UpstreamEnded(Ending::Complete),
                    Step::Answer(status) => {
                        let head = ResponseHead { status, reason: b"", fields: Fields::default() };
                        let wanted = run.exchange.wants_another(&head, now);
                        let backend = run.exchange.backend();
                        if wanted && backend.is_some_and(|backend| self.allows(backend)) {
                            Input::Withheld { status }
                        } else {
                            let run = self.runs[at].as_mut().ok_or("gone")?;
                            if wanted {
                                run.exchange.denied(status);
                            }
                            Input::Response { status }
                        }
                    }
                };
                let run = self.runs[at].as_mut().ok_or("gone")?;
                run.exchange.handle(input, now);
                self.follow(at)
            }
        }
    }

    fn follow(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        loop {
            let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
            let Some(action) = run.exchange.poll_action() else { break };
            let late = run.exchange.deadline().is_some_and(|deadline| now > deadline);
            match action {
                Action::Pick { choice, budget } => {
                    if let (true, Choice::Backend(backend)) = (budget, choice)
                        && !self.allows(backend)
                    {
                        self.feed(at, Input::OverBudget);
                        continue;
                    }
                    let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
                    let tried = run.exchange.planned_tried().unwrap_or(&[]).to_vec();
                    let mut pick =
                        |avoid: &[u64]| self.backends.pick(&self.snapshot, choice, avoid, now, &mut self.rng);
                    let picked = pick(&tried).or_else(|_| pick(&[]));
                    if let Ok(permit) = &picked {
                        let place: usize = permit.endpoint().spec.address.port().into();
                        let mood = self.moods[place];
                        let backend = permit.backend();
                        if let Some(run) = self.runs[at].as_mut() {
                            run.mood = mood;
                        }
                        if tried.is_empty() {
                            self.backends.request_started(&self.snapshot, backend, now);
                        }
                    }
                    self.feed(at, picked.map_or_else(Input::NoEndpoint, Input::Picked));
                }
                Action::Pause { budget } => {
                    if budget.is_some_and(|backend| !self.allows(backend)) {
                        self.feed(at, Input::OverBudget);
                    }
                }
                Action::Answer => return Err("no rule here answers by itself".into()),
                Action::Admit => return Err("nobody here has a limit of its own".into()),
                Action::Dial if late => return Err("a connection after the deadline".into()),
                Action::Dial => {
                    let step = if run.mood == Mood::Refuses { Step::Refused } else { Step::Connected };
                    let attempt = run.exchange.record().attempts_made();
                    self.agenda.plan(MILLIS, Event::Step(at, attempt, step));
                }
                Action::Send => {
                    run.effects += 1;
                    if run.effects > 1 && !run.idempotent {
                        return Err(format!("{} effects", run.effects));
                    }
                    let attempt = run.exchange.record().attempts_made();
                    let (wait, step) = match run.mood {
                        Mood::Silent | Mood::Refuses => continue,
                        Mood::Fine => (MILLIS * 2, Step::Answer(200)),
                        Mood::Slow => (MILLIS * 40, Step::Answer(200)),
                        Mood::Fails => (MILLIS * 2, Step::Answer(503)),
                        Mood::Closes => (MILLIS * 2, Step::Closed),
                    };
                    self.agenda.plan(wait, Event::Step(at, attempt, step));
                }
                Action::Relay => {
                    let attempt = run.exchange.record().attempts_made();
                    self.agenda.plan(MILLIS, Event::Step(at, attempt, Step::Complete));
                }
                Action::Reply(_) | Action::Cut(_) => run.exchange.ended(now),
                Action::Finish => {
                    run.over = true;
                    return self.check(at);
                }
            }
        }
        let due = self.runs[at].as_ref().and_then(|run| run.exchange.poll_timeout());
        if let Some((due, _)) = due {
            self.agenda.plan_at(due, Event::Timer(at));
        }
        Ok(())
    }

    /// What the record says of a request that is over.
    fn check(&self, at: usize) -> Result<(), String> {
        let Some(run) = &self.runs[at] else { return Ok(()) };
        let record = run.exchange.record();
        let attempts = self.tries.retry.as_ref().map_or(3, |retry| retry.attempts as usize);
        let made = record.attempts_made();
        if made > attempts || record.attempts().count() != made {
            return Err(format!("{made} attempts of {attempts}"));
        }
        let failed = record.attempts().next_back().is_some_and(|last| last.failed.is_some());
        if failed != record.no_retry.is_some() {
            return Err(format!("nobody says why there was no other attempt: {record:?}"));
        }
        let told = match record.no_retry {
            Some(NoRetry::Attempts) => made == attempts,
            Some(NoRetry::NotIdempotent) => !run.idempotent,
            Some(NoRetry::Budget) => self.denied > 0,
            Some(NoRetry::Deadline) => {
                run.exchange.deadline().is_some() || record.reason == Some(Reason::IdleTimeout)
            }
            Some(NoRetry::BodyGone | NoRetry::AskedToWait | NoRetry::Deeper | NoRetry::NoEndpoint) => false,
            Some(NoRetry::NotAsked) => self.tries.retry.as_ref().is_some_and(|retry| !retry.on.reset),
            Some(NoRetry::ResponseBegun) | None => true,
        };
        if told { Ok(()) } else { Err(format!("the wrong reason for no other attempt: {record:?}")) }
    }

    fn feed(&mut self, at: usize, input: Input) {
        let now: Instant = self.agenda.now();
        if let Some(run) = self.runs[at].as_mut() {
            run.exchange.handle(input, now);
        }
    }

    fn allows(&mut self, backend: BackendId) -> bool {
        let allowed = self.backends.try_retry(&self.snapshot, backend, self.agenda.now());
        self.paid += u64::from(allowed);
        self.denied += u64::from(!allowed);
        allowed
    }
}

fn world(tries: &TriesSpec, endpoints: usize) -> World {
    let id = ServiceId::parse("next").unwrap_or_else(|_| unreachable!("a constant"));
    let endpoint = |at: usize| EndpointSpec {
        name: format!("next-{at}").into(),
        address: ([127, 0, 0, 1], at as u16).into(),
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: leno_core::spec::Tags::NONE,
    };
    let spec = ServiceSpec {
        id: id.clone(),
        protocol: Protocol::Http1,
        balance: Balance::default(),
        care: None,
        rules: Vec::new(),
        calls: Vec::new(),
        health: None,
        timeout: None,
        tries: Some(Arc::new(tries.clone())),
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    let mut world = World::default();
    let endpoints = (0..endpoints).map(endpoint).collect();
    world.services.insert(id, KnownService { spec, endpoints });
    world
}
