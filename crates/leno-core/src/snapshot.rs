//! The validated world that one proxy needs, immutable, swapped whole. Built from a [`World`] by [`Snapshot::build`],
//! which resolves every name once, so that a request resolves none.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::backend::Ledgers;
use crate::edit::Edits;
use crate::egress::{self, Destination, Verdict};
use crate::exchange::Tries;
use crate::head::{RequestHead, host_of};
use crate::name::{Label, ServiceId};
use crate::rate::Rate;
use crate::route::{
    BackendId, Changed, Decision, Expected, Facts, Link, ListId, Passed, RuleList, Rules, Split, SplitId,
    Then, TriesId, Unfit, decide, decide_connection, trail,
};
use crate::spec::{
    ActionSpec, Concurrency, EgressSpec, KnownService, Labels, ListenerSpec, Protocol, ServiceSpec,
    TargetSpec, TriesSpec, World, Zone,
};
use crate::vip::{Vips, is_virtual};

mod addresses;
mod backends;
mod hosts;
mod places;
mod rates;
mod rules;
mod single;
mod tries;
mod zones;

use addresses::Addresses;
pub use addresses::{Instance, Published, Target};
pub use backends::BackendSpec;
use backends::Endpoints;
use hosts::{host_names, service_of_host};
use places::Places;
use rates::{counting, rates_of};
use tries::budget;
pub use zones::{Level, ZonePlan};

/// Longest host name looked up (RFC 1035 §2.3.4); a longer one is no service's.
const HOST_BYTES_MAX: usize = 255;

/// What one proxy decides by.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The generation of the world it was built from.
    pub generation: u64,
    /// Rule lists of services and of the gateway.
    pub lists: Vec<RuleList>,
    /// Weighted choices between backends.
    pub splits: Vec<Split>,
    /// The endpoints of each service and version that a rule leads to.
    pub backends: Vec<BackendSpec>,
    tries: Vec<Arc<Tries>>,
    /// Host names (lower case, no port) by which a workload may call a service.
    hosts: BTreeMap<String, ListId>,
    /// The list of each known service.
    services: BTreeMap<ServiceId, ListId>,
    /// Services known not to exist.
    absent: alloc::collections::BTreeSet<ServiceId>,
    /// What names resolve to, and what the virtual addresses stand for.
    addresses: Addresses,
    /// The gateway's list, in a gateway.
    gateway: Option<ListId>,
    /// The gateway's listeners.
    listeners: Vec<Arc<ListenerSpec>>,
    /// The list of each target that gets copies of requests.
    mirrors: BTreeMap<(ServiceId, Option<Label>), ListId>,
    /// The list that leads to the application beside this sidecar.
    local: Option<ListId>,
    /// How many requests the application beside this sidecar works on at a time, where that has a limit; those for it are
    /// decided as [`Then::Admit`].
    pub concurrency: Option<Concurrency>,
    /// What may leave the mesh.
    pub egress: EgressSpec,
    /// The way to the gateway that what leaves has to pass.
    via: Option<Then>,
    /// Where the known services that are outside the mesh are: what leaves for there is declared.
    places: Places,
    /// What requests are counted by.
    rates: Vec<Rate>,
}

