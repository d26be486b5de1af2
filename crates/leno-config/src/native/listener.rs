//! Gateways: where they listen, and what is spoken there.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{
    CertificateFiles, Cidr, ClientCertificates, GatewaySpec, HostMatch, HttpSpec, ListenerSpec, Serve,
    SniRoute, TerminationSpec, TlsVersion,
};

use super::check::Claims;
use super::fields::{CERTIFICATE, FORWARDED_HOPS_MAX, GATEWAY, Kind, LISTENER, SNI_ROUTE};
use super::read::{Fields, Reader};
use super::rules::{self, RULES_MAX};
use super::value;
use super::zones;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value};

/// Most listeners of one gateway: each is a socket for each of its threads.
const LISTENERS_MAX: usize = 100;

/// Most certificates of one listener.
const CERTIFICATES_MAX: usize = 1000;

/// The gateway that `node` describes.
pub(crate) fn gateway(
    id: ServiceId,
    node: &Node,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Option<GatewaySpec> {
    let mut fields = reader.fields(node, &GATEWAY)?;
    let (listen, several, routes) = (fields.entry("listen"), fields.entry("listeners"), fields.get("routes"));
    if let (Some(listen), Some(several)) = (listen, several) {
        let problem = Problem::error(listen.key_span, "a gateway has either `listen` or `listeners`");
        reader.error(
            problem.related(several.key_span, "these are given too").hint("make it one of the `listeners`"),
        );
    }
    let errors = reader.problems.errors();
    let listeners = match several {
        Some(several) => listed(&several.value, claims, reader),
        None => {
            let listen = address(listen.map(|entry| &entry.value), claims, reader);
            listen.map(|listen| vec![Arc::new(ListenerSpec::http("http", listen))])
        }
    };
    let wants_routes = listeners.as_ref().is_none_or(|listeners| listeners.iter().any(|it| serves_http(it)));
    if routes.is_none() && wants_routes && fields.complete && reader.problems.errors() == errors {
        reader.missing(fields.span, &GATEWAY, "routes");
    }
    let rules = routes.map(|node| rules::of_gateway(node, reader)).unwrap_or_default();
    if let (Some(routes), Some(listeners)) = (routes, &listeners) {
        circles(routes, listeners, reader);
    }
    if let Some(routes) = routes.filter(|_| !wants_routes) {
        let problem = Problem::error(routes.span, "no listener of this gateway serves HTTP");
        reader.error(problem.hint("remove `routes`, or add a listener with `protocol: http` or `https`"));
    }
    let zone = fields.get("zone").and_then(|node| zones::zone(node, reader));
    fields.finish();
    Some(GatewaySpec { id, listeners: listeners?, rules, zone })
}

/// Reports routes that answer requests over HTTPS with the URL that they came for.
fn circles(routes: &Node, listeners: &[Arc<ListenerSpec>], reader: &mut Reader<'_>) {
    let over_tls = |it: &&Arc<ListenerSpec>| matches!(&it.serve, Serve::Http(HttpSpec { tls: Some(_), .. }));
    let Some(https) = listeners.iter().find(over_tls) else { return };
    let Value::List(items) = &routes.value else { return };
    for item in items {
        let Value::Map(fields) = &item.value else { continue };
        let of_one_listener = fields.iter().any(|field| matches!(&*field.key, "port" | "client" | "sni"));
        let redirect = fields.iter().find(|field| field.key == "redirect");
        let Some(Value::Map(to)) = redirect.map(|field| &field.value.value) else { continue };
        let https_alone = to.iter().any(|field| {
            field.key == "scheme" && matches!(&field.value.value, Value::Scalar(word) if word.text == "https")
        }) && to.iter().all(|field| matches!(&*field.key, "scheme" | "status"));
        if https_alone && !of_one_listener {
            let message = format!("clients of the listener \"{}\" are sent in a circle", https.name);
            let hint = "give the listener of plain HTTP `redirect: https` instead, or this route its `port`";
            reader.problems.add(Problem::warning(item.span, message).hint(hint));
        }
    }
}

/// Redirects lead to HTTPS, not to a service: a listener that does nothing else needs no routes.
fn serves_http(listener: &ListenerSpec) -> bool {
    matches!(&listener.serve, Serve::Http(HttpSpec { redirect: None, .. }))
}

fn address(node: Option<&Node>, claims: &mut Claims, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let Some(node) = node else { return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) };
    let listen = reader.number(node, Kind::Address, value::address)?;
    claims.address(Claims::scope(Some(listen), None), listen, node.span);
    Some(listen)
}

/// A listener as far as it can be read without the others.
struct Draft<'n> {
    name: Option<Label>,
    /// The name, or the listener.
    span: Span,
    protocol: &'static str,
    listen: SocketAddr,
    serve: Serve,
    /// A redirect to wherever HTTPS is served.
    redirect: Option<&'n Node>,
    proxy_protocol: Option<Vec<Cidr>>,
}

