//! Gateways and their listeners.

use super::{Field, GATEWAY_ROUTE, Kind, Shape, Without, field};

/// A gateway.
pub(crate) static GATEWAY: Shape = Shape {
    name: "gateway",
    doc: "A proxy through which requests from outside enter the mesh.",
    fields: &[
        field(
            "listen",
            Kind::Address,
            Without::Means("a free port on 127.0.0.1"),
            "Where it listens for plain HTTP, when that is all; else see `listeners`.",
        ),
        field(
            "listeners",
            Kind::List(&Kind::Object(&LISTENER)),
            Without::Means("one of plain HTTP, at `listen`"),
            "Several addresses, or one that is more than plain HTTP; instead of `listen`.",
        ),
        field(
            "routes",
            Kind::List(&Kind::Object(&GATEWAY_ROUTE)),
            Without::Means("none, which only a gateway without HTTP can do with"),
            "Where requests go; the first route that matches wins. What none matches is answered with 404.",
        ),
        super::zones::GATEWAY_ZONE,
    ],
};

/// What a listener speaks.
pub(crate) const LISTENER_PROTOCOLS: &[(&str, &str)] = &[
    ("http", "HTTP in plain text"),
    ("https", "HTTP over TLS, which ends here"),
    ("tls", "TLS that passes as it is, to a service by the name that the client asks for"),
    ("tcp", "any bytes, to one service"),
];

/// A listener of a gateway.
pub(crate) static LISTENER: Shape = Shape {
    name: "listener",
    doc: "An address of a gateway, and what is spoken there. HTTP is served by the gateway's `routes`.",
    fields: &[
        field(
            "name",
            Kind::Name,
            Without::Means("its protocol, with a number from the second one on"),
            "What logs and metrics call it; unique in its gateway.",
        ),
        field("listen", Kind::Address, Without::Means("a free port on 127.0.0.1"), "Where it listens."),
        field("protocol", Kind::Choice(LISTENER_PROTOCOLS), Without::Value("http"), "What is spoken there."),
        field(
            "hosts",
            Kind::OneOrMore(&Kind::Host),
            Without::Means("any host"),
            "With `http` and `https`: the hosts that are served there. A TLS client that asks for another is refused in its handshake.",
        ),
        field(
            "certificates",
            Kind::List(&Kind::Object(&CERTIFICATE)),
            Without::Means("no TLS; `https` needs one"),
            "With `https`, or with `tcp` for TLS that ends here: chosen by the name that the client asks for, exact names before wildcards, the first one otherwise. The files are read again when they change.",
        ),
        field(
            "client_ca",
            Kind::File,
            Without::Means("clients are not asked for a certificate"),
            "With `certificates`: the authorities that a client's certificate may come from, a PEM file.",
        ),
        field(
            "client_certificate",
            Kind::Choice(&[
                ("require", "a client without a certificate is refused"),
                ("optional", "only a client with a bad certificate is refused"),
            ]),
            Without::Value("require"),
            "With `client_ca`: whether a client must have a certificate.",
        ),
        field(
            "forward_client_certificate",
            Kind::Choice(&[
                ("none", "nothing"),
                ("summary", "its hash, subject and alternative names, in `X-Forwarded-Client-Cert`"),
            ]),
            Without::Value("none"),
            "With `https` and `client_ca`: what the service is told of a client's verified certificate. What a client says of itself in that header never passes.",
        ),
        field(
            "min_version",
            Kind::Choice(&[("tls1.2", "TLS 1.2 and newer"), ("tls1.3", "TLS 1.3 and newer")]),
            Without::Value("tls1.2"),
            "With `certificates`: the oldest version of TLS that is spoken.",
        ),
        field(
            "redirect",
            Kind::Either(&[
                Kind::Choice(&[("https", "to the port of the gateway's first `https` listener")]),
                Kind::Port,
            ]),
            Without::Means("requests are served"),
            "With `http`: every request is answered with its own URL over HTTPS (301, or 308 for methods other than GET and HEAD). `https` is the port of the gateway's first `https` listener; a number is the port that clients see.",
        ),
        field(
            "forwarded_hops",
            Kind::Count(FORWARDED_HOPS_MAX),
            Without::Means("none: what a client says of itself is replaced"),
            "With `http` and `https`: how many proxies in front are trusted. So many of the last entries of `X-Forwarded-For` are kept, and the other forwarding headers pass.",
        ),
        field(
            "proxy_protocol",
            Kind::OneOrMore(&Kind::Range),
            Without::Means("connections begin with no PROXY header"),
            "The load balancers in front: their connections have to begin with a PROXY header (version 1 or 2), which says who the client is. Connections from everywhere else are refused.",
        ),
        field(
            "sni",
            Kind::List(&Kind::Object(&SNI_ROUTE)),
            Without::Means("nothing passes; `tls` needs one"),
            "With `tls`: where connections go, by the name that the client asks for; the first that matches wins, and what none matches is refused.",
        ),
        field(
            "to",
            Kind::Service,
            Without::Means("nowhere; `tcp` needs it"),
            "With `tcp`: the service that takes the connections.",
        ),
    ],
};

/// Most proxies in front that can be trusted.
pub(crate) const FORWARDED_HOPS_MAX: u32 = 20;

/// A certificate.
pub(crate) static CERTIFICATE: Shape = Shape {
    name: "certificate",
    doc: "A certificate and its key: PEM files on the machine of the gateway.",
    fields: &[
        field(
            "cert",
            Kind::File,
            Without::Required,
            "The chain, the server's own certificate first; relative to the folder of the mesh file.",
        ),
        field("key", Kind::File, Without::Required, "Its private key."),
    ],
};

/// A route of TLS connections.
pub(crate) static SNI_ROUTE: Shape = Shape {
    name: "sni route",
    doc: "Where TLS connections go that pass as they are.",
    fields: &[
        field(
            "host",
            Kind::OneOrMore(&Kind::Host),
            Without::Required,
            "The name that the client asks for; `*.example.com` is every name below `example.com`.",
        ),
        field("to", Kind::Service, Without::Required, "The service that takes the connections."),
    ],
};

/// How connections to endpoints begin.
pub(crate) const SEND_PROXY: Field = field(
    "send_proxy",
    Kind::Choice(&[("v1", "a line of text"), ("v2", "the binary form")]),
    Without::Means("connections begin with what the client says"),
    "With `protocol: tcp` and `endpoints`: each connection to them begins with a PROXY header of this version, which names the client.",
);
