//! `leno.v1` resources: what a proxy is told. One message per type of `leno_core::spec`, field for field; durations
//! in nanoseconds, names as `NAMESPACE/NAME`.

/// A service: `ServiceSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Service {
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What instances speak.
    #[prost(enumeration = "Protocol", tag = "2")]
    pub protocol: i32,
    /// How one of several endpoints is chosen.
    #[prost(enumeration = "Balance", tag = "3")]
    pub balance: i32,
    /// First match wins.
    #[prost(message, repeated, tag = "4")]
    pub rules: Vec<Rule>,
    /// Declared dependencies.
    #[prost(string, repeated, tag = "5")]
    pub calls: Vec<String>,
    /// How the instance is checked.
    #[prost(message, optional, tag = "6")]
    pub health: Option<HealthCheck>,
    /// Nanoseconds; 0 or unset: none.
    #[prost(uint64, optional, tag = "7")]
    pub timeout_nanos: Option<u64>,
    /// Connections begin with a PROXY header of this version; 0: with none.
    #[prost(uint32, tag = "10")]
    pub send_proxy: u32,
    /// The name resolves to the instances.
    #[prost(bool, tag = "20")]
    pub headless: bool,
    /// What SRV records say; unset: 80.
    #[prost(uint32, optional, tag = "21")]
    pub srv_port: Option<u32>,
    /// How it is reached outside the mesh; unset: by its endpoints as they are.
    #[prost(message, optional, tag = "12")]
    pub external: Option<super::outside::External>,
    /// Its other time limits, and retries; unset: the defaults.
    #[prost(message, optional, tag = "30")]
    pub tries: Option<super::tries::Tries>,
    /// How endpoints are looked after; unset: by the defaults.
    #[prost(message, optional, tag = "40")]
    pub care: Option<super::care::Care>,
}

/// What instances speak. 0 is no protocol: a receiver refuses what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Protocol {
    /// Not set.
    Unspecified = 0,
    /// HTTP/1.1.
    Http1 = 1,
    /// What the client speaks.
    Auto = 2,
    /// HTTP/2.
    Http2 = 3,
    /// gRPC.
    Grpc = 4,
    /// Opaque bytes.
    Tcp = 5,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Balance {
    /// Not set.
    Unspecified = 0,
    /// Each in turn.
    RoundRobin = 1,
    /// By chance.
    Random = 2,
    /// The less loaded of two.
    LeastRequest = 3,
    /// Of two the one with the smaller latency times load.
    PeakEwma = 4,
    /// By a key, on a ring.
    RingHash = 5,
    /// By a key, in Maglev's table.
    Maglev = 6,
}

/// One rule: `RuleSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rule {
    /// Unique in its list.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unset: every request.
    #[prost(message, optional, tag = "2")]
    pub when: Option<Match>,
    /// What happens.
    #[prost(oneof = "Action", tags = "3, 4, 20, 21")]
    pub then: Option<Action>,
    /// Nanoseconds; 0: none; unset: as the service says.
    #[prost(uint64, optional, tag = "5")]
    pub timeout_nanos: Option<u64>,
    /// Unset: nothing.
    #[prost(message, optional, tag = "22")]
    pub change: Option<super::change::Change>,
    /// The other limits, and retries; unset: as the service says.
    #[prost(message, optional, tag = "30")]
    pub tries: Option<super::tries::Tries>,
}

/// `ActionSpec`.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Action {
    /// One of these, by weight.
    #[prost(message, tag = "3")]
    Split(Split),
    /// The service's own rules.
    #[prost(string, tag = "4")]
    Service(String),
    /// Ask elsewhere.
    #[prost(message, tag = "20")]
    Redirect(super::change::Redirect),
    /// This answer.
    #[prost(message, tag = "21")]
    Answer(super::change::Direct),
}

/// Targets by weight.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Split {
    /// The sum of their weights is not 0.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<Target>,
}

