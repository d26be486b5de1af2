//! Routes: of a gateway and of a service, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{ActionSpec, GrpcMatch, Labels, MatchSpec, Protocol, RuleSpec, TargetSpec};

use super::fields::{GATEWAY_ROUTE, Kind, LISTED_ROUTE, SERVICE_ROUTE, Shape, TARGET, WEIGHT_MAX};
use super::matching::{matching, of_service as matching_of_service};
use super::read::{Fields, Reader};
use super::tries::{self, Said};
use super::value;
use super::{change, covers, lists, zones};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value, short};

/// Most routes of one gateway or service: a table that is still read in a fraction of a second.
const ROUTES_MAX: usize = 20_000;

/// Most hosts, methods, headers or targets of one route.
pub(crate) const RULES_MAX: usize = 1000;

/// Longest name that is made from a route's host and path, in characters.
const MADE_NAME_CHARS_MAX: usize = 64;

/// A rule with the place it stands at.
struct Placed {
    rule: RuleSpec,
    /// What its name stands at, or the rule.
    name: Span,
    span: Span,
    /// It comes from a list that is used.
    listed: bool,
}

/// The rules of a gateway.
pub(crate) fn of_gateway(routes: &Node, reader: &mut Reader<'_>) -> Vec<RuleSpec> {
    of_nobody(routes, &GATEWAY_ROUTE, matching, reader)
}

/// The rules of a list that others use.
pub(crate) fn of_list(routes: &Node, reader: &mut Reader<'_>) -> Vec<RuleSpec> {
    of_nobody(routes, &LISTED_ROUTE, matching_of_service, reader)
}

/// The rules of a list that belongs to no service: each says where its requests go.
fn of_nobody(
    routes: &Node,
    shape: &'static Shape,
    matching: fn(&mut Fields<'_>, &mut Reader<'_>) -> Option<MatchSpec>,
    reader: &mut Reader<'_>,
) -> Vec<RuleSpec> {
    let mut rules = Vec::new();
    for (index, node) in reader.list(routes, "a list of routes", ROUTES_MAX).iter().enumerate() {
        let Some(mut fields) = reader.fields(node, shape) else { continue };
        let matching = matching(&mut fields, reader);
        let then = match action(&mut fields, &["to", "use", "redirect", "answer"], reader) {
            Given::One("use", entry) => {
                rules.extend(used(fields, entry, (index, rules.len()), matching, None, reader));
                continue;
            }
            Given::One("to", to) => targets(&to.value, None, reader),
            Given::One(kind, entry) => own_answer(kind, entry, matching.as_ref(), &mut fields, reader),
            Given::Nothing if fields.complete => {
                reader.missing(fields.span, shape, "to");
                None
            }
            Given::Nothing | Given::Several => None,
        };
        rules.extend(placed(fields, index, matching, then, None, reader));
    }
    finished(rules, reader)
}

/// The rules of the service `own`: its routes, then its split. `opaque`: it speaks bytes that nobody looks into.
pub(crate) fn of_service(
    routes: Option<&Node>,
    split: Option<&Node>,
    own: &ServiceId,
    opaque: bool,
    reader: &mut Reader<'_>,
) -> Vec<RuleSpec> {
    let mut rules: Vec<Placed> = Vec::new();
    let items = routes.map_or(&[][..], |routes| reader.list(routes, "a list of routes", ROUTES_MAX));
    for (index, node) in items.iter().enumerate() {
        let Some(mut fields) = reader.fields(node, &SERVICE_ROUTE) else { continue };
        let matching = matching_of_service(&mut fields, reader);
        let then = match action(&mut fields, &["to", "split", "use", "redirect", "answer"], reader) {
            Given::One("use", entry) => {
                rules.extend(used(fields, entry, (index, rules.len()), matching, Some(own), reader));
                continue;
            }
            Given::One("to", to) => targets(&to.value, Some(own), reader),
            Given::One("split", split) => versions(&split.value, own, reader),
            Given::One(kind, entry) => own_answer(kind, entry, matching.as_ref(), &mut fields, reader),
            Given::Nothing if fields.complete => {
                let problem = Problem::error(fields.span, "the route says nowhere to go");
                reader.error(problem.hint("add `to: {version: …}` or `split: {…}`"));
                None
            }
            Given::Nothing | Given::Several => None,
        };
        rules.extend(placed(fields, index, matching, then, Some(own), reader));
    }
    for placed in rules.iter().filter(|placed| opaque && looks_at_requests(&placed.rule)) {
        let problem = Problem::warning(placed.span, "this route never matches");
        reader
            .problems
            .add(problem.hint("with `protocol: tcp` nobody looks for requests: only `from` says something"));
    }
    if let Some(split) = split
        && let Some(then) = versions(split, own, reader)
    {
        let rule = RuleSpec {
            name: "split".into(),
            when: MatchSpec::default(),
            then,
            timeout: None,
            tries: None,
            change: None,
        };
        rules.push(Placed { rule, name: split.span, span: split.span, listed: false });
    }
    finished(rules, reader)
}

