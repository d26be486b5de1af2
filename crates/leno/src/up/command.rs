//! The command that is run against a mesh once it is ready. It stays in our process group and keeps the terminal:
//! to it, it looks as if it had been started from the shell.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;

use rustix::process::{Pid, Signal};
use tokio::process::Child;

use crate::failure::Failure;

/// What was given after `--`.
pub(super) struct Command {
    argv: Vec<OsString>,
    /// While it runs.
    child: Option<Child>,
    /// When it has run.
    code: Option<u8>,
}

impl Command {
    /// To be started later; `argv` begins with the program.
    pub(super) fn new(argv: Vec<OsString>) -> Self {
        Self { argv, child: None, code: None }
    }

    /// Starts it with `env` added to our environment.
    pub(super) fn start(&mut self, env: Vec<(&str, String)>) -> Result<(), Failure> {
        let [program, arguments @ ..] = self.argv.as_slice() else {
            return Err(Failure::invalid("no command after --"));
        };
        let child = tokio::process::Command::new(program).args(arguments).envs(env).kill_on_drop(true).spawn();
        let program = program.to_string_lossy();
        self.child =
            Some(child.map_err(|error| Failure::failed(format!("cannot run the command `{program}`: {error}")))?);
        Ok(())
    }

    /// Waits for the end of a running command: its exit code as a shell writes it. Never returns when none runs.
    pub(super) async fn ended(command: &mut Option<Self>) -> u8 {
        let Some(Self { child: Some(child), .. }) = command else { return std::future::pending().await };
        let status = child.wait().await;
        let code = match status {
            Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
            Err(_) => None,
        };
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        if let Some(command) = command {
            command.child = None;
            command.code = Some(code);
        }
        code
    }

    /// Asks it to end, or makes it.
    pub(super) fn end(&mut self, now: bool) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, if now { Signal::KILL } else { Signal::TERM }).ok();
        }
    }

    /// Its exit code, if it has run.
    pub(super) fn code(&mut self) -> Option<u8> {
        self.code
    }
}
