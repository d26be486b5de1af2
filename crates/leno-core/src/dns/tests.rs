use alloc::vec;
use core::net::SocketAddr;

use super::*;
use crate::spec::{Balance, EndpointSpec, KnownService, Protocol, SRV_PORT, ServiceSpec, Transport, World};

fn service(name: &str, headless: bool, instances: &[(&str, u32, bool)]) -> KnownService {
    let endpoint = |(name, weight, healthy): &(&str, u32, bool)| EndpointSpec {
        name: (*name).into(),
        address: SocketAddr::from(([10, 0, 0, 1], 15008)),
        transport: Transport::Plain,
        version: None,
        weight: *weight,
        healthy: *healthy,
        tags: crate::spec::Tags::NONE,
    };
    KnownService {
        spec: ServiceSpec {
            id: ServiceId::parse(name).unwrap(),
            protocol: Protocol::Auto,
            balance: Balance::default(),
            care: None,
            rules: vec![],
            calls: vec![],
            health: None,
            timeout: None,
            tries: None,
            external: None,
            send_proxy: None,
            headless,
            srv_port: if headless { 5432 } else { SRV_PORT },
        },
        endpoints: instances.iter().map(endpoint).collect(),
    }
}

/// `cart` in the default namespace, `cart` and the headless `db` in `team`, a headless `ghost` that nobody serves.
fn snapshot() -> Snapshot {
    let mut world = World::default();
    let instances = [("db-0", 1, true), ("db-1", 3, true), ("db-2", 1, false), ("db-3", 0, true)];
    for known in [
        service("cart", false, &[("cart-1", 1, true)]),
        service("product", false, &[]),
        service("team/cart", false, &[]),
        service("team/db", true, &instances),
        service("team/ghost", true, &[("ghost-0", 1, false)]),
    ] {
        world.services.insert(known.spec.id.clone(), known);
    }
    world.absent.insert(ServiceId::parse("com/example").unwrap());
    world.absent.insert(ServiceId::parse("team/product").unwrap());
    Snapshot::build(&world, None)
}

fn zone(namespace: &str) -> Zone {
    let search = vec![vec!["corp".to_string(), "example".to_string()]];
    Zone { namespace: Label::parse(namespace).ok(), search }
}

fn ask(namespace: &str, name: &str, kind: Kind, unheard: Unheard) -> Answer {
    let labels: Vec<&[u8]> = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes).collect();
    decide(&snapshot(), &zone(namespace), &labels, kind, unheard)
}

fn vip(name: &str) -> Vip {
    snapshot().published(&ServiceId::parse(name).unwrap()).unwrap().vip
}

fn v4(name: &str) -> Answer {
    Answer::Addresses(vec![vip(name).v4.unwrap().into()])
}

#[test]
fn every_name_of_a_service() {
    for (namespace, name, service) in [
        ("default", "cart", "cart"),
        ("default", "CaRt", "cart"),
        ("default", "cart.default", "cart"),
        ("default", "cart.default.mesh", "cart"),
        ("default", "cart.team", "team/cart"),
        ("default", "cart.team.MESH", "team/cart"),
        ("team", "cart", "team/cart"),
        ("team", "product", "product"),
        ("team", "cart.default", "cart"),
        ("default", "cart.corp.example", "cart"),
        ("team", "cart.corp.example", "team/cart"),
    ] {
        assert_eq!(ask(namespace, name, Kind::A, Unheard::Ask), v4(service), "{name} in {namespace}");
        let v6 = Answer::Addresses(vec![vip(service).v6.into()]);
        assert_eq!(ask(namespace, name, Kind::Aaaa, Unheard::Ask), v6, "{name} in {namespace}");
    }
}

