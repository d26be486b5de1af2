//! The file as a whole: names first, then services, then what refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use leno_core::name::{DEFAULT_NAMESPACE, Label, ServiceId, TrustDomain};
use leno_core::spec::GatewaySpec;

use super::check::{self, Claims};
use super::egress;
use super::fields::{FILE, Kind};
use super::listener;
use super::lists;
use super::model::MeshFile;
use super::read::{INSTANCE_BYTES_MAX, LISTED_RULES_MAX, ROUTE_COMPARISONS_MAX, Reader, service_id};
use super::service::Draft;
use super::value;
use crate::diagnostic::{Problem, Problems};
use crate::source::Span;
use crate::yaml::{Entry, Node, short};

/// The mesh that `root` describes; `None` after a problem that leaves nothing to return.
pub(crate) fn decode(root: &Node, folder: &Path, problems: &mut Problems) -> Option<MeshFile> {
    let namespace = Label::parse(DEFAULT_NAMESPACE).ok()?;
    let mut reader = Reader {
        problems,
        namespace,
        folder,
        services: BTreeMap::new(),
        versions: BTreeMap::new(),
        tagged: BTreeMap::new(),
        instance_bytes_left: INSTANCE_BYTES_MAX,
        lists: BTreeMap::new(),
        listed_rules_left: LISTED_RULES_MAX,
        broken_lists: BTreeSet::new(),
        route_comparisons_left: ROUTE_COMPARISONS_MAX,
    };
    let reader = &mut reader;
    let mut fields = reader.fields(root, &FILE)?;
    let name_node = fields.get("mesh");
    let name = name_node
        .and_then(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "a mesh's name")));
    let trust_domain =
        fields.get("trust_domain").map(|node| reader.parsed(node, Kind::Domain, value::trust_domain));
    let namespace = fields
        .get("namespace")
        .map(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "a namespace")));
    if let Some(Some(namespace)) = namespace {
        reader.namespace = namespace;
    }
    let (gateway, gateways) = (fields.entry("gateway"), fields.entry("gateways"));
    let (egress, services) = (fields.get("egress"), fields.get("services"));
    let lists = fields.get("route_lists");
    fields.finish();

    let entries = services.map_or(&[][..], |node| reader.map(node, "a map from names to services"));
    let ids = identify(entries, reader);
    let mut claims = Claims::default();
    let gateways = named_gateways(gateway, gateways, &mut claims, reader);
    let drafts: Vec<Draft<'_>> =
        ids.into_iter().filter_map(|(entry, id)| Draft::read(entry, id, &mut claims, reader)).collect();
    let after = drafts.iter().map(|draft| (draft.entry.spec.id.clone(), draft.start_after.clone())).collect();
    check::cycles(&after, reader);
    if let Some(node) = lists {
        lists::read(node, reader);
    }
    let services = drafts.into_iter().map(|draft| draft.finish(reader)).collect();
    let gateways: Vec<GatewaySpec> = gateways
        .into_iter()
        .filter_map(|(id, node)| listener::gateway(id, node, &mut claims, reader))
        .collect();
    let gateway_ids: Vec<ServiceId> = gateways.iter().map(|gateway| gateway.id.clone()).collect();
    let egress = egress.and_then(|node| egress::Draft::read(node, &gateway_ids, &mut claims, reader));
    lists::unused(reader);
    claims.finish(reader);

    let name = name?;
    let trust_domain = match trust_domain {
        Some(given) => given?,
        None => TrustDomain::parse(&format!("{name}.mesh")).ok()?,
    };
    let egress = egress.unwrap_or_default().finish(&trust_domain);
    let (namespace, folder) = (reader.namespace.clone(), folder.to_owned());
    Some(MeshFile { name, trust_domain, namespace, folder, gateways, egress, services, warnings: Vec::new() })
}

/// The services' names, known before anything refers to them.
fn identify<'n>(entries: &'n [Entry], reader: &mut Reader<'_>) -> Vec<(&'n Entry, ServiceId)> {
    let mut ids = Vec::new();
    for entry in entries {
        let id = service_id(&entry.key, &reader.namespace);
        let Some(id) = reader.checked(entry.key_span, id) else { continue };
        if let Some(before) = reader.services.get(&id) {
            let problem = Problem::error(
                entry.key_span,
                format!("the service \"{}\" is given twice", short(&entry.key)),
            );
            let problem = problem.related(*before, "first given here");
            reader.error(problem.hint(format!("a name without a namespace is in \"{}\"", reader.namespace)));
            continue;
        }
        reader.services.insert(id.clone(), entry.key_span);
        ids.push((entry, id));
    }
    ids
}

/// The gateways, from `gateway` or `gateways`.
fn named_gateways<'n>(
    single: Option<&'n Entry>,
    several: Option<&'n Entry>,
    claims: &mut Claims,
    reader: &mut Reader<'_>,
) -> Vec<(ServiceId, &'n Node)> {
    let mut named: Vec<(&str, Span, &Node)> = Vec::new();
    match (single, several) {
        (Some(single), Some(several)) => {
            let problem = Problem::error(several.key_span, "a file has either `gateway` or `gateways`");
            reader.error(
                problem
                    .related(single.key_span, "this one is given too")
                    .hint("move the single one into `gateways`, under a name"),
            );
        }
        (Some(single), None) => named.push(("gateway", single.key_span, &single.value)),
        (None, Some(several)) => {
            let entries = reader.map(&several.value, "a map from names to gateways");
            named.extend(entries.iter().map(|entry| (&*entry.key, entry.key_span, &entry.value)));
        }
        (None, None) => {}
    }
    let mut gateways = Vec::new();
    for (name, span, node) in named {
        let Some(name) = reader.checked(span, value::label(name, "a gateway's name")) else { continue };
        let id = ServiceId::new(reader.namespace.clone(), name);
        if let Some(service) = reader.services.get(&id) {
            let problem =
                Problem::error(span, format!("a gateway and a service are both called \"{}\"", id.name));
            reader.error(
                problem
                    .related(*service, "the service")
                    .hint("each needs an identity of its own: rename one, for example by `gateways`"),
            );
            continue;
        }
        claims.name(&id.namespace, &id.name, span);
        gateways.push((id, node));
    }
    gateways
}
