//! `leno warden` and `leno launch`, which `leno run` puts between itself and somebody's command.
//!
//! The warden is the parent of the command and of every process that the command leaves behind. It lives in a process group of its
//! own, so that what kills the group of `leno run` does not kill it, and it ends everything below it once `leno run` is gone, however
//! that went. `launch` is what the command is executed from: it makes sure that the command ends even if the warden is killed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use leno_proxy::netns::Namespace;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, waitpid,
};
use tokio::process::Child;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::hold::exit_code;

use super::processes::{self, descendants, end_all, ended_children};

/// What `leno run` says to the warden.
#[derive(clap::Args, Debug)]
pub(crate) struct WardenArgs {
    /// The process that everything ends with.
    #[arg(long)]
    parent: i32,
    /// The process group in which the command runs.
    #[arg(long)]
    group: i32,
    /// The network namespace in which it runs.
    #[arg(long)]
    namespace: Option<PathBuf>,
    /// Stay until whatever the command started has ended too.
    #[arg(long)]
    wait: bool,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// What the warden says to the process that becomes the command.
#[derive(clap::Args, Debug)]
pub(crate) struct LaunchArgs {
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl LaunchArgs {
    /// Becomes the command; returns only if that is not possible.
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let parent = getppid();
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| Failure::failed(format!("cannot tie the command to its parent: {error}")))?;
        // Had it ended before, nobody would tell.
        if getppid() != parent {
            return Err(Failure::Silent(1));
        }
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(Failure::invalid("no command to run"));
        };
        let error = std::process::Command::new(program).args(arguments).exec();
        eprintln!("error: cannot run `{}`: {error}", program.to_string_lossy());
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Err(Failure::Silent(if missing { NOT_FOUND } else { NOT_EXECUTABLE }))
    }
}

impl WardenArgs {
    /// Runs the command to its end, and ends what it leaves.
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        // Before there is another thread: a namespace is a thread's, and whoever is started later inherits it.
        if let Some(path) = &self.namespace {
            let enter = Namespace::open(path).and_then(|namespace| namespace.enter());
            enter.map_err(|error| cannot("enter the network namespace", &error))?;
        }
        set_child_subreaper(Some(getpid())).map_err(|error| cannot("adopt orphans", &error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| cannot("start a runtime", &error))?;
        let code = runtime.block_on(self.hold())?;
        Ok(ExitCode::from(code))
    }

    async fn hold(&self) -> Result<u8, Failure> {
        // From here on nothing that is forwarded ends this process by itself.
        let mut arrivals = Forwarded::listen()?;
        let mut orphans = on(SignalKind::child())?;
        let mut parent_gone = std::pin::pin!(parent_gone(self.parent)?);
        let own = std::process::id();

        let mut command = self.start()?;
        let pid = command.id();
        let mut code = None;
        loop {
            let waiting = code.is_some();
            tokio::select! {
                status = command.wait(), if !waiting => {
                    let status = status.map_err(|error| cannot("wait for the command", &error))?;
                    code = Some(exit_code(status));
                    if !self.wait || descendants(own).is_empty() {
                        break;
                    }
                }
                forward = arrivals.next() => match pid.filter(|_| !waiting) {
                    Some(pid) => processes::signal(pid, forward),
                    None => descendants(own).into_iter().for_each(|pid| processes::signal(pid, forward)),
                },
                _ = orphans.recv() => {
                    reap_orphans(pid.filter(|_| !waiting));
                    if waiting && descendants(own).is_empty() {
                        break;
                    }
                }
                () = &mut parent_gone => {
                    code = None;
                    break;
                }
            }
        }
        // The command itself is among them if `leno run` is gone. Orphans that end meanwhile are ours to reap.
        let left = || {
            reap_orphans(None);
            descendants(own)
        };
        let ended = end_all(left, GRACE);
        if let (Some(_), 1..) = (code, ended) {
            eprintln!("leno: ended {ended} processes that the command had left behind");
        }
        Ok(code.unwrap_or(1))
    }

    fn start(&self) -> Result<Child, Failure> {
        let leno = std::env::current_exe().map_err(|error| cannot("find the running program", &error))?;
        let mut command = tokio::process::Command::new(leno);
        command.args(["launch", "--"]).args(&self.command).process_group(self.group);
        command.spawn().map_err(|error| cannot("start the command", &error))
    }
}

/// Returns when the process `parent`, which must be our parent, has ended.
fn parent_gone(parent: i32) -> Result<impl Future<Output = ()>, Failure> {
    let parent = Pid::from_raw(parent).ok_or_else(|| Failure::invalid("no parent"))?;
    let process =
        pidfd_open(parent, PidfdFlags::empty()).map_err(|error| cannot("watch `leno run`", &error.into()))?;
    // Only now is it certain whose number it was.
    if getppid() != Some(parent) {
        return Err(Failure::failed("`leno run` has ended already"));
    }
    let (tell, told) = oneshot::channel();
    // A thread, because a blocked wait cannot be cancelled; it ends with this process.
    let watch = move || {
        let ended = |process: &OwnedFd| poll(&mut [PollFd::new(process, PollFlags::IN)], None);
        while ended(&process) == Err(Errno::INTR) {}
        tell.send(()).ok();
    };
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(watch)
        .map_err(|error| cannot("watch `leno run`", &error))?;
    Ok(async move {
        told.await.ok();
    })
}

/// The signals that are passed on.
struct Forwarded {
    kinds: [(Arrivals, Signal); 6],
}

impl Forwarded {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            kinds: [
                (on(SignalKind::terminate())?, Signal::TERM),
                (on(SignalKind::interrupt())?, Signal::INT),
                (on(SignalKind::hangup())?, Signal::HUP),
                (on(SignalKind::quit())?, Signal::QUIT),
                (on(SignalKind::user_defined1())?, Signal::USR1),
                (on(SignalKind::user_defined2())?, Signal::USR2),
            ],
        })
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let arrived = self
                .kinds
                .iter_mut()
                .find_map(|(arrivals, it)| arrivals.poll_recv(cx).is_ready().then_some(*it));
            arrived.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// Reaps what has ended, but for the command, whose status somebody waits for.
fn reap_orphans(command: Option<u32>) {
    for pid in ended_children(std::process::id()).into_iter().filter(|pid| Some(*pid) != command) {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

fn on(kind: SignalKind) -> Result<Arrivals, Failure> {
    signal(kind).map_err(|error| cannot("handle signals", &error))
}

fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot {what}: {error}"))
}

/// Between asking and killing what is left. Nobody waits for it, so it is short.
const GRACE: Duration = Duration::from_secs(2);
/// A shell's exit code for a command that does not exist.
pub(super) const NOT_FOUND: u8 = 127;
/// A shell's exit code for a command that exists and cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;
