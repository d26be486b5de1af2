//! `cargo xtask bench`: CPU time per request of Leno and of its peers, measured in one run, interleaved.
//!
//! Load generator (wrk) and upstream (nginx) share one core, the proxy under test has another. Times on a shared
//! machine are noisy: only figures of one run can be compared, so every candidate takes its turn in every round and
//! the medians are shown with their spread. A candidate that answers wrong, or with which wrk sees any error, counts
//! as failed.

mod candidate;
mod load;
mod process;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::candidate::{Kind, Running};
use self::report::{Cell, Run};
use crate::{packages, shell};

/// What is measured, and how long.
pub(crate) struct Options {
    /// Length of one measurement.
    seconds: u64,
    /// Measurements per candidate and number of connections.
    rounds: u64,
    /// Numbers of connections.
    connections: Vec<u32>,
    /// Names of candidates; empty: all.
    only: Vec<String>,
    /// A binary to measure instead of building one.
    leno: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options =
            Self { seconds: 3, rounds: 5, connections: vec![1, 8, 64, 512], only: Vec::new(), leno: None };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value =
                rest.next().ok_or_else(|| format!("`{name}` needs a value, or is no option of `bench`"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|&n| n > 0)
                    .ok_or_else(|| format!("{name}: `{value}` is no number above 0"))
            };
            match name.as_str() {
                "--seconds" => options.seconds = number()?,
                "--rounds" => options.rounds = number()?,
                "--connections" => {
                    options.connections = value
                        .split(',')
                        .map(|part| part.parse().map_err(|_| format!("{name}: `{part}` is no number")))
                        .collect::<Result<_, _>>()?;
                }
                "--only" => {
                    options.only = value.split(',').map(str::to_owned).collect();
                    let unknown = options
                        .only
                        .iter()
                        .find(|name| candidate::ALL.iter().all(|kind| kind.name() != *name));
                    if let Some(name) = unknown {
                        let known = candidate::ALL.map(Kind::name).join(", ");
                        return Err(format!("no candidate is called `{name}`; there are {known}"));
                    }
                }
                "--leno" => options.leno = Some(PathBuf::from(value)),
                other => return Err(format!("`bench` has no option `{other}`")),
            }
        }
        Ok(options)
    }
}

/// Measures and writes down; true when nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    for line in packages::provide(packages::FOR_BENCH) {
        println!("{line}");
    }
    let cores = process::Cores::choose()?;
    let wanted: Vec<Kind> = candidate::ALL
        .into_iter()
        .filter(|kind| options.only.is_empty() || options.only.iter().any(|name| name == kind.name()))
        .collect();
    let leno = match &options.leno {
        Some(path) => std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None if wanted.iter().any(|kind| kind.is_leno()) => build()?,
        None => PathBuf::new(),
    };
    let folder = shell::target_dir().join("bench");
    let upstream = candidate::Upstream::start(&folder.join("upstream"), &cores)?;
    println!(
        "upstream at {}, load on core {}, proxies on core {}",
        upstream.address, cores.load, cores.proxy
    );

    let mut failures = Vec::new();
    let mut candidates = Vec::new();
    for kind in wanted {
        let started = Running::start(kind, &folder.join(kind.name()), &upstream, &leno, &cores);
        match started.and_then(|running| {
            load::check(running.entry, upstream.body(), CHECKED).map(|size| (running, size))
        }) {
            Ok((running, answer_bytes)) => candidates.push((running, answer_bytes)),
            Err(error) => fail(&mut failures, kind.name(), &error),
        }
    }
    let mut cells = Vec::new();
    measure(options, &cores, &mut candidates, &mut cells, &mut failures);

    let written = report::Report {
        options,
        cells: &cells,
        failures: &failures,
        configurations: &std::iter::once(&upstream.configuration)
            .chain(candidates.iter().flat_map(|(running, _)| &running.configurations))
            .cloned()
            .collect::<Vec<_>>(),
        versions: &candidate::versions(&leno),
    };
    let place = written.write(&shell::root().join("bench/results"))?;
    println!("\n{}\nwritten to {}", written.table(), place.display());
    for (name, reason) in &failures {
        println!("FAILED {name}: {reason}");
    }
    Ok(failures.is_empty())
}

/// Every candidate in turn, in every round. A candidate that fails takes no further part.
fn measure(
    options: &Options,
    cores: &process::Cores,
    candidates: &mut Vec<(Running, u64)>,
    cells: &mut Vec<Cell>,
    failures: &mut Vec<(String, String)>,
) {
    let script = shell::root().join("bench/report.lua");
    for round in 0..=options.rounds {
        // Round 0 warms up: pools, allocators, branch predictors. It is not recorded.
        let seconds = if round == 0 { 1 } else { options.seconds };
        for &connections in &options.connections {
            let mut failed = Vec::new();
            for turn in 0..candidates.len() {
                // Another one starts each round, so that nobody always runs after the same neighbour.
                let at = (turn + usize::try_from(round).unwrap_or(0)) % candidates.len();
                let (running, answer_bytes) = &candidates[at];
                match one(running, *answer_bytes, connections, seconds, cores, &script) {
                    Ok(run) if round > 0 => {
                        println!(
                            "round {round}, {connections:>4} connections, {:<18} {}",
                            running.kind.name(),
                            run.line()
                        );
                        Cell::record(cells, running.kind, connections, run);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        fail(failures, running.kind.name(), &format!("{connections} connections: {error}"));
                        failed.push(running.kind);
                    }
                }
            }
            candidates.retain(|(running, _)| !failed.contains(&running.kind));
        }
    }
}

fn one(
    running: &Running,
    answer_bytes: u64,
    connections: u32,
    seconds: u64,
    cores: &process::Cores,
    script: &Path,
) -> Result<Run, String> {
    let before = running.cpu()?;
    let load = load::wrk(running.entry, connections, seconds, cores, script)?;
    let cpu = running.cpu()?.saturating_sub(before);
    load.verify(answer_bytes)?;
    Ok(Run { cpu, rss_bytes: running.rss_bytes()?, load })
}

fn fail(failures: &mut Vec<(String, String)>, name: &str, reason: &str) {
    println!("FAILED {name}: {reason}");
    failures.push((name.to_owned(), reason.to_owned()));
}

fn build() -> Result<PathBuf, String> {
    println!("building leno for release");
    if shell::succeeds(shell::cargo().args(["build", "--release", "-p", "leno"])) {
        Ok(shell::target_dir().join("release/leno"))
    } else {
        Err("cargo build --release -p leno failed".into())
    }
}

/// How many answers are compared byte for byte before a candidate is measured.
const CHECKED: u32 = 200;
/// How long a candidate may take until it answers.
const READY: Duration = Duration::from_secs(15);
