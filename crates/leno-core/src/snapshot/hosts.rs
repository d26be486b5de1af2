//! The host names by which a workload may call a service.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::head::host_of;
use crate::name::{Label, ServiceId};

/// The host names of a service: `name` (default namespace only), `name.namespace`, `name.namespace.mesh`.
pub(super) fn host_names(id: &ServiceId) -> Vec<String> {
    let mut names = alloc::vec![
        alloc::format!("{}.{}", id.name, id.namespace),
        alloc::format!("{}.{}.mesh", id.name, id.namespace),
    ];
    if id.in_default_namespace() {
        names.push(id.name.to_string());
    }
    names
}

/// The service that a host could name, by the forms of [`host_names`].
pub(super) fn service_of_host(authority: &[u8]) -> Option<ServiceId> {
    let host = core::str::from_utf8(host_of(authority)).ok()?.to_ascii_lowercase();
    // A name without a dot and an address are told apart by the label's rules: 10.0.0.1 has four parts.
    let mut parts = host.split('.');
    let (name, namespace, mesh, rest) = (parts.next()?, parts.next(), parts.next(), parts.next());
    if rest.is_some() || mesh.is_some_and(|part| part != "mesh") {
        return None;
    }
    let namespace = namespace.unwrap_or(crate::name::DEFAULT_NAMESPACE);
    Some(ServiceId::new(Label::parse(namespace).ok()?, Label::parse(name).ok()?))
}
