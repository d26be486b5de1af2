//! The fields about what is outside the mesh.

use super::{Kind, Shape, Without, field};

/// TLS with a service outside the mesh.
pub(crate) static TLS: Shape = Shape {
    name: "tls",
    doc: "TLS with the endpoints of a service outside the mesh. Files are those of the machine that the sidecar runs on, relative to the folder of this file; they are read again when they change.",
    fields: &[
        field(
            "sni",
            Kind::Host,
            Without::Means("the name of the endpoint's host; none for an address"),
            "The name that is asked for, and that the certificate must have.",
        ),
        field(
            "roots",
            Kind::Either(&[
                Kind::Choice(&[
                    ("system", "the authorities that the machine trusts"),
                    ("mesh", "the mesh's own authority"),
                ]),
                Kind::File,
            ]),
            Without::Means("`system`; with `pinned`, what is pinned alone"),
            "The authorities that the certificate may come from: a word, or a PEM file.",
        ),
        field(
            "pinned",
            Kind::OneOrMore(&Kind::File),
            Without::Means("any key"),
            "A key that must be in the chain, the server's own or an authority's: `sha256:` and the SHA-256 of its public key, or a PEM file with its certificate.",
        ),
        field(
            "names",
            Kind::OneOrMore(&Kind::Host),
            Without::Means("`sni`; for an address without it, that address"),
            "The certificate must have one of these names or addresses.",
        ),
        field(
            "spiffe",
            Kind::Spiffe,
            Without::Means("the certificate is known by its names"),
            "The certificate must have this SPIFFE id; names then count only where `names` gives some.",
        ),
        field(
            "cert",
            Kind::Either(&[Kind::Choice(&[("mesh", "the sidecar's own certificate")]), Kind::File]),
            Without::Means("no client certificate"),
            "What is presented when the server asks who calls: `mesh`, or a PEM file with the chain.",
        ),
        field("key", Kind::File, Without::Means("none"), "The PEM file with the key of `cert`."),
        field(
            "alpn",
            Kind::OneOrMore(&Kind::Choice(&[("h2", "HTTP/2"), ("http/1.1", "HTTP/1.1")])),
            Without::Means("by the service's `protocol`"),
            "The protocols that are offered, the most wanted one first.",
        ),
    ],
};

/// What may leave.
pub(crate) static EGRESS: Shape = Shape {
    name: "egress",
    doc: "What may leave the mesh, for requests through the forward proxy, tunnels and captured connections alike.",
    fields: &[
        field(
            "mode",
            Kind::Choice(&[
                ("allow", "it leaves"),
                ("registry-only", "it leaves only for the `endpoints` of services that the caller knows"),
            ]),
            Without::Value("allow"),
            "What happens to what none of `rules` is about.",
        ),
        field(
            "rules",
            Kind::List(&Kind::Object(&EGRESS_RULE)),
            Without::Means("no rules"),
            "Who may reach what; the first rule that is about it decides.",
        ),
        field(
            "via",
            Kind::Object(&VIA),
            Without::Means("each sidecar lets it out itself"),
            "The gateway that what leaves passes, and which decides once more. Declared `endpoints` are reached directly.",
        ),
    ],
};

/// A rule about what leaves.
pub(crate) static EGRESS_RULE: Shape = Shape {
    name: "egress rule",
    doc: "A rule about what leaves. It is about a destination when one of `hosts` or one of `cidrs` names it, and its caller and port are named too.",
    fields: &[
        field(
            "name",
            Kind::Name,
            Without::Means("its first host or range, or `rule-N`"),
            "What refusals and logs call it; unique in its list.",
        ),
        field(
            "from",
            Kind::OneOrMore(&Kind::Caller),
            Without::Means("every caller"),
            "The callers, by the identity of their sidecars: services, or `NAMESPACE/*` for all of a namespace.",
        ),
        field(
            "hosts",
            Kind::OneOrMore(&Kind::Host),
            Without::Means("every place, unless there are `cidrs`"),
            "Host names, as requests and TLS (SNI) say them; `*.example.com` is every host below `example.com`.",
        ),
        field(
            "cidrs",
            Kind::OneOrMore(&Kind::Range),
            Without::Means("every place, unless there are `hosts`"),
            "Ranges of addresses; a name is looked up to be compared with them.",
        ),
        field("ports", Kind::OneOrMore(&Kind::Port), Without::Means("every port"), "Ports."),
        field(
            "action",
            Kind::Choice(&[("allow", "it may leave"), ("deny", "it is refused")]),
            Without::Required,
            "What happens.",
        ),
    ],
};

/// The gateway that what leaves passes.
pub(crate) static VIA: Shape = Shape {
    name: "via",
    doc: "The gateway that passes what leaves the mesh: requests, tunnels and captured connections to places that are no declared service's.",
    fields: &[
        field("gateway", Kind::Name, Without::Required, "Its name."),
        field(
            "address",
            Kind::Address,
            Without::Required,
            "Where it accepts what leaves from sidecars, over mutual TLS.",
        ),
    ],
};
