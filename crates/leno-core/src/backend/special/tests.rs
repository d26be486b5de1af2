use alloc::vec::Vec;

use crate::backend::bench::service;
use crate::backend::{Backends, Choice, Chosen, Ledgers, Limit, NoEndpoint, Outcome, Permit};
use crate::name::ServiceId;
use crate::rng::Rng;
use crate::route::{Link, Then};
use crate::snapshot::{Entry, Snapshot};
use crate::spec::{Balance, Care, KnownService, Limits, World};
use crate::time::{Duration, Instant};
use crate::vip::Vips;

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

/// `main` with two endpoints, backed up by `spare` with one, which is backed up by `main`.
fn known(name: &str, weights: &[u32], backup: &str, limits: Limits) -> KnownService {
    let care = Care { backup: Some(id(backup)), limits, ..Care::default() };
    let mut service = service(weights, Balance::RoundRobin, care);
    service.spec.id = id(name);
    for endpoint in &mut service.endpoints {
        endpoint.name = alloc::format!("{name}-{}", endpoint.name).into();
    }
    service
}

struct Two {
    snapshot: Snapshot,
    backends: Backends,
    choice: Choice,
    now: Instant,
}

impl Two {
    fn new(change: impl FnOnce(&mut World)) -> Self {
        let mut world = World { generation: 1, ..World::default() };
        for service in
            [known("main", &[1, 1], "spare", Limits::NONE), known("spare", &[1], "main", Limits::NONE)]
        {
            world.services.insert(service.spec.id.clone(), service);
        }
        change(&mut world);
        let snapshot = Snapshot::build_with(&world, None, &mut Vips::new(), &mut Ledgers::default());
        let decision = snapshot.decide_connection(Entry::Dependency(&id("main")), b"", Link::UNKNOWN);
        let choice = match decision.then {
            Then::Split(split) => Choice::Split(split),
            then => panic!("{then:?}"),
        };
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        Self { snapshot, backends, choice, now: Instant::ZERO }
    }

    fn pick(&mut self, avoid: &[u64]) -> Result<Permit, NoEndpoint> {
        self.backends.pick(&self.snapshot, self.choice, avoid, self.now, &mut Rng::new(1))
    }
}

fn http(world: &mut World) {
    world.services.values_mut().for_each(|service| service.spec.protocol = crate::spec::Protocol::Auto);
}

fn name(permit: &Permit) -> &str {
    &permit.endpoint().spec.name
}

#[test]
fn a_backup_takes_over_when_nobody_is_there_or_healthy_or_reachable() {
    let mut two = Two::new(http);
    let first = two.pick(&[]).unwrap();
    assert_eq!((name(&first), first.chosen()), ("main-e0", Chosen::Balanced));
    drop(first);
    for gone in [true, false] {
        let mut two = Two::new(|world| {
            http(world);
            let main = world.services.get_mut(&id("main")).unwrap();
            if gone {
                main.endpoints.clear();
            } else {
                main.endpoints.iter_mut().for_each(|endpoint| endpoint.healthy = false);
            }
        });
        let permit = two.pick(&[]).unwrap();
        assert_eq!((name(&permit), permit.chosen()), ("spare-e0", Chosen::Backup));
        // A retry stays with the backup, which has nobody else.
        let tried = [permit.endpoint().key];
        let choice = Choice::Backend(permit.backend());
        let again = two.backends.pick(&two.snapshot, choice, &tried, two.now, &mut Rng::new(1));
        assert!(matches!(again, Err(NoEndpoint::AllTried | NoEndpoint::Unhealthy)), "{again:?}");
    }
    // Both cannot be reached: the backup is asked until one of them is back.
    for _ in 0..2 {
        two.pick(&[]).unwrap().report(Outcome::Unreachable, two.now);
    }
    let permit = two.pick(&[]).unwrap();
    assert_eq!((name(&permit), permit.chosen()), ("spare-e0", Chosen::Backup));
    two.now = two.now.after(Duration::from_secs(1));
    let permit = two.pick(&[]).unwrap();
    assert!(name(&permit).starts_with("main") && permit.chosen() == Chosen::Probation, "{permit:?}");
}

#[test]
fn when_the_backup_is_down_too_the_last_resort_is_ones_own() {
    let mut two = Two::new(|world| {
        http(world);
        world.services.get_mut(&id("spare")).unwrap().endpoints[0].healthy = false;
    });
    for _ in 0..2 {
        two.pick(&[]).unwrap().report(Outcome::Unreachable, two.now);
    }
    let permit = two.pick(&[]).unwrap();
    assert!(name(&permit).starts_with("main") && permit.chosen() == Chosen::LastResort, "{permit:?}");
    let keys: Vec<u64> = two.backends.keys().collect();
    assert_eq!(two.pick(&keys).unwrap_err(), NoEndpoint::AllTried);
}

#[test]
fn a_retry_that_has_tried_them_all_goes_to_the_backup_and_a_full_service_does_not() {
    let mut two = Two::new(http);
    let tried: Vec<u64> = (0..2).map(|_| two.pick(&[]).unwrap().endpoint().key).collect();
    assert_eq!(name(&two.pick(&tried).unwrap()), "spare-e0");
    let mut two = Two::new(|world| {
        let limits = Limits { requests: Some(1), ..Limits::NONE };
        let main = known("main", &[1, 1], "spare", limits);
        world.services.insert(id("main"), main);
        http(world);
    });
    let _held = two.pick(&[]).unwrap();
    let full = two.pick(&[]).unwrap_err();
    assert!(matches!(full, NoEndpoint::Limit { by: Limit::Requests, .. }), "{full:?}");
}