/// `TargetSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Target {
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Empty: every version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Its share is this over the sum.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    /// Only endpoints with all of these.
    #[prost(btree_map = "string, string", tag = "70")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// `MatchSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Match {
    /// `example.com`, or `.example.com` for every host below it; empty: any.
    #[prost(string, repeated, tag = "1")]
    pub hosts: Vec<String>,
    /// Unset: any.
    #[prost(oneof = "Path", tags = "2, 3, 20, 21, 22")]
    pub path: Option<Path>,
    /// Empty: any.
    #[prost(string, repeated, tag = "4")]
    pub methods: Vec<String>,
    /// All of these.
    #[prost(message, repeated, tag = "5")]
    pub headers: Vec<Field>,
    /// The path is compared without case.
    #[prost(bool, tag = "23")]
    pub path_any_case: bool,
    /// All of these parameters of the query.
    #[prost(message, repeated, tag = "24")]
    pub queries: Vec<Field>,
    /// Unset: any request.
    #[prost(message, optional, tag = "25")]
    pub grpc: Option<Call>,
    /// `NAMESPACE/NAME`, or `NAMESPACE/*`; empty: anybody.
    #[prost(string, repeated, tag = "26")]
    pub sources: Vec<String>,
    /// Or one of these.
    #[prost(message, repeated, tag = "70")]
    pub labelled_sources: Vec<super::zones::Source>,
    /// The port that the client connected to or asks for, one of these; empty: any.
    #[prost(uint32, repeated, tag = "61")]
    pub ports: Vec<u32>,
    /// The client's address, in one of these ranges; empty: any.
    #[prost(string, repeated, tag = "62")]
    pub clients: Vec<String>,
    /// The name asked for when TLS began, as in `hosts`; empty: any, or no TLS.
    #[prost(string, repeated, tag = "63")]
    pub server_names: Vec<String>,
    /// All of this must hold too; has no `also` of its own.
    #[prost(message, repeated, tag = "60")]
    pub also: Vec<Match>,
}

/// `PathMatch`.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Path {
    /// This path.
    #[prost(string, tag = "2")]
    Exact(String),
    /// This path and below, by segments.
    #[prost(string, tag = "3")]
    Prefix(String),
    /// Every path that begins with this.
    #[prost(string, tag = "20")]
    Start(String),
    /// A regular expression for the whole path.
    #[prost(string, tag = "21")]
    Regex(String),
    /// A path with parts that vary.
    #[prost(string, tag = "22")]
    Template(String),
}

/// A header of an answer: `AnswerHeader`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unset: it is enough that it is there.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// `FieldMatch`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Field {
    /// A header's in lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unset: it is enough that it is there.
    #[prost(oneof = "Text", tags = "2, 20, 21, 22, 23")]
    pub value: Option<Text>,
    /// Compared without case.
    #[prost(bool, tag = "24")]
    pub any_case: bool,
    /// It must not be so.
    #[prost(bool, tag = "25")]
    pub not: bool,
}

/// `TextMatch`, without the one that is always true.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Text {
    /// This text.
    #[prost(string, tag = "2")]
    Exact(String),
    /// It begins with this.
    #[prost(string, tag = "20")]
    Prefix(String),
    /// It ends with this.
    #[prost(string, tag = "21")]
    Suffix(String),
    /// It has this in it.
    #[prost(string, tag = "22")]
    Contains(String),
    /// A regular expression for the whole text.
    #[prost(string, tag = "23")]
    Regex(String),
}

/// `GrpcMatch`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Call {
    /// `package.Service`; unset: any.
    #[prost(string, optional, tag = "1")]
    pub service: Option<String>,
    /// Unset: any.
    #[prost(string, optional, tag = "2")]
    pub method: Option<String>,
}

/// `HealthSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthCheck {
    /// Path of a GET; unset: a TCP connect.
    #[prost(string, optional, tag = "1")]
    pub http_path: Option<String>,
    /// Between the starts of two checks.
    #[prost(uint64, tag = "2")]
    pub interval_nanos: u64,
    /// For one check.
    #[prost(uint64, tag = "3")]
    pub timeout_nanos: u64,
    /// Good answers in a row.
    #[prost(uint32, tag = "4")]
    pub healthy_after: u32,
    /// Bad answers in a row.
    #[prost(uint32, tag = "5")]
    pub unhealthy_after: u32,
    /// The GET is one of HTTP/2.
    #[prost(bool, tag = "6")]
    pub http2: bool,
    /// Set: the health service of gRPC is asked for this service, empty for the server.
    #[prost(string, optional, tag = "7")]
    pub grpc_service: Option<String>,
}

