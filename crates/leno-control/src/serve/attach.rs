//! `Attach`: one proxy's lease.

use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::name::Label;
use leno_core::peer::SpiffeId;
use leno_core::time::Duration;
use leno_wire::full_name;
use leno_wire::proto::mesh::{
    AttachAnswer, AttachMessage, AttachRequest, AttachResponse, Attached, Health as WireHealth, Heartbeat,
    Hello, Renewed,
};
use leno_wire::proto::resource::Protocol;
use tonic::Status;
use tonic::codec::Streaming;

use super::Serving;
use super::join::not_kept;
use super::rpc::Outbound;
use crate::mesh::Mesh;
use crate::registry::{Arrival, Attachment, Health, MemberKey, Refusal};
use crate::store::{Reach, RoleRecord};

/// Serves one stream from its hello to its end.
pub(super) async fn run(
    serving: Arc<Serving>,
    id: SpiffeId,
    mut inbound: Streaming<AttachRequest>,
    out: Outbound<AttachResponse>,
) {
    let mesh = &serving.mesh;
    let status = match arrive(mesh, &id, &mut inbound).await {
        Err(status) => status,
        Ok((key, attachment)) => {
            tracing::info!(service = %key.service, instance = %key.name, "attached");
            let status = keep(&serving, &key, &attachment, &mut inbound, &out).await;
            mesh.change(|registry, _, _| registry.detach(&key, attachment.number)).1.kept().await.ok();
            tracing::info!(service = %key.service, instance = %key.name, reason = status.message(), "detached");
            status
        }
    };
    if status.code() != tonic::Code::Ok {
        let _ = out.send_timeout(Err(status), SEND_WITHIN).await;
    }
}

