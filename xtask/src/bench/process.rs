//! Processes under measurement: pinned to a core, their CPU time and memory, and their end.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The two cores of a measurement.
pub(super) struct Cores {
    /// Of the load generator and the upstream.
    pub(super) load: u32,
    /// Of the proxy, or of both proxies of a pair.
    pub(super) proxy: u32,
}

impl Cores {
    /// The first two that we may use.
    pub(super) fn choose() -> Result<Self, String> {
        let status = read("/proc/self/status")?;
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .ok_or("/proc/self/status has no Cpus_allowed_list")?;
        let mut cores = list.trim().split(',').flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<u32>().unwrap_or(0)..=last.parse::<u32>().unwrap_or(0)
        });
        match (cores.next(), cores.next()) {
            (Some(load), Some(proxy)) => Ok(Self { load, proxy }),
            _ => Err("a measurement needs two cores: one for the load, one for the proxy".into()),
        }
    }
}

/// A running process. Dropping it ends it, and those it started.
pub(super) struct Process {
    child: Child,
    /// For messages.
    name: String,
}

impl Process {
    /// Starts a program on one core, its log going to a file.
    pub(super) fn start(core: u32, log: &Path, program: &Path, arguments: &[&str]) -> Result<Self, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        // 512 connections on both sides need more descriptors than the usual 1,024.
        let script = "ulimit -n 16384 2>/dev/null; exec taskset -c \"$0\" \"$@\"";
        let child = Command::new("sh")
            .args(["-c", script, &core.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Self { child, name })
    }

    /// Its standard output; once.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// An error when it has ended.
    pub(super) fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended: {status}", self.name)),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// User and system time so far, with the processes it started.
    pub(super) fn cpu(&self) -> Result<Duration, String> {
        let mut ticks = 0;
        for id in self.tree() {
            let stat = read(&format!("/proc/{id}/stat"))?;
            // The name, in brackets, may hold blanks; utime and stime are the 12th and 13th field after it.
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    /// Resident memory, with the processes it started.
    pub(super) fn rss_bytes(&self) -> Result<u64, String> {
        let mut kib = 0;
        for id in self.tree() {
            let status = read(&format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
            kib += line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(kib * 1_024)
    }

    /// Its id and those of its descendants.
    fn tree(&self) -> Vec<u32> {
        let mut ids = vec![self.child.id()];
        let mut at = 0;
        while at < ids.len() && ids.len() < TREE_MAX {
            let children = read(&format!("/proc/{0}/task/{0}/children", ids[at])).unwrap_or_default();
            ids.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            at += 1;
        }
        ids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ids = self.tree();
        signal("TERM", &ids[..1]);
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                println!("{} does not end: killed", self.name);
                signal("KILL", &ids);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.wait();
    }
}

/// The shell's own `kill`, which is everywhere.
fn signal(name: &str, ids: &[u32]) {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {} 2>/dev/null", ids.join(" "))])
        .stdin(Stdio::null())
        .status();
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// `USER_HZ`: the unit of times in /proc/PID/stat, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;
/// No candidate has that many processes.
const TREE_MAX: usize = 64;
/// How long an ending process may drain.
const STOP: Duration = Duration::from_secs(10);
