use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::name::{Label, ServiceId};
use crate::spec::{KnownService, MatchSpec, RuleSpec, ServiceSpec, TargetSpec, Transport, World};

fn service(balance: Balance, endpoints: Vec<EndpointSpec>) -> KnownService {
    KnownService {
        spec: ServiceSpec {
            id: ServiceId::parse("product").unwrap(),
            protocol: crate::spec::Protocol::Http1,
            balance,
            rules: vec![],
            calls: vec![],
            health: None,
            timeout: None,
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
        weight,
    };
    let targets = vec![target("v1", 90), target("v2", 10)];
    service.spec.rules = vec![RuleSpec {
        name: "split".into(),
        when: MatchSpec::default(),
        then: crate::spec::ActionSpec::Split(targets),
        timeout: None,
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

#[test]
fn turns_do_not_save_up_for_those_who_were_away() {
    let mut turns = Turns::new([1, 1].into_iter());
    for _ in 0..100 {
        assert_eq!(turns.next(|at| at == 0), Some(0));
    }
    let second = (0..10).filter(|_| turns.next(|_| true) == Some(1)).count();
    assert!(second <= 6, "a burst of {second} of 10");
}