/// Where a request enters the proxy; it selects the list of rules that decides first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The workload's forward proxy: the request's authority names the service.
    Forward,
    /// The workload's local port for one dependency.
    Dependency(&'a ServiceId),
    /// A gateway's listener.
    Gateway,
    /// The mesh: a request for the application beside this sidecar.
    Inbound,
    /// A copy of a request, for this service and version.
    Mirror(&'a (ServiceId, Option<Label>)),
    /// An intercepted connection to this address: a virtual one names a service or an instance, any other itself.
    Address(SocketAddr),
}

/// The application beside a sidecar.
#[derive(Clone, Debug)]
pub struct LocalApp {
    /// The service that it is an instance of.
    pub service: ServiceId,
    /// The instance's name.
    pub instance: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a request's authority says in a forward proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A service that this proxy knows.
    Known,
    /// It could be a service; the control plane has not been asked yet.
    Unknown(ServiceId),
    /// No service has that name.
    Absent,
}

impl Snapshot {
    /// Builds the snapshot for `world`, and for the application beside this proxy if there is one. Whatever a rule
    /// names and the world lacks becomes an answer with a reason, never a failure of the whole. Virtual addresses are those
    /// of a process that has just started.
    pub fn build(world: &World, local: Option<&LocalApp>) -> Self {
        Self::build_with(world, local, &mut Vips::new(), &mut Ledgers::default())
    }

    /// The same with the virtual addresses that this process has given out so far, and with what it has in use.
    pub fn build_with(
        world: &World,
        local: Option<&LocalApp>,
        vips: &mut Vips,
        ledgers: &mut Ledgers,
    ) -> Self {
        ledgers.keep(&world.services.keys().collect());
        ledgers.rates.begin();
        let mut build = Build {
            ledgers,
            snapshot: Self::default(),
            backends: BTreeMap::new(),
            splits: BTreeMap::new(),
            tries: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            own: local.map(|app| &app.service).or(world.gateway.as_ref().map(|gateway| &gateway.id)),
            zone: world.own.zone.clone().or_else(|| world.gateway.as_ref()?.zone.clone()),
        };
        build.snapshot.generation = world.generation;
        build.snapshot.absent = world.absent.clone();
        build.snapshot.egress = world.egress.clone();
        for service in world.services.values() {
            build.snapshot.places.add(service);
        }
        // Every service has its list before any rule is resolved, so that rules may name any service.
        for (id, service) in &world.services {
            let tries = build.tries(service.spec.tries.as_deref(), None);
            let list = build.add_list(RuleList {
                name: id.to_string().into(),
                rules: Rules::default(),
                otherwise: Then::NoSuchService,
                timeout: service.spec.timeout,
                tries,
                expected: expected(&service.spec),
            });
            build.snapshot.services.insert(id.clone(), list);
            for host in host_names(id) {
                build.snapshot.hosts.insert(host, list);
            }
        }
        for (id, service) in &world.services {
            build.service(id, service, world);
        }
        build.publish(world, vips);
        if let Some(gateway) = &world.gateway {
            let name: Arc<str> = gateway.id.name.as_str().into();
            let rules = build.rules(&gateway.id, &gateway.rules, None, world).into();
            let list = build.add_list(RuleList {
                name,
                rules,
                otherwise: Then::NoRoute,
                timeout: None,
                tries: None,
                expected: Expected::Http,
            });
            build.snapshot.gateway = Some(list);
            build.snapshot.listeners.clone_from(&gateway.listeners);
        }
        if let Some(via) = &world.egress.via {
            build.via(via);
        }
        if let Some(app) = local {
            build.local(app, world);
        }
        build.ledgers.rates.end();
        build.snapshot
    }

    /// Decides where a request goes.
    pub fn decide(&self, entry: Entry<'_>, head: &RequestHead<'_>) -> Decision {
        self.decide_on(entry, head, Link::UNKNOWN)
    }

    /// The same for a request that came over `link`.
    pub fn decide_on(&self, entry: Entry<'_>, head: &RequestHead<'_>, link: Link<'_>) -> Decision {
        // A tunnel through a forward proxy or gateway carries bytes, not requests: that is not served yet.
        if head.method == b"CONNECT" && entry != Entry::Inbound {
            return Decision { then: Then::Unsupported, ..Decision::nowhere(ListId(u32::MAX)) };
        }
        match self.list(entry, head.authority) {
            Some(list) => decide(&self.lists, list, head, link),
            None => Self::undecided(entry),
        }
    }

    /// What the rules on the way of a request make of it and of its answer, once it is decided where it goes. Edits for its
    /// headers go into `edits`.
    ///
    /// # Errors
    /// The request would be too long.
    pub fn change(
        &self,
        entry: Entry<'_>,
        head: &RequestHead<'_>,
        facts: &Facts<'_>,
        edits: &mut Edits,
    ) -> Result<Changed, Unfit> {
        match self.list(entry, head.authority) {
            Some(list) => Changed::by(&self.lists, list, head, facts, edits),
            None => Ok(Changed::default()),
        }
    }

    /// Which rules had a say about a request, and which lost.
    pub fn trail(&self, entry: Entry<'_>, head: &RequestHead<'_>, link: Link<'_>) -> Vec<Passed> {
        self.list(entry, head.authority).map_or(Vec::new(), |list| trail(&self.lists, list, head, link))
    }

    /// Decides where a connection goes that carries no requests; `authority` is the `host:port` that a tunnel through the
    /// forward proxy asks for.
    pub fn decide_connection(&self, entry: Entry<'_>, authority: &[u8], link: Link<'_>) -> Decision {
        match self.list(entry, authority) {
            Some(list) => decide_connection(&self.lists, list, link, authority),
            None => Self::undecided(entry),
        }
    }

    /// What may be spoken on a connection that enters at `entry`.
    pub fn expected(&self, entry: Entry<'_>) -> Expected {
        match entry {
            Entry::Forward | Entry::Gateway | Entry::Mirror(_) => Expected::Http,
            Entry::Dependency(_) | Entry::Inbound | Entry::Address(_) => {
                let list = self.list(entry, b"").and_then(|list| self.lists.get(list.0 as usize));
                list.map_or(Expected::Anything, |list| list.expected)
            }
        }
    }

    /// What the endpoints of a backend speak.
    pub fn protocol(&self, backend: BackendId) -> Protocol {
        self.backend(backend).map_or(Protocol::Auto, |backend| backend.protocol)
    }

    /// The service that a virtual address stands for, or that the instance belongs to for which it stands.
    pub fn service_at(&self, address: IpAddr) -> Option<&ServiceId> {
        self.target_at(address).map(|(Target::Service(id) | Target::Instance(id, _))| id)
    }

    /// Whom a virtual address stands for. [`Entry::Address`] decides by it.
    pub fn target_at(&self, address: IpAddr) -> Option<&Target> {
        self.addresses.target(address)
    }

    /// How a service can be resolved.
    pub fn published(&self, service: &ServiceId) -> Option<&Published> {
        self.addresses.service(service)
    }

    /// True when a service of this namespace is known.
    pub fn has_namespace(&self, namespace: &Label) -> bool {
        self.addresses.has_namespace(namespace)
    }

    #[inline]
    fn list(&self, entry: Entry<'_>, authority: &[u8]) -> Option<ListId> {
        match entry {
            Entry::Forward => self.list_of_host(authority),
            Entry::Dependency(service) => self.services.get(service).copied(),
            Entry::Gateway => self.gateway,
            Entry::Inbound => self.local,
            Entry::Mirror(target) => self.mirrors.get(target).copied(),
            Entry::Address(address) => match self.target_at(address.ip())? {
                Target::Service(service) => self.services.get(service).copied(),
                Target::Instance(service, name) => {
                    self.published(service)?.instance(name).map(|instance| instance.list)
                }
            },
        }
    }

    /// The decision about a request that the gateway's listener does not let in.
    pub fn turned_away(&self, then: Then) -> Decision {
        Decision { then, ..Decision::nowhere(self.gateway.unwrap_or(ListId(u32::MAX))) }
    }

    fn undecided(entry: Entry<'_>) -> Decision {
        let then = match entry {
            Entry::Gateway => Then::NoRoute,
            // An application that remembers the address of a service which is gone must not be sent into nowhere.
            Entry::Address(address) if !is_virtual(address.ip()) => Then::Direct(address),
            Entry::Address(_) | Entry::Forward | Entry::Dependency(_) | Entry::Inbound | Entry::Mirror(_) => {
                Then::NoSuchService
            }
        };
        Decision { then, ..Decision::nowhere(ListId(u32::MAX)) }
    }

    /// The gateway's listener with this name.
    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerSpec>> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }

    /// What is known of the service that `authority` names.
    pub fn look_up(&self, authority: &[u8]) -> Lookup {
        if self.list_of_host(authority).is_some() {
            return Lookup::Known;
        }
        service_of_host(authority).map_or(Lookup::Absent, |service| self.look_up_service(&service))
    }

    /// What is known of a service.
    pub fn look_up_service(&self, service: &ServiceId) -> Lookup {
        if self.services.contains_key(service) {
            Lookup::Known
        } else if self.absent.contains(service) {
            Lookup::Absent
        } else {
            Lookup::Unknown(service.clone())
        }
    }

    /// Decides whether `source` may reach a place outside the mesh.
    pub fn may_leave(&self, source: &ServiceId, destination: &Destination) -> Verdict<'_> {
        egress::decide(&self.egress, source, destination, self.places.have(destination))
    }

    /// Where what leaves goes first, for everybody but the gateway there.
    pub fn egress_via(&self, own: &ServiceId) -> Option<Then> {
        let via = self.egress.via.as_ref()?;
        self.via.filter(|_| via.identity.service != *own)
    }

    /// True for the gateway that what leaves has to pass.
    pub fn is_egress_gateway(&self, own: &ServiceId) -> bool {
        self.egress.via.as_ref().is_some_and(|via| via.identity.service == *own)
    }

    /// True for a place that only the mesh can mean, and that no service outside of it is declared at.
    pub fn is_of_mesh(&self, destination: &Destination) -> bool {
        egress::is_of_mesh(&self.egress, destination) && !self.places.have(destination)
    }

    /// The name of a list, as users know it; empty when the decision came from none.
    pub fn list_name(&self, list: ListId) -> &str {
        self.lists.get(list.0 as usize).map_or("", |list| &list.name)
    }

    /// The rule that a decision names: `LIST/RULE`, or `LIST` when none matched.
    pub fn rule_name(&self, decision: &Decision) -> (&str, Option<&str>) {
        let list = self.lists.get(decision.list.0 as usize);
        let rule = decision.rule.and_then(|at| list?.rules.get(at as usize)).map(|rule| &*rule.name);
        (list.map_or("", |list| &list.name), rule)
    }

    /// The backend that an id names.
    pub fn backend(&self, id: BackendId) -> Option<&BackendSpec> {
        self.backends.get(id.0 as usize)
    }

    fn list_of_host(&self, authority: &[u8]) -> Option<ListId> {
        let host = host_of(authority);
        if host.len() > HOST_BYTES_MAX {
            return None;
        }
        let mut lower = [0_u8; HOST_BYTES_MAX];
        let lower = &mut lower[..host.len()];
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.hosts.get(core::str::from_utf8(lower).ok()?).copied()
    }
}

