//! Why a handshake failed, in words that an operator can act on, and in a bounded set of labels for counting.
//!
//! The side that refuses knows the whole reason. The other side gets one TLS alert, which says less; [`PeerSays`] is
//! what it can mean between two Lenos. In TLS 1.3 the client finishes before the server has looked at its certificate,
//! so a client learns of its refusal from its first read.

use core::fmt;
use core::time::Duration;
use std::io;

use leno_core::name::TrustDomain;
use leno_core::peer::SpiffeId;
use rustls::{AlertDescription, CertificateError, Error};

use crate::svid::{NotSpiffe, shown};
use crate::verify::Refusal;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer presented no certificate.
    NoCertificate,
    /// The peer's certificate comes from an authority that this side does not trust.
    UnknownAuthority,
    /// The peer's certificate ended so long ago (`None`: unknown).
    Expired(Option<Duration>),
    /// The peer's certificate begins only in so long (`None`: unknown); one of the two clocks is wrong.
    NotYetValid(Option<Duration>),
    /// The peer is another service than the one that was to be reached.
    WrongId {
        /// Who was to be reached.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// The peer belongs to another mesh that has the same root.
    WrongTrustDomain {
        /// This mesh.
        expected: TrustDomain,
        /// Who the peer is.
        found: SpiffeId,
    },
    /// The peer has the right root but is not the control plane.
    NotControl(SpiffeId),
    /// No certificate that the peer presented has the pin from the token.
    WrongPin,
    /// None of the pinned keys is in the chain of a server outside the mesh.
    WrongKey,
    /// A server outside the mesh has another name.
    WrongName {
        /// The name that it was to have; the last one tried of several.
        expected: String,
        /// The names in its certificate.
        found: Vec<String>,
    },
    /// A server outside the mesh has another SPIFFE id.
    WrongUri {
        /// The one that it was to have.
        expected: String,
        /// One that it has; empty: none.
        found: String,
    },
    /// The peer's certificate is no SPIFFE identity.
    NotSpiffe(NotSpiffe),
    /// The peer's certificate is for another purpose than this side of a connection.
    WrongPurpose,
    /// The peer's certificate, or its proof of holding the key, is broken in another way.
    BadCertificate(String),
    /// The peer refused this side.
    RefusedByPeer(PeerSays),
    /// The peer does not speak TLS.
    NotTls,
    /// The peer speaks TLS, but not version 1.3 with our ciphers; the library's words.
    NoCommonVersion(String),
    /// The peer wants to speak something else over TLS than this side (ALPN).
    NoCommonProtocol,
    /// Anything else that rustls says.
    Protocol(String),
}

/// So many names of a certificate are shown.
const NAMES_SHOWN_MAX: usize = 5;

/// What the peer's alert means between two Lenos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSays {
    /// `certificate_required`: it wants a certificate and got none.
    WantsCertificate,
    /// `unknown_ca`: it does not trust the authority of our certificate.
    UnknownAuthority,
    /// `certificate_expired`: by its clock our certificate has expired or is not yet valid.
    NotValidNow,
    /// `certificate_unknown`: our certificate is good but names somebody whom it did not expect.
    WrongIdentity,
    /// `unsupported_certificate`: our certificate is for another purpose.
    WrongPurpose,
    /// `bad_certificate`, `decrypt_error`, `certificate_revoked`: our certificate is broken.
    BadCertificate,
    /// `no_application_protocol`: it does not speak what we offered.
    NoCommonProtocol,
    /// `protocol_version`, `handshake_failure`: it does not speak TLS 1.3 with our ciphers.
    NoCommonVersion,
    /// Any other alert, by its number (RFC 8446 §6).
    Other(u8),
}

/// What `error` means, whichever side it happened on.
pub fn explain(error: &Error) -> Reason {
    match error {
        Error::NoCertificatesPresented => Reason::NoCertificate,
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(alert) => Reason::RefusedByPeer(explain_alert(*alert)),
        Error::InvalidMessage(_) => Reason::NotTls,
        Error::PeerIncompatible(why) => Reason::NoCommonVersion(format!("{why:?}")),
        Error::NoApplicationProtocol => Reason::NoCommonProtocol,
        other => Reason::Protocol(other.to_string()),
    }
}

/// The same for an I/O error that carries a rustls error, as tokio-rustls gives it; `None` when it carries none (the
/// connection was reset, for example).
pub fn explain_io(error: &io::Error) -> Option<Reason> {
    error.get_ref()?.downcast_ref::<Error>().map(explain)
}

fn explain_certificate(error: &CertificateError) -> Reason {
    let between = |later: &rustls::pki_types::UnixTime, earlier: &rustls::pki_types::UnixTime| {
        Some(Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs())))
    };
    match error {
        CertificateError::UnknownIssuer => Reason::UnknownAuthority,
        CertificateError::Expired => Reason::Expired(None),
        CertificateError::ExpiredContext { time, not_after } => Reason::Expired(between(time, not_after)),
        CertificateError::NotValidYet => Reason::NotYetValid(None),
        CertificateError::NotValidYetContext { time, not_before } => {
            Reason::NotYetValid(between(not_before, time))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Reason::WrongPurpose
        }
        CertificateError::NotValidForName => Reason::WrongName { expected: String::new(), found: Vec::new() },
        CertificateError::NotValidForNameContext { expected, presented } => Reason::WrongName {
            expected: expected.to_str().into_owned(),
            found: presented.iter().take(NAMES_SHOWN_MAX).map(|name| shown(name)).collect(),
        },
        CertificateError::Other(other) => match other.0.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.clone().into(),
            None => Reason::BadCertificate(other.to_string()),
        },
        other => Reason::BadCertificate(other.to_string()),
    }
}

