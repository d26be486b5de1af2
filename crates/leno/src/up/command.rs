//! The command that is run against a mesh once it is ready. It stays in our process group and keeps the terminal:
//! to it, it looks as if it had been started from the shell.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::time::Instant;

use crate::failure::Failure;

/// What was given after `--`.
pub(super) struct Command {
    argv: Vec<OsString>,
    /// While it runs.
    child: Option<Child>,
    /// When it is killed; set when it was asked to end.
    kill_at: Option<Instant>,
    /// When it has run.
    code: Option<u8>,
}

impl Command {
    /// To be started later; `argv` begins with the program.
    pub(super) fn new(argv: Vec<OsString>) -> Self {
        Self { argv, child: None, kill_at: None, code: None }
    }

    /// Starts it with `env` added to our environment.
    pub(super) fn start(&mut self, env: Vec<(&str, String)>) -> Result<(), Failure> {
        let [program, arguments @ ..] = self.argv.as_slice() else {
            return Err(Failure::invalid("no command after --"));
        };
        let child =
            tokio::process::Command::new(program).args(arguments).envs(env).kill_on_drop(true).spawn();
        let program = program.to_string_lossy();
        self.child = Some(
            child.map_err(|error| Failure::failed(format!("cannot run the command `{program}`: {error}")))?,
        );
        Ok(())
    }

    /// Waits for the end of a running command: its exit code as a shell writes it. Never returns when none runs.
    /// After [`Self::end`] it has [`END_MAX`] before it is killed.
    pub(super) async fn ended(command: &mut Option<Self>) -> u8 {
        let Some(command) = command else { return std::future::pending().await };
        let Some(child) = &mut command.child else { return std::future::pending().await };
        let status = match command.kill_at {
            None => child.wait().await,
            Some(kill_at) => match tokio::time::timeout_at(kill_at, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    child.start_kill().ok();
                    child.wait().await
                }
            },
        };
        let code = status.ok().and_then(|status| status.code().or_else(|| status.signal().map(|n| 128 + n)));
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        command.child = None;
        command.code = Some(code);
        code
    }

    /// Asks it to end, or makes it. False when it does not run.
    pub(super) fn end(&mut self, now: bool) -> bool {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else { return false };
        rustix::process::kill_process(pid, if now { Signal::KILL } else { Signal::TERM }).ok();
        self.kill_at = Some(Instant::now() + END_MAX);
        true
    }

    /// Its exit code, if it has run; one that still runs is killed.
    pub(super) async fn finish(self) -> Option<u8> {
        let mut command = Some(self);
        if let Some(running) = command.as_mut().filter(|command| command.child.is_some()) {
            running.end(true);
            Self::ended(&mut command).await;
        }
        command.and_then(|command| command.code)
    }
}

/// Between asking the command to end and killing it.
const END_MAX: Duration = Duration::from_secs(5);
