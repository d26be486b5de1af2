//! How the endpoints of a service are looked after.

use std::time::Duration;

use leno_core::spec::{Balance, CHOICES, Care, Limits, Outliers};

use super::fields::{BALANCE, FAILURES_MAX, Kind, LIMIT_MAX, LIMITS, OUTLIERS, POLICIES};
use super::read::{Fields, Reader};
use super::value;
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value};

/// How an endpoint is chosen, and what else is said of them; `None` when nothing is.
pub(crate) fn read(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> (Balance, Option<Care>) {
    let mut care = Care::default();
    let balance = fields.get("balance").map(|node| balance(node, &mut care, reader));
    if let Some(node) = fields.get("outliers") {
        care.outliers = outliers(node, reader);
    }
    if let Some(node) = fields.get("limits") {
        care.limits = limits(node, reader).unwrap_or_default();
    }
    let said = care != Care::default();
    (balance.unwrap_or_default(), said.then_some(care))
}

/// A word, or a map.
fn balance(node: &Node, care: &mut Care, reader: &mut Reader<'_>) -> Balance {
    if !matches!(node.value, Value::Map(_)) {
        return policy(node, reader);
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
    fields.finish();
    balance
}

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
