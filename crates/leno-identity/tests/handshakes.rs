//! Every peer that must be refused, and the ones that must not, in real handshakes over memory: what each side
//! concludes is what its log will say.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::Trusting;
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::authority::{Authority, LEAF_LIFETIME, control_id};
use leno_identity::credential::Credential;
use leno_identity::reason::{PeerSays, Reason, explain};
use leno_identity::svid::{NotSpiffe, peer_of};
use leno_identity::tls::{self, Clock};
use rcgen::{CertificateParams, SanType};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

const NOW: UnixTime = UnixTime(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn two_services_of_one_mesh_meet() {
    let mesh = mesh();
    let (client, server) = (issue(&mesh, "cart"), issue(&mesh, "product"));
    let met = meet(client_for(&client, "product"), server_for(&server));
    assert_eq!(met.client, Ok(id("product")));
    assert_eq!(met.server, Ok(Some(id("cart"))));
    assert_eq!(met.alpn.as_deref(), Some(tls::ALPN_MESH));
    assert_eq!(met.version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(met.tickets, 0);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let mesh = mesh();
    let server = issue(&mesh, "product");
    let met = meet(anonymous(&server), server_for(&server));
    assert_eq!(met.server, Err(Reason::NoCertificate));
    assert_eq!(met.client, Err(Reason::RefusedByPeer(PeerSays::WantsCertificate)));
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (mesh, other) = (mesh(), mesh());
    let server = issue(&mesh, "product");
    // It trusts the right roots (they are public) but holds a certificate of its own making.
    let met = meet(impostor(&issue(&other, "cart"), &mesh), server_for(&server));
    assert_eq!(met.server, Err(Reason::UnknownAuthority));
    assert_eq!(met.client, Err(Reason::RefusedByPeer(PeerSays::UnknownAuthority)));
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (mesh, other) = (mesh(), mesh());
    let met = meet(client_for(&issue(&mesh, "cart"), "product"), server_for(&issue(&other, "product")));
    assert_eq!(met.client, Err(Reason::UnknownAuthority));
    assert_eq!(met.server, Err(Reason::RefusedByPeer(PeerSays::UnknownAuthority)));
}

#[test]
fn an_expired_client_is_refused() {
    let mesh = mesh();
    let (client, server) = (issue(&mesh, "cart"), issue_at(&mesh, "product", NOW.after(LEAF_LIFETIME)));
    let later = Clock::fixed(NOW.after(LEAF_LIFETIME).after(HOUR));
    let config = tls::client_config(&client, &id("product"), &[tls::ALPN_MESH], &later).unwrap();
    let met = meet(config, tls::server_config(&server, &[tls::ALPN_MESH], &later).unwrap());
    assert_eq!(met.server, Err(Reason::Expired(Some(HOUR))));
    assert_eq!(met.client, Err(Reason::RefusedByPeer(PeerSays::NotValidNow)));
}

#[test]
fn an_expired_server_is_refused() {
    let mesh = mesh();
    let (client, server) = (issue_at(&mesh, "cart", NOW.after(LEAF_LIFETIME)), issue(&mesh, "product"));
    let later = Clock::fixed(NOW.after(LEAF_LIFETIME).after(HOUR));
    let config = tls::client_config(&client, &id("product"), &[tls::ALPN_MESH], &later).unwrap();
    let met = meet(config, tls::server_config(&server, &[tls::ALPN_MESH], &later).unwrap());
    assert_eq!(met.client, Err(Reason::Expired(Some(HOUR))));
    assert_eq!(met.server, Err(Reason::RefusedByPeer(PeerSays::NotValidNow)));
}

#[test]
fn a_client_that_is_not_yet_valid_is_refused_and_a_small_skew_is_not() {
    let mesh = mesh();
    let server = issue(&mesh, "product");
    let from_the_future = issue_at(&mesh, "cart", NOW.after(HOUR));
    let met = meet(client_for(&from_the_future, "product"), server_for(&server));
    assert_eq!(met.server, Err(Reason::NotYetValid(Some(HOUR - Duration::from_secs(60)))));
    assert_eq!(met.client, Err(Reason::RefusedByPeer(PeerSays::NotValidNow)));

    let slightly_ahead = issue_at(&mesh, "cart", NOW.after(Duration::from_secs(60)));
    let met = meet(client_for(&slightly_ahead, "product"), server_for(&server));
    assert_eq!(met.server, Ok(Some(id("cart"))));
}

#[test]
fn a_server_with_another_services_id_is_refused() {
    let mesh = mesh();
    let met = meet(client_for(&issue(&mesh, "cart"), "product"), server_for(&issue(&mesh, "user")));
    assert_eq!(met.client, Err(Reason::WrongId { expected: id("product"), found: id("user") }));
    assert_eq!(met.server, Err(Reason::RefusedByPeer(PeerSays::WrongIdentity)));
    assert_eq!(
        met.client.unwrap_err().to_string(),
        "the peer is spiffe://shop.mesh/ns/default/sa/user, expected spiffe://shop.mesh/ns/default/sa/product"
    );
}

#[test]
fn an_authority_is_not_an_identity() {
    let mesh = mesh();
    assert_eq!(peer_of(&mesh.roots()), Err(NotSpiffe::Authority));
    assert_eq!(peer_of(&[]), Err(NotSpiffe::Absent));
    assert_eq!(
        peer_of(&[rustls::pki_types::CertificateDer::from(vec![0x30, 0x00])]),
        Err(NotSpiffe::Unreadable)
    );
}

#[test]
fn a_stranger_recognises_the_control_plane_by_its_pin_and_its_id() {
    let mesh = mesh();
    let clock = Clock::fixed(NOW);
    let control = mesh.credential(&control_id(mesh.trust_domain()), NOW, LEAF_LIFETIME).unwrap();
    let server = tls::control_server_config(&control, &[tls::ALPN_CONTROL], &clock).unwrap();
    let pinned = |pin| tls::pinned_client_config(pin, &[tls::ALPN_CONTROL], &clock).unwrap();

    let met = meet(pinned(mesh.pin()), server.clone());
    assert_eq!(met.client, Ok(control_id(mesh.trust_domain())));
    assert_eq!(met.server, Ok(None), "it has no identity yet");

    let met = meet(pinned(self::mesh().pin()), server);
    assert_eq!(met.client, Err(Reason::WrongPin));

    // A workload of the mesh has a chain to the pinned root too; it must not collect tokens.
    let thief = tls::control_server_config(&issue(&mesh, "cart"), &[tls::ALPN_CONTROL], &clock).unwrap();
    let met = meet(pinned(mesh.pin()), thief);
    assert_eq!(met.client, Err(Reason::NotControl(id("cart"))));
}

#[test]
fn the_control_plane_refuses_a_bad_certificate_and_knows_a_good_one() {
    let (mesh, other) = (mesh(), mesh());
    let clock = Clock::fixed(NOW);
    let control = control_id(mesh.trust_domain());
    let credential = mesh.credential(&control, NOW, LEAF_LIFETIME).unwrap();
    let server = tls::control_server_config(&credential, &[tls::ALPN_MESH], &clock).unwrap();
    let config = tls::client_config(&issue(&mesh, "cart"), &control, &[tls::ALPN_MESH], &clock).unwrap();
    assert_eq!(meet(config, server.clone()).server, Ok(Some(id("cart"))));
    let mut stranger = (*impostor(&issue(&other, "cart"), &mesh)).clone();
    stranger.alpn_protocols = vec![tls::ALPN_MESH.to_vec()];
    assert_eq!(meet(Arc::new(stranger), server).server, Err(Reason::UnknownAuthority));
}

#[test]
fn no_common_protocol_is_said() {
    let mesh = mesh();
    let client =
        tls::client_config(&issue(&mesh, "cart"), &id("product"), &[b"other"], &Clock::fixed(NOW)).unwrap();
    let met = meet(client, server_for(&issue(&mesh, "product")));
    assert_eq!(met.server, Err(Reason::NoCommonProtocol));
    assert_eq!(met.client, Err(Reason::RefusedByPeer(PeerSays::NoCommonProtocol)));
}

#[test]
fn what_is_not_tls_is_said() {
    let mut server = ServerConnection::new(server_for(&issue(&mesh(), "product"))).unwrap();
    deliver(b"GET / HTTP/1.1\r\nHost: product\r\n\r\n", |bytes| server.read_tls(bytes));
    assert_eq!(server.process_new_packets().map_err(|error| explain(&error)).unwrap_err(), Reason::NotTls);
}

/// Certificates that our authority would never issue, signed with its key all the same.
#[test]
fn odd_certificates_of_the_right_authority_are_refused_with_their_oddity() {
    let mesh = mesh();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let cart = || uri("spiffe://shop.mesh/ns/default/sa/cart");
    let other = SpiffeId::parse("spiffe://other.mesh/ns/default/sa/cart").unwrap();
    type Edit<'a> = &'a dyn Fn(&mut CertificateParams);
    let cases: &[(Edit<'_>, Reason)] = &[
        (
            &|params| params.subject_alt_names = vec![uri("spiffe://other.mesh/ns/default/sa/cart")],
            Reason::WrongTrustDomain { expected: mesh.trust_domain().clone(), found: other },
        ),
        (
            &|params| params.subject_alt_names = vec![SanType::DnsName("cart.default".try_into().unwrap())],
            Reason::NotSpiffe(NotSpiffe::Uris(0)),
        ),
        (&|params| params.subject_alt_names = vec![cart(), cart()], Reason::NotSpiffe(NotSpiffe::Uris(2))),
        (
            &|params| params.subject_alt_names = vec![uri("https://shop.mesh/cart")],
            Reason::NotSpiffe(NotSpiffe::Id {
                uri: "https://shop.mesh/cart".into(),
                error: leno_core::peer::SpiffeError::Scheme,
            }),
        ),
        (
            &|params| params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign],
            Reason::NotSpiffe(NotSpiffe::Authority),
        ),
        (
            &|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth],
            Reason::WrongPurpose,
        ),
        (
            &|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            Reason::BadCertificate("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))".into()),
        ),
    ];
    for (edit, reason) in cases {
        let config = presenting(&mesh, edit);
        let met = meet(config, server_for(&issue(&mesh, "product")));
        let found = met.server.unwrap_err();
        match (reason, &found) {
            // The library's words may change.
            (Reason::BadCertificate(_), Reason::BadCertificate(_)) => {}
            _ => assert_eq!(found, *reason),
        }
        assert!(matches!(met.client, Err(Reason::RefusedByPeer(_))), "{:?}", met.client);
    }
    let usual = meet(presenting(&mesh, &|_| ()), server_for(&issue(&mesh, "product")));
    assert_eq!(usual.server, Ok(Some(id("cart"))));
}

/// A client that holds a certificate for `cart` as `edit` leaves it, signed with the mesh's key.
fn presenting(mesh: &Authority, edit: &dyn Fn(&mut CertificateParams)) -> Arc<ClientConfig> {
    let key = rcgen::KeyPair::try_from(mesh.key_pkcs8()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&mesh.roots()[0], key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id("cart").to_uri().try_into().unwrap())];
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    edit(&mut params);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signer = provider.key_provider.load_private_key(key.into()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![leaf.der().clone()], signer);
    let mut config = (*client_for(&issue(mesh, "cart"), "product")).clone();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    Arc::new(config)
}

