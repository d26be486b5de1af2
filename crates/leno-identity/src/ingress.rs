//! TLS that ends at a gateway, for clients from anywhere: certificates from files that the operator named, chosen by the
//! name that a client asks for, and clients that prove themselves to an authority of the operator's.
//!
//! Nothing here is about the mesh: no SPIFFE id is looked for, and a client's certificate makes nobody a peer. Sessions may
//! be resumed, except where clients have certificates: there each connection is verified.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use leno_core::gateway::certificate_for;
use leno_core::spec::{CertificateFiles, ClientCertificates, HostMatch, TerminationSpec, TlsVersion};
use leno_core::time::UnixTime;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::files::{self, FileError};
use crate::svid::unix;

/// Most authorities that clients may come from.
const AUTHORITIES_MAX: usize = 1000;
/// The longest description of a client's certificate, in bytes: a header's value that servers accept.
const DESCRIPTION_BYTES_MAX: usize = 4096;

/// What a listener speaks TLS with: made from files once, replaced whole when they change.
#[derive(Debug)]
pub struct Termination {
    /// For each connection.
    pub config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    /// What an operator should know of files that can be used all the same.
    pub warnings: Vec<String>,
}

/// Why files cannot be used.
#[derive(Debug)]
pub enum IngressError {
    /// A file cannot be read, or has not what it should have.
    File(FileError),
    /// A certificate and a key that do not fit together, or that rustls cannot use.
    Pair(CertificateFiles, String),
    /// The authorities of clients cannot be used.
    Authorities(String, String),
    /// rustls refused the whole.
    Tls(String),
}

impl Termination {
    /// Reads the files of `spec`. With `hosts` a client that asks for a name beyond them is refused in its handshake.
    /// `alpn` is what is offered, most wanted first.
    ///
    /// # Errors
    /// Says which file, and what is wrong with it.
    pub fn read(
        spec: &TerminationSpec,
        hosts: &[HostMatch],
        alpn: &[&[u8]],
        now: UnixTime,
    ) -> Result<Self, IngressError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut warnings = Vec::new();
        let (mut keys, mut names) = (Vec::new(), Vec::new());
        for files in &spec.certificates {
            let (key, of) = certificate(files, &provider, now, &mut warnings)?;
            keys.push(Arc::new(key));
            names.push(of);
        }
        let resolver = Arc::new(Resolver { keys, names, hosts: hosts.into() });
        let versions: &[&rustls::SupportedProtocolVersion] = match spec.min_version {
            TlsVersion::V12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V13 => &[&rustls::version::TLS13],
        };
        let refused = |error: rustls::Error| IngressError::Tls(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(refused)?;
        let builder = match &spec.clients {
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, &provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        if spec.clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Ticketer::new().map_err(refused)?;
        }
        Ok(Self { config: Arc::new(config), resolver, warnings })
    }

    /// The names of the certificate that a client is given that asks for `name`.
    pub fn names(&self, name: Option<&str>) -> Arc<[HostMatch]> {
        self.resolver.names.get(self.resolver.choose(name)).cloned().unwrap_or_default()
    }
}

/// Chooses among certificates.
#[derive(Debug)]
struct Resolver {
    keys: Vec<Arc<CertifiedKey>>,
    /// Of each.
    names: Vec<Arc<[HostMatch]>>,
    /// Names that may be asked for; empty: any.
    hosts: Vec<HostMatch>,
}

impl Resolver {
    /// The first one is for who asks for no name, or for a name that none has.
    fn choose(&self, name: Option<&str>) -> usize {
        name.and_then(|name| certificate_for(&self.names, name)).unwrap_or(0)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let known = |name: &str| self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(name));
        if name.as_deref().is_some_and(|name| !known(name)) {
            return None;
        }
        self.keys.get(self.choose(name.as_deref())).cloned()
    }
}

/// The certificate of a pair of files, and the names it is for.
fn certificate(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    now: UnixTime,
    warnings: &mut Vec<String>,
) -> Result<(CertifiedKey, Arc<[HostMatch]>), IngressError> {
    let chain = files::certificates(Path::new(&files.cert)).map_err(IngressError::File)?;
    let key = files::private_key(Path::new(&files.key)).map_err(IngressError::File)?;
    let pair = |problem: String| IngressError::Pair(files.clone(), problem);
    let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => pair("the key is not the one of the certificate".into()),
        error => pair(error.to_string()),
    })?;
    let (_, parsed) =
        X509Certificate::from_der(&leaf).map_err(|_| pair("the certificate is not readable".into()))?;
    let end = unix(parsed.validity().not_after.timestamp());
    if end <= now {
        warnings.push(format!("the certificate in {} has expired", files.cert));
    } else if unix(parsed.validity().not_before.timestamp()) > now {
        warnings.push(format!("the certificate in {} is not valid yet", files.cert));
    }
    let names = names(&parsed);
    if names.is_empty() {
        warnings
            .push(format!("the certificate in {} is for no host name: clients will refuse it", files.cert));
    }
    Ok((key, names))
}

/// The hosts that a certificate is for: the DNS names and addresses among its alternative names. The common name has not
/// counted for years (RFC 9525 §2).
fn names(certificate: &X509Certificate<'_>) -> Arc<[HostMatch]> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Arc::default() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => {
            let name = name.to_ascii_lowercase();
            Some(match name.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') => HostMatch::Suffix(suffix.into()),
                _ => HostMatch::Exact(name.into()),
            })
        }
        GeneralName::IPAddress(bytes) => Some(HostMatch::Exact(ip(bytes)?.into())),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn ip(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|ip| core::net::Ipv4Addr::from(ip).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|ip| format!("[{}]", core::net::Ipv6Addr::from(ip))),
        _ => None,
    }
}

fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, IngressError> {
    let authorities = files::certificates_up_to(Path::new(&clients.authorities), AUTHORITIES_MAX)
        .map_err(IngressError::File)?;
    let unusable = |problem: String| IngressError::Authorities(clients.authorities.clone(), problem);
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| unusable(error.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(|verifier| verifier as _).map_err(|error| unusable(error.to_string()))
}

/// What `X-Forwarded-Client-Cert` says of a client's verified certificate, in the form that Envoy made common: the SHA-256 of
/// the certificate, its subject, and its URIs and DNS names. Only what cannot change the meaning of the header is written:
/// the authority has vouched for the names, not for how they read in a header.
pub fn describe_client(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digest = aws_lc_rs_digest(certificate);
    let mut text = String::from("Hash=");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push_str(";Subject=\"");
    push_quoted(&mut text, &parsed.subject().to_string());
    text.push('"');
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            let (key, value) = match name {
                GeneralName::URI(uri) => ("URI", *uri),
                GeneralName::DNSName(name) => ("DNS", *name),
                _ => continue,
            };
            // In these there is nothing to escape: what is not plain is left out.
            let plain =
                |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'=' | b'"' | b'\\');
            if value.bytes().all(plain) && text.len() + value.len() < DESCRIPTION_BYTES_MAX {
                text.push_str(&format!(";{key}={value}"));
            }
        }
    }
    Some(text)
}

fn aws_lc_rs_digest(bytes: &[u8]) -> Vec<u8> {
    ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

/// Appends text for between two quotes of a header: printable ASCII only, quotes and backslashes escaped.
fn push_quoted(out: &mut String, text: &str) {
    for c in text.chars().take(DESCRIPTION_BYTES_MAX / 4) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
}

impl fmt::Display for IngressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Pair(files, problem) => write!(f, "{} and {}: {problem}", files.cert, files.key),
            Self::Authorities(file, problem) => write!(f, "{file}: {problem}"),
            Self::Tls(problem) => write!(f, "a TLS configuration cannot be made: {problem}"),
        }
    }
}

impl core::error::Error for IngressError {}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::fs;
    use std::path::PathBuf;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn issue(folder: &Path, file: &str, names: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let certificate = certificate.unwrap().self_signed(&key).unwrap();
        let path = |end: &str| -> PathBuf { folder.join(format!("{file}.{end}")) };
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        CertificateFiles { cert: text(path("pem")), key: text(path("key")) }
    }

    fn spec(certificates: Vec<CertificateFiles>) -> TerminationSpec {
        TerminationSpec { certificates, clients: None, min_version: TlsVersion::V12 }
    }

    #[test]
    fn names_come_from_the_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![
            issue(folder.path(), "a", &["A.example", "127.0.0.1"]),
            issue(folder.path(), "b", &["*.example", "example"]),
        ];
        let made = Termination::read(&spec(files), &[], &[b"http/1.1"], NOW).unwrap();
        let exact = |name: &str| HostMatch::Exact(name.into());
        assert_eq!(*made.names(None), [exact("a.example"), exact("127.0.0.1")]);
        assert_eq!(*made.names(Some("b.example")), [HostMatch::Suffix(".example".into()), exact("example")]);
        assert_eq!(made.names(Some("a.example")), made.names(None));
        assert_eq!(made.names(Some("elsewhere")), made.names(None));
        assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (issue(folder.path(), "a", &["a.example"]), issue(folder.path(), "b", &["b.example"]));
        let fails = |cert: &str, key: &str| {
            let files = CertificateFiles { cert: cert.into(), key: key.into() };
            Termination::read(&spec(vec![files]), &[], &[], NOW).unwrap_err().to_string()
        };
        let mixed = fails(&a.cert, &b.key);
        assert!(
            mixed.contains("a.pem") && mixed.contains("b.key") && mixed.contains("not the one"),
            "{mixed}"
        );
        assert!(fails(&a.key, &a.key).contains("a.key"), "{}", fails(&a.key, &a.key));
        assert!(fails(&a.cert, &a.cert).contains("private key"), "{}", fails(&a.cert, &a.cert));
        assert!(fails("/nowhere/x.pem", &a.key).contains("/nowhere/x.pem"));
        let clients = ClientCertificates { authorities: a.key.clone(), required: true, forward: false };
        let wrong = TerminationSpec { clients: Some(clients), ..spec(vec![a]) };
        assert!(Termination::read(&wrong, &[], &[], NOW).unwrap_err().to_string().contains("a.key"));
    }

    #[test]
    fn a_client_is_described_and_cannot_forge() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Eve\";Hash=1\r\n");
        params.subject_alt_names.push(SanType::URI("spiffe://x/ns/a/sa/b".try_into().unwrap()));
        params.subject_alt_names.push(SanType::URI("x;URI=forged".try_into().unwrap()));
        let text = describe_client(params.self_signed(&key).unwrap().der()).unwrap();
        assert!(text.starts_with("Hash=") && text.as_bytes()[69] == b';', "{text}");
        assert!(text.contains("Eve\\\";Hash=1??"), "{text}");
        assert!(text.ends_with(";DNS=shop.example;URI=spiffe://x/ns/a/sa/b"), "{text}");
    }
}
