//! The life of one connection to the control plane: the instance's lease on one stream, what the mesh looks like on the
//! other, renewal of the certificate between them.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use leno_core::health::Health;
use leno_core::index::Kind;
use leno_core::knowledge::Content;
use leno_core::name::ServiceId;
use leno_core::renewal::Urgency;
use leno_core::session::{Offer, Request, Response};
use leno_identity::credential::Credential;
use leno_wire::Known;
use leno_wire::proto::mesh::{
    self, AttachAnswer, AttachMessage, AttachRequest, AttachResponse, Attached, Heartbeat, Hello, Leave,
};
use leno_wire::proto::xds::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use leno_wire::stream::{pack_request, parse_response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::{self, Link};
use super::{Agent, Command, LEAVE_WITHIN, Stop};
use crate::clock::unix_now;
use crate::config::Workload;

/// How a connection's life ends.
pub(super) enum End {
    /// The agent stops.
    Stop(Stop),
    /// It broke, and why.
    Broken(String),
    /// There is a new certificate: the control plane ends connections with the certificate they were made with.
    Renewed,
}

/// Messages on their way into a stream. More than this unread, and the control plane is not reading.
const OUT_MAX: usize = 16;
/// Until both streams are open.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// The lease until the control plane has named its own.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// Shorter leases are taken for this, so that heartbeats stay a trickle whatever is answered.
const LEASE_MIN: Duration = Duration::from_millis(300);
/// Longer ones for this, so that a heartbeat is never a day away.
const LEASE_MAX: Duration = Duration::from_secs(3600);
/// So many heartbeats fit into a lease.
const HEARTBEATS_PER_LEASE: u32 = 3;

/// One connection with its streams.
struct Session {
    link: Link,
    attach_out: mpsc::Sender<AttachRequest>,
    attach_in: Streaming<AttachResponse>,
    delta_out: mpsc::Sender<DeltaDiscoveryRequest>,
    delta_in: Streaming<DeltaDiscoveryResponse>,
    /// Without a heartbeat for so long the instance is removed.
    lease: Duration,
    /// When the next heartbeat is due.
    beat: Instant,
    /// When the lease was last confirmed.
    confirmed: Instant,
    /// A renewal under way.
    renewing: Option<Renewing>,
}

/// A call under way.
type Renewing = Pin<Box<dyn Future<Output = Result<Credential, String>> + Send>>;

/// What a session waits for.
enum Event {
    Attach(Result<Option<AttachResponse>, Status>),
    Delta(Result<Option<DeltaDiscoveryResponse>, Status>),
    Sent,
    Command(Option<Command>),
    Health,
    Beat,
    Renew,
    Renewed(Result<Credential, String>),
    Ended(String),
}

/// Serves until the connection breaks or the agent is told to stop.
pub(super) async fn run(agent: &mut Agent, link: Link) -> End {
    match Session::open(agent, link).await {
        Ok(session) => session.serve(agent).await,
        Err(end) => end,
    }
}

impl Session {
    async fn open(agent: &mut Agent, link: Link) -> Result<Self, End> {
        let (attach_out, attach_requests) = mpsc::channel(OUT_MAX);
        let (delta_out, delta_requests) = mpsc::channel(OUT_MAX);
        // Both streams begin with something to say: a server may answer nothing, not even headers, before it has heard
        // something.
        let hello = AttachRequest { message: Some(AttachMessage::Hello(hello(agent))) };
        let mut fits = attach_out.try_send(hello).is_ok();
        agent.knowledge.connected();
        let node = node(agent);
        if let Some(first) = agent.knowledge.poll() {
            fits &= delta_out.try_send(pack_request(&first, Some(node))).is_ok();
        }
        debug_assert!(fits, "fresh channels have room");
        let client = link.client.clone();
        let opening = async move {
            tokio::try_join!(
                client.attach(ReceiverStream::new(attach_requests)),
                client.delta(ReceiverStream::new(delta_requests)),
            )
        };
        match agent.meanwhile(timeout(OPEN_WITHIN, opening)).await {
            Err(stop) => Err(End::Stop(stop)),
            Ok(Err(_)) => Err(End::Broken(format!("opening the streams: no answer within {OPEN_WITHIN:?}"))),
            Ok(Ok(Err(status))) => Err(End::Broken(link.explain("opening the streams", &status).await)),
            Ok(Ok(Ok((attach_in, delta_in)))) => Ok(Self {
                link,
                attach_out,
                attach_in,
                delta_out,
                delta_in,
                lease: LEASE_DEFAULT,
                beat: Instant::now() + LEASE_DEFAULT / HEARTBEATS_PER_LEASE,
                confirmed: Instant::now(),
                renewing: None,
            }),
        }
    }

    async fn serve(mut self, agent: &mut Agent) -> End {
        let mut unsent: Option<Request> = None;
        loop {
            if unsent.is_none() {
                unsent = agent.knowledge.poll();
            }
            let broken = match self.next(agent, &mut unsent).await {
                Event::Attach(Ok(Some(answer))) => {
                    self.attached(agent, answer);
                    None
                }
                Event::Delta(Ok(Some(response))) => learn(agent, response).err(),
                Event::Attach(Ok(None)) | Event::Delta(Ok(None)) => {
                    Some("the control plane ended the stream".into())
                }
                Event::Attach(Err(status)) | Event::Delta(Err(status)) => {
                    return End::Broken(self.link.explain("the control stream", &status).await);
                }
                Event::Ended(why) => Some(why),
                Event::Sent => None,
                Event::Command(Some(Command::Subscribe(service))) => {
                    agent.ask(service);
                    None
                }
                Event::Command(Some(Command::Leave(done))) => {
                    return End::Stop(self.leave(Some(done)).await);
                }
                Event::Command(None) => return End::Stop(self.leave(None).await),
                Event::Health => {
                    self.heartbeat(agent);
                    None
                }
                Event::Beat => {
                    let silent = self.confirmed.elapsed();
                    self.heartbeat(agent);
                    (silent > self.lease).then(|| format!("no word about the lease for {silent:.1?}"))
                }
                Event::Renew => {
                    self.renew(agent);
                    None
                }
                Event::Renewed(Ok(credential)) => {
                    let life = credential.not_after.since(unix_now());
                    tracing::info!(seconds = life.as_secs(), "the certificate was renewed");
                    agent.adopt(credential);
                    return End::Renewed;
                }
                Event::Renewed(Err(reason)) => {
                    self.renewing = None;
                    not_renewed(agent, reason);
                    None
                }
            };
            if let Some(why) = broken {
                return End::Broken(why);
            }
        }
    }

    async fn next(&mut self, agent: &mut Agent, unsent: &mut Option<Request>) -> Event {
        let to_renewal = match (&self.renewing, &agent.renewal) {
            (None, Some(renewal)) => Some(renewal.wait(unix_now())),
            _ => None,
        };
        tokio::select! {
            // In this order: what must not wait comes first, and nothing starves because each arm is short.
            biased;
            command = agent.commands.recv() => Event::Command(command),
            changed = agent.health.changed(), if !agent.health_gone => {
                agent.health_gone = changed.is_err();
                Event::Health
            }
            () = sleep_until(self.beat) => Event::Beat,
            answer = self.attach_in.message() => Event::Attach(answer),
            permit = self.delta_out.reserve(), if unsent.is_some() => {
                match (permit, unsent.take()) {
                    (Ok(permit), Some(request)) => {
                        permit.send(pack_request(&request, None));
                        Event::Sent
                    }
                    _ => Event::Ended(self.link.ended().await),
                }
            }
            response = self.delta_in.message() => Event::Delta(response),
            result = or_never(&mut self.renewing) => Event::Renewed(result),
            () = sleep(to_renewal.unwrap_or_default()), if to_renewal.is_some() => Event::Renew,
            why = self.link.ended() => Event::Ended(why),
        }
    }

    fn attached(&mut self, agent: &mut Agent, answer: AttachResponse) {
        let millis = match answer.message {
            Some(AttachAnswer::Attached(Attached { lease_millis, calls, .. })) => {
                tracing::info!(control = agent.config.control, lease_millis, "attached to the control plane");
                agent.log.forget();
                agent.status.send_modify(|status| {
                    status.attached = true;
                    status.error = None;
                });
                // A name that is none was meant for a newer proxy; everything else still works.
                let calls: BTreeSet<ServiceId> =
                    calls.iter().filter_map(|name| ServiceId::parse(name).ok()).collect();
                agent.declare(calls);
                lease_millis
            }
            Some(AttachAnswer::Renewed(renewed)) => renewed.lease_millis,
            None => return,
        };
        self.lease = Duration::from_millis(millis).clamp(LEASE_MIN, LEASE_MAX);
        self.confirmed = Instant::now();
        self.beat = self.beat.min(self.confirmed + self.lease / HEARTBEATS_PER_LEASE);
    }

    /// A full stream is not waited for: the control plane is not reading, and the lease will show it.
    fn heartbeat(&mut self, agent: &Agent) {
        let beat = Heartbeat {
            health: Some(health(&agent.health.borrow())),
            generation: agent.world.borrow().generation,
        };
        let _full = self.attach_out.try_send(AttachRequest { message: Some(AttachMessage::Heartbeat(beat)) });
        self.beat = Instant::now() + self.lease / HEARTBEATS_PER_LEASE;
    }

    /// Looks whether it is time, and asks.
    fn renew(&mut self, agent: &Agent) {
        let due = agent.renewal.as_ref().is_some_and(|renewal| renewal.is_due(unix_now()));
        let id = agent.credential.borrow().as_ref().map(|credential| credential.id.clone());
        if let (true, Some(id)) = (due, id) {
            self.renewing = Some(Box::pin(link::renew(self.link.client.clone(), id)));
        }
    }

    /// Says goodbye and waits for the control plane to have heard it: it ends the stream then.
    async fn leave(mut self, done: Option<oneshot::Sender<()>>) -> Stop {
        // So that the other stream ends in order, too.
        drop(self.delta_out);
        let goodbye = async {
            let leave = AttachMessage::Leave(Leave { reason: "it is shutting down".into() });
            if self.attach_out.send(AttachRequest { message: Some(leave) }).await.is_ok() {
                drop(self.attach_out);
                while let Ok(Some(_)) = self.attach_in.message().await {}
            }
        };
        let _too_long = timeout(LEAVE_WITHIN, goodbye).await;
        Stop::Leave(done)
    }
}

/// Takes a response of the delta stream in.
fn learn(agent: &mut Agent, response: DeltaDiscoveryResponse) -> Result<(), String> {
    let Response { kind, nonce, generation, resources, removed } =
        parse_response(response).map_err(|error| format!("the control plane sent nonsense: {error}"))?;
    let resources = resources
        .into_iter()
        .map(|Offer { id, version, content }| Offer { id, version, content: parse(kind, &content) })
        .collect();
    let learnt = agent.knowledge.receive(Response { kind, nonce, generation, resources, removed });
    for (key, reason) in &learnt.rejected {
        tracing::warn!(resource = %key, reason, "a resource is refused; what was known of it stays");
    }
    agent.publish();
    Ok(())
}

/// One resource, which rejects only itself.
fn parse(kind: Kind, resource: &xds::Resource) -> Result<Content, String> {
    let known = Known::decode(resource).map_err(|error| error.to_string())?;
    if known.kind() != kind {
        return Err(format!("it is a {}", known.kind()));
    }
    Ok(match known {
        Known::Service(spec) => Content::Service(spec),
        Known::Endpoints(_, endpoints) => Content::Endpoints(endpoints),
        Known::Gateway(spec) => Content::Gateway(spec),
        Known::Egress(spec) => Content::Egress(spec),
    })
}

fn not_renewed(agent: &mut Agent, reason: String) {
    let now = unix_now();
    let Some(renewal) = &mut agent.renewal else { return };
    renewal.failed(now, &mut agent.rng);
    match renewal.urgency(now) {
        Urgency::Late | Urgency::Expired => {
            tracing::warn!(reason, "the certificate is about to end and cannot be renewed");
        }
        Urgency::Fresh | Urgency::Due => {
            tracing::info!(reason, "the certificate was not renewed; trying again")
        }
    }
}

fn hello(agent: &Agent) -> Hello {
    let (version, weight, gateway) = match &agent.config.workload {
        Workload::Sidecar { version, weight, .. } => (version.as_ref(), Some(*weight), false),
        Workload::Gateway { .. } => (None, None, true),
    };
    let tags = &agent.config.own;
    let mesh_address = agent.config.mesh_advertise.filter(|_| !gateway);
    Hello {
        instance: agent.name().to_owned(),
        version: version.map(ToString::to_string).unwrap_or_default(),
        weight,
        mesh_address: mesh_address.map(|address| address.to_string()).unwrap_or_default(),
        protocol: None,
        gateway,
        health: Some(health(&agent.health.borrow())),
        proxy_version: env!("CARGO_PKG_VERSION").into(),
        zone: tags.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        labels: tags.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}

fn health(health: &Health) -> mesh::Health {
    let (healthy, reason) = match health {
        Health::Healthy => (true, String::new()),
        Health::Unknown => (false, "not checked yet".into()),
        Health::Unhealthy(reason) => (false, reason.to_string()),
    };
    mesh::Health { healthy, reason }
}

fn node(agent: &Agent) -> xds::Node {
    let service = agent.credential.borrow().as_ref().map(|credential| credential.id.service.to_string());
    xds::Node {
        id: agent.name().to_owned(),
        cluster: service.unwrap_or_default(),
        user_agent_name: "leno".into(),
        user_agent_version: env!("CARGO_PKG_VERSION").into(),
    }
}

async fn or_never<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
