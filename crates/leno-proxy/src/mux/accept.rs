//! Connections that peers make to this sidecar: the handshake says who they are, each stream is one request for the
//! application beside.

use std::net::SocketAddr;
use std::rc::Rc;

use leno_core::edit::Edits;
use leno_core::mux::Role;
use leno_core::peer::SpiffeId;
use leno_core::time::Duration;
use leno_identity::reason::explain_io;
use leno_identity::svid::peer_of;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stream::Stream;
use super::{Conn, Ended, NewStream, who_refused};
use crate::alarm::Alarm;
use crate::caller::Caller;
use crate::drive::drive;
use crate::telemetry::Direction;
use crate::tls::ALPN;
use crate::worker::Worker;

/// How long a peer may take for its handshake: two round trips and some cryptography.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a peer until the connection ends.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, from: SocketAddr) {
    let Some((tls, peer)) = handshake(&worker, stream, from).await else { return };
    tracing::debug!(%peer, %from, "a peer connected");
    let conn = Conn::new(Role::Acceptor, worker.clock, Rc::default());
    worker.mux_pools.borrow_mut().accepted(&conn);
    if worker.draining() {
        conn.drain();
    }
    let source = peer.service.to_string().into();
    let pair = worker.telemetry().pair(Direction::Inbound, &source, &worker.own_name);
    let caller = Rc::new(Caller::Inbound { source, pair });
    let streams = conn.clone();
    let ended = conn
        .run(tls, |new| {
            let (worker, conn, caller) = (worker.clone(), streams.clone(), caller.clone());
            tokio::task::spawn_local(serve_stream(worker, conn, caller, from, new));
        })
        .await;
    match ended {
        Ended::Broken(error) => tracing::warn!(%peer, %from, %error, "a peer's connection failed"),
        ended => tracing::debug!(%peer, %from, ?ended, "a peer's connection ended"),
    }
}

async fn serve_stream(
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    caller: Rc<Caller>,
    from: SocketAddr,
    new: NewStream,
) {
    let mut stream = Stream::accept(conn, new.stream, new.slot);
    let mut alarm = Alarm::new(worker.clock);
    let mut edits = Edits::default();
    let Stream { reader, writer } = &mut stream;
    drive(&worker, &caller, from, &new.request, &mut edits, reader, writer, &mut alarm).await;
}

async fn handshake(
    worker: &Worker,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<(TlsStream<TcpStream>, SpiffeId)> {
    let refused = |by: &'static str, reason: String| {
        // Whose fault it is is in the reason; for us it is a peer's mistake, not an error of ours.
        tracing::warn!(%from, reason, "refused a TLS connection");
        *worker.telemetry().tls_refused.entry((by, reason)).or_default() += 1;
    };
    let Some(tls) = worker.tls().clone() else {
        refused("self", "no_credential".into());
        return None;
    };
    let deadline = worker.clock.to_tokio(worker.now().after(HANDSHAKE_TIMEOUT));
    let accept = TlsAcceptor::from(tls.server.clone()).accept(stream);
    let stream = match tokio::time::timeout_at(deadline, accept).await {
        Err(_) => {
            refused("self", "handshake_timeout".into());
            return None;
        }
        Ok(Err(error)) => {
            match explain_io(&error) {
                Some(reason) => {
                    tracing::warn!(%from, %reason, "a TLS connection was refused");
                    let by = who_refused(&reason);
                    *worker.telemetry().tls_refused.entry((by, reason.label().to_owned())).or_default() += 1;
                }
                None => refused("peer", "connection_lost".into()),
            }
            return None;
        }
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        refused("self", "protocol".into());
        return None;
    }
    match peer_of(session.peer_certificates().unwrap_or(&[])) {
        Ok(peer) => Some((stream, peer)),
        Err(_) => {
            refused("self", "not_spiffe".into());
            None
        }
    }
}
