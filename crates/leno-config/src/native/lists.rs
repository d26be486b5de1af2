//! Lists of routes that several gateways and services share. What hands requests to a list asks for something; its routes
//! ask for more. Each becomes a rule that asks for both, where the list is used: so that a list which is used costs a
//! request no more than its routes written out, and a request that none of them takes goes on behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leno_core::name::ServiceId;
use leno_core::spec::{ActionSpec, LISTS_DEEP_MAX, Labels, MatchSpec, RuleSpec, TargetSpec};

use super::fields::Kind;
use super::read::{Fields, Reader};
use super::rules;
use super::value;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::suggest;
use crate::yaml::{Entry, Node, Value, short};

/// Most lists of a file.
const LISTS_MAX: usize = 1000;

/// A list that is read.
pub(crate) struct Shared {
    rules: Vec<RuleSpec>,
    key: Span,
    used: bool,
}

/// Reads `route_lists`, those first that others use.
pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) {
    let entries = reader.map(node, "a map from names to lists of routes");
    if let Some(entry) = entries.get(LISTS_MAX) {
        reader.error(Problem::error(entry.key_span, format!("more than {LISTS_MAX} lists")));
    }
    let mut known: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in entries.iter().take(LISTS_MAX) {
        if reader.checked(entry.key_span, value::label(&entry.key, "a list's name")).is_some() {
            known.insert(&entry.key, entry);
        }
    }
    let mut open = Vec::new();
    for name in known.keys().copied().collect::<Vec<_>>() {
        read_one(name, &known, &mut open, reader);
    }
}

fn read_one<'n>(
    name: &'n str,
    known: &BTreeMap<&'n str, &'n Entry>,
    open: &mut Vec<&'n str>,
    reader: &mut Reader<'_>,
) {
    let Some(entry) = known.get(name) else { return };
    if reader.lists.contains_key(name) {
        return;
    }
    open.push(name);
    for (used, span) in uses(&entry.value) {
        if open.contains(&used) {
            let path: Vec<&str> = open.iter().skip_while(|it| **it != used).copied().chain([used]).collect();
            let problem = Problem::error(span, format!("the lists use each other: {}", path.join(" -> ")));
            reader.error(problem.hint("write out what one of them needs of the other"));
            reader.broken_lists.insert(used.to_owned());
        } else {
            read_one(used, known, open, reader);
        }
    }
    open.pop();
    let rules = rules::of_list(&entry.value, reader);
    reader.lists.insert(name.to_owned(), Shared { rules, key: entry.key_span, used: false });
}

/// The lists that the routes of `node` use.
fn uses(node: &Node) -> Vec<(&str, Span)> {
    let Value::List(routes) = &node.value else { return Vec::new() };
    let entries = routes.iter().filter_map(|route| match &route.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == "use"),
        _ => None,
    });
    entries
        .filter_map(|entry| match &entry.value.value {
            Value::Scalar(scalar) => Some((scalar.text.as_str(), entry.value.span)),
            _ => None,
        })
        .collect()
}

/// Reports lists that nothing uses.
pub(crate) fn unused(reader: &mut Reader<'_>) {
    for shared in reader.lists.values().filter(|shared| !shared.used) {
        let problem = Problem::warning(shared.key, "this list is not used");
        reader.problems.add(problem.hint("a route uses it by `use: NAME`"));
    }
}

/// Fields that say what becomes of requests: the list's own routes say that.
const DOES: [&str; 11] = [
    "rewrite",
    "request_headers",
    "response_headers",
    "mirror",
    "priority",
    "fault",
    "cors",
    "rate_limits",
    "timeout",
    "retry",
    "hedge",
];

/// The rules that the route in `fields` becomes, which is called `name` and hands what `when` is about to a list; each with
/// its name. Of a service (`own`) targets are its own endpoints, so that no request goes round in a circle.
pub(crate) fn used(
    entry: &Entry,
    fields: &mut Fields<'_>,
    name: &str,
    when: &MatchSpec,
    own: Option<&ServiceId>,
    room: usize,
    reader: &mut Reader<'_>,
) -> Option<Vec<RuleSpec>> {
    let errors = reader.problems.errors();
    for name in DOES {
        if let Some(given) = fields.entry(name) {
            let problem =
                Problem::error(given.key_span, format!("`{name}` goes with the routes of the list"));
            reader.error(problem.related(entry.key_span, "this hands requests to a list"));
        }
    }
    let text = reader.text(&entry.value, Kind::Text)?;
    let Some(shared) = reader.lists.get_mut(text) else {
        if !reader.broken_lists.contains(text) {
            let names: BTreeSet<&str> = reader.lists.keys().map(String::as_str).collect();
            let hint = suggest::did_you_mean(text, names.iter().copied())
                .unwrap_or_else(|| "lists are given by `route_lists`, beside `services`".to_owned());
            let problem = Problem::error(entry.value.span, format!("unknown list \"{}\"", short(text)));
            reader.error(problem.hint(hint));
        }
        return None;
    };
    shared.used = true;
    // Before they are written out: small files could else make gigabytes.
    let count = shared.rules.len();
    if count > room || count > reader.listed_rules_left {
        let message = format!("this list has {count} routes, and there are too many already");
        let hint = "at most 20000 in one list of routes, and 200000 by `use` in a file";
        reader.error(Problem::error(entry.value.span, message).hint(hint));
        return None;
    }
    reader.listed_rules_left -= count;
    let deepest = shared.rules.iter().map(|rule| rule.when.also.len()).max().unwrap_or(0);
    if deepest >= LISTS_DEEP_MAX && *when != MatchSpec::default() {
        let message = format!("lists use lists that use lists: conditions go at most {LISTS_DEEP_MAX} deep");
        reader.error(Problem::error(entry.value.span, message).hint("let a list in between ask for nothing"));
        return None;
    }
    let rules = shared.rules.clone().into_iter().map(|rule| {
        let mut also = rule.when.also.clone();
        if *when != MatchSpec::default() {
            also.push(when.clone());
        }
        let then = match (rule.then, own) {
            (ActionSpec::Service(service), Some(_)) => ActionSpec::Split(vec![TargetSpec {
                service,
                version: None,
                labels: Labels::NONE,
                weight: 1,
            }]),
            (then, _) => then,
        };
        let name: Arc<str> = format!("{name}/{}", rule.name).into();
        RuleSpec { name, when: MatchSpec { also, ..rule.when }, then, ..rule }
    });
    let rules = rules.collect();
    (reader.problems.errors() == errors).then_some(rules)
}
