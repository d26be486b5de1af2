//! A service, its rules, where they lead, and how its instances are checked.

use super::change::{
    ROUTE_ANSWER, ROUTE_MIRROR, ROUTE_PRIORITY, ROUTE_REDIRECT, ROUTE_REQUEST_HEADERS,
    ROUTE_RESPONSE_HEADERS, ROUTE_REWRITE,
};
use super::instance::{ENDPOINT, INSTANCE};
use super::matching::{
    ROUTE_CLIENT, ROUTE_FROM, ROUTE_GRPC, ROUTE_HEADERS, ROUTE_HOST, ROUTE_METHODS, ROUTE_PATH, ROUTE_PORT,
    ROUTE_QUERY, ROUTE_SNI,
};
use super::outside::TLS;
use super::{
    CHECKS_MAX, Kind, REPLICAS_MAX, ROUTE_NAME, ROUTE_USE, Shape, TO_FORMS, Without, care, cors, fault,
    field, gateway, hedge, rate, tries, zones,
};

/// A service.
pub(crate) static SERVICE: Shape = Shape {
    name: "service",
    doc: "A service: what it speaks, how requests find one of its instances, and the instances.",
    fields: &[
        field(
            "protocol",
            Kind::Choice(&[
                ("auto", "what the client speaks, found out for each connection"),
                ("http", "HTTP/1.1"),
                ("http2", "HTTP/2"),
                ("grpc", "gRPC"),
                ("tcp", "bytes that nobody looks into"),
            ]),
            Without::Value("auto"),
            "What its instances speak. HTTP/1.1 and HTTP/2 are translated where a client speaks the other one.",
        ),
        care::BALANCE_FIELD,
        care::OUTLIERS_FIELD,
        care::LIMITS_FIELD,
        care::CONCURRENCY_FIELD,
        rate::RATE_LIMITS,
        care::BACKUP_FIELD,
        zones::LOCALITY_FIELD,
        zones::SERVICE_ZONE,
        field(
            "health",
            Kind::Either(&[Kind::Choice(HEALTH_WORDS), Kind::Path, Kind::Object(&HEALTH)]),
            Without::Means("`tcp`; `none` with `endpoints`"),
            "How the sidecar beside an instance finds out whether it works: `tcp`, `none`, `grpc`, the path of an HTTP check, or a map.",
        ),
        tries::SERVICE_TIMEOUT,
        tries::SERVICE_RETRY,
        tries::RETRY_BUDGET,
        hedge::SERVICE_HEDGE,
        field(
            "headless",
            Kind::Flag,
            Without::Means("its name resolves to one address"),
            "Whether its name resolves to its instances, each with a name (`INSTANCE.SERVICE`) and an address of its own. A connection to such an address reaches that instance, healthy or not.",
        ),
        field(
            "srv_port",
            Kind::Port,
            Without::Value("80"),
            "The port that SRV records name. An intercepted connection reaches the service by any port.",
        ),
        field(
            "split",
            Kind::Map("a version", &Kind::Weight),
            Without::Means("every instance, by its weight"),
            "Versions with their shares, for requests that none of `routes` matches.",
        ),
        field(
            "routes",
            Kind::List(&Kind::Object(&SERVICE_ROUTE)),
            Without::Means("no routes"),
            "The service's own rules, for every caller; the first one that matches wins.",
        ),
        field(
            "calls",
            Kind::OneOrMore(&Kind::Service),
            Without::Means("none"),
            "The services that it calls: its sidecars know them from the start, and offer a local port for each.",
        ),
        field(
            "start_after",
            Kind::OneOrMore(&Kind::Service),
            Without::Means("at once"),
            "`leno up` starts it when these services are healthy.",
        ),
        field(
            "run",
            Kind::Command,
            Without::Means("each instance's own"),
            "The command that starts an instance, for instances that have none. Without `instances` it makes `replicas` instances.",
        ),
        field(
            "replicas",
            Kind::Count(REPLICAS_MAX),
            Without::Value("1"),
            "How many instances `run` makes when there is no list of `instances`.",
        ),
        field(
            "dir",
            Kind::Folder,
            Without::Means("the folder of the file"),
            "Where the commands run, relative to the folder of the file.",
        ),
        field(
            "env",
            Kind::Map("a variable's name", &Kind::Text),
            Without::Means("nothing"),
            "Added to the environment of every instance; `{port}` stands for the application's port.",
        ),
        field(
            "instances",
            Kind::List(&Kind::Object(&INSTANCE)),
            Without::Means("made by `run`; else instances register themselves"),
            "Its instances in the mesh, each with a sidecar.",
        ),
        field(
            "endpoints",
            Kind::List(&Kind::Either(&[Kind::Place, Kind::Object(&ENDPOINT)])),
            Without::Means("none"),
            "Where a service outside the mesh answers: addresses, or host names with a port, each address of which is an endpoint.",
        ),
        field(
            "tls",
            Kind::Object(&TLS),
            Without::Means("requests go to `endpoints` in plain text"),
            "How TLS is begun with `endpoints`: the application speaks plain text to its sidecar, the sidecar TLS to them.",
        ),
        gateway::SEND_PROXY,
    ],
};