#[test]
fn what_is_not_there() {
    let unknown = |name: &str| Answer::Ask(ServiceId::parse(name).unwrap());
    for (name, asking, without) in [
        ("nothing.default.mesh", unknown("nothing"), Answer::NoName(1)),
        ("nothing", unknown("nothing"), Answer::Upstream),
        ("www.google", unknown("google/www"), Answer::Upstream),
        ("example.com", Answer::Upstream, Answer::Upstream),
        ("www.example.com", Answer::Upstream, Answer::Upstream),
        ("a.b.c.d.e", Answer::Upstream, Answer::Upstream),
        ("x_y.example.com", Answer::Upstream, Answer::Upstream),
        ("", Answer::Upstream, Answer::Upstream),
        ("mesh", Answer::NoData(1), Answer::NoData(1)),
        ("team.mesh", Answer::NoData(1), Answer::NoData(1)),
        ("nowhere.mesh", Answer::NoName(1), Answer::NoName(1)),
        ("a.b.cart.default.mesh", Answer::NoName(1), Answer::NoName(1)),
        ("x_y.default.mesh", Answer::NoName(1), Answer::NoName(1)),
        ("cart-1.cart.default.mesh", Answer::NoName(1), Answer::NoName(1)),
        ("other.corp.example", Answer::Upstream, Answer::Upstream),
        ("cart.example", unknown("example/cart"), Answer::Upstream),
    ] {
        assert_eq!(ask("default", name, Kind::A, Unheard::Ask), asking, "{name}");
        assert_eq!(ask("default", name, Kind::A, Unheard::Absent), without, "{name}");
    }
    assert_eq!(ask("default", "nothing.x.mesh", Kind::A, Unheard::Unsure), Answer::Unsure);
    assert_eq!(ask("default", "nothing", Kind::A, Unheard::Unsure), Answer::Upstream);
    // The nearer service may be there: nobody else answers for it until that is known.
    assert_eq!(ask("other", "cart", Kind::A, Unheard::Ask), unknown("other/cart"));
    assert_eq!(ask("other", "cart", Kind::A, Unheard::Unsure), v4("cart"));
    let labels: [&[u8]; 3] = [b"\xff\xfe", b"default", b"mesh"];
    assert_eq!(decide(&snapshot(), &zone("default"), &labels, Kind::A, Unheard::Ask), Answer::NoName(1));
}

#[test]
fn types_that_a_name_has_not() {
    assert_eq!(ask("default", "cart", Kind::Other, Unheard::Ask), Answer::NoData(1));
    assert_eq!(ask("default", "cart.default", Kind::Other, Unheard::Ask), Answer::NoData(2));
    assert_eq!(ask("default", "cart.default.mesh", Kind::Ptr, Unheard::Ask), Answer::NoData(1));
    assert_eq!(ask("default", "_tcp.cart.default.mesh", Kind::A, Unheard::Ask), Answer::NoData(1));
    assert_eq!(ask("default", "_http._udp.cart.default.mesh", Kind::Srv, Unheard::Ask), Answer::NoData(1));
    assert_eq!(ask("default", "_http._tcp.cart.default.mesh", Kind::A, Unheard::Ask), Answer::NoData(1));
}

#[test]
fn a_headless_service_is_its_instances() {
    let snapshot = snapshot();
    let published = snapshot.published(&ServiceId::parse("team/db").unwrap()).unwrap();
    let of = |at: usize| IpAddr::V4(published.instances[at].vip.v4.unwrap());
    // What is unhealthy or takes nothing is left out, and still has its name.
    assert_eq!(ask("team", "db", Kind::A, Unheard::Ask), Answer::Addresses(vec![of(0), of(1)]));
    for name in ["db-2.db", "db-2.db.team", "db-2.db.team.mesh"] {
        assert_eq!(ask("team", name, Kind::A, Unheard::Absent), Answer::Addresses(vec![of(2)]), "{name}");
    }
    // An instance that is known is answered before anybody is asked whether `db/db-2` is a service.
    assert_eq!(ask("team", "db-2.db", Kind::A, Unheard::Ask), Answer::Addresses(vec![of(2)]));
    assert_eq!(ask("team", "db-9.db.team.mesh", Kind::A, Unheard::Ask), Answer::NoName(1));
    assert_eq!(ask("team", "ghost", Kind::A, Unheard::Ask), Answer::NoData(1));
    assert_eq!(ask("team", "ghost", Kind::Srv, Unheard::Ask), Answer::NoData(1));
}

