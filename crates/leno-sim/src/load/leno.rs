//! A caller that is Leno: the real exchange, backends and snapshot.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use leno_core::backend::{Backends, Choice, Chosen, Endpoint, Ledgers, NoEndpoint, Place, What};
use leno_core::exchange::{
    Action, AppSaw, ConnectFailure, Ending, Exchange, Heard, Hedged, Heed, Input, Lane, Rang,
};
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::name::ServiceId;
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::route::BackendId;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{
    Balance, Care, EndpointSpec, HedgeSpec, KnownService, Protocol, ServiceSpec, Tags, Transport, TriesSpec,
    World, Zone,
};
use leno_core::time::{Duration, Instant};
use leno_core::vip::Vips;

use super::{Back, Caller, Step, address};

/// How often somebody who waits for a place looks for one.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A sidecar that calls the service.
pub struct Leno {
    spec: ServiceSpec,
    world: World,
    snapshot: Rc<Snapshot>,
    backends: Backends,
    running: BTreeMap<usize, (Exchange, Rc<Snapshot>)>,
    /// Those that may have a second attempt, and when their first one began.
    racing: BTreeMap<usize, Instant>,
    /// Those that wait for a place, where and until when.
    waiting: BTreeMap<usize, (Place, BackendId, Instant)>,
    ledgers: Ledgers,
    ejected: Vec<usize>,
    /// Of each host, where that is known.
    zones: Vec<Option<Zone>>,
}

impl Leno {
    /// One that balances and looks after endpoints like this.
    pub fn new(balance: Balance, care: Option<Care>) -> Self {
        let spec = ServiceSpec {
            id: ServiceId::parse("shop").expect("it is a name"),
            protocol: Protocol::Http1,
            balance,
            care: care.map(Arc::new),
            rules: Vec::new(),
            calls: Vec::new(),
            health: None,
            timeout: None,
            tries: None,
            external: None,
            send_proxy: None,
            headless: false,
            srv_port: 80,
        };
        Self {
            spec,
            world: World::default(),
            snapshot: Rc::default(),
            backends: Backends::default(),
            running: BTreeMap::new(),
            racing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ledgers: Ledgers::default(),
            ejected: Vec::new(),
            zones: Vec::new(),
        }
    }

    /// The same, in a zone, before hosts in these zones.
    pub fn in_zone(mut self, own: usize, hosts: &[usize]) -> Self {
        let zone = |number: usize| Zone::parse(&format!("region/z{number}")).ok();
        self.world.own.zone = zone(own);
        self.zones = hosts.iter().map(|host| zone(*host)).collect();
        self
    }

    /// The same with second attempts beside slow ones.
    pub fn hedging(hedge: HedgeSpec) -> Self {
        let mut leno = Self::new(Balance::default(), None);
        leno.spec.tries = Some(Arc::new(TriesSpec { hedge: Some(hedge), ..TriesSpec::default() }));
        leno
    }

    /// What came of one of the attempts of a race.
    fn heard(&mut self, number: usize, lane: Lane, back: Back, now: Instant, rng: &mut Rng) -> Step {
        let Some((exchange, snapshot)) = self.running.get_mut(&number) else { return Step::Over(false) };
        let host = |endpoint: Option<&Rc<Endpoint>>| {
            endpoint.map_or(0, |it| usize::from(it.spec.address.port()) - 1000)
        };
        let own = host(if lane == Lane::Second { exchange.rival() } else { exchange.endpoint() });
        let head = |status| ResponseHead { status, reason: b"", fields: Fields::default() };
        let heed = match back {
            Back::Connected => exchange.heard(lane, Heard::Connected, now),
            Back::Refused => exchange.heard(lane, Heard::ConnectFailed(ConnectFailure::Refused), now),
            Back::Answer(status) => exchange.heard(lane, Heard::Answer(&head(status)), now),
            Back::Broke => {
                let (app_saw, reason) = (AppSaw::Maybe, Reason::UpstreamClosed);
                exchange.heard(lane, Heard::Ended { app_saw, reason }, now)
            }
            Back::Shed => {
                let (app_saw, reason) = (AppSaw::Nothing, Reason::ServiceOverloaded);
                exchange.heard(lane, Heard::Ended { app_saw, reason }, now)
            }
            Back::TimedOut => {
                exchange.race_rang(now);
                Heed::Over
            }
        };
        match (heed, back) {
            (Heed::GoOn, _) => return Step::Send(own),
            (Heed::Drop, _) => return Step::GoOn,
            (Heed::Take, Back::Answer(status)) => {
                if let (Some(backend), Some(begun)) = (exchange.backend(), self.racing.get(&number)) {
                    self.backends.hedge_learns(snapshot, backend, now.since(*begun));
                }
                exchange.handle(Input::Response { status }, now);
            }
            (Heed::Take | Heed::Over, _) => {}
        }
        self.racing.remove(&number);
        if let (Some(Hedged::Won), Some(backend)) = (exchange.record().hedged, exchange.backend()) {
            self.backends.hedge_won(snapshot, backend);
        }
        self.go_on(number, now, rng)
    }

