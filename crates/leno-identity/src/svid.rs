//! What a certificate says about its holder: the SPIFFE id in its one URI, and how long it may be believed
//! (X509-SVID §2 to §5).

use core::fmt;

use leno_core::peer::{SpiffeError, SpiffeId};
use leno_core::time::UnixTime;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The SPIFFE id of the peer that presented `chain` (its own certificate first), as rustls gives it after a handshake
/// (`peer_certificates()`). The chain itself was checked by the handshake; this only reads.
pub fn peer_of(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, NotSpiffe> {
    let leaf = chain.first().ok_or(NotSpiffe::Absent)?;
    Facts::read(leaf).map(|facts| facts.id)
}

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is.
    pub id: SpiffeId,
    /// Not to be believed before this time.
    pub not_before: UnixTime,
    /// Not to be believed after this time.
    pub not_after: UnixTime,
}

/// Why a certificate is not a leaf with a SPIFFE id of Leno's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSpiffe {
    /// There is no certificate.
    Absent,
    /// It is not a certificate at all.
    Unreadable,
    /// It may sign other certificates, so it is an authority and nobody's identity (X509-SVID §4).
    Authority,
    /// It has this many URIs instead of exactly one (X509-SVID §2).
    Uris(usize),
    /// Its URI is not `spiffe://DOMAIN/ns/NAMESPACE/sa/SERVICE`.
    Id {
        /// The URI, shortened to [`URI_SHOWN_BYTES_MAX`].
        uri: String,
        /// What is wrong with it.
        error: SpiffeError,
    },
}

/// So much of a wrong URI is kept for the log: a peer chooses it, and it may be long.
pub const URI_SHOWN_BYTES_MAX: usize = 200;

impl Facts {
    /// Reads a leaf certificate; it is not checked against any authority here.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, NotSpiffe> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NotSpiffe::Unreadable)?;
        let usage = parsed.key_usage().map_err(|_| NotSpiffe::Unreadable)?;
        if parsed.is_ca() || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign())
        {
            return Err(NotSpiffe::Authority);
        }
        let uri = only_uri(&parsed)?;
        let id = SpiffeId::parse(uri).map_err(|error| NotSpiffe::Id { uri: shown(uri), error })?;
        Ok(Self {
            id,
            not_before: unix(parsed.validity().not_before.timestamp()),
            not_after: unix(parsed.validity().not_after.timestamp()),
        })
    }
}

/// The one URI among a certificate's subject alternative names.
pub(crate) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, NotSpiffe> {
    let names = certificate.subject_alternative_name().map_err(|_| NotSpiffe::Unreadable)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let first = uris.next().ok_or(NotSpiffe::Uris(0))?;
    match uris.count() {
        0 => Ok(first),
        more => Err(NotSpiffe::Uris(1 + more)),
    }
}

/// Times before 1970 are 1970: nothing of ours is that old, and such a certificate is expired either way.
pub(crate) fn unix(seconds: i64) -> UnixTime {
    UnixTime(u64::try_from(seconds).unwrap_or(0))
}

/// A text that a peer chose, fit for a log.
pub(crate) fn shown(uri: &str) -> String {
    uri.chars().filter(|c| !c.is_control()).take(URI_SHOWN_BYTES_MAX).collect()
}

impl fmt::Display for NotSpiffe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no certificate"),
            Self::Unreadable => f.write_str("it is not a readable X.509 certificate"),
            Self::Authority => f.write_str("it is an authority's certificate, which identifies no service"),
            Self::Uris(0) => f.write_str("it names no SPIFFE id"),
            Self::Uris(count) => write!(f, "it has {count} URIs instead of one"),
            Self::Id { uri, error } => write!(f, "its URI {uri:?} is not an identity of a mesh: {error}"),
        }
    }
}

impl core::error::Error for NotSpiffe {}
