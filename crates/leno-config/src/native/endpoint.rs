//! Endpoints: the places outside the mesh where a service answers, by address or by name.

use std::collections::BTreeMap;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{EndpointSpec, NamedEndpoint, Tags, Transport, Zone};

use super::fields::{ENDPOINT, Kind};
use super::instance::{numbered, version};
use super::read::Reader;
use super::rules::{no_weight, weight};
use super::value::{self, Place};
use super::zones;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Node, Value};

/// Most endpoints of one service: addresses only, still read in a fraction of a second.
const ENDPOINTS_MAX: usize = 20_000;

/// Most names of one service: each is looked up again and again, by every sidecar that calls it.
const NAMES_MAX: usize = 64;

/// Where a service answers, sorted by name.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) endpoints: Vec<EndpointSpec>,
    pub(crate) names: Vec<NamedEndpoint>,
}

/// The endpoints in the list `node`.
pub(crate) fn listed(
    node: &Node,
    service: &ServiceId,
    zone: Option<&Zone>,
    reader: &mut Reader<'_>,
) -> Places {
    let mut places = Places::default();
    let mut taken: BTreeMap<Place, Span> = BTreeMap::new();
    let mut names: BTreeMap<Label, Span> = BTreeMap::new();
    let errors = reader.problems.errors();
    let mut weights = 0;
    for (index, item) in reader.list(node, "a list of addresses", ENDPOINTS_MAX).iter().enumerate() {
        let Some(endpoint) = endpoint(item, service, zone, index, reader) else { continue };
        let Endpoint { place, name, version, tags, weight, span } = endpoint;
        if let Some(before) = taken.get(&place) {
            let what = if matches!(place, Place::Address(_)) { "address" } else { "place" };
            let problem = Problem::error(span, format!("the {what} {place} is given twice"));
            reader.error(
                problem
                    .related(*before, "first given here")
                    .hint("use `weight` to give an endpoint a larger share"),
            );
        } else if let Some(before) = names.get(&name) {
            let problem = Problem::error(item.span, format!("two endpoints are called \"{name}\""));
            reader.error(problem.related(*before, "the first one").hint("give each a name of its own"));
        }
        weights += u64::from(weight);
        taken.entry(place.clone()).or_insert(span);
        names.entry(name.clone()).or_insert(item.span);
        let name = name.as_str().into();
        match place {
            Place::Address(address) => places.endpoints.push(EndpointSpec {
                name,
                address,
                transport: Transport::Plain,
                version,
                weight,
                healthy: true,
                tags,
            }),
            Place::Name(host, port) => {
                places.names.push(NamedEndpoint { name, host, port, version, weight, tags });
            }
        }
    }
    if reader.problems.errors() == errors && weights == 0 {
        reader.error(no_weight(node.span, "endpoints"));
    }
    if places.names.len() > NAMES_MAX {
        let problem = Problem::error(node.span, format!("{} endpoints are host names", places.names.len()));
        reader.error(problem.hint(format!("at most {NAMES_MAX} are looked up for one service")));
    }
    places.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    places.names.sort_by(|a, b| a.name.cmp(&b.name));
    places
}

/// One item of the list.
struct Endpoint {
    place: Place,
    name: Label,
    version: Option<Label>,
    tags: Tags,
    weight: u32,
    /// Where its place stands.
    span: Span,
}

fn endpoint(
    node: &Node,
    service: &ServiceId,
    zone: Option<&Zone>,
    index: usize,
    reader: &mut Reader<'_>,
) -> Option<Endpoint> {
    let here = Tags { zone: zone.cloned(), ..Tags::NONE };
    let (place, name, version, tags, weight, span) = if let Value::Map(_) = &node.value {
        let mut fields = reader.fields(node, &ENDPOINT)?;
        let place_node = fields.get("address");
        let place = place_node.and_then(|node| reader.number(node, Kind::Place, value::place));
        let name = fields
            .get("name")
            .map(|node| reader.parsed(node, Kind::Name, |text| value::label(text, "an endpoint's name")));
        let version = version(&mut fields, reader);
        let tags = zones::tags(&mut fields, zone, reader);
        let weight = fields.get("weight").and_then(|node| weight(node, reader)).unwrap_or(1);
        fields.finish();
        (place, name, version, tags, weight, place_node.map_or(node.span, |node| node.span))
    } else {
        (reader.number(node, Kind::Place, value::place), None, None, here, 1, node.span)
    };
    let name = match name {
        Some(name) => name?,
        None => numbered(service.name.as_str(), index + 1, node.span, reader)?,
    };
    Some(Endpoint { place: place?, name, version, tags, weight, span })
}
