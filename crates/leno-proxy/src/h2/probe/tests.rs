use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::io::duplex;

use super::{check, get};

/// What a server answers: the status, fields of the head, the body if there is one, trailers.
#[derive(Clone, Default)]
struct Says {
    status: u16,
    head: &'static [(&'static str, &'static str)],
    body: Option<&'static [u8]>,
    trailers: &'static [(&'static str, &'static str)],
}

/// What was asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    method: String,
    path: String,
    content_type: Option<String>,
    body: Vec<u8>,
}

fn app() -> SocketAddr {
    ([127, 0, 0, 1], 8080).into()
}

/// Serves one connection; what was asked on it.
async fn serve(stream: tokio::io::DuplexStream, says: Says) -> Asked {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut asked = Asked::default();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let content_type = head.headers.get("content-type").map(|it| it.to_str().unwrap().to_owned());
        let mut received = Vec::new();
        let read = async {
            while let Some(piece) = body.data().await {
                received.extend_from_slice(&piece.unwrap());
            }
        };
        tokio::select! {
            () = read => {}
            _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => {}
        }
        let path = head.uri.path_and_query().unwrap().as_str().to_owned();
        asked = Asked { method: head.method.to_string(), path, content_type, body: received };
        let mut answer = Response::builder().status(says.status);
        for (name, value) in says.head {
            answer = answer.header(*name, *value);
        }
        let end = says.body.is_none() && says.trailers.is_empty();
        let mut sink = respond.send_response(answer.body(()).unwrap(), end).unwrap();
        if let Some(body) = says.body {
            sink.send_data(Bytes::from_static(body), says.trailers.is_empty()).unwrap();
        }
        if !says.trailers.is_empty() {
            let fields = says
                .trailers
                .iter()
                .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()));
            sink.send_trailers(fields.collect::<HeaderMap>()).unwrap();
        }
    }
    asked
}

async fn asked_for(path: &str, says: Says) -> (Result<u16, String>, Asked) {
    let (ours, theirs) = duplex(64 * 1024);
    let server = tokio::spawn(serve(theirs, says));
    let answer = get(ours, app(), path).await;
    (answer, server.await.unwrap())
}

async fn checked(service: &str, says: Says) -> (Result<(), String>, Asked) {
    let (ours, theirs) = duplex(64 * 1024);
    let server = tokio::spawn(serve(theirs, says));
    let answer = check(ours, app(), service).await;
    (answer, server.await.unwrap())
}

#[tokio::test]
async fn a_path_is_asked_in_http2() {
    let (status, asked) = asked_for("/healthz?deep=1", Says { status: 204, ..Says::default() }).await;
    assert_eq!(status, Ok(204));
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/healthz?deep=1"));
    let says = Says { status: 503, body: Some(b"sick"), ..Says::default() };
    assert_eq!(asked_for("/healthz", says).await.0, Ok(503));
    // A page that never ends is not read to its end.
    const LONG: &[u8] = &[b'x'; 16 * 1024];
    assert_eq!(asked_for("/", Says { status: 200, body: Some(LONG), ..Says::default() }).await.0, Ok(200));
}

#[tokio::test]
async fn the_health_service_is_asked_for_a_service() {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
    let says = |body: &'static [u8], trailers| Says { status: 200, head: GRPC, body: Some(body), trailers };
    let serving: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    let (answer, asked) = checked("shop.Cart", says(serving, OK)).await;
    assert_eq!(answer, Ok(()));
    assert_eq!(asked.path, "/grpc.health.v1.Health/Check");
    assert_eq!(asked.content_type.as_deref(), Some("application/grpc"));
    assert_eq!(asked.body, [&[0, 0, 0, 0, 11, 10, 9], &b"shop.Cart"[..]].concat());
    assert_eq!(checked("", says(serving, OK)).await.1.body, [0; 5]);

    let refused = |why: &str| Err(why.to_owned());
    for (body, why) in [
        (&[0, 0, 0, 0, 2, 8, 2][..], "not serving"),
        (&[0, 0, 0, 0, 2, 8, 3], "it does not know the service"),
        (&[0, 0, 0, 0, 0], "health status 0"),
        (&[0, 0, 0, 0, 2, 8, 9], "health status 9"),
        (&[1, 0, 0, 0, 2, 8, 1], "an answer that is none of the health service"),
        (&[0, 0, 0, 0, 3, 8, 1], "an answer that is none of the health service"),
        (&[0, 0, 0, 0, 1, 8], "an answer that is none of the health service"),
        (&[], "an answer that is none of the health service"),
    ] {
        assert_eq!(checked("x", says(body, OK)).await.0, refused(why), "{body:?}");
    }
    // Servers without the health service say so in the head alone.
    let without: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "12")];
    let says = Says { status: 200, head: without, ..Says::default() };
    assert_eq!(checked("", says).await.0, refused("gRPC status 12"));
    let says = Says { status: 200, body: Some(b"<html>"), ..Says::default() };
    assert_eq!(checked("", says).await.0, refused("an answer that is none of gRPC"));
    assert_eq!(checked("", Says { status: 404, ..Says::default() }).await.0, refused("status 404"));
}

#[tokio::test]
async fn what_is_no_http2_is_told_apart() {
    for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH\r\n", b""] {
        let (ours, mut theirs) = duplex(1024);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, said).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut theirs).await.unwrap();
        let answer = get(ours, app(), "/").await.unwrap_err();
        let known = ["the answer is not HTTP/2", "the connection ended before an answer"];
        assert!(known.iter().any(|known| answer.starts_with(known)), "{said:?}: {answer}");
    }
}