/// What a service's declaration says about connections to it.
fn expected(spec: &ServiceSpec) -> Expected {
    let looks_at_requests = spec.rules.iter().any(|rule| {
        rule.when.looks_at_requests() || rule.change.is_some() || matches!(rule.then, ActionSpec::Answer(_))
    });
    // Requests are counted, and bytes of which nobody has said what they are would pass uncounted.
    let looks_at_requests = looks_at_requests || !rates_of(spec).is_empty();
    match spec.protocol {
        Protocol::Tcp => Expected::Opaque,
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => Expected::Http,
        Protocol::Auto if looks_at_requests => Expected::Http,
        Protocol::Auto => Expected::Anything,
    }
}

/// A snapshot under construction.
struct Build<'l> {
    snapshot: Snapshot,
    /// What is in use of services with limits.
    ledgers: &'l mut Ledgers,
    /// Backends made so far, so that two rules with one target share its live state.
    backends: BTreeMap<(ServiceId, Option<Label>, Labels), BackendId>,
    /// Splits made so far: the same choice made by two rules is one choice, its shares hold over both.
    splits: BTreeMap<Vec<(BackendId, u32)>, SplitId>,
    tries: BTreeMap<TriesSpec, TriesId>,
    /// The endpoints of each service that a rule leads to.
    endpoints: BTreeMap<ServiceId, Endpoints>,
    /// For whom this proxy sends; `None`: nobody says.
    own: Option<&'l ServiceId>,
    /// Where this proxy is; `None`: nobody says.
    zone: Option<Zone>,
}

