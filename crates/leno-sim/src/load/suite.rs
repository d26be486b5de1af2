//! The scenarios, and who is put through them.

use leno_core::admission::Class;
use leno_core::rng::Rng;
use leno_core::spec::{Balance, Care, HedgeSpec};
use leno_core::time::{Duration, Instant};

use super::host::{Admission, HostPlan, Mood};
use super::leno::Leno;
use super::peers::{Envoy, Linkerd};
use super::{Caller, Figures, Places, Plan, run};

/// What is put through a scenario.
#[derive(Clone, Debug)]
pub enum Who {
    /// Leno, balancing and looking after endpoints like this.
    Leno(Balance, Option<Box<Care>>),
    /// Leno by its defaults, with second attempts beside slow ones.
    Hedging(HedgeSpec),
    /// The model of Envoy.
    Envoy,
    /// The model of Linkerd.
    Linkerd,
}

/// A scenario by name.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called in docs/resilience.md.
    pub name: &'static str,
    /// What happens.
    pub plan: Plan,
}

/// Instances of the service.
pub const HOSTS: usize = 10;
/// Callers, each with a balancer of its own.
pub(super) const CALLERS: usize = 4;
/// Requests that an instance works on at a time, and how long each takes it on average.
const SERVERS: usize = 4;
const MEAN: Duration = Duration::from_millis(10);
/// Requests per second that all instances together can do.
pub const CAPACITY: u64 = (HOSTS * SERVERS) as u64 * 100;

/// The second `at` of a run.
pub(super) const fn second(at: u64) -> Instant {
    Instant::from_nanos(at * 1_000_000_000)
}

/// Half of the capacity, for `seconds`.
pub(super) fn calm(seconds: u64) -> Plan {
    let host =
        HostPlan { servers: SERVERS, mean: MEAN, moods: Vec::new(), tenth: None, admission: Admission::All };
    Plan {
        hosts: vec![host; HOSTS],
        callers: CALLERS,
        rates: vec![(Instant::ZERO, CAPACITY / 2)],
        bursts: Vec::new(),
        told: Vec::new(),
        length: Duration::from_secs(seconds),
        measured_from: second(1),
        timeout: Duration::from_secs(2),
        zones: Places::default(),
        classes: Vec::new(),
    }
}

/// All scenarios, each `seconds` long; at least 5.
pub fn all(seconds: u64) -> Vec<Scenario> {
    let scenario = |name, plan| Scenario { name, plan };
    let last = |moods: Vec<(Instant, Mood)>| {
        let mut plan = calm(seconds);
        plan.hosts[HOSTS - 1].moods = moods;
        plan
    };
    let everybody: Vec<usize> = (0..HOSTS).collect();
    let without = |gone: usize| everybody.iter().copied().filter(|host| *host != gone).collect::<Vec<_>>();
    let halves = |even: Mood, odd: Mood| -> Vec<(Instant, Mood)> {
        (1..2 * seconds)
            .map(|at| (Instant::from_nanos(at * 500_000_000), if at % 2 == 1 { even } else { odd }))
            .collect()
    };
    let mut overload = calm(seconds);
    overload.rates = vec![(Instant::ZERO, CAPACITY / 2), (second(1), 2 * CAPACITY)];
    let mut cold = calm(seconds);
    // Two more instances come when the others have something to do, and need a while to get warm.
    cold.rates = vec![(Instant::ZERO, CAPACITY * 6 / 10)];
    cold.told = vec![(Instant::ZERO, (0..HOSTS - 2).collect()), (second(1), everybody.clone())];
    for host in &mut cold.hosts[HOSTS - 2..] {
        host.moods = vec![(Instant::ZERO, Mood::Cold(10, 300))];
    }
    // Every instance in turn stops, is forgotten by the registry half a second later, and comes back as a new process
    // another half a second later, of which the registry tells when it is healthy.
    let mut rolling = calm(seconds.max(HOSTS as u64 / 2 + 2));
    rolling.told = vec![(Instant::ZERO, everybody.clone())];
    for (host, plan) in rolling.hosts.iter_mut().enumerate() {
        let stops = 1_000_000_000 + host as u64 * 400_000_000;
        let at = |after: u64| Instant::from_nanos(stops + after * 1_000_000);
        plan.moods = vec![(at(0), Mood::Stopping), (at(250), Mood::Fine)];
        rolling.told.push((at(100), without(host)));
        rolling.told.push((at(300), everybody.clone()));
    }
    let mut herd = calm(seconds);
    herd.bursts = (2..seconds).map(|at| (second(at), CAPACITY as usize / 20)).collect();
    let mut broken = calm(seconds);
    broken.hosts.iter_mut().for_each(|host| host.moods = vec![(second(1), Mood::Errors(30))]);
    vec![
        scenario("calm", calm(seconds)),
        scenario("one slow host (10 x)", last(vec![(second(1), Mood::Slow(10))])),
        scenario("gray failure (30 % errors)", last(vec![(second(1), Mood::Errors(30))])),
        scenario("host that fails all", last(vec![(second(1), Mood::Errors(100))])),
        scenario("host killed", last(vec![(second(1), Mood::Dead)])),
        scenario("host unreachable", last(vec![(second(1), Mood::Silent)])),
        scenario("flapping", last(halves(Mood::Dead, Mood::Fine))),
        scenario("rolling restart", rolling),
        scenario("cold start", cold),
        scenario("overload (2 x)", overload),
        scenario("thundering herd", herd),
        scenario("all fail alike (30 %)", broken),
    ]
}

