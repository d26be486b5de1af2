//! Each end alone on small cases, then both over a link that reorders nothing but delays and breaks, against a
//! reference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::ToString;
use std::vec::Vec;
use std::{assert, assert_eq, format, vec};

use super::*;
use crate::index::{Index, Key, SubscriberId};
use crate::rng::Rng;
use crate::time::Instant;

type Content = Vec<u8>;

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn subscribe(names: &[&str]) -> Request {
    Request {
        kind: Kind::Service,
        subscribe: names.iter().map(|name| id(name)).collect(),
        unsubscribe: vec![],
        held: BTreeMap::new(),
        answer: None,
    }
}

fn answer(nonce: u64) -> Request {
    Request { answer: Some(Answer { nonce, rejected: vec![], rejects_all: None }), ..subscribe(&[]) }
}

fn put(index: &mut Index<Content>, name: &str, version: u128) {
    index.apply(
        Key::new(Kind::Service, id(name)),
        Version(version),
        vec![version as u8],
        &mut BTreeSet::new(),
    );
}

fn server() -> (Server, Index<Content>) {
    (Server::new(SubscriberId(1)), Index::new(0))
}

#[test]
fn a_missing_name_is_answered_as_removed_and_told_when_it_appears() {
    let (mut server, mut index) = server();
    server.receive(subscribe(&["cart"]), &mut index).unwrap();
    let first = server.poll(&index, Instant::ZERO).unwrap();
    assert_eq!((first.removed, first.resources.len()), (vec![id("cart")], 0));
    put(&mut index, "cart", 1);
    server.look(&mut index);
    assert_eq!(server.poll(&index, Instant::ZERO), None, "one response at a time");
    server.receive(answer(first.nonce), &mut index).unwrap();
    let second = server.poll(&index, Instant::ZERO).unwrap();
    assert_eq!((second.resources[0].version, second.generation), (Version(1), 1));
}

#[test]
fn what_changes_while_a_response_is_under_way_is_told_once_and_newest() {
    let (mut server, mut index) = server();
    put(&mut index, "cart", 1);
    server.receive(subscribe(&["cart"]), &mut index).unwrap();
    let first = server.poll(&index, Instant::ZERO).unwrap();
    for version in 2..100 {
        put(&mut index, "cart", version);
        server.look(&mut index);
    }
    assert_eq!(server.acknowledged(index.generation()), 0);
    server.receive(answer(first.nonce), &mut index).unwrap();
    assert_eq!(server.acknowledged(index.generation()), 1);
    let second = server.poll(&index, Instant::ZERO).unwrap();
    assert_eq!(second.resources[0].version, Version(99));
    server.receive(answer(second.nonce), &mut index).unwrap();
    assert_eq!(server.poll(&index, Instant::ZERO), None);
    assert_eq!(server.acknowledged(index.generation()), index.generation());
}

#[test]
fn a_resumed_stream_sends_the_difference_only() {
    let (mut server, mut index) = server();
    put(&mut index, "same", 1);
    put(&mut index, "changed", 2);
    let held = [(id("same"), Version(1)), (id("changed"), Version(1)), (id("gone"), Version(1))];
    let request = Request { held: held.into(), ..subscribe(&["same", "changed", "gone"]) };
    server.receive(request, &mut index).unwrap();
    let response = server.poll(&index, Instant::ZERO).unwrap();
    assert_eq!(response.resources.iter().map(|o| o.id.clone()).collect::<Vec<_>>(), vec![id("changed")]);
    assert_eq!(response.removed, vec![id("gone")]);
}

#[test]
fn a_stream_that_resumes_without_a_difference_gets_one_empty_response() {
    let (mut server, mut index) = server();
    put(&mut index, "same", 1);
    let request = Request { held: [(id("same"), Version(1))].into(), ..subscribe(&["same"]) };
    server.receive(request, &mut index).unwrap();
    let response = server.poll(&index, Instant::ZERO).unwrap();
    assert!(response.resources.is_empty() && response.removed.is_empty());
    server.receive(answer(response.nonce), &mut index).unwrap();
    assert_eq!(server.poll(&index, Instant::ZERO), None);
}

