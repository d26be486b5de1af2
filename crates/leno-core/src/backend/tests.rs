use alloc::string::ToString;
use alloc::vec;
use core::cell::Cell;

use super::*;
use crate::name::{Label, ServiceId};
use crate::spec::{KnownService, MatchSpec, RuleSpec, ServiceSpec, TargetSpec, Transport, World};
use crate::time::Duration;

fn service(balance: Balance, endpoints: Vec<EndpointSpec>) -> KnownService {
    KnownService {
        spec: ServiceSpec {
            id: ServiceId::parse("product").unwrap(),
            protocol: crate::spec::Protocol::Http1,
            balance,
            care: None,
            rules: vec![],
            calls: vec![],
            health: None,
            timeout: None,
            tries: None,
            external: None,
            send_proxy: None,
            headless: false,
            srv_port: 80,
        },
        endpoints,
    }
}

fn endpoint(name: &str, version: &str, weight: u32) -> EndpointSpec {
    EndpointSpec {
        name: name.into(),
        address: ([127, 0, 0, 1], 1).into(),
        transport: Transport::Plain,
        version: Some(Label::parse(version).unwrap()),
        weight,
        healthy: true,
        tags: crate::spec::Tags::NONE,
    }
}

fn snapshot(service: KnownService, generation: u64) -> Snapshot {
    let mut world = World { generation, ..World::default() };
    world.services.insert(service.spec.id.clone(), service);
    Snapshot::build(&world, None)
}

fn three(balance: Balance) -> KnownService {
    service(balance, vec![endpoint("a", "v1", 1), endpoint("b", "v1", 1), endpoint("c", "v2", 1)])
}

/// Picks `times` times and counts by endpoint name.
fn spread(
    backends: &mut Backends,
    snapshot: &Snapshot,
    times: usize,
) -> alloc::collections::BTreeMap<alloc::string::String, usize> {
    let mut rng = Rng::new(7);
    let mut counts = alloc::collections::BTreeMap::new();
    for _ in 0..times {
        let permit =
            backends.pick(snapshot, Choice::Split(SplitId(0)), &[], Instant::ZERO, &mut rng).unwrap();
        *counts.entry(permit.endpoint().spec.name.to_string()).or_insert(0) += 1;
    }
    counts
}

fn adopted(snapshot: &Snapshot) -> Backends {
    let mut backends = Backends::default();
    backends.adopt(snapshot);
    backends
}

#[test]
fn round_robin_is_exact() {
    let snapshot = snapshot(three(Balance::RoundRobin), 1);
    let counts = spread(&mut adopted(&snapshot), &snapshot, 3_000);
    assert!(counts.values().all(|count| *count == 1_000), "{counts:?}");
}

#[test]
fn weights_are_kept_by_every_policy() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let service = service(balance, vec![endpoint("a", "v1", 9), endpoint("b", "v1", 1)]);
        let snapshot = snapshot(service, 1);
        let counts = spread(&mut adopted(&snapshot), &snapshot, 10_000);
        let share = counts["a"];
        assert!((8_800..=9_200).contains(&share), "{balance:?} {counts:?}");
    }
}

#[test]
fn a_split_between_versions_is_exact() {
    let mut service = three(Balance::RoundRobin);
    let target = |version, weight| TargetSpec {
        service: service.spec.id.clone(),
        version: Some(Label::parse(version).unwrap()),
        labels: crate::spec::Labels::NONE,
        weight,
    };
    let targets = vec![target("v1", 90), target("v2", 10)];
    service.spec.rules = vec![RuleSpec {
        name: "split".into(),
        when: MatchSpec::default(),
        then: crate::spec::ActionSpec::Split(targets),
        timeout: None,
        change: None,
        tries: None,
    }];
    let snapshot = snapshot(service, 1);
    let Some(rule) = snapshot.lists[0].rules.first() else { panic!("no rule") };
    let crate::route::Then::Split(split) = rule.then else { panic!("{:?}", rule.then) };
    let mut backends = adopted(&snapshot);
    let mut rng = Rng::new(1);
    let mut v2 = 0;
    for _ in 0..3_000 {
        let permit = backends.pick(&snapshot, Choice::Split(split), &[], Instant::ZERO, &mut rng).unwrap();
        v2 += usize::from(&*permit.endpoint().spec.name == "c");
    }
    assert_eq!(v2, 300);
}

