//! How many requests each instance works on at a time.

use leno_core::spec::{
    CONCURRENCY_MAX, CONCURRENCY_MIN, Concurrency, ConcurrencyLimit, Protocol, QUEUE_WAIT_MAX,
};

use super::super::fields::{CONCURRENCY, LIMIT_MAX};
use super::super::read::Reader;
use super::{count, duration};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value};

/// `auto`, a number, or a map; `endpoints` is where those are written, which have no sidecar.
pub(super) fn read(
    entry: &Entry,
    protocol: Protocol,
    endpoints: Option<Span>,
    reader: &mut Reader<'_>,
) -> Option<Concurrency> {
    let nowhere = |why: &str, hint: &str| {
        Problem::error(entry.key_span, format!("`concurrency` does not go with {why}")).hint(hint)
    };
    if let Some(endpoints) = endpoints {
        let problem = nowhere("`endpoints`", "`limits` bound what each caller uses of them");
        reader.error(problem.related(endpoints, "no sidecar stands before these that could count for all"));
        return None;
    }
    if protocol == Protocol::Tcp {
        let hint = "it is about requests; `limits: {connections: …}` bounds connections";
        reader.error(nowhere("`protocol: tcp`", hint));
        return None;
    }
    match &entry.value.value {
        Value::Map(_) => map(&entry.value, reader),
        _ => limit(&entry.value, reader).map(|fixed| Concurrency::new(of(fixed))),
    }
}

/// `auto`, or a number.
fn limit(node: &Node, reader: &mut Reader<'_>) -> Option<Option<u32>> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "auto" => Some(None),
        Value::Scalar(scalar) if scalar.text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            reader.expected(node, &format!("auto, or a number from 1 to {LIMIT_MAX}"));
            None
        }
        _ => count(node, LIMIT_MAX, reader).map(Some),
    }
}

const fn of(fixed: Option<u32>) -> ConcurrencyLimit {
    match fixed {
        Some(limit) => ConcurrencyLimit::Fixed(limit),
        None => ConcurrencyLimit::Auto { min: CONCURRENCY_MIN, max: CONCURRENCY_MAX },
    }
}

fn map(node: &Node, reader: &mut Reader<'_>) -> Option<Concurrency> {
    let mut fields = reader.fields(node, &CONCURRENCY)?;
    let fixed = match fields.get("limit") {
        Some(node) => limit(node, reader),
        None => Some(None),
    };
    let mut bound = |name| {
        let entry = fields.entry(name)?;
        if let Some(Some(_)) = fixed {
            let problem = Problem::error(entry.key_span, format!("`{name}` goes with `limit: auto` alone"));
            reader.error(problem.hint("remove it"));
        }
        Some((count(&entry.value, LIMIT_MAX, reader)?, entry.value.span))
    };
    let (min, max) = (bound("min"), bound("max"));
    let queue = fields.get("queue").map(|node| (queue(node, reader), node.span));
    fields.finish();
    let most = max.map_or(CONCURRENCY_MAX, |(max, _)| max);
    if let Some((_, span)) = min.filter(|(min, _)| *min > most) {
        let problem = Problem::error(span, "`min` is more than `max`");
        let problem = match max {
            Some((_, max)) => problem.related(max, "`max`"),
            None => problem,
        };
        reader.error(problem.hint(format!("at most {most}")));
    }
    let limit = match fixed? {
        Some(limit) => ConcurrencyLimit::Fixed(limit),
        None => {
            let least = min.map_or(CONCURRENCY_MIN, |(min, _)| min).min(most);
            ConcurrencyLimit::Auto { min: least, max: most }
        }
    };
    let mut concurrency = Concurrency::new(limit);
    if let Some((Some(wait), span)) = queue {
        if wait > QUEUE_WAIT_MAX {
            let problem = Problem::error(span, "nobody waits that long");
            reader.error(problem.hint(format!("at most {QUEUE_WAIT_MAX:?}")));
        }
        concurrency.queue = wait;
    }
    Some(concurrency)
}

/// `none`, or a duration.
fn queue(node: &Node, reader: &mut Reader<'_>) -> Option<std::time::Duration> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "none" => Some(std::time::Duration::ZERO),
        _ => duration(node, reader),
    }
}
