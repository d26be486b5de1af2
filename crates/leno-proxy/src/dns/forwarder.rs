//! Questions that are not about the mesh: remembered answers, and the system's resolvers. A question that is under way is asked
//! once, however many want to know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as StdInstant};

use leno_core::dns::cache::{Cache, Found};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::counters::Count;
use super::message::{Query, Reply, Way};
use super::resolvers::{LEFT_ALONE, Plan, Resolvers};
use super::upstream::{Asker, NoAnswer};
use crate::clock::Clock;

/// Questions under way to resolvers at a time; each has a socket. (dnsmasq 150, systemd-resolved 2048 queries in all.)
const FLIGHTS_MAX: usize = 256;
/// That no resolver answers is remembered so long (RFC 9520 §3.2: at least 1 s), so that an application that asks again at once
/// hears at once.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// An answer and how it came.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Arc<Reply>,
    /// How old it is; `None`: it has ended, and there is no newer one.
    pub(crate) age: Option<Duration>,
    pub(crate) how: Count,
}

/// What those who wait for one question watch.
type Flight = watch::Receiver<Option<Answered>>;

/// Knows what resolvers said, and asks them.
#[derive(Debug)]
pub(crate) struct Forwarder {
    asker: Asker,
    clock: Clock,
    resolvers: Mutex<Resolvers>,
    cache: Mutex<Cache<Arc<Reply>>>,
    /// Questions under way, each with those who wait for it.
    flights: Mutex<BTreeMap<(Vec<u8>, Way), Flight>>,
    places: Semaphore,
    /// Resolvers that did not answer lately; no more than there are in a plan.
    left_alone: Mutex<BTreeMap<SocketAddr, StdInstant>>,
}

impl Forwarder {
    pub(crate) fn new(asker: Asker, clock: Clock, resolvers: Resolvers) -> Self {
        Self {
            asker,
            clock,
            resolvers: Mutex::new(resolvers),
            cache: Mutex::new(Cache::new()),
            flights: Mutex::new(BTreeMap::new()),
            places: Semaphore::new(FLIGHTS_MAX),
            left_alone: Mutex::new(BTreeMap::new()),
        }
    }

    /// What is appended to bare names.
    pub(crate) fn search(&self) -> Vec<Vec<String>> {
        self.plan().search
    }

    /// What can be answered without asking anybody.
    pub(crate) fn remembered(&self, query: &Query) -> Option<Answered> {
        match lock(&self.cache).get(&query.key(), self.clock.now()) {
            Found::Fresh(reply, age) => Some(Answered { reply, age: Some(age), how: Count::Cached }),
            Found::Reused(reply) => Some(Answered { reply, age: None, how: Count::Stale }),
            Found::Nothing => None,
        }
    }

    /// Asks a resolver, or joins those who wait for the same answer.
    pub(crate) async fn resolve(self: &Arc<Self>, query: &Query, way: Way) -> Answered {
        let mut landing = self.join(query, way);
        let landed = landing.wait_for(Option::is_some).await;
        let answered = landed.ok().and_then(|answered| answered.clone());
        // The flight is a task of ours and always lands; were it lost, that is a failure like others.
        answered.unwrap_or_else(failed)
    }

    fn join(self: &Arc<Self>, query: &Query, way: Way) -> watch::Receiver<Option<Answered>> {
        let key = (query.key(), way);
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (land, landing) = watch::channel(None);
        flights.insert(key.clone(), landing.clone());
        // A task of its own: whoever asked first may be gone before the answer is there, and others still wait.
        let (this, query) = (self.clone(), query.clone());
        tokio::spawn(async move {
            let answered = this.fly(&query, way).await;
            lock(&this.flights).remove(&key);
            let _ = land.send(Some(answered));
        });
        landing
    }

    async fn fly(&self, query: &Query, way: Way) -> Answered {
        let plan = self.plan();
        let deadline = tokio::time::Instant::now() + plan.deadline;
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => {
                self.asker.counters.bump(Count::FlightsMax);
                match tokio::time::timeout_at(deadline, self.places.acquire()).await {
                    Ok(Ok(place)) => Ok(place),
                    Ok(Err(_)) | Err(_) => Err(()),
                }
            }
        };
        let asked = match &place {
            Ok(_) => tokio::time::timeout_at(deadline, self.ask_all(&plan, query, way)).await.ok().flatten(),
            Err(()) => None,
        };
        let (key, now) = (query.key(), self.clock.now());
        let mut cache = lock(&self.cache);
        if let Some(reply) = asked {
            let reply = Arc::new(reply);
            cache.insert(&key, reply.clone(), reply.bytes(), reply.lifetime, now);
            return Answered { reply, age: Some(Duration::ZERO), how: Count::Forwarded };
        }
        if let Some(reply) = cache.stale(&key, now) {
            return Answered { reply, age: None, how: Count::Stale };
        }
        let failed = failed();
        if place.is_ok() {
            cache.insert(&key, failed.reply.clone(), failed.reply.bytes(), FAILURE_LIFETIME, now);
        }
        failed
    }

    /// Asks one resolver after the other, as often as the plan says.
    async fn ask_all(&self, plan: &Plan, query: &Query, way: Way) -> Option<Reply> {
        for _ in 0..plan.attempts {
            for server in self.ordered(&plan.servers) {
                let why = match timeout(plan.timeout, self.asker.ask(server, query, way)).await {
                    Ok(Ok(reply)) => {
                        lock(&self.left_alone).remove(&server);
                        return Some(reply);
                    }
                    Ok(Err(NoAnswer::Io(error))) => error.to_string(),
                    Ok(Err(NoAnswer::Broken)) => "its answer cannot be understood".to_owned(),
                    Ok(Err(NoAnswer::Refused(rcode))) => {
                        // It is there; another one may know.
                        tracing::debug!(%server, %rcode, "a resolver did not answer a question");
                        continue;
                    }
                    Err(_) => "it does not answer".to_owned(),
                };
                let until = StdInstant::now() + LEFT_ALONE;
                if lock(&self.left_alone).insert(server, until).is_none() {
                    tracing::warn!(%server, why, "a resolver does not answer questions about names outside the mesh");
                }
            }
        }
        None
    }

    /// Those that answered lately first, otherwise in their order.
    fn ordered(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = StdInstant::now();
        let left_alone = lock(&self.left_alone);
        let mut ordered = servers.to_vec();
        ordered.sort_by_key(|server| left_alone.get(server).is_some_and(|until| now < *until));
        ordered
    }

    fn plan(&self) -> Plan {
        let mut resolvers = lock(&self.resolvers);
        let (plan, changed) = resolvers.current(StdInstant::now());
        if changed {
            lock(&self.left_alone).clear();
            // Another network may give other answers.
            *lock(&self.cache) = Cache::new();
        }
        plan.clone()
    }
}

fn failed() -> Answered {
    Answered {
        reply: Arc::new(Reply::failure(FAILURE_LIFETIME)),
        age: Some(Duration::ZERO),
        how: Count::Failed,
    }
}

/// The sections are short, and none of them can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
