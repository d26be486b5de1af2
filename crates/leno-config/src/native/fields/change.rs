//! Fields that say what a route changes, and what it answers by itself.

use super::{Field, Kind, Shape, Without, field};

pub(super) const ROUTE_REWRITE: Field = field(
    "rewrite",
    REWRITE_FORMS,
    Without::Means("path and host stay as they came"),
    "What is sent instead of the path that `path` has matched (`path: /v1`, `rewrite: /` sends `/v1/users` as `/users`), or a map.",
);
pub(super) const ROUTE_REQUEST_HEADERS: Field = field(
    "request_headers",
    Kind::Object(&HEADER_CHANGES),
    Without::Means("headers stay as they came"),
    "Changes of the request's headers.",
);
pub(super) const ROUTE_RESPONSE_HEADERS: Field = field(
    "response_headers",
    Kind::Object(&HEADER_CHANGES),
    Without::Means("headers stay as they came"),
    "Changes of the answer's headers, also of an answer that Leno makes itself.",
);
pub(super) const ROUTE_REDIRECT: Field = field(
    "redirect",
    Kind::Object(&REDIRECT),
    Without::Means("the request is sent on"),
    "Answers with another URL.",
);
pub(super) const ROUTE_ANSWER: Field = field(
    "answer",
    ANSWER_FORMS,
    Without::Means("the request is sent on"),
    "Answers with this status, or with what the map says.",
);

pub(super) const ROUTE_MIRROR: Field = field(
    "mirror",
    MIRROR_FORMS,
    Without::Means("nobody gets a copy"),
    "Who gets a copy of each request, or of a share of them. What becomes of a copy changes nothing for the client.",
);

pub(super) const ROUTE_PRIORITY: Field = field(
    "priority",
    Kind::Choice(CLASSES),
    Without::Means("as the header `leno-priority` of the request says, else normal"),
    "What its requests are worth where not all can be served; said to every hop from here on by the header `leno-priority`.",
);

/// What requests are worth.
pub(crate) const CLASSES: &[(&str, &str)] = &[
    ("critical", "the last to be refused: users see at once that it failed, and it costs something"),
    ("high", "users see it"),
    ("normal", "what nothing is said of"),
    ("low", "the first to be refused: it can be done later or not at all"),
];

const MIRROR_FORMS: Kind = Kind::Either(&[Kind::Service, Kind::Object(&MIRROR), Kind::List(&MIRROR_FORM)]);
const MIRROR_FORM: Kind = Kind::Either(&[Kind::Service, Kind::Object(&MIRROR)]);
const REWRITE_FORMS: Kind = Kind::Either(&[Kind::Path, Kind::Object(&REWRITE)]);
const ANSWER_FORMS: Kind = Kind::Either(&[ANSWER_STATUS, Kind::Object(&ANSWER)]);
/// Statuses of an answer; 101 and the other interim ones are no answer.
const ANSWER_STATUS: Kind = Kind::Between(200, 599);

/// Who gets copies.
pub(crate) static MIRROR: Shape = Shape {
    name: "mirror",
    doc: "Instances that get copies of requests.",
    fields: &[
        field(
            "service",
            Kind::Service,
            Without::Means("the service that the route belongs to"),
            "The service; a gateway's mirror needs it. Its own routes are not asked.",
        ),
        field("version", Kind::Version, Without::Means("any version"), "Only instances of this version."),
        field(
            "percent",
            Kind::Percent,
            Without::Value("100"),
            "The share of the requests that is copied, such as 5 or 0.1; chosen by chance.",
        ),
    ],
};

/// What is sent instead.
pub(crate) static REWRITE: Shape = Shape {
    name: "rewrite",
    doc: "What is sent instead of the path and host that came; of the first three, one. The query stays.",
    fields: &[
        field(
            "prefix",
            Kind::Path,
            Without::Means("another form"),
            "Instead of the part of the path that `path` has matched: the same as the short form.",
        ),
        field(
            "path",
            Kind::Template,
            Without::Means("another form"),
            "Instead of the whole path. `{name}` is a part of the route's template.",
        ),
        field(
            "regex",
            Kind::Object(&REPLACING),
            Without::Means("another form"),
            "Instead of every part of the path that a regular expression matches.",
        ),
        field(
            "host",
            Kind::Text,
            Without::Means("the host stays"),
            "The host that the service is told, `HOST` or `HOST:PORT`. It does not change where the request goes.",
        ),
    ],
};

/// What takes the place of what.
pub(crate) static REPLACING: Shape = Shape {
    name: "replacement",
    doc: "A regular expression and what takes the place of what it matches.",
    fields: &[
        field("match", Kind::Regex, Without::Required, "What is replaced, wherever it is in the path."),
        field(
            "with",
            Kind::Text,
            Without::Required,
            "What takes its place: `\\1` to `\\9` are its groups, `\\0` is all of it.",
        ),
    ],
};

/// Changes of headers.
pub(crate) static HEADER_CHANGES: Shape = Shape {
    name: "header changes",
    doc: "Changes of headers, in this order. In values `{name}` stands for something of the request: a part of the route's template, or `client_address`, `host`, `method`, `path`, `query`, `scheme`, `source`, `service`, `route` or `request_id`; `{{` is a brace. Headers that make a message what it is (`Content-Length`, `Connection` and the like) cannot be changed.",
    fields: &[
        field("remove", Kind::OneOrMore(&Kind::Text), Without::Means("none"), "Headers that are removed."),
        field(
            "set",
            Kind::Map("the header's name", &Kind::Text),
            Without::Means("none"),
            "Headers that have this value afterwards, and no other.",
        ),
        field(
            "add",
            Kind::Map("the header's name", &Kind::Text),
            Without::Means("none"),
            "Headers that are added to those of the same name.",
        ),
    ],
};

/// Another URL.
pub(crate) static REDIRECT: Shape = Shape {
    name: "redirect",
    doc: "The URL that a client is sent to. What is not given stays as it was asked for; the query always stays.",
    fields: &[
        field(
            "scheme",
            Kind::Choice(&[("http", "in plain text"), ("https", "over TLS")]),
            Without::Means("as it was asked for"),
            "What to speak there.",
        ),
        field("host", Kind::Host, Without::Means("as it was asked for"), "The host."),
        field(
            "port",
            Kind::Port,
            Without::Means("as it was asked for; the usual one where `scheme` or `host` is given"),
            "The port.",
        ),
        field(
            "prefix",
            Kind::Path,
            Without::Means("another form"),
            "Instead of the part of the path that `path` has matched.",
        ),
        field(
            "path",
            Kind::Template,
            Without::Means("another form"),
            "Instead of the whole path. `{name}` is a part of the route's template.",
        ),
        field(
            "regex",
            Kind::Object(&REPLACING),
            Without::Means("another form"),
            "Instead of every part of the path that a regular expression matches.",
        ),
        field(
            "status",
            Kind::Between(301, 308),
            Without::Value("302"),
            "301, 302, 303, 307 or 308. 301 and 308 are for ever; 307 and 308 keep the method, 303 makes it a GET.",
        ),
    ],
};

/// An answer.
pub(crate) static ANSWER: Shape = Shape {
    name: "answer",
    doc: "An answer that is given without asking a service.",
    fields: &[
        field("status", ANSWER_STATUS, Without::Required, "Its status."),
        field(
            "headers",
            Kind::Map("the header's name", &Kind::Text),
            Without::Means("`Content-Type: text/plain; charset=utf-8` where there is a body"),
            "Its headers, with gaps as in header changes.",
        ),
        field("body", Kind::Text, Without::Means("no body"), "Its body, at most 16 KiB."),
    ],
};
