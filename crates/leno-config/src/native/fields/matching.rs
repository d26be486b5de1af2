//! Fields that say which requests a route is about.

use super::{Field, Kind, Shape, Without, field};

pub(super) const ROUTE_HOST: Field = field(
    "host",
    Kind::OneOrMore(&Kind::Host),
    Without::Means("any host"),
    "The host that the request is for, without a port; `*.example.com` is every host below `example.com`.",
);
pub(super) const ROUTE_PATH: Field = field(
    "path",
    PATH_FORMS,
    Without::Means("any path"),
    "This path and everything below it, by whole segments: `/users` and `/users/` both take `/users` and `/users/1`, never `/usersearch`.",
);
pub(super) const ROUTE_METHODS: Field = field(
    "methods",
    Kind::OneOrMore(&Kind::Method),
    Without::Means("any method"),
    "One of these HTTP methods, in upper case.",
);
pub(super) const ROUTE_HEADERS: Field = field(
    "headers",
    Kind::Map("the header's name, in any case", &VALUE_FORMS),
    Without::Means("any headers"),
    "Each of these headers with exactly this value; `\"*\"` is any value. Of a header that is sent twice the first counts.",
);
pub(super) const ROUTE_QUERY: Field = field(
    "query",
    Kind::Map("the parameter's name", &VALUE_FORMS),
    Without::Means("any query"),
    "Each of these parameters of the query with exactly this value, as it is after percent-decoding; `\"*\"` is any value.",
);
pub(super) const ROUTE_GRPC: Field = field(
    "grpc",
    CALL_FORMS,
    Without::Means("any request"),
    "Calls of gRPC to this service, or to one method of it.",
);
pub(super) const ROUTE_FROM: Field = field(
    "from",
    super::zones::CALLERS,
    Without::Means("any caller"),
    "Who sends the request: one of these services, or of all services (and gateways) of a namespace.",
);

pub(super) const ROUTE_PORT: Field = field(
    "port",
    Kind::OneOrMore(&Kind::Port),
    Without::Means("any port"),
    "The port that the client connected to: that of a gateway's listener, or of an intercepted connection; else the one that the request asks for, 80 where it says none.",
);
pub(super) const ROUTE_CLIENT: Field = field(
    "client",
    Kind::OneOrMore(&Kind::Range),
    Without::Means("any client"),
    "The client's address: one of these, or in one of these ranges.",
);
pub(super) const ROUTE_SNI: Field = field(
    "sni",
    Kind::OneOrMore(&Kind::Host),
    Without::Means("any name, or no TLS"),
    "The name that the client asked for when TLS began, at a listener with certificates.",
);

const PATH_FORMS: Kind = Kind::Either(&[Kind::Path, Kind::Object(&PATH)]);
const CALL_FORMS: Kind = Kind::Either(&[Kind::Call, Kind::Object(&CALL)]);
const VALUE_FORMS: Kind = Kind::Either(&[Kind::Text, Kind::Object(&VALUE)]);

const IGNORE_CASE: Field = field(
    "ignore_case",
    Kind::Flag,
    Without::Value("false"),
    "Whether `/A` is `/a`. A regular expression says so itself: `(?i)`.",
);

/// A path in its long form.
pub(crate) static PATH: Shape = Shape {
    name: "path",
    doc: "A path in its long form, without a query: one of these, perhaps with `ignore_case`.",
    fields: &[
        field("exact", Kind::Path, Without::Means("another form"), "This path and no other."),
        field(
            "prefix",
            Kind::Path,
            Without::Means("another form"),
            "This path and everything below it: the same as the short form.",
        ),
        field(
            "starts_with",
            Kind::Path,
            Without::Means("another form"),
            "Every path that begins with this text: `/user` takes `/users` too.",
        ),
        field(
            "regex",
            Kind::Regex,
            Without::Means("another form"),
            "Every path that this regular expression matches as a whole.",
        ),
        field(
            "template",
            Kind::Template,
            Without::Means("another form"),
            "A path with parts that vary: `{name}` and `*` are any one segment, `**` and `{name=**}` at its end are any rest.",
        ),
        IGNORE_CASE,
    ],
};

/// What a value must be, in its long form.
pub(crate) static VALUE: Shape = Shape {
    name: "value",
    doc: "What the value of a header or parameter must be, in its long form: one of these, perhaps with `not` and `ignore_case`.",
    fields: &[
        field("exact", Kind::Text, Without::Means("another form"), "It is this."),
        field("prefix", Kind::Text, Without::Means("another form"), "It begins with this."),
        field("suffix", Kind::Text, Without::Means("another form"), "It ends with this."),
        field("contains", Kind::Text, Without::Means("another form"), "It has this in it."),
        field(
            "regex",
            Kind::Regex,
            Without::Means("another form"),
            "This regular expression matches it as a whole.",
        ),
        field(
            "present",
            Kind::Flag,
            Without::Means("another form"),
            "Whether it has to be there, or must not be.",
        ),
        field(
            "not",
            Kind::Flag,
            Without::Value("false"),
            "Whether it must not be so; then a request without it is right too.",
        ),
        field(
            "ignore_case",
            Kind::Flag,
            Without::Value("false"),
            "Whether `A` is `a`. A regular expression says so itself: `(?i)`.",
        ),
    ],
};

/// A call of gRPC in its long form.
pub(crate) static CALL: Shape = Shape {
    name: "grpc",
    doc: "Calls of gRPC in their long form.",
    fields: &[
        field(
            "service",
            Kind::Text,
            Without::Means("any service"),
            "The service with its package, such as `shop.Cart`.",
        ),
        field("method", Kind::Text, Without::Means("any method"), "The method, such as `Add`."),
    ],
};
