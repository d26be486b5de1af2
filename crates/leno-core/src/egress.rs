//! What may leave the mesh: one decision for a request through the forward proxy, a tunnel, a captured connection and an
//! egress gateway. Rules are an ordered list, the first match wins; what none is about goes by the mode.
//!
//! **A host is compared in one form.** [`Destination`] is made of whatever a client wrote, and there is one for each
//! place: lower case, no dot at the end, no port, addresses as addresses (an IPv4 address in IPv6's clothes is the IPv4
//! address). What has no such form (percent signs, letters beyond ASCII, numbers that only some libraries take for an
//! address) is refused before any rule is asked, so that no spelling of a host passes a rule that another one meets.
//!
//! **A name is not looked up for nothing.** A question to the DNS can itself carry something out. So a decision
//! about a name goes through the rules as far as the name alone tells; only when a rule about addresses has to be
//! compared to know is the address asked for ([`Verdict::AddressNeeded`]), and then every address is decided for itself.
//!
//! **A name that a client only says is not believed.** What leaves because a rule names its host
//! ([`Verdict::Allowed`] with `by_name`) has to be sent to an address that this proxy finds for the name, whatever
//! address the client had dialed: else anything could leave with the right name in its first bytes.

use alloc::sync::Arc;
use core::fmt;
use core::net::IpAddr;

use crate::name::ServiceId;
use crate::spec::{EgressMode, EgressRule, EgressSpec, HostMatch};

mod destination;

pub use destination::{Destination, HostName, NoDestination};

/// May it leave?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It may.
    Allowed {
        /// The rule that says so; `None`: the mode does, or a declared service is there.
        rule: Option<&'a Arc<str>>,
        /// Because of its name: it has to go to an address of that name.
        by_name: bool,
    },
    /// It may not.
    Denied(Denied<'a>),
    /// That depends on its address.
    AddressNeeded,
}

/// Why something may not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied<'a> {
    /// This rule says so.
    Rule(&'a Arc<str>),
    /// No rule allows it, and the mode is `registry-only`.
    NotDeclared,
}

/// Decides whether `source` may reach `destination`. `declared` says that an endpoint of a declared service is there.
pub fn decide<'a>(
    spec: &'a EgressSpec,
    source: &ServiceId,
    destination: &Destination,
    declared: bool,
) -> Verdict<'a> {
    // Rules have come by that may deny it, by its address.
    let mut doubtful = false;
    for rule in spec.rules.iter().filter(|rule| is_about_caller(rule, source)) {
        if !rule.ports.is_empty() && !rule.ports.contains(&destination.port) {
            continue;
        }
        match place(rule, destination) {
            Place::Elsewhere => {}
            Place::Unknown if rule.allow => return Verdict::AddressNeeded,
            // Whatever its address: what is denied further down is denied either way, and need not be looked up.
            Place::Unknown => doubtful = true,
            Place::Here { .. } if !rule.allow => return Verdict::Denied(Denied::Rule(&rule.name)),
            Place::Here { .. } if doubtful => return Verdict::AddressNeeded,
            Place::Here { by_name } => return Verdict::Allowed { rule: Some(&rule.name), by_name },
        }
    }
    match spec.mode {
        EgressMode::Allow if doubtful => Verdict::AddressNeeded,
        EgressMode::Allow => Verdict::Allowed { rule: None, by_name: false },
        EgressMode::RegistryOnly if declared && doubtful => Verdict::AddressNeeded,
        EgressMode::RegistryOnly if declared => {
            Verdict::Allowed { rule: None, by_name: destination.host.is_some() }
        }
        EgressMode::RegistryOnly => Verdict::Denied(Denied::NotDeclared),
    }
}

/// True for a host that only the mesh can mean: a name with one part, or one that ends in `.mesh`. It never leaves
/// unless a rule names exactly it: a service's name that is misspelt must not become a question to the DNS.
pub fn is_of_mesh(spec: &EgressSpec, destination: &Destination) -> bool {
    let Some(host) = &destination.host else { return false };
    let text = host.as_str();
    let named = |rule: &EgressRule| {
        rule.hosts.iter().any(|wanted| matches!(wanted, HostMatch::Exact(name) if **name == *text))
    };
    (!text.contains('.') || text.ends_with(".mesh")) && !spec.rules.iter().any(named)
}

/// True for addresses that mean another place on every machine: what a gateway sends there would reach the gateway
/// itself, or nobody.
pub fn is_own_machine(ip: IpAddr) -> bool {
    let ip = destination::canonical(ip);
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
}

/// Where a destination is, as a rule sees it.
enum Place {
    Here { by_name: bool },
    Elsewhere,
    Unknown,
}

fn is_about_caller(rule: &EgressRule, source: &ServiceId) -> bool {
    rule.from.is_empty() || rule.from.iter().any(|from| from.covers(source))
}

fn place(rule: &EgressRule, destination: &Destination) -> Place {
    if rule.hosts.is_empty() && rule.cidrs.is_empty() {
        return Place::Here { by_name: false };
    }
    let named = |host: &HostName| rule.hosts.iter().any(|wanted| host.matches(wanted));
    if destination.host.as_ref().is_some_and(named) {
        return Place::Here { by_name: true };
    }
    if rule.cidrs.is_empty() {
        return Place::Elsewhere;
    }
    let Some(ip) = destination.ip else { return Place::Unknown };
    let within = |ip: IpAddr| rule.cidrs.iter().any(|range| range.contains(ip));
    // A translated address is as forbidden as the one that it is translated to, but not as allowed: where nothing
    // translates, it is another place.
    let here = within(ip) || (!rule.allow && destination::translated(ip).is_some_and(within));
    if here { Place::Here { by_name: false } } else { Place::Elsewhere }
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "the rule \"{rule}\" denies it"),
            Self::NotDeclared => {
                f.write_str("no rule allows it, no declared service is there, and the mode is registry-only")
            }
        }
    }
}

#[cfg(test)]
mod tests;
