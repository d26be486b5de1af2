//! Time limits and retries of a service or a route.

use std::sync::Arc;
use std::time::Duration;

use leno_core::backend::{RETRIES_PER_REQUEST, RETRIES_PER_SECOND_MIN};
use leno_core::grpc::Status;
use leno_core::spec::{
    AnswerHeader, BODY_BYTES_MAX, BUDGET_PER_SECOND_MAX, BUDGET_PERCENT_MAX, BudgetSpec, Protocol,
    RetryMethods, RetryOn, RetrySpec, StatusRange, TriesSpec,
};

use super::fields::{ATTEMPTS_MAX, CONDITIONS, Kind, RETRY, RETRY_BUDGET_SHAPE, RETRY_METHODS, TIMEOUT};
use super::hedge;
use super::read::{Fields, Reader};
use super::rules::RULES_MAX;
use super::value;
use crate::diagnostic::Problem;
use crate::suggest;
use crate::yaml::{Node, Value, short};

/// What `timeout` and `retry` of a service or route say.
#[derive(Default)]
pub(crate) struct Said {
    /// For the whole request.
    pub(crate) timeout: Option<Duration>,
    /// The rest; `None`: nothing.
    pub(crate) tries: Option<Arc<TriesSpec>>,
}

/// Reads `timeout`, `retry` and `hedge`, and of a service `retry_budget`.
pub(crate) fn read(
    fields: &mut Fields<'_>,
    protocol: Protocol,
    budget: bool,
    reader: &mut Reader<'_>,
) -> Said {
    let mut timeout = None;
    let mut tries = TriesSpec::default();
    if let Some(node) = fields.get("timeout") {
        match &node.value {
            Value::Map(_) => timeout = limits(node, &mut tries, protocol, reader),
            _ => timeout = reader.parsed(node, Kind::Limit, value::limit),
        }
    }
    tries.retry = fields.get("retry").and_then(|node| retry(node, protocol, reader));
    tries.hedge = hedge::read(fields, protocol, reader);
    if budget {
        tries.budget = fields.get("retry_budget").and_then(|node| retry_budget(node, reader));
    }
    Said { timeout, tries: (tries != TriesSpec::default()).then(|| Arc::new(tries)) }
}

/// The map form of `timeout`. Returns the limit of the whole request.
fn limits(
    node: &Node,
    tries: &mut TriesSpec,
    protocol: Protocol,
    reader: &mut Reader<'_>,
) -> Option<Duration> {
    let mut fields = reader.fields(node, &TIMEOUT)?;
    let nodes = ["request", "try", "connect", "idle"].map(|name| fields.get(name));
    let [request, attempt, connect, idle] =
        nodes.map(|node| node.and_then(|node| reader.parsed(node, Kind::Limit, value::limit)));
    if nodes.iter().all(Option::is_none) && fields.complete {
        reader.error(
            Problem::error(fields.span, "the limits say nothing").hint("such as {request: 10s, try: 1s}"),
        );
    }
    if let (Some(whole), Some(one), Some(span)) = (request, attempt, nodes[1].map(|node| node.span))
        && !whole.is_zero()
        && one > whole
    {
        let problem = Problem::warning(span, "one attempt may take longer than the whole request");
        reader.problems.add(
            problem
                .related(node.span, "the limits")
                .hint("a `try` of less than `request` leaves time for another one"),
        );
    }
    if protocol == Protocol::Tcp {
        for name in ["request", "try", "idle"] {
            without_meaning(&fields, name, reader);
        }
    }
    fields.finish();
    (tries.try_timeout, tries.connect_timeout, tries.idle_timeout) = (attempt, connect, idle);
    request
}

fn retry(node: &Node, protocol: Protocol, reader: &mut Reader<'_>) -> Option<RetrySpec> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &RETRY)?;
    let mut spec = RetrySpec::default();
    if let Some(node) = fields.get("attempts") {
        let count = |text: &str| value::number(text, "a number of attempts", 1, ATTEMPTS_MAX);
        spec.attempts = reader.number(node, Kind::Count(ATTEMPTS_MAX), count)?;
    }
    let on = fields.get("on");
    if let Some(node) = on {
        spec.on = RetryOn::default();
        for item in reader.one_or_more(node, "a condition, or a list of them", RULES_MAX) {
            condition(item, &mut spec.on, reader);
        }
        spec.on.statuses.sort_unstable();
        spec.on.statuses.dedup();
    }
    if let Some(node) = fields.get("headers") {
        for entry in reader.map(node, "a map from headers to values").iter().take(RULES_MAX) {
            let name = reader.checked(entry.key_span, value::header_name(&entry.key));
            let value = reader.parsed(&entry.value, Kind::Text, value::header_value);
            if let (Some(name), Some(value)) = (name, value) {
                spec.on.headers.push(AnswerHeader { name, value });
            }
        }
    }
    if let Some(node) = fields.get("methods") {
        spec.methods = methods(node, reader)?;
    }
    let limit = |node: Option<&Node>, default: Duration, reader: &mut Reader<'_>| {
        node.map_or(Some(default), |node| reader.parsed(node, Kind::Limit, value::limit))
    };
    spec.backoff = limit(fields.get("backoff"), spec.backoff, reader)?;
    let longest = fields.get("backoff_max");
    match longest {
        Some(node) => {
            spec.backoff_max = reader.parsed(node, Kind::Duration, value::duration)?;
            if spec.backoff_max < spec.backoff {
                let problem = Problem::error(node.span, "the longest wait is shorter than the first one");
                reader.error(problem.hint("at least `backoff`"));
            }
        }
        // Ten times the first, as without configuration.
        None => spec.backoff_max = spec.backoff * 10,
    }
    spec.asked_wait_max = limit(fields.get("retry_after_max"), spec.asked_wait_max, reader)?;
    if let Some(node) = fields.get("body_max") {
        spec.body_bytes_max = reader.parsed(node, Kind::Size, |text| value::size(text, BODY_BYTES_MAX))?;
    }
    if let Some(node) = on.filter(|_| spec.on.grpc != 0 && spec.methods == RetryMethods::Idempotent) {
        let problem =
            Problem::warning(node.span, "calls of gRPC are POST requests, which are not idempotent");
        reader.problems.add(problem.hint(
            "add `methods: any` where a call may have its effect twice; what provably had none is tried again anyway",
        ));
    }
    if protocol == Protocol::Tcp {
        for name in ["on", "headers", "methods", "retry_after_max", "body_max"] {
            without_meaning(&fields, name, reader);
        }
    }
    fields.finish();
    (reader.problems.errors() == errors).then_some(spec)
}

