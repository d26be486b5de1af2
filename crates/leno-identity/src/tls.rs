//! rustls configurations for each kind of connection. All of them: TLS 1.3 only, the aws-lc-rs provider given
//! explicitly (a process-wide default could be changed by any library), and no tickets and no resumption, because a
//! resumed session skips the certificates, and Leno checks the peer's identity, and that it has not expired, on every
//! connection. Connections between proxies are few and long, so a full handshake costs nothing that matters.
//!
//! | connection | client | server |
//! |---|---|---|
//! | proxy to proxy | [`client_config`] | [`server_config`] |
//! | proxy to control plane | [`client_config`] with [`control_id`](crate::authority::control_id) | [`control_server_config`] |
//! | a proxy that has no certificate yet | [`pinned_client_config`] | [`control_server_config`] |

use core::fmt;
use std::sync::Arc;

use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{self, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig};

use crate::authority::Pin;
use crate::credential::Credential;
use crate::verify::{DomainClient, ExpectedServer, PinnedServer};

/// ALPN between proxies: the mesh transport, version 1.
pub const ALPN_MESH: &[u8] = b"leno/1";
/// ALPN to the control plane: gRPC over HTTP/2.
pub const ALPN_CONTROL: &[u8] = b"h2";

/// Where a handshake reads the time that it compares certificates with.
#[derive(Clone, Debug)]
pub struct Clock(Arc<dyn TimeProvider>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(DefaultTimeProvider))
    }

    pub(crate) fn provider(&self) -> Arc<dyn TimeProvider> {
        self.0.clone()
    }

    /// A clock that stands still, for tests and simulations.
    pub fn fixed(now: UnixTime) -> Self {
        Self(Arc::new(Fixed(now)))
    }
}

/// For a connection to exactly `expected`, presenting `credential`.
pub fn client_config(
    credential: &Credential,
    expected: &SpiffeId,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = ExpectedServer {
        roots: credential.trusted.clone(),
        expected: expected.clone(),
        algorithms: provider.signature_verification_algorithms,
    };
    let identity = Arc::new(SingleCertAndKey::from(credential.certified.clone()));
    let config = ClientConfig::builder_with_details(provider, clock.0.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(identity);
    Ok(finish_client(config, alpn))
}

/// For a connection to the control plane of the mesh whose authority has this `pin`, presenting nothing: what a proxy
/// uses once, to trade its join token for a certificate.
pub fn pinned_client_config(pin: Pin, alpn: &[&[u8]], clock: &Clock) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = PinnedServer { pin, algorithms: provider.signature_verification_algorithms };
    let config = ClientConfig::builder_with_details(provider, clock.0.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish_client(config, alpn))
}

/// For connections from any service of the credential's trust domain; a client without a certificate is refused.
pub fn server_config(
    credential: &Credential,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    server(credential, credential.certified.clone(), true, alpn, clock)
}

/// For the control plane: a client without a certificate may connect (to join; whatever else it asks for must be
/// refused above), one with a bad certificate may not. The root is presented too, so that a client can compare its pin.
pub fn control_server_config(
    credential: &Credential,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = credential.chain().iter().chain(credential.roots()).cloned().collect();
    let certified = Arc::new(CertifiedKey::new(chain, credential.certified.key.clone()));
    server(credential, certified, false, alpn, clock)
}

/// What to give rustls as the server's name. Identity is the SPIFFE id in the configuration; this name is neither sent
/// nor checked.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(pki_types::IpAddr::V4(pki_types::Ipv4Addr::from([0, 0, 0, 0])))
}

fn server(
    credential: &Credential,
    identity: Arc<CertifiedKey>,
    mandatory: bool,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let mut chain = WebPkiClientVerifier::builder_with_provider(credential.trusted.clone(), provider.clone());
    if !mandatory {
        chain = chain.allow_unauthenticated();
    }
    let chain = chain.build().map_err(|error| TlsError(rustls::Error::General(error.to_string())))?;
    let verifier = DomainClient { chain, trust_domain: credential.id.trust_domain.clone() };
    let mut config = ServerConfig::builder_with_details(provider, clock.0.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // For `session`, which does the records itself; nothing of them leaves the process.
    config.enable_secret_extraction = true;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config.enable_sni = false;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// aws-lc-rs, with the cipher that is cheapest on every server processor first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

#[derive(Debug)]
struct Fixed(UnixTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<pki_types::UnixTime> {
        Some(pki_types::UnixTime::since_unix_epoch(core::time::Duration::from_secs(self.0.0)))
    }
}

/// rustls refused a configuration; a fault of Leno's, because a [`Credential`] has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsError(rustls::Error);

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a TLS configuration cannot be made: {}", self.0)
    }
}

impl core::error::Error for TlsError {}
