//! Requests through the real exchange over real pairs of the mesh transport's machine. Connections are cut anywhere,
//! fall silent and drain; applications answer, refuse, close and stammer. A verdict "the application saw nothing"
//! is compared with what the application really saw.

use std::collections::BTreeMap;

use leno_core::backend::{Backends, Choice, NoEndpoint};
use leno_core::exchange::{Action, AppSaw, Ending, Exchange, Input};
use leno_core::head::{Fields, RequestHead};
use leno_core::mux::{Code, StreamId};
use leno_core::name::ServiceId;
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{Balance, EndpointSpec, KnownService, Protocol, ServiceSpec, Transport, World};
use leno_core::time::{Duration, Instant};

use crate::agenda::Agenda;
use crate::link::{ACCEPTOR, DIALER, Link, Notice};
use crate::model::{Fact, Model, Must, TELLING};

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests whose answer arrived whole.
    pub answered: u64,
    /// Attempts that were proven to have had no effect.
    pub proven: u64,
    /// Attempts that may have had one.
    pub unproven: u64,
    /// Connections used.
    pub links: u64,
}

/// Runs the scenario of `seed` to its end.
///
/// # Errors
/// What went otherwise than promised, with the step.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut wires = Wires::new(seed);
    let outcome = wires.run();
    outcome.map_err(|error| {
        format!("seed {seed} step {} at {:?}: {error}", wires.agenda.planned(), wires.agenda.now())
    })?;
    Ok(wires.summary)
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(usize),
    Timer(usize),
    Told(usize),
    /// The connection for an attempt is there.
    Dialed(usize, usize),
    /// A connection's worker has its turn.
    Turn(usize),
    /// A connection's end may be due.
    Due(usize, usize),
    /// The application has done what a stream asked for.
    Worked(usize, StreamId),
    /// One end of a connection learns that it is cut.
    Cut(usize, usize),
    Silence(usize),
    Drain(usize),
}

/// One request.
struct Run {
    exchange: Exchange,
    model: Model,
    idempotent: bool,
    body: usize,
    attempts: usize,
    /// The connection and stream of the current attempt.
    stream: Option<(usize, StreamId)>,
    /// The endpoint of the current attempt.
    endpoint: usize,
    received: Vec<u8>,
    timer: Option<Instant>,
    finishes: u32,
    answered: bool,
    /// What the application did, and what was said about it, by attempt.
    effects: BTreeMap<usize, u32>,
    nothing: Vec<usize>,
}

struct Wires {
    rng: Rng,
    agenda: Agenda<Event>,
    snapshot: Snapshot,
    backends: Backends,
    runs: Vec<Option<Run>>,
    links: Vec<Link>,
    /// The usable connection to each endpoint.
    current: BTreeMap<usize, usize>,
    /// Whether a turn is planned, by connection.
    awake: Vec<bool>,
    /// Request and attempt of each stream, by connection and number.
    owners: BTreeMap<(usize, u32), (usize, usize)>,
    summary: Summary,
}

