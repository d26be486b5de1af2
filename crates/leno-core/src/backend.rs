//! Live load and health of named sets of endpoints. One worker owns them; a configuration swap carries the live
//! part over by name.
//!
//! An endpoint that could not be reached, or whose answers are worse than its peers', is put out for a while
//! (`outlier`), and comes back through a probation.
//!
//! A [`Permit`] is one request's place on an endpoint: it counts as load while it lives and gives its place back
//! when it is dropped, whatever way the request ended.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::rng::Rng;
use crate::route::{BackendId, SplitId};
use crate::snapshot::{BackendSpec, Snapshot};
use crate::spec::{
    Affinity, Balance, Care, EndpointSpec, Near, PENDING_MAX, PENDING_TIMEOUT, Tags, Transport,
};
use crate::time::{Duration, Instant};

mod budget;
mod endpoint;
mod ewma;
mod group;
mod hash;
mod hedging;
mod limit;
mod outlier;
mod shares;
mod special;
mod times;
mod turns;
mod warming;
mod weighted;
mod zones;

pub use budget::{Budget, RETRIES_PER_REQUEST, RETRIES_PER_SECOND_MIN};
use endpoint::Live;
pub use endpoint::{COOLING_MAX, COOLING_MIN, Chosen, Endpoint, Outcome, Permit};
use group::{Bounds, Group};
pub use group::{Event, What};
use hash::Hashing;
pub use hash::of_bytes as hash_of;
pub use hedging::HEDGES_SAVED_MAX;
use hedging::Hedging;
use limit::Held;
pub use limit::{Counter, Ledger, Ledgers, Limit, Limited, Place};
pub use outlier::{Count, Detector};
use shares::Shares;
use special::Special;
pub use times::SAMPLES_MIN as HEDGE_SAMPLES_MIN;
use turns::Turns;
use warming::Warm;
use zones::Zones;

/// Every backend of the current snapshot with its live state, in the snapshot's order.
#[derive(Debug, Default)]
pub struct Backends {
    backends: Vec<Backend>,
    /// Places in `backends`, by name.
    by_name: Vec<u32>,
    /// The targets of each split, and whose turn it is among them.
    splits: Vec<(Shares, Turns)>,
    /// Addresses outside the mesh that clients went to, so that connections to them are kept like others.
    direct: BTreeMap<SocketAddr, Rc<Endpoint>>,
    /// The next endpoint key; never reused in one worker.
    next_key: u64,
    /// What happened to endpoints since somebody asked.
    events: Vec<Event>,
    /// Picks by how near the endpoint was, where that is known.
    near: [u64; Near::ALL.len()],
}

/// What happened to endpoints that nobody has asked for yet; more is forgotten.
const EVENTS_MAX: usize = 256;

/// Addresses outside the mesh that one worker remembers; when there are more, all are forgotten at once.
pub const DIRECT_MAX: usize = 4096;

/// How endpoints are looked after where nothing is said.
static DEFAULT_CARE: Care = Care::new();

/// The key of no endpoint: to avoid it says that a request is a retry, and keeps it from nobody.
pub const NO_KEY: u64 = 0;

/// The backend of addresses that are in none.
const NO_BACKEND: BackendId = BackendId(u32::MAX);

/// One named set of endpoints.
#[derive(Debug)]
pub struct Backend {
    name: Arc<str>,
    balance: Balance,
    endpoints: Vec<Rc<Endpoint>>,
    /// The endpoints that take requests: healthy ones with a weight.
    shares: Shares,
    /// Whose turn it is, for round robin.
    turns: Turns,
    /// Endpoints that are compared for one request.
    choices: u32,
    /// What an endpoint is taken for that has not answered yet, in microseconds; 0: as its peer.
    default_rtt: u64,
    /// What the endpoints have in common, where something is counted of them.
    group: Option<Rc<Group>>,
    /// What a pick has to heed beside health and load; `None` nearly everywhere.
    special: Option<Box<Special>>,
    /// Retries allowed beside ordinary requests.
    budget: Budget,
    /// When requests get a second attempt; `None` while none may.
    hedging: Option<Box<Hedging>>,
    /// What there is when it has no endpoints.
    without: NoEndpoint,
}

/// Where to look for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A target by weight, then an endpoint of it.
    Split(SplitId),
    /// An endpoint of this backend: a retry stays with the version that was chosen.
    Backend(BackendId),
    /// This address, which is no service's.
    Direct(SocketAddr),
}

