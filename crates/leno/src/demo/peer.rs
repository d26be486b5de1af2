//! How one of the shop's services asks another: hyper's ordinary client, which sends plain `http://` requests in
//! absolute form to the proxy that HTTP_PROXY and NO_PROXY name (RFC 9112 §3.2.2), as curl and every browser do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpStream;
use tower::Service;

use crate::failure::root_cause;

use super::answer::Problem;

/// Asks other services.
#[derive(Clone)]
pub(super) struct Peers {
    client: Client<Connector, Empty<Bytes>>,
}

impl Peers {
    /// A client that obeys the proxy variables of this process's environment.
    pub(super) fn from_env() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let connector = Connector { tcp, proxy: Arc::new(Matcher::from_env()) };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client }
    }

    /// `GET url`, whose answer must be a JSON document. A 404 stays a 404; anything else that is not good is
    /// the other service's fault.
    pub(super) async fn get(&self, url: &str) -> Result<Value, Problem> {
        match tokio::time::timeout(ANSWER_MAX, self.ask(url)).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::bad_gateway(format!("{url} did not answer within {ANSWER_MAX:?}"))),
        }
    }

    async fn ask(&self, url: &str) -> Result<Value, Problem> {
        let uri = url.parse().map_err(|error| Problem::bad_gateway(format!("{url}: {error}")))?;
        let response = self
            .client
            .get(uri)
            .await
            .map_err(|error| Problem::bad_gateway(format!("{url}: {}", root_cause(&error))))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Problem::bad_gateway(format!("{url}: {error}")))?.to_bytes();
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() && value.is_object() {
            return Ok(value);
        }
        let said = value.get("error").and_then(Value::as_str).unwrap_or("no reason given");
        if status == http::StatusCode::NOT_FOUND && value.get("served_by").is_some() {
            return Err(Problem::not_found(said));
        }
        Err(Problem::bad_gateway(format!("{url} answered {status}: {said}")))
    }
}

/// Takes the `served_by` out of another service's answer.
pub(super) fn take_served_by(answer: &mut Value) -> Value {
    answer.as_object_mut().and_then(|fields| fields.remove("served_by")).unwrap_or(Value::Null)
}

/// Connects to where a URL points, or to the proxy that the environment names for it.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    proxy: Arc<Matcher>,
}

impl Service<http::Uri> for Connector {
    type Response = Stream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: http::Uri) -> Self::Future {
        let proxy = self.proxy.intercept(&target).map(|proxy| proxy.uri().clone());
        let proxied = proxy.is_some();
        let connecting = self.tcp.call(proxy.unwrap_or(target));
        Box::pin(async move { Ok(Stream { io: connecting.await?, proxied }) })
    }
}

/// A connection that knows whether a proxy is at its other end: then requests go in absolute form.
struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// To connect. The proxy is on the same machine.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// For a whole answer: far above what a shop may take, below what a customer waits.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The largest answer that is read; the shop's own are below 10 kB.
const BODY_BYTES_MAX: usize = 1 << 20;