#[test]
fn least_request_prefers_the_idle_one() {
    let service = service(Balance::LeastRequest, vec![endpoint("a", "v1", 1), endpoint("b", "v1", 1)]);
    let snapshot = snapshot(service, 1);
    let mut backends = adopted(&snapshot);
    let mut rng = Rng::new(3);
    let mut held = vec![];
    for _ in 0..100 {
        held.push(backends.pick(&snapshot, Choice::Split(SplitId(0)), &[], Instant::ZERO, &mut rng).unwrap());
    }
    let on_a = held.iter().filter(|permit| &*permit.endpoint().spec.name == "a").count();
    assert_eq!(on_a, 50, "two choices of two endpoints always see both");
    drop(held);
    assert!(backends.iter().flat_map(Backend::endpoints).all(|endpoint| endpoint.in_flight() == 0));
}

#[test]
fn unhealthy_and_tried_endpoints_are_avoided() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let mut service = three(balance);
        service.endpoints[0].healthy = false;
        let snapshot = snapshot(service, 1);
        let mut backends = adopted(&snapshot);
        let mut rng = Rng::new(5);
        let mut pick = |avoid: &[u64]| {
            backends.pick(&snapshot, Choice::Split(SplitId(0)), avoid, Instant::ZERO, &mut rng)
        };
        let first = pick(&[]).unwrap();
        assert_ne!(&*first.endpoint().spec.name, "a");
        let second = pick(&[first.endpoint().key]).unwrap();
        assert_ne!(second.endpoint().key, first.endpoint().key);
        let third = pick(&[first.endpoint().key, second.endpoint().key]);
        assert_eq!(third.unwrap_err(), NoEndpoint::AllTried);
    }
}

#[test]
fn none_healthy_and_none_at_all_are_told_apart() {
    let mut sick = three(Balance::RoundRobin);
    for endpoint in &mut sick.endpoints {
        endpoint.healthy = false;
    }
    for (service, expected) in
        [(sick, NoEndpoint::Unhealthy), (service(Balance::Random, vec![]), NoEndpoint::Empty)]
    {
        let snapshot = snapshot(service, 1);
        let found = adopted(&snapshot).pick(
            &snapshot,
            Choice::Split(SplitId(0)),
            &[],
            Instant::ZERO,
            &mut Rng::new(1),
        );
        assert_eq!(found.unwrap_err(), expected);
    }
}

#[test]
fn an_unreachable_endpoint_cools_down_and_comes_back() {
    let snapshot = snapshot(three(Balance::RoundRobin), 1);
    let mut backends = adopted(&snapshot);
    let mut rng = Rng::new(1);
    let start = Instant::ZERO;
    let permit = backends.pick(&snapshot, Choice::Split(SplitId(0)), &[], start, &mut rng).unwrap();
    let key = permit.endpoint().key;
    permit.report(Outcome::Unreachable, start);
    permit.report(Outcome::Unreachable, start);
    drop(permit);
    let mut seen = |at| {
        (0..30).any(|_| {
            let permit = backends.pick(&snapshot, Choice::Split(SplitId(0)), &[], at, &mut rng).unwrap();
            permit.endpoint().key == key
        })
    };
    assert!(!seen(start.after(COOLING_MIN / 2)));
    assert!(seen(start.after(COOLING_MIN)), "failures at one time count once");
}

#[test]
fn live_state_survives_a_swap() {
    let first = snapshot(three(Balance::RoundRobin), 1);
    let mut backends = adopted(&first);
    let mut rng = Rng::new(1);
    let choice = Choice::Split(SplitId(0));
    let held = backends.pick(&first, choice, &[], Instant::ZERO, &mut rng).unwrap();
    let mut changed = three(Balance::RoundRobin);
    changed.endpoints.push(endpoint("d", "v1", 1));
    changed.endpoints[2].address.set_port(9);
    let second = snapshot(changed, 2);
    backends.adopt(&second);
    let endpoints = backends.iter().next().unwrap().endpoints();
    assert_eq!(endpoints.len(), 4);
    assert_eq!(endpoints[0].key, held.endpoint().key);
    assert_eq!(endpoints[0].in_flight(), 1);
    assert_ne!(endpoints[2].key, 3, "another address is another endpoint");
    // A request that decided by the older snapshot still finds its backend.
    let retry = backends.pick(
        &first,
        Choice::Backend(held.backend()),
        &[held.endpoint().key],
        Instant::ZERO,
        &mut rng,
    );
    assert!(retry.is_ok());
    drop(held);
    let endpoints = backends.iter().next().unwrap().endpoints();
    assert_eq!(endpoints[0].in_flight(), 0);
}