/// Why there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The registry knows none.
    Empty,
    /// None is healthy, or none has a weight.
    Unhealthy,
    /// Every usable one was already tried for this request.
    AllTried,
    /// The service's places are known by names, and no address was found for any of them.
    Unresolved,
    /// A limit of the service is reached.
    Limit {
        /// Which.
        by: Limit,
        /// Where there is no room: whoever waits for it asks there again.
        backend: BackendId,
    },
}

impl Backends {
    /// Follows a new snapshot. Live state of endpoints that are still there, at the same address under the same
    /// name, is kept.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        let mut old = core::mem::take(self);
        self.next_key = old.next_key;
        self.direct = core::mem::take(&mut old.direct);
        self.events = core::mem::take(&mut old.events);
        self.near = old.near;
        for spec in &snapshot.backends {
            let before = old.named(&spec.name).and_then(|at| old.backends.get(at));
            self.backends.push(Backend::build(spec, before, &mut self.next_key));
        }
        self.by_name = (0..self.backends.len() as u32).collect();
        self.by_name.sort_unstable_by_key(|at| &self.backends[*at as usize].name);
        let splits = snapshot.splits.iter().enumerate().map(|(at, split)| {
            let shares = Shares::new(split.targets.iter().map(|(_, weight)| *weight));
            let before = old.splits.get(at).filter(|before| before.0 == shares);
            let turns = Turns::following(&shares, before.map(|(shares, turns)| (shares, turns)), |at| at);
            (shares, turns)
        });
        self.splits = splits.collect();
    }

    /// Picks an endpoint and takes a place on it. `avoid` names endpoints (by key) that this request has tried.
    ///
    /// `snapshot` is the one that the request decided by; when another one has been adopted meanwhile, its backend
    /// is found by name. The generation does not tell: a world grows within one when it learns of a service on demand.
    pub fn pick(
        &mut self,
        snapshot: &Snapshot,
        choice: Choice,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Permit, NoEndpoint> {
        self.pick_by(snapshot, choice, avoid, now, rng, |_, _| None)
    }

    /// The same for a request that may have a key, which `key` finds where the backend asks for one.
    pub fn pick_by(
        &mut self,
        snapshot: &Snapshot,
        choice: Choice,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
        key: impl FnMut(&Affinity, &mut Rng) -> Option<u64>,
    ) -> Result<Permit, NoEndpoint> {
        let backend = match choice {
            Choice::Direct(address) => return self.direct(address, avoid),
            Choice::Backend(id) => id,
            Choice::Split(id) => self.target(snapshot, id).ok_or(NoEndpoint::Empty)?,
        };
        let at = self.live(snapshot, backend).ok_or(NoEndpoint::Empty)?;
        let live = self.backends.get_mut(at).ok_or(NoEndpoint::Empty)?;
        if live.special.is_some() {
            return self.pick_or_back_up(snapshot, backend, avoid, now, rng, key);
        }
        if live.group.as_ref().is_some_and(|group| group.is_due(now)) {
            live.look(now, &mut self.events);
        }
        let (endpoint, chosen) = live.pick(avoid, now, rng, |_| true, |_| true)?;
        Ok(Permit::new(endpoint, backend, chosen, Held::NOTHING))
    }

    /// Takes a place among those who wait for one in `backend`, and says how long they may; `None` when too many do.
    pub fn wait(&self, snapshot: &Snapshot, backend: BackendId) -> Option<(Place, Duration)> {
        let bounds = self.bounds(snapshot, backend)?;
        let max = bounds.limits.pending.unwrap_or(PENDING_MAX);
        let place = Place::take(&bounds.ledger, Limit::Pending, max)?;
        Some((place, bounds.limits.pending_timeout.unwrap_or(PENDING_TIMEOUT)))
    }

    /// Takes a connection's place; `Err` when all are taken, `Ok(None)` where there is no limit.
    pub fn connect(&self, snapshot: &Snapshot, backend: BackendId) -> Result<Option<Place>, Limit> {
        let bounds = self.bounds(snapshot, backend);
        let Some((bounds, max)) = bounds.and_then(|it| Some((it, it.limits.connections?))) else {
            return Ok(None);
        };
        Place::take(&bounds.ledger, Limit::Connections, max).map(Some).ok_or(Limit::Connections)
    }

    /// The endpoints of a backend; none when it is not known any more.
    pub fn endpoints_of(&self, snapshot: &Snapshot, backend: BackendId) -> &[Rc<Endpoint>] {
        let live = self.live(snapshot, backend).and_then(|at| self.backends.get(at));
        live.map_or(&[], Backend::endpoints)
    }

    fn bounds(&self, snapshot: &Snapshot, backend: BackendId) -> Option<&Bounds> {
        let live = self.backends.get(self.live(snapshot, backend)?)?;
        live.group.as_ref()?.bounds.as_ref()
    }

    /// What happened to endpoints since this was last asked.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// Picks so far by how near the endpoint was, where that is known: in the order of [`Near::ALL`].
    pub const fn near(&self) -> [u64; Near::ALL.len()] {
        self.near
    }

    /// True when there is something to ask [`Self::events`] for.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Counts a request against the backend's retry budget.
    pub fn request_started(&mut self, snapshot: &Snapshot, backend: BackendId, now: Instant) {
        if let Some(live) = self.live_mut(snapshot, backend) {
            live.budget.deposit(now);
        }
    }

    /// Takes one retry from the backend's budget; false when it is used up.
    pub fn try_retry(&mut self, snapshot: &Snapshot, backend: BackendId, now: Instant) -> bool {
        self.live_mut(snapshot, backend).is_some_and(|live| live.budget.withdraw(now))
    }

    /// The endpoints in use, for pools to know what may go.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let of_services = self.backends.iter().flat_map(|backend| &backend.endpoints);
        of_services.chain(self.direct.values()).map(|endpoint| endpoint.key)
    }

    /// Every backend, for what users look at.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter()
    }

    /// A place on an address that is in no backend.
    fn direct(&mut self, address: SocketAddr, avoid: &[u64]) -> Result<Permit, NoEndpoint> {
        if self.direct.len() >= DIRECT_MAX && !self.direct.contains_key(&address) {
            self.direct.clear();
        }
        let next_key = &mut self.next_key;
        let endpoint = self.direct.entry(address).or_insert_with(|| {
            *next_key += 1;
            let spec = EndpointSpec {
                name: address.to_string().into(),
                address,
                transport: Transport::Plain,
                version: None,
                weight: 1,
                healthy: true,
                tags: Tags::NONE,
            };
            Rc::new(Endpoint {
                spec: Arc::new(spec),
                key: *next_key,
                live: Rc::default(),
                group: None,
                counter: None,
                level: 0,
                near: Near::Elsewhere,
            })
        });
        if avoid.contains(&endpoint.key) {
            return Err(NoEndpoint::AllTried);
        }
        Ok(Permit::new(endpoint.clone(), NO_BACKEND, Chosen::Balanced, Held::NOTHING))
    }

    fn target(&mut self, snapshot: &Snapshot, id: SplitId) -> Option<BackendId> {
        let split = snapshot.splits.get(id.0 as usize)?;
        if let [(only, _)] = split.targets.as_slice() {
            return Some(*only);
        }
        // After a swap the turns may be another split's; any target of this one will do for a request that was overtaken.
        let split_turns = self.splits.get_mut(id.0 as usize);
        let turn = split_turns.and_then(|(shares, turns)| turns.next(shares, |_| true)).unwrap_or(0);
        split.targets.get(turn).or(split.targets.first()).map(|(backend, _)| *backend)
    }

    fn live_mut(&mut self, snapshot: &Snapshot, id: BackendId) -> Option<&mut Backend> {
        self.live(snapshot, id).and_then(|at| self.backends.get_mut(at))
    }

    /// The place of a backend of `snapshot` in the live ones.
    fn live(&self, snapshot: &Snapshot, id: BackendId) -> Option<usize> {
        let name = &snapshot.backend(id)?.name;
        let at = id.0 as usize;
        // The same name is nearly always the same text, not only an equal one.
        let same = |backend: &Backend| Arc::ptr_eq(&backend.name, name) || backend.name == *name;
        if self.backends.get(at).is_some_and(same) { Some(at) } else { self.named(name) }
    }

    fn named(&self, name: &str) -> Option<usize> {
        let name_at = |at: &u32| self.backends.get(*at as usize).map_or("", Backend::name);
        let found = self.by_name.binary_search_by_key(&name, name_at).ok()?;
        self.by_name.get(found).map(|at| *at as usize)
    }
}

