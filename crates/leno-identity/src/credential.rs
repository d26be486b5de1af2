//! What a process proves itself with: a private key, the chain issued for it, and the roots that it trusts.
//!
//! A credential is immutable and complete; renewing makes a new one with a new key. It can only be built from parts
//! that fit together, so whoever holds one need not check it again (except that it ends).

use core::fmt;
use std::sync::Arc;

use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::authority::{AuthorityError, IssueError};
use crate::reason::Reason;
use crate::svid::{Facts, NotSpiffe};
use crate::{reason, tls, verify};

/// A fresh private key and the request that asks for its certificate. The key has no accessor: it goes from here into
/// a [`Credential`] and nowhere else.
pub struct KeyAndCsr {
    /// ECDSA P-256.
    key: KeyPair,
    /// PKCS #10, signed with the key.
    csr_der: Vec<u8>,
}

/// An identity in use.
pub struct Credential {
    /// Whose it is.
    pub id: SpiffeId,
    /// Not valid before.
    pub not_before: UnixTime,
    /// Not valid after.
    pub not_after: UnixTime,
    /// The roots as they were given, for whoever passes them on.
    roots: Vec<CertificateDer<'static>>,
    /// The same roots, ready for verifying.
    pub(crate) trusted: Arc<RootCertStore>,
    /// Chain (leaf first, no root) and key, ready for signing.
    pub(crate) certified: Arc<CertifiedKey>,
}

/// More certificates than any chain or set of roots of ours has; a longer list is a mistake or an attack.
pub const CERTIFICATES_MAX: usize = 16;

impl KeyAndCsr {
    /// A new ECDSA P-256 key. The request names nothing: the authority knows who asks.
    pub fn generate() -> Result<Self, CredentialError> {
        let failed = |error: rcgen::Error| CredentialError::Crypto(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_der = params.serialize_request(&key).map_err(failed)?.der().to_vec();
        Ok(Self { key, csr_der })
    }

    /// What is sent to the authority (PKCS #10, DER).
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Joins the key with what the authority answered: `chain` leaf first, `roots` to trust from now on, and the `id`
    /// that the applicant expects to be.
    pub fn accept(
        self,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        id: &SpiffeId,
        now: UnixTime,
    ) -> Result<Credential, CredentialError> {
        let credential = Credential::new(chain, self.key.into(), roots, now)?;
        if credential.id != *id {
            return Err(CredentialError::WrongId { expected: id.clone(), found: credential.id });
        }
        Ok(credential)
    }
}

impl Credential {
    /// Puts the parts together, checking that the leaf is a SPIFFE identity, that it leads to one of the roots, that
    /// it is valid `now`, and that the key is the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
        now: UnixTime,
    ) -> Result<Self, CredentialError> {
        if chain.len() > CERTIFICATES_MAX || roots.len() > CERTIFICATES_MAX {
            return Err(CredentialError::TooMany);
        }
        let leaf = chain.first().ok_or(CredentialError::NotSpiffe(NotSpiffe::Absent))?;
        let facts = Facts::read(leaf).map_err(CredentialError::NotSpiffe)?;
        let trusted = trusted(&roots)?;
        verify::leads_to_root(&chain, &trusted, now)
            .map_err(|error| CredentialError::Chain(reason::explain(&error)))?;
        let certified =
            CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CredentialError::KeyMismatch,
                other => CredentialError::Key(other.to_string()),
            })?;
        Ok(Self {
            id: facts.id,
            not_before: facts.not_before,
            not_after: facts.not_after,
            roots,
            trusted: Arc::new(trusted),
            certified: Arc::new(certified),
        })
    }

    /// The certificates that it presents, its own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The roots that it trusts.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// True while it may be presented.
    pub fn is_valid(&self, now: UnixTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

fn trusted(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, CredentialError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| CredentialError::Root(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(CredentialError::Root("there is none".into()));
    }
    Ok(store)
}

/// Why the parts are no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// The certificate is not a SPIFFE identity.
    NotSpiffe(NotSpiffe),
    /// The certificate names somebody else.
    WrongId {
        /// Who the applicant is.
        expected: SpiffeId,
        /// Who the certificate names.
        found: SpiffeId,
    },
    /// The chain does not lead to the roots, or not now.
    Chain(Reason),
    /// The private key is not the certificate's.
    KeyMismatch,
    /// The private key cannot be used; the library's reason.
    Key(String),
    /// A root cannot be used, or there is none.
    Root(String),
    /// More than [`CERTIFICATES_MAX`] certificates.
    TooMany,
    /// Asking one's own authority failed.
    Issue(IssueError),
    /// Making a key failed; a fault of the machine or of Leno.
    Crypto(String),
}

impl From<AuthorityError> for CredentialError {
    fn from(error: AuthorityError) -> Self {
        Self::Issue(IssueError::Authority(error))
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSpiffe(why) => write!(f, "the certificate identifies nobody: {why}"),
            Self::WrongId { expected, found } => {
                write!(f, "the certificate is for {found}, not for {expected}")
            }
            Self::Chain(why) => write!(f, "the certificate cannot be used: {why}"),
            Self::KeyMismatch => f.write_str("the private key does not belong to the certificate"),
            Self::Key(why) => write!(f, "the private key cannot be used: {why}"),
            Self::Root(why) => write!(f, "the trusted roots cannot be used: {why}"),
            Self::TooMany => write!(f, "more than {CERTIFICATES_MAX} certificates"),
            Self::Issue(error) => error.fmt(f),
            Self::Crypto(why) => write!(f, "making a key failed: {why}"),
        }
    }
}

impl core::error::Error for CredentialError {}

/// Never the key.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Never the key.
impl fmt::Debug for KeyAndCsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyAndCsr").finish_non_exhaustive()
    }
}