#[test]
fn a_retry_finds_its_own_service_when_the_world_grew_within_one_generation() {
    // A service that was asked for on demand comes in without a new generation of the control plane.
    let first = snapshot(three(Balance::RoundRobin), 1);
    let mut backends = adopted(&first);
    let mut rng = Rng::new(1);
    let held = backends.pick(&first, Choice::Split(SplitId(0)), &[], Instant::ZERO, &mut rng).unwrap();
    let mut world = World { generation: 1, ..World::default() };
    let mut cart = three(Balance::RoundRobin);
    cart.spec.id = ServiceId::parse("cart").unwrap();
    cart.endpoints = vec![endpoint("cart-1", "v1", 1)];
    world.services.insert(cart.spec.id.clone(), cart);
    let product = three(Balance::RoundRobin);
    world.services.insert(product.spec.id.clone(), product);
    backends.adopt(&Snapshot::build(&world, None));
    let avoid = [held.endpoint().key];
    let retry =
        backends.pick(&first, Choice::Backend(held.backend()), &avoid, Instant::ZERO, &mut rng).unwrap();
    assert_ne!(&*retry.endpoint().spec.name, "cart-1");
    // The same holds for a first attempt that a new snapshot has overtaken.
    for _ in 0..6 {
        let late = backends.pick(&first, Choice::Split(SplitId(0)), &[], Instant::ZERO, &mut rng).unwrap();
        assert_ne!(&*late.endpoint().spec.name, "cart-1");
    }
}

#[test]
fn the_budget_allows_a_fifth_and_a_minimum() {
    let mut budget = Budget::default();
    let mut now = Instant::ZERO;
    while budget.withdraw(now) {}
    for _ in 0..100 {
        budget.deposit(now);
    }
    let by_requests = (0..100).filter(|_| budget.withdraw(now)).count();
    assert_eq!(by_requests, 20);
    now = now.after(Duration::from_secs(1));
    let by_time = (0..100).filter(|_| budget.withdraw(now)).count();
    assert_eq!(by_time, 10);
}

/// Turns among participants of these weights.
struct Line(Shares, Turns);

impl Line {
    fn new(weights: impl Iterator<Item = u32>) -> Self {
        let shares = Shares::new(weights);
        let turns = Turns::following(&shares, None, |at| at);
        Self(shares, turns)
    }

    fn next(&mut self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        self.1.next(&self.0, fits)
    }
}

#[test]
fn turns_do_not_save_up_for_those_who_were_away() {
    let mut turns = Line::new([1, 1].into_iter());
    for _ in 0..100 {
        assert_eq!(turns.next(|at| at == 0), Some(0));
    }
    let second = (0..10).filter(|_| turns.next(|_| true) == Some(1)).count();
    assert!(second <= 6, "a burst of {second} of 10");
    // The same between classes.
    let mut turns = Line::new([3, 1].into_iter());
    for _ in 0..100 {
        assert_eq!(turns.next(|at| at == 0), Some(0));
    }
    let second = (0..12).filter(|_| turns.next(|_| true) == Some(1)).count();
    assert!(second <= 4, "a burst of {second} of 12");
}

#[test]
fn any_run_of_turns_holds_the_shares_to_within_a_turn_per_weight() {
    let mut runs = 0;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let weights: Vec<u32> =
            (0..1 + rng.below(12)).map(|_| one_of(&mut rng, &[0, 1, 1, 2, 5, 100])).collect();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut turns = Line::new(weights.iter().copied());
        if total == 0 {
            assert_eq!(turns.next(|_| true), None);
            continue;
        }
        for _ in 0..rng.below(1_000) {
            turns.next(|_| true);
        }
        let classes = turns.0.classes().count().max(2) as u64;
        let mut served = vec![0_u64; weights.len()];
        for turn in 1..=1_000 {
            served[turns.next(|_| true).unwrap()] += 1;
            for (at, weight) in weights.iter().enumerate() {
                // Thousandths of a turn.
                let due = turn * 1_000 * u64::from(*weight) / total;
                assert!(
                    (served[at] * 1_000).abs_diff(due) <= 1_000 * classes,
                    "seed {seed}: {served:?} of {weights:?}"
                );
            }
        }
        runs += 1;
    }
    assert!(runs > 250, "{runs}");
}

