//! `leno run`: any program beside a sidecar of its own, every connection of it intercepted.
//!
//! ```text
//!   leno run ─┬─ leno proxy ········· in our namespace: reaches peers and the world; its lifeline is our hand
//!             └─ leno warden ──┐      in the program's namespace, in a process group of its own
//!                              └─ COMMAND and whatever it starts: in the program's namespace, our group and terminal
//! ```
//!
//! Nothing of a run has a name in the system but a file that tells the next run what to look for. The namespace is held by processes
//! only; the processes end with `leno run`, which the sidecar sees by the end of its stdin, the warden by a descriptor of our process.

mod leftovers;
mod processes;
mod sidecar;
mod tokens;
pub(crate) mod warden;

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::Tags;
use rustix::process::{Pid, Signal, getpgrp, getpid, setpgid};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::capture::place::Place;
use crate::client::{ApiArgs, read_token};
use crate::failure::Failure;
use crate::hold::exit_code;
use crate::logging::Level;
use crate::output::{self, Output};
use crate::tags::TagFlags;
use crate::up::run_file::RunFile;

use self::leftovers::{Cleaned, Entry, Noted};
use self::processes::{Known, end_all, members};
use self::sidecar::{DRAIN_SECONDS, Recipe, Sidecar};
use self::tokens::Tokens;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    /// The service that the program is an instance of [default: one with the program's name].
    #[arg(long, value_name = "NAME", value_parser = crate::proxy::service_id)]
    service: Option<ServiceId>,
    /// The port on which the program listens, on whichever of its addresses; without one it only calls others.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The instance's name, unique in the service [default: the service's with something random].
    #[arg(long, value_name = "NAME", value_parser = crate::proxy::label)]
    instance: Option<Label>,
    /// The instance's version.
    #[arg(long, value_name = "VERSION", value_parser = crate::proxy::label)]
    version: Option<Label>,
    /// The instance's share beside the others; 0 takes no new requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    weight: u32,
    #[command(flatten)]
    tags: TagFlags,
    /// Add to the program's environment; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Join the mesh of the control plane at this address [default: the mesh that `leno up` runs here].
    #[arg(long, value_name = "HOST:PORT", value_parser = crate::proxy::host_and_port)]
    control: Option<String>,
    /// With --control: a file with the join token [default: the variable LENO_TOKEN].
    #[arg(long, value_name = "FILE", requires = "control")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArgs,
    /// Where other sidecars' requests are accepted.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    mesh_listen: SocketAddr,
    /// The address that other sidecars are told to use [default: where it listens].
    #[arg(long, value_name = "ADDR")]
    mesh_advertise: Option<SocketAddr>,
    /// Where the sidecar's metrics and readiness are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Intercept nothing: the program shares our network and is told its sidecar by HTTP_PROXY. Needs no root.
    #[arg(long)]
    no_capture: bool,
    /// Stay until whatever the program left behind has ended too, for programs that go into the background.
    #[arg(long)]
    wait: bool,
    /// How long the sidecar may take to be ready.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = crate::up::seconds)]
    start_timeout: Duration,
    /// Only end what earlier runs left behind.
    #[arg(long, conflicts_with = "command")]
    clean: bool,
    /// The program and its arguments.
    #[arg(required_unless_present = "clean", last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is decided before anything is started.
struct Plan {
    service: ServiceId,
    instance: String,
    /// Unique on this machine, also among runs of one instance's name.
    name: String,
    control: String,
    tokens: Tokens,
}

