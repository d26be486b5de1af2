use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;

use super::*;
use crate::backend::{Backends, COOLING_MAX, Choice, Permit};
use crate::name::ServiceId;
use crate::route::SplitId;
use crate::snapshot::Snapshot;
use crate::spec::{
    Affinity, Balance, Care, Distribution, EndpointSpec, KeySpec, KnownService, Locality, Near, Protocol,
    ServiceSpec, SlowStart, Tags, Transport, World, Zone,
};

const POLICIES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastRequest,
    Balance::PeakEwma,
    Balance::RingHash,
    Balance::Maglev,
];

fn zone(text: &str) -> Zone {
    Zone::parse(text).unwrap()
}

fn endpoint(name: &str, place: &str) -> EndpointSpec {
    EndpointSpec {
        name: name.into(),
        address: ([127, 0, 0, 1], 1).into(),
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: Tags { zone: Zone::parse(place).ok(), ..Tags::NONE },
    }
}

/// `count` endpoints in each of these places, called `PLACE#N`.
fn endpoints(places: &[(&str, usize)]) -> Vec<EndpointSpec> {
    let each = |(place, count): &(&str, usize)| {
        let place = place.to_string();
        (0..*count).map(move |at| endpoint(&alloc::format!("{place}#{at}"), &place)).collect::<Vec<_>>()
    };
    places.iter().flat_map(each).collect()
}

fn world(own: &str, balance: Balance, care: Care, endpoints: Vec<EndpointSpec>, generation: u64) -> Snapshot {
    let id = ServiceId::parse("product").unwrap();
    let spec = ServiceSpec {
        id: id.clone(),
        protocol: Protocol::Http1,
        balance,
        care: Some(Arc::new(care)),
        rules: vec![],
        calls: vec![],
        health: None,
        timeout: None,
        tries: None,
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    let own = Tags { zone: Zone::parse(own).ok(), ..Tags::NONE };
    let services = [(id, KnownService { spec, endpoints })].into();
    Snapshot::build(&World { generation, services, own, ..World::default() }, None)
}

fn care(locality: Locality) -> Care {
    let keys = vec![KeySpec::Header("user".into())];
    Care {
        affinity: Some(Arc::new(Affinity { keys, bound_percent: None })),
        locality: Some(Arc::new(locality)),
        ..Care::new()
    }
}

struct Caller {
    snapshot: Snapshot,
    backends: Backends,
    rng: Rng,
    now: Instant,
}

impl Caller {
    fn new(snapshot: Snapshot) -> Self {
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        Self { snapshot, backends, rng: Rng::new(11), now: Instant::ZERO }
    }

    fn adopt(&mut self, snapshot: Snapshot) {
        self.backends.adopt(&snapshot);
        self.snapshot = snapshot;
    }

    fn pick(&mut self, avoid: &[u64]) -> Result<Permit, NoEndpoint> {
        let choice = Choice::Split(SplitId(0));
        let key = |_: &Affinity, rng: &mut Rng| Some(rng.next_u64());
        self.backends.pick_by(&self.snapshot, choice, avoid, self.now, &mut self.rng, key)
    }

    /// Picks of which each is answered at once, by place.
    fn places(&mut self, times: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            let permit = self.pick(&[]).unwrap();
            permit.report(Outcome::Reached, self.now);
            let place = permit.endpoint().spec.name.split('#').next().unwrap_or_default().to_string();
            *counts.entry(place).or_insert(0) += 1;
        }
        counts
    }

    /// Requests that find nobody, until these places are known to be gone.
    fn kill(&mut self, place: &str) {
        for _ in 0..200 {
            let permit = self.pick(&[]).unwrap();
            if permit.endpoint().spec.name.starts_with(place) {
                permit.report(Outcome::Unreachable, self.now);
            }
        }
        self.now = self.now.after(LOOKED_AFTER_FAILURE);
    }
}

fn three(balance: Balance) -> Caller {
    let places = [("eu/a", 3), ("eu/b", 3), ("us/a", 3)];
    Caller::new(world("eu/a", balance, care(Locality::new()), endpoints(&places), 1))
}

