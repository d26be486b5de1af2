//! The endpoints of each service and version that a rule leads to.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Build;
use super::tries::budget;
use super::zones::ZonePlan;
use crate::backend::Limited;
use crate::name::{Label, ServiceId};
use crate::route::BackendId;
use crate::spec::{Balance, BudgetSpec, Care, EndpointSpec, Labels, Protocol, ServiceSpec, World};

/// A named set of endpoints as configured; its live twin is [`crate::backend::Backend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// `service` or `service@version`, with `[label=value]` where it is of some labels; live state is carried over a swap by it.
    pub name: Arc<str>,
    /// The service.
    pub service: ServiceId,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// How endpoints are looked after; `None`: as [`Care::new`] says.
    pub care: Option<Arc<Care>>,
    /// What takes its requests when none of its endpoints can.
    pub backup: Option<BackendId>,
    /// What is counted of it, if it has limits.
    pub limited: Option<Limited>,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// How many retries its endpoints take; `None`: as many as without configuration.
    pub budget: Option<BudgetSpec>,
    /// Connections begin with a PROXY header.
    pub send_proxy: Option<crate::proxy_protocol::Version>,
    /// In the order of their names.
    pub endpoints: Vec<Arc<EndpointSpec>>,
    /// Which of them are preferred, where it is known where they are; `None`: all are alike.
    pub zones: Option<Arc<ZonePlan>>,
    /// Its places are known by names: when there are no endpoints, no name has an address.
    pub by_names: bool,
}

/// One service's endpoints, in the order of their names.
#[derive(Default)]
pub(super) struct Endpoints {
    all: Vec<Arc<EndpointSpec>>,
    of_version: BTreeMap<Label, Vec<Arc<EndpointSpec>>>,
}

impl Endpoints {
    fn new(specs: &[EndpointSpec]) -> Self {
        let mut all: Vec<Arc<EndpointSpec>> = specs.iter().cloned().map(Arc::new).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut of_version: BTreeMap<Label, Vec<_>> = BTreeMap::new();
        for endpoint in &all {
            if let Some(version) = &endpoint.version {
                of_version.entry(version.clone()).or_default().push(endpoint.clone());
            }
        }
        Self { all, of_version }
    }
}

impl Build<'_> {
    pub(super) fn backend(
        &mut self,
        service: &ServiceSpec,
        version: Option<&Label>,
        labels: &Labels,
        endpoints: &[EndpointSpec],
    ) -> BackendId {
        let key = (service.id.clone(), version.cloned(), labels.clone());
        if let Some(id) = self.backends.get(&key) {
            return *id;
        }
        let mut name = match version {
            Some(version) => alloc::format!("{}@{version}", service.id),
            None => service.id.to_string(),
        };
        if !labels.is_empty() {
            name = alloc::format!("{name}[{labels}]");
        }
        let known = self.endpoints.entry(service.id.clone()).or_insert_with(|| Endpoints::new(endpoints));
        let endpoints = match version {
            Some(version) => known.of_version.get(version).map_or(&[][..], |known| known),
            None => &known.all,
        };
        let endpoints: Vec<_> =
            endpoints.iter().filter(|endpoint| endpoint.is_of(None, labels)).cloned().collect();
        let zones = ZonePlan::new(self.zone.as_ref(), service.care.as_deref(), &endpoints).map(Arc::new);
        let limited = self.limited(service, &endpoints);
        self.snapshot.backends.push(BackendSpec {
            name: name.into(),
            service: service.id.clone(),
            balance: service.balance,
            care: service.care.clone(),
            backup: None,
            limited,
            protocol: service.protocol,
            budget: budget(service),
            send_proxy: service.send_proxy,
            endpoints,
            zones,
            by_names: service.external.as_ref().is_some_and(|external| !external.names.is_empty()),
        });
        let id = BackendId(self.snapshot.backends.len() as u32 - 1);
        self.backends.insert(key, id);
        id
    }

    /// Gives a backend, and those that back it up, the one that does. Each is looked at once, so that two that back each
    /// other up come to an end.
    pub(super) fn back_up(&mut self, backend: BackendId, service: &ServiceSpec, world: &World) {
        let (mut backend, mut service) = (backend, service);
        while let Some(known) = service.backup().and_then(|id| world.services.get(id)) {
            if self.snapshot.backend(backend).is_none_or(|spec| spec.backup.is_some()) {
                return;
            }
            let backup = self.backend(&known.spec, None, &Labels::NONE, &known.endpoints);
            let spec = self.snapshot.backends.get_mut(backend.0 as usize);
            let Some(spec) = spec.filter(|_| backup != backend) else { return };
            spec.backup = Some(backup);
            (backend, service) = (backup, &known.spec);
        }
    }

    /// What is counted of a service with limits.
    pub(super) fn limited(
        &mut self,
        service: &ServiceSpec,
        endpoints: &[Arc<EndpointSpec>],
    ) -> Option<Limited> {
        let care = service.care.as_ref().filter(|care| care.limits.is_some())?;
        // Where there is no limit for each, nothing is counted of each.
        let each = if care.limits.endpoint_requests.is_some() { endpoints } else { &[] };
        Some(self.ledgers.of(&service.id, each.iter().map(|endpoint| &endpoint.name)))
    }
}
