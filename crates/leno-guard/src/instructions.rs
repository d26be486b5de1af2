//! Instructions in user space per request, as valgrind's callgrind counts them: the difference of two runs that differ
//! in nothing but the number of requests, so that starting and warming up cancel out.

use std::process::{Command, Stdio};

use crate::core_path;
use crate::load::Load;
use crate::proxies::{Kind, Proxies};
use crate::record::Measured;

/// What is run under the instrument, and how many requests the shorter run makes.
const CASES: &[(&str, u64)] = &[
    ("core_http1", 2_000),
    ("core_mesh", 2_000),
    ("worker_plain", 1_000),
    ("worker_pair", 2_000),
    ("worker_grpc", 1_000),
    ("worker_grpc_pair", 1_000),
];
/// Requests before the first that counts.
const WARM_UP: u64 = 500;
const BYTES: usize = 128;

/// Counts every case. Without valgrind it says so and counts nothing.
pub(crate) fn measure(measured: &mut Measured) -> Result<(), String> {
    let there =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        measured.skip("instructions", "valgrind is not installed");
        return Ok(());
    }
    for &(name, requests) in CASES {
        let (short, long) = (count(name, requests)?, count(name, 2 * requests)?);
        let each = long.saturating_sub(short) as f64 / requests as f64;
        measured.value(&format!("instructions.{name}"), each, &format!("{requests} requests"));
    }
    Ok(())
}

/// One run of this program under the instrument; the instructions of the threads that serve requests. The others only
/// start and wait, and starting draws keys, which takes a different time each time.
fn count(name: &str, requests: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=counts"])
        .arg(own)
        .args(["drive", name, &requests.to_string()])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    if !done.status.success() {
        return Err(format!("{name} under valgrind: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    let mut sum = 0;
    // One file for each thread.
    for file in std::fs::read_dir(folder.path()).map_err(|error| error.to_string())?.flatten() {
        let text = String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned();
        if SERVES.iter().any(|name| text.contains(name)) {
            let total =
                text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
            sum += total.ok_or("callgrind wrote no totals")?;
        }
    }
    if sum == 0 { Err(format!("{name}: no thread has run {SERVES:?}")) } else { Ok(sum) }
}

/// Parts of the names of functions that only a thread that serves requests runs.
const SERVES: &[&str] = &["leno_proxy::h1::", "leno_proxy::h2::", "leno_guard::core_path::"];

/// What the instrument watches: so many requests of a case.
pub(crate) fn drive(name: &str, requests: u64) -> Result<(), String> {
    match name {
        "core_http1" => core_path::http1(requests),
        "core_mesh" => core_path::mesh(requests),
        "worker_plain" => worker(Kind::Plain, requests),
        "worker_pair" => worker(Kind::Pair, requests),
        "worker_grpc" => worker(Kind::Grpc, requests),
        "worker_grpc_pair" => worker(Kind::GrpcPair, requests),
        _ => Err(format!("no case is called `{name}`")),
    }
}

/// One connection, one request after the other: how many events a wake-up carries is then no matter of chance.
fn worker(kind: Kind, requests: u64) -> Result<(), String> {
    let mut load = Load::start()?;
    let proxies = Proxies::before(kind, &load)?;
    load.order(&format!("{} {} 1", kind.open(), proxies.entry))?;
    let turns = WARM_UP + requests;
    load.order(&match kind {
        Kind::Grpc | Kind::GrpcPair => format!("calls {turns} 1"),
        _ => format!("sequence {turns} {BYTES}"),
    })?;
    Ok(())
}
