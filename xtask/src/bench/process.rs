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
    /// In tables and messages.
    pub(super) label: String,
}

/// Time on a processor since a process began.
#[derive(Clone, Copy, Default)]
pub(super) struct Cpu {
    /// The scheduler's count: exact.
    nanos: u64,
    /// Samples of who had it: only good for a share.
    user: u64,
    system: u64,
}

/// Time on a processor within a measurement.
#[derive(Clone, Copy)]
pub(super) struct Used {
    pub(super) user: Duration,
    pub(super) system: Duration,
}

impl std::ops::Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nanos: self.nanos + other.nanos,
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }
}

impl Cpu {
    /// What was used since.
    pub(super) fn since(self, before: Self) -> Used {
        let nanos = u128::from(self.nanos.saturating_sub(before.nanos));
        let user = u128::from(self.user.saturating_sub(before.user));
        let both = user + u128::from(self.system.saturating_sub(before.system));
        let time = |nanos: u128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let of_user = nanos * user / both.max(1);
        Used { user: time(of_user), system: time(nanos - of_user) }
    }
}

impl Process {
    /// Starts a program on some cores, its log going to a file.
    pub(super) fn start(
        label: &str,
        cores: &str,
        log: &Path,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<Self, String> {
        let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = Command::new("sh")
            .args(["-c", PINNED, cores])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{label} does not start: {error}"))?;
        Ok(Self { child, label: label.to_owned() })
    }

    /// Its standard output; once.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// An error when it has ended.
    pub(super) fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended: {status}", self.label)),
            Err(error) => Err(format!("{}: {error}", self.label)),
        }
    }

    /// User and system time so far, with the processes it started.
    pub(super) fn cpu(&self) -> Result<Cpu, String> {
        self.tree().into_iter().map(cpu_of).try_fold(Cpu::default(), |sum, cpu| Ok(sum + cpu?))
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

/// The scheduler knows to the nanosecond how long a process ran; how much of it was the kernel's is sampled.
fn cpu_of(id: u32) -> Result<Cpu, String> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).map_err(|error| format!("{id}: {error}"))?;
    let mut nanos = 0;
    for task in tasks.flatten() {
        // A thread that has ended meanwhile is no error.
        let line = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += line.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    let stat = read(&format!("/proc/{id}/stat"))?;
    // The name, in brackets, may hold blanks; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else {
        return Err(format!("/proc/{id}/stat makes no sense: {stat}"));
    };
    if nanos == 0 {
        // A kernel without the scheduler's statistics.
        nanos = (user + system) * 1_000_000_000 / TICKS_PER_SECOND;
    }
    Ok(Cpu { nanos, user, system })
}

impl Drop for Process {
    fn drop(&mut self) {
        let ids = self.tree();
        signal("TERM", &ids[..1]);
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                println!("{} does not end: killed", self.label);
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

/// Pins `$@` to the cores `$0`. 10,000 connections and more need more descriptors than the usual 1,024.
pub(super) const PINNED: &str =
    "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -Hn); exec taskset -c \"$0\" \"$@\"";
/// `USER_HZ`: the unit of times in /proc/PID/stat, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;
/// No candidate has that many processes.
const TREE_MAX: usize = 64;
/// How long an ending process may drain.
const STOP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Cpu;

    #[test]
    fn samples_share_out_the_exact_time() {
        let before = Cpu { nanos: 1_000, user: 10, system: 10 };
        let after = Cpu { nanos: 9_000, user: 11, system: 13 };
        let used = after.since(before);
        assert_eq!(used.user, Duration::from_nanos(2_000));
        assert_eq!(used.system, Duration::from_nanos(6_000));
        let unsampled = Cpu { nanos: 1_500, ..before }.since(before);
        assert_eq!(unsampled.user + unsampled.system, Duration::from_nanos(500));
    }
}
