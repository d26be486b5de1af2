//! Programs nobody here wrote, around the real binary: each test puts one of them before or behind Leno, unchanged.
//!
//! A test whose program is not installed says `SKIPPED` and is counted as skipped by `cargo xtask test`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod mesh;
mod servers;
mod strict;
mod tls;
mod wire;

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The path of a program, or `None` after saying which test is skipped for want of it.
fn program(name: &str, test: &str) -> Option<PathBuf> {
    use std::io::Write as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(daemons).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        // Not `eprintln!`: the test runner keeps that to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED third_party::{test}: {name} is not installed");
    }
    found
}

/// Runs a program to its end, at most half a minute; its standard output, its standard error, and how it ended.
fn run(command: &mut Command) -> (Vec<u8>, String, std::process::ExitStatus) {
    let mut limited = Command::new("timeout");
    // A proxy that the machine itself uses is not meant for loopback.
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ] {
        limited.env_remove(name);
    }
    limited.args(["--kill-after=5", "30"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let done = limited.stdin(Stdio::null()).output().unwrap();
    (done.stdout, String::from_utf8_lossy(&done.stderr).into_owned(), done.status)
}
