//! What leaves the mesh, through real sidecars: who may reach what, and TLS with servers that are no Leno. The servers
//! outside are `openssl s_server` and plain sockets; certificates are made here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod control;
mod docs;
mod gateway;
mod outside;
mod peer;
mod rules;
mod tls;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Running, leno};

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// The sidecar or gateway `role` of a mesh file.
fn proxy(file: &Path, role: &str, arguments: &[&str]) -> Running {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    let running = Running::start(command.args(arguments).stderr(Stdio::inherit()));
    running.event("ready", SOON);
    running
}

/// Sends bytes to a proxy's port and reads until it closes.
fn talk(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// `GET http://AUTHORITY/` through a forward proxy.
fn get(port: u16, authority: &str) -> String {
    let request =
        format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    talk(port, request.as_bytes())
}

/// Asserts the status, and that the answer says each of `wanted`.
fn expect(what: &str, answer: &str, status: u16, wanted: &[&str]) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    for wanted in wanted {
        assert!(answer.contains(wanted), "{what}: no {wanted:?} in {answer}");
    }
}

/// The path of a program, or `None` after saying which test is skipped for want of it.
fn program(name: &str, test: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let folders = std::env::split_paths(&path).chain(daemons);
    let found = folders.map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        // Not `eprintln!`: the test runner keeps that to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED egress::{test}: {name} is not installed");
    }
    found
}
