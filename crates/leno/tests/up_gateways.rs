//! A gateway with several listeners under a control plane, as `leno up` runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::anybody::Anybody;
use common::mesh::END_MAX;
use common::{Running, free_port, leno, within, write};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const TEST_MAX: Duration = Duration::from_secs(90);
/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn every_listener_of_a_gateway_is_served_under_a_control_plane() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.path().join("shop.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("shop.key"), key.serialize_pem()).unwrap();
        let [https, http, tcp] = [free_port(), free_port(), free_port()];
        let (web, raw) = (server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), server(b"raw"));
        let text = format!(
            "mesh: edges\n\
             gateway:\n  listeners:\n\
             \x20   - {{protocol: https, listen: 127.0.0.1:{https}, certificates: [{{cert: shop.pem, key: shop.key}}]}}\n\
             \x20   - {{protocol: http, listen: 127.0.0.1:{http}, redirect: https}}\n\
             \x20   - {{protocol: tcp, listen: 127.0.0.1:{tcp}, to: raw}}\n\
             \x20 routes: [{{to: web}}]\n\
             services:\n  web: {{protocol: http, endpoints: [\"{web}\"]}}\n  raw: {{protocol: tcp, endpoints: [\"{raw}\"]}}\n"
        );
        let file = write(folder.path(), "mesh.yaml", &text);
        let mut command = leno();
        command.args(["up", "-o", "json"]).arg(file).arg("--state").arg(folder.path().join("state"));
        let mut up = Running::start(&mut command);
        let ready = up.event("ready", Duration::from_secs(40));
        // People are told how to speak to it.
        assert_eq!(ready["gateways"][0], format!("https://127.0.0.1:{https}"), "{ready}");

        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("shop.example").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut secure = StreamOwned::new(session, connect(https));
        secure.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        // The end may come without a farewell; what counts is what was said.
        let _ = secure.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");

        let mut plain = connect(http);
        plain.write_all(b"GET /a?b HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").unwrap();
        let answer = rest(plain);
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert!(answer.contains(&format!("\r\nlocation: https://shop.example:{https}/a?b\r\n")), "{answer}");

        let mut bytes = connect(tcp);
        bytes.write_all(b"anything").unwrap();
        assert_eq!(rest(bytes), "raw");

        up.signal(Signal::TERM);
        assert_eq!(up.wait(END_MAX).code(), Some(0));
    });
}

/// Answers the first words of every connection with `answer`, and closes.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                stream.set_read_timeout(Some(SOON)).ok();
                if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                    stream.write_all(answer).ok();
                }
            });
        }
    });
    address
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
