//! The running mesh: turns what happens into facts for the [`Supervisor`], does what it decides, and tells the
//! operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

use leno_core::time::Instant;
use leno_wire::api::{HealthState, InstanceView, TokenRequest, TokenView};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Api, read_token};
use crate::failure::Failure;

use super::command::Command;
use super::log_file::LogFile;
use super::plan::{InstancePlan, Joins, Kind, Plan, ReadyBy};
use super::probe::{self, Admin, Found};
use super::process::{Launch, News, Process};
use super::signals::Signals;
use super::state::State;
use super::supervise::{Action, Input, MemberId, Supervisor, Timing};
use super::view::View;

mod report;

/// A mesh that is being run.
pub(super) struct Mesh {
    plan: Plan,
    state: State,
    supervisor: Supervisor,
    /// By member.
    slots: Vec<Slot>,
    /// By instance: what the registry says.
    health: Vec<Health>,
    /// By instance: what its sidecar counted, and how much of it in the last second.
    served: Vec<(Option<u64>, Option<f64>)>,
    /// Set when the mesh has been ready.
    ready: watch::Sender<bool>,
    /// Where each gateway listens, as it said; by order of the plan.
    gateways: Vec<Option<SocketAddr>>,
    /// Why the start failed.
    failure: Option<Failure>,
    /// What is run against the mesh.
    command: Option<Command>,
    /// Signals that said to stop.
    signals: u32,
    leno: PathBuf,
    began: Clock,
    /// When the control plane was ready.
    control_ready: Option<Duration>,
    /// Whether Leno's own processes' logs are wanted on the terminal.
    echo: bool,
    view: View,
    admin: Admin,
    tell_news: mpsc::Sender<News>,
    tell_found: mpsc::Sender<Found>,
    /// Questions under way; ended with the mesh.
    questions: JoinSet<()>,
}

/// What is known of a member beyond what the supervisor knows.
struct Slot {
    process: Option<Process>,
    /// Counts launches; news of an earlier one are ignored.
    launch: u32,
    log: Arc<Mutex<LogFile>>,
    /// Its ready line has been read.
    said_ready: bool,
    /// Why its admin server does not say ready; `None`: it does.
    admin: Option<String>,
    /// The question to its admin server.
    asking: Option<AbortHandle>,
    /// How it ended last, or why it could not start.
    ended: Option<String>,
}

/// What the registry says about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Health {
    /// It knows none.
    Unknown,
    /// It gets requests.
    Healthy,
    /// It gets none, for this reason.
    Not(String),
}

/// How a mesh is run.
pub(super) struct Options {
    /// The waits.
    pub(super) timing: Timing,
    /// Whether Leno's own processes' logs are wanted on the terminal.
    pub(super) echo: bool,
    /// This binary.
    pub(super) leno: PathBuf,
    /// When this process began.
    pub(super) began: Clock,
}