fn explain_alert(alert: AlertDescription) -> PeerSays {
    match alert {
        AlertDescription::CertificateRequired => PeerSays::WantsCertificate,
        AlertDescription::UnknownCA => PeerSays::UnknownAuthority,
        AlertDescription::CertificateExpired => PeerSays::NotValidNow,
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => PeerSays::WrongIdentity,
        AlertDescription::UnsupportedCertificate => PeerSays::WrongPurpose,
        AlertDescription::BadCertificate
        | AlertDescription::DecryptError
        | AlertDescription::CertificateRevoked => PeerSays::BadCertificate,
        AlertDescription::NoApplicationProtocol => PeerSays::NoCommonProtocol,
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => PeerSays::NoCommonVersion,
        other => PeerSays::Other(other.into()),
    }
}

impl Reason {
    /// A short name out of a fixed set, for metrics and structured logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::WrongId { .. } => "wrong_id",
            Self::WrongTrustDomain { .. } => "wrong_trust_domain",
            Self::NotControl(_) => "not_control_plane",
            Self::WrongPin => "wrong_pin",
            Self::WrongKey => "wrong_key",
            Self::WrongName { .. } => "wrong_name",
            Self::WrongUri { .. } => "wrong_spiffe_id",
            Self::NotSpiffe(_) => "not_spiffe",
            Self::WrongPurpose => "wrong_purpose",
            Self::BadCertificate(_) => "bad_certificate",
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::NotTls => "not_tls",
            Self::NoCommonVersion(_) => "no_common_version",
            Self::NoCommonProtocol => "no_common_protocol",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WrongId { expected, found } => Self::WrongId { expected, found },
            Refusal::WrongTrustDomain { expected, found } => Self::WrongTrustDomain { expected, found },
            Refusal::NotControl(found) => Self::NotControl(found),
            Refusal::NotSpiffe(why) => Self::NotSpiffe(why),
            Refusal::WrongPin => Self::WrongPin,
            Refusal::WrongKey => Self::WrongKey,
            Refusal::WrongUri { expected, found } => Self::WrongUri { expected, found },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the peer presented no certificate"),
            Self::UnknownAuthority => {
                f.write_str("the peer's certificate comes from an authority that is not trusted here")
            }
            Self::Expired(None) => f.write_str("the peer's certificate has expired"),
            Self::Expired(Some(ago)) => write!(f, "the peer's certificate expired {} s ago", ago.as_secs()),
            Self::NotYetValid(None) => f.write_str("the peer's certificate is not yet valid"),
            Self::NotYetValid(Some(until)) => {
                write!(f, "the peer's certificate is valid only in {} s; compare the clocks", until.as_secs())
            }
            Self::WrongId { expected, found } => write!(f, "the peer is {found}, expected {expected}"),
            Self::WrongTrustDomain { expected, found } => {
                write!(f, "the peer is {found}, which does not belong to {expected}")
            }
            Self::NotControl(found) => write!(f, "the peer is {found}, not the control plane"),
            Self::WrongPin => f.write_str("the peer's authority is not the one that the join token names"),
            Self::WrongKey => f.write_str("none of the pinned keys is in the server's chain"),
            Self::WrongName { expected, found } if found.is_empty() => {
                write!(f, "the server's certificate is not for {expected:?}")
            }
            Self::WrongName { expected, found } => {
                write!(f, "the server's certificate is not for {expected:?} but for {}", found.join(", "))
            }
            Self::WrongUri { expected, found } if found.is_empty() => {
                write!(f, "the server's certificate has no SPIFFE id; expected {expected}")
            }
            Self::WrongUri { expected, found } => {
                write!(f, "the server is {found}, expected {expected}")
            }
            Self::NotSpiffe(why) => write!(f, "the peer's certificate identifies no service: {why}"),
            Self::WrongPurpose => f.write_str("the peer's certificate is for another purpose"),
            Self::BadCertificate(why) => write!(f, "the peer's certificate is bad: {why}"),
            Self::RefusedByPeer(says) => write!(f, "refused by the peer: {says}"),
            Self::NotTls => f.write_str("the peer does not speak TLS"),
            Self::NoCommonVersion(why) => {
                write!(f, "the peer does not speak TLS 1.3 with our ciphers ({why})")
            }
            Self::NoCommonProtocol => f.write_str("the peer wants to speak another protocol over TLS"),
            Self::Protocol(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for PeerSays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WantsCertificate => f.write_str("it wants a certificate and got none"),
            Self::UnknownAuthority => f.write_str("it does not trust the authority of our certificate"),
            Self::NotValidNow => f.write_str("by its clock our certificate has expired or is not yet valid"),
            Self::WrongIdentity => f.write_str("our certificate names somebody whom it did not expect"),
            Self::WrongPurpose => f.write_str("our certificate is for another purpose"),
            Self::BadCertificate => f.write_str("our certificate is broken"),
            Self::NoCommonProtocol => f.write_str("it does not speak the protocol that was offered"),
            Self::NoCommonVersion => f.write_str("it does not speak TLS 1.3 with our ciphers"),
            Self::Other(alert) => write!(f, "TLS alert {alert}"),
        }
    }
}

impl core::error::Error for Reason {}