impl Backend {
    fn build(spec: &BackendSpec, before: Option<&Self>, next_key: &mut u64) -> Self {
        let known = before.map_or(&[][..], |backend| &backend.endpoints);
        let takes = |spec: &EndpointSpec| if spec.healthy { spec.weight } else { 0 };
        let takers = spec.endpoints.iter().filter(|endpoint| takes(endpoint) > 0).count();
        let care = spec.care.as_deref().unwrap_or(&DEFAULT_CARE);
        let group = Group::new(spec, care, takers, before.and_then(|before| before.group.as_deref()));
        let watched = group.as_ref().is_some_and(|group| group.outliers.is_some());
        // Both lists are sorted by name, so that one walk over both finds what is still there.
        let mut rest = known.iter().peekable();
        let limited = spec.limited.as_ref();
        let zones = spec.zones.as_deref();
        // Among those who all come at a time nobody has to wait for the others.
        let comes_late = care.slow_start.is_some() && before.is_some_and(|before| before.shares.len() > 0);
        let endpoints: Vec<Rc<Endpoint>> = spec
            .endpoints
            .iter()
            .enumerate()
            .map(|(at, spec)| {
                while rest.next_if(|endpoint| endpoint.spec.name < spec.name).is_some() {}
                let same = rest.next_if(|endpoint| endpoint.spec.name == spec.name).filter(|endpoint| {
                    endpoint.spec.address == spec.address && endpoint.spec.transport == spec.transport
                });
                let (key, live) = match same {
                    Some(endpoint) => (endpoint.key, endpoint.live.clone()),
                    None => {
                        *next_key += 1;
                        (*next_key, Rc::<Live>::default())
                    }
                };
                if comes_late && same.is_none_or(|before| takes(&before.spec) == 0) && takes(spec) > 0 {
                    live.warm.set(Warm::New);
                }
                if watched {
                    live.tally.get_or_init(Box::default);
                } else {
                    live.acquit();
                }
                let counter = limited.and_then(|limited| limited.endpoints.get(at)).cloned();
                let (level, near) = zones.and_then(|zones| zones.of.get(at)).copied().unwrap_or_default();
                Rc::new(Endpoint {
                    spec: spec.clone(),
                    key,
                    live,
                    group: group.clone(),
                    counter,
                    level,
                    near,
                })
            })
            .collect();
        let shares = Shares::new(endpoints.iter().map(|endpoint| takes(&endpoint.spec)));
        let moved = |old: usize| {
            let name = known.get(old).map(|endpoint| &endpoint.spec.name);
            name.map_or(0, |name| endpoints.partition_point(|endpoint| endpoint.spec.name < *name))
        };
        let turns = Turns::following(&shares, before.map(|backend| (&backend.shares, &backend.turns)), moved);
        let loads = group.as_ref().and_then(|group| group.loads.as_ref());
        let zones = |before: Option<&Special>| {
            Zones::new(spec, loads, before.and_then(|before| before.zones.as_ref()), &moved)
        };
        let before_special = before.and_then(|before| before.special.as_deref());
        let special = Special::new(spec, care, before_special, comes_late, zones(before_special));
        Self {
            name: spec.name.clone(),
            balance: spec.balance,
            shares,
            turns,
            special: special.map(Box::new),
            endpoints,
            choices: care.choices,
            default_rtt: care.ewma.default_rtt.map_or(0, |rtt| rtt.as_micros() as u64),
            group,
            budget: match before {
                None => Budget::new(spec.budget),
                Some(before) => {
                    let mut budget = before.budget.clone();
                    budget.configure(spec.budget);
                    budget
                }
            },
            hedging: Self::hedging_of(before),
            without: if spec.by_names { NoEndpoint::Unresolved } else { NoEndpoint::Empty },
        }
    }

