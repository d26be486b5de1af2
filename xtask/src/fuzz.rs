//! `cargo xtask fuzz`: every target under `fuzz/` for some minutes, as docs/fuzzing.md describes it.

use std::path::Path;

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
    let mut good = true;
    for target in targets {
        println!("\n== {target}, {} minutes", options.minutes);
        good &= fuzz(&folder, &target, options.minutes);
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

/// New inputs go below the build, so that the committed corpus changes only on purpose; findings into `fuzz/found`,
/// where a test replays them.
fn fuzz(folder: &Path, target: &str, minutes: u64) -> bool {
    let built = shell::target_dir().join("fuzz");
    let grown = built.join("corpus").join(target);
    let found = folder.join("found").join(target);
    for place in [&grown, &found] {
        if let Err(error) = std::fs::create_dir_all(place) {
            println!("{}: {error}", place.display());
            return false;
        }
    }
    let mut command = shell::cargo();
    command
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", &built)
        .args(["run", "--release", "--bin", target, "--"])
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-max_len=4096", "-timeout=5", "-print_final_stats=1"]);
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
    if good {
        // Only if it is empty.
        let _ = std::fs::remove_dir(&found);
    } else {
        println!("{target} found something: see {}", found.display());
    }
    good
}
