//! The registry as the API shows it.

use std::collections::BTreeMap;

use leno_core::name::ServiceId;
use leno_core::time::Instant;
use leno_wire::api;

use super::member::{Expired, Health, Member, MemberKey, reach};
use super::{Registry, StreamView};
use crate::store::{RoleRecord, owned};

impl Registry {
    /// How many of each there are.
    pub(crate) fn counts(&self) -> api::Counts {
        let by_service = self.count_by_service();
        let proxies = self.members.values().filter(|member| !matches!(member.role, RoleRecord::Plain(_)));
        api::Counts {
            services: self.service_names().count() as u64,
            gateways: self.gateways.len() as u64,
            instances: by_service.values().map(|(all, _)| all).sum(),
            healthy: by_service.values().map(|(_, healthy)| healthy).sum(),
            proxies: proxies.clone().count() as u64,
            connected: proxies.filter(|member| member.attachment.is_some()).count() as u64,
        }
    }

    /// Every proxy with a lease.
    pub(crate) fn proxies(&self) -> Vec<api::ProxyView> {
        let mut streams: BTreeMap<(&ServiceId, &str), (leno_core::index::SubscriberId, &StreamView)> =
            BTreeMap::new();
        for (id, view) in &self.streams {
            streams.insert((&view.service, view.node.as_str()), (*id, view));
        }
        let proxies = self.members.iter().filter(|(_, member)| !matches!(member.role, RoleRecord::Plain(_)));
        proxies
            .map(|(key, member)| {
                let stream = streams.get(&(&key.service, key.name.as_str()));
                let up_to_date = stream.is_some_and(|(id, view)| view.settled && !self.index.is_dirty(*id));
                let acknowledged = stream.map_or(0, |(_, view)| view.acknowledged);
                api::ProxyView {
                    name: key.name.to_string(),
                    kind: kind(&member.role),
                    service: key.service.to_string(),
                    connected: member.attachment.is_some(),
                    generation_acknowledged: if up_to_date {
                        self.generation()
                    } else {
                        acknowledged.max(member.generation)
                    },
                    up_to_date,
                    version: Some(member.proxy_version.clone()).filter(|version| !version.is_empty()),
                    zone: self.zone_of(key, member),
                    rejected: stream
                        .into_iter()
                        .flat_map(|(_, view)| &view.rejected)
                        .map(|(resource, reason)| api::Rejection {
                            resource: resource.clone(),
                            reason: reason.clone(),
                        })
                        .collect(),
                }
            })
            .collect()
    }

    /// Where a proxy is, as it says itself, or as the file says of its gateway.
    fn zone_of(&self, key: &MemberKey, member: &Member) -> Option<String> {
        let zone = match reach(&member.role) {
            Some(reach) => reach.tags.zone.as_ref(),
            None => self.gateways.get(&key.service).and_then(|gateway| gateway.zone.as_ref()),
        };
        zone.map(ToString::to_string)
    }

    /// Every declared service.
    pub(crate) fn services(&self) -> Vec<api::ServiceView> {
        let counts = self.count_by_service();
        self.service_names().filter_map(|id| self.service_view(id, counts.get(id).copied())).collect()
    }

    /// One declared service.
    pub(crate) fn service_by_name(&self, id: &ServiceId) -> Option<api::ServiceView> {
        self.service_view(id, self.count_by_service().get(id).copied())
    }

