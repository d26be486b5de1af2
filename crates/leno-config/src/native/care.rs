//! How the endpoints of a service are looked after.

use std::sync::Arc;
use std::time::Duration;

use leno_core::name::ServiceId;
use leno_core::spec::{
    Affinity, Balance, CHOICES, Care, CookieSpec, KeySpec, Limits, Outliers, Protocol, SLOW_START_FROM,
    SlowStart,
};

use super::fields::{BALANCE, FAILURES_MAX, KEY, Kind, LIMIT_MAX, LIMITS, OUTLIERS, POLICIES, SOURCE};
use super::rate;
use super::read::{Fields, Reader};
use super::{value, zones};
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value};

mod concurrency;

/// How an endpoint is chosen, and what else is said of them; `None` when nothing is.
pub(crate) fn read(
    own: &ServiceId,
    protocol: Protocol,
    fields: &mut Fields<'_>,
    reader: &mut Reader<'_>,
) -> (Balance, Option<Care>) {
    let mut care = Care::default();
    let balance = fields.get("balance").map(|node| balance(node, &mut care, reader));
    if let Some(node) = fields.get("outliers") {
        care.outliers = outliers(node, reader);
    }
    if let Some(node) = fields.get("limits") {
        care.limits = limits(node, reader).unwrap_or_default();
    }
    if let Some(entry) = fields.entry("concurrency") {
        care.concurrency = concurrency::read(entry, protocol, fields.key("endpoints"), reader);
    }
    if let Some(node) = fields.get("backup") {
        care.backup = reader.service(node);
        if care.backup.as_ref() == Some(own) {
            let problem = Problem::error(node.span, "a service cannot back itself up");
            reader.error(problem.hint("name another service"));
        }
    }
    care.locality = fields.get("locality").and_then(|node| zones::locality(node, reader));
    if let Some(node) = fields.get("rate_limits") {
        care.rates = rate::limits(node, true, reader);
    }
    let said = care != Care::default();
    (balance.unwrap_or_default(), said.then_some(care))
}

/// A word, or a map.
fn balance(node: &Node, care: &mut Care, reader: &mut Reader<'_>) -> Balance {
    if !matches!(node.value, Value::Map(_)) {
        let balance = policy(node, reader);
        if matches!(balance, Balance::RingHash | Balance::Maglev) {
            needs_key(node, reader);
        }
        return balance;
    }
    let Some(mut fields) = reader.fields(node, &BALANCE) else { return Balance::default() };
    let balance = fields.get("policy").map_or_else(Balance::default, |node| policy(node, reader));
    let compares = matches!(balance, Balance::LeastRequest | Balance::PeakEwma);
    if let Some(node) = of_policy("choices", compares, &mut fields, reader) {
        care.choices = count(node, 100, reader).unwrap_or(CHOICES);
    }
    let ewma = balance == Balance::PeakEwma;
    if let Some(node) = of_policy("decay", ewma, &mut fields, reader) {
        care.ewma.decay = duration(node, reader).unwrap_or(care.ewma.decay);
    }
    if let Some(node) = of_policy("default_rtt", ewma, &mut fields, reader) {
        care.ewma.default_rtt = duration(node, reader);
    }
    let hashes = matches!(balance, Balance::RingHash | Balance::Maglev);
    let keys = of_policy("by", hashes, &mut fields, reader).map(|node| keys(node, reader));
    let bound = of_policy("bound_percent", hashes, &mut fields, reader)
        .and_then(|node| Some((count(node, 10_000, reader)?, node.span)));
    if let Some((_, span)) = bound.filter(|(percent, _)| *percent < 100) {
        let problem = Problem::error(span, "a bound below 100 would leave requests without a place");
        reader.error(problem.hint("from 100, such as 125"));
    }
    let slow_start = of_policy("slow_start", !hashes, &mut fields, reader);
    let from = fields.get("slow_start_percent").map(|node| (count(node, 100, reader), node.span));
    if let Some((_, span)) = from.filter(|_| slow_start.is_none()) {
        reader.error(Problem::error(span, "there is no slow start").hint("add `slow_start: 30s`"));
    }
    care.slow_start = slow_start.and_then(|node| duration(node, reader)).map(|duration| {
        let from_percent = from.and_then(|(from, _)| from).unwrap_or(SLOW_START_FROM);
        SlowStart { duration, from_percent }
    });
    fields.finish();
    match keys {
        Some(keys) if !keys.is_empty() => {
            let bound_percent = bound.map(|(percent, _)| percent);
            care.affinity = Some(Arc::new(Affinity { keys, bound_percent }));
        }
        None if hashes => needs_key(node, reader),
        _ => {}
    }
    balance
}

