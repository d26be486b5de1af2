//! Timeouts and retries through real proxies: one, and a pair of sidecars with mutual TLS between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod chain;
#[path = "../common/mod.rs"]
mod common;
mod controlled;
mod faults;
mod faults_http2;
mod faults_mesh;
mod origin;
mod origin_http2;
mod policy;
mod relay;
mod timeouts;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{Running, free_port, leno, until};
use origin::Origin;
use serde_json::Value;

/// For anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Proxies between a client and an [`Origin`] with two addresses.
struct Way {
    name: &'static str,
    address: SocketAddr,
    origin: Origin,
    log: PathBuf,
    /// Peers that accept connections and say nothing.
    _silent: Vec<TcpListener>,
    /// Killed when the test is done.
    _proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Way {
    /// One proxy, plain on both sides. `settings` are lines of the service, `routes` items of its routes.
    fn single(settings: &str) -> Self {
        Self::single_to(settings, Origin::start(2), &[])
    }

    /// The same with addresses before the origin's.
    fn single_to(settings: &str, origin: Origin, before: &[SocketAddr]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut text = format!(
            "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n    balance: round-robin\n{}    endpoints:\n",
            indented(settings)
        );
        for address in before.iter().chain(&origin.addresses) {
            writeln!(text, "      - \"{address}\"").unwrap();
        }
        let file = folder.path().join("mesh.yaml");
        std::fs::write(&file, text).unwrap();
        let log = folder.path().join("access.log");
        let proxy = proxy(&file, "gateway", None, &log);
        let address = ([127, 0, 0, 1], port).into();
        Self {
            name: "one hop",
            address,
            origin,
            log,
            _silent: vec![],
            _proxies: vec![proxy],
            _folder: folder,
        }
    }

    /// A client's sidecar, and one beside each address of the application, with mutual TLS between them.
    fn pair(settings: &str) -> Self {
        let origin = Origin::start(2);
        let apps = origin.addresses.clone();
        Self::pair_to(settings, origin, &apps, 0)
    }

    /// The same, with other addresses of the application; the sidecars beside the first `mute` of them say nothing.
    fn pair_to(settings: &str, origin: Origin, apps: &[SocketAddr], mute: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, own, app] = [free_port(), free_port(), free_port()];
        let mut text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
             \x20 server:\n    balance: round-robin\n    health: none\n{}    instances:\n",
            indented(settings)
        );
        let silent: Vec<TcpListener> = (0..mute).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for (at, address) in apps.iter().enumerate() {
            let mesh = silent.get(at).map_or_else(free_port, |it| it.local_addr().unwrap().port());
            writeln!(text, "      - {{name: s{at}, address: \"{address}\", mesh: \"127.0.0.1:{mesh}\"}}")
                .unwrap();
        }
        let file = folder.path().join("mesh.yaml");
        std::fs::write(&file, text).unwrap();
        let (identity, log) = (folder.path().join("identity"), folder.path().join("access.log"));
        let servers = (mute..apps.len()).map(|at| format!("s{at}"));
        let mut proxies: Vec<Running> =
            servers.map(|role| proxy(&file, &role, Some(&identity), &folder.path().join(&role))).collect();
        proxies.push(proxy(&file, "client", Some(&identity), &log));
        let address = ([127, 0, 0, 1], out).into();
        Self { name: "a pair", address, origin, log, _silent: silent, _proxies: proxies, _folder: folder }
    }

    /// Runs a test once for each way.
    fn each(settings: &str, test: impl Fn(&Self)) {
        test(&Self::single(settings));
        test(&Self::pair(settings));
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends a request that asks to close and reads all of the answer.
    fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> String {
        ask(self.address, method, path, fields, body)
    }

    /// The access log's line about `path`.
    fn logged(&self, path: &str) -> Value {
        let mut found = Value::Null;
        until("the request is in the log", SOON, || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = lines.find(|line| line["path"] == path).unwrap_or_default();
            !found.is_null()
        });
        found
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, fields: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: server\r\nconnection: close\r\n{fields}{length}\r\n");
    stream.write_all((head + body).as_bytes()).ok();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer.extend_from_slice(b"<reset>"),
        Err(error) => panic!("{path}: {error} after {:?}", String::from_utf8_lossy(&answer)),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn indented(settings: &str) -> String {
    settings.lines().map(|line| format!("    {line}\n")).collect()
}

fn proxy(file: &Path, role: &str, identity: Option<&Path>, log: &Path) -> Running {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    command.arg("--access-log").arg(log);
    if let Some(identity) = identity {
        command.arg("--identity").arg(identity);
    }
    let running = Running::start(command.stderr(Stdio::inherit()));
    running.event("ready", SOON);
    running
}

/// The status of an answer; 0 when there is none.
fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}
