//! `leno hold -- COMMAND…`: runs a command that knows nothing of Leno so that it cannot outlive its supervisor.
//! The supervisor starts it as the leader of a process group and keeps its stdin open; the command runs in that
//! group. When stdin ends (the supervisor is gone, however), the group is asked to end and then made to.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use leno_proxy::netns::Namespace;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct HoldArgs {
    /// The network namespace in which it runs.
    #[arg(long)]
    namespace: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

impl HoldArgs {
    /// Runs the command to its end and exits as it did: with its code, or 128 and the signal's number.
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        // Before there is another thread: a namespace is a thread's, and whoever is started later inherits it.
        if let Some(path) = &self.namespace {
            let enter = Namespace::open(path).and_then(|namespace| namespace.enter());
            enter.map_err(|error| Failure::failed(format!("cannot enter the network namespace: {error}")))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        runtime.block_on(self.hold())
    }

    async fn hold(&self) -> Result<ExitCode, Failure> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(Failure::invalid("no command to hold"));
        };
        let cannot = |what: &str, error: std::io::Error| Failure::failed(format!("cannot {what}: {error}"));
        // Before the command starts: from here on a SIGTERM to the group reaches the command by itself and is
        // only noted here.
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| cannot("handle SIGTERM", e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| cannot("handle SIGINT", e))?;
        let mut parent_gone = std::pin::pin!(crate::parent::stdin_eof());
        let mut command = match Command::new(program).args(arguments).stdin(Stdio::null()).spawn() {
            Ok(command) => command,
            Err(error) => {
                eprintln!("error: cannot run `{program}`: {error}");
                let missing = error.kind() == std::io::ErrorKind::NotFound;
                return Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_EXECUTABLE }));
            }
        };
        loop {
            tokio::select! {
                status = command.wait() => {
                    let status = status.map_err(|error| cannot(&format!("wait for `{program}`"), error))?;
                    return Ok(ExitCode::from(exit_code(status)));
                }
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = &mut parent_gone => {
                    end_group(&mut command).await;
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
}

/// A finished command's status as an exit code, as shells write it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Asks this process's group to end, waits, and kills it: this process with it.
async fn end_group(command: &mut Child) {
    let group = rustix::process::getpgrp();
    // Only a group that was made for us: never the group of a shell from which somebody tries this by hand.
    if group != rustix::process::getpid() {
        command.start_kill().ok();
        return;
    }
    signal_group(group, Signal::TERM);
    tokio::time::timeout(GRACE, command.wait()).await.ok();
    signal_group(group, Signal::KILL);
}

/// Sends `signal` to every process of a group; one that is empty already is what was wanted.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    rustix::process::kill_process_group(group, signal).ok();
}

/// Between asking and killing, when the supervisor is gone. Nobody waits for it, so it is short.
const GRACE: Duration = Duration::from_secs(2);
/// A shell's exit code for a command that does not exist.
const NOT_FOUND: u8 = 127;
/// A shell's exit code for a command that exists and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
