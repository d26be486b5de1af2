//! The proxy's side of the control plane, on the control runtime: joins, keeps the instance's lease, keeps the world
//! and the certificate up to date. The data plane reads the results from `watch` channels and never waits for any of
//! this: while the control plane is away, what was last told serves on.
//!
//! ```text
//!   join (token, pinned TLS) --> certificate --> connect (mutual TLS) --> Attach + delta stream --> broken
//!            ^                                      ^                                                |
//!            '-- only if the certificate ended      '---- backoff 50 ms .. 500 ms, full jitter ------'
//! ```
//!
//! What to subscribe to and what a response changes is decided by `leno_core::knowledge`, when to renew by
//! `leno_core::renewal`, how long to wait by `leno_core::backoff`.

mod link;
mod session;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::backoff::Backoff;
use leno_core::health::{Health, default_spec};
use leno_core::knowledge::Knowledge;
use leno_core::name::ServiceId;
use leno_core::renewal::Renewal;
use leno_core::rng::Rng;
use leno_core::spec::{HealthSpec, Tags, World};
use leno_identity::credential::Credential;
use leno_identity::token::{JoinToken, TokenError};
use leno_wire::grpc::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::access_log::json_string;
use crate::clock::unix_now;
use crate::config::Workload;
use crate::dial::Dialer;
use crate::health;

/// What an agent is told at its start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `host:port` of the control plane's mesh listener.
    pub control: String,
    /// The join token's text.
    pub token: String,
    /// What this proxy is.
    pub workload: Workload,
    /// Where peers reach this sidecar; `None` in a gateway.
    pub mesh_advertise: Option<SocketAddr>,
    /// Makes the connections to the control plane, and to the application that is checked.
    pub dialer: Dialer,
    /// Where this proxy is, and its labels.
    pub own: Tags,
}

/// What the agent knows, for the rest of the proxy; cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    /// What the mesh looks like; the newest one that is complete. Empty at first.
    pub world: watch::Receiver<Arc<World>>,
    /// Who this proxy is; `None` until it has joined. Replaced at each renewal.
    pub credential: watch::Receiver<Option<Arc<Credential>>>,
    status: watch::Receiver<Status>,
    /// What the checks of the application say; always healthy in a gateway.
    pub health: watch::Receiver<Health>,
    commands: mpsc::Sender<Command>,
    /// What this proxy calls itself.
    pub(crate) name: Arc<str>,
    /// Makes calls on the connection to the control plane, while there is one.
    pub(crate) client: watch::Receiver<Option<Client>>,
}

/// How it stands with the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Registered, with both streams open.
    pub attached: bool,
    /// Everything that this proxy wants at its start was heard of, so that the world can be served from. Stays true.
    pub ready: bool,
    /// The generation of the world.
    pub generation: u64,
    /// Why it is not attached, or what else was last wrong; gone when it works again.
    pub error: Option<String>,
    /// Trying again cannot help: the agent has stopped, and `error` says what to do.
    pub failed: bool,
}

/// Starts the agent on the current runtime; `seed` makes its waits reproducible. It runs until
/// [`AgentHandle::leave`], until every handle is gone, or until it fails (see [`Status::failed`]).
///
/// # Errors
/// When the token is no join token.
pub fn start(config: AgentConfig, seed: u64) -> Result<AgentHandle, AgentError> {
    let token = JoinToken::parse(&config.token).map_err(AgentError::Token)?;
    let (world_out, world) = watch::channel(Arc::new(World::default()));
    let (credential_out, credential) = watch::channel(None);
    let (status_out, status) = watch::channel(Status::default());
    let (checks_out, checks) = watch::channel(None);
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (client_out, client) = watch::channel(None);
    let name: Arc<str> = name_of(&config.workload).into();
    let health = match &config.workload {
        Workload::Sidecar { app, .. } => health::check(*app, config.dialer.clone(), checks),
        // Nothing stands beside a gateway. The sender may go: the last value stays.
        Workload::Gateway { .. } => watch::channel(Health::Healthy).1,
    };
    let agent = Agent {
        config,
        token,
        rng: Rng::new(seed),
        knowledge: Knowledge::new(),
        renewal: None,
        world: world_out,
        credential: credential_out,
        status: status_out,
        checks: checks_out,
        health: health.clone(),
        health_gone: false,
        commands: commands_in,
        client: client_out,
        log: Repeated::default(),
    };
    tokio::spawn(agent.run());
    Ok(AgentHandle { world, credential, status, health, commands, name, client })
}