/// True for a rule that says something of requests alone.
fn looks_at_requests(rule: &RuleSpec) -> bool {
    rule.when.looks_at_requests() || rule.change.is_some() || matches!(rule.then, ActionSpec::Answer(_))
}

/// What a route does, of those things of which it can do only one.
enum Given<'n> {
    One(&'static str, &'n Entry),
    /// Reported.
    Several,
    Nothing,
}

fn action<'n>(fields: &mut Fields<'n>, kinds: &[&'static str], reader: &mut Reader<'_>) -> Given<'n> {
    let given: Vec<_> = kinds.iter().filter_map(|kind| Some((*kind, fields.entry(kind)?))).collect();
    match given[..] {
        [] => Given::Nothing,
        [(kind, entry)] => Given::One(kind, entry),
        [(first, before), (second, entry), ..] => {
            let message = format!("a route has either `{first}` or `{second}`");
            let problem = Problem::error(entry.key_span, message);
            reader.error(
                problem.related(before.key_span, "this one is given too").hint("remove one of the two"),
            );
            Given::Several
        }
    }
}

/// A route that answers by itself.
fn own_answer(
    kind: &str,
    entry: &Entry,
    when: Option<&MatchSpec>,
    fields: &mut Fields<'_>,
    reader: &mut Reader<'_>,
) -> Option<ActionSpec> {
    change::sends_nothing(fields, entry, reader);
    let when = when?;
    if kind == "redirect" {
        change::redirect(&entry.value, when, reader)
    } else {
        change::answer(&entry.value, when, reader)
    }
}

/// The rules of the route in `fields`, which uses a list, and is the one of this number behind so many rules.
fn used(
    mut fields: Fields<'_>,
    entry: &Entry,
    (index, before): (usize, usize),
    when: Option<MatchSpec>,
    own: Option<&ServiceId>,
    reader: &mut Reader<'_>,
) -> Vec<Placed> {
    let name = match name(&mut fields, reader) {
        Some(name) => name,
        None => Some(when.as_ref().map_or_else(|| "".into(), |when| made_name(when, index))),
    };
    let unknown = MatchSpec::default();
    let rules = lists::used(
        entry,
        &mut fields,
        name.as_deref().unwrap_or_default(),
        when.as_ref().unwrap_or(&unknown),
        own,
        ROUTES_MAX.saturating_sub(before),
        reader,
    );
    let span = fields.span;
    fields.finish();
    if when.is_none() || name.is_none() {
        return Vec::new();
    }
    rules.into_iter().flatten().map(|rule| Placed { rule, name: span, span, listed: true }).collect()
}

