//! WebSockets over HTTP/2 and HTTP/1, and between the two.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::client::{Client, block_on};
use crate::origin::next;
use crate::{SOON, Way};

fn socket() -> Request<()> {
    let mut request =
        Request::connect("http://server/socket").header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

/// Opens a WebSocket over HTTP/2 and has some words echoed.
async fn echoes(way: &Way) {
    let client = Client::connect(way.address).await;
    // The proxy's SETTINGS must be here first.
    while !client.send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut sender = client.send.clone().ready().await.unwrap();
    let (answer, mut stream) = sender.send_request(socket(), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200, "{}: {answer:?}", way.name);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(answer.headers().get(name).is_none(), "{}: {answer:?}", way.name);
    }
    let mut body = answer.into_body();
    for word in ["first", "second"] {
        stream.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), word, "{}", way.name);
    }
    // Our half ends; the other one ends because of it.
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut body).await.is_none());
}

#[test]
fn over_http2_to_an_application_of_http2() {
    Way::each("http2", async |way, origin| {
        echoes(way).await;
        let seen = origin.last();
        assert_eq!(seen.method, "CONNECT");
        assert_eq!(seen.extensions.get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
        assert!(seen.headers.get("sec-websocket-key").is_none());
        assert_eq!(seen.headers.get("sec-websocket-version").unwrap(), "13");
    });
}

#[test]
fn over_http1_to_an_application_of_http2() {
    Way::each("http2", async |way, _| {
        let mut stream = TcpStream::connect(way.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let request = "GET /socket HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream).to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{}: {head}", way.name);
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        stream.write_all(b"words").unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"words");
    });
}

#[test]
fn over_http2_to_an_application_of_http1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo_over_http1(stream));
        }
    });
    for way in [Way::single("http", address), Way::pair("http", address)] {
        block_on(echoes(&way));
    }
}

#[test]
fn an_application_that_does_not_switch_is_no_websocket() {
    let origin = crate::http1::Origin::start();
    for way in [Way::single("http", origin.address), Way::pair("http", origin.address)] {
        block_on(async {
            let client = Client::connect(way.address).await;
            while !client.send.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut sender = client.send.clone().ready().await.unwrap();
            let mut request = Request::connect("http://server/plain").body(()).unwrap();
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            let (answer, _stream) = sender.send_request(request, false).unwrap();
            assert!(answer.await.is_err(), "{}", way.name);
            assert_eq!(client.get("/plain").await.text(), "hello");
        });
    }
}

/// Accepts one WebSocket as an application of HTTP/1 does, and echoes.
fn echo_over_http1(mut stream: TcpStream) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = read_head(&mut stream);
    let key = head.lines().find_map(|line| {
        line.to_lowercase().starts_with("sec-websocket-key: ").then(|| line[19..].to_owned())
    });
    let key = key.unwrap_or_else(|| panic!("no key in {head}"));
    let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.trim());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let accept = base64(digest.as_ref());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .unwrap();
    let mut room = [0; 1024];
    while let Ok(bytes) = stream.read(&mut room) {
        if bytes == 0 || stream.write_all(&room[..bytes]).is_err() {
            break;
        }
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let number =
            group.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= group.len() { digit as char } else { '=' });
        }
    }
    out
}
