//! Connections over TLS: HTTP/2 agreed on by ALPN.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::files::shared_authority;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::common::anybody::Anybody;

/// The life of a certificate.
const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A connection's bytes.
pub(crate) enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    /// Shakes hands as a client that names no host: an address is no name.
    pub(crate) fn secure(stream: TcpStream, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        Ok(Self::Tls(Box::new(stream)))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A client from outside.
pub(crate) fn stranger() -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A service of the mesh whose authority is kept in a folder, with a sidecar that is no Leno.
pub(crate) fn peer(identity: &Path, trust_domain: &str, service: &str) -> Arc<ClientConfig> {
    let trust_domain = TrustDomain::parse(trust_domain).unwrap();
    let now = UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let authority = shared_authority(identity, &trust_domain, now).unwrap();
    let id = SpiffeId { trust_domain, service: ServiceId::parse(service).unwrap() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let chain = authority.issue(csr.der(), &id, now, DAY).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Writes a certificate that nobody has signed, and its key.
pub(crate) fn self_signed(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["*.example.com".to_owned(), "example.com".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("own.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("own.key"), key.serialize_pem()).unwrap();
}
