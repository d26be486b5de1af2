//! `leno.v1` messages about what is outside of the mesh: `leno_core::spec`'s `ExternalSpec`, `TlsSpec` and `EgressSpec`.

/// How a service outside the mesh is reached: `ExternalSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct External {
    /// Places that are known by name.
    #[prost(message, repeated, tag = "1")]
    pub names: Vec<NamedEndpoint>,
    /// Unset: plain text.
    #[prost(message, optional, tag = "2")]
    pub tls: Option<Tls>,
}

/// `NamedEndpoint`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamedEndpoint {
    /// Unique in its service.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Lower case.
    #[prost(string, tag = "2")]
    pub host: String,
    /// 1 to 65535.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Empty: none.
    #[prost(string, tag = "4")]
    pub version: String,
    /// Of each of its addresses.
    #[prost(uint32, tag = "5")]
    pub weight: u32,
    /// Where they are; empty: nobody says.
    #[prost(string, tag = "70")]
    pub zone: String,
    /// Their labels.
    #[prost(btree_map = "string, string", tag = "71")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// `TlsSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tls {
    /// Empty: the endpoint's host.
    #[prost(string, tag = "1")]
    pub sni: String,
    /// Whom to believe.
    #[prost(enumeration = "Roots", tag = "2")]
    pub roots: i32,
    /// The file of [`Roots::File`].
    #[prost(string, tag = "3")]
    pub roots_file: String,
    /// `sha256:DIGITS`, or a file.
    #[prost(string, repeated, tag = "4")]
    pub pinned: Vec<String>,
    /// Empty: `sni`.
    #[prost(string, repeated, tag = "5")]
    pub names: Vec<String>,
    /// Empty: none is expected.
    #[prost(string, tag = "6")]
    pub spiffe: String,
    /// What is presented.
    #[prost(enumeration = "Identity", tag = "7")]
    pub identity: i32,
    /// The file of [`Identity::Files`].
    #[prost(string, tag = "8")]
    pub cert: String,
    /// The file of [`Identity::Files`].
    #[prost(string, tag = "9")]
    pub key: String,
    /// Most wanted first; empty: by the service's protocol.
    #[prost(string, repeated, tag = "10")]
    pub alpn: Vec<String>,
}

/// Whom to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Roots {
    /// What is pinned alone, or the system's.
    Unspecified = 0,
    /// The machine's.
    System = 1,
    /// The mesh's.
    Mesh = 2,
    /// A file's.
    File = 3,
}

/// What is presented to a server that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Identity {
    /// Nothing.
    Unspecified = 0,
    /// The proxy's own certificate.
    Mesh = 1,
    /// Files.
    Files = 2,
}

/// What may leave the mesh: `EgressSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Egress {
    /// What happens to what no rule is about.
    #[prost(enumeration = "EgressMode", tag = "1")]
    pub mode: i32,
    /// First match wins.
    #[prost(message, repeated, tag = "2")]
    pub rules: Vec<EgressRule>,
    /// Unset: each proxy lets it out itself.
    #[prost(message, optional, tag = "3")]
    pub via: Option<Via>,
}

/// What happens to what no rule is about. 0 is no mode: a receiver refuses what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EgressMode {
    /// Not set.
    Unspecified = 0,
    /// It leaves.
    Allow = 1,
    /// It leaves for declared places only.
    RegistryOnly = 2,
}

/// `EgressRule`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EgressRule {
    /// Unique in its list.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `NAMESPACE/NAME`, or `NAMESPACE/*`.
    #[prost(string, repeated, tag = "2")]
    pub from: Vec<String>,
    /// `example.com`, or `.example.com` for every host below it.
    #[prost(string, repeated, tag = "3")]
    pub hosts: Vec<String>,
    /// `ADDRESS/BITS`.
    #[prost(string, repeated, tag = "4")]
    pub cidrs: Vec<String>,
    /// 1 to 65535.
    #[prost(uint32, repeated, tag = "5")]
    pub ports: Vec<u32>,
    /// Whether it may leave; a forgotten field lets nothing out.
    #[prost(bool, tag = "6")]
    pub allow: bool,
}

/// `Via`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Via {
    /// The gateway's SPIFFE id.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// `IP:PORT`.
    #[prost(string, tag = "2")]
    pub address: String,
}
