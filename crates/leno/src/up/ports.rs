//! Loopback ports for a mesh on one machine.
//!
//! They are taken from below the range from which the kernel gives outgoing connections their ports. A sidecar
//! that is killed has to get its port back a moment later, while everybody else opens connections; from inside
//! that range somebody would sooner or later hold it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

use leno_core::rng::Rng;

use crate::failure::Failure;

/// Ports that nobody else can take before [`Ports::release`].
pub(super) struct Ports {
    /// Where the next free port is looked for.
    next: u16,
    range: Range<u16>,
    /// Bound, so that nobody else gets them.
    held: Vec<TcpListener>,
    /// Promised for something that listens later, or used by something that listens already.
    taken: BTreeSet<u16>,
}

impl Ports {
    /// Begins to look at a place that follows from `seed`, so that two meshes that start together rarely meet.
    pub(super) fn new(seed: u64) -> Self {
        let range = FIRST..ephemeral_begin().clamp(FIRST + SPAN_MIN, u16::MAX);
        let offset = Rng::new(seed).below(u64::from(range.end - range.start));
        let next = range.start + u16::try_from(offset).unwrap_or(0);
        Self { next, range, held: Vec::new(), taken: BTreeSet::new() }
    }

    /// A free port on 127.0.0.1.
    pub(super) fn free(&mut self) -> Result<SocketAddr, Failure> {
        for _ in self.range.clone() {
            let port = self.next;
            self.next = if port + 1 < self.range.end { port + 1 } else { self.range.start };
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            if self.taken.contains(&port) {
                continue;
            }
            if let Ok(listener) = TcpListener::bind(address) {
                self.held.push(listener);
                self.taken.insert(port);
                return Ok(address);
            }
        }
        let Range { start, end } = self.range;
        Err(Failure::failed(format!("no port from {start} to {end} of 127.0.0.1 is free")))
    }

    /// Leaves a port to whoever uses it already.
    pub(super) fn avoid(&mut self, port: u16) {
        self.taken.insert(port);
    }

    /// An address that the mesh file names; `what` says for what. Call it for all of them before [`Self::free`].
    pub(super) fn named(&mut self, address: SocketAddr, what: &str) -> Result<SocketAddr, Failure> {
        match TcpListener::bind(address) {
            Ok(listener) => {
                self.held.push(listener);
                self.taken.insert(address.port());
                Ok(address)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Failure::failed(format!(
                "{address} ({what}) is taken by another process; stop it, or name another port in the mesh file"
            ))),
            Err(error) => Err(Failure::failed(format!("cannot listen on {address} ({what}): {error}"))),
        }
    }

    /// Gives all of them up, for the processes that are about to listen.
    pub(super) fn release(self) {}
}

/// The first port from which outgoing connections are served.
fn ephemeral_begin() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    text.split_whitespace().next().and_then(|begin| begin.parse().ok()).unwrap_or(EPHEMERAL_USUAL)
}

/// Below are ports that people choose for their own services.
const FIRST: u16 = 16_000;
/// Looked through at least, even where the kernel's range begins early: a hundred instances take 500 ports.
const SPAN_MIN: u16 = 8_000;
/// Linux's default beginning of the range.
const EPHEMERAL_USUAL: u16 = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_are_below_the_ephemeral_range() {
        let mut ports = Ports::new(7);
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let port = ports.free().unwrap().port();
            assert!(seen.insert(port), "{port} twice");
            assert!((FIRST..ephemeral_begin().max(FIRST + SPAN_MIN)).contains(&port), "{port}");
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Ports::new(7).named(address, "gateway").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{address} (gateway) is taken")), "{error}");
    }
}