#[test]
fn places() {
    for name in ["cart", "_http._tcp.cart", "_http._tcp.cart.default.mesh", "_x._tcp.cart.corp.example"] {
        let place = Place { name: "cart.default.mesh".into(), port: 80, weight: 0, vip: vip("cart") };
        assert_eq!(ask("default", name, Kind::Srv, Unheard::Ask), Answer::Places(vec![place]), "{name}");
    }
    let Answer::Places(places) = ask("team", "_pg._tcp.db", Kind::Srv, Unheard::Ask) else { panic!() };
    let shown: Vec<_> = places.iter().map(|place| (place.name.as_str(), place.port, place.weight)).collect();
    assert_eq!(shown, [("db-0.db.team.mesh", 5432, 1), ("db-1.db.team.mesh", 5432, 3)]);
    let Answer::Places(places) = ask("team", "db-3.db", Kind::Srv, Unheard::Absent) else { panic!() };
    assert_eq!(places[0].name, "db-3.db.team.mesh");
}

#[test]
fn addresses_have_names() {
    let reverse = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            alloc::format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = alloc::format!("{:032x}", u128::from(ip));
            digits.chars().rev().map(|digit| alloc::format!("{digit}.")).collect::<String>() + "ip6.arpa"
        }
    };
    for address in vip("team/cart").addresses() {
        let answer = ask("default", &reverse(address), Kind::Ptr, Unheard::Ask);
        assert_eq!(answer, Answer::Name("cart.team.mesh".into()));
    }
    let snapshot = snapshot();
    let db = snapshot.published(&ServiceId::parse("team/db").unwrap()).unwrap();
    let answer = ask("default", &reverse(db.instances[1].vip.v6.into()), Kind::Ptr, Unheard::Ask);
    assert_eq!(answer, Answer::Name("db-1.db.team.mesh".into()));
    for (name, answer) in [
        ("1.0.240.240.in-addr.arpa", Answer::NoName(4)),
        ("9.240.240.in-addr.arpa", Answer::NoData(4)),
        ("x.y.240.240.in-addr.arpa", Answer::NoName(4)),
        ("1.0.0.127.in-addr.arpa", Answer::Upstream),
        ("0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa", Answer::NoData(14)),
        ("8.b.d.0.1.0.0.2.ip6.arpa", Answer::Upstream),
    ] {
        assert_eq!(ask("default", name, Kind::Ptr, Unheard::Ask), answer, "{name}");
    }
}

#[test]
fn any_labels_get_an_answer() {
    let snapshot = snapshot();
    let mut rng = crate::rng::Rng::new(11);
    const PARTS: [&[u8]; 14] = [
        b"cart",
        b"team",
        b"mesh",
        b"_tcp",
        b"_http",
        b"db",
        b"db-1",
        b"",
        b"\xc3\x28",
        b"corp",
        b"example",
        b"240",
        b"in-addr",
        b"arpa",
    ];
    for _ in 0..50_000 {
        let count = rng.below(7) as usize;
        let labels: Vec<&[u8]> = (0..count).map(|_| PARTS[rng.below(14) as usize]).collect();
        let kind = [Kind::A, Kind::Aaaa, Kind::Srv, Kind::Ptr, Kind::Other][rng.below(5) as usize];
        let answer = decide(&snapshot, &zone("team"), &labels, kind, Unheard::Ask);
        let mesh = labels.last().is_some_and(|last| *last == b"mesh");
        assert!(!(mesh && answer == Answer::Upstream), "{labels:?}");
        match answer {
            Answer::Addresses(addresses) => assert!(!addresses.is_empty()),
            Answer::Places(places) => assert!(!places.is_empty()),
            Answer::NoData(apex) | Answer::NoName(apex) => assert!(apex <= labels.len(), "{labels:?}"),
            _ => {}
        }
    }
}
