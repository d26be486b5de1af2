//! Lists without rules that lead to one endpoint.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::rates::counting;
use super::{BackendSpec, Build, LocalApp, budget, expected};
use crate::rate::Rate;
use crate::route::{BackendId, Expected, ListId, RuleList, Then};
use crate::spec::{Balance, EndpointSpec, Protocol, ServiceSpec, Tags, Transport, Via, World};
use crate::time::Duration;

impl Build<'_> {
    /// One list without rules that leads to one endpoint, for callers that have chosen it themselves.
    pub(super) fn instance(
        &mut self,
        service: &ServiceSpec,
        endpoint: &EndpointSpec,
        rates: &[Rate],
    ) -> ListId {
        let name: Arc<str> = alloc::format!("{}#{}", service.id, endpoint.name).into();
        // Whoever names an instance means it, whatever its checks and weight say.
        let endpoint = Arc::new(EndpointSpec { weight: 1, healthy: true, ..endpoint.clone() });
        let endpoints = alloc::vec![endpoint];
        let limited = self.limited(service, &endpoints);
        self.snapshot.backends.push(BackendSpec {
            name: name.clone(),
            service: service.id.clone(),
            balance: Balance::RoundRobin,
            care: service.care.clone(),
            backup: None,
            limited,
            protocol: service.protocol,
            budget: budget(service),
            send_proxy: service.send_proxy,
            endpoints,
            zones: None,
            by_names: false,
        });
        let backend = BackendId(self.snapshot.backends.len() as u32 - 1);
        let otherwise = self.add_split(alloc::vec![(backend, 1)]);
        let tries = self.tries(service.tries.as_deref(), None);
        self.add_list(RuleList {
            name,
            rules: counting(rates.to_vec(), otherwise, tries).into_iter().collect::<Vec<_>>().into(),
            otherwise,
            timeout: service.timeout,
            tries,
            expected: expected(service),
        })
    }

    /// The gateway that what leaves has to pass.
    pub(super) fn via(&mut self, via: &Via) {
        let service = via.identity.service.clone();
        self.snapshot.backends.push(BackendSpec {
            name: alloc::format!("{service} (egress)").into(),
            balance: Balance::RoundRobin,
            care: None,
            backup: None,
            limited: None,
            protocol: Protocol::Auto,
            budget: None,
            send_proxy: None,
            endpoints: alloc::vec![Arc::new(EndpointSpec {
                name: service.name.as_str().into(),
                address: via.address,
                transport: Transport::Mesh(via.identity.clone()),
                version: None,
                weight: 1,
                healthy: true,
                tags: Tags::NONE,
            })],
            zones: None,
            by_names: false,
            service,
        });
        let backend = BackendId(self.snapshot.backends.len() as u32 - 1);
        self.snapshot.via = Some(self.add_split(alloc::vec![(backend, 1)]));
    }

    /// One list without rules that leads to the application beside this sidecar.
    pub(super) fn local(&mut self, app: &LocalApp, world: &World) {
        let declared = world.services.get(&app.service).map(|known| &known.spec);
        self.snapshot.backends.push(BackendSpec {
            name: alloc::format!("{} (local)", app.service).into(),
            service: app.service.clone(),
            balance: Balance::RoundRobin,
            care: None,
            backup: None,
            limited: None,
            protocol: declared.map_or(Protocol::Auto, |spec| spec.protocol),
            budget: declared.and_then(budget),
            send_proxy: None,
            endpoints: alloc::vec![Arc::new(EndpointSpec {
                name: app.instance.clone(),
                address: app.address,
                transport: Transport::Plain,
                version: None,
                weight: 1,
                // A failing check stops others from sending here; what arrives all the same is tried.
                healthy: true,
                tags: Tags::NONE,
            })],
            zones: None,
            by_names: false,
        });
        let backend = BackendId(self.snapshot.backends.len() as u32 - 1);
        let mut otherwise = self.add_split(alloc::vec![(backend, 1)]);
        self.snapshot.concurrency = declared.and_then(|spec| spec.care.as_ref()?.concurrency.clone());
        if let (Then::Split(split), true) = (otherwise, self.snapshot.concurrency.is_some()) {
            otherwise = Then::Admit(split);
        }
        let tries = self.local_tries(declared);
        let rates = self.inbound_rates(&app.service, world);
        let list = RuleList {
            name: app.service.to_string().into(),
            rules: counting(rates, otherwise, tries).into_iter().collect::<Vec<_>>().into(),
            otherwise,
            timeout: None::<Duration>,
            tries,
            expected: declared.map_or(Expected::Anything, expected),
        };
        self.snapshot.local = Some(self.add_list(list));
    }
}
