//! Picks that have more to heed than health and load: limits, keys, endpoints that warm up, zones, backups. A backend that has none of
//! them does not come here.

use alloc::rc::Rc;
use alloc::sync::Arc;

use super::endpoint::{Chosen, Endpoint, Permit};
use super::group::Bounds;
use super::hash::Hashing;
use super::limit::{Held, Limit};
use super::warming::Luck;
use super::zones::Zones;
use super::{Backend, Backends, NoEndpoint};
use crate::rng::Rng;
use crate::route::BackendId;
use crate::snapshot::{BackendSpec, Snapshot};
use crate::spec::{Affinity, Balance, Care, SlowStart};
use crate::time::Instant;

/// What a pick has to heed beside health and load.
#[derive(Debug)]
pub(super) struct Special {
    /// What keys are made of, and where they lead, where the policy hashes.
    affinity: Option<Arc<Affinity>>,
    pub(super) hashing: Option<Hashing>,
    /// The weights of all endpoints together.
    weights: u64,
    /// The key of the request that is being picked for.
    pub(super) key: Option<u64>,
    slow_start: Option<SlowStart>,
    /// Somebody may be warming up.
    warming: bool,
    /// Who is near, where that is known.
    pub(super) zones: Option<Zones>,
}

impl Special {
    pub(super) fn new(
        spec: &BackendSpec,
        care: &Care,
        before: Option<&Self>,
        comes_late: bool,
        zones: Option<Zones>,
    ) -> Option<Self> {
        let hashes = matches!(spec.balance, Balance::RingHash | Balance::Maglev);
        let affinity = care.affinity.clone().filter(|_| hashes);
        let slow_start = care.slow_start.clone();
        let counts = spec.limited.is_some() || spec.backup.is_some() || zones.is_some();
        if affinity.is_none() && slow_start.is_none() && !counts {
            return None;
        }
        let hashing = affinity.is_some().then(|| {
            let before = before.and_then(|before| before.hashing.as_ref());
            Hashing::new(&spec.endpoints, spec.balance == Balance::Maglev, before)
        });
        let weights = spec.endpoints.iter().filter(|it| it.healthy).map(|it| u64::from(it.weight)).sum();
        Some(Self { affinity, hashing, weights, key: None, slow_start, warming: comes_late, zones })
    }
}

/// Services that one request can be handed on to: a backup may have one itself.
const BACKUPS_MAX: usize = 3;

impl Backends {
    /// Picks in a backend that is special, or in what backs it up.
    #[cold]
    pub(super) fn pick_or_back_up(
        &mut self,
        snapshot: &Snapshot,
        first: BackendId,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
        mut key: impl FnMut(&Affinity, &mut Rng) -> Option<u64>,
    ) -> Result<Permit, NoEndpoint> {
        let (mut id, mut otherwise) = (first, None);
        for _ in 0..=BACKUPS_MAX {
            let Some(live) = self.live(snapshot, id).and_then(|at| self.backends.get_mut(at)) else { break };
            if live.group.as_ref().is_some_and(|group| group.is_due(now)) {
                live.look(now, &mut self.events);
            }
            let mut picked = if live.special.is_some() {
                let picked = live.pick_special(id, avoid, now, rng, &mut key);
                if let (Ok(permit), Some(_)) =
                    (&picked, live.special.as_ref().and_then(|it| it.zones.as_ref()))
                    && let Some(count) = self.near.get_mut(permit.endpoint.near as usize)
                {
                    *count += 1;
                }
                picked
            } else {
                let picked = live.pick(avoid, now, rng, |_| true, |_| true);
                picked.map(|(endpoint, chosen)| Permit::new(endpoint, id, chosen, Held::NOTHING))
            };
            match &mut picked {
                Ok(permit) if permit.chosen != Chosen::LastResort => {
                    if id != first {
                        permit.chosen = Chosen::Backup;
                    }
                    return picked;
                }
                // What is full is not down.
                Err(NoEndpoint::Limit { .. }) => return otherwise.unwrap_or(picked),
                Ok(_) | Err(_) => {}
            }
            otherwise.get_or_insert(picked);
            match snapshot.backend(id).and_then(|spec| spec.backup) {
                Some(backup) => id = backup,
                None => break,
            }
        }
        otherwise.unwrap_or(Err(NoEndpoint::Empty))
    }
}