    /// The backend's name: `service` or `service@version`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its endpoints, by name.
    pub fn endpoints(&self) -> &[Rc<Endpoint>] {
        &self.endpoints
    }

    /// Puts out who is worse than the others.
    #[cold]
    fn look(&mut self, now: Instant, events: &mut Vec<Event>) {
        let Some(group) = &self.group else { return };
        group.look(&self.endpoints, &self.shares, now, |endpoint, what| {
            if events.len() < EVENTS_MAX {
                let (backend, endpoint) = (self.name.clone(), endpoint.spec.name.clone());
                events.push(Event { backend, endpoint, what });
            }
        });
    }

    fn pick(
        &mut self,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
        has_room: impl Fn(&Endpoint) -> bool,
        is_wanted: impl Fn(&Endpoint) -> bool,
    ) -> Result<(Rc<Endpoint>, Chosen), NoEndpoint> {
        if self.shares.len() == 0 {
            return Err(if self.endpoints.is_empty() { self.without } else { NoEndpoint::Unhealthy });
        }
        let panic = self.group.as_ref().is_some_and(|group| group.panic.get());
        let open = |endpoint: &Endpoint| !avoid.contains(&endpoint.key) && has_room(endpoint);
        let found = self.choose(rng, |it| it.takes(now, panic) && open(it) && is_wanted(it));
        // One that is not wanted, that is on probation already, or only put out, is better than none.
        let found = found.or_else(|| {
            let tried = self.choose_again(rng, |endpoint| endpoint.takes(now, panic) && open(endpoint));
            let tried =
                tried.or_else(|| self.choose_again(rng, |endpoint| !endpoint.cooling(now) && open(endpoint)));
            tried.or_else(|| self.choose_again(rng, open))
        });
        let endpoint = found.and_then(|at| self.endpoints.get(at)).ok_or(NoEndpoint::AllTried)?;
        Ok((endpoint.clone(), endpoint.chosen(now, panic)))
    }

