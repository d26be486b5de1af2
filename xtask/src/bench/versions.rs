//! Names and versions of everything that took part, and of the machine.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// Name and version.
pub(super) fn all(leno: &Path, envoy: &Path) -> Vec<(String, String)> {
    let first_line = |program: Option<&Path>, argument: &str| {
        let output = program.and_then(|path| Command::new(path).arg(argument).output().ok());
        let text = output.map(|done| {
            let both = [done.stdout, done.stderr].concat();
            let text = String::from_utf8_lossy(&both).into_owned();
            text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
        });
        text.unwrap_or_default()
    };
    let found = |name: &str, argument: &str| first_line(shell::find_program(name).as_deref(), argument);
    // Its first words are the path of the binary.
    let envoy = first_line(Some(envoy).filter(|path| path.is_file()), "--version");
    let envoy = envoy.split_once("version:").map_or(String::new(), |(_, version)| version.trim().to_owned());
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_default();
    let git = |arguments: &[&str]| {
        shell::output(Command::new("git").args(arguments).current_dir(shell::root())).unwrap_or_default()
    };
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).trim().is_empty() {
        ""
    } else {
        " with changes"
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    [
        ("leno", format!("{} (commit {}{changed})", first_line(Some(leno), "--version"), commit.trim())),
        ("nginx", found("nginx", "-v")),
        ("haproxy", found("haproxy", "-v")),
        ("envoy", envoy),
        ("openssl", found("openssl", "version")),
        ("wrk", found("wrk", "-v")),
        ("h2load", found("h2load", "--version")),
        ("rustc", shell::output(Command::new(rustc).arg("-V")).unwrap_or_default().trim().to_owned()),
        ("kernel", file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("processor", processor),
        ("cores", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
    ]
    .map(|(name, version)| (name.to_owned(), version))
    .into_iter()
    .filter(|(_, version)| !version.is_empty())
    .collect()
}
