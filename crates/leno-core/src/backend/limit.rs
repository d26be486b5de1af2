//! How much of a service a proxy uses at a time. Unlike load and health, which each worker keeps for itself, these are
//! counted over all workers: a limit that every worker kept alone would be reached too early or passed. So they are
//! atomic, they are looked at only where a limit is set, and whoever wants a place takes it before it looks for an endpoint.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::fault::Experiment;
use crate::name::ServiceId;
use crate::rate::RateBook;
use crate::spec::{Fault, Limits};

/// A limit of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
    /// Requests that wait for a place.
    Pending,
    /// Connections.
    Connections,
    /// Requests under way on each endpoint.
    EndpointRequests,
}

impl Limit {
    /// Its name in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requests => "service_requests",
            Self::Retries => "service_retries",
            Self::Pending => "service_pending",
            Self::Connections => "service_connections",
            Self::EndpointRequests => "instance_requests",
        }
    }

    /// True when it is worth waiting for a place: the next request that ends makes one.
    pub const fn is_worth_a_wait(self) -> bool {
        matches!(self, Self::Requests | Self::EndpointRequests | Self::Connections)
    }
}

/// A number of places taken.
#[derive(Debug, Default)]
pub struct Counter(AtomicU32);

impl Counter {
    /// Places taken now.
    pub fn taken(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a place if fewer than `max` are taken.
    fn enter(&self, max: u32) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < max).then_some(taken + 1))
            .is_ok()
    }

    fn leave(&self) {
        // Nobody leaves who has not entered.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| taken.checked_sub(1));
    }
}

/// What one proxy uses of one service, over all workers.
#[derive(Debug, Default)]
pub struct Ledger {
    requests: Counter,
    retries: Counter,
    pending: Counter,
    connections: Counter,
}

impl Ledger {
    /// The counter of a limit; that of endpoints is each endpoint's own.
    pub const fn counter(&self, limit: Limit) -> &Counter {
        match limit {
            Limit::Requests | Limit::EndpointRequests => &self.requests,
            Limit::Retries => &self.retries,
            Limit::Pending => &self.pending,
            Limit::Connections => &self.connections,
        }
    }
}

/// The ledgers of all services that have limits: what is in use does not change with the configuration.
#[derive(Debug, Default)]
pub struct Ledgers {
    services: BTreeMap<ServiceId, Known>,
    /// What is broken on purpose, by the names of list and rule.
    experiments: BTreeMap<(Arc<str>, Arc<str>), Arc<Experiment>>,
    /// What rate limits have counted.
    pub(crate) rates: RateBook,
}

#[derive(Debug, Default)]
struct Known {
    ledger: Arc<Ledger>,
    endpoints: BTreeMap<Arc<str>, Arc<Counter>>,
}

impl Ledgers {
    /// Empty ones, with this book of what rate limits have counted.
    pub fn new(rates: RateBook) -> Self {
        Self { rates, ..Self::default() }
    }

    /// The ledger of a service, and a counter for each of its endpoints.
    pub(crate) fn of<'e>(
        &mut self,
        service: &ServiceId,
        endpoints: impl Iterator<Item = &'e Arc<str>>,
    ) -> Limited {
        let known = self.services.entry(service.clone()).or_default();
        let endpoints =
            endpoints.map(|name| known.endpoints.entry(name.clone()).or_default().clone()).collect();
        Limited { ledger: known.ledger.clone(), endpoints }
    }

    /// The experiment of a rule: the one that there is, unless the rule breaks something else now.
    pub(crate) fn experiment(
        &mut self,
        list: &Arc<str>,
        rule: &Arc<str>,
        fault: &Arc<Fault>,
    ) -> Arc<Experiment> {
        let new = || Arc::new(Experiment::new(list.clone(), rule.clone(), fault.clone()));
        let known = self.experiments.entry((list.clone(), rule.clone())).or_insert_with(new);
        if known.fault != *fault {
            *known = new();
        }
        known.clone()
    }

    /// Forgets services that are not known any more, endpoints that nobody is on, and experiments of rules that are gone.
    pub(crate) fn keep(&mut self, services: &BTreeSet<&ServiceId>) {
        self.services.retain(|service, known| {
            known.endpoints.retain(|_, counter| Arc::strong_count(counter) > 1);
            services.contains(service)
        });
        self.experiments.retain(|_, experiment| Arc::strong_count(experiment) > 1);
    }
}

/// What a backend counts by.
#[derive(Clone, Debug)]
pub struct Limited {
    /// The service's.
    pub ledger: Arc<Ledger>,
    /// Of each endpoint, in the order of the backend's.
    pub endpoints: Arc<[Arc<Counter>]>,
}

/// Two are the same when they count the same.
impl PartialEq for Limited {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ledger, &other.ledger)
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().zip(&*other.endpoints).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Eq for Limited {}

/// A place among those who wait, or a connection's. Given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    limit: Limit,
}

impl Place {
    pub(super) fn take(ledger: &Arc<Ledger>, limit: Limit, max: u32) -> Option<Self> {
        ledger.counter(limit).enter(max).then(|| Self { ledger: ledger.clone(), limit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.counter(self.limit).leave();
    }
}

/// The places that a request holds beside the one on its endpoint: a set of flags, so that a permit stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held(u8);

impl Held {
    /// Nothing.
    pub(super) const NOTHING: Self = Self(0);
    const REQUEST: u8 = 1;
    const RETRY: u8 = 2;
    const ENDPOINT: u8 = 4;
    /// It counts among those under way on all endpoints of its worker.
    const CROWD: u8 = 8;
    /// It counts among those under way on its endpoint's level.
    const LEVEL: u8 = 16;

    /// Takes a request's places, or says which limit is in the way.
    pub(super) fn enter(ledger: &Ledger, limits: &Limits, retry: bool) -> Result<Self, Limit> {
        let mut held = Self::NOTHING;
        if let Some(max) = limits.requests {
            if !ledger.requests.enter(max) {
                return Err(Limit::Requests);
            }
            held.0 |= Self::REQUEST;
        }
        if let Some(max) = limits.retries.filter(|_| retry) {
            if !ledger.retries.enter(max) {
                held.leave(ledger, None);
                return Err(Limit::Retries);
            }
            held.0 |= Self::RETRY;
        }
        Ok(held)
    }

    /// Takes a place on an endpoint.
    pub(super) fn enter_endpoint(&mut self, counter: &Counter, max: u32) -> bool {
        let entered = counter.enter(max);
        if entered {
            self.0 |= Self::ENDPOINT;
        }
        entered
    }

    /// It was counted among those under way.
    pub(super) const fn join_crowd(&mut self) {
        self.0 |= Self::CROWD;
    }

    pub(super) const fn is_in_crowd(self) -> bool {
        self.0 & Self::CROWD != 0
    }

    /// It was counted among those on its endpoint's level.
    pub(super) const fn join_level(&mut self) {
        self.0 |= Self::LEVEL;
    }

    pub(super) const fn is_on_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    /// Gives everything back.
    pub(super) fn leave(self, ledger: &Ledger, endpoint: Option<&Counter>) {
        if self.0 & Self::REQUEST != 0 {
            ledger.requests.leave();
        }
        if self.0 & Self::RETRY != 0 {
            ledger.retries.leave();
        }
        if let Some(counter) = endpoint.filter(|_| self.0 & Self::ENDPOINT != 0) {
            counter.leave();
        }
    }
}

#[cfg(test)]
mod tests;
