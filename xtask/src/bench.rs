//! `cargo xtask bench`: what Leno and its peers cost per request, measured in one run, interleaved.
//!
//! Load generator and upstream share one core, the proxy under test (both of a pair) has another. Times on a shared
//! machine are noisy: only figures of one run can be compared, so every candidate takes its turn in every round and
//! medians are shown with their spread. Every answer is checked while it is measured; a candidate that answers wrong
//! takes no further part and counts as failed. docs/performance.md says how to read the outcome.

mod candidate;
mod certificates;
mod check;
mod crosscheck;
mod dialect;
mod envoy;
mod generator;
mod measure;
mod options;
mod plot;
mod process;
mod protocol;
mod report;
mod scenario;
mod table;
mod template;
mod upstream;
mod versions;

use std::path::PathBuf;
use std::time::Duration;

use self::candidate::{Candidate, Stage};
use self::certificates::Certificates;
use self::generator::Generator;
use self::measure::Session;
pub(crate) use self::options::Options;
use self::scenario::Scenario;
use crate::{packages, shell};

/// Measures and writes down; true when nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    for line in packages::provide(packages::FOR_BENCH) {
        println!("{line}");
    }
    let scenarios: Vec<Scenario> = scenario::all(&options.connections)
        .into_iter()
        .filter(|scenario| options.takes_scenario(scenario.name))
        .collect();
    let mut candidates: Vec<Candidate> =
        options.all_candidates().into_iter().filter(|candidate| options.takes(&candidate.name)).collect();
    let folder = shell::target_dir().join("bench");
    let cores = process::Cores::choose()?;
    let mut skipped = Vec::new();
    let envoy = if candidates.iter().any(Candidate::is_envoy) {
        envoy::provide(&folder).unwrap_or_else(|reason| {
            println!("SKIPPED envoy: {reason}");
            candidates.retain(|candidate| !candidate.is_envoy());
            skipped.push(("envoy".to_owned(), reason));
            PathBuf::new()
        })
    } else {
        PathBuf::new()
    };
    let leno = match &options.leno {
        Some(path) => std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None if candidates.iter().any(Candidate::is_leno) => build()?,
        None => PathBuf::new(),
    };
    let load = Generator::build()?;
    let certificates = Certificates::make(&folder.join("certificates"))?;
    let stage =
        Stage { cores: &cores, certificates: &certificates, leno, envoy, load, folder: folder.clone() };
    println!("load and upstream on core {}, proxies on core {}", cores.load, cores.proxy);

    let mut session = Session::new(options, &stage);
    session.plan(&scenarios, &candidates);
    for scenario in &scenarios {
        session.run(scenario, &candidates)?;
    }
    let written = report::Report {
        options,
        scenarios: &scenarios,
        candidates: &candidates,
        cells: &session.cells,
        failures: &session.failures,
        skipped: &skipped,
        configurations: &session.configurations,
        versions: &versions::all(&stage.leno, &stage.envoy),
    };
    let place = written.write(&shell::root().join("bench/results"))?;
    println!("\n{}\nwritten to {}", written.table(), place.display());
    Ok(session.failures.is_empty())
}

fn build() -> Result<PathBuf, String> {
    println!("building leno for release");
    if shell::succeeds(shell::cargo().args(["build", "--release", "-p", "leno"])) {
        Ok(shell::target_dir().join("release/leno"))
    } else {
        Err("cargo build --release -p leno failed".into())
    }
}

/// How long a candidate may take until it answers.
const READY: Duration = Duration::from_secs(20);