/// A route of a service.
pub(crate) static SERVICE_ROUTE: Shape = Shape {
    name: "service route",
    doc: "A rule of a service: what a request must look like (all that is given must hold), and which instances take it. It has `to`, `split`, `redirect` or `answer`.",
    fields: &[
        ROUTE_NAME,
        ROUTE_HOST,
        ROUTE_PATH,
        ROUTE_METHODS,
        ROUTE_HEADERS,
        ROUTE_QUERY,
        ROUTE_GRPC,
        ROUTE_PORT,
        ROUTE_FROM,
        field(
            "to",
            TO_FORMS,
            Without::Means("`split`"),
            "A target, such as `{version: v2}`; or several with weights; or another service.",
        ),
        field(
            "split",
            Kind::Map("a version", &Kind::Weight),
            Without::Means("`to`"),
            "Versions of this service with their shares.",
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
        tries::ROUTE_TIMEOUT,
        tries::ROUTE_RETRY,
        hedge::ROUTE_HEDGE,
    ],
};

/// A route of a list that others use.
pub(crate) static LISTED_ROUTE: Shape = Shape {
    name: "listed route",
    doc: "A rule of a list that gateways and services use: what a request must look like besides what the route asks that uses the list, and where it goes.",
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
        ROUTE_FROM,
        field(
            "to",
            TO_FORMS,
            Without::Means("`use`, `redirect` or `answer`"),
            "The service that takes the request; or a target; or several targets with weights. By its own routes where a gateway uses the list, by its instances where a service does.",
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
        tries::ROUTE_TIMEOUT,
        tries::ROUTE_RETRY,
        hedge::ROUTE_HEDGE,
    ],
};

/// Where a request goes.
pub(crate) static TARGET: Shape = Shape {
    name: "target",
    doc: "Instances that take a request.",
    fields: &[
        field(
            "service",
            Kind::Service,
            Without::Means("the service that the route belongs to"),
            "The service; a gateway's target needs it.",
        ),
        field("version", Kind::Version, Without::Means("any version"), "Only instances of this version."),
        zones::TARGET_LABELS,
        field("weight", Kind::Weight, Without::Value("1"), "Its share beside the other targets."),
    ],
};

/// What `health` can be besides a path and a map.
pub(crate) const HEALTH_WORDS: &[(&str, &str)] = &[
    ("tcp", "the instance accepts a connection"),
    ("grpc", "the health service of gRPC says that the server is serving"),
    ("none", "the instance is taken to work"),
];

/// A health check.
pub(crate) static HEALTH: Shape = Shape {
    name: "health",
    doc: "How a sidecar checks the instance beside it.",
    fields: &[
        field(
            "http",
            Kind::Path,
            Without::Means("a TCP connection is enough"),
            "`GET` this path has to be answered with a status from 200 to 399; in HTTP/2 when the service's `protocol` is `http2` or `grpc`.",
        ),
        field(
            "grpc",
            Kind::Text,
            Without::Means("no question of gRPC"),
            "The health service of gRPC (`grpc.health.v1.Health/Check`) has to call this service serving; `\"\"` is the whole server, as `health: grpc` is.",
        ),
        field(
            "interval",
            Kind::Duration,
            Without::Value("1s"),
            "From the start of one check to the start of the next; at least 10ms.",
        ),
        field(
            "timeout",
            Kind::Duration,
            Without::Means("1s, or `interval` if that is shorter"),
            "How long one check may take; at most `interval`.",
        ),
        field(
            "healthy_after",
            Kind::Count(CHECKS_MAX),
            Without::Value("1"),
            "So many good answers in a row make it healthy.",
        ),
        field(
            "unhealthy_after",
            Kind::Count(CHECKS_MAX),
            Without::Value("2"),
            "So many bad answers in a row make it unhealthy; a refused connection does so at once.",
        ),
    ],
};
