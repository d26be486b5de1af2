//! The instances of a service, in the mesh and outside.

use super::{Kind, REPLICAS_MAX, Shape, Without, field, zones};

/// An instance.
pub(crate) static INSTANCE: Shape = Shape {
    name: "instance",
    doc: "One process of a service and the sidecar beside it. It has a command, or an address where it runs already.",
    fields: &[
        field(
            "name",
            Kind::Name,
            Without::Means("`SERVICE-N`"),
            "Its name, unique in its namespace; with `replicas`, `NAME-N`.",
        ),
        field(
            "version",
            Kind::Version,
            Without::Means("no version"),
            "The version of the software that it runs.",
        ),
        field(
            "weight",
            Kind::Weight,
            Without::Value("1"),
            "Its share beside the other instances; 0 takes no requests.",
        ),
        zones::ZONE,
        zones::LABELS,
        field("replicas", Kind::Count(REPLICAS_MAX), Without::Value("1"), "So many instances like this one."),
        field(
            "run",
            Kind::Command,
            Without::Means("the service's `run`"),
            "The command that starts it: words as a shell splits them (no shell runs), or a list of words. `{port}` stands for the application's port.",
        ),
        field(
            "dir",
            Kind::Folder,
            Without::Means("the service's `dir`"),
            "Where the command runs, relative to the folder of the file.",
        ),
        field(
            "env",
            Kind::Map("a variable's name", &Kind::Text),
            Without::Means("nothing"),
            "Added to its environment, on top of the service's `env`.",
        ),
        field(
            "port",
            Kind::Port,
            Without::Means("a free port, passed in `PORT`"),
            "The application listens on this port of 127.0.0.1.",
        ),
        field(
            "address",
            Kind::Address,
            Without::Means("`port`"),
            "Where the application listens, instead of `port`.",
        ),
        field(
            "mesh",
            Kind::Address,
            Without::Means("a free port"),
            "Where its sidecar accepts requests from other sidecars.",
        ),
        field(
            "proxy",
            Kind::Address,
            Without::Means("a free port"),
            "Where its sidecar's forward proxy listens (`HTTP_PROXY` of the application).",
        ),
        field(
            "outbound",
            Kind::Map("a service of `calls`", &Kind::Address),
            Without::Means("free ports"),
            "Fixed local addresses of services that it calls.",
        ),
        field(
            "admin",
            Kind::Address,
            Without::Means("a free port"),
            "Where its sidecar serves metrics and its state.",
        ),
    ],
};

/// An endpoint outside the mesh.
pub(crate) static ENDPOINT: Shape = Shape {
    name: "endpoint",
    doc: "A place outside the mesh where a service answers; the short form is its address alone.",
    fields: &[
        field("address", Kind::Place, Without::Required, "Where it answers."),
        field("name", Kind::Name, Without::Means("`SERVICE-N`"), "What logs call it; unique in its service."),
        field(
            "version",
            Kind::Version,
            Without::Means("no version"),
            "The version of the software that it runs.",
        ),
        field(
            "weight",
            Kind::Weight,
            Without::Value("1"),
            "Its share beside the other endpoints; 0 takes no requests.",
        ),
        zones::ZONE,
        zones::LABELS,
    ],
};
