//! `leno up`: a complete mesh on this machine, for as long as it runs.

mod command;
mod log_file;
mod mesh;
mod plan;
mod ports;
mod probe;
mod process;
pub(crate) mod run_file;
mod signals;
mod state;
mod supervise;
mod view;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use leno_config::native::{self, MeshFile};

use crate::capture::tools;
use crate::failure::Failure;
use crate::logging::Level;
use crate::output::Output;

use self::command::Command;
use self::mesh::{Mesh, Options};
use self::plan::Planner;
pub(crate) use self::plan::executable;
use self::state::{State, StateChoice};
use self::supervise::{RESTART_FIRST, Timing};
use self::view::View;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct UpArgs {
    /// The mesh file [default: ./mesh.yaml, else examples/shop/mesh.yaml].
    file: Option<PathBuf>,
    /// Where state and logs are kept [default: .leno/MESH beside the file].
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    state: Option<PathBuf>,
    /// Keep nothing: a temporary state directory, removed at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Run each service in a network namespace of its own, every connection of it intercepted by its sidecar: `on`, `off`, or
    /// `auto`, which does so where it may (root, and the program nft).
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    capture: Capture,
    /// How long the mesh may take to be ready.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    start_timeout: Duration,
    /// Before a process that exited is started again; doubled each time it exits soon [default: 0.5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    restart_delay: Option<Duration>,
    /// Run this once the mesh is ready, with LENO_GATEWAY_URL, LENO_API_URL, LENO_API_TOKEN and LENO_STATE in its
    /// environment; then stop the mesh and exit as it did.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Whether services are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Capture {
    /// Where that is possible.
    #[default]
    Auto,
    /// Or nothing is started.
    On,
    /// They are told their sidecars by the environment.
    Off,
}

impl UpArgs {
    /// Runs the mesh to its end.
    pub(crate) fn run(self, output: Output, log: Option<Level>) -> Result<ExitCode, Failure> {
        let began = Instant::now();
        let file = self.file()?;
        let mesh = load(&file, output)?;
        let command = self.command()?;
        let seed = RandomState::new().hash_one(std::process::id());
        let choice = match (&self.state, self.ephemeral) {
            (Some(path), _) => StateChoice::Named(path),
            (None, true) => StateChoice::Ephemeral,
            (None, false) => StateChoice::Beside(&file),
        };
        let state = State::open(&choice, mesh.name.as_str(), seed)?;
        let capture = self.capture()?;
        let plan = Planner::new(&mesh, &file, &state, log, seed)?.capture(capture).plan()?;
        let leno = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find the running program: {error}")))?;
        let timing = Timing {
            start_max: self.start_timeout,
            restart_first: self.restart_delay.unwrap_or(RESTART_FIRST),
            stop_max: STOP_MAX,
        };
        let options = Options { timing, echo: log.is_some(), leno, began };
        let view = View::new(output, command.is_some(), log.is_some());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        let code = runtime.block_on(Mesh::run(plan, state, options, command, view))?;
        Ok(ExitCode::from(code))
    }

    /// Whether services are captured; says why not, where that is not what was asked for.
    fn capture(&self) -> Result<bool, Failure> {
        match (self.capture, tools::cannot()) {
            (Capture::Off, _) => Ok(false),
            (_, None) => Ok(true),
            (Capture::Auto, Some(why)) => {
                tracing::info!(%why, "services are not captured");
                Ok(false)
            }
            (Capture::On, Some(why)) => Err(Failure::failed(format!("cannot intercept traffic: {why}"))),
        }
    }

    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let found = DEFAULT_FILES.iter().map(Path::new).find(|file| file.exists());
        found.map(Path::to_owned).ok_or_else(|| {
            Failure::invalid(format!(
                "no mesh file: neither {} exists here; name one",
                DEFAULT_FILES.join(" nor ")
            ))
        })
    }

    /// The command, if one was given: looked for now, because the mesh takes a while to start.
    fn command(&self) -> Result<Option<Command>, Failure> {
        let Some(program) = self.command.first() else { return Ok(None) };
        let path = std::env::var_os("PATH").unwrap_or_default();
        plan::executable(Path::new(program), Path::new("."), &path)
            .map_err(|why| Failure::failed(format!("the command {why}")))?;
        Ok(Some(Command::new(self.command.clone())))
    }
}

/// Reads a mesh file; what is wrong with it is told here, compiler-like or as JSON.
pub(crate) fn load(file: &Path, output: Output) -> Result<MeshFile, Failure> {
    match native::load(file) {
        Ok(mesh) => {
            for warning in &mesh.warnings {
                if output == Output::Text {
                    eprint!("{warning}");
                }
            }
            Ok(mesh)
        }
        Err(diagnostics) => {
            match output {
                Output::Text => eprint!("{diagnostics}"),
                Output::Json => crate::output::json(&diagnostics)?,
            }
            Err(Failure::Silent(crate::failure::INVALID))
        }
    }
}

/// Where proxies of a mesh file without a control plane keep the authority that they share.
pub(crate) fn default_identity(file: &Path, mesh: &MeshFile) -> Result<PathBuf, Failure> {
    Ok(state::beside(file)?.join(mesh.name.as_str()).join("identity"))
}

/// Seconds with a fraction, more than 0.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "a number of seconds above 0, such as 0.5 or 30".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time <= WAIT_MAX => Ok(time),
        _ => Err(wrong()),
    }
}

/// Looked for in this order when no file is named.
pub(crate) const DEFAULT_FILES: [&str; 2] = ["mesh.yaml", "examples/shop/mesh.yaml"];
/// Between asking a process to end and killing it; above what a proxy takes to drain.
const STOP_MAX: Duration = Duration::from_secs(5);
/// The longest wait that can be chosen.
const WAIT_MAX: Duration = Duration::from_secs(3600);