impl RunArgs {
    /// Runs the program to its end and exits as it did.
    pub(crate) fn run(self, output: Output, log: Option<Level>) -> Result<ExitCode, Failure> {
        let cleaned = leftovers::clean();
        if self.clean {
            match output {
                Output::Json => output::json(&cleaned)?,
                Output::Text => output::line(&in_words(&cleaned))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        if cleaned.runs > 0 && cleaned.processes > 0 {
            eprintln!("leno: {}", in_words(&cleaned));
        }
        self.find_program()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        let code = runtime.block_on(self.supervise(log))?;
        Ok(ExitCode::from(code))
    }

    /// Before anything is started, because the sidecar takes a while.
    fn find_program(&self) -> Result<(), Failure> {
        let Some(program) = self.command.first() else { return Err(Failure::invalid("no command after --")) };
        let path = self.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.into());
        let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        crate::up::executable(Path::new(program), Path::new("."), &path).map_err(|why| {
            eprintln!("error: the command {why}");
            let there = Path::new(program).components().count() > 1 && Path::new(program).exists();
            Failure::Silent(if there { warden::NOT_EXECUTABLE } else { warden::NOT_FOUND })
        })
    }

    async fn supervise(&self, log: Option<Level>) -> Result<u8, Failure> {
        let mut signals = Signals::listen()?;
        let plan = self.plan()?;
        let tags = self.tags.resolve()?;
        let place = if self.no_capture { None } else { Some(self.place(&plan)?) };
        let recipe = Recipe {
            arguments: self.proxy_arguments(&plan, &tags, place.as_ref(), log),
            tokens: plan.tokens,
            echo: log.is_some(),
            start_max: self.start_timeout,
        };
        let sidecar = tokio::select! {
            sidecar = recipe.start() => sidecar?,
            number = signals.next() => return Ok(ended_by(number)),
        };
        if let Some(place) = &place {
            place.intercept()?;
        }
        let mut warden = self.start(&plan.service, &plan.instance, place.as_ref(), &sidecar.ready)?;
        let entry = Entry {
            name: plan.name,
            run: Known::now(std::process::id()).ok_or_else(|| Failure::failed("/proc cannot be read"))?,
            namespace: place.as_ref().map(Place::number).transpose()?,
            processes: Vec::new(),
            command: self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        };
        let mut watched = Watched { sidecar: Some(sidecar), entry, noted: None };
        watched.note(&warden);
        let code = watched.until_over(&mut warden, &recipe, &mut signals).await;
        watched.end().await;
        Ok(code)
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let service = self.service()?;
        let random = RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
        let instance = self.instance.as_ref().map(ToString::to_string);
        // A label has room for 63.
        let short: String = service.name.as_str().chars().take(40).collect();
        let instance =
            instance.unwrap_or_else(|| format!("{}-run-{:08x}", short.trim_end_matches('-'), random as u32));
        let (control, tokens) = match &self.control {
            Some(control) => {
                let token = match &self.token_file {
                    Some(file) => read_token(file).ok_or_else(|| {
                        Failure::failed(format!("no token can be read from {}", file.display()))
                    })?,
                    None => std::env::var("LENO_TOKEN")
                        .ok()
                        .filter(|token| !token.trim().is_empty())
                        .ok_or_else(|| {
                            Failure::invalid(
                                "--control needs a join token: --token-file or the variable LENO_TOKEN",
                            )
                        })?,
                };
                (control.clone(), Tokens::Given(token.trim().to_owned()))
            }
            None => {
                let running = self.api.running()?.ok_or_else(|| {
                    Failure::failed(
                        "no mesh of `leno up` runs here; start one, name its --state, or name another control plane with --control",
                    )
                })?;
                let RunFile { control, .. } = running;
                (control, Tokens::Made { api: Box::new(self.api.resolve()?), service: service.to_string() })
            }
        };
        let name = format!("{instance}.{}", std::process::id());
        Ok(Plan { service, instance, name, control, tokens })
    }

    fn service(&self) -> Result<ServiceId, Failure> {
        if let Some(service) = &self.service {
            return Ok(service.clone());
        }
        let name = self.command.first().and_then(|program| Path::new(program).file_name()?.to_str());
        let name = name.unwrap_or_default();
        ServiceId::parse(name)
            .map_err(|_| Failure::invalid(format!("`{name}` cannot be a service's name: give --service")))
    }

    fn place(&self, plan: &Plan) -> Result<Place, Failure> {
        Place::make(&plan.name).map_err(|failure| {
            Failure::failed(format!("{failure}; --no-capture runs the program with HTTP_PROXY instead"))
        })
    }

    fn proxy_arguments(
        &self,
        plan: &Plan,
        tags: &Tags,
        place: Option<&Place>,
        log: Option<Level>,
    ) -> Vec<String> {
        // Without a port there is nothing to send to: the instance takes no requests.
        let (port, weight) = self.port.map_or((NO_PORT, 0), |port| (port, self.weight));
        let mut arguments: Vec<String> = Vec::new();
        let mut give = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        give("--control", plan.control.clone());
        give("--service", plan.service.to_string());
        give("--instance", plan.instance.clone());
        if let Some(version) = &self.version {
            give("--version", version.to_string());
        }
        give("--weight", weight.to_string());
        give("--app", format!("127.0.0.1:{port}"));
        give("--mesh-listen", self.mesh_listen.to_string());
        if let Some(address) = self.mesh_advertise {
            give("--mesh-advertise", address.to_string());
        }
        // Inside the namespace, if there is one: for programs that are told a proxy by other means.
        give("--proxy-listen", "127.0.0.1:0".to_owned());
        give("--admin", self.admin.to_string());
        give("--drain-seconds", DRAIN_SECONDS.to_owned());
        if let Some(level) = log {
            give("--log", level.word().to_owned());
        }
        arguments.extend(crate::tags::arguments(tags));
        arguments.extend(place.into_iter().flat_map(Place::proxy_arguments));
        arguments
    }

    /// Starts the program, held by a warden.
    fn start(
        &self,
        service: &ServiceId,
        instance: &str,
        place: Option<&Place>,
        ready: &Value,
    ) -> Result<Child, Failure> {
        let leno = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find the running program: {error}")))?;
        let mut command = Command::new(leno);
        command.arg("warden").arg("--parent").arg(std::process::id().to_string());
        command.arg("--group").arg(own_group().as_raw_nonzero().to_string());
        if let Some(place) = place {
            command.arg("--namespace").arg(place.path());
        }
        if self.wait {
            command.arg("--wait");
        }
        command.arg("--").args(&self.command);
        command.env("SERVICE", service.name.as_str()).env("INSTANCE", instance);
        // The token is the sidecar's.
        command.env_remove("LENO_TOKEN");
        if let Some(version) = &self.version {
            command.env("VERSION", version.as_str());
        }
        if let Some(port) = self.port {
            command.env("PORT", port.to_string());
        }
        let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        match (place, ready["proxy"].as_str()) {
            // A proxy that our environment names is not reachable from the namespace by its usual means, nor needed.
            (Some(_), _) => proxies.iter().for_each(|name| {
                command.env_remove(name);
            }),
            (None, Some(proxy)) => {
                command
                    .env("HTTP_PROXY", format!("http://{proxy}"))
                    .env("http_proxy", format!("http://{proxy}"));
                command.env("NO_PROXY", NO_PROXY).env("no_proxy", NO_PROXY);
            }
            (None, None) => {}
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.process_group(0);
        command.spawn().map_err(|error| Failure::failed(format!("cannot start the program: {error}")))
    }
}

/// A run under way.
struct Watched {
    /// `None` while it is being started again.
    sidecar: Option<Sidecar>,
    entry: Entry,
    noted: Option<Noted>,
}

impl Watched {
    /// Tells the next run what there is.
    fn note(&mut self, warden: &Child) {
        let warden = warden.id().and_then(Known::now);
        let sidecar = self.sidecar.as_ref().and_then(Sidecar::known);
        self.entry.processes = warden.into_iter().chain(sidecar).collect();
        match self.entry.write() {
            Ok(path) => {
                self.noted.get_or_insert(Noted(path));
            }
            Err(why) => {
                eprintln!("leno: {why}; if this run is killed, the next one will not find what is left of it")
            }
        }
    }

    /// Passes signals on and keeps a sidecar running until the command has ended; its exit code.
    async fn until_over(&mut self, warden: &mut Child, recipe: &Recipe, signals: &mut Signals) -> u8 {
        let mut again_at = Instant::now();
        let mut pause = RESTART_FIRST;
        loop {
            let sidecar = async {
                match &mut self.sidecar {
                    Some(sidecar) => Err(sidecar.ended().await),
                    None => {
                        sleep_until(again_at).await;
                        Ok(recipe.start().await)
                    }
                }
            };
            tokio::select! {
                status = warden.wait() => return status.map_or(1, exit_code),
                number = signals.next() => if let Some(pid) = warden.id() {
                    processes::signal(pid, number);
                },
                news = sidecar => match news {
                    Err(how) => {
                        eprintln!("leno: the sidecar ended ({how}); it is started again");
                        self.sidecar = None;
                        again_at = Instant::now() + pause;
                    }
                    Ok(Ok(sidecar)) => {
                        self.sidecar = Some(sidecar);
                        self.note(warden);
                        pause = RESTART_FIRST;
                    }
                    Ok(Err(why)) => {
                        pause = (pause * 2).min(RESTART_MOST);
                        again_at = Instant::now() + pause;
                        eprintln!("leno: {why}; again in {pause:?}");
                    }
                },
            }
        }
    }

    /// Ends what is left.
    async fn end(mut self) {
        // The warden has ended everything, unless somebody killed it.
        if let Some(namespace) = self.entry.namespace {
            end_all(|| members(namespace), GRACE);
        }
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.stop().await;
        }
        drop(self.noted);
    }
}

/// The signals that are passed on to the command.
struct Signals {
    kinds: Vec<(tokio::signal::unix::Signal, Signal)>,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let on = |kind, number| match signal(kind) {
            Ok(arrivals) => Ok((arrivals, number)),
            Err(error) => Err(Failure::failed(format!("cannot handle signals: {error}"))),
        };
        Ok(Self {
            kinds: vec![
                on(SignalKind::terminate(), Signal::TERM)?,
                on(SignalKind::interrupt(), Signal::INT)?,
                on(SignalKind::hangup(), Signal::HUP)?,
                on(SignalKind::quit(), Signal::QUIT)?,
                on(SignalKind::user_defined1(), Signal::USR1)?,
                on(SignalKind::user_defined2(), Signal::USR2)?,
            ],
        })
    }

