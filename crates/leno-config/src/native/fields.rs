//! Every field of the mesh file, once: what the reader accepts, what the schema completes, what the manual lists.

mod care;
mod change;
mod cors;
mod fault;
mod gateway;
mod hedge;
mod instance;
mod matching;
mod outside;
mod rate;
mod service;
mod tries;
mod zones;

pub(crate) use care::{
    BALANCE, CONCURRENCY, FAILURES_MAX, KEY, LIMIT_MAX, LIMITS, OUTLIERS, POLICIES, SOURCE,
};
pub(crate) use change::{ANSWER, CLASSES, HEADER_CHANGES, MIRROR, REDIRECT, REPLACING, REWRITE};
use change::{
    ROUTE_ANSWER, ROUTE_MIRROR, ROUTE_PRIORITY, ROUTE_REDIRECT, ROUTE_REQUEST_HEADERS,
    ROUTE_RESPONSE_HEADERS, ROUTE_REWRITE,
};
pub(crate) use cors::{ANY_HEADER, CORS, ORIGIN, UNMATCHED};
pub(crate) use fault::{ABORT, DELAY, FAULT, GRPC_CODES, RESET, SLOW, STOP, STOP_REQUESTS_MAX};
pub(crate) use gateway::{CERTIFICATE, FORWARDED_HOPS_MAX, GATEWAY, LISTENER, SNI_ROUTE};
pub(crate) use hedge::{HEDGE, HEDGE_WORDS};
pub(crate) use instance::{ENDPOINT, INSTANCE};
pub(crate) use matching::{CALL, PATH, VALUE};
use matching::{
    ROUTE_CLIENT, ROUTE_GRPC, ROUTE_HEADERS, ROUTE_HOST, ROUTE_METHODS, ROUTE_PATH, ROUTE_PORT, ROUTE_QUERY,
    ROUTE_SNI,
};
pub(crate) use outside::{EGRESS, EGRESS_RULE, TLS, VIA};
pub(crate) use rate::{RATE_KEY, RATE_LIMIT, RATE_WORDS};
pub(crate) use service::{HEALTH, HEALTH_WORDS, LISTED_ROUTE, SERVICE, SERVICE_ROUTE, TARGET};
pub(crate) use tries::{ATTEMPTS_MAX, CONDITIONS, RETRY, RETRY_BUDGET_SHAPE, RETRY_METHODS, TIMEOUT};
pub(crate) use zones::{CALLER, DISTRIBUTION, ENDPOINTS_MIN_MAX, LOCALITY, PREFER};

/// A kind of map, with the fields it may have.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Its name in the schema and the manual.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) doc: &'static str,
    /// Its fields, in the order in which people should write them.
    pub(crate) fields: &'static [Field],
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Its key.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
    /// What holds without it.
    pub(crate) without: Without,
    /// What it says.
    pub(crate) doc: &'static str,
}