    /// Does what the exchange asks for until somebody else has to do something.
    fn go_on(&mut self, number: usize, now: Instant, rng: &mut Rng) -> Step {
        let Some((exchange, snapshot)) = self.running.get_mut(&number) else { return Step::Over(false) };
        loop {
            let action = exchange.poll_action();
            let host = || exchange.endpoint().map_or(0, |it| usize::from(it.spec.address.port()) - 1000);
            match action {
                Some(Action::Pick { choice, budget }) => {
                    let allowed = match exchange.record().attempts().next() {
                        Some(_) if budget => match choice {
                            Choice::Backend(backend) => self.backends.try_retry(snapshot, backend, now),
                            _ => true,
                        },
                        _ => true,
                    };
                    let (tried, count) = exchange.tried();
                    if !allowed {
                        exchange.handle(Input::OverBudget, now);
                        continue;
                    }
                    let picked = self.backends.pick(snapshot, choice, &tried[..count], now, rng);
                    if let Ok(permit) = &picked
                        && count == 0
                    {
                        self.backends.request_started(snapshot, permit.backend(), now);
                    }
                    let put_out = self.backends.events().filter_map(|event| match event.what {
                        What::Ejected { .. } => event.endpoint.get(1..)?.parse::<usize>().ok(),
                        What::Held(_) | What::Returned => None,
                    });
                    self.ejected.extend(put_out);
                    if let Err(NoEndpoint::Limit { by, backend }) = picked
                        && by.is_worth_a_wait()
                        && let Some((place, wait)) = self.backends.wait(snapshot, backend)
                    {
                        self.waiting.insert(number, (place, backend, now.after(wait)));
                        return Step::Wait(LOOK_AGAIN);
                    }
                    exchange.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked), now);
                }
                // The callers are no application's sidecar.
                Some(Action::Admit) => exchange.handle(Input::Admitted, now),
                // Nothing is configured about attempts, so that none is waited for.
                Some(Action::Pause { .. }) => exchange.handle(Input::Timeout, now),
                Some(Action::Dial) => {
                    let host = host();
                    if let (Some(hedge), Some(backend)) = (exchange.may_race(), exchange.backend()) {
                        let delay = self.backends.hedge_delay(snapshot, backend, &hedge);
                        exchange.begin_race(delay);
                        self.racing.insert(number, now);
                    }
                    return Step::Dial(host);
                }
                Some(Action::Send) => return Step::Send(host()),
                Some(Action::Relay) => exchange.handle(Input::UpstreamEnded(Ending::Complete), now),
                Some(Action::Reply(_) | Action::Answer | Action::Cut(_)) => exchange.ended(now),
                Some(Action::Finish) | None => {
                    let record = exchange.record();
                    let good = record.reason.is_none() && record.status < 500;
                    self.running.remove(&number);
                    return Step::Over(good);
                }
            }
        }
    }
}

impl Caller for Leno {
    fn told(&mut self, hosts: &[usize], _now: Instant) {
        let mut endpoints: Vec<EndpointSpec> = hosts
            .iter()
            .map(|host| EndpointSpec {
                name: format!("h{host:03}").into(),
                address: address(*host),
                transport: Transport::Plain,
                version: None,
                weight: 1,
                healthy: true,
                tags: Tags { zone: self.zones.get(*host).cloned().flatten(), ..Tags::NONE },
            })
            .collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        self.world.generation += 1;
        let known = KnownService { spec: self.spec.clone(), endpoints };
        self.world.services.insert(self.spec.id.clone(), known);
        let snapshot = Snapshot::build_with(&self.world, None, &mut Vips::new(), &mut self.ledgers);
        self.snapshot = Rc::new(snapshot);
        self.backends.adopt(&self.snapshot);
    }

