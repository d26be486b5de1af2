//! The rustls verifiers: who may be at the other end of a connection.
//!
//! What rustls-webpki checks (signatures, chain to a root, times, key usage) stays with it; these add the SPIFFE rules.
//! Names and revocation lists play no part: an id is not a host name, and leaves are too short-lived to revoke.

use core::fmt;
use std::sync::Arc;

use leno_core::name::TrustDomain;
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{self, CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::authority::{self, Pin};
use crate::credential::CERTIFICATES_MAX;
use crate::svid::{NotSpiffe, peer_of};
use crate::tls;

/// What the SPIFFE rules have against a certificate that is otherwise fine. Travels inside rustls's error; read it
/// with [`explain`](crate::reason::explain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    WrongId { expected: SpiffeId, found: SpiffeId },
    WrongTrustDomain { expected: TrustDomain, found: SpiffeId },
    NotControl(SpiffeId),
    NotSpiffe(NotSpiffe),
    WrongPin,
    WrongKey,
    WrongUri { expected: String, found: String },
}

/// Checks, outside a handshake, that `chain` (leaf first) leads to one of `roots` at `now` and may serve both ends.
pub(crate) fn leads_to_root(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let now = pki_types::UnixTime::since_unix_epoch(core::time::Duration::from_secs(now.0));
    check_chain(leaf, intermediates, roots, now, tls::provider().signature_verification_algorithms)
}

/// The client's check of a mesh server: exactly the expected service.
#[derive(Debug)]
pub(crate) struct ExpectedServer {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) expected: SpiffeId,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// The joining proxy's check of the control plane: a chain that ends in the root with the pin from the token, and the
/// control plane's own id (any workload has a chain to the same root).
#[derive(Debug)]
pub(crate) struct PinnedServer {
    pub(crate) pin: Pin,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// The server's check of a mesh client: any service of the trust domain.
#[derive(Debug)]
pub(crate) struct DomainClient {
    /// Chain, time and purpose; also says whether a certificate is mandatory.
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) trust_domain: TrustDomain,
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_chain(end_entity, intermediates, &self.roots, now, self.algorithms)?;
        let found = id_of(end_entity)?;
        if found != self.expected {
            return Err(Refusal::WrongId { expected: self.expected.clone(), found }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates
            .iter()
            .take(CERTIFICATES_MAX)
            .find(|certificate| pin_of(certificate) == Some(self.pin))
            .ok_or(Refusal::WrongPin)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        check_chain(end_entity, intermediates, &roots, now, self.algorithms)?;
        let found = id_of(end_entity)?;
        if found.service != authority::control_service() {
            return Err(Refusal::NotControl(found).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for DomainClient {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    /// No hints: a client of the mesh has one certificate, and the names would lengthen every handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let found = id_of(end_entity)?;
        if found.trust_domain != self.trust_domain {
            return Err(Refusal::WrongTrustDomain { expected: self.trust_domain.clone(), found }.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn check_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: pki_types::UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
}

fn id_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Refusal> {
    peer_of(std::slice::from_ref(leaf)).map_err(Refusal::NotSpiffe)
}

fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Pin::of(parsed.public_key().raw))
}

/// The configurations offer TLS 1.3 only, so this is never reached.
fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::reason::Reason::from(self.clone()).fmt(f)
    }
}

impl core::error::Error for Refusal {}
