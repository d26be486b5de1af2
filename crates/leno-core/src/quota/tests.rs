use std::vec;
use std::vec::Vec;

use super::*;
use crate::edit::Edits;
use crate::head::{Fields, RequestHead};
use crate::rate::{Charge, Rate, RateBook, Sender};
use crate::rng::Rng;
use crate::spec::{MatchSpec, RateScope, RateSpec};

const MILLI: u64 = 1_000_000;
const HEAD: RequestHead<'static> =
    RequestHead { method: b"GET", authority: b"cart", path: b"/", fields: Fields::new(b"", &[]) };

fn spec(requests: u32, burst: u32) -> RateSpec {
    RateSpec {
        name: "all".into(),
        when: MatchSpec::default(),
        requests,
        per: Duration::from_secs(1),
        burst,
        by: vec![],
        scope: RateScope::Mesh,
        dry_run: false,
    }
}

fn limit() -> LimitId {
    LimitId { owner: ServiceId::parse("cart").unwrap(), name: "all".into() }
}

fn holder(number: usize) -> HolderId {
    let instance = Label::parse(&alloc::format!("cart-{number}")).unwrap();
    HolderId { service: ServiceId::parse("cart").unwrap(), instance }
}

/// A proxy with a limit, and its clients.
struct Proxy {
    number: usize,
    rate: Rate,
    tenure: Tenure,
    /// Requests of its clients in a second.
    load: f64,
    next_request: u64,
    next_ask: u64,
    /// It hears nothing of the control plane until then.
    cut_off_until: u64,
    passed: u64,
    asked: u64,
}

impl Proxy {
    fn start(number: usize, spec: &RateSpec, load: f64, now: u64) -> Self {
        let mut book = RateBook::new(number as u64, true);
        let rate = book.rate(&limit().owner, &limit().name, &Arc::new(spec.clone()), 3);
        Self {
            number,
            rate,
            tenure: Tenure::new(3, 0, Instant::from_nanos(now)),
            load,
            next_request: now,
            next_ask: now,
            cut_off_until: 0,
            passed: 0,
            asked: 0,
        }
    }
}

/// A token bucket that everything that passes anywhere is taken from; what it lacks at the worst is what passed too much.
struct Reference {
    size: f64,
    has: f64,
    at: u64,
    lacks: f64,
}

impl Reference {
    fn take(&mut self, per_second: f64, now: u64) {
        self.has = self.size.min(self.has + (now - self.at) as f64 / 1e9 * per_second) - 1.0;
        self.at = now;
        self.lacks = self.lacks.max(-self.has);
    }
}

/// A mesh of proxies and an office, in virtual time.
struct World {
    rng: Rng,
    spec: RateSpec,
    now: u64,
    office: Office,
    /// The office is not there until then.
    office_back: u64,
    proxies: Vec<Proxy>,
    reference: Reference,
    /// The sum of what all proxies use was more than the whole, at the worst.
    over: u64,
    started: usize,
}

impl World {
    fn new(seed: u64, spec: RateSpec, loads: &[f64]) -> Self {
        let size = f64::from(spec.burst);
        let mut world = Self {
            rng: Rng::new(seed),
            spec,
            now: 0,
            office: Office::new(Instant::ZERO),
            office_back: 0,
            proxies: vec![],
            reference: Reference { size, has: size, at: 0, lacks: 0.0 },
            over: 0,
            started: 0,
        };
        loads.iter().for_each(|load| world.join(*load));
        world
    }

    fn join(&mut self, load: f64) {
        self.proxies.push(Proxy::start(self.started, &self.spec, load, self.now));
        self.started += 1;
    }

