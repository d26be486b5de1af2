//! Gateways: the proxies through which requests and connections from outside enter the mesh.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Cidr, HostMatch, RuleSpec, Zone};
use crate::name::ServiceId;

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySpec {
    /// Its identity in the mesh.
    pub id: ServiceId,
    /// Where it listens; at least one, each with a name of its own.
    pub listeners: Vec<Arc<ListenerSpec>>,
    /// For the requests of every HTTP listener: first match wins; a request that no rule matches is answered 404 with a
    /// reason.
    pub rules: Vec<RuleSpec>,
    /// Where its proxies are that do not say so themselves.
    pub zone: Option<Zone>,
}

/// One address of a gateway, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Shown in logs and metrics; unique in its gateway. A changed listener is the same one when its name is.
    pub name: Arc<str>,
    /// Where it listens; port 0 is resolved by the shell.
    pub listen: SocketAddr,
    /// What is spoken.
    pub serve: Serve,
    /// Who has to begin with a PROXY header: the load balancers in front, and nobody else. `None`: nobody begins with one.
    pub proxy_protocol: Option<Vec<Cidr>>,
}

/// What a listener does with its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Serves HTTP, by the gateway's rules.
    Http(HttpSpec),
    /// Passes TLS connections on as they are, by the name that the client asks for; the first that matches wins. A client
    /// that matches none, or asks for none, is refused.
    Passthrough(Vec<SniRoute>),
    /// Passes the bytes of every connection on to a service.
    Tcp {
        /// The service.
        to: ServiceId,
        /// TLS ends here; `None`: the bytes pass as they are.
        tls: Option<TerminationSpec>,
    },
}

/// HTTP at a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSpec {
    /// The hosts that are served here; empty: all.
    pub hosts: Vec<HostMatch>,
    /// TLS ends here; `None`: plain HTTP.
    pub tls: Option<TerminationSpec>,
    /// Every request is answered with the same URL over HTTPS at this port.
    pub redirect: Option<u16>,
    /// So many proxies in front are trusted: what they appended to `X-Forwarded-For` is kept. Default 0: what a client says
    /// of itself is replaced.
    pub forwarded_hops: u8,
}

/// Where TLS ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminationSpec {
    /// Chosen by the name that the client asks for, exact names before wildcards; the first one for those that ask for
    /// none, or for another. Never empty.
    pub certificates: Vec<CertificateFiles>,
    /// What clients have to prove themselves with; `None`: they are not asked.
    pub clients: Option<ClientCertificates>,
    /// The oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
}

/// PEM files on the machine of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: String,
    /// The leaf's key.
    pub key: String,
}

/// Whom a listener believes who its clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities' certificates, a PEM file.
    pub authorities: String,
    /// A client without a certificate is refused; else only one with a bad one is.
    pub required: bool,
    /// The verified certificate is described to the service in `X-Forwarded-Client-Cert`.
    pub forward: bool,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    V12,
    /// 1.3.
    V13,
}

/// Where a TLS connection is passed on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniRoute {
    /// One of these names; never empty.
    pub names: Vec<HostMatch>,
    /// The service.
    pub to: ServiceId,
}

impl GatewaySpec {
    /// The listener with this name.
    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerSpec>> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}

impl ListenerSpec {
    /// A listener of plain HTTP for every host: what a gateway is that says no more than where it listens.
    pub fn http(name: &str, listen: SocketAddr) -> Self {
        Self { name: name.into(), listen, serve: Serve::Http(HttpSpec::default()), proxy_protocol: None }
    }

    /// How TLS ends here, if it does.
    pub const fn termination(&self) -> Option<&TerminationSpec> {
        match &self.serve {
            Serve::Http(HttpSpec { tls, .. }) | Serve::Tcp { tls, .. } => tls.as_ref(),
            Serve::Passthrough(_) => None,
        }
    }

    /// The services that it leads to without a rule.
    pub fn services(&self) -> impl Iterator<Item = &ServiceId> {
        let (routes, to): (&[SniRoute], Option<&ServiceId>) = match &self.serve {
            Serve::Http(_) => (&[], None),
            Serve::Passthrough(routes) => (routes, None),
            Serve::Tcp { to, .. } => (&[], Some(to)),
        };
        routes.iter().map(|route| &route.to).chain(to)
    }
}

impl HostMatch {
    /// True when `host` (lower case, no port) matches. A wildcard stands for one or more labels.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}
