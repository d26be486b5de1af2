//! What needs a clock that can be moved: bursts, leases, stalls of the process itself.

use leno_core::spec::{Balance, Protocol};

use super::*;
use crate::store::{Reach, decode_member};

const LEASE: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        id: id(name),
        protocol: Protocol::Http1,
        balance: Balance::LeastRequest,
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
    }
}

fn arrival(name: &str) -> Arrival {
    Arrival {
        key: MemberKey { service: id("cart"), name: leno_core::name::Label::parse(name).unwrap() },
        role: RoleRecord::Sidecar(Reach {
            address: "127.0.0.1:1".parse().unwrap(),
            version: None,
            weight: 1,
            tags: leno_core::spec::Tags::NONE,
        }),
        health: Health::Healthy,
        proxy_version: String::new(),
    }
}

/// A registry with the service `cart`, and one who subscribed to its endpoints.
fn registry() -> (Registry, SubscriberId) {
    let domain = TrustDomain::parse("test.mesh").unwrap();
    let mut registry = Registry::restore(domain, LEASE, Loaded::default(), at(0));
    registry.put_service(spec("cart"), at(0), &mut Effects::default()).unwrap();
    let subscriber = registry.open_stream(id("cart"));
    registry.index_mut().subscribe(subscriber, Key::new(Kind::Endpoints, id("cart")));
    (registry, subscriber)
}

#[test]
fn a_lone_change_is_told_at_once_and_a_burst_together() {
    let (mut registry, subscriber) = registry();
    let mut effects = Effects::default();
    registry.attach(arrival("a"), at(1000), &mut effects).unwrap();
    assert!(effects.touched.contains(&subscriber), "told at once");
    registry.index_mut().take_dirty(subscriber);

    let mut effects = Effects::default();
    for n in 0..100 {
        registry.attach(arrival(&format!("b{n}")), at(1001), &mut effects).unwrap();
    }
    assert!(effects.touched.is_empty());
    let generation = registry.generation();
    assert_eq!(registry.poll_timeout(), Some(at(1020)));
    registry.tick(at(1020), &mut effects);
    assert_eq!(registry.generation(), generation + 1, "one change for all of them");
    assert!(effects.touched.contains(&subscriber));
}

#[test]
fn a_lease_ends_on_time_and_heartbeats_move_it() {
    let (mut registry, _) = registry();
    let mut effects = Effects::default();
    let key = arrival("a").key;
    let attachment = registry.attach(arrival("a"), at(0), &mut effects).unwrap();
    for second in 1..=30 {
        assert!(registry.tick(at(second * 1000), &mut effects).is_empty());
        if second % 3 == 0 && second <= 15 {
            let now = at(second * 1000);
            registry.heartbeat(&key, attachment.number, Health::Healthy, 0, now, &mut effects).unwrap();
        }
        if second == 24 {
            break;
        }
    }
    assert_eq!(registry.tick(at(25_000), &mut effects), vec![key.clone()]);
    assert_eq!(effects.ops.last(), Some(&Op::Delete(Table::Members, "default/cart/a".to_owned())));
    let refusal = registry.heartbeat(&key, attachment.number, Health::Healthy, 0, at(25_001), &mut effects);
    assert_eq!(refusal, Err(Refusal::LeaseEnded));
    assert!(registry.leases.is_empty());
}

/// When this process was suspended, heartbeats lie unread in its sockets: nobody is removed for that.
#[test]
fn a_stall_of_the_control_plane_ends_no_lease() {
    let (mut registry, _) = registry();
    let mut effects = Effects::default();
    registry.attach(arrival("a"), at(0), &mut effects).unwrap();
    registry.tick(at(200), &mut effects);
    assert!(registry.tick(at(60_000), &mut effects).is_empty());
    for millis in (60_200..70_000).step_by(200) {
        assert!(registry.tick(at(millis), &mut effects).is_empty(), "{millis}");
    }
    assert_eq!(registry.tick(at(70_000), &mut effects).len(), 1, "a whole lease later it does end");
}

#[test]
fn what_is_kept_is_what_is_restored() {
    let (mut registry, _) = registry();
    let mut effects = Effects::default();
    registry.attach(arrival("a"), at(0), &mut effects).unwrap();
    let attachment = registry.attach(arrival("b"), at(0), &mut effects).unwrap();
    let down = Health::Unhealthy("down".to_owned());
    registry.heartbeat(&arrival("b").key, attachment.number, down, 3, at(1), &mut effects).unwrap();
    let members = effects.ops.iter().filter_map(|op| match op {
        Op::Put(Table::Members, key, bytes) => Some((key.clone(), decode_member(bytes).unwrap())),
        Op::Put(..) | Op::Delete(..) => None,
    });
    let last: BTreeMap<_, _> = members.collect();
    let loaded = Loaded {
        members: last.into_values().collect(),
        services: vec![spec("cart")],
        generation: 5000,
        ..Loaded::default()
    };
    let restored = Registry::restore(registry.trust_domain.clone(), LEASE, loaded, at(0));
    let key = Key::new(Kind::Endpoints, id("cart"));
    registry.tick(at(100), &mut effects);
    assert_eq!(restored.index.get(&key), registry.index.get(&key), "the same content has the same version");
    assert!(restored.generation() > 5000);
}

