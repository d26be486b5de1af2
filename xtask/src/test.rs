//! `cargo xtask test`: everything that must hold, step by step. A failing step does not hide the ones after it.
//!
//! The last line is the sum over all test programs, `N passed, N failed, N skipped`, where a failed step counts as
//! failed and a skipped one as skipped. A test that finds the program it needs missing writes a line starting with
//! [`SKIP_MARK`] to its standard error (not through `eprintln!`, which the test runner swallows) and returns; it is
//! counted as skipped, not as passed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use crate::shell::Findings;
use crate::{guards, licences, packages, registries, shell, tidy};

/// Which tests are run.
#[derive(Default)]
pub(crate) struct Options {
    fast: bool,
    slow: bool,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--fast" => options.fast = true,
                "--slow" => options.slow = true,
                other => return Err(format!("`test` has no option `{other}`")),
            }
        }
        if options.fast && options.slow {
            return Err("--fast and --slow exclude each other".into());
        }
        Ok(options)
    }
}

/// Runs every step; true when nothing failed.
pub(crate) fn run(options: &Options) -> bool {
    let mut steps = Steps::default();
    if !options.fast {
        steps.take("packages", || {
            // Only said here: the tests that need one skip themselves and are counted then.
            let missing = packages::provide(packages::FOR_TESTS);
            for line in missing.into_iter().chain(registries::provide()) {
                println!("{line}");
            }
            Findings::default()
        });
    }
    steps.take("format", || component("fmt", &["fmt", "--all", "--check"], &[]));
    if !options.fast {
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.take("lints", || component("clippy", &lints, &[]));
        let docs = ["doc", "--workspace", "--no-deps", "--document-private-items"];
        steps.take("docs", || command("cargo doc", &docs, &[("RUSTDOCFLAGS", "-D warnings")]));
    }
    steps.take("tidy", tidy::check);
    steps.take("licences", licences::check);
    if !options.fast {
        steps.take("guards", || guards::run(&guards::Options::default()));
    }
    let mut sum = Sum::default();
    steps.take("tests", || tests(options, &mut sum));
    steps.finish(&sum)
}

/// What the steps came to.
#[derive(Default)]
struct Steps {
    lines: Vec<String>,
    failed: u64,
    skipped: Vec<String>,
}

impl Steps {
    fn take(&mut self, name: &str, step: impl FnOnce() -> Findings) {
        println!("\n== {name}");
        let start = Instant::now();
        let found = step();
        for line in &found.skipped {
            println!("SKIPPED {line}");
        }
        for line in &found.problems {
            println!("problem: {line}");
        }
        let verdict = if !found.problems.is_empty() {
            self.failed += 1;
            "FAILED"
        } else if !found.skipped.is_empty() {
            "ok, with skips"
        } else {
            "ok"
        };
        let line = format!("{name:<10} {:>7.1} s  {verdict}", start.elapsed().as_secs_f64());
        println!("{line}");
        self.lines.push(line);
        self.skipped.extend(found.skipped);
    }

    fn finish(&self, sum: &Sum) -> bool {
        println!("\n== summary");
        for line in &self.skipped {
            println!("SKIPPED {line}");
        }
        for line in &sum.skip_lines {
            println!("{line}");
        }
        for name in &sum.failed_names {
            println!("failed: {name}");
        }
        for line in &self.lines {
            println!("{line}");
        }
        // The step of the tests is already in the sum by its failed tests.
        let only_in_sum = u64::from(sum.failed > 0);
        let failed = sum.failed + self.failed.saturating_sub(only_in_sum);
        let skipped_themselves = sum.skip_lines.len() as u64;
        let passed = sum.passed.saturating_sub(skipped_themselves);
        let skipped = sum.ignored + skipped_themselves + self.skipped.len() as u64;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0
    }
}

/// A step that is one cargo command.
fn command(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Findings {
    let mut findings = Findings::default();
    let mut command = shell::cargo();
    command.args(arguments).envs(environment.iter().copied());
    if !shell::succeeds(&mut command) {
        findings.problem(format!("{name} found something: see above"));
    }
    findings
}

/// A step that needs a component which a toolchain may come without.
fn component(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Findings {
    let there = shell::cargo()
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if there {
        return command(&format!("cargo {name}"), arguments, environment);
    }
    Findings {
        skipped: vec![format!("cargo {name}: this toolchain comes without it (rustup component add {name})")],
        ..Findings::default()
    }
}

/// Every test program of the workspace, and the examples in the docs.
fn tests(options: &Options, sum: &mut Sum) -> Findings {
    let mut findings = Findings::default();
    let cargo = shell::cargo();
    // `timeout` ends the whole group of processes, which killing cargo alone would not.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", TESTS_LIMIT_SECONDS]).arg(cargo.get_program());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(shell::root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if options.fast {
        command.args(["--lib", "--bins"]);
    }
    if options.slow {
        command.args(["--", "--include-ignored"]);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            findings.problem(format!("cargo test does not start: {error}"));
            return findings;
        }
    };
    let (sender, lines) = mpsc::channel();
    let pipes: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<_>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<_>),
    ];
    for pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    for line in lines {
        println!("{line}");
        sum.read(&line);
    }
    match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) if status.code() == Some(124) => {
            findings.problem(format!("the tests took longer than {TESTS_LIMIT_SECONDS} s and were stopped"));
        }
        Ok(_) if sum.failed > 0 => findings.problem(format!("{} tests failed", sum.failed)),
        Ok(status) => findings.problem(format!("cargo test: {status}")),
        Err(error) => findings.problem(format!("cargo test: {error}")),
    }
    findings
}

/// The sum over all test programs, read from what they print.
#[derive(Default)]
struct Sum {
    /// As the runners say: with those that skipped themselves.
    passed: u64,
    failed: u64,
    ignored: u64,
    failed_names: Vec<String>,
    /// What tests that skipped themselves wrote.
    skip_lines: Vec<String>,
}

impl Sum {
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
                match words.next() {
                    Some("passed") => self.passed += number,
                    Some("failed") => self.failed += number,
                    Some("ignored") => self.ignored += number,
                    _ => {}
                }
            }
        } else if line.starts_with(SKIP_MARK) {
            self.skip_lines.push(line.to_owned());
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failed_names.push(name.to_owned());
        }
    }
}

/// What a test writes to standard error, followed by its name and a reason, when it cannot run here.
const SKIP_MARK: &str = "SKIPPED ";
/// Longer than any machine needs, shorter than CI's 90 minutes.
const TESTS_LIMIT_SECONDS: &str = "4200";

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn sums_over_programs_and_counts_skips() {
        let mut sum = Sum::default();
        sum.read(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        sum.read("SKIPPED third_party::nginx: nginx is not installed");
        sum.read("test a::b ... FAILED");
        sum.read(
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2s",
        );
        assert_eq!((sum.passed, sum.failed, sum.ignored, sum.skip_lines.len()), (15, 1, 1, 1));
        assert_eq!(sum.failed_names, ["a::b"]);
    }
}
