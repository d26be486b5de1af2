//! What clients and upstreams speak, and in what their cost is told.

/// What the client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 on both ends.
    Http1,
    /// Unary gRPC calls over HTTP/2 without TLS, on both ends.
    Grpc,
    /// Bytes that no proxy looks at.
    Tcp,
    /// HTTP/1.1 over TLS 1.3, ended by the proxy; plain to the upstream.
    Https,
}

/// What is counted. The load generator calls all of them requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Request,
    /// A thousand bytes: so microseconds for one are seconds for a gigabyte.
    Kilobyte,
    /// A connection with all that happens on it.
    Connection,
}

impl Protocol {
    /// In names of folders and files, and in the environment of a script of the user's.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Https => "https",
        }
    }

    /// Before names of what belongs to it; the first has none.
    pub(super) fn prefix(self) -> String {
        if self == Self::Http1 { String::new() } else { format!("{}-", self.word()) }
    }
}

impl Unit {
    /// In the record: what `request` means there.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Kilobyte => "1000 bytes",
            Self::Connection => "connection",
        }
    }

    /// Of CPU time.
    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Request => "CPU us/request",
            Self::Kilobyte => "CPU s/GB",
            Self::Connection => "CPU us/connection",
        }
    }

    /// Of throughput.
    pub(super) fn rate(self) -> &'static str {
        match self {
            Self::Request => "requests/s",
            Self::Kilobyte => "MB/s",
            Self::Connection => "connections/s",
        }
    }

    /// Digits that CPU times are worth.
    pub(super) fn digits(self) -> usize {
        if self == Self::Kilobyte { 2 } else { 1 }
    }

    /// Units per second, as they are shown.
    pub(super) fn shown(self, rate: f64) -> f64 {
        if self == Self::Kilobyte { rate / 1_000.0 } else { rate }
    }
}