impl Backend {
    /// Takes the places that the limits ask for, then one on an endpoint.
    fn pick_special(
        &mut self,
        id: BackendId,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
        mut key: impl FnMut(&Affinity, &mut Rng) -> Option<u64>,
    ) -> Result<Permit, NoEndpoint> {
        let group = self.group.clone();
        let refused = |by| NoEndpoint::Limit { by, backend: id };
        let bounds = group.as_ref().and_then(|group| group.bounds.as_ref());
        let mut held = match bounds {
            Some(Bounds { limits, ledger }) => {
                Held::enter(ledger, limits, !avoid.is_empty()).map_err(refused)?
            }
            None => Held::NOTHING,
        };
        let crowd = group.as_ref().and_then(|group| group.crowd.as_ref());
        let (mut bound, mut slow_start, mut weights) = (None, None, 0);
        if let Some(special) = &mut self.special {
            special.key = special.affinity.as_ref().and_then(|affinity| key(affinity, rng));
            bound =
                special.affinity.as_ref().and_then(|it| it.bound_percent).filter(|_| special.key.is_some());
            if let Some(spec) = special.slow_start.as_ref().filter(|_| special.warming) {
                let warming = self.endpoints.iter().filter(|it| it.live.warms_up(spec, now)).count();
                special.warming = warming > 0;
                slow_start = special.slow_start.clone().filter(|_| special.warming);
            }
            weights = special.weights;
        }
        let luck = Luck::draw(rng);
        let all = crowd.map_or(0, |crowd| u64::from(crowd.get()) + 1);
        let is_wanted = |endpoint: &Endpoint| {
            let crowded = bound.is_some_and(|percent| {
                // Its share of all with this one, times the bound, rounded up.
                let most = all * u64::from(endpoint.spec.weight) * u64::from(percent);
                u64::from(endpoint.in_flight()) >= most.div_ceil((weights * 100).max(1))
            });
            !crowded && slow_start.as_ref().is_none_or(|spec| luck.has(endpoint, spec, now))
        };
        let max = bounds.and_then(|bounds| bounds.limits.endpoint_requests).unwrap_or(u32::MAX);
        let has_room = |endpoint: &Endpoint| endpoint.counter().is_none_or(|it| it.taken() < max);
        let give_back = |held: Held| {
            if let Some(bounds) = bounds {
                held.leave(&bounds.ledger, None);
            }
        };
        // Another worker may take the last place between the look and the grasp.
        for _ in 0..=self.endpoints.len() {
            match self.pick_near(avoid, now, rng, has_room, is_wanted) {
                Ok((endpoint, chosen)) => {
                    let counter = endpoint.counter.clone();
                    if counter.is_none_or(|counter| held.enter_endpoint(&counter, max)) {
                        if let Some(crowd) = crowd {
                            crowd.set(crowd.get() + 1);
                            held.join_crowd();
                        }
                        if self.enter_level(&endpoint) {
                            held.join_level();
                        }
                        let by_key = chosen == Chosen::Balanced && self.hashed().is_some();
                        let chosen = if by_key { Chosen::Affinity } else { chosen };
                        return Ok(Permit::new(endpoint, id, chosen, held));
                    }
                }
                Err(why) => {
                    give_back(held);
                    // Somebody is left whom only the limit keeps.
                    let full = |it: &Rc<Endpoint>| !avoid.contains(&it.key) && !has_room(it);
                    let full = why == NoEndpoint::AllTried && self.endpoints.iter().any(full);
                    return Err(if full { refused(Limit::EndpointRequests) } else { why });
                }
            }
        }
        give_back(held);
        Err(refused(Limit::EndpointRequests))
    }
}

#[cfg(test)]
mod tests;
