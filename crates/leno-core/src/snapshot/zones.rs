//! Which endpoints of a service are preferred, as far as it is known where they and this proxy are. Decided once for all
//! requests, when the snapshot is built.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::spec::{Care, EndpointSpec, Locality, Near, Prefer, Zone};

/// The endpoints of one backend in levels: the first takes what it can, then the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePlan {
    /// Of each endpoint, in the order of the backend's: its level, and how near it is.
    pub of: Vec<(u8, Near)>,
    /// At least one, none without an endpoint that has a weight.
    pub levels: Vec<Level>,
    /// Requests are divided by [`Level::share`], whoever is near.
    pub divided: bool,
    /// [`Locality::overprovision_percent`].
    pub overprovision_percent: u32,
    /// [`Locality::overflow_percent`].
    pub overflow_percent: Option<u32>,
}

/// Endpoints that are preferred alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The weights of its endpoints together, of whatever health.
    pub weight: u64,
    /// Its share, where requests are divided.
    pub share: u32,
}

/// How endpoints are looked after where nothing is said of their places.
static DEFAULT: Locality = Locality::new();

impl ZonePlan {
    /// The plan of a proxy in `own`; `None` when it is not known where it is, or where any endpoint is.
    pub(super) fn new(
        own: Option<&Zone>,
        care: Option<&Care>,
        endpoints: &[Arc<EndpointSpec>],
    ) -> Option<Self> {
        let own = own.filter(|_| endpoints.iter().any(|endpoint| endpoint.tags.zone.is_some()))?;
        let locality: &Locality = care.and_then(|care| care.locality.as_deref()).unwrap_or(&DEFAULT);
        let divided = locality.distribute.iter().find(|it| it.from.covers(own)).map(|it| &*it.to);
        let rank = |zone: Option<&Zone>, near: Near| match divided {
            Some(to) => {
                to.iter().position(|(place, _)| zone.is_some_and(|it| place.covers(it))).unwrap_or(to.len())
            }
            None => rank(locality, zone, near),
        };
        let mut of: Vec<(usize, Near)> = Vec::with_capacity(endpoints.len());
        // By rank: the weights together, and how many endpoints.
        let mut ranks: Vec<(u64, u32)> = Vec::new();
        for endpoint in endpoints {
            let zone = endpoint.tags.zone.as_ref();
            let near = zone.map_or(Near::Elsewhere, |zone| own.near(zone));
            let rank = rank(zone, near);
            if ranks.len() <= rank {
                ranks.resize(rank + 1, (0, 0));
            }
            if let Some((weight, count)) = ranks.get_mut(rank) {
                *weight += u64::from(endpoint.weight);
                *count += u32::from(endpoint.weight > 0);
            }
            of.push((rank, near));
        }
        // Ranks with nobody are no levels; those with too few go in with the next ones.
        let min = if divided.is_some() { 1 } else { locality.endpoints_min };
        let (mut levels, mut level_of) = (Vec::new(), Vec::with_capacity(ranks.len()));
        let (mut open, mut count_in_open) = (Level::default(), 0);
        for (rank, (weight, count)) in ranks.iter().enumerate() {
            level_of.push(u8::try_from(levels.len()).unwrap_or(u8::MAX));
            open.weight += weight;
            open.share = divided.and_then(|to| to.get(rank)).map_or(0, |(_, share)| *share);
            count_in_open += count;
            if count_in_open > 0 && (count_in_open >= min || rank + 1 == ranks.len()) {
                levels.push(core::mem::take(&mut open));
                count_in_open = 0;
            }
        }
        let last = levels.len().checked_sub(1)?;
        let level = |rank: usize| level_of.get(rank).map_or(0, |level| usize::from(*level).min(last) as u8);
        Some(Self {
            of: of.into_iter().map(|(rank, near)| (level(rank), near)).collect(),
            levels,
            divided: divided.is_some(),
            overprovision_percent: locality.overprovision_percent.max(100),
            overflow_percent: locality.overflow_percent.map(|percent| percent.max(100)),
        })
    }
}

