//! What the mesh is right now: declared services and gateways, live instances, and what proxies are told of them.
//!
//! Pure and in memory: every method takes the time, changes the state and adds to [`Effects`] what must be kept on
//! disk and which streams must be woken. The shell around it ([`crate::mesh`]) holds the lock and does both.
//!
//! A service's endpoints are one resource. When they change for the first time in a while they are published at once;
//! when they change in a burst (a deployment, a restart of everything) they are published every [`BURST_WINDOW`], so
//! that a burst of N registrations costs each subscriber a few messages and not N. A lone change never waits.

mod member;
mod quota;
mod refusal;
mod stream;
mod tokens;
mod view;

pub(crate) use member::{Arrival, Attachment, Health, MemberKey};
pub(crate) use refusal::Refusal;
pub(crate) use stream::StreamView;
pub(crate) use tokens::Tokens;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use leno_core::index::{Index, Key, Kind, SubscriberId, Version};
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::spec::{EgressSpec, EndpointSpec, GatewaySpec, ServiceSpec, Transport};
use leno_core::time::{Duration, Instant};
use leno_wire::{Known, full_name};

use crate::store::{GENERATION_KEY, Loaded, Op, RoleRecord, Table};
use member::{Expired, Member};

/// The whole state of the control plane but for its secrets.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Whose ids the members have.
    trust_domain: TrustDomain,
    /// How long a member stays without a heartbeat.
    lease: Duration,
    /// Services of the mesh file, with the endpoints that stand in it.
    file: BTreeMap<ServiceId, FileService>,
    /// Services declared through the API; one in `file` of the same name hides them.
    api: BTreeMap<ServiceId, ServiceSpec>,
    /// Gateways of the mesh file, by identity.
    gateways: BTreeMap<ServiceId, GatewaySpec>,
    /// Live instances and gateways' proxies.
    members: BTreeMap<MemberKey, Member>,
    /// When the leases of `members` end; exactly one entry per member with a lease.
    leases: BTreeSet<(Instant, MemberKey)>,
    /// Members whose lease ended lately, oldest first; shown for a while.
    expired: VecDeque<Expired>,
    /// What proxies are told, and who must be.
    index: Index<Bytes>,
    /// Services whose endpoints changed, and when to publish them.
    due: BTreeMap<ServiceId, Instant>,
    /// When the endpoints of a service were last published; only declared services.
    published: BTreeMap<ServiceId, Instant>,
    /// Open control streams.
    streams: BTreeMap<SubscriberId, StreamView>,
    /// The last number given to a stream or an attachment.
    last_number: u64,
    /// Generations up to here may be given out before the number on disk must be raised.
    reserved: u64,
    /// When leases were last looked at: a gap means that this process stood still, not that everybody died.
    looked: Instant,
}

/// A service of the mesh file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileService {
    /// As declared.
    pub(crate) spec: ServiceSpec,
    /// Plain endpoints that stand in the file.
    pub(crate) endpoints: Vec<EndpointSpec>,
}

/// What a change of the registry makes necessary outside of it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be kept, in order.
    pub(crate) ops: Vec<Op>,
    /// Streams to wake.
    pub(crate) touched: BTreeSet<SubscriberId>,
}

impl Registry {
    /// The registry as it was kept. Every member gets a whole new lease: sidecars need time to find us again.
    pub(crate) fn restore(trust_domain: TrustDomain, lease: Duration, loaded: Loaded, now: Instant) -> Self {
        let mut registry = Self {
            trust_domain,
            lease,
            file: BTreeMap::new(),
            api: BTreeMap::new(),
            gateways: BTreeMap::new(),
            members: BTreeMap::new(),
            leases: BTreeSet::new(),
            expired: VecDeque::new(),
            index: Index::new(loaded.generation),
            due: BTreeMap::new(),
            published: BTreeMap::new(),
            streams: BTreeMap::new(),
            last_number: 0,
            reserved: loaded.generation,
            looked: now,
        };
        for record in loaded.members {
            let lease_ends = (!matches!(record.role, RoleRecord::Plain(_))).then(|| now.after(lease));
            let key = MemberKey { service: record.service.clone(), name: record.name.clone() };
            if let Some(ends) = lease_ends {
                registry.leases.insert((ends, key.clone()));
            }
            registry.members.insert(key, Member::restored(record, lease_ends));
        }
        // Nobody is subscribed yet: the effects are empty but for the generation, which the first change reserves.
        let mut effects = Effects::default();
        for spec in loaded.services {
            let id = spec.id.clone();
            registry.api.insert(id.clone(), spec);
            registry.publish_service(&id, now, &mut effects);
        }
        registry
    }

