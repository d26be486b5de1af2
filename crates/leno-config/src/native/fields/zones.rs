//! Fields about where things are, and about labels.

use super::{Field, Kind, Shape, Without, field};

/// Most endpoints that a place can be asked to have.
pub(crate) const ENDPOINTS_MIN_MAX: u32 = 10_000;

const LABEL_MAP: Kind = Kind::Map("a label's key", &Kind::Text);

/// What a service prefers.
pub(crate) const PREFER: &[(&str, &str)] = &[
    ("zone", "instances in the caller's zone, then those in its region"),
    ("subzone", "instances in the caller's subzone, then those in its zone, then those in its region"),
    ("region", "instances in the caller's region"),
    ("none", "nobody"),
];

pub(super) const ZONE: Field = field(
    "zone",
    Kind::Zone,
    Without::Means("the service's `zone`"),
    "Where it is: `region`, `region/zone` or `region/zone/subzone`, such as `eu-west/a`.",
);
pub(super) const LABELS: Field = field(
    "labels",
    LABEL_MAP,
    Without::Means("no labels"),
    "Labels that targets and `from` can ask for, such as `{track: canary}`; at most 32.",
);
pub(super) const SERVICE_ZONE: Field = field(
    "zone",
    Kind::Zone,
    Without::Means("nobody knows"),
    "Where its instances and endpoints are that say nothing themselves.",
);
pub(super) const GATEWAY_ZONE: Field = field(
    "zone",
    Kind::Zone,
    Without::Means("as its proxy says (`leno proxy --zone`)"),
    "Where the gateway is: `region`, `region/zone` or `region/zone/subzone`.",
);
pub(super) const LOCALITY_FIELD: Field = field(
    "locality",
    LOCALITY_FORMS,
    Without::Value("zone"),
    "Whom callers prefer, where it is known where they and the instances are: a word, or a map. Others get what the preferred ones cannot take.",
);
pub(super) const TARGET_LABELS: Field = field(
    "labels",
    LABEL_MAP,
    Without::Means("any labels"),
    "Only instances with all of these labels; the label `version` is the instance's version.",
);
pub(super) const CALLERS: Kind = Kind::OneOrMore(&Kind::Either(&[Kind::Caller, Kind::Object(&CALLER)]));

const LOCALITY_FORMS: Kind = Kind::Either(&[Kind::Choice(PREFER), Kind::Object(&LOCALITY)]);
const NO_OVERFLOW: &[(&str, &str)] = &[("none", "however slow they are")];

/// What a service prefers, in the long form.
pub(crate) static LOCALITY: Shape = Shape {
    name: "locality",
    doc: "What callers make of where instances are. Says nothing while it is not known where they or the caller are.",
    fields: &[
        field("prefer", Kind::Choice(PREFER), Without::Value("zone"), "Whom they prefer."),
        field(
            "failover",
            Kind::List(&Kind::Zone),
            Without::Means("the nearest first"),
            "Where requests go that the preferred ones cannot take, in this order: regions, zones or subzones. Then anywhere.",
        ),
        field(
            "distribute",
            Kind::List(&Kind::Object(&DISTRIBUTION)),
            Without::Means("`prefer` holds for all callers"),
            "For callers in some places, which share of their requests goes where, instead of `prefer`. The first that is for the caller counts.",
        ),
        field(
            "overprovision_percent",
            Kind::Between(100, 10_000),
            Without::Value("140"),
            "Of so many percent of its instances a place needs 100 to take everything. With 140 it hands nothing on until less than 71 % of them are healthy, reachable and not put out.",
        ),
        field(
            "instances_min",
            Kind::Count(ENDPOINTS_MIN_MAX),
            Without::Value("1"),
            "With fewer instances, a zone is not preferred to its region, nor a region to the rest.",
        ),
        field(
            "overflow_percent",
            Kind::Either(&[Kind::Choice(NO_OVERFLOW), Kind::Between(100, 10_000)]),
            Without::Value("150"),
            "When its answers take longer than in quiet times, no more than so many percent of what is under way then are sent to a place; the rest is handed on.",
        ),
    ],
};

/// How callers in a place divide their requests.
pub(crate) static DISTRIBUTION: Shape = Shape {
    name: "distribution",
    doc: "How callers in one place divide their requests between places.",
    fields: &[
        field("from", Kind::Zone, Without::Required, "Where the callers are."),
        field(
            "to",
            Kind::Map("a region, zone or subzone", &Kind::Weight),
            Without::Required,
            "Places with their shares. The first place that an instance is in counts. Other places get what these cannot take.",
        ),
    ],
};

/// Who sends a request, in the long form.
pub(crate) static CALLER: Shape = Shape {
    name: "caller",
    doc: "Callers in the long form; all that is given must hold.",
    fields: &[
        field(
            "service",
            Kind::Caller,
            Without::Means("any service or gateway"),
            "Instances of this service, or of all services (and gateways) of a namespace.",
        ),
        field(
            "labels",
            LABEL_MAP,
            Without::Means("any labels"),
            "Those with all of these labels; the label `version` is the instance's version.",
        ),
    ],
};
