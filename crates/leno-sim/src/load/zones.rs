//! A service in three zones, with callers in each: zones that are gone, slow, or too small for their callers.

use leno_core::spec::{Balance, Care, Locality, Prefer};
use leno_core::time::{Duration, Instant};
use std::sync::Arc;

use super::host::{Admission, HostPlan, Mood};
use super::leno::Leno;
use super::peers::{Envoy, Linkerd, ZoneAware};
use super::suite::Scenario;
use super::{Caller, Figures, Places, Plan, run};

/// Instances of the service.
pub const HOSTS: usize = 12;
/// Requests that an instance works on at a time, and how long each takes it on average.
const SERVERS: usize = 4;
const MEAN: Duration = Duration::from_millis(10);
/// Requests per second that all instances together can do.
pub const CAPACITY: u64 = HOSTS as u64 * SERVERS as u64 * 1_000 / MEAN.as_millis() as u64;
/// Callers in each zone.
const CALLERS: usize = 3;

/// Who is put through a scenario.
#[derive(Clone, Debug)]
pub enum Who {
    /// Leno, told this about places.
    Leno(Balance, Locality),
    /// The model of Envoy, which knows nothing of zones unless told.
    Envoy,
    /// The model of Envoy with zone-aware routing.
    ZoneAware,
    /// The model of Linkerd, which knows nothing of zones.
    Linkerd,
}

impl Who {
    /// Leno as it is when nothing is said but where things are.
    pub fn leno() -> Self {
        Self::Leno(Balance::default(), Locality::new())
    }

    /// Leno without preferences.
    pub fn anywhere() -> Self {
        Self::Leno(Balance::default(), Locality { prefer: Prefer::Anybody, ..Locality::new() })
    }

    /// Leno that stays in the zone however slow it is.
    pub fn strict() -> Self {
        Self::Leno(Balance::default(), Locality { overflow_percent: None, ..Locality::new() })
    }
}

const fn second(at: u64) -> Instant {
    Instant::from_nanos(at * 1_000_000_000)
}

/// Half of what all can do, from callers in equal numbers; so many instances in each zone.
fn plan(seconds: u64, hosts: [usize; 3]) -> Plan {
    let host =
        HostPlan { servers: SERVERS, mean: MEAN, moods: Vec::new(), tenth: None, admission: Admission::All };
    let each = |counts: [usize; 3]| -> Vec<usize> {
        (0..3).flat_map(|zone| std::iter::repeat_n(zone, counts[zone])).collect()
    };
    Plan {
        hosts: vec![host; hosts.iter().sum()],
        callers: 3 * CALLERS,
        rates: vec![(Instant::ZERO, CAPACITY / 2)],
        bursts: Vec::new(),
        told: Vec::new(),
        length: Duration::from_secs(seconds),
        measured_from: second(1),
        timeout: Duration::from_secs(2),
        classes: Vec::new(),
        zones: Places { hosts: each(hosts), callers: each([CALLERS; 3]) },
    }
}

/// All scenarios, each `seconds` long; at least 5. What happens, happens to the last zone, from the second second on, so that quiet
/// times are known.
pub fn all(seconds: u64) -> Vec<Scenario> {
    let even = [HOSTS / 3; 3];
    let scenario = |name, plan| Scenario { name, plan };
    let last = |count: usize, mood: Mood| {
        let mut plan = plan(seconds, even);
        plan.measured_from = second(2);
        let from = HOSTS - count;
        plan.hosts[from..].iter_mut().for_each(|host| host.moods = vec![(second(2), mood)]);
        plan
    };
    vec![
        scenario("calm, three zones", plan(seconds, even)),
        scenario("zone lost", last(4, Mood::Dead)),
        scenario("zone unreachable", last(4, Mood::Silent)),
        scenario("half of a zone lost", last(2, Mood::Dead)),
        scenario("zone slow (3 x)", last(4, Mood::Slow(3))),
        scenario("zone slow (10 x)", last(4, Mood::Slow(10))),
        scenario("zone with errors (30 %)", last(4, Mood::Errors(30))),
        scenario("zone too small (2 of 12)", plan(seconds, [5, 5, 2])),
        scenario("zone far too small (1 of 12)", plan(seconds, [6, 5, 1])),
    ]
}

/// Puts `who` through `plan`, once for each seed.
pub fn figures(plan: &Plan, who: &Who, seeds: core::ops::Range<u64>) -> Figures {
    let mut sum = Figures::default();
    let Places { hosts, callers } = &plan.zones;
    for seed in seeds {
        let mut places = callers.iter();
        sum.add(&run(plan, seed, |caller| -> Box<dyn Caller> {
            let own = places.next().copied().unwrap_or(0);
            match who {
                Who::Leno(balance, locality) => {
                    let care = Care { locality: Some(Arc::new(locality.clone())), ..Care::default() };
                    Box::new(Leno::new(*balance, Some(care)).in_zone(own, hosts))
                }
                Who::Envoy => Box::new(Envoy::new(caller)),
                Who::ZoneAware => Box::new(ZoneAware::new(caller, own, hosts, callers)),
                Who::Linkerd => Box::<Linkerd>::default(),
            }
        }));
    }
    sum
}
