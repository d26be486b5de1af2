//! What one proxy knows of the mesh: which names it must be told about, and the [`World`] that follows from what it was
//! told.
//!
//! It wants its own service and what that declares to call, its gateway, whatever its workload asked for, and
//! everything that the rules of those lead to. Never more, so that a proxy's memory does not grow with the mesh.
//!
//! **Make before break.** A rule that leads to a service of which nothing is known yet would fail requests until the
//! answer came. So a new version of a service waits beside the old one until everything that it leads to was heard of
//! (that it is there, that it is not, or that it was refused); only then do requests see it. The price is that a change
//! arrives one round trip later.
//!
//! Nothing is forgotten because a stream broke: names leave the world only when the control plane says that they do not
//! exist, or when nothing leads to them any more.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::index::{Key, Kind};
use crate::name::ServiceId;
use crate::session::{Client, Request, Response};
use crate::spec::{
    ActionSpec, EgressMode, EgressSpec, EndpointSpec, GatewaySpec, KnownService, RuleSpec, ServiceSpec, World,
};

/// A proxy's knowledge; outlives streams. After every call that may change what is wanted, send what
/// [`Knowledge::poll`] gives until it is empty.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Subscriptions and versions.
    client: Client,
    /// The service that the workload is an instance of; what it calls is wanted too.
    own: Option<ServiceId>,
    /// Services wanted whatever the rules say: declared dependencies.
    declared: BTreeSet<ServiceId>,
    /// The gateway that this proxy is.
    gateway: Option<ServiceId>,
    /// Services that the workload asked for, with the turn of the last question.
    asked: BTreeMap<ServiceId, u64>,
    /// Questions so far.
    turns: u64,
    /// Accepted services.
    services: BTreeMap<ServiceId, Held<ServiceSpec>>,
    /// Accepted endpoints.
    endpoints: BTreeMap<ServiceId, Vec<EndpointSpec>>,
    /// The accepted gateway.
    gateway_spec: Held<GatewaySpec>,
    /// The accepted rules about what leaves the mesh.
    egress: Option<EgressSpec>,
    /// Wanted, and refused before any version was accepted.
    refused: BTreeSet<Key>,
    /// The generation of the world: the newest one of which nothing waits.
    generation: u64,
    /// How many services are subscribed to; at most [`SERVICES_MAX`].
    subscribed: usize,
    /// More is wanted than [`SERVICES_MAX`]; the rest is not subscribed to.
    overflow: bool,
}

/// The content of a resource, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A service.
    Service(ServiceSpec),
    /// The endpoints of a service.
    Endpoints(Vec<EndpointSpec>),
    /// A gateway.
    Gateway(GatewaySpec),
    /// What may leave the mesh.
    Egress(EgressSpec),
}

/// What a response did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// How many resources were accepted.
    pub accepted: usize,
    /// How many were taken away.
    pub removed: usize,
    /// Refused ones, with reasons; what was held of them stays.
    pub rejected: Vec<(Key, String)>,
}

/// The workload asked for too many services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAsked;

/// Two versions of the same thing.
#[derive(Clone, Debug)]
struct Held<T> {
    /// What requests see.
    used: Option<T>,
    /// Accepted, and waiting for what it leads to.
    next: Option<T>,
}

/// Most services that a workload can ask for beyond what is declared. Beyond it the longest unasked ones that do not
/// exist make room (an application that proxies arbitrary names asks for many such).
pub const ASKED_MAX: usize = 1024;
/// Most services that a proxy wants in all; two names each stay below what a stream may subscribe to
/// ([`crate::session::SUBSCRIPTIONS_MAX`]).
pub const SERVICES_MAX: usize = 2000;

impl Knowledge {
    /// Knows nothing, wants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The workload is an instance of `own`.
    pub fn set_own(&mut self, own: ServiceId) {
        self.own = Some(own);
        self.settle();
    }

    /// This proxy is the gateway `gateway`.
    pub fn set_gateway(&mut self, gateway: ServiceId) {
        self.gateway = Some(gateway);
        self.settle();
    }

    /// What the workload is known to call, besides what its service declares.
    pub fn set_declared(&mut self, declared: BTreeSet<ServiceId>) {
        self.declared = declared;
        self.settle();
    }

    /// The workload called `service`, which it did not declare.
    ///
    /// # Errors
    /// When [`ASKED_MAX`] services that exist are asked for already.
    pub fn ask(&mut self, service: ServiceId) -> Result<(), TooManyAsked> {
        self.turns += 1;
        if let Some(turn) = self.asked.get_mut(&service) {
            *turn = self.turns;
            return Ok(());
        }
        if self.asked.len() >= ASKED_MAX {
            self.make_room()?;
            self.settle();
        }
        // Nothing is known of a new name, so it leads nowhere yet: no need to look at everything again.
        if self.subscribed == SERVICES_MAX {
            self.overflow = true;
        } else if self.client.want(key(Kind::Endpoints, &service)) {
            self.client.want(key(Kind::Service, &service));
            self.subscribed += 1;
        }
        self.asked.insert(service, self.turns);
        Ok(())
    }

