//! What a mesh file means: one file with every field, and the short forms.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::time::Duration;

use leno_config::native::{self, MeshFile, Role};
use leno_core::admission::Class;
use leno_core::name::{Label, ServiceId};
use leno_core::spec::{
    ActionSpec, Answer, Balance, Change, Concurrency, ConcurrencyLimit, Distribution, EgressSource,
    FieldMatch, Format, HostMatch, Labels, Locality, PathChange, PathMatch, Prefer, Probe, Redirect, Scope,
    SourceMatch, Tags, TargetSpec, Transport, Zone,
};

#[test]
fn everything() {
    let mesh = native::parse("meshes/everything.yaml", include_str!("good/everything.yaml")).unwrap();
    assert_eq!(mesh.name.as_str(), "everything");
    assert_eq!(mesh.trust_domain.as_str(), "mesh.example.com");
    assert_eq!(mesh.namespace.as_str(), "prod");

    let [edge, admin, _] = &mesh.gateways[..] else { panic!("{:?}", mesh.gateways) };
    assert_eq!(
        (edge.id.clone(), edge.listeners[0].listen.to_string()),
        (id("prod/edge"), "127.0.0.1:8080".into())
    );
    assert_eq!(admin.listeners[0].listen.to_string(), "127.0.0.1:0", "a free port");
    let names: Vec<&str> = edge.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["beta", "/old", "/both", "route-4"]);
    let beta = &edge.rules[0];
    let hosts = [HostMatch::Exact("shop.example.com".into()), HostMatch::Suffix(".shop.example.com".into())];
    assert_eq!(beta.when.hosts, hosts);
    assert_eq!(beta.when.path, Some(PathMatch::Prefix("/users".into())));
    assert_eq!(
        beta.when.headers,
        [FieldMatch::exact("x-beta", Some("1")), FieldMatch::exact("x-debug", None)]
    );
    assert_eq!(
        (&beta.then, beta.timeout),
        (&ActionSpec::Service(id("prod/user")), Some(Duration::from_secs(90)))
    );
    assert_eq!(edge.rules[1].when.path, Some(PathMatch::Exact("/old".into())));
    assert_eq!(edge.rules[1].then, split(&[("prod/user", Some("v1"), 1)]));
    assert_eq!(edge.rules[2].then, split(&[("prod/user", None, 1), ("ops/legacy", None, 3)]));
    assert_eq!(edge.rules[3].then, ActionSpec::Service(id("prod/user")), "by the service's own rules");

    let user = mesh.service(&id("prod/user")).unwrap();
    let pay = user.spec.rules.iter().find(|rule| &*rule.name == "/pay").unwrap();
    assert_eq!(pay.change.as_ref().unwrap().priority, Some(Class::Critical));
    let concurrency = |name: &str| {
        let service = mesh.service(&id(name)).unwrap();
        service.spec.care.as_ref().and_then(|care| care.concurrency.clone())
    };
    let auto = ConcurrencyLimit::Auto { min: 2, max: 64 };
    assert_eq!(concurrency("prod/worker"), Some(Concurrency { limit: auto, queue: Duration::ZERO }));
    assert_eq!(concurrency("prod/cron"), Some(Concurrency::new(ConcurrencyLimit::Fixed(16))));
    assert_eq!(concurrency("prod/guest"), Some(Concurrency::auto()));
    assert_eq!(concurrency("prod/user"), None);
    assert_eq!((user.spec.balance, user.spec.timeout), (Balance::RoundRobin, Some(Duration::from_secs(10))));
    let health = user.spec.health.as_ref().unwrap();
    assert_eq!(health.probe, Probe::Http("/healthz".into()));
    assert_eq!((health.interval, health.timeout), (Duration::from_millis(500), Duration::from_millis(250)));
    assert_eq!((health.healthy_after, health.unhealthy_after), (2, 3));
    assert_eq!(user.spec.calls, [id("prod/worker"), id("ops/legacy")]);
    assert_eq!(user.start_after, [id("prod/worker")]);
    let rules: Vec<_> = user.spec.rules.iter().map(|rule| (&*rule.name, &rule.then)).collect();
    assert_eq!(
        rules,
        [
            ("canary", &split(&[("prod/user", Some("v2"), 1)])),
            ("/pay", &split(&[("prod/user", Some("v1"), 1)])),
            ("/half", &split(&[("prod/user", Some("v1"), 1), ("prod/user", Some("v2"), 1)])),
            ("route-4", &rules_by_labels()),
            ("/mirror", &split(&[("prod/user", Some("v1"), 9), ("prod/worker", None, 1)])),
            ("/listed/route-1", &split(&[("prod/user", None, 1)])),
            ("split", &split(&[("prod/user", Some("v1"), 90), ("prod/user", Some("v2"), 10)])),
        ]
    );

    let sources = &user.spec.rules[3].when.sources;
    let service = EgressSource::Service(id("prod/worker"));
    let namespace = EgressSource::Namespace(Label::parse("ops").unwrap());
    assert_eq!(
        *sources,
        [
            SourceMatch { who: Some(service), labels: Labels::NONE },
            SourceMatch { who: Some(namespace), labels: labels(&[("track", "canary")]) },
            SourceMatch { who: None, labels: labels(&[("version", "v2")]) },
        ]
    );
    assert_eq!(user.instances[0].tags, Tags::NONE);
    let tags = &user.instances[1].tags;
    assert_eq!(tags.zone.as_ref().map(Zone::as_str), Some("eu/b/1"));
    assert_eq!(tags.labels, labels(&[("example.com/disk", "ssd"), ("track", "canary")]));
    let worker = mesh.service(&id("prod/worker")).unwrap();
    assert_eq!(worker.instances[1].tags.zone, Zone::parse("eu/a").ok(), "that of the service");
    let place = |text| Zone::parse(text).unwrap();
    assert_eq!(
        worker.spec.care.as_ref().unwrap().locality.as_deref(),
        Some(&Locality {
            prefer: Prefer::Subzone,
            failover: vec![place("eu/b"), place("us")],
            distribute: vec![Distribution {
                from: place("eu/a"),
                to: vec![(place("eu/a"), 80), (place("eu"), 20)],
            }],
            overprovision_percent: 200,
            endpoints_min: 3,
            overflow_percent: None,
        })
    );

    let names: Vec<&str> = user.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["one", "user-2", "user-3", "user-4", "user-5"]);
    let one = &user.instances[0];
    let addresses = [one.app, one.mesh, one.proxy, one.admin].map(|address| address.unwrap().to_string());
    assert_eq!(addresses, ["127.0.0.1:9001", "127.0.0.1:9101", "127.0.0.1:9201", "127.0.0.1:9401"]);
    assert_eq!(one.weight, 2);
    assert_eq!(one.outbound[0], (id("prod/worker"), "127.0.0.1:9301".parse().unwrap()));
    let run = one.run.as_ref().unwrap();
    assert_eq!(run.argv_on(9001), ["./user", "--port", "9001", "a b"]);
    let env: Vec<(String, String)> =
        [("PORT", "9001"), ("LOG", "debug"), ("RETRIES", "3")].map(|(k, v)| (k.into(), v.into())).into();
    assert_eq!(run.env_on(9001), env);
    assert_eq!(mesh.working_folder(run).to_str(), Some("meshes/user"));
    assert_eq!(user.instances[3].run.as_ref().unwrap().argv, ["./user", "--new", "{port}"]);
    assert_eq!(mesh.working_folder(user.instances[3].run.as_ref().unwrap()).to_str(), Some("meshes/new"));
    assert_eq!((user.instances[4].weight, user.instances[4].app), (0, Some("10.0.0.7:80".parse().unwrap())));
    assert_eq!(user.instances[4].version, Label::parse("3").ok());

    let worker = mesh.service(&id("prod/worker")).unwrap();
    assert_eq!((worker.instances.len(), &worker.spec.health), (2, &None));
    let cron = mesh.service(&id("prod/cron")).unwrap();
    assert_eq!((cron.instances.len(), &cron.spec.health.as_ref().unwrap().probe), (0, &Probe::Tcp));
    assert!(mesh.service(&id("prod/guest")).unwrap().instances.is_empty());
    let legacy = mesh.service(&id("ops/legacy")).unwrap();
    let endpoints: Vec<_> =
        legacy.endpoints.iter().map(|e| (&*e.name, e.address.to_string(), e.weight)).collect();
    assert_eq!(endpoints, [("legacy-1", "10.0.0.5:80".into(), 1), ("spare", "[fd00::6]:80".into(), 0)]);
    assert!(legacy.endpoints.iter().all(|endpoint| endpoint.transport == Transport::Plain));
    assert_eq!(legacy.spec.health, None, "nobody checks what is outside the mesh");
}