    /// Live instances and those whose lease ended lately, of one service or of all, sorted by service and name.
    pub(crate) fn instances(&self, of: Option<&ServiceId>, now: Instant) -> Vec<api::InstanceView> {
        let wanted = |service: &ServiceId| of.is_none_or(|of| of == service);
        let live = self.members.iter().filter(|(key, _)| wanted(&key.service));
        let mut all: Vec<api::InstanceView> =
            live.filter_map(|(key, member)| instance_view(key, member, None, now)).collect();
        let expired = self.expired.iter().filter(|expired| wanted(&expired.key.service));
        all.extend(expired.filter_map(|e: &Expired| instance_view(&e.key, &e.member, Some(e.at), now)));
        for (id, service) in self.file.iter().filter(|(id, _)| wanted(id)) {
            let names = service.spec.external.iter().flat_map(|external| &external.names);
            all.extend(names.map(|named| api::InstanceView {
                name: named.name.to_string(),
                service: id.to_string(),
                transport: api::TransportKind::Plain,
                address: format!("{}:{}", named.host, named.port),
                version: named.version.as_ref().map(String::from),
                weight: named.weight,
                zone: named.tags.zone.as_ref().map(ToString::to_string),
                labels: owned(&named.tags.labels),
                health: api::HealthState::Healthy,
                reason: None,
                lease_remaining_ms: None,
                connected: None,
                generation_acknowledged: None,
            }));
            all.extend(service.endpoints.iter().map(|endpoint| api::InstanceView {
                name: endpoint.name.to_string(),
                service: id.to_string(),
                transport: api::TransportKind::Plain,
                address: endpoint.address.to_string(),
                version: endpoint.version.as_ref().map(String::from),
                weight: endpoint.weight,
                zone: endpoint.tags.zone.as_ref().map(ToString::to_string),
                labels: owned(&endpoint.tags.labels),
                health: if endpoint.healthy {
                    api::HealthState::Healthy
                } else {
                    api::HealthState::Unhealthy
                },
                reason: None,
                lease_remaining_ms: None,
                connected: None,
                generation_acknowledged: None,
            }));
        }
        all.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        all
    }

    /// Names of declared services, in order.
    fn service_names(&self) -> impl Iterator<Item = &ServiceId> {
        let mut names: Vec<&ServiceId> = self.file.keys().chain(self.api.keys()).collect();
        names.sort();
        names.dedup();
        names.into_iter()
    }

    /// One declared service with its counts.
    fn service_view(&self, id: &ServiceId, counts: Option<(u64, u64)>) -> Option<api::ServiceView> {
        let spec = self.service(id)?;
        let (instances, healthy) = counts.unwrap_or_default();
        let in_file = self.file.get(id).into_iter().flat_map(|service| &service.endpoints);
        let members = self.members_of(id).filter_map(|(_, member)| reach(&member.role)?.version.as_ref());
        let mut versions: Vec<String> = in_file
            .filter_map(|endpoint| endpoint.version.as_ref())
            .chain(members)
            .map(String::from)
            .collect();
        versions.sort();
        versions.dedup();
        Some(api::ServiceView {
            name: id.to_string(),
            source: if self.file.contains_key(id) { api::Source::File } else { api::Source::Api },
            instances,
            healthy,
            versions,
            declaration: spec.into(),
        })
    }
}

/// One instance; `None` for a gateway's proxy.
fn instance_view(
    key: &MemberKey,
    member: &Member,
    expired: Option<Instant>,
    now: Instant,
) -> Option<api::InstanceView> {
    let reach = reach(&member.role)?;
    let sidecar = matches!(member.role, RoleRecord::Sidecar(_));
    let (health, reason) = match (&member.health, expired) {
        (_, Some(at)) => {
            let ago = now.since(at).as_secs();
            (api::HealthState::Expired, Some(format!("no heartbeat; its lease ended {ago} s ago")))
        }
        (Health::Healthy, None) => (api::HealthState::Healthy, None),
        (Health::Unhealthy(reason), None) => (api::HealthState::Unhealthy, Some(reason.clone())),
    };
    let lease = member.lease_ends.filter(|_| expired.is_none());
    Some(api::InstanceView {
        name: key.name.to_string(),
        service: key.service.to_string(),
        transport: if sidecar { api::TransportKind::Mesh } else { api::TransportKind::Plain },
        address: reach.address.to_string(),
        version: reach.version.as_ref().map(String::from),
        weight: reach.weight,
        zone: reach.tags.zone.as_ref().map(ToString::to_string),
        labels: owned(&reach.tags.labels),
        health,
        reason,
        lease_remaining_ms: lease.map(|ends| u64::try_from(ends.since(now).as_millis()).unwrap_or(u64::MAX)),
        connected: sidecar.then_some(member.attachment.is_some() && expired.is_none()),
        generation_acknowledged: sidecar.then_some(member.generation),
    })
}

/// What a proxy is.
const fn kind(role: &RoleRecord) -> api::ProxyKind {
    match role {
        RoleRecord::Gateway => api::ProxyKind::Gateway,
        RoleRecord::Sidecar(_) | RoleRecord::Plain(_) => api::ProxyKind::Sidecar,
    }
}
