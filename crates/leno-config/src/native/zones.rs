//! Where things are, and labels.

use std::sync::Arc;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{
    Distribution, LABELS_MAX, Labels, LabelsError, Locality, PLACES_MAX, Prefer, SourceMatch, Tags, Zone,
    ZoneError,
};

use super::egress::caller;
use super::fields::{CALLER, DISTRIBUTION, ENDPOINTS_MIN_MAX, Kind, LOCALITY, PREFER};
use super::read::{Fields, Reader};
use super::rules::{no_weight, weight};
use super::value::{self, Wrong};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Node, Value, short};

/// What an instance or endpoint says of itself; without a zone it is in that of its service.
pub(crate) fn tags(fields: &mut Fields<'_>, of_service: Option<&Zone>, reader: &mut Reader<'_>) -> Tags {
    let zone = fields.get("zone").and_then(|node| zone(node, reader)).or_else(|| of_service.cloned());
    let labels = fields.get("labels").and_then(|node| labels(node, reader)).unwrap_or_default();
    Tags { zone, labels }
}

/// A zone.
pub(crate) fn zone(node: &Node, reader: &mut Reader<'_>) -> Option<Zone> {
    reader.parsed(node, Kind::Zone, parse_zone)
}

fn parse_zone(text: &str) -> Result<Zone, Wrong> {
    let wrong = |error: ZoneError| Wrong {
        message: format!("\"{}\" is no zone", short(text)),
        hint: Some(error.to_string()),
    };
    Zone::parse(text).map_err(wrong)
}

/// A map of labels.
pub(crate) fn labels(node: &Node, reader: &mut Reader<'_>) -> Option<Labels> {
    let errors = reader.problems.errors();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for entry in reader.map(node, "a map from keys to values").iter().take(LABELS_MAX + 1) {
        let wrong = |error: LabelsError| Wrong {
            message: "this is no label".to_owned(),
            hint: Some(error.to_string()),
        };
        reader.checked(entry.key_span, Labels::check_key(&entry.key).map_err(wrong));
        let value = reader.parsed(&entry.value, Kind::Text, |text| {
            Labels::check_value(text).map_err(wrong)?;
            Ok(text.to_owned())
        });
        if value.is_some()
            && let Value::Scalar(scalar) = &entry.value.value
        {
            pairs.push((&entry.key, &scalar.text));
        }
    }
    if reader.problems.errors() > errors {
        return None;
    }
    match Labels::parse(pairs) {
        Ok(labels) => Some(labels),
        Err(error) => {
            reader.error(Problem::error(node.span, "these are no labels").hint(error.to_string()));
            None
        }
    }
}

/// The labels of a target, which some instance must have.
pub(crate) fn of_target(
    node: &Node,
    service: &ServiceId,
    version: Option<&Label>,
    reader: &mut Reader<'_>,
) -> Option<Labels> {
    let wanted = labels(node, reader)?;
    let Some(known) = reader.tagged.get(service) else { return Some(wanted) };
    let fits = |(own, labels): &(Option<Label>, Labels)| {
        version.is_none_or(|version| own.as_ref() == Some(version)) && labels.have(own.as_ref(), &wanted)
    };
    if known.iter().any(fits) {
        return Some(wanted);
    }
    let service = reader.shown(service);
    let problem = Problem::error(node.span, format!("no instance of \"{service}\" has these labels"));
    reader.error(problem.hint("give some of its instances these `labels`"));
    None
}

/// Who sends a request: a name, or a map.
pub(crate) fn source(node: &Node, reader: &mut Reader<'_>) -> Option<SourceMatch> {
    if !matches!(node.value, Value::Map(_)) {
        return caller(node, reader).map(SourceMatch::from);
    }
    let mut fields = reader.fields(node, &CALLER)?;
    let who = fields.get("service").map(|node| caller(node, reader));
    let labels = fields.get("labels").map(|node| labels(node, reader));
    let complete = fields.complete;
    fields.finish();
    if who.is_none() && labels.is_none() && complete {
        let problem = Problem::error(node.span, "the caller says nothing");
        reader.error(problem.hint("such as {service: web, labels: {track: canary}}"));
    }
    let who = match who {
        Some(who) => Some(who?),
        None => None,
    };
    Some(SourceMatch { who, labels: labels.unwrap_or(Some(Labels::NONE))? })
}

