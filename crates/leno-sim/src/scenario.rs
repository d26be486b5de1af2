//! What a seed makes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::name::{Label, ServiceId};
use leno_core::rng::Rng;
use leno_core::spec::{
    ActionSpec, Affinity, Balance, Care, EndpointSpec, KeySpec, KnownService, Limits, MatchSpec, PathMatch,
    Protocol, RuleSpec, ServiceSpec, SlowStart, TargetSpec, Transport, World,
};
use leno_core::time::{Duration, Instant};

/// How an instance and the way to it behave from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It answers after this long.
    Fine(Duration),
    /// Nobody listens. Whoever was connected is cut off.
    Dead,
    /// Packets vanish: a connection attempt is never answered.
    Unreachable,
    /// It accepts requests and never answers.
    Silent,
    /// Its sidecar has lost the application: "connect failed, it saw nothing".
    AppDown,
    /// Its sidecar has too much to do: "overload, it saw nothing".
    Overloaded,
    /// It works on the request and then closes without an answer.
    Closes,
    /// It begins an answer and then closes.
    Stammers,
    /// Certificates do not match.
    Stranger,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct Host {
    /// The moods it goes through: from when on, which.
    pub life: Vec<(Instant, Mood)>,
}

impl Host {
    /// Its mood at `at`, and how many moods it had before.
    pub fn mood(&self, at: Instant) -> (usize, Mood) {
        let turns = self.life.iter().take_while(|(from, _)| *from <= at).count();
        let last = turns.checked_sub(1).and_then(|last| self.life.get(last));
        (turns, last.map_or(Mood::Dead, |(_, mood)| *mood))
    }
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    /// When its head has arrived.
    pub at: Instant,
    /// The service asked for, by name; the last one does not exist.
    pub service: String,
    /// Its path.
    pub path: &'static str,
    /// GET, else POST.
    pub idempotent: bool,
    /// When the sidecar begins to take its body, counted from when the head is sent on; `None`: it has none.
    pub body: Option<Duration>,
    /// The caller's own deadline.
    pub deadline: Option<Instant>,
    /// When the client goes away.
    pub leaves: Option<Instant>,
}

/// A change of configuration.
#[derive(Clone, Debug)]
pub struct Swap {
    /// When it reaches the proxy.
    pub at: Instant,
    /// The world from then on.
    pub world: World,
}

/// Everything that happens in one run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// It follows from this number.
    pub seed: u64,
    /// The world at the beginning.
    pub world: World,
    /// Every address that ever belongs to an instance.
    pub hosts: BTreeMap<SocketAddr, Host>,
    /// In the order of their arrival.
    pub requests: Vec<RequestPlan>,
    /// In the order of their time.
    pub swaps: Vec<Swap>,
    /// From here on nothing fails any more.
    pub calm: Instant,
    /// No request waits longer than this in a mood that never ends by itself.
    pub faults: bool,
}

/// When faults, requests and swaps end.
const LENGTH: Duration = Duration::from_secs(5);

impl Scenario {
    /// The scenario of `seed`. One in eight has no faults and no swaps, and shares are exact in it.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let faults = !rng.one_in(8);
        let mut make = Make { rng, hosts: BTreeMap::new(), faults };
        let mut world = World { generation: 1, ..World::default() };
        for service in 0..1 + make.rng.below(3) {
            let service = make.service(&format!("s{service}"));
            world.services.insert(service.spec.id.clone(), service);
        }
        let requests = make.requests(world.services.len() as u64);
        let swaps = if faults { make.swaps(&world) } else { Vec::new() };
        let calm = Instant::ZERO.after(LENGTH);
        Self { seed, world, hosts: make.hosts, requests, swaps, calm, faults }
    }
}

/// Every way to choose.
const POLICIES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastRequest,
    Balance::PeakEwma,
    Balance::RingHash,
    Balance::Maglev,
];

struct Make {
    rng: Rng,
    hosts: BTreeMap<SocketAddr, Host>,
    faults: bool,
}

