//! Services outside the mesh: from what is declared and what their names were found to mean, the endpoints that
//! requests go to.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::spec::{EndpointSpec, ExternalSpec, KnownService, NamedEndpoint, TlsSpec, Transport, World};

/// Most addresses of one name that become endpoints: a DNS answer over UDP has at most some tens, and an endless one
/// must not make endless endpoints.
pub const ADDRESSES_MAX: usize = 64;

/// What names were found to mean, in order.
pub type Addresses = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// The names that `world` needs addresses of.
pub fn names(world: &World) -> BTreeSet<Arc<str>> {
    let externals = world.services.values().filter_map(|service| service.spec.external.as_deref());
    externals.flat_map(|external| external.names.iter().map(|named| named.host.clone())).collect()
}

/// The world with an endpoint for each address of each name, and with TLS where it is declared. A name that has no
/// address (yet) has no endpoint.
pub fn resolve(world: &World, addresses: &Addresses) -> World {
    let mut world = world.clone();
    for service in world.services.values_mut() {
        if let Some(external) = service.spec.external.clone() {
            settle(service, &external, addresses);
        }
    }
    world
}

fn settle(service: &mut KnownService, external: &ExternalSpec, addresses: &Addresses) {
    if let Some(tls) = &external.tls {
        for endpoint in service.endpoints.iter_mut().filter(|it| it.transport == Transport::Plain) {
            endpoint.transport = Transport::Tls(tls.clone());
        }
    }
    for named in &external.names {
        let transport =
            external.tls.as_ref().map_or(Transport::Plain, |tls| Transport::Tls(for_host(tls, named)));
        let found = addresses.get(&named.host).map_or(&[][..], |found| found);
        service.endpoints.extend(found.iter().take(ADDRESSES_MAX).map(|ip| EndpointSpec {
            name: alloc::format!("{}/{ip}", named.name).into(),
            address: SocketAddr::new(*ip, named.port),
            transport: transport.clone(),
            version: named.version.clone(),
            weight: named.weight,
            healthy: true,
            tags: named.tags.clone(),
        }));
    }
    service.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    service.endpoints.dedup_by(|a, b| a.name == b.name);
}

/// What is asked of the host that is called so.
fn for_host(tls: &Arc<TlsSpec>, named: &NamedEndpoint) -> Arc<TlsSpec> {
    match &tls.sni {
        Some(_) => tls.clone(),
        None => Arc::new(TlsSpec { sni: Some(named.host.clone()), ..TlsSpec::clone(tls) }),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use crate::name::ServiceId;
    use crate::spec::{Balance, Protocol, ServiceSpec};

    fn world(tls: Option<TlsSpec>) -> World {
        let id = ServiceId::parse("payments").unwrap();
        let named = |name: &str, host: &str, weight| NamedEndpoint {
            name: name.into(),
            host: host.into(),
            port: 443,
            version: None,
            tags: crate::spec::Tags::NONE,
            weight,
        };
        let external = ExternalSpec {
            names: vec![named("payments-1", "pay.example", 3), named("payments-3", "gone.example", 1)],
            tls: tls.map(Arc::new),
        };
        let spec = ServiceSpec {
            id: id.clone(),
            protocol: Protocol::default(),
            balance: Balance::default(),
            care: None,
            rules: vec![],
            calls: vec![],
            health: None,
            timeout: None,
            tries: None,
            external: Some(Arc::new(external)),
            send_proxy: None,
            headless: false,
            srv_port: 80,
        };
        let endpoint = EndpointSpec {
            name: "payments-2".into(),
            address: ([192, 0, 2, 9], 443).into(),
            transport: Transport::Plain,
            version: None,
            weight: 1,
            healthy: true,
            tags: crate::spec::Tags::NONE,
        };
        let service = KnownService { spec, endpoints: vec![endpoint] };
        World { services: [(id, service)].into(), ..World::default() }
    }

    fn addresses() -> Addresses {
        let found = ["192.0.2.1", "2001:db8::1", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        [("pay.example".into(), found.to_vec())].into()
    }

    fn endpoints(world: &World) -> &[EndpointSpec] {
        &world.services.values().next().unwrap().endpoints
    }

    #[test]
    fn every_address_of_a_name_is_an_endpoint() {
        let world = world(None);
        assert_eq!(names(&world), ["gone.example".into(), "pay.example".into()].into());
        let resolved = resolve(&world, &addresses());
        let shown: Vec<String> = endpoints(&resolved)
            .iter()
            .map(|it| alloc::format!("{} {} {}", it.name, it.address, it.weight))
            .collect();
        assert_eq!(
            shown,
            [
                "payments-1/192.0.2.1 192.0.2.1:443 3",
                "payments-1/2001:db8::1 [2001:db8::1]:443 3",
                "payments-2 192.0.2.9:443 1",
            ]
        );
        assert!(endpoints(&resolved).iter().all(|it| it.transport == Transport::Plain));
    }

    #[test]
    fn tls_is_with_the_host_that_the_endpoint_is_called_by() {
        let resolved = resolve(&world(Some(TlsSpec::default())), &addresses());
        let sni: Vec<_> = endpoints(&resolved)
            .iter()
            .map(|it| match &it.transport {
                Transport::Tls(tls) => tls.sni.as_deref(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sni, [Some("pay.example"), Some("pay.example"), None]);
        let given = TlsSpec { sni: Some("other.example".into()), ..TlsSpec::default() };
        let resolved = resolve(&world(Some(given)), &addresses());
        let other = |it: &EndpointSpec| matches!(&it.transport, Transport::Tls(tls) if tls.sni.as_deref() == Some("other.example"));
        assert!(endpoints(&resolved).iter().all(other));
    }

    #[test]
    fn an_endless_answer_makes_no_endless_endpoints() {
        let many = (0..1000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into())).collect();
        let resolved = resolve(&world(None), &[("pay.example".into(), many)].into());
        assert_eq!(endpoints(&resolved).len(), ADDRESSES_MAX + 1);
    }
}