impl Build<'_> {
    fn add_list(&mut self, list: RuleList) -> ListId {
        self.snapshot.lists.push(list);
        ListId(self.snapshot.lists.len() as u32 - 1)
    }

    fn service(&mut self, id: &ServiceId, service: &KnownService, world: &World) {
        let outer = service.spec.tries.as_deref();
        let mut rules = self.rules(id, &service.spec.rules, outer, world);
        let everyone = [TargetSpec { service: id.clone(), version: None, labels: Labels::NONE, weight: 1 }];
        let otherwise = self.split(&everyone, world);
        let rates = self.outbound_rates(&everyone, world);
        rules.extend(counting(rates, otherwise, self.tries(outer, None)));
        if let Some(list) = self.snapshot.services.get(id)
            && let Some(list) = self.snapshot.lists.get_mut(list.0 as usize)
        {
            list.rules = rules.into();
            list.otherwise = otherwise;
        }
    }

    /// Gives every service its virtual addresses, and each instance of a headless one its own.
    fn publish(&mut self, world: &World, vips: &mut Vips) {
        let mut addresses = Addresses::default();
        vips.begin_round();
        for service in world.services.values() {
            let everyone = [TargetSpec {
                service: service.spec.id.clone(),
                version: None,
                labels: Labels::NONE,
                weight: 1,
            }];
            let rates = self.outbound_rates(&everyone, world);
            addresses.publish(service, vips, |endpoint| self.instance(&service.spec, endpoint, &rates));
        }
        vips.end_round();
        self.snapshot.addresses = addresses;
    }
}

#[cfg(test)]
mod tests;
