//! gRPC over one HTTP/2 connection: the client's side of the control stream. Brings its own dial and TLS: hand in any
//! byte stream.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::proto::mesh::{AttachRequest, AttachResponse, JoinRequest, JoinResponse, RenewRequest};
use crate::proto::quota::{QuotaRequest, QuotaResponse};
use crate::proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::proto::{MESSAGE_BYTES_MAX, TYPE_URL_PREFIX};

/// Method path of the delta stream.
pub const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Method path of `Join`.
pub const JOIN_PATH: &str = "/leno.v1.Mesh/Join";
/// Method path of `Renew`.
pub const RENEW_PATH: &str = "/leno.v1.Mesh/Renew";
/// Method path of `Attach`.
pub const ATTACH_PATH: &str = "/leno.v1.Mesh/Attach";

/// Method path of `Quota`.
pub const QUOTA_PATH: &str = "/leno.v1.Mesh/Quota";

/// How often an idle connection to the control plane is asked for a sign of life. Short, since a dead control plane
/// should be found within a lease.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long that sign may take before the connection counts as broken.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client of the control plane on one connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// Sends requests to the connection's driver.
    channel: Channel,
}

impl Client {
    /// Speaks HTTP/2 on `io` (after TLS). The future drives the connection and must be spawned; it ends when the
    /// connection does.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub async fn handshake<I>(
        io: I,
    ) -> Result<(Self, impl Future<Output = Result<(), hyper::Error>> + Send + use<I>), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        Ok((Self { channel: Channel(sender) }, connection))
    }

    /// Trades a token and a certificate request for a certificate.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a token that is unknown, expired or used up; `INVALID_ARGUMENT` for a bad request.
    pub async fn join(&self, request: JoinRequest, deadline: Duration) -> Result<JoinResponse, Status> {
        self.unary(JOIN_PATH, request, deadline).await
    }

    /// Trades a certificate request for a new certificate of the connection's own identity.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a client certificate; `INVALID_ARGUMENT` for a bad request.
    pub async fn renew(&self, request: RenewRequest, deadline: Duration) -> Result<JoinResponse, Status> {
        self.unary(RENEW_PATH, request, deadline).await
    }

    /// Asks for shares of limits that hold mesh-wide.
    ///
    /// # Errors
    /// `NOT_FOUND` while the instance is not attached; `UNIMPLEMENTED` by a control plane that knows no such limits.
    pub async fn quota(&self, request: QuotaRequest, deadline: Duration) -> Result<QuotaResponse, Status> {
        self.unary(QUOTA_PATH, request, deadline).await
    }

    /// Registers an instance and keeps its lease.
    ///
    /// # Errors
    /// As the control plane answers; `UNAVAILABLE` when the connection is gone.
    pub async fn attach(
        &self,
        requests: impl Stream<Item = AttachRequest> + Send + 'static,
    ) -> Result<Streaming<AttachResponse>, Status> {
        self.streaming(ATTACH_PATH, requests).await
    }

    /// The control stream.
    ///
    /// # Errors
    /// As the control plane answers; `UNAVAILABLE` when the connection is gone.
    pub async fn delta(
        &self,
        requests: impl Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
    ) -> Result<Streaming<DeltaDiscoveryResponse>, Status> {
        self.streaming(DELTA_PATH, requests).await
    }

    /// One message each way, at most `deadline` for both.
    async fn unary<Q, A>(&self, path: &'static str, message: Q, deadline: Duration) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        let call = async {
            grpc.ready().await.map_err(gone)?;
            let path = http::uri::PathAndQuery::from_static(path);
            grpc.unary(Request::new(message), path, ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(deadline, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer to {path} within {deadline:?}"))),
        }
    }

    /// Messages both ways.
    async fn streaming<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(gone)?;
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = grpc.streaming(Request::new(requests), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    /// tonic's codec around the connection, with our message limit.
    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::with_origin(self.channel.clone(), http::Uri::from_static(ORIGIN))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// One HTTP/2 connection as the service that tonic asks for.
#[derive(Clone, Debug)]
pub struct Channel(http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Packs `message` under `url`.
pub fn any(url: &str, message: &impl Message) -> crate::proto::xds::Any {
    debug_assert!(url.starts_with(TYPE_URL_PREFIX));
    crate::proto::xds::Any { type_url: url.to_owned(), value: message.encode_to_vec() }
}

/// The connection ended before the call began.
fn gone(error: hyper::Error) -> Status {
    Status::unavailable(format!("the connection to the control plane is gone: {error}"))
}

/// The authority of every request; who the peer is was settled by TLS.
const ORIGIN: &str = "https://control.leno";
