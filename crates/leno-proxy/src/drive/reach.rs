//! From an endpoint to a connection or stream on which a request can be sent.

use std::rc::Rc;

use leno_core::affinity;
use leno_core::backend::{Choice, Endpoint, NO_KEY, NoEndpoint, Permit};
use leno_core::exchange::{ConnectFailure, Input};
use leno_core::proxy_protocol::{self, Ends};
use leno_core::rng::Rng;
use leno_core::route::{BackendId, Speak, speak};
use leno_core::spec::{Affinity, Protocol, Transport};
use leno_core::time::Duration;

use super::Drive;
use super::wait::Waiting;
use crate::h1;
use crate::h2;
use crate::h2::client::NoStream;
use crate::mux;
use crate::opaque;
use crate::outliers;
use crate::outside::{self, Reached, Refused};
use crate::telemetry::bump;
use crate::worker::Worker;

/// A connection or stream to an upstream.
pub(super) enum Upstream {
    H1(Box<h1::client::Connection>),
    Mux(Box<mux::stream::Stream>),
    H2(Box<h2::Call>),
    Opaque(Box<opaque::Connection>),
}

impl Drive<'_> {
    /// What a new connection begins with before anybody's first byte: a header that names the client, where that is asked for.
    pub(super) fn begin(&self, upstream: &Upstream, backend: BackendId) -> std::io::Result<()> {
        let version = self.snapshot.backend(backend).and_then(|backend| backend.send_proxy);
        let (Upstream::Opaque(connection), Some(version)) = (upstream, version) else { return Ok(()) };
        let endpoint = self.exchange.endpoint().map(|endpoint| endpoint.spec.address);
        let source = self.client.address;
        let destination = self.client.destination.or(endpoint).unwrap_or(source);
        let mut header = Vec::new();
        proxy_protocol::encode(version, &Ends { source, destination }, &mut header);
        connection.begin_with(&header)
    }

    /// What the endpoint is spoken to.
    pub(super) fn how(&self, endpoint: &Endpoint, protocol: Protocol) -> Speak {
        let how = speak(self.request.kind, protocol);
        if how != Speak::Http2 || protocol != Protocol::Auto {
            return how;
        }
        // Whoever has not said what it speaks is tried; nearly everybody who has WebSockets has them over HTTP/1.
        let known = self.worker.h2_pools.borrow().speaks_http1(endpoint.key, self.worker.now());
        if known || !self.request.upgrade.is_empty() { Speak::Http1 } else { how }
    }

    /// Takes a place on an endpoint, if there is one and one more attempt is allowed. What comes back has to be waited for.
    pub(super) fn pick(&mut self, choice: Choice, budget: bool) -> Option<Waiting> {
        if let (Choice::Backend(backend), true) = (choice, budget)
            && !self.budget_allows(backend)
        {
            self.handle(Input::OverBudget);
            return None;
        }
        match self.choose(choice) {
            Err(NoEndpoint::Limit { by, backend }) => self.limited(by, backend),
            picked => {
                self.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked));
                None
            }
        }
    }

    /// A place on an endpoint that this request has not tried, if there is one.
    pub(super) fn choose(&mut self, choice: Choice) -> Result<Permit, NoEndpoint> {
        let now = self.worker.now();
        let mut backends = self.worker.backends();
        let (inline, count) = self.exchange.tried();
        let planned = self.exchange.planned_tried();
        let tried = planned.unwrap_or_else(|| inline.get(..count).unwrap_or(&[]));
        let first = tried.is_empty();
        let (head, source, cookie) = (&self.head, self.client.address.ip(), &mut self.cookie);
        let mut pick = |choice, tried: &[u64]| {
            let key = |affinity: &Affinity, rng: &mut Rng| affinity::key(affinity, head, source, cookie, rng);
            backends.pick_by(self.snapshot, choice, tried, now, &mut self.worker.rng(), key)
        };
        let picked = match self.leaving.map_or(&[][..], |leaving| &leaving.addresses) {
            // A policy goes on with what was tried before, the one that failed last only when there is no other.
            [] if planned.is_some() => pick(choice, tried)
                .or_else(|why| {
                    unless_limited(why, || pick(choice, tried.last().map_or(&[], std::slice::from_ref)))
                })
                .or_else(|why| unless_limited(why, || pick(choice, if first { &[] } else { &[NO_KEY] }))),
            [] => pick(choice, tried),
            // One address after the other, as the name has them.
            [first, others @ ..] => {
                others.iter().fold(pick(Choice::Direct(*first), tried), |picked, next| {
                    picked.or_else(|_| pick(Choice::Direct(*next), tried))
                })
            }
        };
        if let Ok(permit) = &picked
            && first
        {
            backends.request_started(self.snapshot, permit.backend(), now);
        }
        if backends.has_events() {
            let events = backends.events().collect();
            outliers::tell(self.worker, events);
        }
        picked
    }
}