    #[cold]
    fn choose_again(&mut self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            // The search has used up turns; what it left of the order would not be by weight.
            Balance::RoundRobin => self.draw(rng, fits),
            _ => self.choose(rng, fits),
        }
    }

    fn choose(&mut self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => {
                let endpoints = &self.endpoints;
                self.turns.next(&self.shares, |at| endpoints.get(at).is_some_and(|endpoint| fits(endpoint)))
            }
            Balance::Random => self.draw(rng, fits),
            Balance::RingHash | Balance::Maglev if let Some((hashing, key)) = self.hashed() => {
                hashing.pick(key, |at| {
                    let endpoint = self.endpoints.get(at);
                    endpoint.is_some_and(|endpoint| endpoint.spec.healthy && fits(endpoint))
                })
            }
            Balance::LeastRequest | Balance::RingHash | Balance::Maglev => {
                // Equal load: the first, so that weights hold.
                let prefers = |first: &Endpoint, second: &Endpoint| second.load() < first.load();
                self.best_of_some(rng, fits, prefers)
            }
            Balance::PeakEwma => {
                let default_rtt = self.default_rtt;
                let prefers = |first: &Endpoint, second: &Endpoint| {
                    second.live.cost(&first.live, default_rtt) < first.live.cost(&second.live, default_rtt)
                };
                self.best_of_some(rng, fits, prefers)
            }
        }
    }

    /// Where the request's key leads, if it has one.
    fn hashed(&self) -> Option<(&Hashing, u64)> {
        let special = self.special.as_ref()?;
        Some((special.hashing.as_ref()?, special.key?))
    }

    /// The best of some that are drawn by weight: the first, unless `prefers` says that another one is better.
    fn best_of_some(
        &self,
        rng: &mut Rng,
        fits: impl Fn(&Endpoint) -> bool,
        prefers: impl Fn(&Endpoint, &Endpoint) -> bool,
    ) -> Option<usize> {
        let fits = |at: usize| self.endpoints.get(at).is_some_and(|endpoint| fits(endpoint));
        let mut best = self.shares.draw(rng, fits)?;
        if self.shares.len() == 1 {
            return Some(best);
        }
        for _ in 1..self.choices {
            let Some(other) = self.shares.draw(rng, |at| at != best && fits(at)) else { break };
            let (Some(first), Some(second)) = (self.endpoints.get(best), self.endpoints.get(other)) else {
                break;
            };
            let better = if self.shares.is_even() {
                prefers(first, second)
            } else {
                weighted::prefers(first, second, self.balance)
            };
            if better {
                best = other;
            }
        }
        Some(best)
    }

    /// One endpoint by weight among those that fit.
    fn draw(&self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        self.shares.draw(rng, |at| self.endpoints.get(at).is_some_and(|endpoint| fits(endpoint)))
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
