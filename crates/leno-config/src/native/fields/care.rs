//! The fields about endpoints: which one is chosen, which are put out.

use super::{Field, Kind, Shape, Without, field};

/// Most failures in a row, and most requests, that a detector can ask for.
pub(crate) const FAILURES_MAX: u32 = 10_000;

/// What is not wanted. Not `off`, which many programs read as `false`.
const NONE: &[(&str, &str)] = &[("none", "not looked at")];

/// What `outliers` can be besides a map.
const OUTLIER_WORDS: &[(&str, &str)] = &[("none", "nobody is put out because of its answers")];

/// Most that a limit can be; more is none.
pub(crate) const LIMIT_MAX: u32 = 1_000_000;

/// The ways to choose, in both forms of `balance`.
pub(crate) const POLICIES: &[(&str, &str)] = &[
    (
        "peak-ewma",
        "of two instances chosen by chance, the one whose latency times its requests under way is less",
    ),
    ("least-request", "of two instances chosen by chance, the one with fewer requests under way"),
    ("round-robin", "each in turn"),
    ("random", "by chance"),
    ("ring-hash", "the same for the same key, as few keys as possible move when instances come and go"),
    ("maglev", "the same for the same key, divided more evenly"),
];

/// How an instance is chosen, in the long form.
pub(crate) static BALANCE: Shape = Shape {
    name: "balance",
    doc: "How one of several instances is chosen, with what the policy can be told.",
    fields: &[
        field("policy", Kind::Choice(POLICIES), Without::Value("peak-ewma"), "The policy."),
        field(
            "choices",
            Kind::Count(100),
            Without::Value("2"),
            "Of so many instances chosen by chance the best is taken; for `least-request` and `peak-ewma`.",
        ),
        field(
            "decay",
            Kind::Duration,
            Without::Value("10s"),
            "How soon a latency is forgotten; for `peak-ewma`.",
        ),
        field(
            "default_rtt",
            Kind::Duration,
            Without::Means("that of the instance it is compared with"),
            "The latency that an instance is taken for before its first answer; for `peak-ewma`.",
        ),
        field(
            "by",
            Kind::OneOrMore(&Kind::Either(&[Kind::Choice(SOURCE), Kind::Object(&KEY)])),
            Without::Means("needed by `ring-hash` and `maglev`"),
            "What the key of a request is: the first of these that it has. Without any it is balanced by `least-request`.",
        ),
        field(
            "bound_percent",
            Kind::Count(10_000),
            Without::Means("no bound"),
            "No instance has more requests under way than this share of the mean; what is over goes to the next one. For `ring-hash` and `maglev`; at least 100.",
        ),
        field(
            "slow_start",
            Kind::Duration,
            Without::Means("the full share at once"),
            "In this time an instance that comes to others gets its full share; not for `ring-hash` and `maglev`.",
        ),
        field(
            "slow_start_percent",
            Kind::Count(100),
            Without::Value("10"),
            "The part of its share that it begins with.",
        ),
    ],
};

/// The key that is no map.
pub(crate) const SOURCE: &[(&str, &str)] = &[("source", "the client's address")];

/// What a key is made of.
pub(crate) static KEY: Shape = Shape {
    name: "key",
    doc: "What keeps a client at an instance: one of a header, a cookie and a parameter.",
    fields: &[
        field("header", Kind::Text, Without::Means("another one"), "The value of this header."),
        field(
            "cookie",
            Kind::Text,
            Without::Means("another one"),
            "The value of this cookie. A client that has none gets one with its answer.",
        ),
        field("query", Kind::Text, Without::Means("another one"), "The value of this parameter of the URL."),
        field("path", Kind::Path, Without::Value("/"), "Where the client sends the cookie."),
        field(
            "ttl",
            Kind::Duration,
            Without::Means("until the client forgets its session"),
            "How long the client keeps the cookie; at least 1s.",
        ),
    ],
};

