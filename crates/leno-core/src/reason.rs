//! Why Leno answered instead of a service, or ended a request: one table from reason to what the client sees and
//! whose fault it is.

use core::fmt;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Culprit {
    /// The one who sent the request.
    Downstream,
    /// The one who was to answer it.
    Upstream,
    /// What the operator configured.
    Configuration,
    /// Leno itself.
    Leno,
}

/// A stable word for what went wrong; it stands in the `leno-reason` header, the access log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No rule of the gateway matches.
    NoRoute,
    /// No service has the name that was asked for.
    NoSuchService,
    /// The service has no instances.
    NoEndpoint,
    /// None of the service's instances is healthy.
    NoHealthyEndpoint,
    /// No endpoint accepted a connection.
    ConnectFailed,
    /// No endpoint accepted a connection in time.
    ConnectTimeout,
    /// The two ends did not accept each other's certificates.
    TlsRefused,
    /// The other end closed or reset before it answered.
    UpstreamClosed,
    /// The other end closed or reset in the middle of its answer.
    ResponseCut,
    /// What the other end sent is not HTTP.
    UpstreamMalformed,
    /// The whole exchange took longer than the route allows.
    RequestTimeout,
    /// One attempt had no answer in its time.
    TryTimeout,
    /// Too little of the caller's time was left to begin.
    OutOfTime,
    /// The service's answer was one that is to be tried again.
    AnswerRetried,
    /// Neither side sent anything for too long.
    IdleTimeout,
    /// The client went away.
    DownstreamGone,
    /// The client's request is not HTTP, or ambiguous.
    RequestMalformed,
    /// The client took too long to send its request head.
    RequestHeadTimeout,
    /// The peer sidecar is at one of its limits.
    Overload,
    /// As much of the service is in use as its limits allow.
    ServiceLimit,
    /// The service has more requests than it can work on in time; it has seen nothing of this one.
    ServiceOverloaded,
    /// It is one more than a rate limit lets through.
    RateLimited,
    /// This proxy is stopping.
    Draining,
    /// A method or feature that Leno does not support here.
    Unsupported,
    /// The mesh does not let it leave.
    EgressDenied,
    /// The name of a place outside the mesh has no address.
    NameNotResolved,
    /// The request is for a host that its connection was not made for.
    Misdirected,
    /// The gateway serves this over HTTPS only, and says where.
    HttpsOnly,
    /// A rule breaks requests on purpose, and this is one of them.
    Fault,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 29] = [
        Self::NoRoute,
        Self::NoSuchService,
        Self::NoEndpoint,
        Self::NoHealthyEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsRefused,
        Self::UpstreamClosed,
        Self::ResponseCut,
        Self::UpstreamMalformed,
        Self::RequestTimeout,
        Self::TryTimeout,
        Self::OutOfTime,
        Self::AnswerRetried,
        Self::IdleTimeout,
        Self::DownstreamGone,
        Self::RequestMalformed,
        Self::RequestHeadTimeout,
        Self::Overload,
        Self::ServiceLimit,
        Self::ServiceOverloaded,
        Self::RateLimited,
        Self::Draining,
        Self::Unsupported,
        Self::EgressDenied,
        Self::NameNotResolved,
        Self::Misdirected,
        Self::HttpsOnly,
        Self::Fault,
    ];

    /// `(word, status, culprit, sentence)`.
    const fn row(self) -> (&'static str, u16, Culprit, &'static str) {
        use Culprit::{Configuration, Downstream, Leno, Upstream};
        match self {
            Self::NoRoute => ("no_route", 404, Configuration, "no route matches this request"),
            Self::NoSuchService => {
                ("no_such_service", 502, Configuration, "no service of this name is registered")
            }
            Self::NoEndpoint => ("no_endpoint", 503, Configuration, "the service has no instances"),
            Self::NoHealthyEndpoint => {
                ("no_healthy_endpoint", 503, Upstream, "no instance of the service is healthy")
            }
            Self::ConnectFailed => {
                ("connect_failed", 503, Upstream, "no instance of the service accepted a connection")
            }
            Self::ConnectTimeout => {
                ("connect_timeout", 503, Upstream, "no instance of the service accepted a connection in time")
            }
            Self::TlsRefused => {
                ("tls_refused", 503, Upstream, "the two ends did not accept each other's certificates")
            }
            Self::UpstreamClosed => {
                ("upstream_closed", 502, Upstream, "the service closed the connection before it answered")
            }
            Self::ResponseCut => (
                "response_cut",
                502,
                Upstream,
                "the service closed the connection in the middle of its answer",
            ),
            Self::UpstreamMalformed => {
                ("upstream_malformed", 502, Upstream, "the service's answer is not valid HTTP")
            }
            Self::RequestTimeout => (
                "request_timeout",
                504,
                Upstream,
                "the service did not answer in the time that the route allows",
            ),
            Self::TryTimeout => (
                "try_timeout",
                504,
                Upstream,
                "the service did not answer in the time that one attempt may take",
            ),
            Self::OutOfTime => {
                ("out_of_time", 504, Downstream, "too little of the caller's time was left to begin")
            }
            Self::AnswerRetried => {
                ("answer_retried", 502, Upstream, "the service's answer was one that is to be tried again")
            }
            Self::IdleTimeout => ("idle_timeout", 504, Upstream, "nothing was sent for too long"),
            Self::DownstreamGone => ("downstream_gone", 499, Downstream, "the client closed its connection"),
            Self::RequestMalformed => ("request_malformed", 400, Downstream, "the request is not valid HTTP"),
            Self::RequestHeadTimeout => {
                ("request_head_timeout", 408, Downstream, "the request head did not arrive in time")
            }
            Self::Overload => ("overload", 503, Leno, "a limit of the proxy is reached"),
            Self::ServiceLimit => {
                ("service_limit", 503, Configuration, "as much of the service is in use as its limits allow")
            }
            Self::ServiceOverloaded => (
                "service_overloaded",
                503,
                Upstream,
                "the service has more requests than it can work on in time",
            ),
            Self::RateLimited => {
                ("rate_limited", 429, Downstream, "more requests than a rate limit lets through")
            }
            Self::Draining => ("draining", 503, Leno, "the proxy is stopping"),
            Self::Unsupported => ("unsupported", 501, Downstream, "the proxy does not support this request"),
            Self::EgressDenied => {
                ("egress_denied", 403, Configuration, "the mesh does not let this service send that outside")
            }
            Self::NameNotResolved => {
                ("name_not_resolved", 502, Upstream, "the name of the host outside the mesh has no address")
            }
            Self::Misdirected => (
                "misdirected",
                421,
                Downstream,
                "this connection was made for another host than the request is for",
            ),
            Self::HttpsOnly => ("https_only", 308, Configuration, "this is served over HTTPS only"),
            Self::Fault => ("fault", 503, Configuration, "this request was broken on purpose"),
        }
    }

    /// The stable snake_case word.
    pub const fn word(self) -> &'static str {
        self.row().0
    }

    /// The status that a client gets when nothing was sent to it yet. 499 is only logged: there is nobody to
    /// send it to.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Whose fault it is.
    pub const fn culprit(self) -> Culprit {
        self.row().2
    }

    /// One sentence for people.
    pub const fn sentence(self) -> &'static str {
        self.row().3
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Culprit {
    /// The stable snake_case word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Configuration => "configuration",
            Self::Leno => "leno",
        }
    }
}

/// The phrase of a status that Leno answers with; only for people.
pub const fn phrase(status: u16) -> &'static [u8] {
    match status {
        200 => b"OK",
        201 => b"Created",
        202 => b"Accepted",
        204 => b"No Content",
        301 => b"Moved Permanently",
        302 => b"Found",
        303 => b"See Other",
        307 => b"Temporary Redirect",
        308 => b"Permanent Redirect",
        400 => b"Bad Request",
        401 => b"Unauthorized",
        403 => b"Forbidden",
        404 => b"Not Found",
        405 => b"Method Not Allowed",
        408 => b"Request Timeout",
        410 => b"Gone",
        413 => b"Content Too Large",
        414 => b"URI Too Long",
        417 => b"Expectation Failed",
        421 => b"Misdirected Request",
        429 => b"Too Many Requests",
        431 => b"Request Header Fields Too Large",
        500 => b"Internal Server Error",
        501 => b"Not Implemented",
        502 => b"Bad Gateway",
        503 => b"Service Unavailable",
        504 => b"Gateway Timeout",
        505 => b"HTTP Version Not Supported",
        _ => b"",
    }
}