/// Requests for unknown services under way to the agent. They come from every worker, one per request at worst; what
/// does not fit is asked again by the next request.
const COMMANDS_MAX: usize = 256;
/// The first wait after a lost connection is at most this.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
/// And every wait at most this: an instance registered after a restart of the control plane must get requests within a
/// second.
const RECONNECT_CAP: Duration = Duration::from_millis(500);
/// How long a leaving proxy waits for the control plane to hear of it; its lease runs out anyway.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// The same problem is logged again only after this long.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(30);

impl AgentHandle {
    /// The workload calls `service`: its world will hold the service, or say that there is none. False when too many
    /// such questions are under way; ask again at the next request.
    pub fn subscribe(&self, service: ServiceId) -> bool {
        self.commands.try_send(Command::Subscribe(service)).is_ok()
    }

    /// Waits until the world can be served from.
    ///
    /// # Errors
    /// When that will never be: the token is used up, or it is for something else.
    pub async fn ready(&self) -> Result<(), String> {
        let mut status = self.status.clone();
        let done = status.wait_for(|status| status.ready || status.failed).await;
        match done {
            Ok(status) if status.ready => Ok(()),
            Ok(status) => Err(status.error.clone().unwrap_or_default()),
            Err(_) => Err("the agent has stopped".into()),
        }
    }

    /// What was last wrong; empty when nothing is.
    pub fn last_error(&self) -> String {
        self.status.borrow().error.clone().unwrap_or_default()
    }

    /// How it stands with the control plane.
    pub fn status(&self) -> StatusReceiver {
        StatusReceiver { status: self.status.clone(), health: self.health.clone() }
    }

    /// Takes the instance out of the registry, so that no new request comes, and stops the agent. Returns when the
    /// control plane has heard of it, at the latest after [`LEAVE_WITHIN`] and a bit.
    pub async fn leave(&self) {
        let (done, heard) = oneshot::channel();
        let leave = async {
            if self.commands.send(Command::Leave(done)).await.is_ok() {
                // An error means that the agent is gone: then there is nothing left to wait for.
                let _gone = heard.await;
            }
        };
        let _too_long = timeout(LEAVE_WITHIN * 2, leave).await;
    }
}

/// Reads the agent's status.
#[derive(Clone, Debug)]
pub struct StatusReceiver {
    status: watch::Receiver<Status>,
    health: watch::Receiver<Health>,
}

impl StatusReceiver {
    /// As it is now.
    pub fn get(&self) -> Status {
        self.status.borrow().clone()
    }

    /// As it is now, as a JSON object.
    pub fn write_json(&self, out: &mut String) {
        let Status { attached, ready, generation, error, failed } = self.get();
        let (health, reason) = match &*self.health.borrow() {
            Health::Unknown => ("unknown", None),
            Health::Healthy => ("healthy", None),
            Health::Unhealthy(reason) => ("unhealthy", Some(reason.clone())),
        };
        out.push_str(&format!(
            "{{\"attached\":{attached},\"ready\":{ready},\"generation\":{generation},\"failed\":{failed},\
             \"health\":\"{health}\",\"health_reason\":"
        ));
        write_optional(out, reason.as_deref());
        out.push_str(",\"error\":");
        write_optional(out, error.as_deref());
        out.push('}');
    }
}

fn write_optional(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => json_string(out, text.as_bytes()),
        None => out.push_str("null"),
    }
}

/// What the rest of the proxy wants of the agent.
enum Command {
    /// To know this service.
    Subscribe(ServiceId),
    /// To leave the mesh.
    Leave(oneshot::Sender<()>),
}

/// The agent's task.
struct Agent {
    config: AgentConfig,
    token: JoinToken,
    rng: Rng,
    /// What is wanted and known; the one source of `world`.
    knowledge: Knowledge,
    /// The present certificate's schedule.
    renewal: Option<Renewal>,
    world: watch::Sender<Arc<World>>,
    credential: watch::Sender<Option<Arc<Credential>>>,
    status: watch::Sender<Status>,
    /// Tells the health checks what to ask.
    checks: watch::Sender<Option<Arc<HealthSpec>>>,
    health: watch::Receiver<Health>,
    /// Nothing will change in `health` any more.
    health_gone: bool,
    commands: mpsc::Receiver<Command>,
    /// Lent out while a connection stands.
    client: watch::Sender<Option<Client>>,
    log: Repeated,
}

