//! What operators declare, validated: the one model that every dialect is translated into, that the control plane
//! stores and sends, and that a proxy builds its snapshot from. Nothing here is `Serialize`; the edges translate.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::name::{Label, ServiceId};
use crate::peer::SpiffeId;
use crate::time::Duration;

mod answer;
mod care;
mod change;
mod cidr;
mod concurrency;
mod cors;
mod fault;
mod format;
mod gateway;
mod hedge;
mod matching;
mod outside;
mod pattern;
mod rate;
mod tags;
mod template;
mod tries;
mod zone;

pub use answer::{ANSWER_BODY_BYTES_MAX, Answer, Direct, REDIRECT_STATUSES, Redirect, Scheme};
pub use care::{
    Affinity, CHOICES, Care, CookieSpec, Ewma, KeySpec, Limits, Outliers, PENDING_MAX, PENDING_TIMEOUT,
    SLOW_START_FROM, SlowStart,
};
pub(crate) use change::ReplacementPiece;
pub use change::{
    CHANGED_PATH_BYTES_MAX, Change, FieldChanges, Fixed, MIRRORS_MAX, Mirror, PathChange, Replacement,
    ReplacementError,
};
pub use cidr::{Cidr, CidrError};
pub use concurrency::{
    CONCURRENCY_LIMIT_MAX, CONCURRENCY_MAX, CONCURRENCY_MIN, Concurrency, ConcurrencyLimit, QUEUE_WAIT,
    QUEUE_WAIT_MAX,
};
pub use cors::{Allowed, Cors, Unmatched};
pub use fault::{
    ALL_PPM, Abort, FAULT_DELAY_MAX, FAULT_RATES, Fault, STOP_REQUESTS, STOP_WINDOW, Share, Stop,
};
pub use format::{Format, FormatError, Piece, Scope, VARIABLES, Variable};
pub use gateway::{
    CertificateFiles, ClientCertificates, GatewaySpec, HttpSpec, ListenerSpec, Serve, SniRoute,
    TerminationSpec, TlsVersion,
};
pub use hedge::{
    HEDGE_BODY_BYTES_MAX, HEDGE_PERCENT, HEDGE_PERCENT_MAX, HEDGE_QUANTILE_MAX, HEDGE_QUANTILE_MIN,
    HedgeAfter, HedgeSpec,
};
pub use matching::{
    FieldMatch, GrpcMatch, HostMatch, LISTS_DEEP_MAX, LinkMatch, MatchSpec, PathMatch, SourceMatch, TextMatch,
};
pub use outside::{
    Alpn, ClientIdentity, EgressMode, EgressRule, EgressSource, EgressSpec, ExternalSpec, NamedEndpoint,
    Pinned, Roots, TlsSpec, Via,
};
pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError};
pub use rate::{
    RATE_KEYS_MAX, RATE_PER, RATE_PER_MAX, RATE_PER_MIN, RATE_REQUESTS_MAX, RATES_MAX, RateKey, RateScope,
    RateSpec,
};
pub use tags::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, Labels, LabelsError, Tags};
pub use template::{Template, TemplateError};
pub use tries::{
    AnswerHeader, BODY_BYTES_MAX, BUDGET_PER_SECOND_MAX, BUDGET_PERCENT_MAX, BudgetSpec, RetryMethods,
    RetryOn, RetrySpec, StatusRange, TriesSpec,
};
pub use zone::{
    Distribution, Locality, Near, OVERFLOW_PERCENT, OVERPROVISION_PERCENT, PLACES_MAX, Prefer,
    ZONE_PART_BYTES_MAX, ZONE_PARTS_MAX, Zone, ZoneError,
};

/// A service as its owner declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its full name.
    pub id: ServiceId,
    /// What its instances speak.
    pub protocol: Protocol,
    /// How one of several endpoints is chosen.
    pub balance: Balance,
    /// How endpoints are looked after; `None`: as [`Care::new`] says.
    pub care: Option<Arc<Care>>,
    /// Where requests for this service go, first match wins; a request that no rule matches goes to every
    /// endpoint of the service.
    pub rules: Vec<RuleSpec>,
    /// The services that its instances call; what their sidecars subscribe to at start.
    pub calls: Vec<ServiceId>,
    /// How the sidecar beside an instance finds out whether it works; `None`: it is taken to work.
    pub health: Option<HealthSpec>,
    /// From the whole request head received to the end of the response; `None` and 0: only the idle limit bounds it.
    pub timeout: Option<Duration>,
    /// Its other time limits, and when requests are sent again.
    pub tries: Option<Arc<TriesSpec>>,
    /// How it is reached when it is outside the mesh; `None`: by its endpoints as they are.
    pub external: Option<Arc<ExternalSpec>>,
    /// Connections to its endpoints begin with a PROXY header that names the client. Only for opaque bytes and plain
    /// endpoints: a pooled connection has no one client, and a sidecar would take the header for the client's words.
    pub send_proxy: Option<crate::proxy_protocol::Version>,
    /// Its name resolves to its instances, each of which has a name and virtual address of its own.
    pub headless: bool,
    /// The port that SRV records name; a captured connection reaches the service by any port. Default [`SRV_PORT`].
    pub srv_port: u16,
}