    /// Lets time pass.
    fn run(&mut self, millis: u64) {
        let end = self.now + millis * MILLI;
        let per_second = Rate::per_second(&self.spec);
        while self.now < end {
            let next = |proxy: &Proxy| proxy.next_request.min(proxy.next_ask);
            let Some(at) = (0..self.proxies.len()).min_by_key(|at| next(&self.proxies[*at])) else { break };
            let proxy = &mut self.proxies[at];
            if next(proxy) >= end {
                break;
            }
            self.now = next(proxy).max(self.now);
            let now = Instant::from_nanos(self.now);
            if let Some(share) = proxy.tenure.fall_back(now) {
                proxy.rate.set_share(share, now);
            }
            if proxy.next_request <= proxy.next_ask {
                let mean = 1e9 / proxy.load.max(0.01);
                proxy.next_request = self.now + self.rng.below((2.0 * mean) as u64) + 1;
                proxy.asked += 1;
                let sender = Sender { caller: "shop", client: [10, 0, 0, 1].into() };
                let rates = core::slice::from_ref(&proxy.rate);
                let charge = Charge::of(rates, &HEAD, &sender, now, &mut Edits::new());
                if charge.refused_by().is_none() {
                    proxy.passed += 1;
                    self.reference.take(per_second, self.now);
                }
                continue;
            }
            let ask = ASK_INTERVAL.as_nanos() as u64;
            // The way there takes a while, and so does the way back; what is lost is given up.
            let (there, back) = (self.rng.below(20 * MILLI), self.rng.below(20 * MILLI));
            proxy.next_ask = self.now + there + back + ask;
            let seen = proxy.rate.seen();
            let question = proxy.tenure.ask(self.now, seen, per_second, proxy.rate.share(), now);
            let lost = self.now < proxy.cut_off_until || self.now < self.office_back;
            let answer_lost = self.rng.one_in(50);
            if !lost {
                let then = Instant::from_nanos(self.now + there);
                self.office.sweep(then);
                let grant = self.office.ask(&limit(), &holder(proxy.number), question, then);
                if let Some(grant) = grant.filter(|_| !answer_lost) {
                    let share = proxy.tenure.take(&grant, now);
                    proxy.rate.set_share(share, Instant::from_nanos(self.now + there + back));
                }
            }
            let used: u64 = self.proxies.iter().map(|proxy| u64::from(proxy.rate.share())).sum();
            self.over = self.over.max(used.saturating_sub(u64::from(WHOLE)));
        }
        self.now = end;
    }

    fn passed(&self) -> Vec<u64> {
        self.proxies.iter().map(|proxy| proxy.passed).collect()
    }
}

#[test]
fn an_uneven_load_gets_the_whole_limit_and_not_more() {
    for seed in 0..20 {
        let mut world = World::new(seed, spec(100, 100), &[300.0, 30.0, 5.0]);
        world.run(5_000);
        let before: u64 = world.passed().iter().sum();
        world.run(20_000);
        let passed: u64 = world.passed().iter().sum::<u64>() - before;
        assert!((1_800..=2_101).contains(&passed), "seed {seed}: {passed} of 2000");
        // Those who want little get it.
        let [_, second, third] = world.passed()[..] else { panic!() };
        assert!(second as f64 > world.proxies[1].asked as f64 * 0.8, "seed {seed}: {second}");
        assert!(third as f64 > world.proxies[2].asked as f64 * 0.7, "seed {seed}: {third}");
        assert!(world.over <= 3_000_000, "seed {seed}: {}", world.over);
        assert!(world.reference.lacks <= 3.0 + 1e-6, "seed {seed}: {} too many", world.reference.lacks);
    }
}

#[test]
fn a_load_that_moves_takes_its_share_along() {
    let mut world = World::new(7, spec(100, 50), &[200.0, 1.0, 1.0]);
    world.run(5_000);
    world.proxies[0].load = 1.0;
    world.proxies[1].load = 200.0;
    world.run(2_000);
    let before = world.passed()[1];
    world.run(10_000);
    let passed = world.passed()[1] - before;
    assert!(passed > 900, "{passed} of 1000 soon after the load has moved");
    assert!(world.reference.lacks <= 3.0 + 1e-6, "{} too many", world.reference.lacks);
}