/// Why the agent's present activity is over.
enum Stop {
    /// It was told to leave, and whoever said so waits for this; or every handle is gone.
    Leave(Option<oneshot::Sender<()>>),
    /// Trying again cannot help.
    Failed(String),
}

impl Agent {
    async fn run(mut self) {
        let stop = self.work().await;
        self.status.send_modify(|status| status.attached = false);
        match stop {
            Stop::Leave(Some(done)) => {
                let _nobody_waits = done.send(());
            }
            Stop::Leave(None) => {}
            Stop::Failed(reason) => {
                tracing::warn!(reason, "this proxy cannot be a part of the mesh");
                self.status.send_modify(|status| {
                    status.error = Some(reason);
                    status.failed = true;
                });
            }
        }
    }

    async fn work(&mut self) -> Stop {
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_CAP);
        loop {
            let why = match self.connect().await {
                Ok(link) => {
                    let started = Instant::now();
                    self.client.send_replace(Some(link.client.clone()));
                    let end = session::run(self, link).await;
                    self.client.send_replace(None);
                    self.knowledge.disconnected();
                    let why = match end {
                        session::End::Stop(stop) => return stop,
                        session::End::Renewed => continue,
                        session::End::Broken(why) => why,
                    };
                    // A connection that breaks at once is no success: it must not be tried in a tight circle.
                    if started.elapsed() > RECONNECT_CAP {
                        backoff.succeeded();
                    }
                    why
                }
                Err(Failure::Stop(stop)) => return stop,
                Err(Failure::Again(why)) => why,
            };
            self.complain(why);
            let wait = backoff.failed(&mut self.rng);
            if let Err(stop) = self.meanwhile(tokio::time::sleep(wait)).await {
                return stop;
            }
        }
    }

    /// A connection with our identity; joins first if there is none or it has ended.
    async fn connect(&mut self) -> Result<link::Link, Failure> {
        let held = self.credential.borrow().clone();
        let credential = match held.filter(|credential| credential.is_valid(unix_now())) {
            Some(credential) => credential,
            None => {
                let name = self.name().to_owned();
                let join = link::join(
                    self.config.dialer.clone(),
                    self.config.control.clone(),
                    self.token.clone(),
                    name,
                );
                let credential = match self.meanwhile(join).await? {
                    Ok(credential) => credential,
                    Err(link::JoinError::Refused(why)) => {
                        return Err(Stop::Failed(format!("{why}; it needs a new join token")).into());
                    }
                    Err(link::JoinError::Again(why)) => return Err(Failure::Again(why)),
                };
                self.check_identity(&credential)?;
                tracing::info!(id = %credential.id, "joined the mesh");
                self.adopt(credential)
            }
        };
        let dial = link::dial(self.config.dialer.clone(), self.config.control.clone(), credential);
        self.meanwhile(dial).await?.map_err(Failure::Again)
    }

    /// The token decides who we are; the command line said what was meant.
    fn check_identity(&self, credential: &Credential) -> Result<(), Stop> {
        let found = &credential.id.service;
        let (fits, meant) = match &self.config.workload {
            Workload::Sidecar { service, .. } => (found == service, format!("service {service}")),
            Workload::Gateway { name } => (found.name == *name, format!("gateway {name}")),
        };
        if fits {
            return Ok(());
        }
        Err(Stop::Failed(format!("the join token is for {found}, this proxy is meant for {meant}")))
    }

    /// Publishes a new credential and plans the next one.
    fn adopt(&mut self, credential: Credential) -> Arc<Credential> {
        let own = credential.id.service.clone();
        match &self.config.workload {
            Workload::Sidecar { .. } => self.knowledge.set_own(own),
            Workload::Gateway { .. } => self.knowledge.set_gateway(own),
        }
        self.renewal = Some(Renewal::new(credential.not_after, unix_now(), &mut self.rng));
        let credential = Arc::new(credential);
        self.credential.send_replace(Some(credential.clone()));
        credential
    }

    /// Makes the world follow from what is known.
    fn publish(&mut self) {
        let version = match &self.config.workload {
            Workload::Sidecar { version, .. } => version.as_ref(),
            Workload::Gateway { .. } => None,
        };
        let Tags { zone, labels } = &self.config.own;
        let own = Tags { zone: zone.clone(), labels: labels.with_version(version) };
        let world = World { own, ..self.knowledge.world() };
        if let Some(spec) = self.what_to_check(&world) {
            self.checks.send_if_modified(|known| {
                let changed = known.as_deref() != Some(&spec);
                if changed {
                    *known = Some(Arc::new(spec));
                }
                changed
            });
        }
        let ready = self.knowledge.is_complete();
        let generation = world.generation;
        self.world.send_if_modified(|known| {
            let changed = **known != world;
            if changed {
                *known = Arc::new(world);
            }
            changed
        });
        self.status.send_if_modified(|status| {
            let before = (status.ready, status.generation);
            status.ready |= ready && status.attached;
            status.generation = generation;
            before != (status.ready, status.generation)
        });
        if self.knowledge.overflows() {
            let limit = leno_core::knowledge::SERVICES_MAX;
            self.mention(format!("rules and calls lead to more than {limit} services; some are left out"));
        }
    }

    /// How the application is to be checked; `None` while that is not known.
    fn what_to_check(&self, world: &World) -> Option<HealthSpec> {
        let own = match &self.config.workload {
            Workload::Sidecar { service, .. } => service,
            Workload::Gateway { .. } => return None,
        };
        match world.services.get(own) {
            Some(known) => Some(known.spec.health.clone().unwrap_or_else(default_spec)),
            None => world.absent.contains(own).then(default_spec),
        }
    }

    fn declare(&mut self, calls: BTreeSet<ServiceId>) {
        self.knowledge.set_declared(calls);
        self.publish();
    }

    fn ask(&mut self, service: ServiceId) {
        match self.knowledge.ask(service) {
            Ok(()) => self.publish(),
            Err(error) => self.mention(error.to_string()),
        }
    }

    /// Shows what is wrong in the status, and in the log unless it was said a moment ago.
    fn complain(&mut self, why: String) {
        if self.log.is_news(&why) {
            tracing::warn!(control = self.config.control, reason = why, "the control plane is out of reach");
        }
        self.status.send_modify(|status| {
            status.attached = false;
            status.error = Some(why);
        });
    }

    /// The same for what is wrong while everything else works.
    fn mention(&mut self, why: String) {
        if self.log.is_news(&why) {
            tracing::warn!(reason = why, "this proxy knows less of the mesh than it should");
        }
        self.status.send_modify(|status| status.error = Some(why));
    }

    fn name(&self) -> &str {
        name_of(&self.config.workload)
    }

    /// Awaits `activity` while commands are taken in.
    async fn meanwhile<T>(&mut self, activity: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(activity);
        loop {
            tokio::select! {
                result = &mut activity => return Ok(result),
                command = self.commands.recv() => match command {
                    Some(Command::Subscribe(service)) => self.ask(service),
                    Some(Command::Leave(done)) => return Err(Stop::Leave(Some(done))),
                    None => return Err(Stop::Leave(None)),
                },
            }
        }
    }
}

/// What a proxy calls itself.
fn name_of(workload: &Workload) -> &str {
    match workload {
        Workload::Sidecar { instance, .. } => instance.as_str(),
        Workload::Gateway { name } => name.as_str(),
    }
}

/// Why there is no connection.
enum Failure {
    /// The agent stops.
    Stop(Stop),
    /// Worth trying again.
    Again(String),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Keeps a log from saying the same thing twice a second.
#[derive(Debug, Default)]
struct Repeated {
    last: Option<(String, Instant)>,
}

impl Repeated {
    fn is_news(&mut self, what: &str) -> bool {
        let known = self.last.as_ref();
        if known.is_some_and(|(last, at)| last == what && at.elapsed() < REPEAT_LOG_AFTER) {
            return false;
        }
        self.last = Some((what.to_owned(), Instant::now()));
        true
    }

    fn forget(&mut self) {
        self.last = None;
    }
}

/// Why an agent cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentError {
    /// The token is no join token.
    Token(TokenError),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AgentError {}

#[cfg(test)]
mod tests;
