//! Against the real other end: the index and the control plane's side of the session.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use core::net::SocketAddr;

use super::*;
use crate::index::{Index, SubscriberId, Version};
use crate::rng::Rng;
use crate::session::{Offer, Server};
use crate::spec::{Balance, ListenerSpec, MatchSpec, Protocol, TargetSpec, Transport};
use crate::time::Instant;

/// A control plane with one proxy. Contents travel as numbers into `contents`.
struct Pair {
    knowledge: Knowledge,
    index: Index<Vec<u8>>,
    server: Option<Server>,
    streams: u64,
    contents: Vec<Result<Content, String>>,
}

impl Pair {
    fn new() -> Self {
        Self { knowledge: Knowledge::new(), index: Index::new(0), server: None, streams: 0, contents: vec![] }
    }

    fn put(&mut self, key: Key, content: Result<Content, String>) {
        let number = self.contents.len() as u32;
        self.contents.push(content);
        let version = Version(u128::from(number));
        self.index.apply(key, version, number.to_be_bytes().to_vec(), &mut BTreeSet::new());
    }

    fn service(&mut self, name: &str, leads_to: &[&str]) {
        self.put(key(Kind::Service, &id(name)), Ok(Content::Service(service(name, leads_to))));
    }

    fn endpoints(&mut self, name: &str, count: u16) {
        let found = (0..count).rev().map(endpoint).collect();
        self.put(key(Kind::Endpoints, &id(name)), Ok(Content::Endpoints(found)));
    }

    fn reconnect(&mut self) {
        self.index.leave(SubscriberId(self.streams));
        self.streams += 1;
        self.server = Some(Server::new(SubscriberId(self.streams)));
        self.knowledge.disconnected();
        self.knowledge.connected();
    }

    /// One message each way; false when there was none.
    fn step(&mut self) -> bool {
        let Some(server) = &mut self.server else { return false };
        if let Some(request) = self.knowledge.poll() {
            server.receive(request, &mut self.index).unwrap();
            return true;
        }
        server.look(&mut self.index);
        let Some(Response { kind, nonce, generation, resources, removed }) =
            server.poll(&self.index, Instant::ZERO)
        else {
            return false;
        };
        let resources = resources
            .into_iter()
            .map(|Offer { id, version, content }| {
                let number = u32::from_be_bytes(content.try_into().unwrap());
                Offer { id, version, content: self.contents[number as usize].clone() }
            })
            .collect();
        self.knowledge.receive(Response { kind, nonce, generation, resources, removed });
        true
    }

    fn run(&mut self) {
        for _ in 0..1000 {
            if !self.step() {
                return;
            }
        }
        panic!("the two ends talk without end");
    }
}

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn rule(name: &str, to: &str) -> RuleSpec {
    let target = TargetSpec { service: id(to), version: None, labels: crate::spec::Labels::NONE, weight: 1 };
    let then = ActionSpec::Split(vec![target]);
    RuleSpec { name: name.into(), when: MatchSpec::default(), then, timeout: None, tries: None, change: None }
}