impl Mesh {
    /// Runs `plan` until it is told to stop or the command ends; returns the command's exit code, or 0.
    pub(super) async fn run(
        plan: Plan,
        state: State,
        options: Options,
        command: Option<Command>,
        view: View,
    ) -> Result<u8, Failure> {
        let Options { timing, echo, leno, began } = options;
        let mut signals = Signals::listen()?;
        let (tell_news, mut news) = mpsc::channel(NEWS_MAX);
        let (tell_found, mut found) = mpsc::channel(NEWS_MAX);
        let now = Instant::from_nanos(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let specs = plan.members.iter().map(|member| member.spec.clone()).collect();
        let slot = |name: &str| Slot {
            process: None,
            launch: 0,
            log: Arc::new(Mutex::new(LogFile::create(state.logs().join(log_name(name))))),
            said_ready: false,
            admin: Some("it has not been asked".to_owned()),
            asking: None,
            ended: None,
        };
        let slots = plan.members.iter().map(|member| slot(&member.name)).collect();
        let gateways =
            plan.members.iter().filter(|member| member.kind == Kind::Gateway).map(|_| None).collect();
        let mut mesh = Self {
            supervisor: Supervisor::new(specs, timing, now),
            slots,
            health: vec![Health::Unknown; plan.instances.len()],
            served: vec![(None, None); plan.instances.len()],
            ready: watch::Sender::new(false),
            gateways,
            failure: None,
            command,
            signals: 0,
            leno,
            began,
            control_ready: None,
            echo,
            view,
            admin: Admin::new(),
            tell_news,
            tell_found,
            questions: JoinSet::new(),
            plan,
            state,
        };
        let mut tick = tokio::time::interval(probe::COUNT_PACE);
        loop {
            if mesh.act() {
                break;
            }
            let due = mesh.supervisor.poll_timeout().map(|(at, _)| at);
            let wait = due.map_or(IDLE_MAX, |at| at.since(mesh.now()));
            tokio::select! {
                Some(news) = news.recv() => mesh.news(news),
                Some(found) = found.recv() => mesh.found(found),
                () = tokio::time::sleep(wait) => {
                    let now = mesh.now();
                    mesh.supervisor.handle_timeout(now);
                }
                signal = signals.next() => mesh.signal(signal),
                code = Command::ended(&mut mesh.command) => mesh.command_ended(code),
                _ = tick.tick() => mesh.draw(),
            }
        }
        mesh.end().await
    }

    /// Does what the supervisor decided; true when everything has ended.
    fn act(&mut self) -> bool {
        let mut stopped = false;
        while let Some(action) = self.supervisor.poll_action() {
            match action {
                Action::Launch(id) => self.launch(id),
                Action::Terminate(id) => self.end_process(id, Process::terminate),
                Action::Kill(id) => self.end_process(id, Process::kill),
                Action::Recovered(id) => self.tell_recovered(id),
                Action::Restarting(id, delay) => self.tell_restarting(id, delay),
                Action::Ready => self.mesh_ready(),
                Action::GaveUp(why) => self.note_failure(&why),
                Action::Stopped => stopped = true,
            }
        }
        stopped
    }

    fn launch(&mut self, id: MemberId) {
        let slot = &mut self.slots[id];
        slot.launch += 1;
        slot.said_ready = false;
        slot.admin = Some("it has not been asked".to_owned());
        // What the registry said about its predecessor says nothing about it.
        if let ReadyBy::Health(place) | ReadyBy::AdminAndHealth(place) = self.plan.members[id].ready {
            self.health[place] = Health::Unknown;
        }
        match self.plan.members[id].joins.clone() {
            None => self.spawn(id, None),
            Some(joins) => self.mint(id, joins),
        }
    }

    /// Asks for a join token; the process is started when it is there.
    fn mint(&mut self, id: MemberId, joins: Joins) {
        let (member, launch) = (id, self.slots[id].launch);
        let tell = self.tell_found.clone();
        let Some(api_token) = read_token(&self.state.token_file()) else {
            let file = self.state.token_file();
            self.cannot_launch(id, format!("has no join token: {} cannot be read", file.display()), false);
            return;
        };
        let api = Api::new(format!("http://{}", self.plan.api), Some(api_token));
        self.questions.spawn(async move {
            let (service, gateway) = match joins {
                Joins::Service(name) => (Some(name), None),
                Joins::Gateway(name) => (None, Some(name)),
            };
            let request =
                TokenRequest { service, gateway, uses: Some(1), expires_in_seconds: Some(TOKEN_SECONDS) };
            let token = match api.post::<TokenView>("/v1/tokens", &request).await {
                Ok(TokenView { token: Some(token), .. }) => Ok(token),
                Ok(_) => Err("the control plane answered without a token".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            tell.send(Found::Token { member, launch, token }).await.ok();
        });
    }

    fn spawn(&mut self, id: MemberId, token: Option<&str>) {
        let slot = &self.slots[id];
        let launch = Launch {
            plan: &self.plan.members[id],
            leno: &self.leno,
            token,
            member: id,
            launch: slot.launch,
            log: Arc::clone(&slot.log),
            news: self.tell_news.clone(),
        };
        slot.log.lock().unwrap_or_else(PoisonError::into_inner).begin();
        match launch.start() {
            Ok(process) => {
                self.slots[id].process = Some(process);
                self.write_run_file();
            }
            Err(error) => self.cannot_launch(id, format!("cannot be started: {error}"), true),
        }
    }

    fn cannot_launch(&mut self, id: MemberId, why: String, for_good: bool) {
        self.slots[id].ended = Some(why);
        let now = self.now();
        self.supervisor.handle(if for_good { Input::CannotStart(id) } else { Input::Exited(id) }, now);
    }

    /// Ends a process; one that was not started yet has ended already.
    fn end_process(&mut self, id: MemberId, end: fn(&Process)) {
        match &self.slots[id].process {
            Some(process) => end(process),
            None => {
                self.slots[id].launch += 1;
                let now = self.now();
                self.supervisor.handle(Input::Exited(id), now);
            }
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Line { member, launch, stdout, line } => self.line(member, launch, stdout, &line),
            News::Ended { member, launch, how } if launch == self.slots[member].launch => {
                let slot = &mut self.slots[member];
                slot.process = None;
                slot.ended = Some(how);
                slot.said_ready = false;
                if let Some(asking) = slot.asking.take() {
                    asking.abort();
                }
                self.write_run_file();
                let now = self.now();
                self.supervisor.handle(Input::Exited(member), now);
            }
            News::Ended { .. } => {}
        }
    }

    fn line(&mut self, id: MemberId, launch: u32, stdout: bool, line: &str) {
        let member = &self.plan.members[id];
        if member.kind == Kind::Service {
            tracing::debug!(instance = %member.name, "{line}");
            return;
        }
        if self.echo && !stdout {
            eprintln!("{} | {line}", member.name);
        }
        if !stdout || launch != self.slots[id].launch || self.slots[id].said_ready {
            return;
        }
        let Some(ready) = ready_line(line) else { return };
        self.slots[id].said_ready = true;
        let address = |key: &str| ready.get(key).and_then(Value::as_str)?.parse::<SocketAddr>().ok();
        let kind = member.kind;
        match kind {
            Kind::Control => {
                if self.control_ready.is_none() {
                    self.control_ready = Some(self.began.elapsed());
                    self.watch_registry();
                }
            }
            Kind::Gateway => {
                let gateways = self.plan.members[..id].iter().filter(|m| m.kind == Kind::Gateway).count();
                self.gateways[gateways] = address("gateway");
            }
            Kind::Sidecar | Kind::Service => {}
        }
        if let (Kind::Sidecar | Kind::Gateway, Some(admin)) = (kind, address("admin")) {
            let asking = self.admin.clone().until_ready(admin, id, launch, self.tell_found.clone());
            self.slots[id].asking = Some(self.questions.spawn(asking));
        }
        self.check_ready(id);
    }

    fn watch_registry(&mut self) {
        let api = Api::new(format!("http://{}", self.plan.api), None);
        self.questions.spawn(probe::watch_instances(api, self.ready.subscribe(), self.tell_found.clone()));
        if self.view.is_live() {
            let addresses = self.plan.instances.iter().map(|instance| instance.admin).collect();
            self.questions.spawn(self.admin.clone().count(addresses, self.tell_found.clone()));
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Token { member, launch, token } if launch == self.slots[member].launch => match token {
                Ok(token) => self.spawn(member, Some(&token)),
                Err(why) => self.cannot_launch(member, format!("got no join token: {why}"), false),
            },
            Found::Admin { member, launch, not_ready } if launch == self.slots[member].launch => {
                self.slots[member].admin = not_ready;
                self.check_ready(member);
            }
            Found::Token { .. } | Found::Admin { .. } => {}
            Found::Instances(Ok(known)) => {
                for (place, planned) in self.plan.instances.iter().enumerate() {
                    self.health[place] = health(planned, &known);
                }
                for id in 0..self.slots.len() {
                    self.check_ready(id);
                }
            }
            // While the control plane is away, what it said last is the best that is known.
            Found::Instances(Err(_)) => {}
            Found::Served(counts) => {
                for (served, count) in self.served.iter_mut().zip(counts) {
                    let more = served.0.zip(count).map(|(before, now)| now.saturating_sub(before));
                    *served = (count, more.map(|more| more as f64 / probe::COUNT_PACE.as_secs_f64()));
                }
            }
        }
    }

    fn check_ready(&mut self, id: MemberId) {
        let slot = &self.slots[id];
        if slot.process.is_some() && self.missing(id).is_none() {
            let now = self.now();
            self.supervisor.handle(Input::Ready(id), now);
        }
    }

    /// What a started member lacks to be ready.
    fn missing(&self, id: MemberId) -> Option<String> {
        let slot = &self.slots[id];
        let line = || (!slot.said_ready).then(|| "has not said that it is ready".to_owned());
        let admin = || slot.admin.as_ref().map(|why| format!("is not ready: {why}"));
        let healthy = |place: usize| match &self.health[place] {
            Health::Healthy => None,
            Health::Unknown => Some("is not in the registry".to_owned()),
            Health::Not(why) => Some(format!("is not healthy: {why}")),
        };
        match self.plan.members[id].ready {
            ReadyBy::Line => line(),
            ReadyBy::Admin => line().or_else(admin),
            ReadyBy::Health(place) => healthy(place),
            ReadyBy::AdminAndHealth(place) => line().or_else(admin).or_else(|| healthy(place)),
        }
    }

    /// The first signal ends the command, if one runs, and then the mesh; the second ends everything at once.
    fn signal(&mut self, name: &'static str) {
        self.signals += 1;
        let again = self.signals > 1;
        let text = if again { "stopping at once" } else { "stopping" };
        self.view.tell(&json!({ "event": "stopping", "why": name }), text);
        let running = self.command.as_mut().is_some_and(|command| command.end(again));
        if again || !running {
            let now = self.now();
            self.supervisor.handle(if again { Input::StopNow } else { Input::Stop }, now);
        }
    }

    fn command_ended(&mut self, code: u8) {
        let now = self.now();
        self.view.tell(
            &json!({ "event": "command_ended", "status": code }),
            &format!("the command exited with status {code}; stopping"),
        );
        self.supervisor.handle(Input::Stop, now);
    }

    fn mesh_ready(&mut self) {
        self.ready.send_replace(true);
        self.write_run_file();
        self.tell_ready();
        self.start_command();
        self.draw();
    }

    fn start_command(&mut self) {
        let gateway = self.gateway_urls().into_iter().next();
        let Some(command) = &mut self.command else { return };
        let token = read_token(&self.state.token_file()).unwrap_or_default();
        let mut env = vec![
            ("LENO_API_URL", format!("http://{}", self.plan.api)),
            ("LENO_API_TOKEN", token),
            ("LENO_STATE", self.state.path().to_string_lossy().into_owned()),
        ];
        env.extend(gateway.map(|gateway| ("LENO_GATEWAY_URL", gateway)));
        if let Err(failure) = command.start(env) {
            self.failure = Some(failure);
            let now = self.now();
            self.supervisor.handle(Input::Stop, now);
        }
    }

    async fn end(mut self) -> Result<u8, Failure> {
        self.view.close();
        let code = match self.command.take() {
            Some(command) => Some(command.finish().await),
            None => None,
        };
        let seconds = self.began.elapsed().as_secs_f64();
        let result = match (self.failure.take(), code) {
            (Some(failure), _) => Err(failure),
            (None, Some(None)) => {
                Err(Failure::failed("stopped before the mesh was ready; the command did not run"))
            }
            (None, code) => Ok(code.flatten().unwrap_or(0)),
        };
        let text = format!("stopped; no process is left, {seconds:.1} s after the start");
        self.view.tell(&json!({ "event": "stopped" }), &text);
        self.view.finish();
        result
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What the registry says about a planned instance: only one that its sidecar of this run has registered counts.
fn health(planned: &InstancePlan, known: &[InstanceView]) -> Health {
    let same = |view: &&InstanceView| view.service == planned.service && view.name == planned.name;
    match known.iter().find(same) {
        None => Health::Unknown,
        Some(view) if view.connected == Some(false) => Health::Not("its sidecar is not connected".to_owned()),
        Some(view) if view.health == HealthState::Healthy => Health::Healthy,
        Some(view) => Health::Not(view.reason.clone().unwrap_or_else(|| "no reason given".to_owned())),
    }
}

/// The ready line of one of Leno's own processes.
fn ready_line(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value.get("event").and_then(Value::as_str) == Some("ready")).then_some(value)
}

/// `sidecar-of-product-1.log`.
fn log_name(member: &str) -> String {
    format!("{}.log", member.replace([' ', '/'], "-"))
}

/// News that wait for the loop; beyond, processes wait with their output.
const NEWS_MAX: usize = 1024;
/// The longest sleep; nothing is due.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// A join token is used at once.
const TOKEN_SECONDS: u64 = 60;

#[cfg(test)]
mod tests;