/// A word, or a map.
pub(crate) fn locality(node: &Node, reader: &mut Reader<'_>) -> Option<Arc<Locality>> {
    let default = Locality::new();
    if !matches!(node.value, Value::Map(_)) {
        return prefer(node, reader).map(|prefer| Arc::new(Locality { prefer, ..default }));
    }
    let mut fields = reader.fields(node, &LOCALITY)?;
    let prefer = fields.get("prefer").and_then(|node| prefer(node, reader)).unwrap_or_default();
    let failover = fields.entry("failover");
    if let Some(entry) = failover.filter(|_| prefer == Prefer::Anybody) {
        let problem = Problem::error(entry.key_span, "there is nothing to fail over from");
        reader.error(problem.hint("remove it, or prefer somebody"));
    }
    let failover = failover.map(|entry| places(&entry.value, reader)).unwrap_or_default();
    let distribute = fields.get("distribute").map(|node| distributions(node, reader)).unwrap_or_default();
    let mut number = |name, min: u32, max: u32, kind: Kind, otherwise: u32| {
        let node = fields.get(name);
        let read = |text: &str| value::number(text, "a number", min, max);
        node.and_then(|node| reader.number(node, kind, read)).unwrap_or(otherwise)
    };
    let kind = || Kind::Between(100, 10_000);
    let overprovision_percent =
        number("overprovision_percent", 100, 10_000, kind(), default.overprovision_percent);
    let endpoints_min =
        number("instances_min", 1, ENDPOINTS_MIN_MAX, Kind::Count(ENDPOINTS_MIN_MAX), default.endpoints_min);
    let overflow_percent = match fields.get("overflow_percent") {
        None => default.overflow_percent,
        Some(Node { value: Value::Scalar(scalar), .. }) if scalar.text == "none" => None,
        Some(node) => reader.number(node, kind(), |text| value::number(text, "a number", 100, 10_000)),
    };
    fields.finish();
    let locality =
        Locality { prefer, failover, distribute, overprovision_percent, endpoints_min, overflow_percent };
    Some(Arc::new(locality))
}

fn prefer(node: &Node, reader: &mut Reader<'_>) -> Option<Prefer> {
    Some(match reader.choice(node, PREFER)? {
        "none" => Prefer::Anybody,
        "region" => Prefer::Region,
        "subzone" => Prefer::Subzone,
        _ => Prefer::Zone,
    })
}

/// Places in order, none within one before it: that would never be reached.
fn places(node: &Node, reader: &mut Reader<'_>) -> Vec<Zone> {
    let mut places: Vec<(Zone, Span)> = Vec::new();
    for item in reader.list(node, "a list of regions, zones or subzones", PLACES_MAX) {
        let Some(zone) = zone(item, reader) else { continue };
        add_place(zone, item.span, &mut places, reader);
    }
    places.into_iter().map(|(zone, _)| zone).collect()
}

fn add_place(zone: Zone, span: Span, places: &mut Vec<(Zone, Span)>, reader: &mut Reader<'_>) {
    if let Some((_, before)) = places.iter().find(|(before, _)| before.covers(&zone)) {
        let problem = Problem::error(span, "this place is within one before it");
        reader
            .error(problem.related(*before, "that one").hint("put the narrower one first, or leave one out"));
    }
    places.push((zone, span));
}

fn distributions(node: &Node, reader: &mut Reader<'_>) -> Vec<Distribution> {
    let items = reader.list(node, "a list of distributions", PLACES_MAX);
    items.iter().filter_map(|item| distribution(item, reader)).collect()
}

fn distribution(node: &Node, reader: &mut Reader<'_>) -> Option<Distribution> {
    let mut fields = reader.fields(node, &DISTRIBUTION)?;
    let from = fields.get("from").and_then(|node| zone(node, reader));
    let to_node = fields.get("to");
    fields.finish();
    let (from, to_node) = (from?, to_node?);
    let errors = reader.problems.errors();
    let (mut places, mut shares) = (Vec::new(), Vec::new());
    for entry in reader.map(to_node, "a map from places to shares").iter().take(PLACES_MAX) {
        let zone = reader.checked(entry.key_span, parse_zone(&entry.key));
        let share = weight(&entry.value, reader);
        let (Some(zone), Some(share)) = (zone, share) else { continue };
        add_place(zone.clone(), entry.key_span, &mut places, reader);
        shares.push((zone, share));
    }
    if reader.problems.errors() > errors {
        return None;
    }
    if shares.iter().all(|(_, share)| *share == 0) {
        reader.error(no_weight(to_node.span, "places"));
        return None;
    }
    Some(Distribution { from, to: shares })
}
