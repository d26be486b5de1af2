//! Live load and health of named sets of endpoints. One worker owns them; a configuration swap carries the live
//! part over by name.
//!
//! A [`Permit`] is one request's place on an endpoint: it counts as load while it lives and gives its place back
//! when it is dropped, whatever way the request ended.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::SocketAddr;

use crate::rng::Rng;
use crate::route::{BackendId, SplitId};
use crate::snapshot::{BackendSpec, Snapshot};
use crate::spec::{Balance, EndpointSpec, Transport};
use crate::time::{Duration, Instant};

mod budget;
mod shares;
mod turns;

pub use budget::{Budget, RETRIES_PER_REQUEST, RETRIES_PER_SECOND_MIN};
use shares::Shares;
use turns::Turns;

/// How long an endpoint that could not be reached gets no requests while others can take them. Doubles with each
/// failure in a row, up to [`COOLING_MAX`].
pub const COOLING_MIN: Duration = Duration::from_millis(500);
/// The longest that an unreachable endpoint stays without a request.
pub const COOLING_MAX: Duration = Duration::from_secs(10);

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
}

/// Addresses outside the mesh that one worker remembers; when there are more, all are forgotten at once.
pub const DIRECT_MAX: usize = 4096;

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
    /// Retries allowed beside ordinary requests.
    budget: Budget,
    /// What there is when it has no endpoints.
    without: NoEndpoint,
}

/// One endpoint with its live state.
#[derive(Debug)]
pub struct Endpoint {
    /// What the registry says.
    pub spec: Arc<EndpointSpec>,
    /// Names this endpoint's pools; carried over a swap, never reused.
    pub key: u64,
    live: Rc<Live>,
}

/// What one worker knows of an endpoint; survives swaps.
#[derive(Debug, Default)]
struct Live {
    /// Requests under way.
    in_flight: Cell<u32>,
    /// Times in a row that it could not be reached.
    failures: Cell<u32>,
    /// Until when it is left alone.
    cooling_until: Cell<Option<Instant>>,
}

/// One request's place on an endpoint.
#[derive(Debug)]
pub struct Permit {
    endpoint: Rc<Endpoint>,
    backend: BackendId,
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

/// What an attempt taught about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, whatever the answer was.
    Reached,
    /// It could not be reached, or the application behind it could not.
    Unreachable,
}

impl Backends {
    /// Follows a new snapshot. Live state of endpoints that are still there, at the same address under the same
    /// name, is kept.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        let mut old = core::mem::take(self);
        self.next_key = old.next_key;
        self.direct = core::mem::take(&mut old.direct);
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
        let live = self.live(snapshot, backend).ok_or(NoEndpoint::Empty)?;
        let endpoint = live.pick(avoid, now, rng)?;
        endpoint.live.in_flight.set(endpoint.live.in_flight.get() + 1);
        Ok(Permit { endpoint, backend })
    }

    /// Counts a request against the backend's retry budget.
    pub fn request_started(&mut self, snapshot: &Snapshot, backend: BackendId, now: Instant) {
        if let Some(live) = self.live(snapshot, backend) {
            live.budget.deposit(now);
        }
    }

    /// Takes one retry from the backend's budget; false when it is used up.
    pub fn try_retry(&mut self, snapshot: &Snapshot, backend: BackendId, now: Instant) -> bool {
        self.live(snapshot, backend).is_some_and(|live| live.budget.withdraw(now))
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
            Rc::new(Endpoint { spec: Arc::new(spec), key: *next_key, live: Rc::default() })
        });
        if avoid.contains(&endpoint.key) {
            return Err(NoEndpoint::AllTried);
        }
        endpoint.live.in_flight.set(endpoint.live.in_flight.get() + 1);
        Ok(Permit { endpoint: endpoint.clone(), backend: NO_BACKEND })
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

    fn live(&mut self, snapshot: &Snapshot, id: BackendId) -> Option<&mut Backend> {
        let name = &snapshot.backend(id)?.name;
        let at = id.0 as usize;
        // The same name is nearly always the same text, not only an equal one.
        let same = |backend: &Backend| Arc::ptr_eq(&backend.name, name) || backend.name == *name;
        let at = if self.backends.get(at).is_some_and(same) { at } else { self.named(name)? };
        self.backends.get_mut(at)
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
                        (*next_key, Rc::default())
                    }
                };
                Rc::new(Endpoint { spec: spec.clone(), key, live })
            })
            .collect();
        let takes = |spec: &EndpointSpec| if spec.healthy { spec.weight } else { 0 };
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
            budget: match before {
                None => Budget::new(spec.budget),
                Some(before) => {
                    let mut budget = before.budget.clone();
                    budget.configure(spec.budget);
                    budget
                }
            },
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

    fn pick(&mut self, avoid: &[u64], now: Instant, rng: &mut Rng) -> Result<Rc<Endpoint>, NoEndpoint> {
        if self.shares.len() == 0 {
            return Err(if self.endpoints.is_empty() { self.without } else { NoEndpoint::Unhealthy });
        }
        let untried = |endpoint: &Endpoint| !avoid.contains(&endpoint.key);
        // An endpoint that is only cooling down is better than none.
        let found = self.choose(rng, |endpoint| !endpoint.cooling(now) && untried(endpoint));
        let found = found.or_else(|| match self.balance {
            // The search has used up turns; what it left of the order would not be by weight.
            Balance::RoundRobin => self.draw(rng, untried),
            Balance::Random | Balance::LeastRequest => self.choose(rng, untried),
        });
        found.and_then(|at| self.endpoints.get(at)).cloned().ok_or(NoEndpoint::AllTried)
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

impl Endpoint {
    /// Requests under way on it, from this worker.
    pub fn in_flight(&self) -> u32 {
        self.live.in_flight.get()
    }

    /// True while it is left alone because it could not be reached.
    pub fn cooling(&self, now: Instant) -> bool {
        self.live.cooling_until.get().is_some_and(|until| now < until)
    }

    /// Load compared between endpoints.
    fn load(&self) -> u32 {
        self.live.in_flight.get()
    }
}

impl Permit {
    /// The endpoint that it is a place on.
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// The backend that the endpoint was picked from.
    pub const fn backend(&self) -> BackendId {
        self.backend
    }

    /// Teaches the endpoint what happened.
    pub fn report(&self, outcome: Outcome, now: Instant) {
        let live = &self.endpoint.live;
        match outcome {
            Outcome::Reached => {
                live.failures.set(0);
                live.cooling_until.set(None);
            }
            Outcome::Unreachable => {
                // Requests that fail together are one failure: the first has already set the pause.
                if !self.endpoint.cooling(now) {
                    let failures = live.failures.get();
                    let pause = COOLING_MIN.saturating_mul(1 << failures.min(8)).min(COOLING_MAX);
                    live.failures.set(failures.saturating_add(1));
                    live.cooling_until.set(Some(now.after(pause)));
                }
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let in_flight = &self.endpoint.live.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