/// Proxies come and go and loads change, and never does more pass than the burst, one request for each proxy, and what comes
/// in; nor are shares in use more than the whole.
#[test]
fn nothing_passes_too_much_while_everybody_hears_each_other() {
    for seed in 0..80 {
        let mut chance = Rng::new(seed);
        let limit = spec(1 + chance.below(300) as u32, 1 + chance.below(200) as u32);
        let loads: Vec<f64> = (0..1 + chance.below(8)).map(|_| chance.below(400) as f64).collect();
        let mut world = World::new(seed, limit, &loads);
        for _ in 0..40 {
            world.run(chance.below(1_500));
            match chance.below(4) {
                0 if world.proxies.len() < 10 => world.join(chance.below(400) as f64),
                1 if world.proxies.len() > 1 => {
                    let at = chance.below(world.proxies.len() as u64) as usize;
                    let gone = world.proxies.swap_remove(at);
                    // One that is killed says nothing.
                    if chance.one_in(2) {
                        world.office.forget(&holder(gone.number));
                    }
                }
                _ => {
                    let at = chance.below(world.proxies.len() as u64) as usize;
                    world.proxies[at].load = chance.below(400) as f64;
                }
            }
        }
        let joined = world.started as f64;
        assert!(world.reference.lacks <= joined + 1e-6, "seed {seed}: {} too many", world.reference.lacks);
        // A new one has a thousandth until it has been answered.
        let first = u64::from(WHOLE) / 1000 * world.started as u64;
        assert!(world.over <= first, "seed {seed}: {} over", world.over);
    }
}

/// With faults there pass besides at most what comes in during one lease for each, and for one that is cut off alone and taken
/// for dead what its even share lets through.
#[test]
fn faults_cost_no_more_than_is_said() {
    for seed in 0..80 {
        let mut chance = Rng::new(seed);
        let requests = 20 + chance.below(300) as u32;
        let limit = spec(requests, 1 + chance.below(200) as u32);
        let loads: Vec<f64> = (0..2 + chance.below(6)).map(|_| chance.below(400) as f64).collect();
        let mut world = World::new(seed, limit, &loads);
        let (mut faults, mut cut_off) = (0.0, 0.0);
        for _ in 0..30 {
            world.run(chance.below(1_500));
            match chance.below(6) {
                0 => {
                    // The control plane dies, and comes back with nothing in its head.
                    let away = chance.below(8_000) * MILLI;
                    world.office_back = world.now + away;
                    world.office = Office::new(Instant::from_nanos(world.office_back));
                    faults += 1.0;
                }
                1 => {
                    let at = chance.below(world.proxies.len() as u64) as usize;
                    let away = chance.below(20_000);
                    world.proxies[at].cut_off_until = world.now + away * MILLI;
                    faults += 1.0;
                    cut_off += away as f64 / 1000.0;
                }
                2 if world.proxies.len() < 10 => world.join(chance.below(400) as f64),
                _ => {
                    let at = chance.below(world.proxies.len() as u64) as usize;
                    world.proxies[at].load = chance.below(400) as f64;
                }
            }
        }
        let each = LEASE_KEPT.as_secs_f64() * f64::from(requests);
        let allowed = world.started as f64 + faults * each + cut_off * f64::from(requests);
        assert!(world.reference.lacks <= allowed, "seed {seed}: {} of {allowed}", world.reference.lacks);
    }
}

