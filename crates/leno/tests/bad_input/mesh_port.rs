//! TLS that is cut, split or false, at the port where a sidecar's peers connect.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::files::shared_authority;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection};

use crate::common::anybody::Anybody;
use crate::way::{Way, connect, plain};
use crate::{Leave, SOON};

/// The life of a certificate.
const DAY: Duration = Duration::from_secs(86_400);
/// Within it, a handshake has to be done.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// A session of the client with a certificate that the server's sidecar believes.
fn session(way: &Way, record_bytes: Option<usize>) -> ClientConnection {
    let (_, identity) = way.mesh.clone().unwrap();
    let domain = TrustDomain::parse("pair.mesh").unwrap();
    let now = UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let authority = shared_authority(&identity, &domain, now).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let id = SpiffeId { trust_domain: domain, service: ServiceId::parse("client").unwrap() };
    let chain = authority.issue(csr.der(), &id, now, DAY).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"leno/1".to_vec()];
    config.max_fragment_size = record_bytes;
    ClientConnection::new(Arc::new(config), ServerName::try_from("server").unwrap()).unwrap()
}

/// What a session has to say now.
fn says(session: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Does a handshake, sending in pieces of `piece` bytes, until the other end says its first application data.
fn greets(mut session: ClientConnection, mut stream: TcpStream, piece: usize) -> Result<(), String> {
    loop {
        for bytes in says(&mut session).chunks(piece) {
            stream.write_all(bytes).map_err(|error| error.to_string())?;
        }
        match session.read_tls(&mut stream) {
            Ok(0) => return Err("the end of the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let state = session.process_new_packets().map_err(|error| error.to_string())?;
        if state.plaintext_bytes_to_read() > 0 {
            return Ok(());
        }
    }
}

#[test]
fn a_client_hello_in_single_bytes_is_one() {
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    greets(session(&way, None), connect(mesh), usize::MAX).unwrap();
    greets(session(&way, None), connect(mesh), 1).unwrap();
}

#[test]
fn a_client_hello_over_many_records_is_one() {
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    // The smallest records that there are.
    greets(session(&way, Some(32)), connect(mesh), usize::MAX).unwrap();
    greets(session(&way, Some(32)), connect(mesh), 7).unwrap();
}

#[test]
fn a_client_hello_that_is_cut_anywhere_leaves_nothing() {
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    way.serves();
    let before = way.descriptors();
    let hello = says(&mut session(&way, None));
    for cut in [0, 1, 4, 5, 6, 9, 43, hello.len() / 2, hello.len() - 1, hello.len()] {
        for leave in Leave::ALL {
            let mut stream = connect(mesh);
            stream.write_all(&hello[..cut]).unwrap();
            if let Some(mut half) = leave.from(stream) {
                // It is told to go, at once: nothing more can come.
                let started = std::time::Instant::now();
                half.read_to_end(&mut Vec::new()).ok();
                assert!(started.elapsed() < HANDSHAKE_MAX, "cut at {cut}: waited for what cannot come");
            }
        }
    }
    way.holds_no_more_than(&before, 4);
    way.serves();
}

#[test]
fn a_handshake_that_stands_still_is_ended() {
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    let hello = says(&mut session(&way, None));
    let started = std::time::Instant::now();
    let mut streams: Vec<TcpStream> = [0, 5, hello.len() / 2, hello.len()]
        .into_iter()
        .map(|cut| {
            let mut stream = connect(mesh);
            stream.write_all(&hello[..cut]).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        stream.set_read_timeout(Some(HANDSHAKE_MAX + SOON)).unwrap();
        let end = stream.read_to_end(&mut Vec::new());
        let waited = started.elapsed();
        let late = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!late, "no end after {waited:?}");
    }
    way.serves();
}

#[test]
fn what_is_no_tls_is_refused_at_once() {
    let way = Way::pair(&plain());
    let (mesh, _) = way.mesh.clone().unwrap();
    way.serves();
    let before = way.descriptors();
    let false_starts: [(&str, Vec<u8>); 8] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: server\r\n\r\n".to_vec()),
        ("HTTP/2 without TLS", http2_preface()),
        ("noise", (0..4_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("a record above the largest", [&[0x16, 0x03, 0x01, 0xff, 0xff][..], &[0; 70_000]].concat()),
        (
            "a handshake of 16 MB",
            [&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat(),
        ),
        ("application data first", [&[0x17, 0x03, 0x03, 0x00, 0x20][..], &[0; 32]].concat()),
        ("an alert first", vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]),
        ("empty records without end", [0x16, 0x03, 0x01, 0x00, 0x00].repeat(10_000)),
    ];
    for (what, bytes) in false_starts {
        let mut stream = connect(mesh);
        stream.write_all(&bytes).ok();
        let started = std::time::Instant::now();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(started.elapsed() < HANDSHAKE_MAX, "{what}: waited on");
        assert!(!answer.starts_with(b"HTTP/"), "{what}: answered");
    }
    way.holds_no_more_than(&before, 4);
    way.serves();
}

fn http2_preface() -> Vec<u8> {
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()
}