/// How much of a service may be used.
pub(crate) static LIMITS: Shape = Shape {
    name: "limits",
    doc: "How much of a service one proxy uses at a time, over all its workers. What is over it waits, or is answered 503 with the reason `service_limit`.",
    fields: &[
        field("requests", Kind::Count(LIMIT_MAX), Without::Means("no limit"), "Requests under way."),
        field(
            "instance_requests",
            Kind::Count(LIMIT_MAX),
            Without::Means("no limit"),
            "Requests under way on each instance.",
        ),
        field(
            "connections",
            Kind::Count(LIMIT_MAX),
            Without::Means("no limit"),
            "Connections for TCP and HTTP/1.1, idle ones included. Requests between sidecars share a few.",
        ),
        field(
            "pending",
            Kind::Either(&[Kind::Choice(NONE_WAITS), Kind::Count(LIMIT_MAX)]),
            Without::Value("128"),
            "So many requests wait for a place; more are refused at once.",
        ),
        field("pending_timeout", Kind::Duration, Without::Value("1s"), "How long each of them waits."),
        field(
            "retries",
            Kind::Either(&[Kind::Choice(NO_RETRIES), Kind::Count(LIMIT_MAX)]),
            Without::Means("the retry budget alone"),
            "Retries under way.",
        ),
    ],
};

const NONE_WAITS: &[(&str, &str)] = &[("none", "nobody waits")];
const NO_RETRIES: &[(&str, &str)] = &[("none", "no retries")];

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

/// How many requests each instance works on at a time, in the long form.
pub(crate) static CONCURRENCY: Shape = Shape {
    name: "concurrency",
    doc: "How many requests the sidecar of each instance lets through to it at a time, over all its workers. The others wait for a place, those of a higher class before those of a lower one; who finds none in time is answered 503 with the reason `service_overloaded` before the application has seen anything of it.",
    fields: &[
        field(
            "limit",
            Kind::Either(&[Kind::Choice(AUTO), Kind::Count(LIMIT_MAX)]),
            Without::Value("auto"),
            "How many.",
        ),
        field("min", Kind::Count(LIMIT_MAX), Without::Value("3"), "Never fewer; for `auto`."),
        field("max", Kind::Count(LIMIT_MAX), Without::Value("1000"), "Never more; for `auto`."),
        field(
            "queue",
            Kind::Either(&[Kind::Choice(NONE_WAITS), Kind::Duration]),
            Without::Value("100ms"),
            "How long a request waits for a place; at most 60s.",
        ),
    ],
};

/// The limit that nobody has to know.
const AUTO: &[(&str, &str)] =
    &[("auto", "found out: as many as the instance works on without having them wait")];

// What a service says of them.

const BALANCE_FORMS: Kind = Kind::Either(&[Kind::Choice(POLICIES), Kind::Object(&BALANCE)]);
const OUTLIER_FORMS: Kind = Kind::Either(&[Kind::Choice(OUTLIER_WORDS), Kind::Object(&OUTLIERS)]);
const CONCURRENCY_FORMS: Kind =
    Kind::Either(&[Kind::Choice(AUTO), Kind::Count(LIMIT_MAX), Kind::Object(&CONCURRENCY)]);

pub(super) const BALANCE_FIELD: Field = field(
    "balance",
    BALANCE_FORMS,
    Without::Value("peak-ewma"),
    "How one of several instances is chosen. Each way respects weights.",
);
pub(super) const OUTLIERS_FIELD: Field = field(
    "outliers",
    OUTLIER_FORMS,
    Without::Means("by the defaults"),
    "When a proxy puts an instance out because its answers are worse than those of the others.",
);
pub(super) const LIMITS_FIELD: Field = field(
    "limits",
    Kind::Object(&LIMITS),
    Without::Means("no limits"),
    "How much of it one proxy uses at a time.",
);
pub(super) const CONCURRENCY_FIELD: Field = field(
    "concurrency",
    CONCURRENCY_FORMS,
    Without::Means("all that come"),
    "How many requests each of its instances works on at a time; not for `endpoints` and `protocol: tcp`.",
);
pub(super) const BACKUP_FIELD: Field = field(
    "backup",
    Kind::Service,
    Without::Means("its requests fail"),
    "The service that takes its requests when none of its instances can: none is there, healthy, reachable and not put out.",
);
