//! Rate limits on real processes: sidecars, gateways and applications that count what they get.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../http2/client.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod client;
#[path = "../common/mod.rs"]
mod common;
mod local;
mod mesh_wide;
#[path = "../http2/origin.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod origin;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Running, free_port, leno, until};
use serde_json::Value;

/// For anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An application of HTTP/1.1 that counts what it gets.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    /// Requests by path; connections that said nothing of HTTP by "".
    got: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl App {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let this = app.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                thread::spawn(move || this.serve(stream));
            }
        });
        app
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let path = text.split(' ').nth(1).filter(|_| text.contains("HTTP/1.1")).unwrap_or("").to_owned();
            *self.got.lock().unwrap().entry(path).or_default() += 1;
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    }

    pub(crate) fn got(&self, path: &str) -> u32 {
        self.got.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

/// Callers' sidecars, a gateway, and the sidecar beside the application of the service `server`; all of two workers.
pub(crate) struct Mesh {
    pub(crate) gateway: SocketAddr,
    /// Each caller's local port for the service.
    pub(crate) callers: Vec<SocketAddr>,
    /// The admin address of the service's sidecar, and of the gateway.
    pub(crate) admin: [SocketAddr; 2],
    folder: tempfile::TempDir,
    _proxies: Vec<Running>,
}

impl Mesh {
    /// `settings` are lines of the service, `routes` of the gateway's list of routes.
    pub(crate) fn start(callers: &[&str], settings: &str, routes: &str, app: SocketAddr) -> Self {
        Self::start_with(callers, settings, routes, app, "")
    }

    /// The same with more services.
    pub(crate) fn start_with(
        callers: &[&str],
        settings: &str,
        routes: &str,
        app: SocketAddr,
        more: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [listen, mesh] = [free_port(), free_port()];
        let indented = |text: &str, by: usize| -> String {
            text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
        };
        let mut text = format!(
            "mesh: rates\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n{}services:\n  server:\n    health: none\n{}    \
             instances:\n      - {{name: server, address: \"{app}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
            indented(routes, 4),
            indented(settings, 4),
        );
        let mut ports = Vec::new();
        for caller in callers {
            let [out, own, port] = [free_port(), free_port(), free_port()];
            ports.push(([127, 0, 0, 1], out).into());
            let name = caller.replace('/', "-");
            writeln!(
                text,
                "  {caller}:\n    calls: [server]\n    health: none\n    instances:\n      - {{name: {name}, port: {port}, \
                 mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}"
            )
            .unwrap();
        }
        text.push_str(more);
        let file = folder.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let start = |role: &str| proxy(&file, role, folder.path());
        let (server, gateway) = (start("server"), start("gateway"));
        let mut proxies: Vec<Running> = callers.iter().map(|caller| start(&role_of(caller)).0).collect();
        proxies.extend([server.0, gateway.0]);
        Self {
            gateway: ([127, 0, 0, 1], listen).into(),
            callers: ports,
            admin: [server.1, gateway.1],
            folder,
            _proxies: proxies,
        }
    }

    /// The lines of a proxy's access log.
    pub(crate) fn log(&self, role: &str) -> Vec<Value> {
        lines(&self.folder.path().join(role))
    }
}

/// The instance of a caller.
fn role_of(caller: &str) -> String {
    let name = caller.replace('/', "-");
    caller.split_once('/').map_or(name.clone(), |(namespace, _)| format!("{namespace}/{name}"))
}

pub(crate) fn lines(log: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn proxy(file: &Path, role: &str, folder: &Path) -> (Running, SocketAddr) {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "2", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    command
        .arg("--access-log")
        .arg(folder.join(role.replace('/', "-")))
        .arg("--identity")
        .arg(folder.join("identity"));
    let running = Running::start(command.stderr(Stdio::inherit()));
    let admin = running.event("ready", SOON)["admin"].as_str().unwrap().parse().unwrap();
    (running, admin)
}

/// A request of its own connection, and all of its answer.
pub(crate) fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("{head}\r\nhost: server\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has no answer.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

/// How many of `count` requests, sent over some connections at a time, were answered 200; and some answer that was none.
pub(crate) fn flood(address: SocketAddr, head: &str, count: usize) -> (usize, String) {
    let passed = Mutex::new((0, String::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..count / 8 {
                    let answer = ask(address, head);
                    let mut passed = passed.lock().unwrap();
                    if answer.starts_with("http/1.1 200") {
                        passed.0 += 1;
                    } else {
                        passed.1 = answer;
                    }
                }
            });
        }
    });
    passed.into_inner().unwrap()
}

pub(crate) fn metrics(admin: SocketAddr) -> String {
    let mut answer = common::agent().get(format!("http://{admin}/metrics")).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

/// Waits until the metrics have a line.
pub(crate) fn counted(admin: SocketAddr, line: &str) {
    let mut text = String::new();
    let has = |text: &str| text.lines().any(|it| it == line);
    until("it is counted", SOON, || {
        text = metrics(admin);
        has(&text) || !text.contains(line.split(' ').next().unwrap())
    });
    assert!(has(&text), "no line {line}\n{text}");
}
