//! Where the known services that are outside the mesh are.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::net::SocketAddr;

use crate::egress::Destination;
use crate::spec::{KnownService, Transport};

/// Hosts and addresses with the port that somebody listens on there.
#[derive(Debug, Default)]
pub(super) struct Places {
    hosts: BTreeMap<Arc<str>, BTreeSet<u16>>,
    addresses: BTreeSet<SocketAddr>,
}

impl Places {
    /// Adds where a service answers, if that is outside the mesh.
    pub(super) fn add(&mut self, service: &KnownService) {
        for named in service.spec.external.iter().flat_map(|external| &external.names) {
            self.hosts.entry(named.host.clone()).or_default().insert(named.port);
        }
        let outside = service.endpoints.iter().filter(|it| !matches!(it.transport, Transport::Mesh(_)));
        self.addresses.extend(outside.map(|endpoint| endpoint.address));
    }

    /// True when a known service is there: by the name, where there is one, else by the address.
    pub(super) fn have(&self, destination: &Destination) -> bool {
        match (&destination.host, destination.ip) {
            (Some(host), _) => {
                self.hosts.get(host.as_str()).is_some_and(|ports| ports.contains(&destination.port))
            }
            (None, Some(ip)) => self.addresses.contains(&SocketAddr::new(ip, destination.port)),
            (None, None) => false,
        }
    }
}