#[test]
fn the_nearest_take_everything_whatever_the_policy() {
    for balance in POLICIES {
        let mut caller = three(balance);
        assert_eq!(caller.places(300), [("eu/a".to_string(), 300)].into(), "{balance:?}");
        assert_eq!(caller.backends.near()[Near::Zone as usize], 300);
        let chosen = caller.pick(&[]).unwrap().chosen();
        assert!(matches!(chosen, Chosen::Balanced | Chosen::Affinity), "{chosen:?}");
    }
}

#[test]
fn without_zones_no_pick_is_special() {
    let plain = world("", Balance::PeakEwma, Care::new(), endpoints(&[("eu/a", 3)]), 1);
    let caller = Caller::new(plain);
    assert!(caller.backends.iter().all(|backend| backend.special.is_none()));
}

#[test]
fn a_zone_that_is_gone_leaves_all_to_the_next_and_gets_it_back() {
    for balance in POLICIES {
        let mut caller = three(balance);
        caller.kill("eu/a");
        assert_eq!(caller.places(300), [("eu/b".to_string(), 300)].into(), "{balance:?}");
        let chosen = caller.pick(&[]).unwrap().chosen();
        assert!(
            matches!(chosen, Chosen::Farther(Near::Region) | Chosen::Affinity),
            "{balance:?}: {chosen:?}"
        );
        caller.kill("eu/b");
        assert_eq!(caller.places(300), [("us/a".to_string(), 300)].into(), "{balance:?}");
        caller.now = caller.now.after(COOLING_MAX);
        caller.places(100);
        caller.now = caller.now.after(LOOKED_AFTER);
        assert_eq!(caller.places(300), [("eu/a".to_string(), 300)].into(), "{balance:?}: back");
    }
}

#[test]
fn when_everybody_is_gone_the_nearest_are_asked_all_the_same() {
    let mut caller = three(Balance::PeakEwma);
    for place in ["eu/a", "eu/b", "us/a"] {
        caller.kill(place);
    }
    let permit = caller.pick(&[]).unwrap();
    assert!(permit.chosen() == Chosen::LastResort && permit.endpoint().spec.name.starts_with("eu/a"));
}

#[test]
fn the_second_attempt_leaves_the_place_of_the_first() {
    for balance in POLICIES {
        let mut caller = three(balance);
        let first = caller.pick(&[]).unwrap();
        let second = caller.pick(&[first.endpoint().key]).unwrap();
        let third = caller.pick(&[first.endpoint().key, second.endpoint().key]).unwrap();
        let places = [&first, &second, &third].map(|it| it.endpoint().spec.name.split('#').next().unwrap());
        assert_eq!(places, ["eu/a", "eu/b", "us/a"], "{balance:?}");
    }
}

/// The share of the near level, in percent, when so many of its ten endpoints are unhealthy.
fn near_share(unhealthy: usize, by_checks: bool) -> f64 {
    let mut all = endpoints(&[("eu/a", 10), ("eu/b", 10)]);
    if by_checks {
        all.iter_mut().take(unhealthy).for_each(|endpoint| endpoint.healthy = false);
    }
    let mut caller =
        Caller::new(world("eu/a", Balance::PeakEwma, Care { outliers: None, ..Care::new() }, all, 1));
    if !by_checks {
        let mut held = vec![];
        while held.len() < 10 {
            let avoid: Vec<u64> = held.iter().map(|permit: &Permit| permit.endpoint().key).collect();
            let permit = caller.backends.pick(
                &caller.snapshot,
                Choice::Split(SplitId(0)),
                &avoid[..0],
                caller.now,
                &mut caller.rng,
            );
            let permit = permit.unwrap();
            if !avoid.contains(&permit.endpoint().key) {
                held.push(permit);
            }
        }
        held.iter().take(unhealthy).for_each(|permit| permit.report(Outcome::Unreachable, caller.now));
        drop(held);
        caller.now = caller.now.after(LOOKED_AFTER_FAILURE);
    }
    let counts = caller.places(20_000);
    counts.get("eu/a").copied().unwrap_or(0) as f64 / 200.0
}

#[test]
fn what_a_level_takes_falls_with_those_who_are_there_and_never_rises() {
    for by_checks in [true, false] {
        let mut before = 100.1;
        for unhealthy in 0..=10 {
            let share = near_share(unhealthy, by_checks);
            let expected = ((10 - unhealthy) as f64 * 14.0).min(100.0);
            assert!((share - expected).abs() < 2.0, "{unhealthy}: {share} instead of {expected}");
            assert!(share <= before + 1.0, "{unhealthy}: {share} after {before}");
            before = share;
        }
    }
}