/// Where an endpoint stands in the order of preference.
fn rank(locality: &Locality, zone: Option<&Zone>, near: Near) -> usize {
    let nearest = match locality.prefer {
        Prefer::Anybody => None,
        Prefer::Region => Some(Near::Region),
        Prefer::Zone => Some(Near::Zone),
        Prefer::Subzone => Some(Near::Subzone),
    };
    let Some(nearest) = nearest else { return 0 };
    if near <= nearest {
        return 0;
    }
    if locality.failover.is_empty() {
        return near as usize - nearest as usize;
    }
    let order = &locality.failover;
    1 + order.iter().position(|place| zone.is_some_and(|it| place.covers(it))).unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::spec::{Distribution, Tags, Transport};

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap()
    }

    fn endpoints(zones: &[&str]) -> Vec<Arc<EndpointSpec>> {
        let endpoint = |(at, text): (usize, &&str)| {
            Arc::new(EndpointSpec {
                name: alloc::format!("e{at}").into(),
                address: ([127, 0, 0, 1], 1).into(),
                transport: Transport::Plain,
                version: None,
                weight: 1,
                healthy: true,
                tags: Tags { zone: Zone::parse(text).ok(), ..Tags::NONE },
            })
        };
        zones.iter().enumerate().map(endpoint).collect()
    }

    fn levels(own: &str, locality: Locality, zones: &[&str]) -> Vec<u8> {
        let care = Care { locality: Some(Arc::new(locality)), ..Care::new() };
        let plan = ZonePlan::new(Some(&zone(own)), Some(&care), &endpoints(zones)).unwrap();
        for (at, level) in plan.levels.iter().enumerate() {
            let there = plan.of.iter().filter(|(level, _)| usize::from(*level) == at).count();
            assert_eq!(level.weight, there as u64);
            assert!(there > 0);
        }
        plan.of.iter().map(|(level, _)| *level).collect()
    }

    #[test]
    fn without_zones_there_is_no_plan() {
        assert_eq!(ZonePlan::new(Some(&zone("eu/a")), None, &endpoints(&["", ""])), None);
        assert_eq!(ZonePlan::new(None, None, &endpoints(&["eu/a"])), None);
        assert_eq!(
            ZonePlan::new(Some(&zone("eu/a")), None, &endpoints(&["eu/a", ""])).unwrap().levels.len(),
            2
        );
    }

    #[test]
    fn nearness_is_the_order_as_far_as_it_is_asked_for() {
        let zones = ["us/a", "eu/a/1", "eu/a/2", "eu/b", ""];
        let prefer = |prefer| levels("eu/a/1", Locality { prefer, ..Locality::new() }, &zones);
        assert_eq!(prefer(Prefer::Zone), [2, 0, 0, 1, 2]);
        assert_eq!(prefer(Prefer::Subzone), [3, 0, 1, 2, 3]);
        assert_eq!(prefer(Prefer::Region), [1, 0, 0, 0, 1]);
        assert_eq!(prefer(Prefer::Anybody), [0, 0, 0, 0, 0]);
        // Places where nobody is are no levels.
        assert_eq!(levels("eu/c", Locality::new(), &["us/a", "eu/a"]), [1, 0]);
    }

    #[test]
    fn too_few_are_not_preferred_to_those_around_them() {
        let three = Locality { endpoints_min: 3, ..Locality::new() };
        assert_eq!(levels("eu/a", three.clone(), &["eu/a", "eu/a", "eu/b", "us/a"]), [0, 0, 0, 1]);
        assert_eq!(levels("eu/a", three.clone(), &["eu/a", "eu/a", "eu/a", "eu/b"]), [0, 0, 0, 1]);
        assert_eq!(levels("eu/a", three, &["eu/a", "us/a"]), [0, 0]);
    }

    #[test]
    fn an_order_of_failover_holds_behind_the_own_zone() {
        let locality = Locality { failover: vec![zone("us"), zone("eu/c")], ..Locality::new() };
        assert_eq!(levels("eu/a", locality, &["eu/b", "eu/c", "us/x", "eu/a"]), [3, 2, 1, 0]);
    }

    #[test]
    fn a_distribution_holds_for_those_it_is_for() {
        let to = vec![(zone("eu/a"), 80), (zone("eu/b"), 20)];
        let locality =
            Locality { distribute: vec![Distribution { from: zone("eu/a"), to }], ..Locality::new() };
        let care = Care { locality: Some(Arc::new(locality.clone())), ..Care::new() };
        let plan =
            ZonePlan::new(Some(&zone("eu/a/7")), Some(&care), &endpoints(&["eu/b", "eu/a", "us/a"])).unwrap();
        assert_eq!(plan.levels.iter().map(|it| it.share).collect::<Vec<_>>(), [80, 20, 0]);
        assert!(plan.divided);
        assert_eq!(levels("eu/b", locality, &["eu/b", "eu/a"]), [0, 1], "as ever");
    }
}
