//! A control plane in memory on a real loopback socket: the true authority, index and session, none of the storage.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use leno_core::index::{Index, Key, Kind, SubscriberId, Version};
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::session::Server;
use leno_core::spec::{EndpointSpec, GatewaySpec, ServiceSpec};
use leno_core::time::Instant;
use leno_identity::authority::{Authority, LEAF_LIFETIME, control_id};
use leno_identity::svid::peer_of;
use leno_identity::tls::{ALPN_CONTROL, Clock, control_server_config};
use leno_identity::token::{Grant, JoinToken, TokenRecord};
use leno_wire::proto::mesh::{
    AttachAnswer, AttachMessage, AttachRequest, AttachResponse, Attached, Heartbeat, Hello, JoinRequest,
    JoinResponse, RenewRequest, Renewed,
};
use leno_wire::proto::xds::DeltaDiscoveryRequest;
use leno_wire::stream::{pack_response, parse_request};
use leno_wire::{Known, grpc};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::clock::unix_now;

/// What outlives a restart of the control plane.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
    /// Counts changes of the index.
    changed: watch::Sender<u64>,
}

pub(super) struct State {
    pub(super) authority: Authority,
    pub(super) leaf_lifetime: Duration,
    pub(super) lease: Duration,
    pub(super) index: Index<Vec<u8>>,
    pub(super) calls: Vec<String>,
    pub(super) tokens: Vec<TokenRecord>,
    pub(super) hellos: Vec<Hello>,
    pub(super) beats: Vec<Heartbeat>,
    pub(super) leaves: usize,
    pub(super) renewals: usize,
    /// Resources offered, over all streams.
    pub(super) offered: Vec<Key>,
    pub(super) refused: Vec<(Key, String)>,
    /// It takes heartbeats in and does not answer.
    pub(super) mute: bool,
    subscribers: u64,
}

/// A running control plane; dropping it is `kill -9`.
pub(super) struct Running {
    _tasks: JoinSet<()>,
}