#[test]
fn what_routes_change_and_answer() {
    let mesh = parse(
        "mesh: m
gateway:
  routes:
    - {path: /v1, rewrite: /, to: web}
    - {path: {template: \"/u/{id}\"}, rewrite: {path: \"/users/{id}\"}, request_headers: {set: {X-User: \"{id}\"}}, to: web}
    - {path: /host, rewrite: {host: web.internal}, response_headers: {remove: Server}, to: web}
    - {path: /old, redirect: {prefix: /new}}
    - {path: /down, answer: {status: 503, body: later}}
    - {to: web}
services:
  web: {run: ./web}
",
    );
    let rules = &mesh.gateways[0].rules;
    let format = |text, scope| Format::parse(text, scope, &["id"]).unwrap();
    let change = |at: usize| rules[at].change.as_deref().cloned().unwrap();
    let path = Some(PathChange::Prefix("/".into()));
    assert_eq!(change(0), Change { path, ..Change::default() });
    assert_eq!(change(1).path, Some(PathChange::Whole(format("/users/{id}", Scope::Path))));
    assert_eq!(change(1).request.set, [("x-user".into(), format("{id}", Scope::Field))]);
    assert_eq!((change(2).path, change(2).host.as_deref()), (None, Some("web.internal")));
    assert_eq!(change(2).response.remove, ["server".into()]);
    let ActionSpec::Answer(redirect) = &rules[3].then else { panic!("{:?}", rules[3]) };
    let path = Some(PathChange::Prefix("/new".into()));
    let to = Redirect { scheme: None, host: None, port: None, path, status: 302 };
    assert_eq!(**redirect, Answer::Redirect(to));
    let ActionSpec::Answer(answer) = &rules[4].then else { panic!("{:?}", rules[4]) };
    assert_eq!((answer.status(), rules[4].change.as_ref()), (503, None));
    assert_eq!(rules[5].change, None);
}

#[test]
fn health_is_asked_in_the_protocol_of_the_service() {
    let mesh = parse(
        "mesh: shop\nservices:\n\
         \x20 a: {run: ./a, health: /up}\n\
         \x20 b: {protocol: http2, run: ./b, health: /up}\n\
         \x20 c: {protocol: grpc, run: ./c, health: {http: /up, interval: 5s}}\n\
         \x20 d: {protocol: grpc, run: ./d, health: grpc}\n\
         \x20 e: {run: ./e, health: {grpc: shop.Cart}}\n",
    );
    let probes: Vec<&Probe> =
        mesh.services.iter().map(|service| &service.spec.health.as_ref().unwrap().probe).collect();
    let path = || "/up".to_owned();
    assert_eq!(
        probes,
        [
            &Probe::Http(path()),
            &Probe::Http2(path()),
            &Probe::Http2(path()),
            &Probe::Grpc(String::new()),
            &Probe::Grpc("shop.Cart".into())
        ]
    );
}

#[test]
fn defaults() {
    let mesh = parse("mesh: shop\ngateway: {routes: [{to: web}]}\nservices:\n  web: {run: ./web}\n");
    assert_eq!((mesh.trust_domain.as_str(), mesh.namespace.as_str()), ("shop.mesh", "default"));
    assert_eq!(mesh.gateways[0].id, id("gateway"));
    let web = &mesh.services[0];
    assert_eq!((web.spec.balance, web.spec.timeout), (Balance::PeakEwma, None));
    let health = web.spec.health.as_ref().unwrap();
    assert_eq!((&health.probe, health.interval, health.timeout), (&Probe::Tcp, SECOND, SECOND));
    assert_eq!((health.healthy_after, health.unhealthy_after), (1, 2));
    let instance = &web.instances[0];
    assert_eq!((instance.name.as_str(), instance.weight, instance.app), ("web-1", 1, None));
    assert_eq!(mesh.working_folder(instance.run.as_ref().unwrap()).to_str(), Some("."));
}

#[test]
fn a_short_interval_shortens_the_wait_of_a_check() {
    let mesh = parse("mesh: m\nservices:\n  web: {run: ./web, health: {interval: 200ms}}\n");
    assert_eq!(mesh.services[0].spec.health.as_ref().unwrap().timeout, Duration::from_millis(200));
}

#[test]
fn ten_thousand_routes_and_endpoints_are_one_file() {
    let mut text = "mesh: m\ngateway:\n  routes:\n".to_owned();
    for number in 0..10_000 {
        text.push_str(&format!("    - {{path: /r/{number:05}/, to: app}}\n"));
    }
    text.push_str("    - to: app\nservices:\n  app:\n    endpoints:\n");
    for number in 0..10_000 {
        text.push_str(&format!("      - 127.1.{}.{}:80\n", number / 250, 1 + number % 250));
    }
    let mesh = parse(&text);
    assert_eq!(mesh.gateways[0].rules.len(), 10_001);
    assert_eq!(mesh.services[0].endpoints.len(), 10_000);
}

#[test]
fn roles() {
    let mesh = parse(
        "mesh: m\ngateway: {routes: [{to: web}]}\nservices:\n  web: {run: ./web}\n  ops/db: {run: ./db}\n",
    );
    assert!(matches!(mesh.role("gateway"), Some(Role::Gateway(_))));
    assert!(matches!(mesh.role("web-1"), Some(Role::Instance(service, _)) if service.spec.id == id("web")));
    assert!(matches!(mesh.role("default/web-1"), Some(Role::Instance(..))));
    assert!(matches!(mesh.role("ops/db-1"), Some(Role::Instance(..))));
    assert!(mesh.role("db-1").is_none());
    assert_eq!(mesh.role_names(), ["gateway", "web-1", "ops/db-1"]);
}

#[test]
fn yaml_as_people_write_it() {
    let block = parse("mesh: m\nservices:\n  web:\n    run: ./web\n    timeout: 5s\n");
    for text in [
        "{\"mesh\": \"m\", \"services\": {\"web\": {\"run\": \"./web\", \"timeout\": \"5s\"}}}",
        "---\nmesh: m # a comment\nservices:\n  web: {run: './web', timeout: 5s}\n...\n",
        "\u{feff}mesh: m\r\nservices:\r\n  web:\r\n    run: ./web\r\n    timeout: 5000ms\r\n",
        "%YAML 1.2\n---\nmesh: m\nservices:\n  web:\n    run: |\n      ./web\n    timeout: \"5s\"",
        "mesh: m\nservices:\n  web:\n    run: >-\n      ./web\n    timeout: 0.005s\n    # the end\n",
    ] {
        let mesh = parse(text);
        let mut expected = block.clone();
        if text.contains("0.005s") {
            expected.services[0].spec.timeout = Some(Duration::from_millis(5));
        }
        assert_eq!(mesh, expected, "{text}");
    }
}

#[test]
fn two_machines_may_use_the_same_loopback_ports() {
    let instance = |ip: &str| format!("      - {{address: '{ip}:80', proxy: 15001, admin: 15020}}\n");
    let text = format!(
        "mesh: m\nservices:\n  web:\n    instances:\n{}{}",
        instance("10.0.0.1"),
        instance("10.0.0.2")
    );
    assert_eq!(parse(&text).services[0].instances.len(), 2);
    let same = text.replace("10.0.0.2:80", "10.0.0.1:81");
    assert_eq!(native::parse("m.yaml", &same).unwrap_err().diagnostics.len(), 2);
}

#[test]
fn a_version_is_not_checked_where_instances_register_themselves() {
    let mesh = parse("mesh: m\nservices:\n  web: {split: {v1: 9, v2: 1}}\n");
    assert_eq!(mesh.services[0].spec.rules.len(), 1);
}

fn parse(text: &str) -> MeshFile {
    native::parse("m.yaml", text).unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
}

fn id(text: &str) -> ServiceId {
    ServiceId::parse(text).unwrap()
}

fn split(targets: &[(&str, Option<&str>, u32)]) -> ActionSpec {
    let target = |(service, version, weight): &(&str, Option<&str>, u32)| TargetSpec {
        service: id(service),
        version: version.map(|version| Label::parse(version).unwrap()),
        labels: leno_core::spec::Labels::NONE,
        weight: *weight,
    };
    ActionSpec::Split(targets.iter().map(target).collect())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::parse(pairs.iter().copied()).unwrap()
}

fn rules_by_labels() -> ActionSpec {
    let target = |version: Option<&str>, pairs, weight| TargetSpec {
        service: id("prod/user"),
        version: version.map(|version| Label::parse(version).unwrap()),
        labels: labels(pairs),
        weight,
    };
    ActionSpec::Split(vec![
        target(None, &[("track", "canary")], 3),
        target(Some("v1"), &[("version", "v1")], 1),
    ])
}

const SECOND: Duration = Duration::from_secs(1);