#[test]
fn levels_that_are_too_weak_together_share_what_there_is_by_what_they_can_take() {
    let mut all = endpoints(&[("eu/a", 10), ("eu/b", 10)]);
    for (at, endpoint) in all.iter_mut().enumerate() {
        endpoint.healthy = at == 0 || (10..13).contains(&at);
    }
    let mut caller = Caller::new(world("eu/a", Balance::PeakEwma, Care::new(), all, 1));
    let counts = caller.places(20_000);
    let near = counts["eu/a"] as f64 / 200.0;
    assert!((23.0..27.0).contains(&near), "14 to 42: {near}");
}

#[test]
fn weights_hold_within_a_level() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::PeakEwma] {
        let mut all = endpoints(&[("eu/a", 3), ("eu/b", 3)]);
        all[0].weight = 8;
        let mut caller = Caller::new(world("eu/a", balance, Care::new(), all, 1));
        let mut first = 0;
        for _ in 0..10_000 {
            first += usize::from(&*caller.pick(&[]).unwrap().endpoint().spec.name == "eu/a#0");
        }
        assert!((7_800..8_200).contains(&first), "{balance:?}: {first}");
    }
}

#[test]
fn requests_are_divided_as_is_said() {
    let to = vec![(zone("eu/a"), 70), (zone("eu/b"), 20), (zone("us"), 10)];
    let locality = Locality { distribute: vec![Distribution { from: zone("eu"), to }], ..Locality::new() };
    for balance in POLICIES {
        let all = endpoints(&[("eu/a", 2), ("eu/b", 7), ("us/a", 1), ("asia", 3)]);
        let mut caller = Caller::new(world("eu/b", balance, care(locality.clone()), all, 1));
        let counts = caller.places(20_000);
        let share = |place| counts.get(place).copied().unwrap_or(0) as f64 / 200.0;
        for (place, expected) in [("eu/a", 70.0), ("eu/b", 20.0), ("us/a", 10.0), ("asia", 0.0)] {
            assert!((share(place) - expected).abs() < 1.5, "{balance:?} {place}: {}", share(place));
        }
        // The others take the share of those who are gone.
        caller.kill("eu/a");
        let counts = caller.places(20_000);
        let share = |place| counts.get(place).copied().unwrap_or(0) as f64 / 200.0;
        assert!((share("eu/b") - 66.7).abs() < 1.5 && share("eu/a") == 0.0, "{balance:?}: {counts:?}");
    }
}

#[test]
fn a_key_stays_where_it_is_while_its_zone_does() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut caller = three(balance);
        let by_key = |caller: &mut Caller, key: u64| {
            let choice = Choice::Split(SplitId(0));
            let picked = caller.backends.pick_by(
                &caller.snapshot,
                choice,
                &[],
                caller.now,
                &mut caller.rng,
                |_, _| Some(key),
            );
            picked.unwrap().endpoint().spec.name.clone()
        };
        let keys: Vec<u64> = (0..200).map(|key| crate::backend::hash_of(&u64::to_be_bytes(key))).collect();
        let homes: Vec<Arc<str>> = keys.iter().map(|key| by_key(&mut caller, *key)).collect();
        for (key, home) in keys.iter().zip(&homes) {
            assert_eq!(by_key(&mut caller, *key), *home);
            assert!(home.starts_with("eu/a"));
        }
    }
}

#[test]
fn a_zone_that_comes_warms_up_beside_the_next_one() {
    let slow_start = Some(SlowStart { duration: Duration::from_secs(10), from_percent: 10 });
    let care = Care { slow_start, ..Care::new() };
    let places = [("eu/a", 2), ("eu/b", 2)];
    let far = world("eu/a", Balance::RoundRobin, care.clone(), endpoints(&places[1..]), 1);
    let mut caller = Caller::new(far);
    assert_eq!(caller.places(10)["eu/b"], 10);
    caller.adopt(world("eu/a", Balance::RoundRobin, care, endpoints(&places), 2));
    let near = caller.places(2_000).get("eu/a").copied().unwrap_or(0);
    // Each of two lets nine of ten turns go by.
    assert!((200..600).contains(&near), "{near}");
    caller.now = caller.now.after(Duration::from_secs(11));
    assert_eq!(caller.places(100)["eu/a"], 100);
}

