//! The load generator, `crates/leno-load`, as a child that is told when to begin.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::candidate::{Setup, Stage, path_text, rule_path};
use super::certificates::SERVER_NAME;
use super::process::PINNED;
use super::protocol::Protocol;
use super::scenario::{Case, Spread, Transfer};
use super::upstream::Upstream;
use crate::shell;

/// What it measured.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) duration: Duration,
    /// In us, at [`PERCENTILES`].
    pub(super) latencies: [f64; 5],
    /// How long a request waited for a free connection, or for the generator itself: the 99th percentile in us.
    pub(super) wait_p99: f64,
}

/// The names of a load's latencies.
pub(super) const PERCENTILES: [&str; 5] = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];

/// A running generator, connected and warm.
pub(super) struct Generator {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Generator {
    /// Builds it: its own profile is optimised and quick to compile.
    pub(super) fn build() -> Result<PathBuf, String> {
        if shell::succeeds(shell::cargo().args(["build", "--quiet", "-p", "leno-load"])) {
            Ok(shell::target_dir().join("debug/leno-load"))
        } else {
            Err("cargo build -p leno-load failed".into())
        }
    }

    /// Starts it on its core; returns when all connections had a right answer and the warm-up is over.
    pub(super) fn start(
        stage: &Stage<'_>,
        entry: SocketAddr,
        case: &Case,
        setup: &Setup,
        upstream: &Upstream,
        milliseconds: u64,
    ) -> Result<Self, String> {
        let log = stage.load.with_file_name("leno-load.log");
        let errors = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut child = Command::new("sh")
            .args(["-c", PINNED, &stage.cores.load.to_string()])
            .arg(&stage.load)
            .args(arguments(stage, entry, case, setup, upstream, milliseconds))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("leno-load does not start: {error}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let generator = Self { child, lines, log };
        generator.line(CONNECT + Duration::from_millis(case.warm_milliseconds))?;
        Ok(generator)
    }

    /// Makes the load.
    pub(super) fn measure(&mut self, milliseconds: u64) -> Result<Load, String> {
        let stdin = self.child.stdin.as_mut().ok_or("no standard input")?;
        let told = writeln!(stdin, "go").and_then(|()| stdin.flush());
        told.map_err(|error| format!("leno-load: {error}"))?;
        let line = self.line(Duration::from_millis(milliseconds) + END)?;
        let said: Value =
            serde_json::from_str(&line).map_err(|error| format!("leno-load said {line}: {error}"))?;
        let requests = said["requests"].as_u64().unwrap_or(0);
        let number = |name: &str| said[name].as_f64().unwrap_or(0.0);
        if requests == 0 {
            return Err("no request was answered".into());
        }
        Ok(Load {
            requests,
            duration: Duration::from_secs_f64(number("duration_us") / 1e6),
            latencies: PERCENTILES.map(number),
            wait_p99: number("wait_p99_us"),
        })
    }

    fn line(&self, patience: Duration) -> Result<String, String> {
        self.lines.recv_timeout(patience).map_err(|error| {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            match error {
                mpsc::RecvTimeoutError::Timeout => format!("leno-load said nothing for {patience:?}"),
                mpsc::RecvTimeoutError::Disconnected => said.trim().to_owned(),
            }
        })
    }
}

/// Whether one connection gets one right answer.
pub(super) fn ask_once(
    stage: &Stage<'_>,
    entry: SocketAddr,
    setup: &Setup,
    upstream: &Upstream,
) -> Result<(), String> {
    let mut case = Case::usual(1);
    case.warm_milliseconds = 0;
    let mut command = Command::new(&stage.load);
    command.args(arguments(stage, entry, &case, setup, upstream, 0));
    // It is ready, and then nobody says go.
    match shell::output(&mut command) {
        Err(said) if said.contains("\"ready\"") => Ok(()),
        Err(said) => Err(said),
        Ok(said) => Err(format!("leno-load said {said}")),
    }
}

/// What it is told to do.
fn arguments(
    stage: &Stage<'_>,
    entry: SocketAddr,
    case: &Case,
    setup: &Setup,
    upstream: &Upstream,
    milliseconds: u64,
) -> Vec<String> {
    let word = match (setup.protocol, case.transfer) {
        (Protocol::Http1, _) => None,
        (Protocol::Grpc, _) => Some("grpc"),
        (Protocol::Https, _) => Some("tls"),
        (Protocol::Tcp, Transfer::Download) => Some("download"),
        (Protocol::Tcp, Transfer::Upload) => Some("upload"),
        (Protocol::Tcp, Transfer::Exchange) => Some("exchange"),
    };
    let mut words: Vec<String> = word.into_iter().map(str::to_owned).collect();
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("to", entry.to_string());
    option("connections", case.connections.to_string());
    option("milliseconds", milliseconds.to_string());
    option("warm-milliseconds", case.warm_milliseconds.to_string());
    match setup.protocol {
        Protocol::Http1 => {
            let rules = setup.rules;
            let (path, spread) = match case.spread {
                Spread::None => (format!("/{}", case.body.file()), 1),
                Spread::Rules => (rule_path(0).replace("00000", "{}") + "x", rules),
                Spread::LastRule => (rule_path(rules.saturating_sub(1)) + "x", 1),
            };
            let path = if case.upload_bytes > 0 { "/upload".to_owned() } else { path };
            option("body", path_text(&upstream.body_file(case.body)));
            option("idle", case.idle.to_string());
            option("upload", case.upload_bytes.to_string());
            option("spread", spread.to_string());
            option("path", path);
            // A few for each endpoint: then nearly every one has a connection.
            option("warm-requests", (setup.endpoints * WARM_REQUESTS).to_string());
            if let Some(rate) = case.rate {
                option("rate", rate.to_string());
            }
            if case.close {
                words.push("--close".to_owned());
            }
        }
        Protocol::Grpc => option("streams", case.streams.to_string()),
        Protocol::Tcp => {}
        Protocol::Https => {
            option("body", path_text(&upstream.body_file(case.body)));
            option("root", path_text(&stage.certificates.folder.join("root.pem")));
            option("name", SERVER_NAME.to_owned());
            option("resume", case.resume.to_string());
        }
    }
    words
}

impl Drop for Generator {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Requests for each endpoint before a measurement.
const WARM_REQUESTS: usize = 6;
/// How long 10,000 connections and their first answers may take.
const CONNECT: Duration = Duration::from_secs(60);
/// How long the last answers may take: a little more than it grants itself.
const END: Duration = Duration::from_secs(15);
