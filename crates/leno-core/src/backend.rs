//! Live load and health of named sets of endpoints. One worker owns them; a configuration swap carries the live
//! part over by name.
//!
//! An endpoint that could not be reached, or whose answers are worse than its peers', is put out for a while
//! ([`outlier`]), and comes back through a probation.
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
use crate::spec::{Balance, Care, EndpointSpec, Transport};
use crate::time::Instant;

mod budget;
mod endpoint;
mod group;
mod outlier;
mod shares;
mod turns;

pub use budget::{Budget, RETRIES_PER_REQUEST, RETRIES_PER_SECOND_MIN};
pub use endpoint::{COOLING_MAX, COOLING_MIN, Chosen, Endpoint, Outcome, Permit};
use endpoint::Live;
use group::Group;
pub use group::{Event, What};
pub use outlier::{Count, Detector};
use shares::Shares;
use turns::Turns;

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
}

/// What happened to endpoints that nobody has asked for yet; more is forgotten.
const EVENTS_MAX: usize = 256;

/// Addresses outside the mesh that one worker remembers; when there are more, all are forgotten at once.
pub const DIRECT_MAX: usize = 4096;

/// How endpoints are looked after where nothing is said.
const DEFAULT_CARE: Care = Care::new();

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
    /// What the endpoints have in common, where something is counted of them.
    group: Option<Rc<Group>>,
    /// Retries allowed beside ordinary requests.
    budget: Budget,
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
}

impl Backends {
    /// Follows a new snapshot. Live state of endpoints that are still there, at the same address under the same
    /// name, is kept.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        let mut old = core::mem::take(self);
        self.next_key = old.next_key;
        self.direct = core::mem::take(&mut old.direct);
        self.events = core::mem::take(&mut old.events);
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
        let backend = match choice {
            Choice::Direct(address) => return self.direct(address, avoid),
            Choice::Backend(id) => id,
            Choice::Split(id) => self.target(snapshot, id).ok_or(NoEndpoint::Empty)?,
        };
        let at = self.live(snapshot, backend).ok_or(NoEndpoint::Empty)?;
        let live = self.backends.get_mut(at).ok_or(NoEndpoint::Empty)?;
        if live.group.as_ref().is_some_and(|group| group.is_due(now)) {
            live.look(now, &mut self.events);
        }
        let (endpoint, chosen) = live.pick(avoid, now, rng)?;
        Ok(Permit::new(endpoint, backend, chosen))
    }

    /// What happened to endpoints since this was last asked.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
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
            };
            Rc::new(Endpoint { spec: Arc::new(spec), key: *next_key, live: Rc::default(), group: None })
        });
        if avoid.contains(&endpoint.key) {
            return Err(NoEndpoint::AllTried);
        }
        Ok(Permit::new(endpoint.clone(), NO_BACKEND, Chosen::Balanced))
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
        let group = Group::new(care.outliers.as_ref(), takers);
        // Both lists are sorted by name, so that one walk over both finds what is still there.
        let mut rest = known.iter().peekable();
        let endpoints: Vec<Rc<Endpoint>> = spec
            .endpoints
            .iter()
            .map(|spec| {
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
                if group.is_some() {
                    live.tally.get_or_init(Box::default);
                } else {
                    live.acquit();
                }
                Rc::new(Endpoint { spec: spec.clone(), key, live, group: group.clone() })
            })
            .collect();
        let shares = Shares::new(endpoints.iter().map(|endpoint| takes(&endpoint.spec)));
        let moved = |old: usize| {
            let name = known.get(old).map(|endpoint| &endpoint.spec.name);
            name.map_or(0, |name| endpoints.partition_point(|endpoint| endpoint.spec.name < *name))
        };
        let turns = Turns::following(&shares, before.map(|backend| (&backend.shares, &backend.turns)), moved);
        Self {
            name: spec.name.clone(),
            balance: spec.balance,
            shares,
            turns,
            endpoints,
            group,
            budget: before.map_or_else(Budget::default, |backend| backend.budget.clone()),
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
    ) -> Result<(Rc<Endpoint>, Chosen), NoEndpoint> {
        if self.shares.len() == 0 {
            return Err(if self.endpoints.is_empty() { self.without } else { NoEndpoint::Unhealthy });
        }
        let panic = self.group.as_ref().is_some_and(|group| group.panic.get());
        let untried = |endpoint: &Endpoint| !avoid.contains(&endpoint.key);
        let found = self.choose(rng, |endpoint| endpoint.takes(now, panic) && untried(endpoint));
        // One that is on probation already, or only put out, is better than none.
        let found = found.or_else(|| {
            let tried = self.choose_again(rng, |endpoint| !endpoint.cooling(now) && untried(endpoint));
            tried.or_else(|| self.choose_again(rng, untried))
        });
        let endpoint = found.and_then(|at| self.endpoints.get(at)).ok_or(NoEndpoint::AllTried)?;
        Ok((endpoint.clone(), endpoint.chosen(now, panic)))
    }

    #[cold]
    fn choose_again(&mut self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            // The search has used up turns; what it left of the order would not be by weight.
            Balance::RoundRobin => self.draw(rng, fits),
            Balance::Random | Balance::LeastRequest => self.choose(rng, fits),
        }
    }

    fn choose(&mut self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => {
                let endpoints = &self.endpoints;
                self.turns.next(&self.shares, |at| endpoints.get(at).is_some_and(|endpoint| fits(endpoint)))
            }
            Balance::Random => self.draw(rng, fits),
            Balance::LeastRequest => {
                let fits = |at: usize| self.endpoints.get(at).is_some_and(|endpoint| fits(endpoint));
                let first = self.shares.draw(rng, fits)?;
                if self.shares.len() == 1 {
                    return Some(first);
                }
                let second = self.shares.draw(rng, |at| at != first && fits(at));
                let load = |at: usize| self.endpoints.get(at).map_or(0, |endpoint| endpoint.load());
                // Equal load: the first, so that weights hold.
                Some(second.filter(|second| load(*second) < load(first)).unwrap_or(first))
            }
        }
    }

    /// One endpoint by weight among those that fit.
    fn draw(&self, rng: &mut Rng, fits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        self.shares.draw(rng, |at| self.endpoints.get(at).is_some_and(|endpoint| fits(endpoint)))
    }
}

#[cfg(test)]
mod tests;
