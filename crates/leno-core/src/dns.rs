//! Questions about names -> answers. The mesh answers for its own services; everything else is somebody else's.
//!
//! Names of a service, in any case: `name` (in the workload's own namespace, else in the default one), `name.namespace` and
//! `name.namespace.mesh`; of an instance of a headless service one label more: `instance.name`, `instance.name.namespace` and
//! `instance.name.namespace.mesh`. What ends in `.mesh` is always ours, so that a wrong name is wrong at once. A shorter name
//! that is no service's goes to the system's resolvers.
//!
//! [`cache`] remembers what those said.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::name::{DEFAULT_NAMESPACE, LABEL_BYTES_MAX, Label, ServiceId};
use crate::snapshot::{Lookup, Published, Snapshot};
use crate::time::Duration;
use crate::vip::{Vip, is_virtual, of_reverse_name, reverse_zones};

pub mod cache;

/// How long others may remember our answers. Addresses do not change, but instances of headless services come and go, and an
/// application should see that within seconds.
pub const TTL: Duration = Duration::from_secs(5);
/// How long others may remember that there is no such name: a service that was just registered should be there.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(2);

/// The last label of every name that is ours whatever stands before it.
const MESH: &str = "mesh";

/// From where a workload asks.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The workload's own namespace: a bare name is looked for there first. `None`: only in the default one.
    pub namespace: Option<Label>,
    /// What the system's resolver library appends to bare names before it tries them as they are; in lower case, label by label.
    /// A bare name of a service is recognised below each.
    pub search: Vec<Vec<String>>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses. Also for questions of the type ANY, which may be answered with a part (RFC 8482 §4.1).
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names with ports.
    Srv,
    /// The name of an address.
    Ptr,
    /// Something that no name of ours has.
    Other,
}

/// What to do about a service of which the control plane has not said whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// Ask, and decide again when the answer is there.
    Ask,
    /// It was asked and did not answer: whoever needs the name tries again.
    Unsure,
    /// There is no control plane: what is not known is not there.
    Absent,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, all of the family that was asked for, at least one.
    Addresses(Vec<IpAddr>),
    /// These places, at least one.
    Places(Vec<Place>),
    /// This name.
    Name(String),
    /// The name is there, and has nothing of what was asked for. So many labels at its end are the zone's.
    NoData(usize),
    /// There is no such name. So many labels at its end are the zone's.
    NoName(usize),
    /// The system's resolvers know.
    Upstream,
    /// The control plane knows whether this service is there.
    Ask(ServiceId),
    /// Nobody could be asked.
    Unsure,
}

/// Where a service can be found: the content of an SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub name: String,
    /// Any port would do for an intercepted connection; this is what the service declares.
    pub port: u16,
    /// Its share beside the others of the same answer.
    pub weight: u16,
    /// What the host resolves to.
    pub vip: Vip,
}

/// Decides the answer to a question about the name with these labels (without the root).
pub fn decide(snapshot: &Snapshot, zone: &Zone, labels: &[&[u8]], kind: Kind, unheard: Unheard) -> Answer {
    let mut lower = Vec::with_capacity(labels.len());
    for label in labels {
        match core::str::from_utf8(label) {
            Ok(text) if text.len() <= LABEL_BYTES_MAX => lower.push(text.to_ascii_lowercase()),
            // No name of ours; its end may be ours all the same.
            _ => lower.push(String::new()),
        }
    }
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    if let Some(answer) = reverse(snapshot, &lower, kind) {
        return answer;
    }
    let question = Question { snapshot, zone, kind, unheard };
    match lower.as_slice() {
        [rest @ .., MESH] => question.ours(rest),
        labels => question.bare(labels),
    }
}

/// A question with everything that its answer depends on but the name.
struct Question<'a> {
    snapshot: &'a Snapshot,
    zone: &'a Zone,
    kind: Kind,
    unheard: Unheard,
}

/// What stands before the name of a service in a question for its places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    /// `_service._tcp`.
    Tcp,
    /// Something else that begins with `_`: there is nothing, but it is not wrong either.
    Other,
}