impl Wires {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let id = ServiceId::parse("app").expect("app is a name");
        let endpoints = (0..1 + rng.below(4)).map(|at| EndpointSpec {
            name: format!("app-{at}").into(),
            address: ([127, 0, 0, 1], 1000 + at as u16).into(),
            transport: Transport::Plain,
            version: None,
            weight: 1,
            healthy: true,
            tags: leno_core::spec::Tags::NONE,
        });
        let spec = ServiceSpec {
            id: id.clone(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            care: None,
            rules: Vec::new(),
            calls: Vec::new(),
            health: None,
            timeout: Some(Duration::from_secs(3)),
            tries: None,
            external: None,
            send_proxy: None,
            headless: false,
            srv_port: 80,
        };
        let mut world = World { generation: 1, ..World::default() };
        world.services.insert(id, KnownService { spec, endpoints: endpoints.collect() });
        let snapshot = Snapshot::build(&world, None);
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        let mut agenda = Agenda::default();
        let requests = 5 + rng.below(20) as usize;
        for at in 0..requests {
            agenda.plan_at(Instant::ZERO.after(Duration::from_micros(rng.below(30_000))), Event::Arrive(at));
        }
        Self {
            rng,
            agenda,
            snapshot,
            backends,
            runs: (0..requests).map(|_| None).collect(),
            links: Vec::new(),
            current: BTreeMap::new(),
            awake: Vec::new(),
            owners: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(event) = self.agenda.pop() {
            self.happen(event).map_err(|error| format!("{event:?}: {error}"))?;
            // Connections that stay are asked whether they live for ever; the requests end.
            if self.agenda.now() > Instant::ZERO.after(Duration::from_secs(60)) {
                break;
            }
        }
        self.check_end()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let now = self.agenda.now();
        match event {
            Event::Arrive(at) => return self.arrive(at),
            Event::Dialed(at, attempt) => return self.dialed(at, attempt),
            Event::Turn(link) => return self.turn(link),
            Event::Worked(link, stream) => self.worked(link, stream),
            Event::Told(at) => return self.told(at),
            Event::Timer(at) => {
                let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
                run.timer = None;
                match run.exchange.poll_timeout() {
                    Some((due, _)) if due <= now => return self.feed(at, Input::Timeout, Fact::Waited),
                    _ => self.plan_timer(at),
                }
            }
            Event::Due(link, side) => {
                let notices = self.links[link].handle_timeout(side, now);
                self.notice(link, side, notices)?;
                if let Some(due) = self.links[link].poll_timeout(side) {
                    self.agenda.plan_at(due.max(now.after(HOP)), Event::Due(link, side));
                }
                self.wake(link);
            }
            Event::Cut(link, side) => {
                let notices =
                    self.links[link].cut(side, &mut self.rng, now).map_err(|error| error.to_string())?;
                return self.notice(link, side, notices);
            }
            Event::Silence(link) => self.links[link].silence(),
            Event::Drain(link) => {
                self.links[link].drain(now);
                self.wake(link);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let idempotent = self.rng.one_in(2);
        let method: &[u8] = if idempotent { b"GET" } else { b"POST" };
        let head = RequestHead { method, authority: b"app", path: b"/", fields: Fields::default() };
        let decision = self.snapshot.decide(Entry::Forward, &head);
        let mut exchange = Exchange::new(decision, idempotent, None, now);
        let action = exchange.poll_action();
        let body = match self.rng.below(6) {
            0 => self.rng.below(40_000) as usize,
            1 | 2 => self.rng.below(2_000) as usize,
            _ => 0,
        };
        self.runs[at] = Some(Run {
            model: Model::new(idempotent, exchange.deadline(), now),
            exchange,
            idempotent,
            body,
            attempts: 0,
            stream: None,
            endpoint: 0,
            received: Vec::new(),
            timer: None,
            finishes: 0,
            answered: false,
            effects: BTreeMap::new(),
            nothing: Vec::new(),
        });
        self.follow(at, action)
    }

    fn feed(&mut self, at: usize, input: Input, fact: Fact) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        let must = run.model.after(fact, now);
        run.exchange.handle(input, now);
        let action = run.exchange.poll_action();
        ensure(must.is(action), || format!("after {fact:?} {must:?} must follow, not {action:?}"))?;
        // Whatever ends an attempt ends its stream.
        let ends = matches!(must, Must::Choose(_) | Must::Reply(_) | Must::Cut(_) | Must::Finish);
        if let Some((link, stream)) = run.stream.take_if(|_| ends) {
            self.links[link].reset(DIALER, stream, Code::Cancel, AppSaw::Maybe);
            self.wake(link);
        }
        self.follow(at, action)
    }

    fn follow(&mut self, at: usize, action: Option<Action>) -> Result<(), String> {
        match action {
            // Nothing is configured about attempts here.
            None | Some(Action::Relay | Action::Pause { .. }) => {}
            Some(Action::Pick { choice, budget }) => return self.pick(at, choice, budget),
            Some(Action::Dial) => {
                let wait = Duration::from_micros(self.rng.below(500));
                let attempt = self.runs[at].as_ref().map_or(0, |run| run.attempts);
                self.agenda.plan(wait, Event::Dialed(at, attempt));
            }
            Some(Action::Send) => return self.send(at),
            Some(Action::Answer) => return Err("no rule here answers by itself".into()),
            Some(Action::Admit) => return Err("nobody here has a limit of its own".into()),
            Some(Action::Reply(_) | Action::Cut(_)) => self.agenda.plan(TELLING, Event::Told(at)),
            Some(Action::Finish) => {
                let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
                run.finishes += 1;
                run.answered = run.exchange.record().reason.is_none();
                self.summary.answered += u64::from(run.answered);
            }
        }
        self.plan_timer(at);
        Ok(())
    }

    fn pick(&mut self, at: usize, choice: Choice, budget: bool) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        let allowed = match choice {
            Choice::Backend(backend) if budget => self.backends.try_retry(&self.snapshot, backend, now),
            _ => true,
        };
        let (tried, count) = run.exchange.tried();
        let picked = if allowed {
            self.backends.pick(&self.snapshot, choice, &tried[..count], now, &mut self.rng)
        } else {
            Err(NoEndpoint::AllTried)
        };
        match picked {
            Ok(permit) => {
                if let Some(run) = self.runs[at].as_mut() {
                    run.attempts += 1;
                    run.endpoint = usize::from(permit.endpoint().spec.address.port());
                }
                self.feed(at, Input::Picked(permit), Fact::Found)
            }
            Err(why) => self.feed(at, Input::NoEndpoint(why), Fact::NotFound(Reason::NoHealthyEndpoint)),
        }
    }

    /// A connection for the attempt: the one that is there, or a new one with its own fate.
    fn dialed(&mut self, at: usize, attempt: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_ref().filter(|run| run.attempts == attempt) else { return Ok(()) };
        let endpoint = run.endpoint;
        let known = self.current.get(&endpoint).copied().filter(|link| self.links[*link].can_open());
        if known.is_none() {
            let link = self.links.len();
            self.links.push(Link::new(&mut self.rng, now));
            self.awake.push(false);
            self.current.insert(endpoint, link);
            self.summary.links += 1;
            let later = |rng: &mut Rng| now.after(Duration::from_micros(rng.below(30_000)));
            let fate = later(&mut self.rng);
            match self.rng.below(6) {
                0 | 1 => {
                    self.agenda.plan_at(fate, Event::Cut(link, DIALER));
                    // The other end learns it some time later and works on meanwhile.
                    let other = fate.after(Duration::from_micros(self.rng.below(10_000)));
                    self.agenda.plan_at(other, Event::Cut(link, ACCEPTOR));
                }
                2 => {
                    self.agenda.plan_at(fate, Event::Cut(link, ACCEPTOR));
                    let other = fate.after(Duration::from_micros(self.rng.below(10_000)));
                    self.agenda.plan_at(other, Event::Cut(link, DIALER));
                }
                3 => self.agenda.plan_at(fate, Event::Silence(link)),
                4 => self.agenda.plan_at(fate, Event::Drain(link)),
                _ => {}
            }
            for side in [DIALER, ACCEPTOR] {
                if let Some(due) = self.links[link].poll_timeout(side) {
                    self.agenda.plan_at(due, Event::Due(link, side));
                }
            }
        }
        self.feed(at, Input::Connected { reused: known.is_some() }, Fact::Connected)
    }

    fn send(&mut self, at: usize) -> Result<(), String> {
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        let link = self.current.get(&run.endpoint).copied().unwrap_or_default();
        let method: &[u8] = if run.idempotent { b"GET" } else { b"POST" };
        let body = vec![at as u8; run.body];
        let path = format!("/{at}/{}", run.attempts);
        match self.links[link].open(method, path.as_bytes(), body) {
            Ok(stream) => {
                run.stream = Some((link, stream));
                run.received.clear();
                self.owners.insert((link, stream.number()), (at, run.attempts));
                self.wake(link);
                self.plan_timer(at);
                Ok(())
            }
            // The connection has filled up or ended between the two: nothing was sent.
            Err(_) => self.broke(at, None, AppSaw::Nothing),
        }
    }

    fn broke(&mut self, at: usize, code: Option<Code>, app_saw: AppSaw) -> Result<(), String> {
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        if app_saw == AppSaw::Nothing {
            run.nothing.push(run.attempts);
            self.summary.proven += 1;
        } else {
            self.summary.unproven += 1;
        }
        run.stream = None;
        let reason = match code {
            Some(Code::AppConnectFailed) => Reason::ConnectFailed,
            Some(Code::Overload | Code::Refused) => Reason::Overload,
            Some(Code::Deadline) => Reason::RequestTimeout,
            _ => Reason::UpstreamClosed,
        };
        let ending = Ending::Early { app_saw, reason };
        self.feed(at, Input::UpstreamEnded(ending), Fact::Broke(app_saw, reason))
    }

    fn turn(&mut self, link: usize) -> Result<(), String> {
        self.awake[link] = false;
        let now = self.agenda.now();
        let delay = Duration::from_micros(20 + self.rng.below(500));
        let notices = self.links[link].turn(now, delay, &mut self.rng).map_err(|error| error.to_string())?;
        for (side, notices) in notices.into_iter().enumerate() {
            self.notice(link, side, notices)?;
        }
        if self.links[link].is_busy() {
            self.wake(link);
        }
        Ok(())
    }

    fn notice(&mut self, link: usize, side: usize, notices: Vec<Notice>) -> Result<(), String> {
        for notice in notices {
            match (side, notice) {
                (DIALER, notice) => self.answer(link, notice)?,
                (_, Notice::Request(stream, path)) => self.request(link, stream, &path)?,
                // The application reads its requests whole and does not care how they end.
                _ => {}
            }
        }
        Ok(())
    }

    /// Something came back to the proxy.
    fn answer(&mut self, link: usize, notice: Notice) -> Result<(), String> {
        let (stream, fact) = match &notice {
            Notice::Draining | Notice::Request(..) => return Ok(()),
            Notice::Response(stream, _) | Notice::Data(stream, _) | Notice::Ended(stream) => (*stream, true),
            Notice::Cut(stream, code, _) => {
                let closed = code.is_none() && self.links[link].is_closed();
                ensure(!closed, || format!("a connection that drained cut off {stream:?}"))?;
                (*stream, false)
            }
        };
        let Some((at, attempt)) = self.owners.get(&(link, stream.number())).copied() else {
            return Err("a stream that nobody opened".into());
        };
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        if run.attempts != attempt || run.stream != Some((link, stream)) {
            return ensure(!fact, || format!("{notice:?} for an attempt that was given up"));
        }
        match notice {
            Notice::Response(_, status) => self.feed(at, Input::Response { status }, Fact::Answered),
            Notice::Data(_, bytes) => {
                run.received.extend_from_slice(&bytes);
                Ok(())
            }
            Notice::Ended(_) => {
                let expected = answer_of(at, attempt);
                ensure(run.received == expected, || "the answer is not what the application sent".into())?;
                self.feed(at, Input::UpstreamEnded(Ending::Complete), Fact::Complete)
            }
            Notice::Cut(_, code, app_saw) => self.broke(at, code, app_saw),
            Notice::Draining | Notice::Request(..) => Ok(()),
        }
    }

    /// A request came to the sidecar of an application.
    fn request(&mut self, link: usize, stream: StreamId, path: &[u8]) -> Result<(), String> {
        let owner = self.owners.get(&(link, stream.number())).copied();
        let (at, attempt) = owner.ok_or("a request that nobody sent")?;
        ensure(path == format!("/{at}/{attempt}").as_bytes(), || "another request than was sent".into())?;
        match self.rng.below(20) {
            0 => self.links[link].reset(ACCEPTOR, stream, Code::AppConnectFailed, AppSaw::Nothing),
            1 => self.links[link].reset(ACCEPTOR, stream, Code::Overload, AppSaw::Nothing),
            _ => {
                let work = Duration::from_micros(self.rng.below(5_000));
                self.agenda.plan(work, Event::Worked(link, stream));
            }
        }
        self.wake(link);
        Ok(())
    }

    /// The application did what it was asked for, unless its sidecar has called it off before.
    fn worked(&mut self, link: usize, stream: StreamId) {
        if !self.links[link].is_open(ACCEPTOR, stream) {
            return;
        }
        let Some((at, attempt)) = self.owners.get(&(link, stream.number())).copied() else { return };
        let Some(run) = self.runs[at].as_mut() else { return };
        // When its answer did not fit before, it only tries to give it again.
        let again = run.effects.insert(attempt, 1).is_some();
        let body = answer_of(at, attempt);
        match if again { FATES } else { self.rng.below(FATES) } {
            0 => self.links[link].reset(ACCEPTOR, stream, Code::AppClosed, AppSaw::Maybe),
            // It never answers.
            1 => {}
            2 => {
                let half = body[..body.len() / 2].to_vec();
                if self.links[link].respond(stream, half, false).is_ok() {
                    let wait = Duration::from_micros(self.rng.below(2_000));
                    self.agenda.plan(wait, Event::Cut(link, ACCEPTOR));
                    self.agenda.plan(wait * 2, Event::Cut(link, DIALER));
                }
            }
            _ => {
                if self.links[link].respond(stream, body, true).is_err() {
                    // The output is full: later.
                    self.agenda.plan(HOP, Event::Worked(link, stream));
                }
            }
        }
        self.wake(link);
    }

    fn told(&mut self, at: usize) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        let must = run.model.after(Fact::Told, now);
        run.exchange.ended(now);
        let action = run.exchange.poll_action();
        ensure(must.is(action), || format!("{must:?} must follow, not {action:?}"))?;
        self.follow(at, action)
    }

