//! Listening sockets: one per worker and address, with SO_REUSEPORT, so that the kernel spreads connections over the
//! workers and none of them takes a lock to accept.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;

use leno_core::time::Duration;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::caller::Caller;
use crate::config::CaptureMode;
use crate::telemetry::bump;
use crate::worker::Worker;
use crate::{downstream, gateway, mux};

/// Connections that the kernel keeps until they are accepted (nginx 511, Envoy 1024).
const BACKLOG: i32 = 1024;
/// Pause after a failed accept: out of descriptors is the usual reason, and does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Peers, over the mesh transport.
    Mesh,
    /// A caller of this kind.
    Http(Caller),
    /// Clients from outside, through a gateway's listener of this name.
    Gateway(std::sync::Arc<str>),
    /// The workload beside, through connections that were intercepted on their way to somewhere else.
    Captured,
    /// Outside the mesh, through connections to the application that were intercepted in this way.
    CapturedInbound(CaptureMode),
}

impl Purpose {
    /// The name in metrics.
    const fn word(&self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Captured | Self::Http(Caller::Captured { .. }) => "captured",
            Self::Http(Caller::Forward) => "forward",
            Self::Http(Caller::Dependency { .. }) => "dependency",
            Self::Gateway(_) | Self::Http(Caller::Gateway(_) | Caller::Passage { .. }) => "gateway",
            Self::Http(Caller::Inbound { .. } | Caller::Mirror { .. }) => "inbound",
            Self::CapturedInbound(_) => "captured_inbound",
        }
    }
}

/// One address, bound once for each worker.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) purpose: Purpose,
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<StdListener>,
}

/// Binds `address` for so many workers. Port 0 becomes one free port, the same for all.
pub(crate) fn bind(purpose: Purpose, address: SocketAddr, workers: usize) -> io::Result<Listener> {
    // Two processes of one user could share a port by SO_REUSEPORT without noticing; the first bind is made without
    // it, so that a taken port is an error.
    if address.port() != 0 {
        drop(socket(&purpose, address, false)?);
    }
    let first = socket(&purpose, address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(&purpose, address, true)?);
    }
    Ok(Listener { purpose, address, sockets })
}

fn socket(purpose: &Purpose, address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Answers are written whole: waiting for more to say would only delay them. Connections inherit it.
    socket.set_tcp_nodelay(true)?;
    if let Purpose::Captured | Purpose::CapturedInbound(_) = purpose
        && address.is_ipv6()
    {
        // Each family has a socket of its own: of an IPv4 connection on an IPv6 socket the original destination is not told.
        socket.set_only_v6(true)?;
    }
    if let Purpose::CapturedInbound(CaptureMode::Tproxy) = purpose {
        if address.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Accepts connections until the worker drains.
pub(crate) async fn accept(worker: Rc<Worker>, socket: StdListener, purpose: Purpose) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let name = purpose.word();
    loop {
        let drain = worker.drain.notified();
        if worker.draining() {
            return Ok(());
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = drain => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(guard) = admit(&worker, name) else { continue };
                match &purpose {
                    Purpose::Mesh => {
                        worker.spawn(move |worker| mux::accept::accept(worker, stream, peer, guard));
                    }
                    Purpose::Http(caller) => {
                        downstream::serve(&worker, stream, peer, caller.clone(), guard);
                    }
                    Purpose::Gateway(name) => gateway::accept(&worker, stream, peer, name, guard),
                    Purpose::Captured => downstream::captured(&worker, stream, peer, guard),
                    Purpose::CapturedInbound(mode) => {
                        downstream::captured_inbound(&worker, stream, peer, *mode, guard);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, listener = name, "a connection could not be accepted");
                bump(&mut worker.telemetry().limits, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection in the gauges.
#[derive(Debug)]
pub(crate) struct Guard {
    worker: Rc<Worker>,
    listener: &'static str,
}

/// Counts a connection; `None` at the limit.
pub(crate) fn admit(worker: &Rc<Worker>, listener: &'static str) -> Option<Guard> {
    let telemetry = &mut *worker.telemetry();
    let open: i64 = telemetry.connections.values().sum();
    if open >= crate::worker::CONNECTIONS_MAX as i64 {
        bump(&mut telemetry.limits, "connections");
        return None;
    }
    bump(&mut telemetry.accepted, listener);
    *telemetry.connections.entry(listener).or_default() += 1;
    Some(Guard { worker: worker.clone(), listener })
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.worker.telemetry().connections.entry(self.listener).or_default() -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, bind};

    #[test]
    fn connections_inherit_that_nothing_is_delayed() {
        let listener = bind(Purpose::Mesh, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let _client = std::net::TcpStream::connect(listener.address).unwrap();
        listener.sockets[0].set_nonblocking(false).unwrap();
        let (accepted, _) = listener.sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
