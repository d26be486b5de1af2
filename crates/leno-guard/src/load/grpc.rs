//! Unary gRPC calls with a message of 128 bytes both ways, by the `h2` crate on both ends.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use super::{ANSWER, Held};

/// A connection to the proxy under measurement.
pub(super) struct Caller {
    requests: SendRequest<Bytes>,
}

impl Caller {
    pub(super) async fn open(entry: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(entry).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (requests, connection) = h2::client::handshake(stream).await.map_err(text)?;
        // On the runtime and not in an order's own set of tasks, which ends with the order.
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// So many calls at a time.
    pub(super) async fn calls(&self, count: usize) -> Result<(), String> {
        let calls: Vec<_> =
            (0..count).map(|_| tokio::task::spawn_local(call(self.requests.clone()))).collect();
        for call in calls {
            call.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    }
}

async fn call(requests: SendRequest<Bytes>) -> Result<(), String> {
    tokio::time::timeout(ANSWER, answered(requests)).await.map_err(|_| "no answer in time")?
}

async fn answered(requests: SendRequest<Bytes>) -> Result<(), String> {
    let mut requests = requests.ready().await.map_err(text)?;
    let request = Request::post("http://app/guard.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "leno-guard")
        .body(())
        .map_err(|error| error.to_string())?;
    let (response, mut body) = requests.send_request(request, false).map_err(text)?;
    body.send_data(Bytes::from_static(&MESSAGE), true).map_err(text)?;
    let response = response.await.map_err(text)?;
    if response.status() != 200 {
        return Err(format!("not 200 but {}", response.status()));
    }
    let mut body = response.into_body();
    let message = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(text)?.unwrap_or_default();
    if message != MESSAGE || trailers.get("grpc-status").is_none_or(|status| status != "0") {
        return Err(format!("a wrong answer: {} bytes, {trailers:?}", message.len()));
    }
    Ok(())
}

/// Answers calls until the connection ends.
pub(super) async fn serve(stream: TcpStream, held: Rc<Held>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let held = held.clone();
        tokio::task::spawn_local(async move {
            // What goes wrong the caller sees.
            let _ = answer(request.into_body(), respond, &held).await;
        });
    }
}

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>, held: &Held) -> Result<(), String> {
    let message = read(&mut body).await?;
    held.wait().await;
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut body: SendStream<Bytes> = respond.send_response(head, false).map_err(text)?;
    body.send_data(message.into(), false).map_err(text)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    body.send_trailers(trailers).map_err(text)
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut message = Vec::with_capacity(MESSAGE.len());
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(text)?;
        if message.len() + piece.len() > MESSAGE.len() {
            return Err("a message that is too long".into());
        }
        message.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(text)?;
    }
    Ok(message)
}

fn text(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}

/// A message with its prefix: not compressed, 128 bytes.
static MESSAGE: [u8; 133] = {
    let mut message = [b'x'; 133];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 128);
    message
};
