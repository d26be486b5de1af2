//! One question over a connection of its own, for health checks of applications that speak HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Method, Request, Version};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};

/// So much of an answer is looked at; that of a health service has some ten bytes.
const ANSWER_BYTES_MAX: usize = 1024;
/// What a check asks the health service of gRPC.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.SERVING`.
const SERVING: i32 = 1;

/// The status of a GET.
///
/// # Errors
/// There is no answer; why, in words.
pub(crate) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    app: SocketAddr,
    path: &str,
) -> Result<u16, String> {
    let request = request(Method::GET, app, path).body(()).map_err(|_| "not a path that can be asked")?;
    let (head, _) = ask(stream, request, None).await?;
    Ok(head)
}

/// Asks the health service for `service`; an empty name is the whole server.
///
/// # Errors
/// It does not say that it is serving; what else, in words.
pub(crate) async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    app: SocketAddr,
    service: &str,
) -> Result<(), String> {
    let request = request(Method::POST, app, CHECK)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|_| "not a request that can be made")?;
    let (status, answer) = ask(stream, request, Some(message(service))).await?;
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let ended = grpc_status(&answer.trailers).or_else(|| grpc_status(&answer.head));
    match ended {
        Some(0) => {}
        Some(grpc) => return Err(format!("gRPC status {grpc}")),
        None => return Err("an answer that is none of gRPC".into()),
    }
    match serving(&answer.body) {
        Some(SERVING) => Ok(()),
        Some(2) => Err("not serving".into()),
        Some(3) => Err("it does not know the service".into()),
        Some(other) => Err(format!("health status {other}")),
        None => Err("an answer that is none of the health service".into()),
    }
}

/// An answer as far as it counts.
struct Answer {
    head: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

fn request(method: Method, app: SocketAddr, path: &str) -> http::request::Builder {
    Request::builder()
        .version(Version::HTTP_2)
        .method(method)
        .uri(format!("http://{app}{path}"))
        .header("user-agent", "leno-health")
}

/// The caller bounds the wait.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<()>,
    body: Option<Vec<u8>>,
) -> Result<(u16, Answer), String> {
    let failed = |error: h2::Error| format!("the answer is not HTTP/2 ({error})");
    let (requests, mut connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let asked = async {
        let mut requests = requests.ready().await.map_err(failed)?;
        let (answer, mut upload) = requests.send_request(request, body.is_none()).map_err(failed)?;
        if let Some(body) = body {
            upload.send_data(Bytes::from(body), true).map_err(failed)?;
        }
        let (head, mut answer) = answer.await.map_err(failed)?.into_parts();
        let (body, trailers) = read(&mut answer).await.map_err(failed)?;
        Ok((head.status.as_u16(), Answer { head: head.headers, body, trailers }))
    };
    tokio::select! {
        answer = asked => answer,
        ended = &mut connection => match ended {
            Ok(()) => Err("the connection ended before an answer".into()),
            Err(error) => Err(failed(error)),
        },
    }
}

/// So much of a body as counts, and its trailers.
async fn read(answer: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut body = Vec::new();
    while let Some(piece) = answer.data().await {
        let piece = piece?;
        // A failure means that the stream is over, which the next read says.
        let _ = answer.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES_MAX {
            return Ok((body, HeaderMap::new()));
        }
    }
    Ok((body, answer.trailers().await?.unwrap_or_default()))
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A message of gRPC with `HealthCheckRequest { service }` in it.
fn message(service: &str) -> Vec<u8> {
    let fields = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&(fields.len() as u32).to_be_bytes());
    message.extend_from_slice(&fields);
    message
}

/// `HealthCheckResponse.status` of the one message in a body.
fn serving(body: &[u8]) -> Option<i32> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = prefix;
    if *compressed != 0 || u32::from_be_bytes(length.to_owned()) as usize != message.len() {
        return None;
    }
    Some(HealthCheckResponse::decode(message).ok()?.status)
}

/// `grpc.health.v1`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[cfg(test)]
mod tests;
