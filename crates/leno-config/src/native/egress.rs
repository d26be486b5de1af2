//! What may leave the mesh: the mode, the rules in the order of the file, the gateway that it passes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::spec::{EgressMode, EgressRule, EgressSource, EgressSpec, HostMatch, Via};

use super::check::Claims;
use super::fields::{EGRESS, EGRESS_RULE, Kind, VIA};
use super::read::Reader;
use super::value;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Node, short};

/// Most rules: each is looked at for what leaves, one after the other.
const EGRESS_RULES_MAX: usize = 1000;

/// Most callers, hosts, ranges or ports of one rule.
const ITEMS_MAX: usize = 1000;

/// What `egress` says; the gateway's identity follows when the trust domain is known.
#[derive(Default)]
pub(crate) struct Draft {
    mode: EgressMode,
    rules: Vec<EgressRule>,
    via: Option<(ServiceId, SocketAddr)>,
}

impl Draft {
    /// Reads the block; `gateways` are those of the file.
    pub(crate) fn read(
        node: &Node,
        gateways: &[ServiceId],
        claims: &mut Claims,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let mut fields = reader.fields(node, &EGRESS)?;
        let mode = match fields.get("mode").and_then(|node| reader.choice(node, EGRESS.choices("mode"))) {
            Some("registry-only") => EgressMode::RegistryOnly,
            _ => EgressMode::Allow,
        };
        let rules = fields.get("rules").map(|node| rules(node, reader)).unwrap_or_default();
        let via = fields.get("via").and_then(|node| via(node, gateways, claims, reader));
        fields.finish();
        Some(Self { mode, rules, via })
    }

    /// The block in a mesh of this trust domain.
    pub(crate) fn finish(self, trust_domain: &TrustDomain) -> EgressSpec {
        let via = self.via.map(|(service, address)| Via {
            identity: SpiffeId { trust_domain: trust_domain.clone(), service },
            address,
        });
        EgressSpec { mode: self.mode, rules: self.rules, via }
    }
}

fn via(
    node: &Node,
    gateways: &[ServiceId],
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Option<(ServiceId, SocketAddr)> {
    let mut fields = reader.fields(node, &VIA)?;
    let label = |text: &str| value::label(text, "a gateway's name");
    let name =
        fields.get("gateway").and_then(|node| Some((reader.parsed(node, Kind::Name, label)?, node.span)));
    let address = fields.get("address").and_then(|node| {
        let address = reader.number(node, Kind::Address, value::address)?;
        claims.address(Claims::scope(Some(address), None), address, node.span);
        Some(address)
    });
    fields.finish();
    let (name, span) = name?;
    let id = ServiceId::new(reader.namespace.clone(), name);
    if !gateways.contains(&id) {
        let problem = Problem::error(span, format!("unknown gateway \"{}\"", id.name));
        reader.error(problem.hint("a gateway has to stand under `gateways`, or be the one called `gateway`"));
        return None;
    }
    Some((id, address?))
}

fn rules(node: &Node, reader: &mut Reader<'_>) -> Vec<EgressRule> {
    let mut rules = Vec::new();
    let mut names: BTreeMap<Arc<str>, Span> = BTreeMap::new();
    let mut all: Option<Span> = None;
    for (index, item) in reader.list(node, "a list of rules", EGRESS_RULES_MAX).iter().enumerate() {
        let Some((mut rule, name)) = rule(item, reader) else { continue };
        if let Some(before) = all {
            let problem = Problem::warning(item.span, "this rule never matches");
            reader.error(problem.related(before, "this one takes everything before it"));
        }
        if rule.from.is_empty() && rule.hosts.is_empty() && rule.cidrs.is_empty() && rule.ports.is_empty() {
            all = all.or(Some(item.span));
        }
        match name {
            Some(span) => {
                if let Some(before) = names.get(&rule.name) {
                    let message = format!("two rules are called \"{}\"", short(&rule.name));
                    let problem = Problem::error(span, message).related(*before, "the first one");
                    reader.error(problem.hint("give each a name of its own"));
                }
            }
            None if rule.name.is_empty() || names.contains_key(&rule.name) => {
                rule.name = format!("rule-{}", index + 1).into();
            }
            None => {}
        }
        names.entry(rule.name.clone()).or_insert(item.span);
        rules.push(rule);
    }
    rules
}

/// A rule, and where its name stands if it has one.
fn rule(node: &Node, reader: &mut Reader<'_>) -> Option<(EgressRule, Option<Span>)> {
    let mut fields = reader.fields(node, &EGRESS_RULE)?;
    let name_node = fields.get("name");
    let label = |text: &str| value::label(text, "a rule's name");
    let name = name_node.map(|node| reader.parsed(node, Kind::Name, label));
    let mut items = |name: &'static str, what: &str, reader: &mut Reader<'_>| {
        fields.get(name).map_or(&[][..], |node| reader.one_or_more(node, what, ITEMS_MAX))
    };
    let from = items("from", "a caller, or a list of callers", reader);
    let hosts = items("hosts", "a host, or a list of hosts", reader);
    let cidrs = items("cidrs", "a range of addresses, or a list of them", reader);
    let ports = items("ports", "a port, or a list of ports", reader);
    let from: Vec<EgressSource> = from.iter().filter_map(|item| caller(item, reader)).collect();
    let hosts: Vec<HostMatch> =
        hosts.iter().filter_map(|item| reader.parsed(item, Kind::Host, value::dns_host)).collect();
    let cidrs: Vec<_> =
        cidrs.iter().filter_map(|item| reader.parsed(item, Kind::Range, value::cidr)).collect();
    let ports: Vec<u16> =
        ports.iter().filter_map(|item| reader.number(item, Kind::Port, value::port)).collect();
    let action = fields.get("action").and_then(|node| reader.choice(node, EGRESS_RULE.choices("action")));
    fields.finish();
    let name: Arc<str> = match name {
        Some(name) => name?.as_str().into(),
        None => made_name(&hosts, &cidrs).into(),
    };
    let allow = action? == "allow";
    Some((EgressRule { name, from, hosts, cidrs, ports, allow }, name_node.map(|node| node.span)))
}

/// What a rule without a name is called: the first place that it is about; empty when it is about none.
fn made_name(hosts: &[HostMatch], cidrs: &[leno_core::spec::Cidr]) -> String {
    match (hosts.first(), cidrs.first()) {
        (Some(HostMatch::Exact(host)), _) => host.to_string(),
        (Some(HostMatch::Suffix(suffix)), _) => format!("*{suffix}"),
        (None, Some(range)) => range.to_string(),
        (None, None) => String::new(),
    }
}

/// `name`, `namespace/name` or `namespace/*`.
pub(crate) fn caller(node: &Node, reader: &mut Reader<'_>) -> Option<EgressSource> {
    let text = reader.text(node, Kind::Caller)?;
    match text.strip_suffix("/*") {
        Some(namespace) => {
            let namespace = reader.checked(node.span, value::label(namespace, "a namespace"))?;
            Some(EgressSource::Namespace(namespace))
        }
        None => Some(EgressSource::Service(reader.service_named(text, node.span)?)),
    }
}
