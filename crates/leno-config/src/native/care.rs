//! How the endpoints of a service are looked after.

use std::time::Duration;

use leno_core::spec::{Care, Outliers};

use super::fields::{FAILURES_MAX, Kind, NONE, OUTLIER_WORDS, OUTLIERS};
use super::read::{Fields, Reader};
use super::value;
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value};

/// Reads what the service says; `None` when it says nothing.
pub(crate) fn read(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Care> {
    let outliers = fields.get("outliers").map(|node| outliers(node, reader));
    let mut care = Care::default();
    let said = outliers.is_some();
    if let Some(outliers) = outliers {
        care.outliers = outliers;
    }
    said.then_some(care)
}

/// `none`, or a map.
fn outliers(node: &Node, reader: &mut Reader<'_>) -> Option<Outliers> {
    match &node.value {
        Value::Scalar(_) => {
            reader.choice(node, OUTLIER_WORDS);
            None
        }
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
        fields.get(name).map_or(otherwise, |node| count_or_off(node, max, reader))
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
fn count_or_off(node: &Node, max: u32, reader: &mut Reader<'_>) -> Option<u32> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            reader.choice(node, NONE);
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
