use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;

use super::*;
use crate::head::{Fields, RequestHead};
use crate::peer::SpiffeId;
use crate::route::{Expected, Facts, Link};
use crate::snapshot::{Entry, LocalApp, Snapshot};
use crate::spec::{
    ActionSpec, Care, Change, EndpointSpec, GatewaySpec, Protocol, RateScope, RuleSpec, Scheme, World,
};
use crate::time::Duration;

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn limit(name: &str) -> Arc<RateSpec> {
    Arc::new(RateSpec {
        name: name.into(),
        when: MatchSpec::default(),
        requests: 1,
        per: Duration::from_secs(1),
        burst: 1,
        by: vec![],
        scope: RateScope::Instance,
        dry_run: false,
    })
}

/// A service with a limit and one instance, in the mesh or outside of it.
fn service(name: &str, outside: bool, rules: Vec<RuleSpec>) -> KnownService {
    let identity =
        SpiffeId { trust_domain: crate::name::TrustDomain::parse("a.mesh").unwrap(), service: id(name) };
    let endpoint = EndpointSpec {
        name: "one".into(),
        address: ([10, 0, 0, 1], 80).into(),
        transport: if outside { Transport::Plain } else { Transport::Mesh(identity) },
        version: None,
        weight: 1,
        healthy: true,
        tags: crate::spec::Tags::NONE,
    };
    let spec = ServiceSpec {
        id: id(name),
        protocol: Protocol::Auto,
        balance: crate::spec::Balance::default(),
        care: Some(Arc::new(Care { rates: vec![limit("all")], ..Care::default() })),
        rules,
        calls: vec![],
        health: None,
        timeout: None,
        tries: None,
        external: None,
        send_proxy: None,
        headless: true,
        srv_port: 80,
    };
    KnownService { spec, endpoints: vec![endpoint] }
}

fn rule(name: &str, then: ActionSpec, change: Option<Change>) -> RuleSpec {
    let path = crate::spec::PathMatch::Prefix(name.into());
    let when = MatchSpec { path: Some(path), ..MatchSpec::default() };
    RuleSpec { name: name.into(), when, then, timeout: None, tries: None, change: change.map(Arc::new) }
}

fn to(services: &[&str]) -> ActionSpec {
    let target = |name: &&str| TargetSpec {
        service: id(name),
        version: None,
        labels: crate::spec::Labels::NONE,
        weight: 1,
    };
    ActionSpec::Split(services.iter().map(target).collect())
}

/// The limits that a request is counted by.
fn counted(snapshot: &Snapshot, entry: Entry<'_>, path: &str) -> Vec<String> {
    let head =
        RequestHead { method: b"GET", authority: b"x", path: path.as_bytes(), fields: Fields::default() };
    let facts = Facts {
        client: b"",
        scheme: Scheme::Http,
        source: "",
        service: "",
        request_id: b"",
        link: Link::UNKNOWN,
    };
    let decision = snapshot.decide(entry, &head);
    let mut edits = crate::edit::Edits::new();
    let changed = snapshot.change(entry, &head, &facts, &mut edits).unwrap();
    // The shell looks only where the decision says so.
    assert_eq!(decision.changed, !changed.rates.is_empty(), "{path}");
    changed.rates.iter().map(|rate| String::from(&*rate.label)).collect()
}

#[test]
fn requests_are_counted_where_they_arrive_and_where_nobody_else_does() {
    let rules = vec![rule("/both", to(&["web", "api", "log"]), None), rule("/web", to(&["web"]), None)];
    let services = [service("web", false, rules), service("api", true, vec![]), service("log", true, vec![])];
    let gateway_rules = vec![
        rule(
            "/own",
            ActionSpec::Service(id("web")),
            Some(Change { rates: vec![limit("g")], ..Change::default() }),
        ),
        rule(
            "/api",
            ActionSpec::Service(id("api")),
            Some(Change { rates: vec![limit("g")], ..Change::default() }),
        ),
        rule("/", ActionSpec::Service(id("web")), None),
    ];
    let world = World {
        services: services
            .into_iter()
            .map(|known| (known.spec.id.clone(), known))
            .collect::<BTreeMap<_, _>>(),
        gateway: Some(GatewaySpec { id: id("edge"), listeners: vec![], rules: gateway_rules, zone: None }),
        ..World::default()
    };
    let app = LocalApp { service: id("web"), instance: "one".into(), address: ([127, 0, 0, 1], 1).into() };
    let snapshot = Snapshot::build(&world, Some(&app));
    let none: &[&str] = &[];
    for (entry, path, labels) in [
        // In front of the application, whatever the service's own rules say.
        (Entry::Inbound, "/both", &["web/all"][..]),
        // Whoever calls a service of the mesh leaves that to its sidecar.
        (Entry::Dependency(&id("web")), "/web", none),
        (Entry::Dependency(&id("api")), "/", &["api/all"]),
        // One of several is chosen later: it counts for all that nobody else counts for.
        (Entry::Dependency(&id("web")), "/both", &["api/all", "log/all"]),
        (Entry::Gateway, "/own", &["edge//own/g"]),
        (Entry::Gateway, "/api", &["edge//api/g", "api/all"]),
        (Entry::Gateway, "/both", &["api/all", "log/all"]),
        (Entry::Gateway, "/other", none),
    ] {
        assert_eq!(counted(&snapshot, entry, path), labels, "{entry:?} {path}");
    }
    // An instance that is called by its name, too.
    let address = snapshot.published(&id("api")).unwrap().instance(&id("one").name).unwrap().vip.v6;
    let entry = Entry::Address((address, 80).into());
    assert_eq!(counted(&snapshot, entry, "/"), ["api/all"]);
    assert_eq!(snapshot.rates().len(), 5, "each is known once");
    // Bytes of which nobody has said what they are would pass uncounted.
    assert_eq!(snapshot.expected(Entry::Inbound), Expected::Http);
}

#[test]
fn connections_of_bytes_are_counted_by_the_rule_that_takes_them() {
    for outside in [false, true] {
        let mut known = service("db", outside, vec![]);
        known.spec.protocol = Protocol::Tcp;
        let world = World { services: [(id("db"), known)].into(), ..World::default() };
        let app = LocalApp { service: id("db"), instance: "one".into(), address: ([127, 0, 0, 1], 1).into() };
        let snapshot = Snapshot::build(&world, Some(&app));
        let rates = |entry| {
            let decision = snapshot.decide_connection(entry, b"", Link::UNKNOWN);
            assert!(matches!(decision.then, Then::Split(_)));
            let rates = snapshot.rates_of(&decision);
            assert_eq!(decision.changed, !rates.is_empty());
            rates.len()
        };
        assert_eq!((rates(Entry::Inbound), rates(Entry::Dependency(&id("db")))), (1, usize::from(outside)));
    }
}