/// What holds when a field is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Without {
    /// It has to be there.
    Required,
    /// This value.
    Value(&'static str),
    /// What this text says.
    Means(&'static str),
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A DNS label.
    Name,
    /// A DNS label that may look like a number.
    Version,
    /// The name of a service of this file: `name` or `namespace/name`.
    Service,
    /// DNS labels with dots.
    Domain,
    /// Any text; a number or truth value is taken as it is written.
    Text,
    /// `500ms`, `5s`, `1m30s`, `2h`.
    Duration,
    /// A duration, or 0 for no limit.
    Limit,
    /// What is tried again: a word, a status, or a range of statuses.
    Condition,
    /// `p50` to `p99`.
    Quantile,
    /// Bytes: `65536`, `64KiB` or `1MiB`.
    Size,
    /// 1 to 65535.
    Port,
    /// `IP:PORT`, or a port on 127.0.0.1.
    Address,
    /// An address, or `HOST:PORT`.
    Place,
    /// A service of this file, or `namespace/*`.
    Caller,
    /// Where something is: `region/zone/subzone`.
    Zone,
    /// `IP/BITS`, or an address.
    Range,
    /// A point in time (RFC 3339).
    Moment,
    /// `SCHEME://HOST[:PORT]`, perhaps with `*.` before the host, or `*`.
    Origin,
    /// The SPIFFE id of a server.
    Spiffe,
    /// The name of a file.
    File,
    /// A path of a URL.
    Path,
    /// A regular expression.
    Regex,
    /// A path with parts that vary.
    Template,
    /// A service of gRPC, perhaps with a method.
    Call,
    /// A host name, perhaps with `*.` in front.
    Host,
    /// An HTTP method.
    Method,
    /// A share.
    Weight,
    /// `true` or `false`.
    Flag,
    /// A number from 1 to this.
    Count(u32),
    /// More than 0, at most 100, with up to four digits after the point.
    Percent,
    /// A number from one to the other.
    Between(u32, u32),
    /// A number from 0 to this.
    Number(u32),
    /// A command: words as a shell splits them, or a list of words.
    Command,
    /// A path in the file system.
    Folder,
    /// One of these words, each with what it means.
    Choice(&'static [(&'static str, &'static str)]),
    /// A list of these.
    List(&'static Kind),
    /// One of these, or a list of them.
    OneOrMore(&'static Kind),
    /// A map from keys that are described to these.
    Map(&'static str, &'static Kind),
    /// A map with fields.
    Object(&'static Shape),
    /// One of these forms.
    Either(&'static [Kind]),
}

/// Largest weight: a sum of [`RULES_MAX`](super::rules::RULES_MAX) of them still fits 32 bits.
pub(crate) const WEIGHT_MAX: u32 = 1_000_000;

/// Most copies of one instance entry.
pub(crate) const REPLICAS_MAX: u32 = 100;

/// Most good or bad answers in a row that a health check can ask for.
pub(crate) const CHECKS_MAX: u32 = 100;

/// Every shape, the file itself first, in the order of the manual.
pub(crate) const SHAPES: &[&Shape] = &[
    &FILE,
    &GATEWAY,
    &LISTENER,
    &CERTIFICATE,
    &SNI_ROUTE,
    &GATEWAY_ROUTE,
    &LISTED_ROUTE,
    &SERVICE,
    &SERVICE_ROUTE,
    &PATH,
    &VALUE,
    &CALL,
    &CALLER,
    &TARGET,
    &REWRITE,
    &REPLACING,
    &HEADER_CHANGES,
    &REDIRECT,
    &ANSWER,
    &MIRROR,
    &FAULT,
    &DELAY,
    &ABORT,
    &RESET,
    &SLOW,
    &STOP,
    &CORS,
    &ORIGIN,
    &TIMEOUT,
    &RETRY,
    &RETRY_BUDGET_SHAPE,
    &HEDGE,
    &BALANCE,
    &KEY,
    &OUTLIERS,
    &LIMITS,
    &LOCALITY,
    &DISTRIBUTION,
    &CONCURRENCY,
    &RATE_LIMIT,
    &RATE_KEY,
    &HEALTH,
    &INSTANCE,
    &ENDPOINT,
    &TLS,
    &EGRESS,
    &EGRESS_RULE,
    &VIA,
];

/// The file.
pub(crate) static FILE: Shape = Shape {
    name: "mesh file",
    doc: "The file: a mesh, where requests enter it, and its services.",
    fields: &[
        field("mesh", Kind::Name, Without::Required, "The mesh's name."),
        field(
            "trust_domain",
            Kind::Domain,
            Without::Means("`NAME.mesh`"),
            "The name under which the certificates of this mesh trust each other.",
        ),
        field(
            "namespace",
            Kind::Name,
            Without::Value("default"),
            "The namespace of names that are written without one. A service of another namespace is written `namespace/name`.",
        ),
        field(
            "gateway",
            Kind::Object(&GATEWAY),
            Without::Means("no gateway"),
            "Where requests enter the mesh. It is called `gateway`.",
        ),
        field(
            "gateways",
            Kind::Map("the gateway's name", &Kind::Object(&GATEWAY)),
            Without::Means("no gateway"),
            "Several gateways by name, instead of `gateway`.",
        ),
        field(
            "egress",
            Kind::Object(&EGRESS),
            Without::Means("everything may leave"),
            "What may leave the mesh, for all of its services.",
        ),
        field(
            "route_lists",
            Kind::Map("the list's name", &Kind::List(&Kind::Object(&LISTED_ROUTE))),
            Without::Means("no lists"),
            "Routes that several gateways and services share; their routes hand requests to a list by `use`.",
        ),
        field(
            "services",
            Kind::Map("the service's name: `name` or `namespace/name`", &Kind::Object(&SERVICE)),
            Without::Required,
            "The services by name.",
        ),
    ],
};

const ROUTE_NAME: Field = field(
    "name",
    Kind::Name,
    Without::Means("its host and path, or `route-N`"),
    "What logs and metrics call this route; unique in its list.",
);
const TO_FORMS: Kind = Kind::Either(&[Kind::Service, Kind::Object(&TARGET), Kind::List(&TARGET_FORMS)]);
const TARGET_FORMS: Kind = Kind::Either(&[Kind::Service, Kind::Object(&TARGET)]);

const ROUTE_USE: Field = field(
    "use",
    Kind::Text,
    Without::Means("the request stays in this list"),
    "A list of `route_lists`: its routes decide about what this route matches. What none of them takes goes on behind this route.",
);

/// A route of a gateway.
pub(crate) static GATEWAY_ROUTE: Shape = Shape {
    name: "gateway route",
    doc: "A rule of a gateway: what a request must look like (all that is given must hold), and where it goes.",
    fields: &[
        ROUTE_NAME,
        ROUTE_HOST,
        ROUTE_PATH,
        ROUTE_METHODS,
        ROUTE_HEADERS,
        ROUTE_QUERY,
        ROUTE_GRPC,
        ROUTE_PORT,
        ROUTE_CLIENT,
        ROUTE_SNI,
        field(
            "to",
            TO_FORMS,
            Without::Means("`redirect` or `answer`"),
            "The service that takes the request, by its own routes; or a target; or several targets with weights.",
        ),
        ROUTE_USE,
        ROUTE_REDIRECT,
        ROUTE_ANSWER,
        ROUTE_REWRITE,
        ROUTE_REQUEST_HEADERS,
        ROUTE_RESPONSE_HEADERS,
        ROUTE_MIRROR,
        ROUTE_PRIORITY,
        fault::ROUTE_FAULT,
        cors::ROUTE_CORS,
        rate::ROUTE_RATE_LIMITS,
        tries::ROUTE_TIMEOUT,
        tries::ROUTE_RETRY,
        hedge::ROUTE_HEDGE,
    ],
};

impl Shape {
    /// The words of a field that is one of some words, or several of them.
    pub(crate) fn choices(&self, name: &str) -> &'static [(&'static str, &'static str)] {
        let field = self.fields.iter().find(|field| field.name == name);
        match field.map(|field| field.kind) {
            Some(Kind::Choice(choices)) => choices,
            Some(Kind::OneOrMore(Kind::Choice(choices))) => choices,
            _ => &[],
        }
    }
}

const fn field(name: &'static str, kind: Kind, without: Without, doc: &'static str) -> Field {
    Field { name, kind, without, doc }
}