    fn wake(&mut self, link: usize) {
        if !core::mem::replace(&mut self.awake[link], true) {
            let wait = Duration::from_micros(10 + self.rng.below(100));
            self.agenda.plan(wait, Event::Turn(link));
        }
    }

    fn plan_timer(&mut self, at: usize) {
        let Some(run) = self.runs[at].as_mut() else { return };
        let Some((due, _)) = run.exchange.poll_timeout() else { return };
        if run.timer.is_none_or(|timer| due < timer) {
            run.timer = Some(due);
            self.agenda.plan_at(due, Event::Timer(at));
        }
    }

    fn check_end(&self) -> Result<(), String> {
        for (at, run) in self.runs.iter().enumerate() {
            let Some(run) = run else { return Err(format!("request {at} never arrived")) };
            ensure(run.finishes == 1, || format!("request {at} ended {} times", run.finishes))?;
            for attempt in &run.nothing {
                ensure(run.effects.get(attempt).copied().unwrap_or(0) == 0, || {
                    format!("request {at} attempt {attempt} was proven to have no effect and had one")
                })?;
            }
            let effects: u32 = run.effects.values().sum();
            ensure(run.idempotent || effects <= 1, || format!("POST {at} took effect {effects} times"))?;
            ensure(!run.answered || effects >= 1, || format!("request {at} was answered by nobody"))?;
        }
        for endpoint in self.backends.iter().flat_map(|backend| backend.endpoints()) {
            ensure(endpoint.in_flight() == 0, || format!("{} keeps a place", endpoint.spec.name))?;
        }
        for (at, link) in self.links.iter().enumerate() {
            let open = link.streams_open(DIALER);
            ensure(open == 0, || format!("connection {at} keeps {open} streams at the dialer"))?;
        }
        Ok(())
    }
}

/// What the application answers to an attempt.
fn answer_of(at: usize, attempt: usize) -> Vec<u8> {
    let length = match (at + attempt) % 5 {
        0 => 30_000 + 100 * at,
        1 | 2 => 1_000 * at,
        _ => at,
    };
    vec![(at + attempt) as u8; length]
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// What an application may do with a request it has worked on; most of them are an answer.
const FATES: u64 = 12;

/// A moment.
const HOP: Duration = Duration::from_micros(100);
