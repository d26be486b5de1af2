//! `cargo xtask fuzz`: every target under `fuzz/`, on the stable toolchain and without another tool: the coverage
//! that libFuzzer needs is one of LLVM's passes.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::shell;

/// What is fuzzed, and how long.
pub(crate) struct Options {
    /// For each target.
    minutes: u64,
    /// One target; `None`: all.
    target: Option<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { minutes: 1, target: None };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value =
                rest.next().ok_or_else(|| format!("`{name}` needs a value, or is no option of `fuzz`"))?;
            match name.as_str() {
                "--minutes" => {
                    options.minutes = value
                        .parse()
                        .ok()
                        .filter(|&minutes| minutes > 0)
                        .ok_or_else(|| format!("--minutes: `{value}` is no number above 0"))?;
                }
                "--target" => options.target = Some(value.clone()),
                other => return Err(format!("`fuzz` has no option `{other}`")),
            }
        }
        Ok(options)
    }
}

/// Builds and runs the targets; true when nothing was found.
pub(crate) fn run(options: &Options) -> bool {
    let folder = shell::root().join("fuzz");
    let targets = match targets(&folder, options) {
        Ok(targets) => targets,
        Err(error) => {
            println!("{error}");
            return false;
        }
    };
    let Some(host) = shell::host() else {
        println!("rustc -vV does not name this machine");
        return false;
    };
    let built = shell::target_dir().join("fuzz");
    let mut build = shell::cargo();
    build
        .current_dir(&folder)
        .args(["build", "--release", "--target", &host])
        .env("CARGO_TARGET_DIR", &built)
        .env("RUSTFLAGS", COVERAGE);
    if !shell::succeeds(&mut build) {
        return false;
    }
    let programs = built.join(&host).join("release");
    let mut good = true;
    for target in targets {
        println!("\n== {target}, {} minutes", options.minutes);
        good &= fuzz(
            &folder,
            &built.join("corpus").join(&target),
            &programs.join(&target),
            &target,
            options.minutes,
        );
    }
    good
}

/// The names of the targets: the files in `fuzz_targets`.
fn targets(folder: &Path, options: &Options) -> Result<Vec<String>, String> {
    let place = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .filter(|name| options.target.as_ref().is_none_or(|wanted| wanted == name))
        .collect();
    names.sort();
    if names.is_empty() { Err(format!("{} has no such target", place.display())) } else { Ok(names) }
}

/// What is new goes into `grown`, below the build: the committed corpus changes only on purpose.
fn fuzz(folder: &Path, grown: &Path, program: &Path, target: &str, minutes: u64) -> bool {
    let findings = folder.join("artifacts").join(target);
    for place in [grown, &findings] {
        if let Err(error) = std::fs::create_dir_all(place) {
            println!("{}: {error}", place.display());
            return false;
        }
    }
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    let protocol = target.split('_').next().unwrap_or(target);
    let words = folder.join(format!("{protocol}.dict"));
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    command.arg(grown);
    let committed = folder.join("corpus").join(target);
    if committed.is_dir() {
        command.arg(committed);
    }
    let good = shell::succeeds(&mut command);
    if !good {
        println!("{target} found something: see {}", findings.display());
    }
    good
}

/// What cargo-fuzz passes too, without the sanitizers that need another toolchain: this is safe code.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