#[test]
fn those_who_are_there_share_the_turns_of_those_who_are_not_by_weight() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let weights: Vec<u32> = (0..2 + rng.below(12)).map(|_| one_of(&mut rng, &[1, 1, 2, 5, 40])).collect();
        let mut turns = Line::new(weights.iter().copied());
        let away: Vec<bool> = weights.iter().map(|_| rng.one_in(2)).collect();
        let there = |at: usize| !away[at];
        let total: u64 = (0..weights.len()).filter(|at| there(*at)).map(|at| u64::from(weights[at])).sum();
        if total == 0 {
            assert_eq!(turns.next(there), None);
            continue;
        }
        let mut served = vec![0_u64; weights.len()];
        for _ in 0..20 * total {
            served[turns.next(there).unwrap()] += 1;
        }
        for (at, count) in served.iter().enumerate().filter(|(at, _)| there(*at)) {
            let due = 20 * u64::from(weights[at]);
            assert!(count.abs_diff(due) <= 2, "seed {seed}: {served:?} of {weights:?}, away {away:?}");
        }
    }
}

#[test]
fn when_everybody_cools_down_everybody_is_still_tried_by_weight() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let endpoints = vec![endpoint("a", "v1", 5), endpoint("b", "v1", 1), endpoint("c", "v1", 1)];
        let snapshot = snapshot(service(balance, endpoints), 1);
        let mut backends = adopted(&snapshot);
        let (mut rng, choice) = (Rng::new(1), Choice::Split(SplitId(0)));
        let mut tried = Vec::new();
        for _ in 0..3 {
            let permit = backends.pick(&snapshot, choice, &tried, Instant::ZERO, &mut rng).unwrap();
            permit.report(Outcome::Unreachable, Instant::ZERO);
            tried.push(permit.endpoint().key);
        }
        let counts = spread(&mut backends, &snapshot, 7_000);
        assert!((4_700..=5_300).contains(&counts["a"]), "{balance:?} {counts:?}");
        assert!((800..=1_200).contains(&counts["b"]), "{balance:?} {counts:?}");
    }
}

#[test]
fn turns_stay_exact_for_ever() {
    // Virtual time is moved back every 64 rounds.
    let mut turns = Line::new([1, 3].into_iter());
    let first = (0..400_000).filter(|_| turns.next(|_| true) == Some(0)).count();
    assert!(first.abs_diff(100_000) <= 1, "{first}");
}

fn one_of(rng: &mut Rng, choices: &[u32]) -> u32 {
    choices[rng.below(choices.len() as u64) as usize]
}

#[test]
fn draws_hold_the_weights() {
    let weights = [0, 7, 1, 1, 0, 20, 1];
    let shares = Shares::new(weights.into_iter());
    let mut rng = Rng::new(11);
    for away in [None, Some(5)] {
        let total: u32 = (0..weights.len()).filter(|at| Some(*at) != away).map(|at| weights[at]).sum();
        let mut drawn = [0_u32; 7];
        for _ in 0..1_000 * total {
            drawn[shares.draw(&mut rng, |at| Some(at) != away).unwrap()] += 1;
        }
        for (at, count) in drawn.into_iter().enumerate() {
            let due = if Some(at) == away { 0 } else { 1_000 * weights[at] };
            assert!(count.abs_diff(due) <= due / 10, "{drawn:?} of {weights:?} without {away:?}");
        }
    }
    assert_eq!(shares.draw(&mut rng, |_| false), None);
    assert_eq!(Shares::new([0, 0].into_iter()).draw(&mut rng, |_| true), None);
}

