//! The fields about endpoints: which one is chosen, which are put out.

use super::{Kind, Shape, Without, field};

/// Most failures in a row, and most requests, that a detector can ask for.
pub(crate) const FAILURES_MAX: u32 = 10_000;

/// What is not wanted. Not `off`, which many programs read as `false`.
pub(crate) const NONE: &[(&str, &str)] = &[("none", "not looked at")];

/// What `outliers` can be besides a map.
pub(crate) const OUTLIER_WORDS: &[(&str, &str)] = &[("none", "nobody is put out because of its answers")];

const FAILURES: Kind = Kind::Either(&[Kind::Choice(NONE), Kind::Count(FAILURES_MAX)]);

/// When an endpoint is put out.
pub(crate) static OUTLIERS: Shape = Shape {
    name: "outliers",
    doc: "When a proxy sends an instance no more requests because its answers are worse than those of the others. Whatever finds it, it is put out only when it is not by chance that it fails more often than its peers.",
    fields: &[
        field("errors", FAILURES, Without::Value("5"), "So many answers of 500 and above in a row."),
        field(
            "gateway_errors",
            FAILURES,
            Without::Means("`errors` finds them too"),
            "So many answers of 502, 503 or 504 in a row.",
        ),
        field(
            "local_failures",
            FAILURES,
            Without::Value("5"),
            "So many requests in a row without an answer: no connection, a reset, a time-out.",
        ),
        field(
            "success_rate",
            Kind::Flag,
            Without::Means("true"),
            "Whether the share of failures in `window` is compared with that of the peers.",
        ),
        field(
            "failure_percent",
            Kind::Either(&[Kind::Choice(NONE), Kind::Count(100)]),
            Without::Value("85"),
            "In `window`, this share of its requests failed, and a smaller one of its peers'.",
        ),
        field(
            "latency",
            Kind::Either(&[Kind::Choice(NONE), Kind::Count(1000)]),
            Without::Value("none"),
            "In `window`, its answers took on average so many times as long as its peers'.",
        ),
        field(
            "requests",
            Kind::Count(FAILURES_MAX),
            Without::Value("20"),
            "So many requests in `window` before a share or a latency is looked at.",
        ),
        field("window", Kind::Duration, Without::Value("10s"), "How far back shares and latencies look."),
        field(
            "ejection",
            Kind::Duration,
            Without::Value("5s"),
            "How long it gets nothing the first time; doubled each time that it fails again.",
        ),
        field(
            "ejection_max",
            Kind::Duration,
            Without::Means("5m, or `ejection` if that is longer"),
            "The longest that it gets nothing; at least `ejection`.",
        ),
        field(
            "ejected_percent",
            Kind::Count(100),
            Without::Value("10"),
            "At most this share of the instances is put out; one of three or more in any case.",
        ),
        field(
            "panic_percent",
            Kind::Either(&[Kind::Choice(NONE), Kind::Count(100)]),
            Without::Value("50"),
            "When a smaller share of the instances than this is left, those put out are asked too. One that cannot be reached is not.",
        ),
        field(
            "probation",
            Kind::Count(1000),
            Without::Value("3"),
            "When its time is over it gets one request at a time, until so many in a row went well; a failure puts it out again.",
        ),
    ],
};
