//! What only the whole file shows: addresses and names that are taken twice, cycles. Rules that never match: [`covers`](super::covers).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use leno_core::name::{Label, ServiceId};

use super::read::Reader;
use crate::diagnostic::Problem;
use crate::source::Span;

/// Names and addresses that are taken; compared when all are known, so that the first one is the first of the file.
#[derive(Default)]
pub(crate) struct Claims {
    names: Vec<(Span, Label, Label)>,
    /// With the machine that the address is on.
    addresses: Vec<(Span, Option<IpAddr>, SocketAddr)>,
}

impl Claims {
    /// The machine that an instance is on, as far as its addresses tell; `None`: this one. Two instances may both
    /// have a proxy on 127.0.0.1:15001 when they are on two machines.
    pub(crate) fn scope(mesh: Option<SocketAddr>, app: Option<SocketAddr>) -> Option<IpAddr> {
        let ips = [mesh, app].into_iter().flatten().map(|address| address.ip());
        ips.into_iter().find(|ip| !ip.is_loopback() && !ip.is_unspecified())
    }

    /// Takes the name of an instance or gateway.
    pub(crate) fn name(&mut self, namespace: &Label, name: &Label, span: Span) {
        self.names.push((span, namespace.clone(), name.clone()));
    }

    /// Takes an address on a machine.
    pub(crate) fn address(&mut self, scope: Option<IpAddr>, address: SocketAddr, span: Span) {
        self.addresses.push((span, scope, address));
    }

    /// Reports what is taken twice.
    pub(crate) fn finish(mut self, reader: &mut Reader<'_>) {
        self.names.sort();
        let mut names: BTreeMap<(Label, Label), Span> = BTreeMap::new();
        for (span, namespace, name) in self.names {
            if let Some(before) = names.get(&(namespace.clone(), name.clone())) {
                let problem =
                    Problem::error(span, format!("two instances or gateways are called \"{name}\""));
                reader.error(problem.related(*before, "the first one").hint("give each a `name` of its own"));
            }
            names.entry((namespace, name)).or_insert(span);
        }
        self.addresses.sort();
        let mut taken: BTreeMap<(Option<IpAddr>, u16), BTreeMap<IpAddr, Span>> = BTreeMap::new();
        for (span, scope, address) in self.addresses {
            let ips = taken.entry((scope, address.port())).or_default();
            if let Some(before) = same_ip(ips, address.ip()) {
                reader.error(
                    Problem::error(span, format!("the address {address} is taken twice"))
                        .related(before, "first taken here")
                        .hint("choose another port, or leave it out to have a free one picked"),
                );
            }
            ips.entry(address.ip()).or_insert(span);
        }
    }
}

/// Which of the addresses `ips` stands in the way of `ip`: the same one, or one of them is every interface.
fn same_ip(ips: &BTreeMap<IpAddr, Span>, ip: IpAddr) -> Option<Span> {
    let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let first =
        if ip.is_unspecified() { ips.values().next() } else { every.iter().find_map(|every| ips.get(every)) };
    ips.get(&ip).or(first).copied()
}

/// Reports every cycle in `start_after`, each once, where it closes.
pub(crate) fn cycles(after: &BTreeMap<ServiceId, Vec<(ServiceId, Span)>>, reader: &mut Reader<'_>) {
    let mut done: BTreeSet<&ServiceId> = BTreeSet::new();
    for start in after.keys() {
        // Depth first with an own stack: a file can have a longer chain than the stack is deep.
        let mut chain: Vec<(&ServiceId, usize)> = vec![(start, 0)];
        let mut on_chain: BTreeSet<&ServiceId> = BTreeSet::from([start]);
        while let Some((service, next)) = chain.last_mut() {
            let edge =
                after.get(*service).filter(|_| !done.contains(*service)).and_then(|edges| edges.get(*next));
            let Some((target, span)) = edge else {
                done.insert(*service);
                on_chain.remove(*service);
                chain.pop();
                continue;
            };
            *next += 1;
            if on_chain.contains(target) {
                let from = chain.iter().position(|(service, _)| *service == target).unwrap_or(0);
                report_cycle(chain[from..].iter().map(|(service, _)| *service), target, *span, reader);
            } else if !done.contains(target) {
                on_chain.insert(target);
                chain.push((target, 0));
            }
        }
    }
}

fn report_cycle<'s>(
    cycle: impl Iterator<Item = &'s ServiceId>,
    first: &ServiceId,
    span: Span,
    reader: &mut Reader<'_>,
) {
    const SHOWN_MAX: usize = 10;
    let mut names: Vec<String> = cycle.map(|service| reader.shown(service)).collect();
    names.push(reader.shown(first));
    if names.len() > SHOWN_MAX {
        names.splice(SHOWN_MAX / 2..names.len() - SHOWN_MAX / 2, ["…".to_owned()]);
    }
    let message = format!("no order to start in: {}", names.join(" after "));
    reader.error(Problem::error(span, message).hint(
        "remove one `start_after`; services may call each other in a circle, only their start needs an order",
    ));
}
