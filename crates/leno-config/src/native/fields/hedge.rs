//! When a request gets a second attempt beside one that takes long.

use leno_core::spec::HEDGE_PERCENT_MAX;

use super::{Field, Kind, Shape, Without, field};

/// What `hedge` can be besides a time and a map.
pub(crate) const HEDGE_WORDS: &[(&str, &str)] = &[("none", "no second attempts")];

const FORMS: Kind =
    Kind::Either(&[Kind::Choice(HEDGE_WORDS), Kind::Quantile, Kind::Duration, Kind::Object(&HEDGE)]);

pub(super) const SERVICE_HEDGE: Field = field(
    "hedge",
    FORMS,
    Without::Value("none"),
    "When a request that takes long gets a second attempt at another instance, whichever answers first: `p95`, a time, or a map.",
);

pub(super) const ROUTE_HEDGE: Field = field(
    "hedge",
    FORMS,
    Without::Means("the service's `hedge`"),
    "When a request that takes long gets a second attempt at another instance; in place of the service's `hedge` as a whole.",
);

/// Second attempts.
pub(crate) static HEDGE: Shape = Shape {
    name: "hedge",
    doc: "When a request gets a second attempt beside the first one. Only requests that may be sent twice do, by the methods of `retry`, and only while all of their body is at hand.",
    fields: &[
        field(
            "after",
            Kind::Either(&[Kind::Quantile, Kind::Duration]),
            Without::Value("p95"),
            "How long the first attempt has for the head of its answer: as long as this share of the answers has taken lately, or a time.",
        ),
        field(
            "percent",
            Kind::Count(HEDGE_PERCENT_MAX),
            Without::Value("5"),
            "Second attempts for each hundred requests that may have one, at most; counted by each worker of each caller.",
        ),
    ],
};
