//! Fields that say what a route breaks on purpose.

use super::{Field, Kind, Shape, Without, field};

pub(super) const ROUTE_FAULT: Field = field(
    "fault",
    Kind::Object(&FAULT),
    Without::Means("nothing is broken on purpose"),
    "What is broken on purpose, so that people see what their services make of it.",
);

const DELAY_FORMS: Kind = Kind::Either(&[Kind::Duration, Kind::Object(&DELAY)]);
const ABORT_FORMS: Kind = Kind::Either(&[Kind::Between(200, 599), Kind::Object(&ABORT)]);
const RESET_FORMS: Kind = Kind::Either(&[Kind::Flag, Kind::Object(&RESET)]);
const SLOW_FORMS: Kind = Kind::Either(&[Kind::Size, Kind::Object(&SLOW)]);
const STOP_FORMS: Kind = Kind::Either(&[Kind::Number(99), Kind::Object(&STOP)]);

/// The codes of gRPC that are failures, in the order of their numbers from 1 on.
pub(crate) const GRPC_CODES: &[(&str, &str)] = &[
    ("cancelled", "1"),
    ("unknown", "2"),
    ("invalid-argument", "3"),
    ("deadline-exceeded", "4"),
    ("not-found", "5"),
    ("already-exists", "6"),
    ("permission-denied", "7"),
    ("resource-exhausted", "8"),
    ("failed-precondition", "9"),
    ("aborted", "10"),
    ("out-of-range", "11"),
    ("unimplemented", "12"),
    ("internal", "13"),
    ("unavailable", "14"),
    ("data-loss", "15"),
    ("unauthenticated", "16"),
];

/// Most requests that are looked at before a share of failures is.
pub(crate) const STOP_REQUESTS_MAX: u32 = 100_000;

/// What is broken.
pub(crate) static FAULT: Shape = Shape {
    name: "fault",
    doc: "What is broken on purpose; at least one of the first four. Each is thrown by chance and for itself. It happens before the request is sent, so nothing of it is tried again.",
    fields: &[
        field(
            "delay",
            DELAY_FORMS,
            Without::Means("no delay"),
            "Requests wait so long before anything else happens to them; at most 10m.",
        ),
        field(
            "abort",
            ABORT_FORMS,
            Without::Means("no answer of its own"),
            "Requests are answered with this status, and not sent.",
        ),
        field(
            "reset",
            RESET_FORMS,
            Without::Value("false"),
            "The client's connection or stream is closed without an answer, and the request is not sent.",
        ),
        field(
            "slow",
            SLOW_FORMS,
            Without::Means("as fast as it goes"),
            "The bodies of answers come at so many bytes a second, from 16 on.",
        ),
        field(
            "percent",
            Kind::Percent,
            Without::Value("100"),
            "The share of the requests, for those of the first four that say none themselves.",
        ),
        field(
            "percent_max",
            Kind::Percent,
            Without::Means("what chance makes of `percent`"),
            "Of a hundred requests no more get anything of all this, in any stretch of them; some ten may be saved up.",
        ),
        field(
            "until",
            Kind::Moment,
            Without::Means("the route is taken away"),
            "From then on nothing is broken any more, such as 2026-12-24T18:00:00Z.",
        ),
        field(
            "stop",
            STOP_FORMS,
            Without::Means("it goes on"),
            "When more than this share of the other requests fails, in percent, nothing is broken any more until the fault is changed or the proxy started anew.",
        ),
    ],
};

const PERCENT: Field =
    field("percent", Kind::Percent, Without::Means("the fault's `percent`"), "The share of the requests.");

/// A delay.
pub(crate) static DELAY: Shape = Shape {
    name: "delay",
    doc: "A delay of some requests.",
    fields: &[field("time", Kind::Duration, Without::Required, "How long; at most 10m."), PERCENT],
};

/// An answer.
pub(crate) static ABORT: Shape = Shape {
    name: "abort",
    doc: "An answer to some requests; it has `status` or `grpc`.",
    fields: &[
        field(
            "status",
            Kind::Between(200, 599),
            Without::Means("what stands for `grpc`"),
            "A status of HTTP; calls of gRPC get the code that stands for it.",
        ),
        field(
            "grpc",
            Kind::Choice(GRPC_CODES),
            Without::Means("what stands for `status`"),
            "A code of gRPC; what is no call gets the status that stands for it.",
        ),
        PERCENT,
    ],
};

/// A reset.
pub(crate) static RESET: Shape =
    Shape { name: "reset", doc: "No answer to some requests.", fields: &[PERCENT] };

/// A pace.
pub(crate) static SLOW: Shape = Shape {
    name: "slow",
    doc: "A pace for some answers.",
    fields: &[field("rate", Kind::Size, Without::Required, "Bytes a second, from 16 on."), PERCENT],
};

/// When it is over.
pub(crate) static STOP: Shape = Shape {
    name: "stop",
    doc: "When nothing is broken on purpose any more, because too much breaks by itself. Looks at each proxy's own requests that got no fault.",
    fields: &[
        field(
            "failures",
            Kind::Number(99),
            Without::Required,
            "More than this share of them fails, in percent.",
        ),
        field(
            "requests",
            Kind::Count(STOP_REQUESTS_MAX),
            Without::Value("20"),
            "So many requests in `window` before the share is looked at.",
        ),
        field("window", Kind::Duration, Without::Value("10s"), "How far back it looks."),
    ],
};
