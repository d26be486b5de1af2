//! Why the registry says no.

use std::fmt;
use std::net::SocketAddr;

use leno_core::name::ServiceId;

/// A change that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody declared the service.
    NoSuchService(ServiceId),
    /// Nobody declared the gateway.
    NoSuchGateway(ServiceId),
    /// There is no such instance.
    NoSuchInstance(String),
    /// There is no such token.
    NoSuchToken(String),
    /// The mesh file declares it; there it must be changed.
    DeclaredInFile(ServiceId),
    /// A gateway has the name.
    IsGateway(ServiceId),
    /// Another live one has the name.
    NameTaken {
        /// The name.
        name: String,
        /// Where that one is, if it has an address.
        address: Option<SocketAddr>,
    },
    /// The instance is kept alive by its sidecar; only that can end it.
    HasSidecar(String),
    /// Another stream has attached the same instance since.
    TakenOver,
    /// The lease ended; attach again.
    LeaseEnded,
    /// A limit.
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
}

impl Refusal {
    /// A word for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchService(_) => "service_not_found",
            Self::NoSuchGateway(_) => "gateway_not_found",
            Self::NoSuchInstance(_) => "instance_not_found",
            Self::NoSuchToken(_) => "token_not_found",
            Self::DeclaredInFile(_) => "declared_in_file",
            Self::IsGateway(_) | Self::NameTaken { .. } => "name_taken",
            Self::HasSidecar(_) => "has_sidecar",
            Self::TakenOver => "taken_over",
            Self::LeaseEnded => "lease_ended",
            Self::TooMany { .. } => "too_many",
        }
    }

    /// What to do.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchService(_) => {
                Some("declare it in the mesh file, or with PUT /v1/services/NAMESPACE/NAME")
            }
            Self::NoSuchGateway(_) => Some("declare it in the mesh file"),
            Self::DeclaredInFile(_) => {
                Some("change the mesh file; the control plane reads it again by itself")
            }
            Self::NameTaken { .. } => Some("give each instance its own name"),
            Self::HasSidecar(_) => Some("stop its sidecar; the instance goes with it"),
            Self::IsGateway(_)
            | Self::NoSuchInstance(_)
            | Self::NoSuchToken(_)
            | Self::TakenOver
            | Self::LeaseEnded
            | Self::TooMany { .. } => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchService(id) => write!(f, "no service {id} is declared"),
            Self::NoSuchGateway(id) => write!(f, "no gateway {id} is declared"),
            Self::NoSuchInstance(name) => write!(f, "there is no instance {name}"),
            Self::NoSuchToken(id) => write!(f, "there is no token {id}"),
            Self::DeclaredInFile(id) => write!(f, "{id} is declared in the mesh file"),
            Self::IsGateway(id) => write!(f, "{id} is the name of a gateway"),
            Self::NameTaken { name, address: Some(address) } => {
                write!(f, "the name {name} is taken by a live instance at {address}")
            }
            Self::NameTaken { name, address: None } => write!(f, "the name {name} is taken by a live proxy"),
            Self::HasSidecar(name) => write!(f, "the instance {name} has a sidecar"),
            Self::TakenOver => f.write_str("another stream has attached this instance since"),
            Self::LeaseEnded => f.write_str("the lease ended because no heartbeat came; attach again"),
            Self::TooMany { what, most } => {
                write!(f, "there are {most} {what} already, the most there can be")
            }
        }
    }
}

impl std::error::Error for Refusal {}