/// What each side knows after a handshake and one byte each way.
struct Met {
    /// Whom the client reached.
    client: Result<SpiffeId, Reason>,
    /// Who reached the server; `None`: nobody in particular.
    server: Result<Option<SpiffeId>, Reason>,
    alpn: Option<Vec<u8>>,
    version: Option<rustls::ProtocolVersion>,
    tickets: u32,
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let mut client = ClientConnection::new(client, tls::server_name()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    // A TLS 1.3 handshake takes two turns; an alert one more.
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        deliver(&wire, |bytes| server.read_tls(bytes));
        if let Err(error) = server.process_new_packets() {
            server_error.get_or_insert(explain(&error));
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        deliver(&wire, |bytes| client.read_tls(bytes));
        if let Err(error) = client.process_new_packets() {
            client_error.get_or_insert(explain(&error));
        }
    }
    let who = |chain: Option<&[_]>| chain.map(|chain| peer_of(chain).unwrap());
    Met {
        alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        version: client.protocol_version(),
        tickets: client.tls13_tickets_received(),
        client: client_error.map_or_else(|| Ok(who(client.peer_certificates()).unwrap()), Err),
        server: server_error.map_or_else(|| Ok(who(server.peer_certificates())), Err),
    }
}

fn deliver(mut wire: &[u8], mut read: impl FnMut(&mut dyn io::Read) -> io::Result<usize>) {
    while !wire.is_empty() {
        if read(&mut wire).unwrap_or(0) == 0 {
            return;
        }
    }
}

fn mesh() -> Authority {
    Authority::create(&TrustDomain::parse("shop.mesh").unwrap(), NOW).unwrap()
}

fn id(service: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: TrustDomain::parse("shop.mesh").unwrap(),
        service: ServiceId::parse(service).unwrap(),
    }
}

fn issue(mesh: &Authority, service: &str) -> Credential {
    issue_at(mesh, service, NOW)
}

fn issue_at(mesh: &Authority, service: &str, now: UnixTime) -> Credential {
    mesh.credential(&id(service), now, LEAF_LIFETIME).unwrap()
}

fn client_for(credential: &Credential, expected: &str) -> Arc<ClientConfig> {
    tls::client_config(credential, &id(expected), &[tls::ALPN_MESH], &Clock::fixed(NOW)).unwrap()
}

fn server_for(credential: &Credential) -> Arc<ServerConfig> {
    tls::server_config(credential, &[tls::ALPN_MESH], &Clock::fixed(NOW)).unwrap()
}

/// A client that trusts the mesh's roots and presents nothing.
fn anonymous(credential: &Credential) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(credential.roots().to_vec());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::ALPN_MESH.to_vec()];
    Arc::new(config)
}

/// A client that trusts anybody and presents `credential`.
fn impostor(credential: &Credential, mesh: &Authority) -> Arc<ClientConfig> {
    let mut config = (*client_for(credential, "product")).clone();
    assert_ne!(mesh.roots(), credential.roots());
    config.dangerous().set_certificate_verifier(Arc::new(Trusting));
    Arc::new(config)
}