/// True when a connection between two Lenos stands, so that none need be made; others are [`ready`] before anybody asks.
pub(super) fn stands(worker: &Rc<Worker>, endpoint: &Rc<Endpoint>) -> bool {
    matches!(endpoint.spec.transport, Transport::Mesh(_)) && mux::pool::stands(worker, endpoint)
}

/// A connection that stands already.
pub(super) fn ready(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    how: Speak,
    upgrading: bool,
) -> Option<Upstream> {
    let http1 = || {
        let connection = worker.h1_pools.borrow_mut().take(endpoint.key, worker.now())?;
        Some(Upstream::H1(connection))
    };
    let http2 = || h2::client::ready(worker, endpoint).map(Upstream::H2);
    match (&endpoint.spec.transport, how) {
        (Transport::Plain, Speak::Http1) => http1(),
        (Transport::Plain, Speak::Http2) => http2(),
        // What the server has agreed to is what there is.
        (Transport::Tls(_), Speak::Http1 | Speak::Http2) if upgrading => http1(),
        (Transport::Tls(_), Speak::Http1 | Speak::Http2) => http2().or_else(http1),
        _ => None,
    }
}

/// A connection to `endpoint`, made if need be. The caller bounds its own wait; one that others wait for too goes on for as
/// long as the longest default, or for `within`. Cancel-safe.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    how: Speak,
    protocol: Protocol,
    upgrading: bool,
    within: Duration,
) -> Result<Upstream, Refused> {
    let auto = protocol == Protocol::Auto;
    match (&endpoint.spec.transport, how) {
        (Transport::Plain, Speak::Opaque) => {
            let connection = opaque::Connection::dial(worker, endpoint.spec.address).await;
            let connection = connection.map_err(|_| ConnectFailure::Refused)?;
            bump(&mut worker.telemetry().dialed, "plain");
            Ok(Upstream::Opaque(Box::new(connection)))
        }
        (Transport::Plain, Speak::Http2) => {
            let scheme = http::uri::Scheme::HTTP;
            match h2::client::connect(worker, endpoint, scheme, within, h2::client::dial_plain).await {
                Ok(call) => Ok(Upstream::H2(call)),
                Err(NoStream::NotHttp2) if auto => dial_http1(worker, endpoint).await,
                Err(NoStream::NotHttp2) => Err(ConnectFailure::Refused.into()),
                Err(NoStream::Connect(failure)) => Err(failure.into()),
            }
        }
        (Transport::Plain, Speak::Http1) => dial_http1(worker, endpoint).await,
        (Transport::Mesh(id), _) => {
            let (conn, _) = mux::pool::connect(worker, endpoint, id, within).await?;
            Ok(Upstream::Mux(Box::new(mux::stream::Stream::dial(conn))))
        }
        (Transport::Tls(spec), how) => {
            let offers = outside::offers(how, protocol, upgrading, spec);
            Ok(match outside::reach(worker, endpoint, spec, &offers, within).await? {
                Reached::Http2(call) => Upstream::H2(call),
                Reached::Stream(stream) if how == Speak::Opaque => {
                    Upstream::Opaque(Box::new(opaque::Connection::over(worker, stream)))
                }
                Reached::Stream(stream) => {
                    Upstream::H1(Box::new(h1::client::Connection::over(worker, stream)))
                }
            })
        }
    }
}

async fn dial_http1(worker: &Rc<Worker>, endpoint: &Endpoint) -> Result<Upstream, Refused> {
    let connection = h1::client::Connection::dial(worker, endpoint.spec.address).await;
    let connection = connection.map_err(|_| ConnectFailure::Refused)?;
    bump(&mut worker.telemetry().dialed, "plain");
    Ok(Upstream::H1(Box::new(connection)))
}

/// Looks again, unless it is a limit that is in the way: another endpoint would not help.
fn unless_limited(
    why: NoEndpoint,
    look: impl FnOnce() -> Result<Permit, NoEndpoint>,
) -> Result<Permit, NoEndpoint> {
    match why {
        NoEndpoint::Limit { .. } => Err(why),
        _ => look(),
    }
}
