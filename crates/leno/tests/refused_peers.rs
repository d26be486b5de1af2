//! Peers that a sidecar must not talk to: each is refused, counted, and explained in the logs of both sides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::anybody::Anybody;
use common::{Running, free_port, leno, until};
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::authority::Authority;
use leno_identity::files::shared_authority;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(10);
/// The life of a certificate.
const DAY: Duration = Duration::from_secs(86_400);

/// A sidecar from a file, with its log in a file.
struct Sidecar {
    _running: Running,
    admin: SocketAddr,
    log: PathBuf,
}

impl Sidecar {
    fn start(folder: &Path, file: &Path, role: &str, identity: &Path) -> Self {
        Self::start_as(folder, file, role, &[("--identity", identity)])
    }

    fn start_as(folder: &Path, file: &Path, role: &str, identity: &[(&str, &Path)]) -> Self {
        let log = folder.join(format!("{role}.log"));
        let mut command = leno();
        command.args(["--log", "debug", "proxy", "--workers", "1", "--admin", "127.0.0.1:0", "--role", role]);
        command.arg("--file").arg(file);
        for (flag, path) in identity {
            command.arg(flag).arg(path);
        }
        let running = Running::start(command.stderr(Stdio::from(File::create(&log).unwrap())));
        let ready = running.event("ready", SOON);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { _running: running, admin, log }
    }

    fn metrics(&self) -> String {
        let mut answer = common::agent().get(format!("http://{}/metrics", self.admin)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// Waits until the log and the metrics both say `reason`.
    fn explains(&self, by: &str, reason: &str, words: &str) {
        let sample = format!("leno_tls_refused_total{{by=\"{by}\",reason=\"{reason}\"}}");
        until(&format!("{sample} and \"{words}\" in the log"), SOON, || {
            self.metrics().contains(&sample) && fs::read_to_string(&self.log).unwrap().contains(words)
        });
    }
}

/// A mesh file with a client and a server, and the address where the server's sidecar is.
fn mesh(folder: &Path) -> (PathBuf, SocketAddr, u16) {
    let [mesh, own, out, app, served] = std::array::from_fn(|_| free_port());
    let file = folder.join("mesh.yaml");
    let text = format!(
        "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
         \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
         \x20 server:\n    health: none\n    instances:\n\
         \x20     - {{name: server, port: {served}, mesh: \"127.0.0.1:{mesh}\"}}\n"
    );
    fs::write(&file, text).unwrap();
    (file, ([127, 0, 0, 1], mesh).into(), out)
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

fn domain() -> TrustDomain {
    TrustDomain::parse("pair.mesh").unwrap()
}

/// A certificate for the service `client`, from `authority`, made at `at`.
fn certificate(
    authority: &Authority,
    at: UnixTime,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let id = SpiffeId { trust_domain: domain(), service: ServiceId::parse("client").unwrap() };
    let chain = authority.issue(csr.der(), &id, at, DAY).unwrap();
    (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Connects with whatever certificate and believes any server; what came back, or why nothing did.
fn knock(
    at: SocketAddr,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Vec<u8>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"leno/1".to_vec()];
    let name = ServerName::try_from("server").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    stream.flush().map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 1024];
    let read = stream.read(&mut buffer).map_err(|error| error.to_string())?;
    buffer.truncate(read);
    Ok(buffer)
}

#[test]
fn a_client_is_refused_unless_its_certificate_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let (file, at, _) = mesh(folder.path());
    let identity = folder.path().join("identity");
    let server = Sidecar::start(folder.path(), &file, "server", &identity);
    let ours = shared_authority(&identity, &domain(), now()).unwrap();
    let theirs = Authority::create(&domain(), now()).unwrap();

    // The right one gets the transport's first frame.
    assert!(!knock(at, Some(certificate(&ours, now()))).unwrap().is_empty());

    let none = knock(at, None).unwrap_err();
    assert!(none.to_lowercase().contains("certificate"), "{none}");
    server.explains("self", "no_certificate", "certificate");

    let foreign = knock(at, Some(certificate(&theirs, now()))).unwrap_err();
    assert!(foreign.contains("UnknownCA") || foreign.contains("UnknownCa"), "{foreign}");
    server.explains("self", "unknown_authority", "authority");

    let old = knock(at, Some(certificate(&ours, UnixTime(now().0 - 3 * 86_400)))).unwrap_err();
    assert!(old.contains("Expired"), "{old}");
    server.explains("self", "expired", "ended");

    let plain = {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        answer
    };
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    server.explains("self", "not_tls", "TLS");
}

#[test]
fn a_server_with_another_services_identity_is_refused_and_both_sides_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let (file, at, out) = mesh(folder.path());
    let identity = folder.path().join("identity");
    // Where the client's file says that `server` is, `impostor` listens: good certificate, other name.
    let other = folder.path().join("other.yaml");
    let text = format!(
        "mesh: pair\nservices:\n  impostor:\n    health: none\n    instances:\n\
         \x20     - {{name: impostor, port: {}, mesh: \"{at}\"}}\n",
        free_port()
    );
    fs::write(&other, text).unwrap();
    let impostor = Sidecar::start(folder.path(), &other, "impostor", &identity);
    let client = Sidecar::start(folder.path(), &file, "client", &identity);

    let mut stream = TcpStream::connect(("127.0.0.1", out)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("leno-reason: tls_refused"), "{answer}");
    client.explains("self", "wrong_id", "sa/impostor");
    impostor.explains("peer", "refused_by_peer", "refused");
}

#[test]
fn a_peer_that_refuses_us_after_the_handshake_has_seen_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _, out) = mesh(folder.path());
    let identity = folder.path().join("identity");
    let server = Sidecar::start(folder.path(), &file, "server", &identity);
    // The client believes the server, but comes from an authority that the server does not know.
    let ours = shared_authority(&identity, &domain(), now()).unwrap();
    let theirs = Authority::create(&domain(), now()).unwrap();
    let (chain, key) = certificate(&theirs, now());
    let write = |name: &str, blocks: Vec<(&str, &[u8])>| {
        let path = folder.path().join(name);
        fs::write(&path, blocks.iter().map(|(label, der)| pem(label, der)).collect::<String>()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let cert = write("cert.pem", chain.iter().map(|cert| ("CERTIFICATE", &**cert)).collect());
    let key = write("key.pem", vec![("PRIVATE KEY", key.secret_der())]);
    let both = [ours.roots(), theirs.roots()].concat();
    let roots = write("roots.pem", both.iter().map(|root| ("CERTIFICATE", &**root)).collect());
    let files = [("--cert", &*cert), ("--key", &*key), ("--roots", &*roots)];
    let client = Sidecar::start_as(folder.path(), &file, "client", &files);

    // Not a method that could be tried again if the application might have seen it.
    let mut stream = TcpStream::connect(("127.0.0.1", out)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("leno-reason: tls_refused"), "{answer}");
    client.explains("peer", "after_handshake", "refused");
    server.explains("self", "unknown_authority", "authority");
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (at, three) in der.chunks(3).enumerate() {
        text.push_str(if at % 16 == 0 { "\n" } else { "" });
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let it = DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char;
            text.push(if digit > three.len() { '=' } else { it });
        }
    }
    format!("-----BEGIN {label}-----{text}\n-----END {label}-----\n")
}
