//! The mesh listener: TLS 1.3, HTTP/2, gRPC, for proxies.
//!
//! A connection without a client certificate may call `Join` and nothing else, and lives a minute. One with a
//! certificate acts as the service named in it, and lives as long as that certificate: a proxy that renews in time
//! connects anew with the new one.

mod attach;
mod delta;
mod join;
mod quota;
mod rpc;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use leno_core::peer::SpiffeId;
use leno_core::time::{Duration, UnixTime};
use leno_identity::authority::LEAF_LIFETIME;
use leno_identity::svid::Facts;
use leno_identity::tls::{ALPN_CONTROL, Clock as TlsClock, control_server_config};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::error::ControlError;
use crate::mesh::Mesh;
use crate::stop::Stopping;

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The control plane's state.
    pub(crate) mesh: Arc<Mesh>,
    /// Turns true when the process is to end.
    pub(crate) stopping: Stopping,
    /// The newest configuration of TLS, with our own certificate.
    tls: Mutex<Arc<rustls::ServerConfig>>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address; for logs.
    pub(crate) address: SocketAddr,
    /// Who its certificate says it is; `None`: it has none.
    pub(crate) id: Option<SpiffeId>,
    /// When that certificate ends.
    not_after: Option<UnixTime>,
}

impl Serving {
    /// Makes our own certificate.
    ///
    /// # Errors
    /// When the authority cannot issue it.
    pub(crate) fn new(mesh: Arc<Mesh>, stopping: Stopping) -> Result<Arc<Self>, ControlError> {
        let tls = Mutex::new(tls_config(&mesh)?);
        Ok(Arc::new(Self { mesh, stopping, tls }))
    }

    /// Accepts connections until the process is to end, then gives streams a moment to end.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let stopping = self.stopping.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((_, address)) if connections.len() >= CONNECTIONS_MAX => {
                        tracing::warn!(%address, most = CONNECTIONS_MAX, "too many connections; refused");
                    }
                    Ok((tcp, address)) => {
                        connections.spawn(self.clone().connection(tcp, address));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: nothing comes of trying again at once.
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = stopping.heard() => break,
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, all).await.is_err() {
            tracing::info!(
                connections = connections.len(),
                "closing connections that did not end by themselves"
            );
            connections.shutdown().await;
        }
    }

    /// Replaces our own certificate in time, forever.
    pub(crate) async fn renew_own(&self) {
        loop {
            tokio::time::sleep(LEAF_LIFETIME / 2).await;
            match tls_config(&self.mesh) {
                Ok(config) => *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = config,
                Err(error) => {
                    tracing::error!(%error, "the control plane's own certificate cannot be renewed")
                }
            }
        }
    }

    /// One connection from its first byte to its last.
    async fn connection(self: Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        // Latency of small messages counts; a socket that refuses the option still works.
        let _ = tcp.set_nodelay(true);
        let config = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tls = match tokio::time::timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                self.mesh.tally(|tally| tally.handshakes_failed += 1);
                match leno_identity::reason::explain_io(&error) {
                    Some(reason) => tracing::warn!(%address, %reason, "TLS handshake refused"),
                    None => tracing::debug!(%address, %error, "connection ended in its TLS handshake"),
                }
                return;
            }
            Err(_) => {
                self.mesh.tally(|tally| tally.handshakes_failed += 1);
                tracing::warn!(%address, "no TLS handshake within {HANDSHAKE_WITHIN:?}");
                return;
            }
        };
        let peer = match peer_of(address, tls.get_ref().1.peer_certificates()) {
            Ok(peer) => Arc::new(peer),
            Err(reason) => {
                tracing::warn!(%address, reason, "the client's certificate cannot be used");
                return;
            }
        };
        let ends = peer.may_stay(self.mesh.clock.unix());
        let service = {
            let (serving, peer) = (self.clone(), peer.clone());
            hyper::service::service_fn(move |request| rpc::call(request, serving.clone(), peer.clone()))
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = std::pin::pin!(connection);
        let stopping = self.stopping.clone();
        let mut told = false;
        let over = tokio::time::sleep(ends);
        let mut over = std::pin::pin!(over);
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(address = %peer.address, %error, "connection broke");
                    }
                    return;
                }
                () = stopping.heard(), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Streams of an outdated identity are cut, not asked: the proxy connects with its new certificate.
                () = over.as_mut() => return,
            }
        }
    }
}

impl Peer {
    /// Who the peer proved to be.
    ///
    /// # Errors
    /// When it proved nothing.
    pub(crate) fn authenticated(&self) -> Result<&SpiffeId, tonic::Status> {
        self.id.as_ref().ok_or_else(|| {
            tonic::Status::unauthenticated(
                "a client certificate of this mesh is needed; join with a token first",
            )
        })
    }
}

impl Peer {
    /// How long its connection may live from `now` on.
    fn may_stay(&self, now: UnixTime) -> Duration {
        self.not_after.map_or(STRANGER_LIFE, |not_after| not_after.since(now).min(LEAF_LIFETIME))
    }
}

/// Reads the client's certificate, which the handshake has verified.
fn peer_of(address: SocketAddr, chain: Option<&[leno_identity::CertificateDer<'_>]>) -> Result<Peer, String> {
    let Some(leaf) = chain.and_then(<[_]>::first) else {
        return Ok(Peer { address, id: None, not_after: None });
    };
    let facts = Facts::read(leaf).map_err(|error| error.to_string())?;
    Ok(Peer { address, id: Some(facts.id), not_after: Some(facts.not_after) })
}

/// TLS with a fresh certificate of our own.
fn tls_config(mesh: &Mesh) -> Result<Arc<rustls::ServerConfig>, ControlError> {
    let credential = mesh.own_credential().map_err(|error| ControlError::Authority(error.to_string()))?;
    control_server_config(&credential, &[ALPN_CONTROL], &TlsClock::system())
        .map_err(|error| ControlError::Authority(error.to_string()))
}

/// Most connections at a time: one per proxy, and some that are about to end.
const CONNECTIONS_MAX: usize = 20_000;
/// For a TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection without a client certificate lives: enough to join, too short to sit on.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Most streams of one connection at a time: a proxy has two, and renews.
const STREAMS_MAX: u32 = 16;
/// Most bytes of one request's headers.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How often a silent connection is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long that may take. Longer than the proxy's own check: when the way is slow, the proxy decides first.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For connections to end by themselves at shutdown; their streams are told to end at once.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_lives_as_long_as_the_certificate_it_was_made_with() {
        let peer = |not_after| Peer { address: ([127, 0, 0, 1], 1).into(), id: None, not_after };
        assert_eq!(peer(Some(UnixTime(130))).may_stay(UnixTime(100)), Duration::from_secs(30));
        assert_eq!(peer(Some(UnixTime(99))).may_stay(UnixTime(100)), Duration::ZERO);
        assert_eq!(peer(Some(UnixTime(u64::MAX))).may_stay(UnixTime(100)), LEAF_LIFETIME);
        assert_eq!(peer(None).may_stay(UnixTime(100)), STRANGER_LIFE);
    }
}
