//! System calls of the workers per request, of the real binary, as strace sees them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::proxies::{Kind, Plan};
use crate::record::Measured;

/// One kind of traffic.
struct Case {
    name: &'static str,
    kind: Kind,
    connections: usize,
    /// The command without its number of turns and what follows it.
    shape: &'static str,
    /// Bytes of an answer; of `calls`, calls at a time on each connection. `bulk` has none.
    rest: Option<usize>,
}

const CASES: &[Case] = &[
    // Every wake-up carries one event: the most polls that a request can cost.
    Case { name: "plain_1", kind: Kind::Plain, connections: 1, shape: "sequence", rest: Some(BYTES) },
    Case { name: "plain_64", kind: Kind::Plain, connections: 64, shape: "race", rest: Some(BYTES) },
    // Every wake-up carries many: what is left is reading and writing.
    Case {
        name: "plain_64_saturated",
        kind: Kind::Plain,
        connections: 64,
        shape: "together",
        rest: Some(BYTES),
    },
    Case { name: "pair_1", kind: Kind::Pair, connections: 1, shape: "sequence", rest: Some(BYTES) },
    Case { name: "pair_64", kind: Kind::Pair, connections: 64, shape: "race", rest: Some(BYTES) },
    Case {
        name: "pair_64_saturated",
        kind: Kind::Pair,
        connections: 64,
        shape: "together",
        rest: Some(BYTES),
    },
    Case { name: "grpc_1", kind: Kind::Grpc, connections: 1, shape: "calls", rest: Some(1) },
    Case { name: "grpc_8x8", kind: Kind::Grpc, connections: 8, shape: "calls", rest: Some(8) },
    Case { name: "grpc_pair_1", kind: Kind::GrpcPair, connections: 1, shape: "calls", rest: Some(1) },
    Case { name: "grpc_pair_8x8", kind: Kind::GrpcPair, connections: 8, shape: "calls", rest: Some(8) },
    // For a MiB.
    Case { name: "bulk", kind: Kind::Bulk, connections: 1, shape: "bulk", rest: None },
    Case { name: "bulk_pair", kind: Kind::BulkPair, connections: 1, shape: "bulk", rest: None },
];

/// Requests before counting begins: connections to the upstream stand then.
const WARM_UP: usize = 640;
/// Requests that are counted.
const COUNTED: usize = 3_200;
const BYTES: usize = 128;
/// A MiB of bulk takes the time of some requests.
const REQUESTS_PER_MIB: usize = 16;
/// How long a traced proxy may take to start.
const READY: Duration = Duration::from_secs(60);
/// How long after the last answer a worker may still be at work; it is waited until it is not.
const SETTLE: Duration = Duration::from_secs(10);

/// Counts every case with this binary. Without strace it says so and counts nothing.
pub(crate) fn measure(leno: &Path, measured: &mut Measured) -> Result<(), String> {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        measured.skip("system_calls", "strace is not installed");
        return Ok(());
    }
    for case in CASES {
        count(case, leno, measured).map_err(|error| format!("{}: {error}", case.name))?;
    }
    Ok(())
}

fn count(case: &Case, leno: &Path, measured: &mut Measured) -> Result<(), String> {
    let mut load = Load::start()?;
    let plan = Plan::new(case.kind, case.kind.upstreams(&load))?;
    let traced = plan.roles.iter().map(|role| Traced::start(leno, &plan, role));
    let traced = traced.collect::<Result<Vec<_>, _>>()?;
    load.order(&format!("{} {} {}", case.kind.open(), plan.entry, case.connections))?;
    let command = |requests: usize| match (case.shape, case.rest) {
        ("calls", Some(rest)) => format!("calls {} {rest}", requests.div_ceil(case.connections * rest)),
        (shape, Some(rest)) => format!("{shape} {} {rest}", requests.div_ceil(case.connections)),
        (shape, None) => format!("{shape} {}", requests / REQUESTS_PER_MIB),
    };
    load.order(&command(WARM_UP))?;
    let sizes = traced.iter().map(Traced::settled).collect::<Result<Vec<_>, _>>()?;
    let requests = load.order(&command(COUNTED))? as f64;
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for (traced, size) in traced.iter().zip(sizes) {
        traced.settled()?;
        traced.add_calls(size, &mut calls)?;
    }
    let (mut polls, mut others) = (0, 0);
    for (name, count) in &calls {
        *(if name.starts_with("epoll_") { &mut polls } else { &mut others }) += count;
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let each: Vec<String> =
        calls.iter().map(|(name, count)| format!("{name} {:.3}", *count as f64 / requests)).collect();
    let name = format!("system_calls.{}", case.name);
    measured.value(&name, (polls + others) as f64 / requests, &each.join(", "));
    Ok(())
}

/// A proxy under strace, with a file for each of its threads.
struct Traced {
    strace: Child,
    /// Of its one worker.
    log: PathBuf,
}

impl Traced {
    fn start(leno: &Path, plan: &Plan, role: &str) -> Result<Self, String> {
        let file = plan.file();
        let logs = file.with_file_name(format!("{role}.strace"));
        let strace = Command::new("strace")
            .args(["-ff", "-o"])
            .arg(&logs)
            .arg(leno)
            .args(["proxy", "--role", role, "--workers", "1", "--die-with-parent", "--file"])
            .arg(&file)
            .arg("--identity")
            .arg(plan.identity())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace does not start: {error}"))?;
        let mut traced = Self { strace, log: PathBuf::new() };
        let output = traced.strace.stdout.take().ok_or("strace has no output")?;
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let line = told.recv_timeout(READY).map_err(|error| format!("{role} is not ready: {error}"))?;
        if !line.contains("\"ready\"") {
            return Err(format!("{role} said {line}"));
        }
        let thread = traced.worker()?;
        traced.log = logs.with_file_name(format!("{role}.strace.{thread}"));
        Ok(traced)
    }

    /// The kernel's id of the worker's thread. It takes its name when it first runs, which may be after the proxy is ready.
    fn worker(&self) -> Result<String, String> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let own = self.strace.id();
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            for child in read(&format!("/proc/{own}/task/{own}/children")).split_whitespace() {
                for task in std::fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten() {
                    let id = task.file_name().to_string_lossy().into_owned();
                    if read(&format!("/proc/{child}/task/{id}/comm")).starts_with("worker-") {
                        return Ok(id);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("no worker thread".into())
    }

    /// The size of the log once the worker waits: its last call is a poll that has not returned.
    fn settled(&self) -> Result<usize, String> {
        let deadline = Instant::now() + SETTLE;
        let mut before = usize::MAX;
        while Instant::now() < deadline {
            let size = std::fs::metadata(&self.log).map_or(0, |data| data.len() as usize);
            if size == before {
                return Ok(size);
            }
            before = size;
            std::thread::sleep(Duration::from_millis(200));
        }
        Err("the worker does not come to rest".into())
    }

    /// Counts the calls that were logged behind `from`.
    fn add_calls(&self, from: usize, calls: &mut BTreeMap<String, u64>) -> Result<(), String> {
        let log = std::fs::read(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let log = String::from_utf8_lossy(log.get(from..).unwrap_or(&[])).into_owned();
        for line in log.lines() {
            let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            // Signals and exits are lines too.
            if !name.is_empty() {
                *calls.entry(name).or_default() += 1;
            }
        }
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // The proxy ends with its standard input, and strace with the proxy.
        drop(self.strace.stdin.take());
        let deadline = Instant::now() + SETTLE;
        while matches!(self.strace.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
