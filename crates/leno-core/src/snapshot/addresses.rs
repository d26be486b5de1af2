//! What names of the mesh resolve to, and what the virtual addresses stand for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::name::{Label, ServiceId};
use crate::route::ListId;
use crate::spec::{EndpointSpec, KnownService};
use crate::vip::{Vip, Vips};

/// Virtual addresses of the services of one world.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    targets: BTreeMap<IpAddr, Target>,
    services: BTreeMap<ServiceId, Published>,
}

/// Whom a virtual address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service; its rules say which instance.
    Service(ServiceId),
    /// This instance of a headless service, and no other.
    Instance(ServiceId, Label),
}

/// How a service can be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its own addresses.
    pub vip: Vip,
    /// Its name resolves to its instances.
    pub headless: bool,
    /// What SRV records say.
    pub port: u16,
    /// The instances of a headless service, by name; empty for any other.
    pub instances: Vec<Instance>,
}

/// An instance of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: Label,
    /// Its addresses.
    pub vip: Vip,
    /// Its share beside the others.
    pub weight: u32,
    /// It takes new requests: it is healthy, and has a weight.
    pub takes: bool,
    /// The list that leads to it alone.
    pub(super) list: ListId,
}

impl Addresses {
    /// Gives a service its addresses. `instance_list` makes the list that leads to one endpoint alone.
    pub(super) fn publish(
        &mut self,
        service: &KnownService,
        vips: &mut Vips,
        mut instance_list: impl FnMut(&EndpointSpec) -> ListId,
    ) {
        let id = &service.spec.id;
        let vip = vips.service(id);
        for address in vip.addresses() {
            self.targets.insert(address, Target::Service(id.clone()));
        }
        let mut instances = Vec::new();
        for endpoint in service.endpoints.iter().filter(|_| service.spec.headless) {
            // What has no name that can stand in a host name cannot be asked for.
            let Ok(name) = Label::parse(&endpoint.name) else { continue };
            let vip = vips.instance(id, &name);
            for address in vip.addresses() {
                self.targets.insert(address, Target::Instance(id.clone(), name.clone()));
            }
            instances.push(Instance {
                name,
                vip,
                weight: endpoint.weight,
                takes: endpoint.healthy && endpoint.weight > 0,
                list: instance_list(endpoint),
            });
        }
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        let (headless, port) = (service.spec.headless, service.spec.srv_port);
        self.services.insert(id.clone(), Published { vip, headless, port, instances });
    }

    pub(super) fn target(&self, address: IpAddr) -> Option<&Target> {
        self.targets.get(&address.to_canonical())
    }

    pub(super) fn service(&self, id: &ServiceId) -> Option<&Published> {
        self.services.get(id)
    }

    pub(super) fn has_namespace(&self, namespace: &Label) -> bool {
        self.services.keys().any(|id| id.namespace == *namespace)
    }
}

impl Published {
    /// The instance of this name.
    pub fn instance(&self, name: &Label) -> Option<&Instance> {
        let at = self.instances.binary_search_by(|instance| instance.name.cmp(name)).ok()?;
        self.instances.get(at)
    }
}

/// Its full host name.
impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Service(id) => write!(f, "{}.{}.mesh", id.name, id.namespace),
            Self::Instance(id, instance) => write!(f, "{instance}.{}.{}.mesh", id.name, id.namespace),
        }
    }
}
