//! The session between two proxies against rustls' own connections, over memory: whatever one end seals, the other opens,
//! and what was changed on the way is refused.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;

use common::Trusting;
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::authority::{Authority, LEAF_LIFETIME};
use leno_identity::reason::{PeerSays, Reason, explain};
use leno_identity::session::{
    Established, Handshake, Opened, Progress, RECORD_BYTES_MAX, RECORD_OVERHEAD, RECORD_PLAIN_MAX, Records,
};
use leno_identity::svid::peer_of;
use leno_identity::tls::{self, Clock};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection,
};

const NOW: UnixTime = UnixTime(1_800_000_000);

/// Ours at one end, rustls' at the other.
struct Pair {
    ours: Records,
    theirs: Connection,
    /// Of theirs, not yet opened by ours.
    sealed: Vec<u8>,
}

#[test]
fn both_ends_of_a_handshake_come_to_the_same_in_pieces_of_any_size() {
    let (client, server) = configs();
    for piece in [1, 7, 100, 1 << 20] {
        for ours_is_client in [true, false] {
            let pair = Pair::shake(ours_is_client, &client, &server, piece);
            assert_eq!(pair.theirs.alpn_protocol(), Some(tls::ALPN_MESH));
        }
    }
}

#[test]
fn a_handshake_says_who_is_there() {
    let (client, server) = configs();
    let (mut ours, mut theirs) = (Handshake::client(client).unwrap(), Handshake::server(server).unwrap());
    assert_eq!(ours.receive(&[]), Ok(Progress::Waiting));
    let mut done = (Progress::Waiting, Progress::Waiting);
    while done != (Progress::Done, Progress::Done) {
        let said = std::mem::take(ours.output());
        done.1 = theirs.receive(&said).unwrap();
        let said = std::mem::take(theirs.output());
        done.0 = ours.receive(&said).unwrap();
    }
    for (handshake, peer) in [(&ours, "product"), (&theirs, "cart")] {
        assert_eq!(peer_of(handshake.peer_certificates()).unwrap(), id(peer));
        assert_eq!(handshake.alpn(), Some(tls::ALPN_MESH));
    }
    // Two of ours understand each other, too.
    let (mut ours, mut theirs) = (ours.finish().unwrap().records, theirs.finish().unwrap().records);
    let mut out = vec![0; 100];
    let (_, bytes) = ours.seal(b"hello", &mut out).unwrap();
    assert_eq!(theirs.open(&mut out[..bytes]).unwrap(), Opened::Record(bytes, b"hello"));
}