#[test]
fn generations_on_disk_are_ahead_of_those_given_out() {
    let (mut registry, _) = registry();
    let mut reserved = 0;
    for n in 0..3000 {
        let mut effects = Effects::default();
        let balance = if n % 2 == 0 { Balance::Random } else { Balance::RoundRobin };
        registry.put_service(ServiceSpec { balance, ..spec("user") }, at(n), &mut effects).unwrap();
        for op in effects.ops {
            if let Op::Put(Table::Meta, _, bytes) = op {
                reserved = u64::from_be_bytes(bytes.try_into().unwrap());
            }
        }
        // The first change reserved before this test looked.
        assert!(n < 1000 || reserved >= registry.generation());
    }
}

#[test]
fn a_file_takes_a_name_over_and_gives_it_back() {
    let (mut registry, _) = registry();
    let mut effects = Effects::default();
    let in_file =
        FileService { spec: ServiceSpec { balance: Balance::Random, ..spec("cart") }, endpoints: vec![] };
    registry.set_file(vec![in_file], vec![], &leno_core::spec::EgressSpec::default(), at(0), &mut effects);
    assert_eq!(registry.service(&id("cart")).unwrap().balance, Balance::Random);
    assert_eq!(
        registry.put_service(spec("cart"), at(0), &mut effects),
        Err(Refusal::DeclaredInFile(id("cart")))
    );
    registry.set_file(vec![], vec![], &leno_core::spec::EgressSpec::default(), at(0), &mut effects);
    assert_eq!(registry.service(&id("cart")).unwrap().balance, Balance::LeastRequest);
    registry.delete_service(&id("cart"), at(0), &mut effects).unwrap();
    assert!(registry.index.get(&Key::new(Kind::Endpoints, id("cart"))).is_none());
}

#[test]
fn only_who_applies_a_mesh_wide_limit_gets_a_share_of_it() {
    use std::time::Duration;

    use leno_core::quota::{HolderId, LimitId};
    use leno_core::spec::{Care, Change, GatewaySpec, MatchSpec, RateScope, RateSpec, RuleSpec};

    let limit = |name: &str, scope| {
        Arc::new(RateSpec {
            name: name.into(),
            when: MatchSpec::default(),
            requests: 1,
            per: Duration::from_secs(1),
            burst: 1,
            by: vec![],
            scope,
            dry_run: false,
        })
    };
    let limits = || vec![limit("all", RateScope::Mesh), limit("own", RateScope::Instance)];
    let care = Care { rates: limits(), ..Care::default() };
    let (mut registry, _) = registry();
    let mut effects = Effects::default();
    let services = [spec("user"), spec("api")].map(|spec| FileService {
        spec: ServiceSpec { care: Some(Arc::new(care.clone())), ..spec },
        endpoints: vec![],
    });
    let rule = RuleSpec {
        name: "/a/b".into(),
        when: MatchSpec::default(),
        then: leno_core::spec::ActionSpec::Service(id("user")),
        timeout: None,
        tries: None,
        change: Some(Arc::new(Change { rates: limits(), ..Change::default() })),
    };
    let gateway = GatewaySpec { id: id("edge"), listeners: vec![], rules: vec![rule], zone: None };
    registry.set_file(services.into(), vec![gateway], &EgressSpec::default(), at(0), &mut effects);
    let arrival = arrival("user-1");
    let arrival = Arrival { key: MemberKey { service: id("user"), ..arrival.key.clone() }, ..arrival };
    registry.attach(arrival, at(0), &mut effects).unwrap();
    let shares = |owner: &str, name: &str, asker: &str| {
        registry.shares(&LimitId { owner: id(owner), name: name.into() }, &id(asker))
    };
    assert!(shares("user", "all", "user"));
    assert!(!shares("user", "own", "user"), "it holds for each alone");
    assert!(!shares("user", "all", "cart"), "its sidecar applies it");
    assert!(shares("api", "all", "cart"), "nobody stands in front of it");
    assert!(!shares("nobody", "all", "cart") && !shares("user", "other", "user"));
    assert!(shares("edge", "/a/b/all", "edge"));
    assert!(!shares("edge", "/a/b/own", "edge") && !shares("edge", "/a/b/all", "user"));
    let label = |text| leno_core::name::Label::parse(text).unwrap();
    let holder = |instance| HolderId { service: id("user"), instance: label(instance) };
    assert!(registry.has_proxy(&holder("user-1")) && !registry.has_proxy(&holder("user-2")));
}
