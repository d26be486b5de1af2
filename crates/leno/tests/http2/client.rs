//! A client of HTTP/2 that hides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::origin::{next, send};

/// A connection.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    /// Moves its bytes.
    _connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn trailer(&self, name: &str) -> &str {
        let value = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        value.map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        Self { send, _connection: tokio::spawn(connection) }
    }

    /// Sends a request with its body and trailers, and reads the whole answer.
    pub(crate) async fn ask(
        &self,
        request: Request<()>,
        body: Option<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let mut sender = self.send.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, body.is_none() && trailers.is_none())?;
        if body.is_some() || trailers.is_some() {
            tokio::spawn(async move {
                let end = trailers.is_none();
                let body = body.unwrap_or_default();
                if body.is_empty() && end {
                    stream.send_data(body, true).ok()?;
                } else {
                    send(&mut stream, body, end).await?;
                }
                if let Some(trailers) = trailers {
                    stream.send_trailers(trailers).ok()?;
                }
                // An answer may come before the body is taken.
                std::future::poll_fn(|cx| stream.poll_reset(cx)).await.ok()
            });
        }
        whole(response.await?).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(get(path), None, None).await.unwrap()
    }
}

/// Reads an answer to its end.
pub(crate) async fn whole(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = next(&mut stream).await {
        body.extend_from_slice(&data?);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { head, body, trailers })
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://server{path}")).body(()).unwrap()
}

pub(crate) fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Runs a test that has no more time than this.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await });
    ended.expect("the test takes too long");
}
