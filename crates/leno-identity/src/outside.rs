//! TLS with servers that are no Leno: rustls configurations that believe what an operator says they may believe, and the
//! check behind them.
//!
//! All that is asked must hold: the chain leads to one of the roots (if there are any to lead to), a pinned key is in it
//! (if there are pins), the certificate has one of the names, and the SPIFFE id (if there is one). A pin without roots
//! stands alone: then the pinned certificate is the authority, or the server itself.
//!
//! Beside TLS 1.3 these speak TLS 1.2, because the world outside still does; tickets are not used, so that every
//! connection shows its certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::authority::Pin;
use crate::credential::{CERTIFICATES_MAX, Credential};
use crate::tls::{Clock, TlsError};
use crate::verify::Refusal;

/// What a server has to show, and what it is shown.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// The authorities that are believed; `None`: only what is pinned.
    pub roots: Option<Arc<RootCertStore>>,
    /// Digests of public keys, one of which must be in the chain.
    pub keys: Vec<[u8; 32]>,
    /// Certificates whose keys are as good as `keys`.
    pub pinned: Vec<CertificateDer<'static>>,
    /// The certificate must have one of these names. Empty: the one that is asked for, or none with a SPIFFE id.
    pub names: Vec<ServerName<'static>>,
    /// The certificate must have this URI.
    pub spiffe: Option<Arc<str>>,
    /// What is presented to a server that asks.
    pub identity: Option<ClientKey>,
}

/// A chain and its key, for servers that want to know who calls.
#[derive(Clone, Debug)]
pub struct ClientKey(Arc<CertifiedKey>);

impl ClientKey {
    /// The chain (leaf first) and the leaf's key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map(|key| Self(Arc::new(key)))
    }

    /// What this process proves itself with in the mesh.
    pub fn of(credential: &Credential) -> Self {
        Self(credential.certified.clone())
    }
}

/// The roots that the mesh's own certificates lead to.
pub fn mesh_roots(credential: &Credential) -> Arc<RootCertStore> {
    credential.trusted.clone()
}

/// For connections to a server that fulfils `demands`; `alpn` most wanted first.
pub fn client_config(demands: Demands, alpn: &[&[u8]], clock: &Clock) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = demands.identity.clone();
    let verifier = Outside { demands, algorithms: provider.signature_verification_algorithms };
    let config = ClientConfig::builder_with_details(provider, clock.provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::from)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(ClientKey(key)) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Outside {
    demands: Demands,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Outside {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let chain = Chain { leaf, parsed: &parsed, intermediates, now, algorithms: self.algorithms };
        let Demands { roots, keys, pinned, names, spiffe, .. } = &self.demands;
        if let Some(roots) = roots {
            chain.leads_to(roots)?;
        }
        if !keys.is_empty() || !pinned.is_empty() {
            chain.has_one_of(keys, pinned, roots.as_deref())?;
        } else if roots.is_none() {
            // Nothing is believed: a configuration that nobody should have been able to make.
            return Err(CertificateError::UnknownIssuer.into());
        }
        if let Some(expected) = spiffe {
            has_uri(leaf, expected)?;
        }
        match names.as_slice() {
            [] if spiffe.is_some() => {}
            [] => verify_server_name(&parsed, server_name)?,
            names => {
                let mut last = Ok(());
                let has = |name: &ServerName<'_>| {
                    last = verify_server_name(&parsed, name);
                    last.is_ok()
                };
                if !names.iter().any(has) {
                    last?;
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
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

/// What a server presented.
struct Chain<'a> {
    leaf: &'a CertificateDer<'a>,
    parsed: &'a ParsedCertificate<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Chain<'_> {
    fn leads_to(&self, roots: &RootCertStore) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            self.parsed,
            roots,
            self.intermediates,
            self.now,
            self.algorithms.all,
        )
    }

    /// True to the pins: the leaf has a pinned key, or leads to a certificate that has one. Only that a certificate was
    /// sent along says nothing: anybody can send any.
    fn has_one_of(
        &self,
        keys: &[[u8; 32]],
        pinned: &[CertificateDer<'static>],
        roots: Option<&RootCertStore>,
    ) -> Result<(), Error> {
        let wanted = |key: &[u8; 32]| {
            keys.contains(key) || pinned.iter().any(|pinned| key_of(pinned).as_ref() == Some(key))
        };
        if key_of(self.leaf).is_some_and(|key| wanted(&key)) {
            // Without roots nothing else has looked at its dates.
            return if roots.is_some() { Ok(()) } else { self.is_timely() };
        }
        let mut authorities = RootCertStore::empty();
        let sent = self.intermediates.iter().take(CERTIFICATES_MAX);
        for certificate in sent.filter(|sent| key_of(sent).is_some_and(|key| wanted(&key))).chain(pinned) {
            // A pinned certificate that is no authority's can only be the leaf itself.
            let _ = authorities.add(certificate.clone().into_owned());
        }
        let trusted = roots.into_iter().flat_map(|roots| &roots.roots);
        let known = trusted.filter(|anchor| wanted(&key_in(&anchor.subject_public_key_info)));
        authorities.extend(known.cloned());
        if authorities.is_empty() || self.leads_to(&authorities).is_err() {
            return Err(Refusal::WrongKey.into());
        }
        Ok(())
    }

    fn is_timely(&self) -> Result<(), Error> {
        let unreadable = || Error::from(CertificateError::BadEncoding);
        let (_, parsed) = X509Certificate::from_der(self.leaf).map_err(|_| unreadable())?;
        let at = |seconds: i64| {
            UnixTime::since_unix_epoch(core::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        };
        let not_before = at(parsed.validity().not_before.timestamp());
        let not_after = at(parsed.validity().not_after.timestamp());
        let time = self.now;
        if time.as_secs() < not_before.as_secs() {
            return Err(CertificateError::NotValidYetContext { time, not_before }.into());
        }
        if time.as_secs() > not_after.as_secs() {
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        Ok(())
    }
}

/// The digest of a certificate's public key.
fn key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Pin::of(parsed.public_key().raw).bytes())
}

/// The digest of a trust anchor's public key, of which the anchor has what is inside the outermost sequence.
fn key_in(inside: &[u8]) -> [u8; 32] {
    let length = inside.len();
    let mut whole = Vec::with_capacity(length + 4);
    whole.push(0x30);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => whole.push(short),
        Ok(one) => whole.extend([0x81, one]),
        // A key of more than 64 KiB is none that anybody pins.
        Err(_) => {
            whole.push(0x82);
            whole.extend((length as u16).to_be_bytes());
        }
    }
    whole.extend_from_slice(inside);
    Pin::of(&whole).bytes()
}

/// True when one of the certificate's URIs is `expected`.
fn has_uri(leaf: &CertificateDer<'_>, expected: &Arc<str>) -> Result<(), Error> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let names = parsed.subject_alternative_name().map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let mut found = String::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::URI(uri) = name {
            if **uri == **expected {
                return Ok(());
            }
            found = crate::svid::shown(uri);
        }
    }
    Err(Refusal::WrongUri { expected: expected.to_string(), found }.into())
}