/// A gateway: `GatewaySpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Gateway {
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// First match wins.
    #[prost(message, repeated, tag = "3")]
    pub rules: Vec<Rule>,
    /// At least one. (2 was the address of the only one.)
    #[prost(message, repeated, tag = "4")]
    pub listeners: Vec<Listener>,
    /// Where its proxies are that do not say so; empty: nobody says.
    #[prost(string, tag = "70")]
    pub zone: String,
}

/// `ListenerSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Listener {
    /// Unique in its gateway.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `IP:PORT`.
    #[prost(string, tag = "2")]
    pub listen: String,
    /// What is spoken.
    #[prost(oneof = "Serve", tags = "3, 4, 5")]
    pub serve: Option<Serve>,
    /// Who has to send a PROXY header; unset: nobody.
    #[prost(message, optional, tag = "6")]
    pub proxy_protocol: Option<Trusted>,
}

/// `Serve`.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Serve {
    /// HTTP.
    #[prost(message, tag = "3")]
    Http(Http),
    /// TLS that ends elsewhere.
    #[prost(message, tag = "4")]
    Passthrough(Passthrough),
    /// Bytes.
    #[prost(message, tag = "5")]
    Tcp(Tcp),
}

/// `HttpSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Http {
    /// As in a match; empty: any.
    #[prost(string, repeated, tag = "1")]
    pub hosts: Vec<String>,
    /// Unset: plain.
    #[prost(message, optional, tag = "2")]
    pub tls: Option<Termination>,
    /// The port of HTTPS that requests are sent to; unset: they are served.
    #[prost(uint32, optional, tag = "3")]
    pub redirect: Option<u32>,
    /// Trusted proxies in front.
    #[prost(uint32, tag = "4")]
    pub forwarded_hops: u32,
}

/// `Vec<SniRoute>`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Passthrough {
    /// First match wins; at least one.
    #[prost(message, repeated, tag = "1")]
    pub routes: Vec<SniRoute>,
}

/// `SniRoute`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SniRoute {
    /// As in a match; at least one.
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "2")]
    pub to: String,
}

/// `Serve::Tcp`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tcp {
    /// `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub to: String,
    /// Unset: the bytes pass as they are.
    #[prost(message, optional, tag = "2")]
    pub tls: Option<Termination>,
}

/// `TerminationSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Termination {
    /// At least one.
    #[prost(message, repeated, tag = "1")]
    pub certificates: Vec<CertificateFiles>,
    /// Unset: clients are not asked.
    #[prost(message, optional, tag = "2")]
    pub clients: Option<ClientCertificates>,
    /// TLS 1.x with this x; 2 or 3.
    #[prost(uint32, tag = "3")]
    pub min_minor: u32,
}

/// `CertificateFiles`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CertificateFiles {
    /// A path.
    #[prost(string, tag = "1")]
    pub cert: String,
    /// A path.
    #[prost(string, tag = "2")]
    pub key: String,
}

/// `ClientCertificates`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClientCertificates {
    /// A path.
    #[prost(string, tag = "1")]
    pub authorities: String,
    /// A client without one may come in. What is sent is the exception, so that a forgotten field lets nobody in.
    #[prost(bool, tag = "2")]
    pub optional: bool,
    /// The service is told.
    #[prost(bool, tag = "3")]
    pub forward: bool,
}

/// Ranges of addresses.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trusted {
    /// `ADDRESS/BITS`.
    #[prost(string, repeated, tag = "1")]
    pub ranges: Vec<String>,
}

/// Where a service can be reached: `Vec<EndpointSpec>`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Endpoints {
    /// The service, `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Sorted by name.
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<Endpoint>,
}

/// `EndpointSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Endpoint {
    /// Unique in its service.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `IP:PORT`.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The SPIFFE id at the other end of the mesh transport; empty: plain text.
    #[prost(string, tag = "3")]
    pub mesh_identity: String,
    /// Empty: none.
    #[prost(string, tag = "4")]
    pub version: String,
    /// 0 takes no new requests.
    #[prost(uint32, tag = "5")]
    pub weight: u32,
    /// Whether it may get requests. Unhealthy is what is sent, so that a forgotten field is no outage.
    #[prost(bool, tag = "6")]
    pub unhealthy: bool,
    /// Where it is; empty: nobody says.
    #[prost(string, tag = "70")]
    pub zone: String,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "71")]
    pub labels: std::collections::BTreeMap<String, String>,
}