    fn arrives(&mut self, number: usize, deadline: Instant, now: Instant, rng: &mut Rng) -> Step {
        let head = RequestHead { method: b"GET", authority: b"shop", path: b"/", fields: Fields::default() };
        let decision = self.snapshot.decide(Entry::Forward, &head);
        let mut exchange = Exchange::new(decision, head.is_idempotent(), Some(deadline), now);
        if let Some(tries) = self.snapshot.tries(&decision) {
            exchange.follow(tries, rng.next_u64());
            exchange.body_is_whole();
        }
        self.running.insert(number, (exchange, self.snapshot.clone()));
        self.go_on(number, now, rng)
    }

    fn looks(&mut self, number: usize, now: Instant, rng: &mut Rng) -> Step {
        let Some((_, backend, until)) = self.waiting.get(&number) else { return Step::Over(false) };
        let Some((exchange, snapshot)) = self.running.get_mut(&number) else { return Step::Over(false) };
        let (tried, count) = exchange.tried();
        let choice = Choice::Backend(*backend);
        match self.backends.pick(snapshot, choice, &tried[..count], now, rng) {
            Err(NoEndpoint::Limit { .. }) if now < *until => Step::Wait(LOOK_AGAIN),
            picked => {
                exchange.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked), now);
                self.waiting.remove(&number);
                self.go_on(number, now, rng)
            }
        }
    }

    fn hedge_at(&self, number: usize) -> Option<Instant> {
        let due = self.running.get(&number)?.0.hedge_at();
        due.filter(|_| self.racing.contains_key(&number))
    }

    fn hedges(&mut self, number: usize, now: Instant, rng: &mut Rng) -> Option<usize> {
        let (exchange, snapshot) =
            self.running.get_mut(&number).filter(|_| self.racing.contains_key(&number))?;
        if exchange.race_rang(now) != Rang::Hedge {
            return None;
        }
        let backend = exchange.backend()?;
        let tried = exchange.planned_tried()?.to_vec();
        if !self.backends.may_hedge(snapshot, backend) {
            exchange.not_hedged(Hedged::Budget);
            return None;
        }
        let picked = self.backends.pick(snapshot, Choice::Backend(backend), &tried, now, rng);
        let Some(permit) = picked.ok().filter(|permit| permit.chosen() == Chosen::Balanced) else {
            exchange.not_hedged(Hedged::NoEndpoint);
            return None;
        };
        self.backends.take_hedge(snapshot, backend);
        let host = usize::from(permit.endpoint().spec.address.port()) - 1000;
        exchange.hedge(permit, now);
        Some(host)
    }

    fn back_of_second(&mut self, number: usize, back: Back, now: Instant, rng: &mut Rng) -> Step {
        self.heard(number, Lane::Second, back, now, rng)
    }

    fn back(&mut self, number: usize, back: Back, now: Instant, rng: &mut Rng) -> Step {
        if self.racing.contains_key(&number) {
            return self.heard(number, Lane::First, back, now, rng);
        }
        let Some((exchange, _)) = self.running.get_mut(&number) else { return Step::Over(false) };
        let input = match back {
            Back::Connected => Input::Connected { reused: false },
            Back::Refused => Input::ConnectFailed(ConnectFailure::Refused),
            Back::Answer(status) => Input::Response { status },
            Back::Broke => {
                Input::UpstreamEnded(Ending::Early { app_saw: AppSaw::Maybe, reason: Reason::UpstreamClosed })
            }
            Back::Shed => Input::UpstreamEnded(Ending::Early {
                app_saw: AppSaw::Nothing,
                reason: Reason::ServiceOverloaded,
            }),
            Back::TimedOut => Input::Timeout,
        };
        exchange.handle(input, now);
        self.waiting.remove(&number);
        self.go_on(number, now, rng)
    }

    fn ejected(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.ejected)
    }
}
