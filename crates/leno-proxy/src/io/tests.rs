use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::authority::{Authority, LEAF_LIFETIME};
use leno_identity::tls::{Clock, client_config, server_config, server_name};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Stream;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let domain = TrustDomain::parse("shop.mesh").unwrap();
    let mesh = Authority::create(&domain, NOW).unwrap();
    let id = |name| SpiffeId { trust_domain: domain.clone(), service: ServiceId::parse(name).unwrap() };
    let issue = |name| mesh.credential(&id(name), NOW, LEAF_LIFETIME).unwrap();
    let clock = Clock::fixed(NOW);
    let client = client_config(&issue("cart"), &id("product"), &[b"x/1"], &clock).unwrap();
    (client, server_config(&issue("product"), &[b"x/1"], &clock).unwrap())
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

async fn pair() -> (Stream, Stream) {
    let (client, server) = sockets().await;
    let (client_config, server_config) = configs();
    let (client, server) = tokio::join!(
        Stream::client(client, client_config, server_name()),
        Stream::server(server, Vec::new(), server_config)
    );
    (client.unwrap(), server.unwrap())
}

async fn send(stream: &Stream, first: &[u8], second: &[u8]) {
    let mut sent = 0;
    while sent < first.len() + second.len() {
        let head = first.get(sent..).unwrap_or(&[]);
        let tail = second.get(sent.saturating_sub(first.len())..).unwrap_or(&[]);
        match stream.try_send(head, tail) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

/// Reads until the end, with room for so many bytes at a time.
async fn receive(stream: &Stream, room: usize) -> Result<Vec<u8>, ErrorKind> {
    let (mut all, mut buffer) = (Vec::new(), Vec::with_capacity(room));
    loop {
        poll_fn(|cx| stream.poll_read_ready(cx)).await.map_err(|error| error.kind())?;
        match stream.try_receive(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(_) => all.append(&mut buffer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.kind()),
        }
        assert!(buffer.capacity() == room, "it grew");
    }
}

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test]
async fn what_is_sent_arrives_whatever_room_there_is() {
    for room in [1, 100, 4096, 18 * 1024, 200 * 1024] {
        let (client, server) = pair().await;
        let body = text(if room == 1 { 40_000 } else { 1_000_000 });
        let (sent, received) = tokio::join!(
            async {
                send(&client, b"head ", &body).await;
                client.shutdown_write();
            },
            receive(&server, room)
        );
        let () = sent;
        assert!(received.unwrap() == [b"head ", &body[..]].concat(), "room for {room}");
        // The other direction is not affected by the end of this one.
        send(&server, b"", b"still here").await;
        drop(server);
        assert_eq!(receive(&client, 64).await.unwrap(), b"still here");
    }
}

#[tokio::test]
async fn bytes_that_were_read_before_the_handshake_count() {
    let (client, mut server) = sockets().await;
    let (client_config, server_config) = configs();
    let server = async {
        let mut first = vec![0; 90];
        server.read_exact(&mut first).await.unwrap();
        Stream::server(server, first, server_config).await.unwrap()
    };
    let (client, server) = tokio::join!(Stream::client(client, client_config, server_name()), server);
    let client = client.unwrap();
    assert_eq!(client.alpn().unwrap(), b"x/1");
    assert!(client.peer_certificate().is_some() && server.peer_certificate().is_some());
    send(&client, b"hello", b"").await;
    client.shutdown_write();
    assert_eq!(receive(&server, 64).await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_end_without_farewell_is_an_error() {
    let (client, server) = pair().await;
    send(&client, b"half a mess", b"").await;
    let _ = socket2::SockRef::from(client.socket()).shutdown(std::net::Shutdown::Write);
    let mut buffer = Vec::with_capacity(64);
    poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
    assert_eq!(server.try_receive(&mut buffer).unwrap(), 11);
    assert_eq!(receive(&server, 64).await, Err(ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn a_reset_says_no_farewell() {
    let (client, server) = pair().await;
    client.reset_on_close();
    drop(client);
    assert_eq!(receive(&server, 64).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_forged_record_is_an_error_after_what_came_before_it() {
    let (client, server) = pair().await;
    send(&client, b"good", b"").await;
    socket2::SockRef::from(client.socket())
        .send(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut buffer = Vec::with_capacity(64);
    poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
    assert_eq!(server.try_receive(&mut buffer).unwrap(), 4);
    assert_eq!(receive(&server, 64).await, Err(ErrorKind::InvalidData));
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_sender() {
    let (client, server) = pair().await;
    let block = text(64 * 1024);
    let mut sent = 0_usize;
    loop {
        match client.try_send(&block, &[]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 * 1024 * 1024, "nothing stopped it");
    }
    let flushed = tokio::join!(
        async {
            poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
            client.shutdown_write();
        },
        receive(&server, 18 * 1024)
    );
    assert_eq!(flushed.1.unwrap().len(), sent);
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_refused_with_an_alert() {
    let (mut client, server) = sockets().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let error = Stream::server(server, Vec::new(), configs().1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut alert = Vec::new();
    // The kernel may reset the connection behind the alert.
    let _ = client.read_to_end(&mut alert).await;
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
}