/// The mean number of participants that are looked at for one pick, by turns and by draws.
fn looks(weights: &[u32], fits: impl Fn(usize) -> bool) -> (f64, f64) {
    const PICKS: usize = 20_000;
    let mut line = Line::new(weights.iter().copied());
    let looks = Cell::new(0);
    let counted = |at: usize| {
        looks.set(looks.get() + 1);
        fits(at)
    };
    let mut mean = |pick: &mut dyn FnMut(&mut Line) -> Option<usize>| {
        looks.set(0);
        for _ in 0..PICKS {
            assert!(pick(&mut line).is_some());
        }
        f64::from(looks.get()) / PICKS as f64
    };
    let turns = mean(&mut |line| line.next(counted));
    let mut rng = Rng::new(1);
    (turns, mean(&mut |line| line.0.draw(&mut rng, counted)))
}

#[test]
fn a_pick_among_ten_thousand_costs_what_it_costs_among_ten() {
    for count in [10, 10_000] {
        let equal = vec![1; count];
        let unequal: Vec<u32> = (0..count as u32).map(|at| 1 + at % 7).collect();
        for weights in [equal, unequal] {
            assert_eq!(looks(&weights, |_| true), (1.0, 1.0), "{count}, all fit");
            let (turns, draws) = looks(&weights, |at| at % 2 == 0);
            assert!(turns <= 2.4 && draws <= 3.0, "{count}, every other one fits: {turns} and {draws} looks");
            let (turns, draws) = looks(&weights, |at| at < count / 2);
            assert!(turns <= 2.4 && draws <= 3.0, "{count}, the first half fits: {turns} and {draws} looks");
        }
    }
}

#[test]
fn endpoints_that_the_registry_calls_unhealthy_are_not_looked_at() {
    let endpoints = (0..10_000).map(|at| {
        let mut endpoint = endpoint(&alloc::format!("e{at:05}"), "v1", 1);
        endpoint.healthy = at == 7_777;
        endpoint
    });
    let backends = adopted(&snapshot(service(Balance::RoundRobin, endpoints.collect()), 1));
    let backend = backends.iter().next().unwrap();
    assert_eq!((backend.endpoints().len(), backend.shares.len()), (10_000, 1));
}

#[test]
fn a_round_goes_on_over_changes_so_that_everybody_has_a_turn() {
    let names =
        |range: core::ops::Range<usize>| range.map(|at| endpoint(&alloc::format!("e{at:03}"), "v1", 1));
    let mut backends = Backends::default();
    let mut served = alloc::collections::BTreeSet::new();
    for round in 0..50 {
        // One comes and one goes, in turn before and behind whoever is next, and one is unhealthy for a while.
        let mut endpoints: Vec<EndpointSpec> = names(10..200).collect();
        endpoints.extend(names(if round % 2 == 0 { 0..1 } else { 300..301 }));
        endpoints[100].healthy = round % 4 != 0;
        let snapshot = snapshot(service(Balance::RoundRobin, endpoints), round);
        backends.adopt(&snapshot);
        served.extend(spread(&mut backends, &snapshot, 5).into_keys());
    }
    assert_eq!(
        served.iter().filter(|name| ("e010".."e200").contains(&name.as_str()) && *name != "e110").count(),
        189
    );
}

#[test]
fn a_change_of_one_service_in_thousands_compares_names_a_few_times_each() {
    // Each of 2,000 backends has a predecessor; a search for each among all of them would be millions of steps.
    let mut world = World { generation: 1, ..World::default() };
    for at in 0..2_000 {
        let mut service = three(Balance::RoundRobin);
        service.spec.id = ServiceId::parse(&alloc::format!("s{at}")).unwrap();
        world.services.insert(service.spec.id.clone(), service);
    }
    let mut backends = adopted(&Snapshot::build(&world, None));
    let keys: Vec<u64> = backends.keys().collect();
    world.services.remove(&ServiceId::parse("s1000").unwrap());
    let snapshot = Snapshot::build(&world, None);
    backends.adopt(&snapshot);
    let kept: Vec<u64> = backends.keys().collect();
    assert_eq!(kept.len(), 3 * 1_999);
    assert!(kept.iter().all(|key| keys.contains(key)), "who stays keeps its pools");
    for at in 0..snapshot.backends.len() {
        let name = &snapshot.backends[at].name;
        assert_eq!(backends.named(name), Some(at));
    }
    assert_eq!(backends.named("s1000"), None);
}
