//! Fields that say how many requests pass in a time.

use super::matching::{
    ROUTE_FROM, ROUTE_GRPC, ROUTE_HEADERS, ROUTE_HOST, ROUTE_METHODS, ROUTE_PATH, ROUTE_QUERY,
};
use super::{Field, Kind, Shape, Without, field};

pub(super) const RATE_LIMITS: Field = field(
    "rate_limits",
    Kind::List(&LIMIT),
    Without::Means("no limits"),
    "How many requests it takes in a time. They are counted by the sidecar in front of each instance; for a service with `endpoints`, by each proxy that calls it. What is over a limit is answered 429 with the reason `rate_limited`.",
);
pub(super) const ROUTE_RATE_LIMITS: Field = field(
    "rate_limits",
    Kind::List(&LIMIT),
    Without::Means("no limits"),
    "How many requests this route takes in a time, counted by the gateway.",
);

const LIMIT: Kind = Kind::Object(&RATE_LIMIT);

/// The words of `by`.
pub(crate) const RATE_WORDS: &[(&str, &str)] =
    &[("caller", "the calling service, by its verified identity"), ("client", "the client's address")];
const BY: Kind = Kind::Either(&[Kind::Choice(RATE_WORDS), Kind::Object(&RATE_KEY)]);

/// One limit.
pub(crate) static RATE_LIMIT: Shape = Shape {
    name: "rate limit",
    doc: "A number of requests that pass in a time. A request counts for each limit that it fits, and passes when all of them let it. With `protocol: tcp` connections are counted.",
    fields: &[
        field(
            "name",
            Kind::Name,
            Without::Means("`limit-N`"),
            "What logs and metrics call it; unique in its list.",
        ),
        field("requests", Kind::Count(1_000_000), Without::Required, "So many requests in each `per`."),
        field("per", Kind::Duration, Without::Value("1s"), "The time, from 100ms to 24h."),
        field(
            "burst",
            Kind::Count(1_000_000),
            Without::Means("as many as `requests`"),
            "So many at once after a pause.",
        ),
        field(
            "by",
            Kind::Either(&[Kind::Choice(RATE_WORDS), Kind::Object(&RATE_KEY), Kind::List(&BY)]),
            Without::Means("all requests are counted together"),
            "What is counted for itself: `caller` (not at a gateway), `client`, `{header: NAME}`, or each combination of several.",
        ),
        field(
            "scope",
            Kind::Choice(&[
                ("instance", "each sidecar or gateway counts for itself, over all its workers"),
                ("mesh", "it holds over all of them together, which share it by what each needs"),
            ]),
            Without::Value("instance"),
            "Over what the limit holds.",
        ),
        field(
            "dry_run",
            Kind::Flag,
            Without::Value("false"),
            "Whether nothing is refused, but counted and logged what would be.",
        ),
        ROUTE_HOST,
        ROUTE_PATH,
        ROUTE_METHODS,
        ROUTE_HEADERS,
        ROUTE_QUERY,
        ROUTE_GRPC,
        ROUTE_FROM,
    ],
};

/// A part of what is counted for itself.
pub(crate) static RATE_KEY: Shape = Shape {
    name: "rate key",
    doc: "A header whose values are counted each for itself.",
    fields: &[field(
        "header",
        Kind::Text,
        Without::Required,
        "Its name. Requests without it are counted together; of a value longer than 256 bytes the beginning counts.",
    )],
};
