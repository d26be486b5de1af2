use alloc::vec;

use super::*;
use crate::head::Fields;
use crate::spec::{Balance, EndpointSpec, Transport};
use crate::spec::{
    BudgetSpec, Change, EgressSource, GatewaySpec, ListenerSpec, MatchSpec, Mirror, PathMatch, Protocol,
    RetrySpec, RuleSpec, TriesSpec,
};

fn service(name: &str) -> KnownService {
    KnownService {
        spec: ServiceSpec {
            id: ServiceId::parse(name).unwrap(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
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
        endpoints: vec![],
    }
}

fn world(services: &[&str]) -> World {
    let mut world = World::default();
    for name in services {
        let service = service(name);
        world.services.insert(service.spec.id.clone(), service);
    }
    world
}

fn get<'a>(authority: &'a str, path: &'a str) -> RequestHead<'a> {
    RequestHead {
        method: b"GET",
        authority: authority.as_bytes(),
        path: path.as_bytes(),
        fields: Fields::default(),
    }
}

#[test]
fn a_service_is_found_by_each_of_its_names() {
    let snapshot = Snapshot::build(&world(&["product", "team/cart"]), None);
    for (host, known) in [
        ("product", true),
        ("PRODUCT:80", true),
        ("product.default", true),
        ("product.default.mesh:8080", true),
        ("cart.team", true),
        ("cart", false),
        ("product.other", false),
        ("", false),
    ] {
        let then = snapshot.decide(Entry::Forward, &get(host, "/")).then;
        assert_eq!(matches!(then, Then::Split(_)), known, "{host}");
    }
}

#[test]
fn an_unknown_host_is_asked_for_once() {
    let mut world = world(&["product"]);
    let user = ServiceId::parse("user").unwrap();
    world.absent.insert(user);
    let snapshot = Snapshot::build(&world, None);
    let cart = ServiceId::parse("team/cart").unwrap();
    for (host, expected) in [
        ("product", Lookup::Known),
        ("user:1", Lookup::Absent),
        ("cart.team", Lookup::Unknown(cart.clone())),
        ("Cart.Team.mesh", Lookup::Unknown(cart)),
        ("example.com.au.x", Lookup::Absent),
        ("127.0.0.1", Lookup::Absent),
        ("bad_name", Lookup::Absent),
    ] {
        assert_eq!(snapshot.look_up(host.as_bytes()), expected, "{host}");
    }
}

#[test]
fn a_gateway_hands_over_to_the_services_rules() {
    let mut world = world(&["product"]);
    let rule = |path: &str, to: &str| RuleSpec {
        name: path.into(),
        when: MatchSpec { path: Some(PathMatch::Prefix(path.into())), ..MatchSpec::default() },
        then: ActionSpec::Service(ServiceId::parse(to).unwrap()),
        timeout: None,
        change: None,
        tries: None,
    };
    world.gateway = Some(GatewaySpec {
        id: ServiceId::parse("gateway").unwrap(),
        listeners: vec![Arc::new(ListenerSpec::http("http", ([127, 0, 0, 1], 0).into()))],
        rules: vec![rule("/products", "product"), rule("/cart", "cart")],
        zone: None,
    });
    let snapshot = Snapshot::build(&world, None);
    let product = snapshot.decide(Entry::Gateway, &get("x", "/products/1"));
    assert!(matches!(product.then, Then::Split(_)));
    assert_eq!(snapshot.rule_name(&product), ("product", None));
    assert_eq!(snapshot.decide(Entry::Gateway, &get("x", "/cart")).then, Then::NoSuchService);
    assert_eq!(snapshot.decide(Entry::Gateway, &get("x", "/")).then, Then::NoRoute);
    assert_eq!(snapshot.decide(Entry::Inbound, &get("x", "/")).then, Then::NoSuchService);
}

#[test]
fn two_rules_with_one_target_share_its_backend() {
    let mut world = world(&["product"]);
    let id = ServiceId::parse("product").unwrap();
    let product = world.services.get_mut(&id).unwrap();
    let target =
        |weight| TargetSpec { service: id.clone(), version: None, labels: crate::spec::Labels::NONE, weight };
    let rule = |name: &str, weight| RuleSpec {
        name: name.into(),
        when: MatchSpec::default(),
        then: ActionSpec::Split(vec![target(weight)]),
        timeout: None,
        change: None,
        tries: None,
    };
    product.spec.rules = vec![rule("a", 1), rule("b", 1), rule("c", 2), rule("none", 0)];
    let snapshot = Snapshot::build(&world, None);
    assert_eq!(snapshot.backends.len(), 1);
    assert_eq!(snapshot.splits.len(), 2);
    assert_eq!(snapshot.lists[0].rules[3].then, Then::NoSuchService);
}

#[test]
fn the_application_is_behind_the_inbound_entry() {
    let app = LocalApp {
        service: ServiceId::parse("product").unwrap(),
        instance: "product-1".into(),
        address: ([127, 0, 0, 1], 9001).into(),
    };
    let snapshot = Snapshot::build(&World::default(), Some(&app));
    let decision = snapshot.decide(Entry::Inbound, &get("anything", "/"));
    let Then::Split(split) = decision.then else { panic!("{decision:?}") };
    let (backend, _) = snapshot.splits[split.0 as usize].targets[0];
    assert_eq!(snapshot.backend(backend).unwrap().endpoints[0].address, app.address);
}

#[test]
fn an_address_leads_where_its_name_does() {
    let mut world = world(&["cart", "db"]);
    // Connections of which nobody knows what is spoken on them: HTTP alone would be refused as such.
    world.services.values_mut().for_each(|service| service.spec.protocol = Protocol::Auto);
    let db = world.services.get_mut(&ServiceId::parse("db").unwrap()).unwrap();
    db.spec.headless = true;
    // Neither its weight nor its health keeps whoever names an instance from it.
    for (name, weight, healthy) in [("db-0", 1, true), ("db-1", 0, false), ("10.0.0.7:1", 1, true)] {
        db.endpoints.push(EndpointSpec {
            name: name.into(),
            address: SocketAddr::from(([10, 0, 0, 7], 1)),
            transport: Transport::Plain,
            version: None,
            weight,
            healthy,
            tags: crate::spec::Tags::NONE,
        });
    }
    let snapshot = Snapshot::build(&world, None);
    let backends_at = |address: IpAddr| {
        let then = snapshot
            .decide_connection(Entry::Address(SocketAddr::new(address, 5432)), b"", Link::UNKNOWN)
            .then;
        let Then::Split(split) = then else { panic!("{address}: {then:?}") };
        let [(backend, _)] = snapshot.splits[split.0 as usize].targets[..] else { panic!() };
        snapshot.backend(backend).unwrap()
    };
    let cart = snapshot.published(&ServiceId::parse("cart").unwrap()).unwrap();
    for address in cart.vip.addresses() {
        assert_eq!(&*backends_at(address).name, "cart");
        assert_eq!(snapshot.service_at(address).unwrap().to_string(), "cart");
    }
    let db = snapshot.published(&ServiceId::parse("db").unwrap()).unwrap();
    assert_eq!(&*backends_at(db.vip.v6.into()).name, "db");
    assert_eq!(db.instances.len(), 2, "what is no label has no name");
    for instance in &db.instances {
        for address in instance.vip.addresses() {
            let backend = backends_at(address);
            assert_eq!(*backend.name, *alloc::format!("db#{}", instance.name));
            let [endpoint] = &backend.endpoints[..] else { panic!() };
            assert_eq!(*endpoint.name, *instance.name.as_str());
            assert!(endpoint.healthy && endpoint.weight == 1);
            assert_eq!(snapshot.service_at(address).unwrap().to_string(), "db");
        }
    }
    let nobody = SocketAddr::from(([240, 240, 0, 9], 80));
    assert_eq!(
        snapshot.decide_connection(Entry::Address(nobody), b"", Link::UNKNOWN).then,
        Then::NoSuchService
    );
    let outside = SocketAddr::from(([192, 0, 2, 1], 80));
    assert_eq!(
        snapshot.decide_connection(Entry::Address(outside), b"", Link::UNKNOWN).then,
        Then::Direct(outside)
    );
}

/// What leaves for a place of a known service is declared, by its name and port.
#[test]
fn the_places_of_known_services_are_declared() {
    use crate::spec::{EgressMode, ExternalSpec, NamedEndpoint};

    let mut world = world(&["payments"]);
    world.egress.mode = EgressMode::RegistryOnly;
    let payments = world.services.values_mut().next().unwrap();
    let named = NamedEndpoint {
        name: "payments-1".into(),
        host: "pay.example".into(),
        port: 443,
        version: None,
        tags: crate::spec::Tags::NONE,
        weight: 1,
    };
    payments.spec.external = Some(ExternalSpec { names: alloc::vec![named], tls: None }.into());
    let plain = core::net::SocketAddr::from(([192, 0, 2, 9], 443));
    payments.endpoints.push(EndpointSpec {
        name: "payments-2".into(),
        address: plain,
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: crate::spec::Tags::NONE,
    });
    let snapshot = Snapshot::build(&world, None);
    let allowed = |authority: &str| {
        let destination = Destination::of_authority(authority.as_bytes(), 80).unwrap();
        let source = ServiceId::parse("cart").unwrap();
        matches!(snapshot.may_leave(&source, &destination), Verdict::Allowed { .. })
    };
    assert!(allowed("PAY.example.:443"));
    assert!(allowed(&plain.to_string()));
    assert!(!allowed("pay.example:80"));
    assert!(!allowed("other.pay.example:443"));
    assert!(!allowed(&alloc::format!("{}:{}", plain.ip(), plain.port() + 1)));
}

#[test]
fn rules_for_other_callers_are_not_in_a_callers_snapshot() {
    let mut world = world(&["product", "cart"]);
    let id = |name: &str| ServiceId::parse(name).unwrap();
    let to = |service: &str| {
        ActionSpec::Split(vec![TargetSpec {
            service: id(service),
            version: None,
            labels: crate::spec::Labels::NONE,
            weight: 1,
        }])
    };
    let rule = |name: &str, sources, then| RuleSpec {
        name: name.into(),
        when: MatchSpec { sources, ..MatchSpec::default() },
        then,
        timeout: None,
        change: None,
        tries: None,
    };
    world.services.get_mut(&id("product")).unwrap().spec.rules = vec![
        rule("of-cart", vec![EgressSource::Service(id("cart")).into()], to("cart")),
        rule("of-ops", vec![EgressSource::Namespace(Label::parse("ops").unwrap()).into()], to("cart")),
        rule("others", vec![], to("product")),
    ];
    let decided = |service: &str| {
        let address = ([127, 0, 0, 1], 1).into();
        let app = LocalApp { service: id(service), instance: "one".into(), address };
        let snapshot = Snapshot::build(&world, Some(&app));
        let decision = snapshot.decide(Entry::Forward, &get("product", "/"));
        // Bytes have a caller too.
        assert_eq!(
            snapshot.decide_connection(Entry::Forward, b"product", Link::UNKNOWN).then,
            Then::Unsupported
        );
        snapshot.rule_name(&decision).1.map(str::to_string)
    };
    assert_eq!(decided("cart").as_deref(), Some("of-cart"));
    assert_eq!(decided("ops/tool").as_deref(), Some("of-ops"));
    assert_eq!(decided("user").as_deref(), Some("others"));
}

#[test]
fn a_copy_goes_to_its_target_by_no_rule() {
    let mut world = world(&["product", "shadow"]);
    let id = |name: &str| ServiceId::parse(name).unwrap();
    let rule = |to: &str, mirrors| RuleSpec {
        name: "r".into(),
        when: MatchSpec::default(),
        then: ActionSpec::Split(vec![TargetSpec {
            service: id(to),
            version: None,
            labels: crate::spec::Labels::NONE,
            weight: 1,
        }]),
        timeout: None,
        tries: None,
        change: Some(Arc::new(Change { mirrors, ..Change::default() })),
    };
    let mirror = |service: &str| Mirror { service: id(service), version: None, share_ppm: 1 };
    world.services.get_mut(&id("product")).unwrap().spec.rules =
        vec![rule("product", vec![mirror("shadow"), mirror("gone")])];
    // Who gets copies copies nothing itself.
    world.services.get_mut(&id("shadow")).unwrap().spec.rules = vec![rule("product", vec![mirror("shadow")])];
    let snapshot = Snapshot::build(&world, None);
    let decision = snapshot.decide(Entry::Forward, &get("product", "/"));
    assert!(decision.changed);
    let target = (id("shadow"), None);
    let copy = snapshot.decide(Entry::Mirror(&target), &get("product", "/"));
    assert_eq!((snapshot.list_name(copy.list), copy.rule, copy.changed), ("shadow (mirror)", None, false));
    let Then::Split(split) = copy.then else { panic!("{copy:?}") };
    let (backend, _) = snapshot.splits[split.0 as usize].targets[0];
    assert_eq!(&*snapshot.backend(backend).unwrap().name, "shadow");
    for unknown in ["gone", "never"] {
        let copy = snapshot.decide(Entry::Mirror(&(id(unknown), None)), &get("product", "/"));
        assert_eq!(copy.then, Then::NoSuchService);
    }
}

/// A rule takes from its service what it does not say; a gateway's that says something takes the rest from the service that it
/// leads to, one that says nothing leaves all to the service's own rules.
#[test]
fn what_is_said_about_attempts_is_inherited() {
    use crate::exchange::Tries;
    use crate::time::Duration;

    let second = Duration::from_secs(1);
    let says = |tries: TriesSpec| Some(Arc::new(tries));
    let attempts = |attempts| RetrySpec { attempts, ..RetrySpec::default() };
    let of_service = TriesSpec {
        try_timeout: Some(second),
        idle_timeout: Some(second * 9),
        retry: Some(attempts(4)),
        budget: Some(BudgetSpec { percent: 7, per_second: 0 }),
        ..TriesSpec::default()
    };
    let of_rule = TriesSpec { try_timeout: Some(Duration::ZERO), ..TriesSpec::default() };
    let of_gateway = TriesSpec { retry: Some(attempts(2)), ..TriesSpec::default() };

    let mut world = world(&["product", "plain"]);
    let id = ServiceId::parse("product").unwrap();
    let rule = |path: &str, then: ActionSpec, tries| RuleSpec {
        name: path.into(),
        when: MatchSpec { path: Some(PathMatch::Prefix(path.into())), ..MatchSpec::default() },
        then,
        timeout: None,
        tries,
        change: None,
    };
    let own = || {
        ActionSpec::Split(vec![TargetSpec {
            service: id.clone(),
            version: None,
            labels: crate::spec::Labels::NONE,
            weight: 1,
        }])
    };
    let product = world.services.get_mut(&id).unwrap();
    product.spec.tries = says(of_service.clone());
    product.spec.rules = vec![rule("/own", own(), says(of_rule.clone())), rule("/none", own(), None)];
    let to_product = || ActionSpec::Service(id.clone());
    world.gateway = Some(GatewaySpec {
        id: ServiceId::parse("gateway").unwrap(),
        listeners: vec![Arc::new(ListenerSpec::http("http", ([127, 0, 0, 1], 0).into()))],
        rules: vec![rule("/own/says", to_product(), says(of_gateway.clone())), rule("/", to_product(), None)],
        zone: None,
    });
    let app = LocalApp { service: id, instance: "product-1".into(), address: ([127, 0, 0, 1], 1).into() };
    let snapshot = Snapshot::build(&world, Some(&app));

    let only = |tries: TriesSpec| Some(Tries::from(&TriesSpec { budget: None, ..tries }));
    let of_service = TriesSpec { budget: None, ..of_service };
    for (entry, authority, path, expected) in [
        (Entry::Forward, "plain", "/", None),
        (Entry::Forward, "product", "/", only(of_service.clone())),
        (Entry::Forward, "product", "/none", only(of_service.clone())),
        (
            Entry::Forward,
            "product",
            "/own",
            only(TriesSpec { try_timeout: Some(Duration::ZERO), ..of_service.clone() }),
        ),
        (Entry::Gateway, "x", "/", only(of_service.clone())),
        (
            Entry::Gateway,
            "x",
            "/own",
            only(TriesSpec { try_timeout: Some(Duration::ZERO), ..of_service.clone() }),
        ),
        (
            Entry::Gateway,
            "x",
            "/own/says",
            only(TriesSpec { retry: Some(attempts(2)), ..of_service.clone() }),
        ),
        // The application's own sidecar knows how long it may be silent, and nothing else.
        (
            Entry::Inbound,
            "x",
            "/",
            only(TriesSpec { idle_timeout: Some(second * 9), ..TriesSpec::default() }),
        ),
    ] {
        let decision = snapshot.decide(entry, &get(authority, path));
        assert_eq!(snapshot.tries(&decision).map(|tries| Tries::clone(tries)), expected, "{entry:?} {path}");
    }
    let budgets: Vec<_> = snapshot.backends.iter().map(|it| (&*it.name, it.budget.is_some())).collect();
    assert!(
        budgets.contains(&("default/product", true)) || budgets.contains(&("product", true)),
        "{budgets:?}"
    );
}
