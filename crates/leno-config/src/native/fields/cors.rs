//! Fields that say which web pages of other origins may use a route.

use super::{Field, Kind, Shape, Without, field};

pub(super) const ROUTE_CORS: Field = field(
    "cors",
    CORS_FORMS,
    Without::Means("what the service says of it"),
    "Which web pages of other origins may use it (cross-origin resource sharing). Browsers' questions are answered here, and what the service says of it is taken away.",
);

const CORS_FORMS: Kind = Kind::Either(&[Kind::Origin, Kind::List(&ORIGIN_FORM), Kind::Object(&CORS)]);
const ORIGIN_FORM: Kind = Kind::Either(&[Kind::Origin, Kind::Object(&ORIGIN)]);

/// What `headers` can be besides a list.
pub(crate) const ANY_HEADER: &[(&str, &str)] = &[("*", "whatever is asked for")];

/// What becomes of questions about other origins.
pub(crate) const UNMATCHED: &[(&str, &str)] =
    &[("refuse", "they are answered with 403"), ("forward", "the service is asked")];

/// Which pages.
pub(crate) static CORS: Shape = Shape {
    name: "cors",
    doc: "Which web pages of other origins may use a route, and how.",
    fields: &[
        field(
            "origins",
            Kind::Either(&[Kind::Origin, Kind::Object(&ORIGIN), Kind::List(&ORIGIN_FORM)]),
            Without::Required,
            "The origins of the pages: `https://shop.example`, `https://*.shop.example` for every host below it, or `\"*\"` for any.",
        ),
        field(
            "methods",
            Kind::OneOrMore(&Kind::Method),
            Without::Means("GET, HEAD and POST"),
            "The methods that they may use. The route itself has to take OPTIONS.",
        ),
        field(
            "headers",
            Kind::Either(&[Kind::Choice(ANY_HEADER), Kind::OneOrMore(&Kind::Text)]),
            Without::Means("those that every page may send"),
            "The headers that they may send, such as content-type.",
        ),
        field(
            "expose",
            Kind::OneOrMore(&Kind::Text),
            Without::Means("those that every page may see"),
            "The headers of answers that they may see.",
        ),
        field(
            "max_age",
            Kind::Duration,
            Without::Means("as the browser likes, mostly 5s"),
            "How long a browser may remember what it was told; whole seconds.",
        ),
        field(
            "credentials",
            Kind::Flag,
            Without::Value("false"),
            "Whether requests of such pages may carry their users' cookies; not with the origin `\"*\"`.",
        ),
        field(
            "unmatched",
            Kind::Choice(UNMATCHED),
            Without::Value("refuse"),
            "What becomes of a browser's question about a page of another origin.",
        ),
    ],
};

/// Origins.
pub(crate) static ORIGIN: Shape = Shape {
    name: "origin",
    doc: "Origins; it has one field.",
    fields: &[
        field("prefix", Kind::Text, Without::Means("another form"), "Origins that begin with this."),
        field("regex", Kind::Regex, Without::Means("another form"), "Origins that this matches as a whole."),
    ],
};