/// Nobody looks into what a `tcp` service is sent.
fn without_meaning(fields: &Fields<'_>, name: &str, reader: &mut Reader<'_>) {
    if let Some(key) = fields.key(name) {
        let problem = Problem::error(key, format!("`{name}` has no meaning with `protocol: tcp`"));
        reader.error(problem.hint(
            "bytes have no requests and answers; connections have `connect`, `attempts` and `backoff`",
        ));
    }
}

/// Adds one condition to `on`.
fn condition(node: &Node, on: &mut RetryOn, reader: &mut Reader<'_>) {
    let Some(text) = reader.text(node, Kind::Condition) else { return };
    let mut range = |first, last| on.statuses.push(StatusRange { first, last });
    let status = match text {
        "reset" => return on.reset = true,
        "5xx" => {
            range(500, 599);
            return on.reset = true;
        }
        "gateway-error" => {
            range(502, 504);
            return on.reset = true;
        }
        "retriable-4xx" => return range(409, 409),
        // What provably had no effect is tried again whatever is written here.
        "connect-failure" | "refused-stream" | "reset-before-request" => return,
        "envoy-ratelimited" => {
            return on.headers.push(AnswerHeader { name: "x-envoy-ratelimited".into(), value: None });
        }
        "cancelled" => Status::CANCELLED,
        "deadline-exceeded" => Status::DEADLINE_EXCEEDED,
        "internal" => Status::INTERNAL,
        "resource-exhausted" => Status::RESOURCE_EXHAUSTED,
        "unavailable" => Status::UNAVAILABLE,
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
            if let Some((first, last)) = reader.checked(node.span, value::statuses(text)) {
                range(first, last);
            }
            return;
        }
        _ => {
            let typed = text.replace('_', "-").to_lowercase();
            let hint = match &*typed {
                "retriable-status-codes" => "write the statuses themselves, such as [502, 503]".to_owned(),
                "retriable-headers" => "write the headers into `headers`".to_owned(),
                _ => {
                    let words = CONDITIONS.iter().map(|(word, _)| *word);
                    suggest::did_you_mean(&typed, words.clone()).unwrap_or_else(|| {
                        format!("a status, or one of: {}", words.collect::<Vec<_>>().join(", "))
                    })
                }
            };
            let problem = Problem::error(node.span, format!("unknown condition \"{}\"", short(text)));
            return reader.error(problem.hint(hint));
        }
    };
    on.grpc |= 1 << status.0;
}

fn methods(node: &Node, reader: &mut Reader<'_>) -> Option<RetryMethods> {
    if let Value::Scalar(_) = &node.value {
        return Some(match reader.choice(node, RETRY_METHODS)? {
            "any" => RetryMethods::Any,
            _ => RetryMethods::Idempotent,
        });
    }
    let items = reader.list(node, "a list of methods", RULES_MAX);
    let methods = items.iter().filter_map(|item| reader.parsed(item, Kind::Method, value::method));
    Some(RetryMethods::These(methods.collect()))
}

fn retry_budget(node: &Node, reader: &mut Reader<'_>) -> Option<BudgetSpec> {
    let mut fields = reader.fields(node, &RETRY_BUDGET_SHAPE)?;
    let number = |node: Option<&Node>, what: &str, max: u32, default: u32, reader: &mut Reader<'_>| {
        let parse = |text: &str| value::number(text, what, 0, max);
        node.map_or(Some(default), |node| reader.number(node, Kind::Number(max), parse))
    };
    let default = (100 / RETRIES_PER_REQUEST) as u32;
    let percent = number(fields.get("percent"), "a percentage", BUDGET_PERCENT_MAX, default, reader);
    let default = RETRIES_PER_SECOND_MIN as u32;
    let node = fields.get("per_second");
    let per_second = number(node, "a number of retries", BUDGET_PER_SECOND_MAX, default, reader);
    fields.finish();
    Some(BudgetSpec { percent: percent?, per_second: per_second? })
}