#[test]
fn content_of_any_length_arrives_both_ways() {
    let text: Vec<u8> = (0..100_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    let lengths = [1, 2, 100, RECORD_PLAIN_MAX - 1, RECORD_PLAIN_MAX, RECORD_PLAIN_MAX + 1, 70_000, 100_000];
    for cipher in 0..3 {
        let (client, server) = with_cipher(cipher);
        for ours_is_client in [true, false] {
            let mut pair = Pair::shake(ours_is_client, &client, &server, 1 << 20);
            for length in lengths {
                let text = &text[..length];
                assert_eq!(pair.send(text), text, "{length} bytes to rustls");
                assert_eq!(pair.receive(text).unwrap(), text, "{length} bytes from rustls");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_left_for_later() {
    let mut pair = pair();
    let text = vec![7; 2 * RECORD_PLAIN_MAX];
    for room in [0, 1, RECORD_OVERHEAD, RECORD_OVERHEAD + 1, 1000, RECORD_PLAIN_MAX + RECORD_OVERHEAD] {
        let mut out = vec![0; room];
        let (taken, written) = pair.ours.seal(&text, &mut out).unwrap();
        assert_eq!(taken, room.saturating_sub(RECORD_OVERHEAD), "{room}");
        assert!(written <= room, "{room}");
        assert_eq!(pair.opened_by_theirs(&out[..written]), text[..taken]);
    }
}

#[test]
fn a_record_is_opened_only_when_it_is_whole() {
    let mut pair = pair();
    let mut sealed = pair.sealed_by_theirs(b"some words");
    for part in 0..sealed.len() {
        assert_eq!(pair.ours.open(&mut sealed[..part]).unwrap(), Opened::Incomplete, "{part}");
    }
    let bytes = sealed.len();
    assert_eq!(pair.ours.open(&mut sealed).unwrap(), Opened::Record(bytes, b"some words"));
}

#[test]
fn a_changed_byte_ends_the_session() {
    let whole = pair().sealed_by_theirs(b"some words").len();
    for at in 0..whole {
        let mut pair = pair();
        let mut sealed = pair.sealed_by_theirs(b"some words");
        assert_eq!(sealed.len(), whole);
        sealed[at] ^= 1;
        match pair.ours.open(&mut sealed) {
            Err(Error::DecryptError | Error::General(_)) => {}
            // A length that was made longer by one: more is waited for, and fails then.
            Ok(Opened::Incomplete) if at == 4 || at == 3 => {
                sealed.resize(RECORD_BYTES_MAX, 0);
                assert!(pair.ours.open(&mut sealed).is_err(), "byte {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn records_of_other_kinds_and_lengths_are_refused() {
    let heads: [&[u8]; 7] = [
        &[22, 3, 3, 0, 1, 0],
        &[20, 3, 3, 0, 1, 1],
        &[21, 3, 3, 0, 2, 2, 40],
        &[23, 3, 1, 0, 20],
        &[23, 3, 3, 0x41, 1],
        &[23, 3, 3, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for head in heads {
        let mut head = head.to_vec();
        head.resize(64, 0);
        assert!(pair().ours.open(&mut head).is_err(), "{head:?}");
    }
}

#[test]
fn a_repeated_record_is_refused() {
    let mut pair = pair();
    let sealed = pair.sealed_by_theirs(b"pay");
    let bytes = sealed.len();
    assert_eq!(pair.ours.open(&mut sealed.clone()).unwrap(), Opened::Record(bytes, b"pay"));
    assert_eq!(pair.ours.open(&mut sealed.clone()).unwrap_err(), Error::DecryptError);
}

#[test]
fn keys_change_when_the_peer_wants_it() {
    for ours_is_client in [true, false] {
        let (client, server) = configs();
        let mut pair = Pair::shake(ours_is_client, &client, &server, 1 << 20);
        for _ in 0..3 {
            pair.theirs.refresh_traffic_keys().unwrap();
            assert_eq!(pair.receive(b"under a new key").unwrap(), b"under a new key");
            // rustls asks for ours, too.
            assert!(pair.ours.has_news());
            assert_eq!(pair.send(b"so do we"), b"so do we");
            assert!(!pair.ours.has_news());
        }
    }
}

#[test]
fn keys_change_in_time() {
    let (client, server) = configs();
    let mut pair = Pair::shake(true, &client, &server, 1 << 20);
    pair.ours = pair.ours.with_records_per_key(3);
    for round in 0..50_u8 {
        assert_eq!(pair.send(&[round; 100]), [round; 100]);
        assert_eq!(pair.receive(&[round; 100]).unwrap(), [round; 100]);
    }
}

#[test]
fn a_key_update_waits_for_room() {
    let mut pair = pair();
    pair.theirs.refresh_traffic_keys().unwrap();
    pair.receive(b"x").unwrap();
    assert_eq!(pair.ours.seal(b"y", &mut [0; 20]).unwrap(), (0, 0));
    assert!(pair.ours.has_news());
    let mut out = [0; 200];
    let (taken, written) = pair.ours.seal(b"y", &mut out).unwrap();
    assert_eq!(taken, 1);
    assert_eq!(pair.opened_by_theirs(&out[..written]), b"y");
}

#[test]
fn endless_records_without_content_are_refused() {
    let mut pair = pair();
    let refused = (0..100).find_map(|at| {
        pair.theirs.refresh_traffic_keys().unwrap();
        let mut sealed = pair.drained();
        pair.ours.open(&mut sealed).err().map(|_| at)
    });
    assert_eq!(refused, Some(32));
}

#[test]
fn a_farewell_ends_each_direction() {
    let mut pair = pair();
    let mut out = [0; 64];
    let bytes = pair.ours.seal_end(&mut out).unwrap();
    pair.theirs.read_tls(&mut &out[..bytes]).unwrap();
    assert!(pair.theirs.process_new_packets().unwrap().peer_has_closed());
    pair.theirs.send_close_notify();
    let mut sealed = pair.drained();
    assert_eq!(pair.ours.open(&mut sealed).unwrap(), Opened::End);
    // Nothing that follows has a meaning.
    assert_eq!(pair.ours.open(&mut [0; 100]).unwrap(), Opened::End);
}

#[test]
fn an_alert_says_what_is_wrong_at_the_other_end() {
    let mut pair = pair();
    let mut out = [0; 64];
    let bytes = pair.ours.seal_alert(AlertDescription::BadRecordMac, &mut out).unwrap();
    pair.theirs.read_tls(&mut &out[..bytes]).unwrap();
    assert_eq!(
        pair.theirs.process_new_packets().unwrap_err(),
        Error::AlertReceived(AlertDescription::BadRecordMac)
    );
    // The other way: rustls finds a record that was changed.
    let mut pair = self::pair();
    let (_, bytes) = pair.ours.seal(b"x", &mut out).unwrap();
    out[bytes - 1] ^= 1;
    pair.theirs.read_tls(&mut &out[..bytes]).unwrap();
    pair.theirs.process_new_packets().unwrap_err();
    let mut sealed = pair.drained();
    let error = pair.ours.open(&mut sealed).unwrap_err();
    assert_eq!(error, Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[test]
fn a_client_that_is_refused_after_its_handshake_learns_why() {
    let (_, server) = configs();
    let other = Authority::create(&TrustDomain::parse("shop.mesh").unwrap(), NOW).unwrap();
    let credential = other.credential(&id("cart"), NOW, LEAF_LIFETIME).unwrap();
    let mut config = (*client_config(&credential)).clone();
    config.dangerous().set_certificate_verifier(Arc::new(Trusting));
    let mut client = Handshake::client(Arc::new(config)).unwrap();
    let mut server = Handshake::server(server).unwrap();
    assert_eq!(client.receive(&[]), Ok(Progress::Waiting));
    server.receive(&std::mem::take(client.output())).unwrap();
    assert_eq!(client.receive(&std::mem::take(server.output())), Ok(Progress::Done));
    let refused = server.receive(&std::mem::take(client.output())).unwrap_err();
    assert_eq!(explain(&refused), Reason::UnknownAuthority);
    let mut alert = std::mem::take(server.output());
    assert!(!alert.is_empty());
    let told = client.finish().unwrap().records.open(&mut alert).unwrap_err();
    assert_eq!(explain(&told), Reason::RefusedByPeer(PeerSays::UnknownAuthority));
}

#[test]
fn what_is_no_handshake_is_refused_and_answered() {
    let (_, server) = configs();
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 600], &[22, 3, 1, 0xff, 0xff, 1]] {
        let mut handshake = Handshake::server(server.clone()).unwrap();
        handshake.receive(bytes).unwrap_err();
        assert!(!handshake.output().is_empty(), "{bytes:?}");
    }
    // One that never ends is given up.
    let mut handshake = Handshake::server(server).unwrap();
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let mut next = record.clone();
    next[5..9].fill(0);
    assert_eq!(handshake.receive(&record), Ok(Progress::Waiting));
    let refused = (0..10).find_map(|_| handshake.receive(&next).err());
    assert!(refused.is_some());
}

#[test]
fn a_session_that_is_not_there_yet_gives_no_records() {
    let (client, _) = configs();
    let mut handshake = Handshake::client(client).unwrap();
    handshake.receive(&[]).unwrap();
    handshake.output().clear();
    assert!(handshake.finish().is_err());
}

impl Pair {
    /// Shakes hands with rustls, giving ours so many bytes at a time.
    fn shake(
        ours_is_client: bool,
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        piece: usize,
    ) -> Self {
        let (mut ours, mut theirs): (_, Connection) = if ours_is_client {
            let theirs = ServerConnection::new(server.clone()).unwrap();
            (Handshake::client(client.clone()).unwrap(), theirs.into())
        } else {
            let theirs = ClientConnection::new(client.clone(), tls::server_name()).unwrap();
            (Handshake::server(server.clone()).unwrap(), theirs.into())
        };
        // A client that has finished speaks at once, in the same breath.
        let early = b"first words";
        let mut said = ours_is_client;
        let mut done = ours.receive(&[]).unwrap();
        for _ in 0..10 {
            let to_theirs = std::mem::take(ours.output());
            let mut rest = &to_theirs[..];
            while !rest.is_empty() {
                theirs.read_tls(&mut rest).unwrap();
                theirs.process_new_packets().unwrap();
            }
            if !theirs.is_handshaking() && !said {
                said = true;
                theirs.writer().write_all(early).unwrap();
            }
            let to_ours = drain(&mut theirs);
            for bytes in to_ours.chunks(piece) {
                done = ours.receive(bytes).unwrap();
            }
            if done == Progress::Done && ours.output().is_empty() && !theirs.is_handshaking() {
                break;
            }
        }
        assert_eq!(done, Progress::Done);
        assert_eq!(ours.receive(&[]), Ok(Progress::Done));
        let Established { records, early: mut heard, sealed } = ours.finish().unwrap();
        let mut pair = Self { ours: records, theirs, sealed };
        if !ours_is_client {
            heard.extend(pair.open_all().unwrap());
            assert_eq!(heard, early, "in pieces of {piece}");
        }
        assert!(pair.sealed.is_empty() && (ours_is_client || !heard.is_empty()));
        pair
    }

    fn send(&mut self, mut text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 3 * RECORD_PLAIN_MAX];
        let mut opened = Vec::new();
        while !text.is_empty() {
            let (taken, written) = self.ours.seal(text, &mut out).unwrap();
            assert!(taken > 0);
            opened.extend(self.opened_by_theirs(&out[..written]));
            text = &text[taken..];
        }
        opened
    }

    fn receive(&mut self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let mut opened = Vec::new();
        for piece in text.chunks(50_000) {
            let sealed = self.sealed_by_theirs(piece);
            self.sealed.extend(sealed);
            opened.extend(self.open_all()?);
        }
        Ok(opened)
    }

    fn open_all(&mut self) -> Result<Vec<u8>, Error> {
        let (mut opened, mut start) = (Vec::new(), 0);
        while let Opened::Record(bytes, content) = self.ours.open(&mut self.sealed[start..])? {
            opened.extend_from_slice(content);
            start += bytes;
        }
        self.sealed.drain(..start);
        Ok(opened)
    }

    fn opened_by_theirs(&mut self, mut sealed: &[u8]) -> Vec<u8> {
        let mut opened = Vec::new();
        while !sealed.is_empty() {
            self.theirs.read_tls(&mut sealed).unwrap();
            let state = self.theirs.process_new_packets().unwrap();
            let mut piece = vec![0; state.plaintext_bytes_to_read()];
            self.theirs.reader().read_exact(&mut piece).unwrap();
            opened.extend(piece);
        }
        opened
    }

    fn sealed_by_theirs(&mut self, text: &[u8]) -> Vec<u8> {
        self.theirs.writer().write_all(text).unwrap();
        self.drained()
    }

    fn drained(&mut self) -> Vec<u8> {
        drain(&mut self.theirs)
    }
}

fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut sealed = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut sealed).unwrap();
    }
    sealed
}

fn pair() -> Pair {
    let (client, server) = configs();
    Pair::shake(false, &client, &server, 1 << 20)
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mesh = Authority::create(&TrustDomain::parse("shop.mesh").unwrap(), NOW).unwrap();
    let issue = |service: &str| mesh.credential(&id(service), NOW, LEAF_LIFETIME).unwrap();
    let server = tls::server_config(&issue("product"), &[tls::ALPN_MESH], &Clock::fixed(NOW));
    (client_config(&issue("cart")), server.unwrap())
}

fn client_config(credential: &leno_identity::credential::Credential) -> Arc<ClientConfig> {
    tls::client_config(credential, &id("product"), &[tls::ALPN_MESH], &Clock::fixed(NOW)).unwrap()
}

/// Of all ciphers that Leno knows, only this one.
fn with_cipher(at: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (client, server) = configs();
    let suite = client.crypto_provider().cipher_suites[at];
    let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
    let mut only = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_client_cert_resolver(client.client_auth_cert_resolver.clone());
    only.alpn_protocols = vec![tls::ALPN_MESH.to_vec()];
    only.enable_secret_extraction = true;
    (Arc::new(only), server)
}

fn id(service: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: TrustDomain::parse("shop.mesh").unwrap(),
        service: ServiceId::parse(service).unwrap(),
    }
}