impl ServiceSpec {
    /// The service that takes its requests when none of its own endpoints can.
    pub fn backup(&self) -> Option<&ServiceId> {
        self.care.as_ref()?.backup.as_ref()
    }
}

/// The port that SRV records name when nothing else is said: HTTP's.
pub const SRV_PORT: u16 = 80;

/// What an instance speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What the client speaks: found out for each connection by [`crate::detect`], so that a service of which nobody has
    /// said anything just works.
    #[default]
    Auto,
    /// HTTP/1.1; a client that speaks HTTP/2 is translated.
    Http1,
    /// HTTP/2; a client that speaks HTTP/1.1 is translated.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// Bytes that nobody looks into.
    Tcp,
}

impl Protocol {
    /// The word for it in the mesh file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// How an endpoint is chosen among the healthy ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// Two by chance (by weight), the one with fewer requests under way.
    LeastRequest,
    /// Two by chance (by weight), the one whose latency (peak EWMA) times its requests under way is less. The default: of
    /// all it is the only one with which a slow endpoint does not show in the 99th percentile (docs/resilience.md).
    #[default]
    PeakEwma,
    /// The same for the same key ([`Care::affinity`]), by points on a ring.
    RingHash,
    /// The same for the same key ([`Care::affinity`]), by Maglev's table.
    Maglev,
}

/// One rule of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Shown in logs, metrics and `explain`; unique in its list.
    pub name: Arc<str>,
    /// All of it must hold.
    pub when: MatchSpec,
    /// What then happens.
    pub then: ActionSpec,
    /// Overrides the service's timeout; 0: no limit.
    pub timeout: Option<Duration>,
    /// What it changes; `None`: nothing.
    pub change: Option<Arc<Change>>,
    /// The same for what the service says in [`ServiceSpec::tries`].
    pub tries: Option<Arc<TriesSpec>>,
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionSpec {
    /// Send it to one of these, by weight. The sum of the weights is not 0.
    Split(Vec<TargetSpec>),
    /// Hand it to the service's own rules: what a gateway's rule does.
    Service(ServiceId),
    /// Answer it here.
    Answer(Arc<Answer>),
}

/// One target of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// The service whose endpoints take the request.
    pub service: ServiceId,
    /// Only endpoints of this version.
    pub version: Option<Label>,
    /// Only endpoints with all of these labels.
    pub labels: Labels,
    /// Its share of the requests is this over the sum.
    pub weight: u32,
}

/// How a sidecar checks the instance beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSpec {
    /// What is asked.
    pub probe: Probe,
    /// Between the starts of two checks. Default 1 s.
    pub interval: Duration,
    /// How long one check may take. Default 1 s.
    pub timeout: Duration,
    /// So many good answers in a row make it healthy. Default 1.
    pub healthy_after: u32,
    /// So many bad answers in a row make it unhealthy. Default 2; a refused connection counts at once.
    pub unhealthy_after: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection is accepted.
    Tcp,
    /// `GET` this path answers 200 to 399.
    Http(String),
    /// The same in HTTP/2.
    Http2(String),
    /// The health service of gRPC (`grpc.health.v1.Health/Check`) calls this one, or the server for an empty name, serving.
    Grpc(String),
}

/// One place that can answer requests for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// The instance's name; live state is carried over a configuration change by it.
    pub name: Arc<str>,
    /// Where to connect: the sidecar's mesh port, or the instance itself for a plain one.
    pub address: SocketAddr,
    /// How to speak to it.
    pub transport: Transport,
    /// Its version, if it has one.
    pub version: Option<Label>,
    /// Its share beside the others; 0 takes no new requests.
    pub weight: u32,
    /// What its own sidecar's checks say.
    pub healthy: bool,
    /// Where it is, and its labels.
    pub tags: Tags,
}

/// How a proxy reaches an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The mesh transport, over TLS 1.3 with this identity at the other end.
    Mesh(SpiffeId),
    /// Plain text: a service outside the mesh, or the application beside its own sidecar.
    Plain,
    /// TLS with a server that is no Leno.
    Tls(Arc<TlsSpec>),
}

/// Everything that one proxy has been told: what its snapshot is built from. Only the services that its workload
/// calls, never the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Grows with every change; acknowledged to the control plane and shown by `leno status`.
    pub generation: u64,
    /// Services this proxy subscribed to and that exist.
    pub services: alloc::collections::BTreeMap<ServiceId, KnownService>,
    /// Services this proxy asked for and that do not exist.
    pub absent: alloc::collections::BTreeSet<ServiceId>,
    /// The gateway that this proxy is, if it is one.
    pub gateway: Option<GatewaySpec>,
    /// What may leave the mesh.
    pub egress: EgressSpec,
    /// Where this proxy is, and its labels.
    pub own: Tags,
}

/// A service with the endpoints that can answer for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownService {
    /// What its owner declares.
    pub spec: ServiceSpec,
    /// Its endpoints, sorted by name.
    pub endpoints: Vec<EndpointSpec>,
}
