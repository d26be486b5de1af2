//! `leno.v1.Mesh`: how a proxy joins the mesh, renews its certificate and keeps its instance alive.

/// `Join`: a token and a certificate request. The only call that a caller without a certificate may make.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinRequest {
    /// A join token, `leno1.ID.SECRET.PIN`. What it may become is kept beside it at the control plane.
    #[prost(string, tag = "1")]
    pub token: String,
    /// PKCS #10, DER. Only its public key is used, never its names.
    #[prost(bytes = "vec", tag = "2")]
    pub csr_der: Vec<u8>,
    /// What the caller calls itself; for logs.
    #[prost(string, tag = "3")]
    pub instance: String,
}

/// `Renew`: a certificate request over a connection that is already authenticated; the identity stays.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RenewRequest {
    /// PKCS #10, DER. Only its public key is used, never its names.
    #[prost(bytes = "vec", tag = "1")]
    pub csr_der: Vec<u8>,
}

/// The answer to `Join` and `Renew`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinResponse {
    /// The new leaf certificate first, then what leads to a root; DER each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain: Vec<Vec<u8>>,
    /// Every root that peers may chain to; DER each.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub roots: Vec<Vec<u8>>,
    /// The SPIFFE id in the leaf.
    #[prost(string, tag = "3")]
    pub id: String,
    /// When the leaf ends, Unix seconds.
    #[prost(uint64, tag = "4")]
    pub expires_unix: u64,
}

/// `Attach`, from the proxy: first [`Hello`], then [`Heartbeat`]s, at the end [`Leave`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttachRequest {
    /// Exactly one is set.
    #[prost(oneof = "AttachMessage", tags = "1, 2, 3")]
    pub message: Option<AttachMessage>,
}

/// What an [`AttachRequest`] says.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum AttachMessage {
    /// I am here.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// I am still here.
    #[prost(message, tag = "2")]
    Heartbeat(Heartbeat),
    /// I am going; forget me at once.
    #[prost(message, tag = "3")]
    Leave(Leave),
}

/// Registers an instance, or takes over the one of the same name after a reconnect. The service comes from the
/// certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// Unique in its service; a DNS label.
    #[prost(string, tag = "1")]
    pub instance: String,
    /// The version of the service that this instance runs; empty: none.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Its share beside the others; unset: 1.
    #[prost(uint32, optional, tag = "3")]
    pub weight: Option<u32>,
    /// Where peers reach its sidecar, `IP:PORT`; empty for a gateway, which takes no calls from the mesh.
    #[prost(string, tag = "4")]
    pub mesh_address: String,
    /// What the instance speaks, as in [`super::resource::Service::protocol`]; unset: as the service declares.
    #[prost(enumeration = "super::resource::Protocol", optional, tag = "5")]
    pub protocol: Option<i32>,
    /// True for a gateway: the certificate then names the gateway.
    #[prost(bool, tag = "6")]
    pub gateway: bool,
    /// How it is.
    #[prost(message, optional, tag = "7")]
    pub health: Option<Health>,
    /// The proxy's own version.
    #[prost(string, tag = "8")]
    pub proxy_version: String,
    /// Where the instance is; empty: nobody says.
    #[prost(string, tag = "70")]
    pub zone: String,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "71")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Keeps the lease; send one every third of it, and one at once when the health changes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Heartbeat {
    /// How the instance is.
    #[prost(message, optional, tag = "1")]
    pub health: Option<Health>,
    /// The generation that the proxy's snapshot is built from.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
}

/// What the sidecar's checks of its instance say.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Health {
    /// Whether it may get requests.
    #[prost(bool, tag = "1")]
    pub healthy: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// Deregisters the instance.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Leave {
    /// For logs.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// `Attach`, from the control plane: [`Attached`] once, then one [`Renewed`] per heartbeat.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttachResponse {
    /// Exactly one is set.
    #[prost(oneof = "AttachAnswer", tags = "1, 2")]
    pub message: Option<AttachAnswer>,
}

/// What an [`AttachResponse`] says.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum AttachAnswer {
    /// The instance is registered, and others are being told.
    #[prost(message, tag = "1")]
    Attached(Attached),
    /// The lease runs anew.
    #[prost(message, tag = "2")]
    Renewed(Renewed),
}

/// The instance is registered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Attached {
    /// Without a heartbeat for so long the instance is removed.
    #[prost(uint64, tag = "1")]
    pub lease_millis: u64,
    /// The services that the instance calls, `NAMESPACE/NAME` each: subscribe to them at start.
    #[prost(string, repeated, tag = "2")]
    pub calls: Vec<String>,
    /// The control plane's generation.
    #[prost(uint64, tag = "3")]
    pub generation: u64,
}

/// The lease runs anew from now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renewed {
    /// Without a heartbeat for so long the instance is removed.
    #[prost(uint64, tag = "1")]
    pub lease_millis: u64,
    /// The control plane's generation.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
}

/// One refused resource, in the details of a refusal (`error_detail`). Resources of the response that are not named
/// by one were accepted; a refusal without any refuses the whole response.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rejected {
    /// The resource's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
}