/// So many times the capacity, from the first second on.
pub fn overload(times: u64, seconds: u64) -> Plan {
    let mut plan = calm(seconds);
    plan.rates = vec![(Instant::ZERO, CAPACITY / 2), (second(1), times * CAPACITY)];
    plan
}

/// Half of the capacity, then three times as much for some seconds, then half again.
pub fn step(seconds: u64) -> Plan {
    let mut plan = calm(seconds);
    plan.rates =
        vec![(Instant::ZERO, CAPACITY / 2), (second(2), 3 * CAPACITY), (second(seconds / 2), CAPACITY / 2)];
    plan
}

/// Twice the capacity; in the middle everything begins to take `times` as long.
pub fn slower(times: u32, seconds: u64) -> Plan {
    let mut plan = overload(2, seconds);
    let moods = vec![(second(seconds / 2), Mood::Slow(times))];
    plan.hosts.iter_mut().for_each(|host| host.moods.clone_from(&moods));
    plan
}

/// A fifth of the capacity is critical, and there is nearly twice the capacity of what can wait.
pub fn classes(seconds: u64) -> Plan {
    let mut plan = overload(2, seconds);
    plan.classes = vec![(Class::Critical, 10), (Class::Low, 90)];
    plan
}

/// One instance that works on `servers` requests at a time, `mean` each, and gets `rate` a second. Where `tenth` says so, one
/// request of ten takes so many times as long.
pub fn single(servers: usize, mean: Duration, rate: u64, tenth: Option<u32>, seconds: u64) -> Plan {
    let mut plan = calm(seconds);
    plan.hosts = vec![HostPlan { servers, mean, moods: Vec::new(), tenth, admission: Admission::All }];
    plan.rates = vec![(Instant::ZERO, rate)];
    plan
}

/// A service in which nothing is wrong with any instance, whatever its callers see: the same share of the requests fails
/// everywhere, and instances are of one speed. What they are is drawn by the seed.
pub fn innocent(seed: u64) -> Plan {
    let mut rng = Rng::new(seed);
    let mut plan = calm(20);
    let hosts = 2 + rng.below(12) as usize;
    let errors = [0, 0, 1, 2, 5, 10, 30, 60, 95, 100][rng.below(10) as usize];
    let mean = Duration::from_micros(500 + rng.below(20_000));
    let host = HostPlan {
        servers: SERVERS,
        mean,
        moods: vec![(Instant::ZERO, Mood::Errors(errors))],
        tenth: None,
        admission: Admission::All,
    };
    plan.hosts = vec![host; hosts];
    let most = (hosts * SERVERS) as u64 * 1_000_000 / mean.as_micros() as u64;
    // From a trickle to nearly all that they can do, but few enough requests for a debug build.
    plan.rates = vec![(Instant::ZERO, (1 + rng.below(most * 9 / 10)).min(200))];
    plan.callers = 1 + rng.below(4) as usize;
    plan
}

/// Puts `who` through `plan`, once for each seed.
pub fn figures(plan: &Plan, who: &Who, seeds: core::ops::Range<u64>) -> Figures {
    let mut sum = Figures::default();
    for seed in seeds {
        sum.add(&run(plan, seed, |caller| -> Box<dyn Caller> {
            match who {
                Who::Leno(balance, care) => Box::new(Leno::new(*balance, care.as_deref().cloned())),
                Who::Hedging(hedge) => Box::new(Leno::hedging(*hedge)),
                Who::Envoy => Box::new(Envoy::new(caller)),
                Who::Linkerd => Box::<Linkerd>::default(),
            }
        }));
    }
    sum
}