fn needs_key(node: &Node, reader: &mut Reader<'_>) {
    let problem = Problem::error(node.span, "this policy needs a key");
    reader.error(problem.hint("such as `{policy: ring-hash, by: {cookie: session}}`"));
}

/// What a key is made of, in order.
fn keys(node: &Node, reader: &mut Reader<'_>) -> Vec<KeySpec> {
    let mut keys: Vec<KeySpec> = Vec::new();
    let items = match &node.value {
        Value::Map(_) => std::slice::from_ref(node),
        _ => reader.one_or_more(node, "source, or a map with header, cookie or query", KEYS_MAX),
    };
    for item in items {
        if matches!(keys.last(), Some(KeySpec::Cookie(_) | KeySpec::Source)) {
            let problem = Problem::error(item.span, "this key is never looked at");
            reader.error(problem.hint("every request has the one before; put that one last"));
            break;
        }
        keys.extend(self::key(item, reader));
    }
    keys
}

fn key(node: &Node, reader: &mut Reader<'_>) -> Option<KeySpec> {
    if !matches!(node.value, Value::Map(_)) {
        return reader.choice(node, SOURCE).map(|_| KeySpec::Source);
    }
    let mut fields = reader.fields(node, &KEY)?;
    let mut name = |name| fields.get(name).map(|node| (node, reader.text(node, Kind::Text)));
    let (header, cookie, query) = (name("header"), name("cookie"), name("query"));
    let (path, ttl) = (fields.entry("path"), fields.entry("ttl"));
    fields.finish();
    if let Some(entry) = path.or(ttl).filter(|_| cookie.is_none()) {
        reader.error(Problem::error(entry.key_span, "this goes with `cookie` alone").hint("remove it"));
    }
    match (header, cookie, query) {
        (Some((node, text)), None, None) => {
            reader.checked(node.span, value::header_name(text?)).map(KeySpec::Header)
        }
        (None, Some((node, text)), None) => {
            // A cookie's name is a token, as a header's is, and its case counts.
            let text = text?;
            reader.checked(node.span, value::header_name(text))?;
            let path = match path {
                Some(entry) => reader.parsed(&entry.value, Kind::Path, value::path)?,
                None => "/",
            };
            if path.contains(';') {
                reader.error(Problem::error(node.span, "a cookie's path has no semicolon").hint("remove it"));
            }
            let ttl = ttl.map(|entry| (duration(&entry.value, reader), entry.value.span));
            if let Some((Some(short), span)) = ttl
                && short < Duration::from_secs(1)
            {
                reader.error(Problem::error(span, "a cookie lives for whole seconds").hint("at least 1s"));
            }
            let ttl = ttl.and_then(|(ttl, _)| ttl);
            Some(KeySpec::Cookie(CookieSpec { name: text.into(), path: path.into(), ttl }))
        }
        (None, None, Some((node, text))) => {
            let text = text?;
            let fits = |b: u8| b.is_ascii_graphic() && !b"&=#?".contains(&b);
            if text.is_empty() || !text.bytes().all(fits) {
                let problem = Problem::error(node.span, "this is no parameter's name");
                reader.error(problem.hint("as it stands in the URL, such as user"));
                return None;
            }
            Some(KeySpec::Query(text.into()))
        }
        _ => {
            let problem = Problem::error(node.span, "a key is one of `header`, `cookie` and `query`");
            reader.error(problem.hint("several keys are a list, the first that a request has counts"));
            None
        }
    }
}

/// Most keys of one service.
const KEYS_MAX: usize = 16;

/// A field that only some policies have.
fn of_policy<'n>(
    name: &'static str,
    wanted: bool,
    fields: &mut Fields<'n>,
    reader: &mut Reader<'_>,
) -> Option<&'n Node> {
    let entry = fields.entry(name)?;
    if !wanted {
        let problem = Problem::error(entry.key_span, format!("`{name}` does not go with this policy"));
        reader.error(problem.hint("remove it, or choose another policy"));
    }
    Some(&entry.value)
}

fn policy(node: &Node, reader: &mut Reader<'_>) -> Balance {
    match reader.choice(node, POLICIES) {
        Some("round-robin") => Balance::RoundRobin,
        Some("random") => Balance::Random,
        Some("least-request") => Balance::LeastRequest,
        Some("peak-ewma") => Balance::PeakEwma,
        Some("ring-hash") => Balance::RingHash,
        Some("maglev") => Balance::Maglev,
        _ => Balance::default(),
    }
}

