//! How many requests pass in a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_core::spec::{
    RATE_KEYS_MAX, RATE_PER, RATE_PER_MAX, RATE_PER_MIN, RATE_REQUESTS_MAX, RATES_MAX, RateKey, RateScope,
    RateSpec,
};

use super::fields::{Kind, RATE_KEY, RATE_LIMIT, RATE_WORDS};
use super::matching;
use super::read::Reader;
use super::value;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Node, Value, short};

/// The limits of a service (`callers`: whoever sends requests has an identity), or of a gateway's route.
pub(crate) fn limits(node: &Node, callers: bool, reader: &mut Reader<'_>) -> Vec<Arc<RateSpec>> {
    let mut first: BTreeMap<Arc<str>, Span> = BTreeMap::new();
    let mut limits = Vec::new();
    for (at, item) in reader.list(node, "a list of limits", RATES_MAX).iter().enumerate() {
        let Some(limit) = limit(item, at + 1, callers, reader) else { continue };
        if let Some(before) = first.get(&limit.name) {
            let message = format!("two limits are called \"{}\"", short(&limit.name));
            let problem = Problem::error(item.span, message).related(*before, "the first one");
            reader.error(problem.hint("give each a `name` of its own"));
        }
        first.entry(limit.name.clone()).or_insert(item.span);
        limits.push(Arc::new(limit));
    }
    limits
}

fn limit(node: &Node, number: usize, callers: bool, reader: &mut Reader<'_>) -> Option<RateSpec> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &RATE_LIMIT)?;
    let count = |node: &Node, reader: &mut Reader<'_>| {
        let max = RATE_REQUESTS_MAX;
        reader.number(node, Kind::Count(max), |text| value::number(text, "a number of requests", 1, max))
    };
    let name = match fields.get("name") {
        Some(node) => reader
            .parsed(node, Kind::Name, |text| value::label(text, "a limit's name"))
            .map(|name| Arc::from(name.as_str())),
        None => Some(format!("limit-{number}").into()),
    };
    let requests = fields.get("requests").and_then(|node| count(node, reader));
    let burst = fields.get("burst").and_then(|node| count(node, reader));
    let mut per = RATE_PER;
    if let Some(node) = fields.get("per") {
        per = reader.parsed(node, Kind::Duration, value::duration).unwrap_or(RATE_PER);
        if !(RATE_PER_MIN..=RATE_PER_MAX).contains(&per) {
            reader.error(
                Problem::error(node.span, "the time is too short or too long").hint("from 100ms to 24h"),
            );
        }
    }
    let by = fields.get("by").map(|node| keys(node, callers, reader)).unwrap_or_default();
    let scope = fields.get("scope").and_then(|node| reader.choice(node, RATE_LIMIT.choices("scope")));
    let dry_run = fields.get("dry_run").and_then(|node| reader.flag(node)).unwrap_or(false);
    let from = fields.key("from");
    let when = matching::of_service(&mut fields, reader);
    fields.finish();
    let by_labels =
        when.iter().flat_map(|when| when.parts().flat_map(|it| &it.sources)).any(|it| !it.labels.is_empty());
    if let Some(span) = from.filter(|_| by_labels && callers) {
        let problem = Problem::error(span, "a limit does not know the labels of callers");
        reader.error(problem.hint("only their own proxies do; name services or namespaces"));
    }
    if let Some(span) = from.filter(|_| !callers) {
        let problem = Problem::error(span, "clients of a gateway have no identity");
        reader.error(problem.hint("count them by `client` or by a header"));
    }
    if reader.problems.errors() > errors {
        return None;
    }
    let requests = requests?;
    Some(RateSpec {
        name: name?,
        when: when?,
        requests,
        per,
        burst: burst.unwrap_or(requests),
        by,
        scope: if scope == Some("mesh") { RateScope::Mesh } else { RateScope::Instance },
        dry_run,
    })
}

fn keys(node: &Node, callers: bool, reader: &mut Reader<'_>) -> Vec<RateKey> {
    let items = match &node.value {
        Value::Map(_) => std::slice::from_ref(node),
        _ => reader.one_or_more(node, "caller, client, {header: NAME}, or a list of these", RATE_KEYS_MAX),
    };
    let mut keys: Vec<RateKey> = Vec::new();
    for item in items {
        let Some(key) = key(item, reader) else { continue };
        if key == RateKey::Caller && !callers {
            let problem = Problem::error(item.span, "clients of a gateway have no identity");
            reader.error(problem.hint("count them by `client` or by a header"));
        }
        if keys.contains(&key) {
            reader.error(Problem::error(item.span, "this key is given twice").hint("keep one of the two"));
        }
        keys.push(key);
    }
    keys
}

fn key(node: &Node, reader: &mut Reader<'_>) -> Option<RateKey> {
    if !matches!(node.value, Value::Map(_)) {
        return match reader.choice(node, RATE_WORDS)? {
            "caller" => Some(RateKey::Caller),
            _ => Some(RateKey::Client),
        };
    }
    let mut fields = reader.fields(node, &RATE_KEY)?;
    let header = fields.get("header");
    fields.finish();
    let node = header?;
    let name = reader.text(node, Kind::Text)?;
    reader.checked(node.span, value::header_name(name)).map(RateKey::Header)
}