/// Waits for the hello and registers who says it.
async fn arrive(
    mesh: &Mesh,
    id: &SpiffeId,
    inbound: &mut Streaming<AttachRequest>,
) -> Result<(MemberKey, Attachment), Status> {
    let first = match tokio::time::timeout(HELLO_WITHIN, inbound.message()).await {
        Ok(message) => message?,
        Err(_) => return Err(Status::deadline_exceeded(format!("no hello within {HELLO_WITHIN:?}"))),
    };
    let Some(AttachRequest { message: Some(AttachMessage::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    let arrival = parse_hello(id, &hello)?;
    let key = arrival.key.clone();
    let attached =
        mesh.change_and_keep(|registry, now, effects| registry.attach(arrival, now, effects)).await;
    match attached {
        Ok(Ok(attachment)) => Ok((key, attachment)),
        Ok(Err(refusal)) => {
            tracing::warn!(service = %key.service, instance = %key.name, reason = %refusal, "attach refused");
            Err(refused(&refusal))
        }
        Err(_) => Err(not_kept()),
    }
}

/// Renews the lease with each heartbeat, until the stream ends; why it ended.
async fn keep(
    serving: &Serving,
    key: &MemberKey,
    attachment: &Attachment,
    inbound: &mut Streaming<AttachRequest>,
    out: &Outbound<AttachResponse>,
) -> Status {
    let mesh = &serving.mesh;
    let mut answer = AttachAnswer::Attached(Attached {
        lease_millis: millis(attachment.lease),
        calls: attachment.calls.iter().map(full_name).collect(),
        generation: mesh.read(|registry, _| registry.generation()),
    });
    loop {
        let response = AttachResponse { message: Some(answer) };
        if out.send_timeout(Ok(response), SEND_WITHIN).await.is_err() {
            return Status::deadline_exceeded("the proxy does not read");
        }
        let message = tokio::select! {
            message = tokio::time::timeout(attachment.lease, inbound.message()) => message,
            () = serving.stopping.heard() => {
                return Status::unavailable("the control plane is stopping; the lease runs on");
            }
        };
        let heartbeat = match message {
            Err(_) => return Status::deadline_exceeded("no heartbeat within the lease"),
            Ok(Err(status)) => return status,
            Ok(Ok(None)) => return Status::ok("the proxy closed the stream"),
            Ok(Ok(Some(AttachRequest { message: Some(AttachMessage::Heartbeat(heartbeat)) }))) => heartbeat,
            Ok(Ok(Some(AttachRequest { message: Some(AttachMessage::Leave(leave)) }))) => {
                let left = |registry: &mut crate::registry::Registry, now, effects: &mut _| {
                    registry.leave(key, attachment.number, now, effects);
                };
                let kept = mesh.change(left).1.kept().await;
                mesh.take_shares_back(key);
                let reason: String = leave.reason.chars().take(REASON_SHOWN_MAX).collect();
                return if kept.is_ok() { Status::ok(format!("it left: {reason}")) } else { not_kept() };
            }
            Ok(Ok(Some(AttachRequest { message: Some(AttachMessage::Hello(_)) | None }))) => {
                return Status::invalid_argument("after the hello come heartbeats, then a leave");
            }
        };
        let Heartbeat { health, generation } = heartbeat;
        let health = parse_health(health);
        let renewed = mesh
            .change_and_keep(|registry, now, effects| {
                registry.heartbeat(key, attachment.number, health, generation, now, effects)
            })
            .await;
        answer = match renewed {
            Ok(Ok(lease)) => AttachAnswer::Renewed(Renewed {
                lease_millis: millis(lease),
                generation: mesh.read(|registry, _| registry.generation()),
            }),
            Ok(Err(refusal)) => return refused(&refusal),
            Err(_) => return not_kept(),
        };
    }
}

/// Checks a hello; the service is the one of the certificate.
fn parse_hello(id: &SpiffeId, hello: &Hello) -> Result<Arrival, Status> {
    let bad = |field: &str, problem: String| Status::invalid_argument(format!("hello: {field}: {problem}"));
    let label =
        |field: &str, text: &str| Label::parse(text).map_err(|e| bad(field, format!("{text:?}: {e}")));
    if let Some(protocol) = hello.protocol
        && !Protocol::try_from(protocol).is_ok_and(|known| known != Protocol::Unspecified)
    {
        return Err(bad("protocol", format!("{protocol} is not known here")));
    }
    let role = if hello.gateway {
        RoleRecord::Gateway
    } else {
        let address: SocketAddr = hello
            .mesh_address
            .parse()
            .map_err(|_| bad("mesh_address", format!("{:?} is not IP:PORT", hello.mesh_address)))?;
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(bad("mesh_address", format!("{address} cannot be connected to")));
        }
        let version = hello.version.as_str();
        RoleRecord::Sidecar(Reach {
            address,
            version: if version.is_empty() { None } else { Some(label("version", version)?) },
            weight: hello.weight.unwrap_or(1),
            tags: leno_wire::tags(&hello.zone, &hello.labels)
                .map_err(|error| Status::invalid_argument(format!("hello: {error}")))?,
        })
    };
    Ok(Arrival {
        key: MemberKey { service: id.service.clone(), name: label("instance", &hello.instance)? },
        role,
        health: parse_health(hello.health.clone()),
        proxy_version: hello.proxy_version.chars().take(VERSION_CHARS_MAX).collect(),
    })
}

/// A proxy that says nothing of its instance's health is taken to have nothing against it.
fn parse_health(health: Option<WireHealth>) -> Health {
    match health {
        None | Some(WireHealth { healthy: true, .. }) => Health::Healthy,
        Some(WireHealth { healthy: false, reason }) => {
            Health::Unhealthy(reason.chars().take(REASON_SHOWN_MAX).collect())
        }
    }
}

/// A refusal as the proxy sees it. `NOT_FOUND` and `ALREADY_EXISTS` may go away by themselves; the proxy tries again.
fn refused(refusal: &Refusal) -> Status {
    let message = match refusal.hint() {
        Some(hint) => format!("{refusal}; {hint}"),
        None => refusal.to_string(),
    };
    match refusal {
        Refusal::NoSuchService(_)
        | Refusal::NoSuchGateway(_)
        | Refusal::NoSuchInstance(_)
        | Refusal::NoSuchToken(_) => Status::not_found(message),
        Refusal::NameTaken { .. } | Refusal::IsGateway(_) => Status::already_exists(message),
        Refusal::TakenOver | Refusal::LeaseEnded => Status::aborted(message),
        Refusal::TooMany { .. } => Status::resource_exhausted(message),
        Refusal::DeclaredInFile(_) | Refusal::HasSidecar(_) => Status::failed_precondition(message),
    }
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For the first message of a stream.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// For a peer to take a message.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// Most characters of a reason that are kept.
const REASON_SHOWN_MAX: usize = 256;
/// Most characters of a proxy's version that are kept.
const VERSION_CHARS_MAX: usize = 64;
