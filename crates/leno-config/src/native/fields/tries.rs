//! How long requests may take, and when they are sent again.

use super::{Field, Kind, Shape, Without, field};

/// Most attempts of one request, the first included.
pub(crate) const ATTEMPTS_MAX: u32 = leno_core::exchange::ATTEMPTS_MAX as u32;

const TIMEOUT_FORMS: Kind = Kind::Either(&[Kind::Limit, Kind::Object(&TIMEOUT)]);

pub(super) const SERVICE_TIMEOUT: Field = field(
    "timeout",
    TIMEOUT_FORMS,
    Without::Means("no limit but the idle limit"),
    "How long a request may take, from its head to the end of the answer; or a map with all of its limits. `0` is no limit.",
);

pub(super) const ROUTE_TIMEOUT: Field = field(
    "timeout",
    TIMEOUT_FORMS,
    Without::Means("the service's `timeout`"),
    "How long a request may take, from its head to the end of the answer; or a map with all of its limits. `0` is no limit.",
);

pub(super) const SERVICE_RETRY: Field = field(
    "retry",
    Kind::Object(&RETRY),
    Without::Means("3 attempts where no request can have two effects"),
    "When requests are sent again.",
);

pub(super) const ROUTE_RETRY: Field = field(
    "retry",
    Kind::Object(&RETRY),
    Without::Means("the service's `retry`"),
    "When requests are sent again; in place of the service's `retry` as a whole.",
);

pub(super) const RETRY_BUDGET: Field = field(
    "retry_budget",
    Kind::Object(&RETRY_BUDGET_SHAPE),
    Without::Means("20 percent and 10 each second"),
    "How many retries each caller may send beside its ordinary requests, so that a failing service is not buried under them.",
);

/// The limits of a request.
pub(crate) static TIMEOUT: Shape = Shape {
    name: "timeout",
    doc: "How long requests may take. `0` is no limit; what a route leaves out is as its service says.",
    fields: &[
        field(
            "request",
            Kind::Limit,
            Without::Means("no limit"),
            "From the request's head to the end of the answer, all attempts together. Callees are told what is left of it.",
        ),
        field(
            "try",
            Kind::Limit,
            Without::Means("no limit"),
            "One attempt, from the choice of an instance to the head of its answer. What takes longer is given up, and tried again where `retry` allows it.",
        ),
        field(
            "connect",
            Kind::Limit,
            Without::Value("2s"),
            "A connection to an instance, TLS included. What takes longer is tried elsewhere.",
        ),
        field(
            "idle",
            Kind::Limit,
            Without::Value("5m"),
            "Without a byte in either direction. Streams of gRPC and of server-sent events may be silent for any time.",
        ),
    ],
};

/// What is tried again, besides statuses.
pub(crate) const CONDITIONS: &[(&str, &str)] = &[
    ("reset", "there is no answer: the connection was closed, or nothing came in the time of an attempt"),
    ("5xx", "an answer with a status from 500 to 599, or none"),
    ("gateway-error", "an answer with the status 502, 503 or 504, or none"),
    ("retriable-4xx", "an answer with the status 409"),
    ("connect-failure", "there is no connection; tried again anyway"),
    ("refused-stream", "the instance refused the request unseen; tried again anyway"),
    ("reset-before-request", "the connection was closed before the request was sent; tried again anyway"),
    ("envoy-ratelimited", "an answer with the header `x-envoy-ratelimited`"),
    ("cancelled", "a call of gRPC ended with CANCELLED"),
    ("deadline-exceeded", "a call of gRPC ended with DEADLINE_EXCEEDED"),
    ("internal", "a call of gRPC ended with INTERNAL"),
    ("resource-exhausted", "a call of gRPC ended with RESOURCE_EXHAUSTED"),
    ("unavailable", "a call of gRPC ended with UNAVAILABLE"),
];

/// What `methods` can be besides a list.
pub(crate) const RETRY_METHODS: &[(&str, &str)] = &[
    ("idempotent", "GET, HEAD, OPTIONS, TRACE, PUT, DELETE, and whatever has an `Idempotency-Key`"),
    ("any", "every method: the service has to bear that a request has its effect twice"),
];

/// When a request is sent again.
pub(crate) static RETRY: Shape = Shape {
    name: "retry",
    doc: "When a request is sent again. One that provably had no effect always is, whatever its method, while attempts are left.",
    fields: &[
        field(
            "attempts",
            Kind::Count(ATTEMPTS_MAX),
            Without::Value("3"),
            "Attempts at most, the first one included; 1 is no retry.",
        ),
        field(
            "on",
            Kind::OneOrMore(&Kind::Condition),
            Without::Value("reset"),
            "What is tried again: conditions, statuses (`503`) and ranges of them (`500-504`).",
        ),
        field(
            "headers",
            Kind::Map("a header's name, in any case", &Kind::Text),
            Without::Means("none"),
            "Answers with one of these headers are tried again too; `\"*\"` is any value.",
        ),
        field(
            "methods",
            Kind::Either(&[Kind::Choice(RETRY_METHODS), Kind::List(&Kind::Method)]),
            Without::Value("idempotent"),
            "Requests that may be sent again although they may have had an effect: of these methods, or with an `Idempotency-Key`.",
        ),
        field(
            "backoff",
            Kind::Limit,
            Without::Value("25ms"),
            "The longest wait before the first retry, doubled for each further one; the wait itself is drawn between nothing and that. `0` is no wait.",
        ),
        field(
            "backoff_max",
            Kind::Duration,
            Without::Means("ten times `backoff`"),
            "The longest wait before any retry.",
        ),
        field(
            "retry_after_max",
            Kind::Limit,
            Without::Value("5s"),
            "The longest wait that `Retry-After` or `grpc-retry-pushback-ms` of an answer may ask for; an answer that asks for more goes to the client.",
        ),
        field(
            "body_max",
            Kind::Size,
            Without::Value("64KiB"),
            "The longest request body that is kept to be sent again; at most 1MiB. A longer one is sent once.",
        ),
    ],
};

/// How many retries there may be.
pub(crate) static RETRY_BUDGET_SHAPE: Shape = Shape {
    name: "retry budget",
    doc: "How many retries each worker of each caller may send to the service beside ordinary requests.",
    fields: &[
        field(
            "percent",
            Kind::Number(leno_core::spec::BUDGET_PERCENT_MAX),
            Without::Value("20"),
            "Retries for each hundred requests.",
        ),
        field(
            "per_second",
            Kind::Number(leno_core::spec::BUDGET_PER_SECOND_MAX),
            Without::Value("10"),
            "Retries each second however few requests there are.",
        ),
    ],
};