impl Make {
    fn service(&mut self, name: &str) -> KnownService {
        let id = ServiceId::parse(name).expect("s0 to s2 are names");
        let mut balance = POLICIES[self.rng.below(POLICIES.len() as u64) as usize];
        // Its table takes a while to make.
        if balance == Balance::Maglev && !self.rng.one_in(64) {
            balance = Balance::RingHash;
        }
        let timeout = self.rng.one_in(2).then(|| Duration::from_millis(50 + self.rng.below(3000)));
        let endpoints = (0..1 + self.rng.below(5)).map(|at| self.endpoint(name, at)).collect();
        let rules = if self.rng.one_in(2) { self.rules(&id) } else { Vec::new() };
        let care = self.care(balance);
        let spec = ServiceSpec {
            id,
            protocol: Protocol::Http1,
            balance,
            care,
            rules,
            calls: Vec::new(),
            health: None,
            timeout,
            tries: None,
            send_proxy: None,
            headless: false,
            srv_port: 80,
            external: None,
        };
        KnownService { spec, endpoints }
    }

    /// In a third of the services, limits that a few requests at a time reach; keys where they are needed.
    fn care(&mut self, balance: Balance) -> Option<Arc<Care>> {
        let rng = &mut self.rng;
        let hashes = matches!(balance, Balance::RingHash | Balance::Maglev);
        let affinity = hashes.then(|| {
            let bound_percent = rng.one_in(2).then(|| 100 + rng.below(100) as u32);
            Arc::new(Affinity { keys: vec![KeySpec::Source], bound_percent })
        });
        let from_percent = rng.below(50) as u32;
        let slow_start =
            rng.one_in(5).then_some(SlowStart { duration: Duration::from_secs(1), from_percent });
        let mut limits = Limits::NONE;
        if rng.one_in(3) {
            let mut some = |below: u64| rng.one_in(2).then(|| 1 + rng.below(below) as u32);
            limits = Limits {
                requests: some(4),
                endpoint_requests: some(2),
                connections: None,
                pending: some(3).map(|most| most - 1),
                pending_timeout: some(100).map(|millis| Duration::from_millis(millis.into())),
                retries: some(2),
            };
        }
        let care = Care { limits, affinity, slow_start, ..Care::default() };
        (care != Care::default()).then(|| Arc::new(care))
    }

    /// `/v2` goes to version 2, the rest is split by weight.
    fn rules(&mut self, id: &ServiceId) -> Vec<RuleSpec> {
        let target = |version: &str, weight: u32| TargetSpec {
            service: id.clone(),
            version: Label::parse(version).ok(),
            labels: leno_core::spec::Labels::NONE,
            weight,
        };
        let prefix = PathMatch::Prefix(Arc::from("/v2"));
        let when = MatchSpec { path: Some(prefix), ..MatchSpec::default() };
        let then = ActionSpec::Split(vec![target("v2", 1)]);
        let second = RuleSpec { name: "second".into(), when, then, timeout: None, tries: None, change: None };
        let shares = vec![target("v1", 1 + self.rng.below(9) as u32), target("v2", self.rng.below(3) as u32)];
        let split = RuleSpec {
            name: "split".into(),
            when: MatchSpec::default(),
            then: ActionSpec::Split(shares),
            timeout: self.rng.one_in(3).then(|| Duration::from_millis(100 + self.rng.below(900))),
            change: None,
            tries: None,
        };
        vec![second, split]
    }

    fn endpoint(&mut self, service: &str, at: u64) -> EndpointSpec {
        let address = self.address();
        EndpointSpec {
            name: format!("{service}-{at}").into(),
            address,
            transport: Transport::Plain,
            version: Label::parse(if at.is_multiple_of(2) { "v1" } else { "v2" }).ok(),
            weight: if self.rng.one_in(4) { 1 + self.rng.below(4) as u32 } else { 1 },
            healthy: true,
            tags: leno_core::spec::Tags::NONE,
        }
    }