/// The name that a route gives itself; the inner `None`: it is wrong, which is reported.
fn name(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Option<Arc<str>>> {
    let node = fields.get("name")?;
    let name = reader.parsed(node, Kind::Name, |text| value::label(text, "a route's name"));
    Some(name.map(|name| name.as_str().into()))
}

/// The rule of the route in `fields`; nothing when a part of it is wrong.
fn placed(
    mut fields: Fields<'_>,
    index: usize,
    when: Option<MatchSpec>,
    then: Option<ActionSpec>,
    own: Option<&ServiceId>,
    reader: &mut Reader<'_>,
) -> Option<Placed> {
    let name_span = fields.key("name");
    let name = name(&mut fields, reader);
    let Said { timeout, tries } = tries::read(&mut fields, Protocol::Auto, false, reader);
    let errors = reader.problems.errors();
    let change = change::change(&mut fields, when.as_ref(), own, reader);
    let span = fields.span;
    fields.finish();
    if reader.problems.errors() > errors {
        return None;
    }
    let (when, then) = (when?, then?);
    let name: Arc<str> = match name {
        Some(name) => name?,
        None => made_name(&when, index),
    };
    Some(Placed {
        rule: RuleSpec { name, when, then, timeout, tries, change },
        name: name_span.unwrap_or(span),
        span,
        listed: false,
    })
}

/// What a route without a name is called: its host and path, when they say enough.
fn made_name(when: &MatchSpec, index: usize) -> Arc<str> {
    let host = match when.hosts.first() {
        Some(leno_core::spec::HostMatch::Exact(host)) => host.to_string(),
        Some(leno_core::spec::HostMatch::Suffix(suffix)) => format!("*{suffix}"),
        None => String::new(),
    };
    let path = match (&when.path, &when.grpc) {
        (Some(path), _) => path.as_str().to_owned(),
        (None, Some(GrpcMatch { service: Some(service), method: Some(method) })) => {
            format!("{service}/{method}")
        }
        (None, Some(call)) => call.service.as_deref().unwrap_or("").to_owned(),
        (None, None) => String::new(),
    };
    let made = format!("{host}{path}");
    if made.is_empty() || made.chars().count() > MADE_NAME_CHARS_MAX {
        format!("route-{}", index + 1).into()
    } else {
        made.into()
    }
}

/// The rules with unique names, after a look for rules that can never match.
fn finished(mut rules: Vec<Placed>, reader: &mut Reader<'_>) -> Vec<RuleSpec> {
    if let Some(placed) = rules.get(ROUTES_MAX) {
        let message = format!("with those of the lists that are used, there are {} routes", rules.len());
        reader
            .error(Problem::error(placed.span, message).hint(format!("at most {ROUTES_MAX} are supported")));
        rules.truncate(ROUTES_MAX);
    }
    let mut first: BTreeMap<Arc<str>, Span> = BTreeMap::new();
    for (index, placed) in rules.iter_mut().enumerate() {
        let given = placed.name != placed.span;
        match first.get(&placed.rule.name) {
            None => {}
            Some(before) if given => {
                let message = format!("two routes are called \"{}\"", short(&placed.rule.name));
                let problem = Problem::error(placed.name, message);
                reader.error(
                    problem
                        .related(*before, "the first one")
                        .hint("give each route a name of its own, or none"),
                );
            }
            Some(_) => placed.rule.name = format!("{} ({})", placed.rule.name, index + 1).into(),
        }
        first.entry(placed.rule.name.clone()).or_insert(placed.name);
    }
    // A list serves whom it serves: not all of its routes need to match everywhere.
    for (index, placed) in rules.iter().enumerate().filter(|(_, placed)| !placed.listed) {
        let earlier = rules[..index].iter().find(|earlier| {
            let work = covers::comparisons(&earlier.rule.when, &placed.rule.when);
            reader.route_comparisons_left = reader.route_comparisons_left.saturating_sub(work);
            reader.route_comparisons_left > 0 && covers::covers(&earlier.rule.when, &placed.rule.when)
        });
        if let Some(earlier) = earlier {
            reader.problems.add(
                Problem::warning(placed.span, "this route never matches")
                    .related(earlier.span, "takes all of its requests first")
                    .hint("the first route that matches wins: put the narrower one first"),
            );
        }
    }
    rules.into_iter().map(|placed| placed.rule).collect()
}

/// What `to` says. In a service's own routes (`own`) a target is that service unless it names another; in a
/// gateway's a service without a version is handed the request by its own rules.
fn targets(to: &Node, own: Option<&ServiceId>, reader: &mut Reader<'_>) -> Option<ActionSpec> {
    let errors = reader.problems.errors();
    let items = match &to.value {
        Value::List(_) => reader.list(to, "a list of targets", RULES_MAX),
        _ => std::slice::from_ref(to),
    };
    let targets: Vec<TargetSpec> = items.iter().filter_map(|item| target(item, own, reader)).collect();
    if reader.problems.errors() > errors {
        return None;
    }
    if targets.iter().all(|target| target.weight == 0) {
        reader.error(no_weight(to.span, "targets"));
        return None;
    }
    let mut seen = BTreeSet::new();
    for (target, item) in targets.iter().zip(items) {
        if !seen.insert((&target.service, &target.version, &target.labels)) {
            reader.error(Problem::error(item.span, "this target is given twice").hint("add the weights up"));
            return None;
        }
    }
    match &targets[..] {
        [TargetSpec { service, version: None, labels, .. }] if own.is_none() && labels.is_empty() => {
            Some(ActionSpec::Service(service.clone()))
        }
        _ => Some(ActionSpec::Split(targets)),
    }
}

fn target(node: &Node, own: Option<&ServiceId>, reader: &mut Reader<'_>) -> Option<TargetSpec> {
    if let Value::Scalar(scalar) = &node.value {
        let version = own.filter(|own| is_version(own, &scalar.text, reader));
        if version.is_some()
            && super::read::service_id(&scalar.text, &reader.namespace)
                .is_ok_and(|id| !reader.services.contains_key(&id))
        {
            let problem = Problem::error(node.span, format!("unknown service \"{}\"", short(&scalar.text)));
            reader
                .error(problem.hint(format!("it is a version: write {{version: {}}}", short(&scalar.text))));
            return None;
        }
        let service = reader.service(node)?;
        return Some(TargetSpec { service, version: None, labels: Labels::NONE, weight: 1 });
    }
    let mut fields = reader.fields(node, &TARGET)?;
    let service_node = fields.get("service");
    let complete = fields.complete;
    let service = match (service_node, own) {
        (None, None) if !complete => None,
        (Some(node), _) => reader.service(node),
        (None, Some(own)) => Some(own.clone()),
        (None, None) => {
            reader.error(Problem::error(node.span, "the target names no service").hint("add `service: …`"));
            None
        }
    };
    let version_node = fields.get("version");
    let version = version_node.map(|node| {
        let text = reader.text(node, Kind::Version)?;
        reader.version_of(service.as_ref()?, text, node.span)
    });
    let labels = fields.get("labels").map(|node| {
        let version = version.as_ref().and_then(Option::as_ref);
        zones::of_target(node, service.as_ref()?, version, reader)
    });
    let weight = fields.get("weight").map_or(Some(1), |node| weight(node, reader));
    fields.finish();
    let version = match version {
        Some(version) => Some(version?),
        None => None,
    };
    Some(TargetSpec {
        service: service?,
        version,
        labels: labels.unwrap_or(Some(Labels::NONE))?,
        weight: weight?,
    })
}

fn is_version(own: &ServiceId, text: &str, reader: &Reader<'_>) -> bool {
    let versions = reader.versions.get(own);
    versions.is_some_and(|versions| versions.iter().any(|version| version.as_str() == text))
}

/// What `split` says: versions of `own` with their shares.
fn versions(split: &Node, own: &ServiceId, reader: &mut Reader<'_>) -> Option<ActionSpec> {
    let errors = reader.problems.errors();
    let mut targets = Vec::new();
    for entry in reader.map(split, "a map from versions to weights").iter().take(RULES_MAX) {
        let version: Option<Label> = reader.version_of(own, &entry.key, entry.key_span);
        let weight = weight(&entry.value, reader);
        let (Some(version), Some(weight)) = (version, weight) else { continue };
        let labels = Labels::NONE;
        targets.push(TargetSpec { service: own.clone(), version: Some(version), labels, weight });
    }
    if reader.problems.errors() > errors {
        return None;
    }
    if targets.iter().all(|target| target.weight == 0) {
        reader.error(no_weight(split.span, "versions"));
        return None;
    }
    Some(ActionSpec::Split(targets))
}

/// A weight.
pub(crate) fn weight(node: &Node, reader: &mut Reader<'_>) -> Option<u32> {
    reader.number(node, Kind::Weight, |text| match text.strip_suffix('%') {
        Some(number) => value::number(number, "a weight", 0, WEIGHT_MAX).and_then(|number| {
            value::number(text, "a weight", 0, WEIGHT_MAX).map_err(|wrong| wrong.instead(&number.to_string()))
        }),
        None => value::number(text, "a weight", 0, WEIGHT_MAX),
    })
}

/// The weights of several `things` add up to nothing.
pub(crate) fn no_weight(span: Span, things: &str) -> Problem {
    Problem::error(span, format!("the weights of these {things} add up to 0"))
        .hint("give at least one a weight above 0")
}