    /// The next one that the command has not got by itself.
    async fn next(&mut self) -> Signal {
        loop {
            let number = std::future::poll_fn(|cx| {
                let mut kinds = self.kinds.iter_mut();
                let arrived =
                    kinds.find_map(|(arrivals, it)| arrivals.poll_recv(cx).is_ready().then_some(*it));
                arrived.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            })
            .await;
            if !(matches!(number, Signal::INT | Signal::QUIT) && in_the_foreground()) {
                return number;
            }
        }
    }
}

/// Our process group. One whose leader is outside our PID namespace has no number here; then we make one of our own.
fn own_group() -> Pid {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; behind it come state, parent and group (proc_pid_stat(5)).
    let group = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2));
    if group == Some("0") {
        // A failure means that we lead a session, and then a group with a number.
        let _ = setpgid(None, None);
        return getpid();
    }
    getpgrp()
}

/// Whether what is typed at the terminal reaches our process group, in which the command is: it has got Ctrl-C by itself.
fn in_the_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group: Pid| group == own_group())
}

fn ended_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

fn in_words(cleaned: &Cleaned) -> String {
    match (cleaned.runs, cleaned.processes) {
        (0, _) => "nothing was left behind".to_owned(),
        (runs, processes) => format!("cleaned up after {runs} earlier runs: ended {processes} processes"),
    }
}

/// `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The port of a program that listens on none: nothing listens there (RFC 863 is long gone).
const NO_PORT: u16 = 9;
/// Hosts that a program reaches without its sidecar: itself.
const NO_PROXY: &str = "127.0.0.1,localhost";
/// Before a sidecar that ended is started again; doubled each time that this fails.
const RESTART_FIRST: Duration = Duration::from_millis(250);
/// But not above this.
const RESTART_MOST: Duration = Duration::from_secs(10);
/// Between asking and killing what a killed warden left.
const GRACE: Duration = Duration::from_secs(2);