impl Question<'_> {
    /// A name that ended in `.mesh`, without that.
    fn ours(&self, labels: &[&str]) -> Answer {
        const APEX: usize = 1;
        let (prefix, names) = prefix(labels);
        let Some(parsed) = parse(names) else { return Answer::NoName(APEX) };
        match parsed.as_slice() {
            [] if prefix == Prefix::None => Answer::NoData(APEX),
            // Resolvers that ask label by label (RFC 9156) stop where a name is said not to be there.
            [namespace] if self.snapshot.has_namespace(namespace) => Answer::NoData(APEX),
            [name, namespace] => {
                let service = ServiceId::new(namespace.clone(), name.clone());
                match self.look_up(&service) {
                    Ok(published) => self.service(&service, published, prefix, APEX),
                    Err(Answer::Upstream) => Answer::NoName(APEX),
                    Err(other) => other,
                }
            }
            [instance, name, namespace] => {
                let service = ServiceId::new(namespace.clone(), name.clone());
                match self.look_up(&service) {
                    Ok(published) => self
                        .instance(&service, published, instance, prefix, APEX)
                        .unwrap_or(Answer::NoName(APEX)),
                    Err(Answer::Upstream) => Answer::NoName(APEX),
                    Err(other) => other,
                }
            }
            _ => Answer::NoName(APEX),
        }
    }

    /// Any other name: ours if it is a service's or an instance's.
    fn bare(&self, labels: &[&str]) -> Answer {
        let apex = labels.len();
        let (prefix, names) = prefix(labels);
        // What a resolver library has appended says nothing about a name with a dot: that was tried as it is before.
        let appended = self.zone.search.iter().find_map(|suffix| {
            let [bare, rest @ ..] = names else { return None };
            (rest.len() == suffix.len() && rest.iter().zip(suffix).all(|(a, b)| a == b)).then_some(*bare)
        });
        if let Some(bare) = appended.and_then(|bare| Label::parse(bare).ok())
            && let Some((service, published)) = self.known(&self.candidates(&bare))
        {
            return self.service(&service, published, prefix, apex);
        }
        let Some(parsed) = parse(names) else { return Answer::Upstream };
        let (services, instance) = match parsed.as_slice() {
            [name] => (self.candidates(name), None),
            [name, second] => {
                let service = ServiceId::new(second.clone(), name.clone());
                (alloc::vec![service], Some((name, self.candidates(second))))
            }
            [instance, name, namespace] => {
                let service = ServiceId::new(namespace.clone(), name.clone());
                (Vec::new(), Some((instance, alloc::vec![service])))
            }
            _ => return Answer::Upstream,
        };
        // In the order of precedence: nobody further down is asked for or answered while somebody before is unknown.
        for service in &services {
            match self.look_up(service) {
                Ok(published) => return self.service(service, published, prefix, apex),
                Err(Answer::Upstream) => {}
                // It is a guess that this is a service at all: without an answer it is taken for what it mostly is.
                Err(Answer::Unsure) => {}
                Err(other) => {
                    // An instance that is known needs no guess.
                    return self.known_instance(instance.as_ref(), prefix, apex).unwrap_or(other);
                }
            }
        }
        self.known_instance(instance.as_ref(), prefix, apex).unwrap_or(Answer::Upstream)
    }

    /// The services that a bare name can stand for, the nearest first.
    fn candidates(&self, name: &Label) -> Vec<ServiceId> {
        let own = self.zone.namespace.clone().filter(|own| own.as_str() != DEFAULT_NAMESPACE);
        let namespaces = own.into_iter().chain(Label::parse(DEFAULT_NAMESPACE));
        namespaces.map(|namespace| ServiceId::new(namespace, name.clone())).collect()
    }

    fn known(&self, services: &[ServiceId]) -> Option<(ServiceId, &Published)> {
        services.iter().find_map(|id| Some((id.clone(), self.snapshot.published(id)?)))
    }

    fn known_instance(
        &self,
        instance: Option<&(&Label, Vec<ServiceId>)>,
        prefix: Prefix,
        apex: usize,
    ) -> Option<Answer> {
        let (name, services) = instance?;
        let (service, published) = self.known(services)?;
        self.instance(&service, published, name, prefix, apex)
    }

    /// A service that is there; else [`Answer::Upstream`] when it is not, or what to do about it.
    fn look_up(&self, service: &ServiceId) -> Result<&Published, Answer> {
        if let Some(published) = self.snapshot.published(service) {
            return Ok(published);
        }
        match (self.snapshot.look_up_service(service), self.unheard) {
            (Lookup::Unknown(service), Unheard::Ask) => Err(Answer::Ask(service)),
            (Lookup::Unknown(_), Unheard::Unsure) => Err(Answer::Unsure),
            (Lookup::Unknown(_), Unheard::Absent) | (Lookup::Absent | Lookup::Known, _) => {
                Err(Answer::Upstream)
            }
        }
    }

    fn service(&self, id: &ServiceId, published: &Published, prefix: Prefix, apex: usize) -> Answer {
        let host = alloc::format!("{}.{}.{MESH}", id.name, id.namespace);
        let taking = || published.instances.iter().filter(|instance| instance.takes);
        let port = published.port;
        match (self.kind, prefix) {
            (Kind::A | Kind::Aaaa, Prefix::None) if published.headless => {
                self.addresses(taking().map(|instance| instance.vip), apex)
            }
            (Kind::A | Kind::Aaaa, Prefix::None) => self.addresses([published.vip].into_iter(), apex),
            (Kind::Srv, Prefix::None | Prefix::Tcp) if published.headless => {
                let places = taking().map(|instance| Place {
                    name: alloc::format!("{}.{host}", instance.name),
                    port,
                    weight: u16::try_from(instance.weight).unwrap_or(u16::MAX),
                    vip: instance.vip,
                });
                let places: Vec<Place> = places.collect();
                if places.is_empty() { Answer::NoData(apex) } else { Answer::Places(places) }
            }
            (Kind::Srv, Prefix::None | Prefix::Tcp) => {
                Answer::Places(alloc::vec![Place { name: host, port, weight: 0, vip: published.vip }])
            }
            _ => Answer::NoData(apex),
        }
    }

    /// `None` when the service has no such instance.
    fn instance(
        &self,
        id: &ServiceId,
        published: &Published,
        name: &Label,
        prefix: Prefix,
        apex: usize,
    ) -> Option<Answer> {
        let instance = published.instance(name)?;
        let name = alloc::format!("{name}.{}.{}.{MESH}", id.name, id.namespace);
        Some(match (self.kind, prefix) {
            (Kind::A | Kind::Aaaa, Prefix::None) => self.addresses([instance.vip].into_iter(), apex),
            (Kind::Srv, Prefix::None | Prefix::Tcp) => {
                let place = Place { name, port: published.port, weight: 0, vip: instance.vip };
                Answer::Places(alloc::vec![place])
            }
            _ => Answer::NoData(apex),
        })
    }

    fn addresses(&self, vips: impl Iterator<Item = Vip>, apex: usize) -> Answer {
        let addresses: Vec<IpAddr> = vips
            .filter_map(|vip| match self.kind {
                Kind::A => vip.v4.map(IpAddr::V4),
                _ => Some(IpAddr::V6(vip.v6)),
            })
            .collect();
        if addresses.is_empty() { Answer::NoData(apex) } else { Answer::Addresses(addresses) }
    }
}

