//! Who is at the other end: SPIFFE ids, as Leno issues and matches them.

use alloc::string::String;
use core::fmt;

use crate::name::{Label, LabelError, ServiceId, TrustDomain};

/// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The mesh that vouches for it.
    pub trust_domain: TrustDomain,
    /// The service it names.
    pub service: ServiceId,
}

/// Why a URI is not a SPIFFE id of Leno's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiffeError {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// The path is not `/ns/NAMESPACE/sa/SERVICE`.
    Path,
    /// The trust domain or one of the names breaks the rules.
    Name(LabelError),
}

impl SpiffeId {
    /// Parses the URI form. Exact: no query, fragment, port, percent-encoding or trailing slash.
    pub fn parse(uri: &str) -> Result<Self, SpiffeError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::Path)?;
        let trust_domain = TrustDomain::parse(domain).map_err(SpiffeError::Name)?;
        let mut parts = path.split('/');
        let (Some("ns"), Some(namespace), Some("sa"), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SpiffeError::Path);
        };
        let namespace = Label::parse(namespace).map_err(SpiffeError::Name)?;
        let name = Label::parse(name).map_err(SpiffeError::Name)?;
        Ok(Self { trust_domain, service: ServiceId::new(namespace, name) })
    }

    /// The URI form, as it stands in a certificate.
    pub fn to_uri(&self) -> String {
        alloc::format!("{self}")
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.service.namespace, self.service.name)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("an identity begins with spiffe://"),
            Self::Path => f.write_str("an identity ends with /ns/NAMESPACE/sa/SERVICE"),
            Self::Name(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SpiffeError {}