    /// Stops asking for the longest unasked services that do not exist; several at once, because each look is dear.
    fn make_room(&mut self) -> Result<(), TooManyAsked> {
        let absent = self.asked.iter().filter(|(id, _)| self.client.is_absent(&key(Kind::Service, id)));
        let mut by_turn: Vec<(u64, ServiceId)> = absent.map(|(id, turn)| (*turn, id.clone())).collect();
        if by_turn.is_empty() {
            return Err(TooManyAsked);
        }
        by_turn.sort_unstable();
        for (_, id) in by_turn.into_iter().take(ASKED_MAX / 8) {
            self.asked.remove(&id);
        }
        Ok(())
    }

    /// A new stream is open.
    pub fn connected(&mut self) {
        self.client.connected();
    }

    /// The stream is gone; nothing that is known changes.
    pub fn disconnected(&mut self) {
        self.client.disconnected();
    }

    /// The next request to send, if there is one.
    pub fn poll(&mut self) -> Option<Request> {
        self.client.poll()
    }

    /// Takes a response in. Content that could not be parsed comes as the reason.
    pub fn receive(&mut self, response: Response<Result<Content, String>>) -> Learnt {
        let Self { client, services, endpoints, gateway_spec, egress, refused, .. } = self;
        let changes = client.receive(response, |key, content| {
            match (key.kind, content?) {
                (Kind::Service, Content::Service(spec)) if spec.id == key.id => {
                    services.entry(key.id.clone()).or_default().next = Some(spec);
                }
                (Kind::Endpoints, Content::Endpoints(found)) => {
                    endpoints.insert(key.id.clone(), found);
                }
                (Kind::Gateway, Content::Gateway(spec)) if spec.id == key.id => {
                    gateway_spec.next = Some(spec);
                }
                (Kind::Egress, Content::Egress(spec)) => *egress = Some(spec),
                _ => return Err("the content is not what the name says".into()),
            }
            refused.remove(key);
            Ok(())
        });
        for removed in &changes.removed {
            self.forget(removed);
        }
        for (key, _) in &changes.rejected {
            if self.client.version(key).is_none() {
                self.refused.insert(key.clone());
            }
        }
        self.settle();
        Learnt { accepted: changes.updated.len(), removed: changes.removed.len(), rejected: changes.rejected }
    }

    /// What requests are decided by. Build and publish it after every [`Knowledge::receive`] and [`Knowledge::ask`];
    /// compare with the last one, most questions change nothing.
    pub fn world(&self) -> World {
        let mut world = World { generation: self.generation, ..World::default() };
        for (id, held) in &self.services {
            if let Some(spec) = &held.used {
                let mut endpoints = self.endpoints.get(id).cloned().unwrap_or_default();
                endpoints.sort_by(|a, b| a.name.cmp(&b.name));
                world.services.insert(id.clone(), KnownService { spec: spec.clone(), endpoints });
            }
        }
        let wanted = self.client.wanted().filter(|key| key.kind == Kind::Service);
        world.absent = wanted.filter(|key| self.client.is_absent(key)).map(|key| key.id).collect();
        world.gateway.clone_from(&self.gateway_spec.used);
        world.egress = match &self.egress {
            Some(egress) => egress.clone(),
            // There are rules, and they cannot be read: nothing leaves that they could be about.
            None if self.refused.contains(&Key::egress()) => {
                EgressSpec { mode: EgressMode::RegistryOnly, ..EgressSpec::default() }
            }
            None => EgressSpec::default(),
        };
        world
    }

    /// The newest generation heard of, whether or not all of it is in the world yet.
    pub const fn heard(&self) -> u64 {
        self.client.generation()
    }

    /// True when rules and questions lead to more than [`SERVICES_MAX`] services, so that some are not subscribed to.
    pub const fn overflows(&self) -> bool {
        self.overflow
    }

    /// True when everything wanted was heard of, so that requests can be decided.
    pub fn is_complete(&self) -> bool {
        self.client.wanted().all(|key| self.is_settled(&key)) && !self.is_waiting()
    }

    /// Puts in use what has become complete, and wants exactly what is led to.
    fn settle(&mut self) {
        // Wanting new names can complete nothing and unwanting can lead nowhere new, so one pass of each is enough.
        self.promote();
        let wanted = self.led_to();
        let unwanted: Vec<Key> = self.client.wanted().filter(|key| !wanted.contains(key)).collect();
        for key in unwanted {
            self.client.unwant(&key);
            self.forget(&key);
            self.refused.remove(&key);
        }
        for key in wanted {
            self.client.want(key);
        }
        if !self.is_waiting() {
            self.generation = self.client.generation();
        }
    }