    /// Takes the services and gateways of a new version of the mesh file in place of the old ones.
    pub(crate) fn set_file(
        &mut self,
        services: Vec<FileService>,
        gateways: Vec<GatewaySpec>,
        egress: &EgressSpec,
        now: Instant,
        effects: &mut Effects,
    ) {
        // First: nothing that the new rules forbid leaves because something else is known already.
        self.set_egress(egress, effects);
        let new: BTreeMap<_, _> =
            services.into_iter().map(|service| (service.spec.id.clone(), service)).collect();
        let old = std::mem::replace(&mut self.file, new);
        let names: BTreeSet<ServiceId> = old.keys().chain(self.file.keys()).cloned().collect();
        for id in names {
            if old.get(&id) != self.file.get(&id) {
                self.publish_service(&id, now, effects);
            }
        }
        self.gateways = gateways.into_iter().map(|gateway| (gateway.id.clone(), gateway)).collect();
        let all: Vec<_> = self
            .gateways
            .values()
            .map(|gateway| {
                let (version, content) = encode(&Known::Gateway(gateway.clone()));
                (gateway.id.clone(), version, content)
            })
            .collect();
        self.index.reset(Kind::Gateway, all, &mut effects.touched);
        self.finish(now, effects);
    }

    /// Publishes what may leave the mesh. What says nothing is not published: it is what every proxy begins with.
    fn set_egress(&mut self, egress: &EgressSpec, effects: &mut Effects) {
        if *egress == EgressSpec::default() {
            self.index.delete(&Key::egress(), &mut effects.touched);
        } else {
            let (version, content) = encode(&Known::Egress(egress.clone()));
            self.index.apply(Key::egress(), version, content, &mut effects.touched);
        }
    }