fn limits(node: &Node, reader: &mut Reader<'_>) -> Option<Limits> {
    let mut fields = reader.fields(node, &LIMITS)?;
    let mut some = |name| fields.get(name).and_then(|node| count(node, LIMIT_MAX, reader));
    let requests = some("requests");
    let endpoint_requests = some("instance_requests");
    let connections = some("connections");
    let mut or_none = |name| fields.get(name).map(|node| count_or_none(node, LIMIT_MAX, reader).unwrap_or(0));
    let pending = or_none("pending");
    let retries = or_none("retries");
    let pending_timeout = fields.get("pending_timeout").and_then(|node| duration(node, reader));
    let waits = fields.key("pending").or(fields.key("pending_timeout"));
    fields.finish();
    let limits = Limits { requests, endpoint_requests, connections, pending, pending_timeout, retries };
    let nothing_to_wait_for = requests.or(endpoint_requests).or(connections).is_none();
    if let Some(span) = waits.filter(|_| nothing_to_wait_for) {
        let problem = Problem::error(span, "there is nothing to wait for");
        reader.error(problem.hint("add `requests`, `instance_requests` or `connections`"));
    }
    Some(limits)
}

/// `none`, or a map.
fn outliers(node: &Node, reader: &mut Reader<'_>) -> Option<Outliers> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "none" => None,
        Value::Map(_) => outlier_map(node, reader),
        _ => {
            reader.expected(node, "none, or a map");
            None
        }
    }
}

fn outlier_map(node: &Node, reader: &mut Reader<'_>) -> Option<Outliers> {
    let default = Outliers::default();
    let mut fields = reader.fields(node, &OUTLIERS)?;
    let mut some = |name, max, otherwise: Option<u32>| {
        fields.get(name).map_or(otherwise, |node| count_or_none(node, max, reader))
    };
    let errors = some("errors", FAILURES_MAX, default.errors);
    let gateway_errors = some("gateway_errors", FAILURES_MAX, default.gateway_errors);
    let local_failures = some("local_failures", FAILURES_MAX, default.local_failures);
    let failure_percent = some("failure_percent", 100, default.failure_percent);
    let latency = some("latency", 1000, default.latency);
    let panic_percent = some("panic_percent", 100, Some(default.panic_percent)).unwrap_or(0);
    let mut number = |name, max, otherwise| {
        fields.get(name).and_then(|node| count(node, max, reader)).unwrap_or(otherwise)
    };
    let requests_min = number("requests", FAILURES_MAX, default.requests_min);
    let ejected_percent = number("ejected_percent", 100, default.ejected_percent);
    let probation = number("probation", 1000, default.probation);
    let success_rate = fields.get("success_rate").and_then(|node| reader.flag(node));
    let mut duration = |name, otherwise: Duration| {
        let parsed = fields.get(name).map(|node| (duration(node, reader), node.span));
        parsed.map_or((otherwise, None), |(value, span)| (value.unwrap_or(otherwise), Some(span)))
    };
    let (window, window_span) = duration("window", default.window);
    let (ejection, ejection_span) = duration("ejection", default.ejection);
    let (ejection_max, max_span) = duration("ejection_max", default.ejection_max.max(ejection));
    fields.finish();
    if let Some(span) = window_span.filter(|_| window < WINDOW_MIN) {
        reader.error(Problem::error(span, "a window below 1s").hint("at least 1s; 10s is usual"));
    }
    if let Some(span) = max_span.filter(|_| ejection_max < ejection) {
        let problem = Problem::error(span, "the longest ejection is shorter than the first one");
        let problem = match ejection_span {
            Some(first) => problem.related(first, "the first one"),
            None => problem,
        };
        reader.error(problem.hint(format!("at least {ejection:?}")));
    }
    Some(Outliers {
        errors,
        gateway_errors,
        local_failures,
        success_rate: success_rate.unwrap_or(default.success_rate),
        failure_percent,
        latency,
        requests_min,
        window,
        ejection,
        ejection_max,
        ejected_percent,
        panic_percent,
        probation,
    })
}

/// Shorter windows hold too few requests to compare.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// A number from 1, or `none`.
fn count_or_none(node: &Node, max: u32, reader: &mut Reader<'_>) -> Option<u32> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "none" => None,
        Value::Scalar(scalar) if scalar.text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            reader.expected(node, &format!("a number from 1 to {max}, or none"));
            None
        }
        _ => count(node, max, reader),
    }
}

fn count(node: &Node, max: u32, reader: &mut Reader<'_>) -> Option<u32> {
    reader.number(node, Kind::Count(max), |text| value::number(text, "a number", 1, max))
}

fn duration(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    reader.parsed(node, Kind::Duration, value::duration)
}