impl Control {
    pub(super) async fn new() -> (Self, Running) {
        let domain = TrustDomain::parse("shop.mesh").unwrap();
        let state = State {
            authority: Authority::create(&domain, unix_now()).unwrap(),
            leaf_lifetime: LEAF_LIFETIME,
            lease: Duration::from_secs(3),
            index: Index::new(0),
            calls: vec![],
            tokens: vec![],
            hellos: vec![],
            beats: vec![],
            leaves: 0,
            renewals: 0,
            offered: vec![],
            refused: vec![],
            mute: false,
            subscribers: 0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Self { address, state: Arc::new(Mutex::new(state)), changed: watch::channel(0).0 };
        let running = control.serve(listener);
        (control, running)
    }

    /// Starts again at the same address.
    pub(super) async fn restart(&self) -> Running {
        self.serve(TcpListener::bind(self.address).await.unwrap())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn token(&self, grant: Grant) -> String {
        let mut state = self.state();
        let expires = unix_now().after(Duration::from_secs(60));
        let (token, record) = JoinToken::new(state.authority.pin(), grant, Some(1), expires).unwrap();
        state.tokens.push(record);
        token.text()
    }

    pub(super) fn put_service(&self, spec: ServiceSpec) {
        self.put(Known::Service(spec));
    }

    pub(super) fn put_gateway(&self, spec: GatewaySpec) {
        self.put(Known::Gateway(spec));
    }

    pub(super) fn put_endpoints(&self, id: &ServiceId, endpoints: Vec<EndpointSpec>) {
        self.put(Known::Endpoints(id.clone(), endpoints));
    }

    fn put(&self, known: Known) {
        self.put_bytes(Key::new(known.kind(), known.id()), known.encode());
    }

    /// The version follows from the content.
    pub(super) fn put_bytes(&self, key: Key, content: Vec<u8>) {
        let version = content.iter().fold(1_u128, |sum, byte| sum.wrapping_mul(257) ^ u128::from(*byte));
        self.state().index.apply(key, Version(version), content, &mut BTreeSet::new());
        self.changed.send_modify(|count| *count += 1);
    }

    fn serve(&self, listener: TcpListener) -> Running {
        let state = self.state();
        let credential = state.authority.credential(
            &control_id(state.authority.trust_domain()),
            unix_now(),
            LEAF_LIFETIME,
        );
        let config = control_server_config(&credential.unwrap(), &[ALPN_CONTROL], &Clock::system()).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let control = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Connections end with the listener's task.
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, control) = (acceptor.clone(), control.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let peer = tls.get_ref().1.peer_certificates().map(|chain| peer_of(chain).unwrap());
                    let service = service_fn(move |request| control.clone().answer(request, peer.clone()));
                    let serving = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), service);
                    let _broken = serving.await;
                });
            }
        });
        Running { _tasks: tasks }
    }

    async fn answer(
        self,
        request: http::Request<Incoming>,
        peer: Option<SpiffeId>,
    ) -> Result<http::Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        Ok(match (path.as_str(), peer) {
            (grpc::JOIN_PATH, _) => {
                let call = Call(move |request| std::future::ready(self.join(request)));
                Grpc::new(ProstCodec::<JoinResponse, JoinRequest>::default()).unary(call, request).await
            }
            (grpc::RENEW_PATH, Some(peer)) => {
                let call = Call(move |request| std::future::ready(self.renew(request, &peer)));
                Grpc::new(ProstCodec::<JoinResponse, RenewRequest>::default()).unary(call, request).await
            }
            (grpc::ATTACH_PATH, Some(_)) => {
                let call = Call(move |request| std::future::ready(Ok(self.attach(request))));
                Grpc::new(ProstCodec::default()).streaming(call, request).await
            }
            (grpc::DELTA_PATH, Some(_)) => {
                let call = Call(move |request| std::future::ready(Ok(self.delta(request))));
                Grpc::new(ProstCodec::default()).streaming(call, request).await
            }
            _ => Status::unauthenticated("no certificate").into_http(),
        })
    }

    fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let token = JoinToken::parse(&request.token).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let record = state.tokens.iter_mut().find(|record| record.id == token.id);
        let granted = TokenRecord::verify(record.as_deref(), &token, None, unix_now());
        let service = granted.map_err(|e| Status::unauthenticated(e.to_string()))?.identity().cloned();
        record.unwrap().spend();
        state.issue(&request.csr_der, service.unwrap())
    }

    fn renew(
        &self,
        request: Request<RenewRequest>,
        peer: &SpiffeId,
    ) -> Result<Response<JoinResponse>, Status> {
        let mut state = self.state();
        state.renewals += 1;
        state.issue(&request.into_inner().csr_der, peer.service.clone())
    }

    fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Response<ReceiverStream<Result<AttachResponse, Status>>> {
        let (answers, stream) = mpsc::channel(16);
        let control = self.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = {
                    let mut state = control.state();
                    let (lease_millis, generation) =
                        (state.lease.as_millis() as u64, state.index.generation());
                    match request.message.unwrap() {
                        AttachMessage::Hello(hello) => {
                            state.hellos.push(hello);
                            let calls = state.calls.clone();
                            AttachAnswer::Attached(Attached { lease_millis, calls, generation })
                        }
                        AttachMessage::Heartbeat(beat) => {
                            state.beats.push(beat);
                            if state.mute {
                                continue;
                            }
                            AttachAnswer::Renewed(Renewed { lease_millis, generation })
                        }
                        AttachMessage::Leave(_) => {
                            state.leaves += 1;
                            return;
                        }
                    }
                };
                if answers.send(Ok(AttachResponse { message: Some(answer) })).await.is_err() {
                    return;
                }
            }
        });
        Response::new(ReceiverStream::new(stream))
    }

    fn delta(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Response<ReceiverStream<Result<leno_wire::proto::xds::DeltaDiscoveryResponse, Status>>> {
        let (answers, stream) = mpsc::channel(16);
        let control = self.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut changed = control.changed.subscribe();
            let subscriber = {
                let mut state = control.state();
                state.subscribers += 1;
                SubscriberId(state.subscribers)
            };
            let mut server = Server::new(subscriber);
            loop {
                let request = tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => Some(request),
                        _ => break,
                    },
                    _ = changed.changed() => None,
                };
                let mut responses = vec![];
                {
                    let mut state = control.state();
                    if let Some(request) = request {
                        let received =
                            server.receive(parse_request(request).unwrap(), &mut state.index).unwrap();
                        state.refused.extend(received.rejected);
                    }
                    server.look(&mut state.index);
                    while let Some(response) = server.poll(&state.index, Instant::ZERO) {
                        let keys = response.resources.iter().map(|o| Key::new(response.kind, o.id.clone()));
                        state.offered.extend(keys);
                        responses.push(pack_response(&response));
                    }
                }
                for response in responses {
                    if answers.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Response::new(ReceiverStream::new(stream))
    }
}

impl State {
    fn issue(&mut self, csr: &[u8], service: ServiceId) -> Result<Response<JoinResponse>, Status> {
        let id = SpiffeId { trust_domain: self.authority.trust_domain().clone(), service };
        let chain = self
            .authority
            .issue(csr, &id, unix_now(), self.leaf_lifetime)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let der = |certificates: Vec<rustls::pki_types::CertificateDer<'_>>| {
            certificates.into_iter().map(|certificate| certificate.to_vec()).collect()
        };
        Ok(Response::new(JoinResponse {
            chain: der(chain),
            roots: der(self.authority.roots()),
            id: id.to_uri(),
            expires_unix: 0,
        }))
    }

    pub(super) fn delete(&mut self, kind: Kind, id: &ServiceId) {
        self.index.delete(&Key::new(kind, id.clone()), &mut BTreeSet::new());
    }
}

/// A closure as a gRPC method.
struct Call<F>(F);

impl<F, Q, A, Fut> UnaryService<Q> for Call<F>
where
    F: FnMut(Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<A>, Status>>,
{
    type Response = A;
    type Future = Fut;

    fn call(&mut self, request: Request<Q>) -> Fut {
        (self.0)(request)
    }
}

impl<F, Q, A, Fut> StreamingService<Q> for Call<F>
where
    F: FnMut(Request<Streaming<Q>>) -> Fut,
    Fut: Future<Output = Result<Response<ReceiverStream<Result<A, Status>>>, Status>>,
{
    type Response = A;
    type ResponseStream = ReceiverStream<Result<A, Status>>;
    type Future = Fut;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Fut {
        (self.0)(request)
    }
}
