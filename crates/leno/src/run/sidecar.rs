//! The sidecar of a run: started, watched, and started again if it ends before the command does.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::failure::Failure;

use super::processes::{self, Known};
use super::tokens::Tokens;

/// How one is started.
pub(super) struct Recipe {
    /// The arguments of `leno proxy`.
    pub(super) arguments: Vec<String>,
    /// Where its join tokens come from: each start needs one.
    pub(super) tokens: Tokens,
    /// Whether its log goes to our stderr.
    pub(super) echo: bool,
    /// How long it may take to be ready.
    pub(super) start_max: Duration,
}

/// One that is ready.
pub(super) struct Sidecar {
    child: Child,
    /// When this is dropped, or we die, it ends.
    _lifeline: Option<ChildStdin>,
    /// Its ready line.
    pub(super) ready: Value,
    log: JoinHandle<VecDeque<String>>,
}

impl Recipe {
    /// Starts it and waits until it says that it is ready.
    pub(super) async fn start(&self) -> Result<Sidecar, Failure> {
        let cannot = |what: &str, error: std::io::Error| Failure::failed(format!("cannot {what}: {error}"));
        let leno = std::env::current_exe().map_err(|error| cannot("find the running program", error))?;
        let token = self.tokens.next().await?;
        let mut command = Command::new(leno);
        command.arg("proxy").args(&self.arguments).arg("--die-with-parent").env("LENO_TOKEN", token);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own group: what the terminal sends is for the command.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| cannot("start the sidecar", error))?;
        let lifeline = child.stdin.take();
        let log = tokio::spawn(last_lines(child.stderr.take(), self.echo));
        let mut lines =
            BufReader::new(child.stdout.take().ok_or_else(|| Failure::failed("the sidecar has no output"))?)
                .lines();
        let ready = timeout(self.start_max, async {
            while let Ok(Some(line)) = lines.next_line().await {
                let said: Option<Value> = serde_json::from_str(&line).ok();
                if let Some(said) = said.filter(|said| said["event"] == "ready") {
                    return Some(said);
                }
            }
            None
        });
        let why = match ready.await {
            Ok(Some(ready)) => {
                // Nothing else is said there, but somebody has to hold the pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Sidecar { child, _lifeline: lifeline, ready, log });
            }
            Ok(None) => "ended",
            Err(_) => "is not ready in time",
        };
        child.start_kill().ok();
        child.wait().await.ok();
        let said = log.await.unwrap_or_default();
        let last = said.iter().rev().find(|line| line.contains("error") || line.contains("ERROR"));
        let last = last.or(said.back()).map_or("it said nothing", String::as_str);
        let last = last.strip_prefix("error: ").unwrap_or(last);
        Err(Failure::failed(format!("the sidecar {why}: {last}")))
    }
}

impl Sidecar {
    /// Which process it is.
    pub(super) fn known(&self) -> Option<Known> {
        Known::now(self.child.id()?)
    }

    /// Waits for its end, which nobody asked for; says how.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Lets it finish what is under way and tell the mesh that it leaves; kills it if that takes too long.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            processes::signal(pid, Signal::TERM);
        }
        if timeout(STOP_MAX, self.child.wait()).await.is_err() {
            self.child.start_kill().ok();
            self.child.wait().await.ok();
        }
        timeout(LOG_MAX, self.log).await.ok();
    }
}

/// Reads a log to its end and returns the last of it.
async fn last_lines(log: Option<tokio::process::ChildStderr>, echo: bool) -> VecDeque<String> {
    let mut last = VecDeque::new();
    let Some(log) = log else { return last };
    let mut lines = BufReader::new(log).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if echo {
            eprintln!("sidecar | {line}");
        }
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

/// For requests under way at the end, as typed to the sidecar.
pub(super) const DRAIN_SECONDS: &str = "3";
/// Above what it takes to drain.
const STOP_MAX: Duration = Duration::from_secs(5);
/// For what is still in the pipe when it has ended.
const LOG_MAX: Duration = Duration::from_millis(200);
/// Lines of its log that are kept to say why it could not start.
const LINES_KEPT: usize = 20;
