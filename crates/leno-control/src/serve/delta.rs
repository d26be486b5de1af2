//! The control stream: what one proxy subscribed to, told as it changes.

use std::sync::Arc;

use bytes::Bytes;
use leno_core::index::SubscriberId;
use leno_core::name::Label;
use leno_core::peer::SpiffeId;
use leno_core::session::{Request, Response, Server};
use leno_core::time::Duration;
use leno_wire::proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use leno_wire::stream::{pack_response, parse_request};
use tokio::sync::Notify;
use tonic::Status;
use tonic::codec::Streaming;

use super::Serving;
use super::rpc::Outbound;
use crate::mesh::Mesh;

/// Serves one stream to its end.
pub(super) async fn run(
    serving: Arc<Serving>,
    id: SpiffeId,
    mut inbound: Streaming<DeltaDiscoveryRequest>,
    out: Outbound<DeltaDiscoveryResponse>,
) {
    let mesh = &serving.mesh;
    let (subscriber, waker) = mesh.open_stream(id.service.clone());
    let status = follow(&serving, &id, subscriber, &waker, &mut inbound, &out).await;
    mesh.close_stream(subscriber);
    if status.code() != tonic::Code::Ok {
        tracing::info!(%id, reason = status.message(), "control stream ended");
        let _ = out.send_timeout(Err(status), SEND_WITHIN).await;
    }
}

/// Goes on until something ends the stream; what that was.
async fn follow(
    serving: &Serving,
    id: &SpiffeId,
    subscriber: SubscriberId,
    waker: &Notify,
    inbound: &mut Streaming<DeltaDiscoveryRequest>,
    out: &Outbound<DeltaDiscoveryResponse>,
) -> Status {
    let mesh = &serving.mesh;
    let mut session = Server::new(subscriber);
    loop {
        let deadline = session.poll_timeout();
        let answer_missing = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(mesh.clock.timer(at)).await,
                None => std::future::pending().await,
            }
        };
        let request = tokio::select! {
            message = inbound.message() => match message {
                Err(status) => return status,
                Ok(None) => return Status::ok(""),
                Ok(Some(message)) => match take_in(mesh, subscriber, message) {
                    Ok(request) => Some(request),
                    Err(status) => return status,
                },
            },
            () = waker.notified() => None,
            () = answer_missing => return Status::deadline_exceeded("a response was not answered in time"),
            () = serving.stopping.heard() => {
                return Status::unavailable("the control plane is stopping; what was told stays true");
            }
        };
        let responses = match step(mesh, id, subscriber, &mut session, request) {
            Ok(responses) => responses,
            Err(status) => return status,
        };
        for response in responses {
            if out.send_timeout(Ok(pack_response(&response)), SEND_WITHIN).await.is_err() {
                return Status::deadline_exceeded("the proxy does not read");
            }
        }
    }
}

/// Parses a request; the first one says who asks.
fn take_in(mesh: &Mesh, subscriber: SubscriberId, message: DeltaDiscoveryRequest) -> Result<Request, Status> {
    // A name is only for show: what a stream may do follows from its certificate.
    if let Some(node) = message.node.as_ref().and_then(|node| Label::parse(&node.id).ok()) {
        mesh.stream(|registry, _| registry.name_stream(subscriber, node.to_string()));
    }
    parse_request(message).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Gives the session what came and what changed, takes what is to be sent.
fn step(
    mesh: &Mesh,
    id: &SpiffeId,
    subscriber: SubscriberId,
    session: &mut Server,
    request: Option<Request>,
) -> Result<Vec<Response<Bytes>>, Status> {
    let (received, responses) = mesh.stream(|registry, now| {
        let index = registry.index_mut();
        let received = request.map(|request| session.receive(request, index)).transpose();
        session.look(index);
        let mut responses = Vec::new();
        // At most one per kind: the next one waits for the answer.
        while let Some(response) = session.poll(index, now) {
            responses.push(response);
        }
        registry.show_stream(subscriber, session);
        (received, responses)
    });
    let received = received.map_err(|refusal| {
        tracing::warn!(%id, reason = %refusal, "control stream refused");
        Status::resource_exhausted(refusal.to_string())
    })?;
    let rejected = received.map(|received| received.rejected).unwrap_or_default();
    mesh.tally(|tally| tally.rejected += rejected.len() as u64);
    for (key, reason) in rejected {
        tracing::warn!(%id, resource = %key, reason, "the proxy refused a resource; it keeps what it had");
    }
    Ok(responses)
}

/// For a peer to take a message.
const SEND_WITHIN: Duration = Duration::from_secs(30);