    /// Lets requests see the versions whose targets are all heard of.
    fn promote(&mut self) {
        let waiting = self.services.iter().filter(|(_, held)| held.next.is_some());
        let ready: Vec<ServiceId> =
            waiting.map(|(id, _)| id.clone()).filter(|id| self.everything_is_settled([id.clone()])).collect();
        for id in ready {
            if let Some(held) = self.services.get_mut(&id) {
                held.promote();
            }
        }
        if let Some(next) = &self.gateway_spec.next
            && self.everything_is_settled(entered(next).cloned())
        {
            self.gateway_spec.promote();
        }
    }

    /// True when the newest versions of `first`, and of all that they lead to, were heard of.
    fn everything_is_settled(&self, first: impl IntoIterator<Item = ServiceId>) -> bool {
        let mut open: Vec<ServiceId> = first.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.contains(&id) {
                continue;
            }
            let settled = [Kind::Service, Kind::Endpoints].into_iter().all(|kind| {
                // What is beyond the limit is never heard of; waiting for it would block everything else.
                self.is_settled(&key(kind, &id)) || self.overflow
            });
            if !settled {
                return false;
            }
            if let Some(spec) = self.services.get(&id).and_then(Held::newest) {
                open.extend(targets(&spec.rules).chain(spec.backup()).cloned());
            }
            seen.insert(id);
        }
        true
    }

    fn is_settled(&self, key: &Key) -> bool {
        self.client.is_known(key) || self.refused.contains(key)
    }

    fn is_waiting(&self) -> bool {
        self.gateway_spec.next.is_some() || self.services.values().any(|held| held.next.is_some())
    }

    /// Everything that requests can come to, by the versions in use and by the waiting ones.
    fn led_to(&mut self) -> BTreeSet<Key> {
        let mut open: Vec<ServiceId> = self.asked.keys().cloned().collect();
        // Taken from the end: what is declared comes before what was asked for, should not all of it fit.
        for spec in self.gateway_spec.both() {
            open.extend(entered(spec).cloned());
        }
        open.extend(self.declared.iter().cloned());
        if let Some(own) = &self.own {
            let own_specs = self.services.get(own).into_iter().flat_map(Held::both);
            open.extend(own_specs.flat_map(|spec| spec.calls.iter().cloned()));
            open.push(own.clone());
        }
        let mut seen = BTreeSet::new();
        self.overflow = false;
        while let Some(id) = open.pop() {
            if seen.contains(&id) {
                continue;
            }
            if seen.len() == SERVICES_MAX {
                self.overflow = true;
                break;
            }
            for spec in self.services.get(&id).into_iter().flat_map(Held::both) {
                open.extend(targets(&spec.rules).chain(spec.backup()).cloned());
            }
            seen.insert(id);
        }
        self.subscribed = seen.len();
        let services = seen.iter().flat_map(|id| [key(Kind::Service, id), key(Kind::Endpoints, id)]);
        let gateway = self.gateway.iter().map(|id| key(Kind::Gateway, id));
        services.chain(gateway).chain([Key::egress()]).collect()
    }

    fn forget(&mut self, key: &Key) {
        match key.kind {
            Kind::Service => {
                self.services.remove(&key.id);
            }
            Kind::Endpoints => {
                self.endpoints.remove(&key.id);
            }
            Kind::Gateway => self.gateway_spec = Held::default(),
            Kind::Egress => self.egress = None,
        }
    }
}

impl<T> Held<T> {
    fn promote(&mut self) {
        if let Some(next) = self.next.take() {
            self.used = Some(next);
        }
    }

    fn newest(&self) -> Option<&T> {
        self.next.as_ref().or(self.used.as_ref())
    }

    fn both(&self) -> impl Iterator<Item = &T> {
        self.used.iter().chain(&self.next)
    }
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { used: None, next: None }
    }
}

/// The services that a gateway sends requests and connections to.
fn entered(gateway: &GatewaySpec) -> impl Iterator<Item = &ServiceId> {
    targets(&gateway.rules).chain(gateway.listeners.iter().flat_map(|listener| listener.services()))
}

/// The services that `rules` send requests to.
fn targets(rules: &[RuleSpec]) -> impl Iterator<Item = &ServiceId> {
    rules.iter().flat_map(|rule| {
        let (split, service) = match &rule.then {
            ActionSpec::Split(targets) => (targets.as_slice(), None),
            ActionSpec::Service(service) => (&[][..], Some(service)),
            ActionSpec::Answer(_) => (&[][..], None),
        };
        let mirrors = rule.change.iter().flat_map(|change| &change.mirrors);
        split.iter().map(|target| &target.service).chain(service).chain(mirrors.map(|mirror| &mirror.service))
    })
}

fn key(kind: Kind, id: &ServiceId) -> Key {
    Key::new(kind, id.clone())
}

impl fmt::Display for TooManyAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the workload calls more than {ASKED_MAX} services that it does not declare")
    }
}

impl core::error::Error for TooManyAsked {}

#[cfg(test)]
mod tests;