fn service(name: &str, leads_to: &[&str]) -> ServiceSpec {
    ServiceSpec {
        id: id(name),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        care: None,
        rules: leads_to.iter().map(|to| rule(to, to)).collect(),
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

fn endpoint(n: u16) -> EndpointSpec {
    EndpointSpec {
        name: alloc::format!("i{n}").into(),
        address: SocketAddr::from(([127, 0, 0, 1], 1000 + n)),
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: crate::spec::Tags::NONE,
    }
}

fn names(world: &World) -> Vec<String> {
    world.services.keys().map(ToString::to_string).collect()
}

#[test]
fn a_sidecar_learns_its_own_service_what_it_calls_and_what_those_lead_to() {
    let mut pair = Pair::new();
    let mut own = service("cart", &[]);
    own.calls = vec![id("product"), id("nowhere")];
    pair.put(key(Kind::Service, &id("cart")), Ok(Content::Service(own)));
    pair.service("product", &["canary"]);
    pair.service("canary", &[]);
    pair.service("unrelated", &[]);
    for (name, count) in [("cart", 1), ("product", 3), ("canary", 1), ("unrelated", 9)] {
        pair.endpoints(name, count);
    }
    pair.knowledge.set_own(id("cart"));
    pair.reconnect();
    pair.run();
    let world = pair.knowledge.world();
    assert_eq!(names(&world), ["canary", "cart", "product"]);
    assert_eq!(world.absent, [id("nowhere")].into());
    let found: Vec<_> = world.services[&id("product")].endpoints.iter().map(|e| e.name.to_string()).collect();
    assert_eq!(found, ["i0", "i1", "i2"], "sorted");
    assert_eq!(world.generation, pair.index.generation());
    assert!(pair.knowledge.is_complete());
}

#[test]
fn a_backup_is_learnt_with_the_service_that_it_backs_up() {
    let mut pair = Pair::new();
    let mut own = service("cart", &[]);
    own.calls = vec![id("product")];
    pair.put(key(Kind::Service, &id("cart")), Ok(Content::Service(own)));
    let mut product = service("product", &[]);
    let care = crate::spec::Care { backup: Some(id("spare")), ..crate::spec::Care::default() };
    product.care = Some(Arc::new(care));
    pair.put(key(Kind::Service, &id("product")), Ok(Content::Service(product)));
    pair.service("spare", &[]);
    pair.endpoints("spare", 1);
    pair.knowledge.set_own(id("cart"));
    pair.reconnect();
    pair.run();
    assert_eq!(names(&pair.knowledge.world()), ["cart", "product", "spare"]);
}

#[test]
fn a_gateway_learns_its_rules_and_their_services() {
    let mut pair = Pair::new();
    let spec = GatewaySpec {
        id: id("edge"),
        listeners: vec![Arc::new(ListenerSpec::http("http", SocketAddr::from(([127, 0, 0, 1], 80))))],
        rules: vec![RuleSpec { then: ActionSpec::Service(id("user")), ..rule("r", "x") }],
        zone: None,
    };
    pair.put(key(Kind::Gateway, &id("edge")), Ok(Content::Gateway(spec.clone())));
    pair.service("user", &[]);
    pair.endpoints("user", 1);
    pair.knowledge.set_gateway(id("edge"));
    pair.reconnect();
    let mut seen = vec![];
    while pair.step() {
        let world = pair.knowledge.world();
        assert!(world.gateway.is_none() || world.services.contains_key(&id("user")), "make before break");
        seen.push(world.gateway.is_some());
    }
    assert!(!seen[0] && *seen.last().unwrap());
    assert_eq!(pair.knowledge.world().gateway, Some(spec));
}

#[test]
fn a_rule_is_not_used_before_its_target_is_known_and_the_old_one_serves_meanwhile() {
    let mut pair = Pair::new();
    pair.service("product", &["v1"]);
    for name in ["product", "v1", "v2"] {
        pair.endpoints(name, 1);
    }
    pair.service("v1", &[]);
    pair.service("v2", &[]);
    pair.knowledge.set_declared([id("product")].into());
    pair.reconnect();
    pair.run();
    let before = pair.knowledge.world();
    assert_eq!(names(&before), ["product", "v1"]);

    pair.service("product", &["v2"]);
    let mut switched = false;
    while pair.step() {
        let world = pair.knowledge.world();
        let rule = world.services[&id("product")].spec.rules[0].name.to_string();
        assert!(world.services.contains_key(&id(&rule)), "{rule} is led to and not there");
        if rule == "v1" {
            assert_eq!(world.generation, before.generation, "not yet all of the new generation");
        }
        switched |= rule == "v2";
    }
    assert!(switched);
    let after = pair.knowledge.world();
    assert_eq!(names(&after), ["product", "v2"], "v1 is not led to any more");
    assert_eq!(after.generation, pair.index.generation());
}

#[test]
fn rules_in_a_circle_do_not_wait_for_each_other() {
    let mut pair = Pair::new();
    pair.service("a", &["b"]);
    pair.service("b", &["a"]);
    pair.knowledge.ask(id("a")).unwrap();
    pair.reconnect();
    pair.run();
    assert_eq!(names(&pair.knowledge.world()), ["a", "b"]);
}

#[test]
fn a_refused_resource_leaves_the_last_good_one_and_holds_nothing_up() {
    let mut pair = Pair::new();
    pair.service("product", &["odd"]);
    pair.endpoints("product", 1);
    pair.put(key(Kind::Service, &id("odd")), Err("odd".into()));
    pair.knowledge.ask(id("product")).unwrap();
    pair.reconnect();
    pair.run();
    assert_eq!(names(&pair.knowledge.world()), ["product"]);

    let good = pair.knowledge.world();
    pair.put(key(Kind::Endpoints, &id("product")), Err("garbled".into()));
    pair.run();
    assert_eq!(pair.knowledge.world().services, good.services);
    let wrong = Ok(Content::Service(service("other", &[])));
    pair.put(key(Kind::Service, &id("product")), wrong);
    pair.run();
    assert_eq!(pair.knowledge.world().services, good.services, "content under another's name");
    pair.endpoints("product", 2);
    pair.run();
    assert_eq!(pair.knowledge.world().services[&id("product")].endpoints.len(), 2);
}

#[test]
fn nothing_is_lost_when_streams_break_and_only_what_is_gone_goes() {
    let mut pair = Pair::new();
    pair.service("product", &[]);
    pair.endpoints("product", 3);
    pair.knowledge.ask(id("product")).unwrap();
    pair.reconnect();
    pair.run();
    let before = pair.knowledge.world();
    for _ in 0..3 {
        pair.reconnect();
        assert_eq!(pair.knowledge.world(), before);
        pair.run();
        assert_eq!(pair.knowledge.world(), before);
    }
    pair.index.delete(&key(Kind::Endpoints, &id("product")), &mut BTreeSet::new());
    pair.run();
    assert_eq!(pair.knowledge.world().services[&id("product")].endpoints, []);
    pair.index.delete(&key(Kind::Service, &id("product")), &mut BTreeSet::new());
    pair.run();
    let world = pair.knowledge.world();
    assert_eq!((names(&world), world.absent), (vec![], [id("product")].into()));
}

#[test]
fn a_workload_that_asks_for_endless_names_is_bounded() {
    let mut pair = Pair::new();
    pair.service("real", &[]);
    pair.knowledge.ask(id("real")).unwrap();
    pair.reconnect();
    pair.run();
    for n in 0..ASKED_MAX + 300 {
        pair.knowledge.ask(id(&alloc::format!("no-{n}"))).unwrap();
        if n % 100 == 0 {
            pair.run();
        }
    }
    pair.run();
    let world = pair.knowledge.world();
    assert_eq!(names(&world), ["real"]);
    assert!((ASKED_MAX * 7 / 8 - 1..ASKED_MAX).contains(&world.absent.len()), "{}", world.absent.len());
    assert!(world.absent.contains(&id(&alloc::format!("no-{}", ASKED_MAX + 299))));

    let mut unanswered = Knowledge::new();
    for n in 0..ASKED_MAX {
        unanswered.ask(id(&alloc::format!("s{n}"))).unwrap();
    }
    assert_eq!(unanswered.ask(id("one-more")), Err(TooManyAsked));
    assert_eq!(unanswered.ask(id("s0")), Ok(()));
}

#[test]
fn a_service_that_leads_to_too_many_others_is_cut_off_and_the_rest_works() {
    let mut pair = Pair::new();
    let many: Vec<String> = (0..SERVICES_MAX + 10).map(|n| alloc::format!("t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    pair.service("wide", &many);
    pair.knowledge.set_declared([id("wide")].into());
    pair.reconnect();
    pair.run();
    assert!(pair.knowledge.overflows());
    assert_eq!(names(&pair.knowledge.world()), ["wide"]);
}

/// Whatever happens, in the end the proxy knows what is true of what it wants, and at no moment do its rules lead to a
/// service that exists and that it does not know.
#[test]
fn random_changes_and_broken_streams_converge() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut pair = Pair::new();
        let all = ["a", "b", "c", "d", "e"];
        pair.knowledge.set_declared([id("a")].into());
        for _ in 0..rng.below(80) {
            let name = all[rng.below(5) as usize];
            match rng.below(8) {
                0..=1 => {
                    let to = all[rng.below(5) as usize];
                    pair.service(name, if rng.one_in(3) { &[] } else { core::slice::from_ref(&to) });
                }
                2 => pair.endpoints(name, rng.below(4) as u16),
                3 => {
                    let kind = if rng.one_in(2) { Kind::Service } else { Kind::Endpoints };
                    pair.index.delete(&key(kind, &id(name)), &mut BTreeSet::new());
                }
                4 if rng.one_in(4) => pair.reconnect(),
                5 => pair.knowledge.ask(id(name)).unwrap(),
                _ => {
                    pair.step();
                }
            }
            check_no_gap(&pair, seed);
        }
        pair.reconnect();
        while pair.step() {
            check_no_gap(&pair, seed);
        }
        let world = pair.knowledge.world();
        assert!(pair.knowledge.is_complete(), "seed {seed}");
        assert_eq!(world.generation, pair.index.generation(), "seed {seed}");
        for wanted in pair.knowledge.client.wanted() {
            let truth = pair.index.get(&wanted).map(|entry| {
                let number = u32::from_be_bytes(entry.content.clone().try_into().unwrap());
                pair.contents[number as usize].clone().unwrap()
            });
            let known = world.services.get(&wanted.id);
            match (wanted.kind, truth) {
                (Kind::Service, truth) => {
                    let held = known.map(|known| Content::Service(known.spec.clone()));
                    assert_eq!(held, truth, "seed {seed}");
                }
                (Kind::Endpoints, Some(Content::Endpoints(mut truth))) => {
                    truth.sort_by(|a, b| a.name.cmp(&b.name));
                    assert!(known.is_none_or(|known| known.endpoints == truth), "seed {seed}");
                }
                _ => assert!(known.is_none_or(|known| known.endpoints.is_empty()), "seed {seed}"),
            }
        }
    }
}

fn check_no_gap(pair: &Pair, seed: u64) {
    let world = pair.knowledge.world();
    for known in world.services.values() {
        for target in targets(&known.spec.rules) {
            let heard = pair.knowledge.client.is_known(&key(Kind::Service, target));
            assert!(heard, "seed {seed}: {} leads to {target}, of which nothing is known", known.spec.id);
        }
    }
}

/// A policy that cannot be read refuses; one that was read stays until another can be.
#[test]
fn rules_about_what_leaves_that_cannot_be_read_let_nothing_out() {
    let mut pair = Pair::new();
    pair.knowledge.set_own(id("cart"));
    pair.service("cart", &[]);
    pair.endpoints("cart", 1);
    pair.reconnect();
    while pair.step() {}
    assert!(pair.knowledge.is_complete());
    assert_eq!(pair.knowledge.world().egress, EgressSpec::default());

    pair.put(Key::egress(), Err("a mode of the future".into()));
    while pair.step() {}
    assert!(pair.knowledge.is_complete());
    assert_eq!(pair.knowledge.world().egress.mode, EgressMode::RegistryOnly);

    let rule = crate::spec::EgressRule {
        name: "a".into(),
        from: vec![],
        hosts: vec![],
        cidrs: vec![],
        ports: vec![443],
        allow: false,
    };
    let good = EgressSpec { rules: vec![rule], ..EgressSpec::default() };
    pair.put(Key::egress(), Ok(Content::Egress(good.clone())));
    while pair.step() {}
    assert_eq!(pair.knowledge.world().egress, good);
    pair.put(Key::egress(), Err("another one".into()));
    while pair.step() {}
    assert_eq!(pair.knowledge.world().egress, good);

    pair.index.delete(&Key::egress(), &mut BTreeSet::new());
    while pair.step() {}
    assert_eq!(pair.knowledge.world().egress, EgressSpec::default());
}