/// A name below the zones for reverse look-up of virtual addresses.
fn reverse(snapshot: &Snapshot, labels: &[&str], kind: Kind) -> Option<Answer> {
    let [.., "arpa"] = labels else { return None };
    let zones = reverse_zones();
    let zone =
        zones.iter().map(|zone| zone.split('.').collect::<Vec<_>>()).find(|zone| labels.ends_with(zone))?;
    let apex = zone.len();
    let Some(address) = of_reverse_name(labels) else {
        // A part of an address: others may be below. What is longer than one, or no number, is below nothing.
        let whole = if labels.ends_with(&["in-addr", "arpa"]) { 4 + 2 } else { 32 + 2 };
        return Some(if labels.len() < whole { Answer::NoData(apex) } else { Answer::NoName(apex) });
    };
    debug_assert!(is_virtual(address), "it is below one of the zones");
    let name = snapshot.target_at(address).map(ToString::to_string);
    Some(match (name, kind) {
        (None, _) => Answer::NoName(apex),
        (Some(name), Kind::Ptr) => Answer::Name(name),
        (Some(_), _) => Answer::NoData(apex),
    })
}

/// Takes `_service._tcp` from the front.
fn prefix<'a, 'n>(labels: &'a [&'n str]) -> (Prefix, &'a [&'n str]) {
    match labels {
        [service, "_tcp", rest @ ..] if service.starts_with('_') => (Prefix::Tcp, rest),
        [first, second, rest @ ..] if first.starts_with('_') && second.starts_with('_') => {
            (Prefix::Other, rest)
        }
        [first, rest @ ..] if first.starts_with('_') => (Prefix::Other, rest),
        _ => (Prefix::None, labels),
    }
}

/// The labels, if there are few enough and each could be in a name of ours.
fn parse(labels: &[&str]) -> Option<Vec<Label>> {
    const PARTS_MAX: usize = 3;
    if labels.len() > PARTS_MAX {
        return None;
    }
    labels.iter().map(|label| Label::parse(label).ok()).collect()
}

#[cfg(test)]
mod tests;
