//! Serving until told to stop.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// Binds, says where on stdout, and serves until SIGTERM or SIGINT; then finishes what is under way.
pub(super) fn until_told(address: SocketAddr, routes: Router) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(serve(address, routes))
}

async fn serve(address: SocketAddr, routes: Router) -> Result<(), Failure> {
    let handle = |kind| signal(kind).map_err(|e| Failure::failed(format!("cannot handle signals: {e}")));
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {address}: {error}")))?;
    let bound = listener.local_addr().unwrap_or(address);
    crate::output::line(&format!("listening on http://{bound}"))?;

    let (stop, stopping) = oneshot::channel::<()>();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async {
        stopping.await.ok();
    });
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        ended = &mut server => return ended.map_err(|e| Failure::failed(format!("serving ended: {e}"))),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send(()).ok();
    // Beyond the deadline the runtime's end closes what is left.
    tokio::time::timeout(DRAIN_MAX, server).await.ok();
    Ok(())
}

/// For requests under way when told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);
