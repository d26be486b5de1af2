//! A backend for tests: picks, outcomes and the time.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Backends, Choice, Endpoint, Ledgers, NoEndpoint, Outcome, Permit, What};
use crate::name::ServiceId;
use crate::rng::Rng;
use crate::route::SplitId;
use crate::snapshot::Snapshot;
use crate::spec::{Balance, Care, EndpointSpec, KnownService, Protocol, ServiceSpec, Transport, World};
use crate::time::{Duration, Instant};
use crate::vip::Vips;

/// A backend of endpoints `e0`, `e1`, … and the time.
pub(super) struct Bench {
    pub(super) snapshot: Snapshot,
    pub(super) backends: Backends,
    pub(super) ledgers: Ledgers,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) events: Vec<(Arc<str>, What)>,
}

pub(super) fn service(weights: &[u32], balance: Balance, care: Care) -> KnownService {
    let endpoints = weights.iter().enumerate().map(|(at, weight)| EndpointSpec {
        name: alloc::format!("e{at}").into(),
        address: ([127, 0, 0, 1], 1000 + at as u16).into(),
        transport: Transport::Plain,
        version: None,
        weight: *weight,
        healthy: true,
        tags: crate::spec::Tags::NONE,
    });
    let spec = ServiceSpec {
        id: ServiceId::parse("shop").unwrap(),
        protocol: Protocol::Http1,
        balance,
        care: Some(Arc::new(care)),
        rules: Vec::new(),
        calls: Vec::new(),
        health: None,
        timeout: None,
        tries: None,
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    KnownService { spec, endpoints: endpoints.collect() }
}

impl Bench {
    pub(super) fn new(weights: &[u32], balance: Balance, care: Care) -> Self {
        let mut bench = Self {
            snapshot: Snapshot::default(),
            backends: Backends::default(),
            ledgers: Ledgers::default(),
            rng: Rng::new(5),
            now: Instant::ZERO,
            events: Vec::new(),
        };
        bench.change(service(weights, balance, care));
        bench
    }

    /// The service is another one now.
    pub(super) fn change(&mut self, service: KnownService) {
        let mut world = World { generation: self.snapshot.generation + 1, ..World::default() };
        world.services.insert(service.spec.id.clone(), service);
        self.snapshot = Snapshot::build_with(&world, None, &mut Vips::new(), &mut self.ledgers);
        self.backends.adopt(&self.snapshot);
    }

    pub(super) fn try_pick(&mut self, avoid: &[u64]) -> Result<Permit, NoEndpoint> {
        let choice = Choice::Split(SplitId(0));
        let picked = self.backends.pick(&self.snapshot, choice, avoid, self.now, &mut self.rng);
        self.events.extend(self.backends.events().map(|event| (event.endpoint, event.what)));
        picked
    }

    pub(super) fn pick(&mut self) -> Permit {
        self.try_pick(&[]).unwrap()
    }

    /// `times` requests, 10 ms apart, each with the outcome that `outcome` says for the endpoint's number.
    pub(super) fn run(&mut self, times: usize, mut outcome: impl FnMut(usize) -> Outcome) -> Vec<usize> {
        let mut served = Vec::new();
        for _ in 0..times {
            self.now = self.now.after(Duration::from_millis(10));
            let permit = self.pick();
            let number = number(&permit);
            permit.report(outcome(number), self.now);
            served.push(number);
        }
        served
    }

    pub(super) fn endpoint(&self, number: usize) -> Rc<Endpoint> {
        let name = alloc::format!("e{number}");
        let mut all = self.backends.iter().flat_map(|backend| backend.endpoints());
        all.find(|endpoint| *endpoint.spec.name == name).unwrap().clone()
    }

    pub(super) fn ejected(&self) -> Vec<&str> {
        let ejected = self.events.iter().filter(|(_, what)| matches!(what, What::Ejected { .. }));
        ejected.map(|(name, _)| &**name).collect()
    }
}

/// The number of the endpoint that a permit is for.
pub(super) fn number(permit: &Permit) -> usize {
    permit.endpoint().spec.name[1..].parse().unwrap()
}