    /// Declares a service through the API; true if it is new.
    pub(crate) fn put_service(
        &mut self,
        spec: ServiceSpec,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<bool, Refusal> {
        let id = spec.id.clone();
        if self.file.contains_key(&id) {
            return Err(Refusal::DeclaredInFile(id));
        }
        // A certificate names one or the other.
        if self.has_gateway(&id) {
            return Err(Refusal::IsGateway(id));
        }
        if self.api.len() >= SERVICES_MAX && !self.api.contains_key(&id) {
            return Err(Refusal::TooMany { what: "services", most: SERVICES_MAX });
        }
        let bytes = Known::Service(spec.clone()).encode();
        effects.ops.push(Op::Put(Table::Services, full_name(&id), bytes));
        let new = self.api.insert(id.clone(), spec).is_none();
        self.publish_service(&id, now, effects);
        self.finish(now, effects);
        Ok(new)
    }

    /// Takes a declaration through the API back. Its plain endpoints go with it; sidecars keep their leases.
    pub(crate) fn delete_service(
        &mut self,
        id: &ServiceId,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.file.contains_key(id) {
            return Err(Refusal::DeclaredInFile(id.clone()));
        }
        if self.api.remove(id).is_none() {
            return Err(Refusal::NoSuchService(id.clone()));
        }
        effects.ops.push(Op::Delete(Table::Services, full_name(id)));
        let plain: Vec<MemberKey> = self
            .members_of(id)
            .filter(|(_, member)| matches!(member.role, RoleRecord::Plain(_)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in plain {
            self.remove(&key, effects);
        }
        self.publish_service(id, now, effects);
        self.finish(now, effects);
        Ok(())
    }

    /// Does what has become due: publishes endpoints that waited, ends leases. To be called at
    /// [`Registry::poll_timeout`], and now and then.
    pub(crate) fn tick(&mut self, now: Instant, effects: &mut Effects) -> Vec<MemberKey> {
        let ended = self.end_leases(now, effects);
        self.finish(now, effects);
        ended
    }

    /// When to [`Registry::tick`] next, if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due.values().min().copied();
        let lease = self.leases.first().map(|(ends, _)| *ends);
        due.into_iter().chain(lease).min()
    }

    /// The declaration in force.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<&ServiceSpec> {
        self.file.get(id).map(|service| &service.spec).or_else(|| self.api.get(id))
    }

    /// Whether there is a gateway with this identity.
    pub(crate) fn has_gateway(&self, id: &ServiceId) -> bool {
        self.gateways.contains_key(id)
    }

    /// The number of the last change of what proxies are told.
    pub(crate) const fn generation(&self) -> u64 {
        self.index.generation()
    }

    /// What proxies are told.
    pub(crate) const fn index_mut(&mut self) -> &mut Index<Bytes> {
        &mut self.index
    }

    /// Members of `service`, in order of their names.
    fn members_of(&self, service: &ServiceId) -> impl Iterator<Item = (&MemberKey, &Member)> {
        let service = service.clone();
        let all = self.members.range((MemberKey::first_of(&service), std::ops::Bound::Unbounded));
        all.take_while(move |(key, _)| key.service == service)
    }

    /// Publishes the declaration of `id`, or that there is none, and marks its endpoints.
    fn publish_service(&mut self, id: &ServiceId, now: Instant, effects: &mut Effects) {
        let key = Key::new(Kind::Service, id.clone());
        match self.service(id).cloned() {
            Some(spec) => {
                // Endpoints first: no proxy may know the service and not yet where it is.
                self.publish_endpoints(id, now, effects);
                let (version, content) = encode(&Known::Service(spec));
                self.index.apply(key, version, content, &mut effects.touched);
            }
            None => {
                self.index.delete(&key, &mut effects.touched);
                self.index.delete(&Key::new(Kind::Endpoints, id.clone()), &mut effects.touched);
                self.due.remove(id);
                self.published.remove(id);
            }
        }
    }

    /// The endpoints of `id` changed: publish them now, or with others that follow shortly.
    fn endpoints_changed(&mut self, id: &ServiceId, now: Instant) {
        if self.service(id).is_some() {
            let last = self.published.get(id);
            let at = last.map_or(now, |last| last.after(BURST_WINDOW).max(now));
            self.due.entry(id.clone()).or_insert(at);
        }
    }

    /// Publishes where `id` can be reached.
    fn publish_endpoints(&mut self, id: &ServiceId, now: Instant, effects: &mut Effects) {
        let mut endpoints: BTreeMap<Arc<str>, EndpointSpec> = BTreeMap::new();
        for endpoint in self.file.get(id).map(|service| &service.endpoints).into_iter().flatten() {
            endpoints.insert(endpoint.name.clone(), endpoint.clone());
        }
        for (key, member) in self.members_of(id) {
            let (transport, reach) = match &member.role {
                RoleRecord::Sidecar(reach) => {
                    let identity = SpiffeId { trust_domain: self.trust_domain.clone(), service: id.clone() };
                    (Transport::Mesh(identity), reach)
                }
                RoleRecord::Plain(reach) => (Transport::Plain, reach),
                RoleRecord::Gateway => continue,
            };
            let name: Arc<str> = key.name.as_str().into();
            endpoints.entry(name.clone()).or_insert(EndpointSpec {
                name,
                address: reach.address,
                transport,
                version: reach.version.clone(),
                weight: reach.weight,
                healthy: member.health.is_healthy(),
                tags: reach.tags.clone(),
            });
        }
        let (version, content) = encode(&Known::Endpoints(id.clone(), endpoints.into_values().collect()));
        self.index.apply(Key::new(Kind::Endpoints, id.clone()), version, content, &mut effects.touched);
        self.due.remove(id);
        self.published.insert(id.clone(), now);
    }

    /// Ends every change: publishes what is due, keeps generations ahead of what is given out.
    fn finish(&mut self, now: Instant, effects: &mut Effects) {
        let due: Vec<ServiceId> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.publish_endpoints(&id, now, effects);
        }
        if self.index.generation() > self.reserved {
            self.reserved = self.index.generation().saturating_add(GENERATIONS_RESERVED);
            let bytes = self.reserved.to_be_bytes().to_vec();
            effects.ops.push(Op::Put(Table::Meta, GENERATION_KEY.to_owned(), bytes));
        }
    }

    /// A number never given before.
    const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// The content of a resource and the version that follows from it: the first half of its SHA-256.
fn encode(known: &Known) -> (Version, Bytes) {
    let content = known.encode();
    let digest = digest::digest(&digest::SHA256, &content);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_ref()[..16]);
    (Version(u128::from_be_bytes(half)), content.into())
}

/// How long further changes of one service's endpoints wait to be published together.
const BURST_WINDOW: Duration = Duration::from_millis(20);
/// Generations that are given out between two raises of the number on disk, so that not every change of health costs a
/// write; a restart jumps ahead by at most as many.
const GENERATIONS_RESERVED: u64 = 1000;
/// Most services declared through the API: beyond it, something registers them in a loop.
const SERVICES_MAX: usize = 10_000;
/// Most live members: at some 500 bytes each, bounds memory at 50 MB.
const MEMBERS_MAX: usize = 100_000;

#[cfg(test)]
mod tests;
