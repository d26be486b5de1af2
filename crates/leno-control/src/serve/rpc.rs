//! From an HTTP/2 request to the method it names.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use leno_wire::grpc::{ATTACH_PATH, DELTA_PATH, JOIN_PATH, QUOTA_PATH, RENEW_PATH};
use leno_wire::proto::MESSAGE_BYTES_MAX;
use leno_wire::proto::mesh::{AttachRequest, AttachResponse, JoinRequest, JoinResponse, RenewRequest};
use leno_wire::proto::quota::{QuotaRequest, QuotaResponse};
use leno_wire::proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Peer, Serving, attach, delta, join, quota};

/// What a streaming method sends.
pub(super) type Outbound<A> = mpsc::Sender<Result<A, Status>>;

/// Answers one request.
pub(super) async fn call(
    request: http::Request<Incoming>,
    serving: Arc<Serving>,
    peer: Arc<Peer>,
) -> Result<http::Response<Body>, Infallible> {
    let answer = match request.uri().path() {
        JOIN_PATH => {
            let method = tower::service_fn(move |request: Request<JoinRequest>| {
                let (serving, peer) = (serving.clone(), peer.clone());
                async move { join::join(request.into_inner(), &serving, &peer).await.map(Response::new) }
            });
            grpc::<JoinResponse, _>(SMALL_MESSAGE_BYTES_MAX).unary(method, request).await
        }
        RENEW_PATH => {
            let method = tower::service_fn(move |request: Request<RenewRequest>| {
                let (serving, peer) = (serving.clone(), peer.clone());
                async move { join::renew(request.into_inner(), &serving, &peer).map(Response::new) }
            });
            grpc::<JoinResponse, _>(SMALL_MESSAGE_BYTES_MAX).unary(method, request).await
        }
        ATTACH_PATH => {
            let method = tower::service_fn(move |request: Request<Streaming<AttachRequest>>| {
                let (serving, peer) = (serving.clone(), peer.clone());
                async move {
                    let id = peer.authenticated()?.clone();
                    Ok::<_, Status>(open(|out| attach::run(serving, id, request.into_inner(), out)))
                }
            });
            grpc::<AttachResponse, _>(SMALL_MESSAGE_BYTES_MAX).streaming(method, request).await
        }
        DELTA_PATH => {
            let method = tower::service_fn(move |request: Request<Streaming<DeltaDiscoveryRequest>>| {
                let (serving, peer) = (serving.clone(), peer.clone());
                async move {
                    let id = peer.authenticated()?.clone();
                    Ok::<_, Status>(open(|out| delta::run(serving, id, request.into_inner(), out)))
                }
            });
            grpc::<DeltaDiscoveryResponse, _>(MESSAGE_BYTES_MAX).streaming(method, request).await
        }
        QUOTA_PATH => {
            let method = tower::service_fn(move |request: Request<QuotaRequest>| {
                let (serving, peer) = (serving.clone(), peer.clone());
                async move { quota::quota(request.into_inner(), &serving, &peer).map(Response::new) }
            });
            grpc::<QuotaResponse, _>(QUOTA_BYTES_MAX).unary(method, request).await
        }
        path => Status::unimplemented(format!("there is no method {path:?}")).into_http(),
    };
    Ok(answer)
}

/// Runs a streaming method in its own task and answers with what it sends.
fn open<A, F>(run: impl FnOnce(Outbound<A>) -> F) -> Response<ReceiverStream<Result<A, Status>>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (out, answers) = mpsc::channel(OUTBOUND_MAX);
    tokio::spawn(run(out));
    Response::new(ReceiverStream::new(answers))
}

/// tonic's codec with a limit for what we receive.
fn grpc<A, Q>(receive_max: usize) -> Grpc<ProstCodec<A, Q>>
where
    A: Message + 'static,
    Q: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default())
        .max_decoding_message_size(receive_max)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Largest message of the methods that take a few names and a certificate request.
const SMALL_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Largest question about mesh-wide limits: a thousand of them with long names.
const QUOTA_BYTES_MAX: usize = 512 << 10;
/// Messages that wait for a peer that does not read; its stream ends when the next one has no room for long.
const OUTBOUND_MAX: usize = 4;
