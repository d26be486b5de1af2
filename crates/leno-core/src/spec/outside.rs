//! What is outside of the mesh: services that have no sidecar, how TLS is begun with them, and what may leave at all.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::{Cidr, HostMatch};
use crate::name::{Label, ServiceId};
use crate::peer::SpiffeId;

/// How a service outside the mesh is reached, beyond the addresses among its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalSpec {
    /// Places that are known by name. The proxy that needs them looks their addresses up.
    pub names: Vec<NamedEndpoint>,
    /// How TLS is begun with every endpoint; `None`: they are spoken to in plain text.
    pub tls: Option<Arc<TlsSpec>>,
}

/// An endpoint that is known by the name of its host: each address of the name is an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// Unique among the names and endpoints of its service; its addresses are `NAME/ADDRESS`.
    pub name: Arc<str>,
    /// A host name in lower case, without a dot at its end.
    pub host: Arc<str>,
    /// Where it listens.
    pub port: u16,
    /// Its version, if it has one.
    pub version: Option<Label>,
    /// Where it is, and its labels.
    pub tags: super::Tags,
    /// The share of each of its addresses beside the other endpoints.
    pub weight: u32,
}

/// TLS with an endpoint that is no Leno: whom to believe, and what to present. Files are those of the machine that the
/// proxy runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSpec {
    /// The name that is asked for (SNI) and, unless `names` or `spiffe` say otherwise, the one that the certificate must
    /// have. `None`: the name of the endpoint's host; an endpoint that is an address has to have that address in its certificate.
    pub sni: Option<Arc<str>>,
    /// The authorities that are believed. `None`: what is `pinned` alone, or the system's when nothing is.
    pub roots: Option<Roots>,
    /// One of these keys must be in the chain: the server's own, or an authority's that signed it. Empty: any.
    pub pinned: Vec<Pinned>,
    /// The certificate must have one of these DNS names or addresses, instead of `sni`.
    pub names: Vec<Arc<str>>,
    /// The certificate must have this SPIFFE id; DNS names then play no part unless `names` has some.
    pub spiffe: Option<Arc<str>>,
    /// What is presented when the server asks who we are; `None`: nothing.
    pub identity: Option<ClientIdentity>,
    /// The protocols that are offered, most wanted first. Empty: by what the service speaks.
    pub alpn: Vec<Alpn>,
}

/// Authorities that a server's certificate may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those that the machine trusts.
    System,
    /// The mesh's own: for a server that has a certificate of this mesh and no sidecar.
    Mesh,
    /// The certificates of a PEM file.
    File(Arc<str>),
}

/// A key that must be in a server's chain.
#[derive(Clone, PartialEq, Eq)]
pub enum Pinned {
    /// The SHA-256 of its SubjectPublicKeyInfo (as in RFC 7469).
    Key([u8; 32]),
    /// The key of a certificate of this PEM file.
    File(Arc<str>),
}

/// What a client proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdentity {
    /// The proxy's own certificate in the mesh.
    Mesh,
    /// PEM files.
    Files {
        /// The chain, leaf first.
        cert: Arc<str>,
        /// The leaf's key.
        key: Arc<str>,
    },
}

/// An application protocol that can be agreed on in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

/// What may leave the mesh. Decided by [`crate::egress`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressSpec {
    /// What happens to what no rule is about.
    pub mode: EgressMode,
    /// First match wins.
    pub rules: Vec<EgressRule>,
    /// The gateway that all of it passes; `None`: each proxy lets it out itself.
    pub via: Option<Via>,
}

/// What happens to what leaves and no rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressMode {
    /// It leaves: a mesh that is put around running services must not break what they do already.
    #[default]
    Allow,
    /// It leaves only for the endpoints of declared services.
    RegistryOnly,
}

/// One rule about what leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// Shown in logs and refusals; unique in its list.
    pub name: Arc<str>,
    /// The callers it is about; empty: all.
    pub from: Vec<EgressSource>,
    /// Hosts that it is about. With `cidrs`, either is enough; without both, every place.
    pub hosts: Vec<HostMatch>,
    /// Addresses that it is about.
    pub cidrs: Vec<Cidr>,
    /// Ports that it is about; empty: all.
    pub ports: Vec<u16>,
    /// What happens to what it is about: true, it leaves.
    pub allow: bool,
}

/// Callers that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressSource {
    /// The instances of a service.
    Service(ServiceId),
    /// Those of every service of a namespace.
    Namespace(Label),
}

/// The gateway that everything which leaves passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Its identity.
    pub identity: SpiffeId,
    /// Where it accepts what leaves, over the mesh transport.
    pub address: SocketAddr,
}

impl EgressSpec {
    /// True when it has to be known which host something wants.
    pub fn looks_at_hosts(&self) -> bool {
        self.mode == EgressMode::RegistryOnly || self.rules.iter().any(|rule| !rule.hosts.is_empty())
    }
}

impl Alpn {
    /// Its registered name.
    pub const fn id(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }

    /// The protocol with this name.
    pub fn parse(id: &str) -> Option<Self> {
        [Self::H2, Self::Http11].into_iter().find(|alpn| alpn.id() == id)
    }
}

impl Pinned {
    /// The 64 digits of a key's digest.
    pub fn parse_key(hex: &str) -> Option<Self> {
        let mut key = [0; 32];
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self::Key(key))
    }
}

/// `sha256:` and 64 digits, or the file's name.
impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => {
                f.write_str("sha256:")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::File(file) => f.write_str(file),
        }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TlsSpec {
    /// What it asks of the certificate, in a few words, for what users look at.
    pub fn expects(&self) -> String {
        match (&self.spiffe, &*self.names, &self.sni) {
            (Some(id), ..) => (**id).into(),
            (None, [], Some(sni)) => (**sni).into(),
            (None, [], None) => "its address".into(),
            (None, names, _) => names.join(" or "),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_pin_is_written_as_it_is_read() {
        let hex = "00ff".repeat(16);
        let pin = Pinned::parse_key(&hex).unwrap();
        assert_eq!(pin.to_string(), alloc::format!("sha256:{hex}"));
        assert_eq!(Pinned::parse_key("00"), None);
        assert_eq!(Pinned::parse_key(&"zz".repeat(32)), None);
    }
}