fn listed(node: &Node, claims: &mut Claims, reader: &mut Reader<'_>) -> Option<Vec<Arc<ListenerSpec>>> {
    let items = reader.list(node, "a list of listeners", LISTENERS_MAX);
    let drafts: Vec<Draft<'_>> = items.iter().filter_map(|item| draft(item, claims, reader)).collect();
    if drafts.len() < items.len() || drafts.is_empty() {
        return None;
    }
    let https = drafts.iter().find(|draft| draft.protocol == "https").map(|draft| draft.listen.port());
    let mut named: BTreeMap<String, Span> = BTreeMap::new();
    let mut listeners = Vec::new();
    for mut draft in drafts {
        let name = match draft.name {
            Some(name) => name.to_string(),
            None => {
                let same = |number: usize| match number {
                    1 => draft.protocol.to_owned(),
                    number => format!("{}-{number}", draft.protocol),
                };
                (1..=LISTENERS_MAX).map(same).find(|name| !named.contains_key(name)).unwrap_or_default()
            }
        };
        if let Some(before) = named.get(&name) {
            let problem = Problem::error(draft.span, format!("two listeners are called \"{name}\""));
            reader.error(problem.related(*before, "the first one").hint("give each a `name` of its own"));
        }
        if let (Some(node), Serve::Http(http)) = (draft.redirect, &mut draft.serve) {
            http.redirect = https.filter(|port| *port != 0);
            if http.redirect.is_none() {
                let why = if https.is_some() { "its port is not known" } else { "the gateway has none" };
                let problem =
                    Problem::error(node.span, format!("there is no `https` listener to go to: {why}"));
                reader.error(problem.hint("write the port that clients see, such as `redirect: 443`"));
            }
        }
        named.insert(name.clone(), draft.span);
        listeners.push(Arc::new(ListenerSpec {
            name: name.into(),
            listen: draft.listen,
            serve: draft.serve,
            proxy_protocol: draft.proxy_protocol,
        }));
    }
    Some(listeners)
}

fn draft<'n>(node: &'n Node, claims: &mut Claims, reader: &mut Reader<'_>) -> Option<Draft<'n>> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &LISTENER)?;
    let name_node = fields.get("name");
    let name = name_node
        .and_then(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "a listener's name")));
    let listen = address(fields.get("listen"), claims, reader);
    let protocol = match fields.get("protocol") {
        Some(node) => reader.choice(node, LISTENER.choices("protocol")),
        None => Some("http"),
    };
    let span = name_node.map_or(node.span, |node| node.span);
    let proxy_protocol = fields.get("proxy_protocol").map(|node| ranges(node, reader));
    let hosts = fields.get("hosts").map(|node| hosts(node, reader)).unwrap_or_default();
    let tls = termination(&mut fields, reader);
    let redirect = fields.get("redirect");
    let hops = fields.get("forwarded_hops").and_then(|node| {
        let hops = |text: &str| value::number(text, "a number of proxies", 1, FORWARDED_HOPS_MAX);
        reader.number(node, Kind::Count(FORWARDED_HOPS_MAX), hops)
    });
    let sni = fields.entry("sni").map(|entry| sni_routes(&entry.value, reader));
    let to = fields.get("to").map(|node| reader.service(node));
    let port = redirect.and_then(|node| redirect_port(node, reader));
    let complete = fields.complete;
    let protocol = protocol?;
    for field in LISTENER.fields.iter().filter(|field| !goes_with(protocol, field.name)) {
        if let Some(key) = fields.key(field.name) {
            let problem =
                Problem::error(key, format!("`{}` does not go with `protocol: {protocol}`", field.name));
            let others: Vec<&str> =
                ["http", "https", "tls", "tcp"].into_iter().filter(|it| goes_with(it, field.name)).collect();
            reader.error(problem.hint(format!("it goes with {}", others.join(" and "))));
        }
    }
    fields.finish();
    let serve = match protocol {
        "tls" => Serve::Passthrough(needed(sni, "sni", span, protocol, complete, reader)?),
        "tcp" => Serve::Tcp { to: needed(to, "to", span, protocol, complete, reader)??, tls },
        _ => {
            if protocol == "https" && tls.is_none() && complete && reader.problems.errors() == errors {
                needed::<()>(None, "certificates", span, protocol, complete, reader)?;
            }
            let forwarded_hops = hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0);
            Serve::Http(HttpSpec { hosts, tls, redirect: port, forwarded_hops })
        }
    };
    if reader.problems.errors() > errors {
        return None;
    }
    let redirect = redirect.filter(|_| port.is_none());
    Some(Draft { name, span, protocol, listen: listen?, serve, redirect, proxy_protocol })
}

/// Whether a listener of this protocol can have this field.
fn goes_with(protocol: &str, field: &str) -> bool {
    match field {
        "hosts" | "forwarded_hops" => matches!(protocol, "http" | "https"),
        "redirect" => protocol == "http",
        "certificates" | "client_ca" | "client_certificate" | "min_version" => {
            matches!(protocol, "https" | "tcp")
        }
        "forward_client_certificate" => protocol == "https",
        "sni" => protocol == "tls",
        "to" => protocol == "tcp",
        _ => true,
    }
}