    /// A new address with a host of its own.
    fn address(&mut self) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], 1000 + self.hosts.len() as u16));
        let mut life = vec![(Instant::ZERO, self.fine())];
        let mut at = Instant::ZERO;
        while self.faults && self.rng.below(3) > 0 {
            at = at.after(Duration::from_millis(self.rng.below(2000)));
            let mood = self.mood();
            life.push((at, mood));
        }
        // Whatever happened, in the end it is well.
        life.push((Instant::ZERO.after(LENGTH).max(at), Mood::Fine(Duration::from_millis(1))));
        self.hosts.insert(address, Host { life });
        address
    }

    fn fine(&mut self) -> Mood {
        Mood::Fine(Duration::from_micros(100 + self.rng.below(20_000)))
    }

    fn mood(&mut self) -> Mood {
        match self.rng.below(10) {
            0 | 1 => self.fine(),
            2 => Mood::Dead,
            3 => Mood::Unreachable,
            4 => Mood::Silent,
            5 => Mood::AppDown,
            6 => Mood::Overloaded,
            7 => Mood::Closes,
            8 => Mood::Stammers,
            _ => Mood::Stranger,
        }
    }

    fn requests(&mut self, services: u64) -> Vec<RequestPlan> {
        let count = 5 + self.rng.below(25);
        let mut requests: Vec<_> = (0..count).map(|_| self.request(services)).collect();
        requests.sort_by_key(|request| request.at);
        requests
    }

    fn request(&mut self, services: u64) -> RequestPlan {
        let rng = &mut self.rng;
        let at = Instant::ZERO.after(Duration::from_micros(rng.below(4_000_000)));
        let service = if rng.one_in(40) { services } else { rng.below(services) };
        RequestPlan {
            at,
            service: format!("s{service}"),
            path: ["/", "/v2/x", "/other"][rng.below(3) as usize],
            idempotent: rng.below(3) > 0,
            body: rng.one_in(3).then(|| Duration::from_micros(rng.below(10_000))),
            deadline: rng.one_in(4).then(|| at.after(Duration::from_millis(rng.below(2000)))),
            leaves: (self.faults && rng.one_in(10)).then(|| at.after(Duration::from_millis(rng.below(1000)))),
        }
    }

    fn swaps(&mut self, first: &World) -> Vec<Swap> {
        let mut times: Vec<u64> = (0..self.rng.below(5)).map(|_| self.rng.below(4_000_000)).collect();
        times.sort_unstable();
        let mut world = first.clone();
        let mut swaps = Vec::new();
        for at in times {
            world.generation += 1;
            self.change(&mut world);
            swaps.push(Swap { at: Instant::ZERO.after(Duration::from_micros(at)), world: world.clone() });
        }
        swaps
    }

    /// One change that an operator or the registry could make.
    fn change(&mut self, world: &mut World) {
        let which = self.rng.below(world.services.len() as u64) as usize;
        let Some(id) = world.services.keys().nth(which).cloned() else { return };
        let kind = self.rng.below(8);
        if kind == 0 && self.rng.one_in(3) {
            world.services.remove(&id);
            world.absent.insert(id);
            return;
        }
        let Some(service) = world.services.get_mut(&id) else { return };
        let endpoint = self.rng.below(service.endpoints.len() as u64) as usize;
        match kind {
            1 | 2 if service.endpoints.len() < 8 => {
                // A name that was never there, so that addresses and names tell the same story.
                let next = 10 + world.generation;
                let new = self.endpoint(id.name.as_str(), next);
                service.endpoints.push(new);
                service.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
            }
            3 => {
                if endpoint < service.endpoints.len() {
                    service.endpoints.remove(endpoint);
                }
            }
            4 => {
                let address = self.address();
                if let Some(endpoint) = service.endpoints.get_mut(endpoint) {
                    endpoint.address = address;
                }
            }
            5 => {
                if let Some(endpoint) = service.endpoints.get_mut(endpoint) {
                    endpoint.healthy = !endpoint.healthy;
                }
            }
            6 => {
                let weight = self.rng.below(4) as u32;
                if let Some(endpoint) = service.endpoints.get_mut(endpoint) {
                    endpoint.weight = weight;
                }
            }
            _ => service.spec.rules = if self.rng.one_in(2) { self.rules(&id) } else { Vec::new() },
        }
    }
}
