//! One started process: its own process group, its stdin held open as its lifeline, its output read and kept.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::hold::signal_group;

use super::log_file::LogFile;
use super::plan::{MemberPlan, Program};
use super::supervise::MemberId;

/// A running process.
pub(super) struct Process {
    /// It leads a group with this number.
    pub(super) pid: Pid,
    /// When this is dropped, the process ends by itself.
    _lifeline: Option<ChildStdin>,
}

/// What is told about a process.
#[derive(Debug)]
pub(super) enum News {
    /// A line of its output.
    Line {
        /// Whose.
        member: MemberId,
        /// Which launch of it.
        launch: u32,
        /// Whether it was stdout: only Leno's own processes speak there, in JSON.
        stdout: bool,
        /// Without its end; cut at [`LINE_BYTES_MAX`].
        line: String,
    },
    /// It has ended, and everything that it wrote has been told.
    Ended {
        /// Whose.
        member: MemberId,
        /// Which launch of it.
        launch: u32,
        /// How, in words: `exited with status 1`.
        how: String,
    },
}

/// What is needed to start a member's process.
pub(super) struct Launch<'a> {
    /// What to execute.
    pub(super) plan: &'a MemberPlan,
    /// This binary.
    pub(super) leno: &'a Path,
    /// Its join token, if it joins.
    pub(super) token: Option<&'a str>,
    /// Which member it is.
    pub(super) member: MemberId,
    /// How often it was launched before.
    pub(super) launch: u32,
    /// Where its output is kept.
    pub(super) log: Arc<Mutex<LogFile>>,
    /// Who is told.
    pub(super) news: mpsc::Sender<News>,
}

impl Launch<'_> {
    /// Starts it.
    pub(super) fn start(self) -> std::io::Result<Process> {
        let mut child = self.command().spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| std::io::Error::other("the new process has no id"))?;
        let lifeline = child.stdin.take();
        let readers = [self.read(child.stdout.take(), true), self.read(child.stderr.take(), false)];
        tokio::spawn(watch(child, pid, readers, self.member, self.launch, self.news));
        Ok(Process { pid, _lifeline: lifeline })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.leno);
        match &self.plan.program {
            Program::Leno(arguments) => {
                command.args(arguments);
            }
            Program::Held { argv, folder, env, place } => {
                command.arg("hold");
                if let Some(place) = place {
                    command.arg("--namespace").arg(place.path());
                }
                command.arg("--").args(argv).current_dir(folder);
                command.envs(env.iter().map(|(name, value)| (name, value)));
            }
        }
        // In the environment, not in the arguments: those are readable for everybody on the machine.
        if let Some(token) = self.token {
            command.env("LENO_TOKEN", token);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }

    fn read<R: AsyncRead + Unpin + Send + 'static>(
        &self,
        from: Option<R>,
        stdout: bool,
    ) -> Option<JoinHandle<()>> {
        let (member, launch) = (self.member, self.launch);
        let (log, news) = (Arc::clone(&self.log), self.news.clone());
        from.map(|from| {
            tokio::spawn(async move {
                let mut from = BufReader::new(from);
                while let Some(line) = next_line(&mut from).await {
                    log.lock().unwrap_or_else(PoisonError::into_inner).line(&line);
                    if news.send(News::Line { member, launch, stdout, line }).await.is_err() {
                        return;
                    }
                }
            })
        })
    }
}

impl Process {
    /// Asks the whole group to end.
    pub(super) fn terminate(&self) {
        signal_group(self.pid, Signal::TERM);
    }

    /// Ends the whole group.
    pub(super) fn kill(&self) {
        signal_group(self.pid, Signal::KILL);
    }
}

/// Tells of the end, after everything that was written.
async fn watch(
    mut child: Child,
    pid: Pid,
    readers: [Option<JoinHandle<()>>; 2],
    member: MemberId,
    launch: u32,
    news: mpsc::Sender<News>,
) {
    let how = match child.wait().await {
        Ok(status) => in_words(status),
        Err(error) => format!("cannot be waited for: {error}"),
    };
    // What it left behind in its group would hold its port and its pipes.
    signal_group(pid, Signal::KILL);
    for reader in readers.into_iter().flatten() {
        tokio::time::timeout(LAST_WORDS_MAX, reader).await.ok();
    }
    news.send(News::Ended { member, launch, how }).await.ok();
}

/// The next line, without its end; a longer one is cut, and bytes that are no text are replaced. `None` at the end.
async fn next_line<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> Option<String> {
    let mut line = Vec::new();
    let mut limited = (&mut *from).take(LINE_BYTES_MAX);
    match limited.read_until(b'\n', &mut line).await {
        Ok(0) | Err(_) => return None,
        Ok(_) => {}
    }
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Some(String::from_utf8_lossy(text).into_owned())
}

/// How a process ended.
fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        // `leno hold` exits as a shell would.
        (Some(code @ 129..=192), _) => format!("was ended by signal {}", code - 128),
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Longest line that is kept whole; the rest of a longer one counts as the next.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// For output that is still in the pipes when a process has ended. Everybody who could write is dead by then.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_cut_into_lines() {
        let mut text = b"one\r\n\ntwo\xff".to_vec();
        let mut from = BufReader::new(text.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut from).await {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", "two\u{fffd}"]);

        text = vec![b'x'; 3 * LINE_BYTES_MAX as usize];
        let mut from = BufReader::new(text.as_slice());
        assert_eq!(next_line(&mut from).await.map(|line| line.len() as u64), Some(LINE_BYTES_MAX));
    }

    #[test]
    fn ends_are_told_in_words() {
        let told = [0, 256, 143 << 8, 9].map(|raw| in_words(ExitStatus::from_raw(raw)));
        assert_eq!(
            told,
            [
                "exited with status 0",
                "exited with status 1",
                "was ended by signal 15",
                "was ended by signal 9"
            ]
        );
    }
}
