//! The world around the chores: where the project is, which programs are there, how one is run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a check found.
#[derive(Default)]
pub(crate) struct Findings {
    /// Each fails the check: place first, then what is wrong and what to do.
    pub(crate) problems: Vec<String>,
    /// What could not be checked, and why. Shown and counted, never silent.
    pub(crate) skipped: Vec<String>,
}

impl Findings {
    /// Adds a problem.
    pub(crate) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// Prints every line of it.
    pub(crate) fn print(&self) {
        for line in &self.skipped {
            println!("SKIPPED {line}");
        }
        for line in &self.problems {
            println!("problem: {line}");
        }
        println!("{} problems", self.problems.len());
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that started us, in the workspace, without what it told us about our own package: build scripts that
/// look at their environment would otherwise be run again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let own = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_BIN_")
                || name.starts_with("CARGO_MANIFEST_")
        });
        if own {
            command.env_remove(name);
        }
    }
    command
}

/// The path of a program: `PATH` first, then where daemons live that an ordinary user's `PATH` leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a command to its end with its output going to ours; true when it exited with 0.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("{}: {error}", command.get_program().to_string_lossy());
            false
        }
    }
}

/// Runs a command to its end and returns what it wrote to both outputs, stdout first.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name} does not start: {error}"))?;
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(text) } else { Err(format!("{name}: {}: {}", done.status, text.trim())) }
}

/// What `cargo metadata` says, as JSON.
pub(crate) fn metadata(arguments: &[&str]) -> Result<serde_json::Value, String> {
    let done = cargo()
        .args(["metadata", "--format-version=1"])
        .args(arguments)
        .output()
        .map_err(|error| format!("cargo metadata does not start: {error}"))?;
    if !done.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    serde_json::from_slice(&done.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Whether we are root: then packages can be installed.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
}