#[test]
fn a_refused_version_is_shown_and_not_sent_again() {
    let (mut server, mut index) = server();
    put(&mut index, "cart", 1);
    server.receive(subscribe(&["cart"]), &mut index).unwrap();
    let response = server.poll(&index, Instant::ZERO).unwrap();
    let refusal = Answer {
        nonce: response.nonce,
        rejected: vec![(id("cart"), "é".repeat(400)), (id("x"), "".to_string())],
        rejects_all: None,
    };
    let received = server.receive(Request { answer: Some(refusal), ..subscribe(&[]) }, &mut index).unwrap();
    assert_eq!(received.rejected.len(), 1, "a name that was not offered cannot be refused");
    assert_eq!(received.rejected[0].1.len(), REASON_BYTES_MAX);
    assert_eq!(server.rejected().count(), 1);
    assert_eq!(server.poll(&index, Instant::ZERO), None);
    put(&mut index, "cart", 2);
    server.look(&mut index);
    assert!(server.poll(&index, Instant::ZERO).is_some());
    assert_eq!(server.rejected().count(), 0);
}

#[test]
fn a_change_that_is_taken_back_while_a_response_is_under_way_sends_nothing() {
    let (mut server, mut index) = server();
    put(&mut index, "cart", 1);
    server.receive(subscribe(&["cart"]), &mut index).unwrap();
    let first = server.poll(&index, Instant::ZERO).unwrap();
    put(&mut index, "cart", 2);
    put(&mut index, "cart", 1);
    server.look(&mut index);
    server.receive(answer(first.nonce), &mut index).unwrap();
    assert_eq!(server.poll(&index, Instant::ZERO), None);
    assert!(server.is_settled());
}

#[test]
fn an_answer_with_another_nonce_says_nothing() {
    let (mut server, mut index) = server();
    server.receive(subscribe(&["cart"]), &mut index).unwrap();
    let response = server.poll(&index, Instant::from_nanos(5)).unwrap();
    assert!(!server.receive(answer(response.nonce + 1), &mut index).unwrap().answered);
    assert_eq!(server.poll_timeout(), Some(Instant::from_nanos(5).after(ANSWER_WITHIN)));
    server.receive(answer(response.nonce), &mut index).unwrap();
    assert_eq!(server.poll_timeout(), None);
}

#[test]
fn subscriptions_are_bounded() {
    let (mut server, mut index) = server();
    let names: Vec<ServiceId> = (0..=SUBSCRIPTIONS_MAX).map(|n| id(&format!("s{n}"))).collect();
    let request = |names: &[ServiceId]| Request { subscribe: names.to_vec(), ..subscribe(&[]) };
    assert!(server.receive(request(&names[..SUBSCRIPTIONS_MAX]), &mut index).is_ok());
    let error = server.receive(request(&names[SUBSCRIPTIONS_MAX..]), &mut index).unwrap_err();
    assert_eq!(error, Refusal::TooManySubscriptions);
}

#[test]
fn large_contents_are_spread_over_responses() {
    let (mut server, mut index) = server();
    let names: Vec<ServiceId> = (0..5).map(|n| id(&format!("s{n}"))).collect();
    for (n, id) in names.iter().enumerate() {
        let key = Key::new(Kind::Service, id.clone());
        index.apply(key, Version(n as u128), vec![0; RESPONSE_BYTES_TARGET / 2], &mut BTreeSet::new());
    }
    server.receive(Request { subscribe: names, ..subscribe(&[]) }, &mut index).unwrap();
    let mut sizes = vec![];
    while let Some(response) = server.poll(&index, Instant::ZERO) {
        sizes.push(response.resources.len());
        assert!(server.acknowledged(index.generation()) < index.generation());
        server.receive(answer(response.nonce), &mut index).unwrap();
    }
    assert_eq!(sizes, vec![2, 2, 1]);
    assert!(server.is_settled());
}