/// A field that a listener of this protocol cannot do without.
fn needed<T>(
    value: Option<T>,
    name: &str,
    span: Span,
    protocol: &str,
    complete: bool,
    reader: &mut Reader<'_>,
) -> Option<T> {
    if value.is_none() && complete {
        let problem = Problem::error(span, format!("a listener with `protocol: {protocol}` needs `{name}`"));
        let doc = LISTENER.fields.iter().find(|field| field.name == name).map_or("", |field| field.doc);
        reader.error(problem.hint(doc.trim_end_matches('.')));
    }
    value
}

/// `https` (`None`, to be found out) or a port.
fn redirect_port(node: &Node, reader: &mut Reader<'_>) -> Option<u16> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.text == "https") {
        return None;
    }
    if matches!(&node.value, Value::Scalar(scalar) if !scalar.text.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let problem = Problem::error(node.span, format!("expected https or a port, found {}", node.found()));
        reader.error(problem.hint("requests can be redirected to HTTPS and nowhere else"));
        return None;
    }
    reader.number(node, Kind::Port, value::port)
}

fn hosts(node: &Node, reader: &mut Reader<'_>) -> Vec<HostMatch> {
    let items = reader.one_or_more(node, "a host, or a list of hosts", RULES_MAX);
    let mut hosts: Vec<HostMatch> =
        items.iter().filter_map(|item| reader.parsed(item, Kind::Host, value::host)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

fn ranges(node: &Node, reader: &mut Reader<'_>) -> Vec<Cidr> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.looks_like_truth()) {
        let problem =
            Problem::error(node.span, format!("expected a range of addresses, found {}", node.found()));
        reader.error(problem.hint(
            "write the addresses of the load balancers, such as 10.0.0.0/8: whoever may send the header may claim to be anybody",
        ));
        return Vec::new();
    }
    let items = reader.one_or_more(node, "a range of addresses, or a list of them", RULES_MAX);
    items.iter().filter_map(|item| reader.parsed(item, Kind::Range, value::cidr)).collect()
}

/// The TLS that ends at a listener.
fn termination(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<TerminationSpec> {
    let certificates = fields.entry("certificates");
    let (authorities, required) = (fields.entry("client_ca"), fields.entry("client_certificate"));
    let (forward, version) = (fields.entry("forward_client_certificate"), fields.entry("min_version"));
    let choice = |entry: Option<&Entry>, name, reader: &mut Reader<'_>| {
        entry.and_then(|entry| reader.choice(&entry.value, LISTENER.choices(name)))
    };
    let required_word = choice(required, "client_certificate", reader);
    let forward_word = choice(forward, "forward_client_certificate", reader);
    let version_word = choice(version, "min_version", reader);
    for (entry, needs, there) in [
        (required, "client_ca", authorities.is_some()),
        (forward, "client_ca", authorities.is_some()),
        (authorities, "certificates", certificates.is_some()),
        (version, "certificates", certificates.is_some()),
    ] {
        if let Some(entry) = entry.filter(|_| !there) {
            let problem = Problem::error(entry.key_span, format!("`{}` needs `{needs}`", entry.key));
            reader.error(problem.hint(format!("add `{needs}`, or remove it")));
        }
    }
    let authorities = authorities.and_then(|entry| file(&entry.value, reader));
    let items = reader.list(&certificates?.value, "a list of certificates", CERTIFICATES_MAX);
    let certificates: Vec<CertificateFiles> = items
        .iter()
        .filter_map(|item| {
            let mut fields = reader.fields(item, &CERTIFICATE)?;
            let cert = fields.get("cert").and_then(|node| file(node, reader));
            let key = fields.get("key").and_then(|node| file(node, reader));
            fields.finish();
            Some(CertificateFiles { cert: cert?, key: key? })
        })
        .collect();
    let clients = authorities.map(|authorities| ClientCertificates {
        authorities,
        required: required_word != Some("optional"),
        forward: forward_word == Some("summary"),
    });
    let min_version = if version_word == Some("tls1.3") { TlsVersion::V13 } else { TlsVersion::V12 };
    (!certificates.is_empty()).then_some(TerminationSpec { certificates, clients, min_version })
}

fn sni_routes(node: &Node, reader: &mut Reader<'_>) -> Vec<SniRoute> {
    let items = reader.list(node, "a list of routes", RULES_MAX);
    let route = |item: &Node, reader: &mut Reader<'_>| {
        let mut fields = reader.fields(item, &SNI_ROUTE)?;
        let names = fields.get("host").map(|node| hosts(node, reader)).unwrap_or_default();
        let to = fields.get("to").and_then(|node| reader.service(node));
        fields.finish();
        Some(SniRoute { names, to: to? })
    };
    items.iter().filter_map(|item| route(item, reader)).collect()
}

/// A file, as every process of this machine finds it.
fn file(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text(node, Kind::File)?;
    let path = std::path::absolute(reader.folder.join(text)).ok();
    match path.as_ref().and_then(|path| path.to_str()).filter(|_| !text.is_empty()) {
        Some(path) => Some(path.to_owned()),
        None => {
            reader.error(Problem::error(node.span, "the name of the file cannot be used"));
            None
        }
    }
}
