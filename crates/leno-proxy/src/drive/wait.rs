//! Waiting for a place where a limit of the service is reached. Rare, and so nothing of it is in the way of a request that
//! meets no limit: the wait is made when it is needed.

use std::pin::pin;
use std::rc::Rc;

use leno_core::backend::{Choice, Endpoint, Limit, NoEndpoint, Place};
use leno_core::exchange::{ConnectFailure, Input};
use leno_core::reason::Reason;
use leno_core::route::{BackendId, Speak};
use leno_core::spec::Transport;
use leno_core::time::{Duration, Instant};

use super::Drive;
use super::reach::Upstream;
use crate::body::Source;
use crate::telemetry::{PAIRS_MAX, bump};
use crate::worker::Worker;

/// How often somebody who waits looks for a place that another worker made; who ends a request on its own worker rings.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A request that waits for a place.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its place among those who wait.
    _place: Place,
    /// The limit that is in the way.
    by: Limit,
    /// Where there has to be room.
    backend: BackendId,
    /// How long.
    until: Instant,
}

/// What ended a wait.
enum Woken {
    Look,
    Over,
    Done,
}

impl Drive<'_> {
    /// A limit is in the way of the next attempt: it is waited for, or the client is told.
    #[cold]
    pub(super) fn limited(&mut self, by: Limit, backend: BackendId) -> Option<Waiting> {
        match self.queue(by, backend) {
            Ok(waiting) => Some(waiting),
            Err(by) => {
                self.refuse(by, backend);
                self.handle(Input::NoEndpoint(NoEndpoint::Limit { by, backend }));
                None
            }
        }
    }

    /// A place among those who wait, or the limit that is in the way.
    fn queue(&self, by: Limit, backend: BackendId) -> Result<Waiting, Limit> {
        if !by.is_worth_a_wait() {
            return Err(by);
        }
        let place = self.worker.backends().wait(self.snapshot, backend);
        let (place, wait) = place.ok_or(Limit::Pending)?;
        Ok(Waiting { _place: place, by, backend, until: self.worker.now().after(wait) })
    }

    /// Counts a refusal, and notes why.
    fn refuse(&mut self, by: Limit, backend: BackendId) {
        self.why = Some(by.word().replace('_', " "));
        let telemetry = &mut self.worker.telemetry().service_limits;
        let service = self.snapshot.backend(backend).map_or("", |backend| &backend.name);
        let key = (service.into(), by.word());
        if telemetry.len() < PAIRS_MAX || telemetry.contains_key(&key) {
            bump(telemetry, key);
        }
    }

    /// Waits for a place and takes it, as far as the limit, the request's deadline and the client's patience allow.
    pub(super) async fn wait_to_pick<S: Source>(&mut self, waiting: Waiting, source: &mut S) {
        let _waits = Waits::begin(self.worker);
        let mut gone = pin!(source.gone());
        loop {
            match self.woken(gone.as_mut(), waiting.until).await {
                Woken::Done => return,
                Woken::Over => break,
                Woken::Look => {}
            }
            let picked = self.choose(Choice::Backend(waiting.backend));
            match picked {
                Err(NoEndpoint::Limit { .. }) => {}
                picked => {
                    return self.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked));
                }
            }
        }
        let (by, backend) = (waiting.by, waiting.backend);
        self.refuse(by, backend);
        self.handle(Input::NoEndpoint(NoEndpoint::Limit { by, backend }));
    }

    /// True when a new connection needs a place: one for HTTP/1.1 or TCP does, also where the mesh transport carries it;
    /// many requests share the others.
    pub(super) fn needs_place(&self, backend: BackendId, how: Speak, endpoint: &Endpoint) -> bool {
        let counts = match (how, &endpoint.spec.transport) {
            (Speak::Opaque, _) | (Speak::Http1, Transport::Plain) | (_, Transport::Tls(_)) => true,
            (_, Transport::Plain | Transport::Mesh(_)) => false,
        };
        counts && self.snapshot.backend(backend).is_some_and(|backend| backend.limited.is_some())
    }

    /// Gives the place to the connection that was made for it: one that is kept for others keeps it, one that others share
    /// needs none.
    pub(super) fn settle(&mut self, upstream: &mut Upstream) {
        match upstream {
            Upstream::H1(connection) => connection.place = self.place.take(),
            Upstream::H2(_) => self.place = None,
            Upstream::Mux(_) | Upstream::Opaque(_) => {}
        }
    }

    /// Takes a connection's place, if there is one at once.
    pub(super) fn free_place(&self, backend: BackendId) -> Option<Option<Box<Place>>> {
        loop {
            let backends = self.worker.backends();
            match backends.connect(self.snapshot, backend) {
                Ok(place) => return Some(place.map(Box::new)),
                Err(_) => {
                    // An idle connection of this service makes room.
                    let endpoints = backends.endpoints_of(self.snapshot, backend).to_vec();
                    let keys = endpoints.iter().map(|endpoint: &Rc<Endpoint>| endpoint.key);
                    if !self.worker.h1_pools.borrow_mut().evict(keys) {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes a connection's place, waiting for it if need be. `Err`: the exchange was told that there is none.
    pub(super) async fn reserve<S: Source>(
        &mut self,
        backend: BackendId,
        source: &mut S,
    ) -> Result<Option<Box<Place>>, ()> {
        if let Some(place) = self.free_place(backend) {
            return Ok(place);
        }
        let by = match self.queue(Limit::Connections, backend) {
            Ok(waiting) => {
                let _waits = Waits::begin(self.worker);
                let mut gone = pin!(source.gone());
                loop {
                    match self.woken(gone.as_mut(), waiting.until).await {
                        Woken::Done => return Err(()),
                        Woken::Over => break waiting.by,
                        Woken::Look => {}
                    }
                    if let Some(place) = self.free_place(backend) {
                        return Ok(place);
                    }
                }
            }
            Err(by) => by,
        };
        self.refuse(by, backend);
        self.handle(Input::ConnectFailed(ConnectFailure::Limit));
        Err(())
    }

    /// Waits until it is worth looking again, or until something is over.
    async fn woken(&mut self, gone: std::pin::Pin<&mut impl Future<Output = ()>>, until: Instant) -> Woken {
        let now = self.worker.now();
        // A connection attempt's own deadline is about peers that do not answer; nobody was asked yet.
        let (due, reason) = self.exchange.poll_timeout().unwrap_or((super::NEVER, Reason::IdleTimeout));
        let mut rung = pin!(self.worker.room.notified());
        rung.as_mut().enable();
        tokio::select! {
            biased;
            () = gone => {
                self.handle(Input::DownstreamGone);
                return Woken::Done;
            }
            () = rung => {}
            () = self.alarm.until(due.min(until).min(now.after(LOOK_AGAIN))) => {}
        }
        let now = self.worker.now();
        match reason {
            _ if now < due.min(until) => Woken::Look,
            Reason::ConnectTimeout => Woken::Over,
            _ if now >= due => {
                self.handle(Input::Timeout);
                Woken::Done
            }
            _ => Woken::Over,
        }
    }
}

/// Somebody waits, so that requests that end ring.
struct Waits<'w>(&'w Worker);

impl<'w> Waits<'w> {
    fn begin(worker: &'w Worker) -> Self {
        worker.waiting.set(worker.waiting.get() + 1);
        Self(worker)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}