/// A link that loses everything under way when it breaks.
#[derive(Default)]
struct Link {
    up: VecDeque<Request>,
    down: VecDeque<Response<Content>>,
}

/// Both ends, the link and what must be true.
struct World {
    rng: Rng,
    index: Index<Content>,
    server: Option<Server>,
    client: Client,
    link: Link,
    streams: u64,
    /// What the proxy would serve from.
    held: BTreeMap<Key, Content>,
    /// What exists.
    truth: BTreeMap<Key, Content>,
    /// What the proxy last refused.
    poisoned: BTreeSet<Key>,
    trace: Vec<std::string::String>,
}

/// Content beginning with this byte is refused by the proxy.
const POISON: u8 = 255;

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            index: Index::new(0),
            server: None,
            client: Client::new(),
            link: Link::default(),
            streams: 0,
            held: BTreeMap::new(),
            truth: BTreeMap::new(),
            poisoned: BTreeSet::new(),
            trace: vec![],
        }
    }

    fn key(&mut self) -> Key {
        let kind = Kind::ALL[self.rng.below(4) as usize];
        Key::new(kind, id(&format!("s{}", self.rng.below(6))))
    }

    fn content(&mut self) -> Content {
        let first = if self.rng.one_in(10) { POISON } else { self.rng.below(200) as u8 };
        vec![first, self.rng.below(4) as u8]
    }

    /// The version follows from the content, as in the shell.
    fn version(content: &Content) -> Version {
        Version(u128::from(content[0]) << 8 | u128::from(content[1]))
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=2 => {
                let (key, content) = (self.key(), self.content());
                self.trace.push(format!("apply {key:?} {content:?}"));
                self.index.apply(key.clone(), Self::version(&content), content.clone(), &mut BTreeSet::new());
                self.truth.insert(key, content);
            }
            3 => {
                let key = self.key();
                self.trace.push(format!("delete {key:?}"));
                self.index.delete(&key, &mut BTreeSet::new());
                self.truth.remove(&key);
            }
            4..=5 => {
                let key = self.key();
                self.trace.push(format!("want {key:?}"));
                self.client.want(key);
            }
            6 => {
                let key = self.key();
                self.trace.push(format!("unwant {key:?}"));
                self.client.unwant(&key);
                self.held.remove(&key);
                self.poisoned.remove(&key);
            }
            7 if self.rng.one_in(3) => self.reconnect(),
            8 if self.rng.one_in(5) => self.restart_control(),
            9..=11 => self.carry_up(),
            12..=14 => self.carry_down(),
            _ => self.pump(),
        }
    }

    fn reconnect(&mut self) {
        self.trace.push("reconnect".to_string());
        self.link = Link::default();
        self.index.leave(SubscriberId(self.streams));
        self.streams += 1;
        self.server = Some(Server::new(SubscriberId(self.streams)));
        self.client.disconnected();
        self.client.connected();
    }

    /// A new process, whose index is filled from what was stored.
    fn restart_control(&mut self) {
        self.trace.push("restart".to_string());
        self.index = Index::new(self.index.generation() + 1000);
        for kind in Kind::ALL {
            let all = self.truth.iter().filter(|(key, _)| key.kind == kind);
            let all: Vec<_> =
                all.map(|(key, content)| (key.id.clone(), Self::version(content), content.clone())).collect();
            self.index.reset(kind, all, &mut BTreeSet::new());
        }
        self.reconnect();
    }

    /// Both ends put on the link what they have to say.
    fn pump(&mut self) {
        while let Some(request) = self.client.poll() {
            self.link.up.push_back(request);
        }
        if let Some(server) = &mut self.server {
            server.look(&mut self.index);
            while let Some(response) = server.poll(&self.index, Instant::ZERO) {
                self.link.down.push_back(response);
            }
        }
    }

    fn carry_up(&mut self) {
        if let (Some(server), Some(request)) = (&mut self.server, self.link.up.pop_front()) {
            self.trace.push(format!("up {request:?}"));
            server.receive(request, &mut self.index).unwrap();
        }
    }

    fn carry_down(&mut self) {
        let Some(response) = self.link.down.pop_front() else { return };
        self.trace.push(format!("down {response:?}"));
        let (held, poisoned) = (&mut self.held, &mut self.poisoned);
        let changes = self.client.receive(response, |key, content| {
            if content[0] == POISON {
                poisoned.insert(key.clone());
                return Err("poison".to_string());
            }
            poisoned.remove(key);
            held.insert(key.clone(), content);
            Ok(())
        });
        for key in changes.removed {
            let had = self.held.remove(&key).is_some();
            self.poisoned.remove(&key);
            assert!(!had || !self.never_deleted(&key), "{key} was taken away and never deleted");
        }
    }

    /// True when the trace has no deletion of `key`.
    fn never_deleted(&self, key: &Key) -> bool {
        let deletion = format!("delete {key:?}");
        !self.trace.contains(&deletion)
    }

    /// Lets the link work until nothing moves.
    fn settle(&mut self) {
        if self.server.is_none() {
            self.reconnect();
        }
        for _ in 0..200 {
            self.pump();
            if self.link.up.is_empty() && self.link.down.is_empty() {
                return;
            }
            while !self.link.up.is_empty() {
                self.carry_up();
            }
            self.pump();
            while !self.link.down.is_empty() {
                self.carry_down();
            }
        }
        panic!("the two ends talk without end");
    }

    fn check(&self) {
        for key in self.client.wanted() {
            match self.truth.get(&key) {
                None => {
                    assert!(self.client.is_absent(&key), "{key} should be absent");
                    assert!(!self.held.contains_key(&key));
                }
                Some(content) if content[0] == POISON => assert!(self.poisoned.contains(&key)),
                Some(content) => {
                    assert_eq!(self.held.get(&key), Some(content), "{key}");
                    assert_eq!(self.client.version(&key), Some(Self::version(content)));
                }
            }
        }
        let wanted: BTreeSet<Key> = self.client.wanted().collect();
        assert!(self.held.keys().all(|key| wanted.contains(key)));
        let server = self.server.as_ref().unwrap();
        assert_eq!(server.subscriptions(), wanted.len());
        let known = |key: &Key| self.index.subscribers_of(key) == [SubscriberId(self.streams)];
        assert!(wanted.iter().all(known), "the index and the proxy agree on what is wanted");
        let unwanted = all_keys().filter(|key| !wanted.contains(key));
        assert!(unwanted.into_iter().all(|key| self.index.subscribers_of(&key).is_empty()));
        assert!(server.is_settled());
        assert_eq!(server.acknowledged(self.index.generation()), self.index.generation());
    }
}

/// Every key that the random walk uses.
fn all_keys() -> impl Iterator<Item = Key> {
    Kind::ALL.into_iter().flat_map(|kind| (0..6).map(move |n| Key::new(kind, id(&format!("s{n}")))))
}

#[test]
fn two_ends_over_a_link_that_breaks_always_converge() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..4 {
                for _ in 0..world.rng.below(120) {
                    world.step();
                }
                world.settle();
                world.check();
            }
        }));
        if let Err(panic) = run {
            std::eprintln!("seed {seed}:\n{}", world.trace.join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_restart_of_the_control_plane_sends_nothing_that_is_held() {
    let mut world = World::new(1);
    for n in 0..6 {
        let key = Key::new(Kind::Endpoints, id(&format!("s{n}")));
        world.client.want(key.clone());
        world.index.apply(key.clone(), World::version(&vec![n, 0]), vec![n, 0], &mut BTreeSet::new());
        world.truth.insert(key, vec![n, 0]);
    }
    world.settle();
    world.check();
    world.trace.clear();
    world.restart_control();
    world.settle();
    world.check();
    let offers = world.trace.iter().filter(|line| line.starts_with("down") && line.contains("Offer"));
    assert_eq!(offers.count(), 0, "{:?}", world.trace);
}