#[test]
fn one_restart_of_the_control_plane_costs_at_most_a_lease() {
    let mut worst: f64 = 0.0;
    for seed in 0..60 {
        let mut world = World::new(seed, spec(100, 20), &[400.0, 3.0, 3.0]);
        world.run(5_000);
        world.office_back = world.now + seed * 150 * MILLI;
        world.office = Office::new(Instant::from_nanos(world.office_back));
        // Just then the load moves: what each has is not what each should have.
        world.proxies[0].load = 100.0;
        world.proxies[1].load = 400.0;
        world.run(15_000);
        worst = worst.max(world.reference.lacks);
        let before: u64 = world.passed().iter().sum();
        world.run(10_000);
        let passed = world.passed().iter().sum::<u64>() - before;
        assert!((900..=1_050).contains(&passed), "seed {seed}: {passed} of 1000 afterwards");
    }
    assert!(worst <= 3.0 + LEASE_KEPT.as_secs_f64() * 100.0, "{worst} too many");
}

#[test]
fn without_a_control_plane_each_has_the_even_share() {
    let mut world = World::new(3, spec(90, 30), &[400.0, 400.0, 400.0]);
    world.office_back = u64::MAX;
    world.run(10_000);
    let before = world.passed();
    world.run(10_000);
    for (now, before) in world.passed().iter().zip(before) {
        assert!((290..=302).contains(&(now - before)), "{}", now - before);
    }
    assert!(world.reference.lacks <= 3.0 + 1e-6, "{}", world.reference.lacks);
}

#[test]
fn a_question_that_was_overtaken_is_not_answered() {
    let mut office = Office::new(Instant::ZERO);
    let at = |millis: u64| Instant::from_nanos(millis * MILLI);
    let ask = |number| Ask { number, ..Ask::default() };
    assert!(office.ask(&limit(), &holder(1), ask(5), at(5_000)).is_some());
    assert!(office.ask(&limit(), &holder(1), ask(4), at(5_000)).is_none());
    assert!(office.ask(&limit(), &holder(1), ask(5), at(5_000)).is_none());
    office.forget(&holder(1));
    assert!(office.ask(&limit(), &holder(1), ask(4), at(5_000)).is_some());
    office.sweep(at(16_000));
    assert!(office.desks.is_empty());
}

/// One has all of it, and wants more; whoever comes later and wants little gets that, also where no answer is ever lost.
#[test]
fn who_joins_late_and_wants_little_gets_it() {
    let mut office = Office::new(Instant::ZERO);
    let at = |number: u64| Instant::from_nanos(LEASE_KEPT.as_nanos() as u64 + number * 250 * MILLI);
    let mut held = [(0, 0), (0, 0)];
    for number in 1..80 {
        for (who, demand) in [(0, 3 * u64::from(WHOLE)), (1, u64::from(WHOLE) / 50)] {
            if who == 1 && number < 20 {
                continue;
            }
            let (share, lease) = held[who];
            let left = if lease == 0 { Duration::ZERO } else { LEASE };
            let ask = Ask { number, demand, lease, held: share, left };
            let grant = office.ask(&limit(), &holder(who), ask, at(number)).unwrap();
            held[who] = (grant.share, grant.lease);
        }
    }
    assert!(held[1].0 >= WHOLE / 50, "{} of {WHOLE} for who wants a fiftieth", held[1].0);
    assert!(held[0].0 + held[1].0 <= WHOLE, "{held:?}");
}

/// Nobody takes all from everybody by saying that somebody has leased it to him.
#[test]
fn what_somebody_says_to_have_from_elsewhere_is_not_all() {
    let mut office = Office::new(Instant::ZERO);
    let at = |millis: u64| Instant::from_nanos((LEASE_KEPT.as_nanos() as u64) + millis * MILLI);
    let ask = |number, held, lease| Ask { number, demand: WHOLE.into(), lease, held, left: Duration::ZERO };
    let mut lease = (0, 0);
    for number in 1..40 {
        office.ask(&limit(), &holder(1), ask(number, u32::MAX, 0), at(number * 250));
        let grant =
            office.ask(&limit(), &holder(2), ask(number, lease.0, lease.1), at(number * 250)).unwrap();
        lease = (grant.share, grant.lease);
    }
    assert!(lease.0 >= WHOLE / 2 - WHOLE / 50, "{} of {WHOLE}", lease.0);
}