#[test]
fn what_is_under_way_on_a_level_is_counted_and_given_back() {
    let mut caller = three(Balance::PeakEwma);
    let in_flight = |caller: &Caller| {
        let group = caller.backends.iter().next().and_then(|backend| backend.group.as_ref());
        group.and_then(|group| group.loads.as_ref()).map(|loads| loads.levels[0].in_flight.get())
    };
    let held: Vec<Permit> = (0..7).map(|_| caller.pick(&[]).unwrap()).collect();
    assert_eq!(in_flight(&caller), Some(7));
    // A change of the configuration changes nothing about it.
    let places = [("eu/a", 5), ("eu/b", 3), ("us/a", 3)];
    caller.adopt(world("eu/a", Balance::PeakEwma, care(Locality::new()), endpoints(&places), 2));
    assert_eq!(in_flight(&caller), Some(7));
    drop(held);
    assert_eq!(in_flight(&caller), Some(0));
}

#[test]
fn what_a_zone_cannot_keep_up_with_goes_on_to_the_next() {
    let mut caller = three(Balance::PeakEwma);
    let milli = Duration::from_millis(1);
    // A request per millisecond that takes five: quiet.
    let mut under_way: Vec<(Instant, Permit)> = vec![];
    let mut far = [0; 2];
    for (phase, takes) in [(0, 5), (1, 50)] {
        for _ in 0..4_000 {
            caller.now = caller.now.after(milli);
            let now = caller.now;
            under_way.retain(|(started, permit)| {
                let is_near = permit.endpoint().near == Near::Zone;
                let over = now.since(*started) >= milli * if is_near { takes } else { 5 };
                if over {
                    permit.report_since(Outcome::Answered(200), || *started, now);
                }
                !over
            });
            let permit = caller.pick(&[]).unwrap();
            far[phase] += u32::from(permit.endpoint().near != Near::Zone);
            under_way.push((caller.now, permit));
        }
    }
    assert_eq!(far[0], 0, "nothing leaves in quiet times");
    assert!(far[1] > 3_000, "{far:?}: ten times as slow as the next zone");
    assert_eq!(caller.backends.near().iter().sum::<u64>(), 8_000);
}

#[test]
fn nobody_who_is_out_is_preferred_to_somebody_farther_who_is_there() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let places = ["eu/a", "eu/a/1", "eu/b", "us/a", ""];
        let mut all: Vec<EndpointSpec> = (0..2 + rng.below(12))
            .map(|at| endpoint(&alloc::format!("e{at:02}"), places[rng.below(5) as usize]))
            .collect();
        for endpoint in &mut all {
            endpoint.weight = 1 + rng.below(3) as u32;
            endpoint.healthy = rng.below(4) > 0;
        }
        let balance = POLICIES[rng.below(6) as usize];
        let mut caller = Caller::new(world("eu/a/1", balance, care(Locality::new()), all, seed));
        // Some are not reachable.
        for _ in 0..rng.below(12) {
            if let Ok(permit) = caller.pick(&[]) {
                permit.report(Outcome::Unreachable, caller.now);
            }
        }
        caller.now = caller.now.after(LOOKED_AFTER_FAILURE);
        let all: Vec<Rc<Endpoint>> = caller.backends.iter().next().unwrap().endpoints().to_vec();
        let there = |it: &Endpoint| it.spec.healthy && !it.cooling(caller.now);
        let weight = |there: &dyn Fn(&Endpoint) -> bool, level: u8| -> u64 {
            let of_level = all.iter().filter(|it| it.level == level && there(it));
            of_level.map(|it| u64::from(it.spec.weight)).sum()
        };
        let (near, of_near) = (weight(&there, 0), weight(&|_| true, 0));
        let (any, now) = (all.iter().any(|it| there(it)), caller.now);
        for _ in 0..40 {
            let Ok(permit) = caller.pick(&[]) else { break };
            let endpoint = permit.endpoint();
            assert!(endpoint.spec.healthy, "{seed}");
            assert!(!any || !endpoint.cooling(now), "{seed} {balance:?}: {:?}", endpoint.spec.name);
            if near * 140 >= of_near * 100 {
                assert_eq!(endpoint.level, 0, "{seed} {balance:?}: {near} of {of_near} are near");
            }
        }
    }
}
