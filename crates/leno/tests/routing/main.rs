//! What routes do to requests, on real processes: through a gateway and the sidecar of a service, to applications of HTTP/1
//! and HTTP/2, and a version that is rolled out while requests come.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod canary;
mod changes;
#[path = "../http2/client.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod hedged;
mod matching;
mod mirror;
#[path = "../http2/origin.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod origin;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Running, free_port, leno};
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A gateway, a service's sidecar behind it, and a client's beside; the service's application is at `application`.
struct Mesh {
    gateway: SocketAddr,
    /// The client's local port for the service.
    local: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    _proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Mesh {
    /// `gateway_routes` and `service_routes` are lists in YAML's short form, one route per line.
    fn start(protocol: &str, application: SocketAddr, gateway_routes: &str, service_routes: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [listen, out, mesh, own, app] = [(); 5].map(|()| free_port());
        let indented = |routes: &str, spaces: usize| -> String {
            let lines = routes.trim().lines().map(|line| format!("{:spaces$}- {}\n", "", line.trim()));
            lines.collect()
        };
        let service_routes = if service_routes.is_empty() {
            String::new()
        } else {
            format!("    routes:\n{}", indented(service_routes, 6))
        };
        let text = format!(
            "mesh: routing\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n{}services:\n  \
             client:\n    calls: [server]\n    health: none\n    instances:\n      \
             - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n  \
             server:\n    protocol: {protocol}\n    health: none\n{service_routes}    instances:\n      \
             - {{name: server, address: \"{application}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
            indented(gateway_routes, 4),
        );
        let file = common::write(folder.path(), "mesh.yaml", &text);
        let (identity, log) = (folder.path().join("identity"), folder.path().join("access.log"));
        let (server, _) = proxy(&file, "server", &identity, None);
        let (client, _) = proxy(&file, "client", &identity, None);
        let (gateway, admin) = proxy(&file, "gateway", &identity, Some(&log));
        Self {
            gateway: ([127, 0, 0, 1], listen).into(),
            local: ([127, 0, 0, 1], out).into(),
            admin,
            log,
            _proxies: vec![server, client, gateway],
            _folder: folder,
        }
    }

    /// The gateway's line about the request that was asked with this path.
    fn logged(&self, path: &str) -> Value {
        let mut found = None;
        common::until(&format!("a line about {path}"), SOON, || {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = lines.into_iter().find(|line| line["path"] == path);
            found.is_some()
        });
        found.unwrap()
    }
}

fn proxy(file: &Path, role: &str, identity: &Path, log: Option<&Path>) -> (Running, SocketAddr) {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    command.arg("--identity").arg(identity);
    if let Some(log) = log {
        command.arg("--access-log").arg(log);
    }
    let running = Running::start(command.stderr(Stdio::inherit()));
    let ready = running.event("ready", SOON);
    let admin = ready["admin"].as_str().unwrap_or_else(|| panic!("no admin address in {ready}"));
    (running, admin.trim_start_matches("http://").parse().unwrap())
}

/// Sends a request of HTTP/1 and reads to the end.
fn exchange(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(at: SocketAddr, path: &str, more: &str) -> String {
    exchange(at, &format!("GET {path} HTTP/1.1\r\nHost: shop.example:80\r\nConnection: close\r\n{more}\r\n"))
}

/// An application of HTTP/1 that remembers the heads that it was sent, and has headers of its own.
#[derive(Clone)]
struct App {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// One that answers; `answers` false: one that reads a head and hangs up.
    fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = app.heads.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heads = heads.clone();
                thread::spawn(move || serve(stream, answers, &heads));
            }
        });
        app
    }

    /// The head that it was sent last.
    fn last(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn serve(mut stream: TcpStream, answers: bool, heads: &Mutex<Vec<String>>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        while let Some(end) = read.windows(4).position(|piece| piece == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end + 4]).into_owned();
            read.drain(..end + 4);
            heads.lock().unwrap().push(head);
            if !answers {
                return None;
            }
            let answer = "HTTP/1.1 200 OK\r\nServer: app\r\nX-App: 1\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(answer.as_bytes()).ok()?;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(bytes @ 1..) => read.extend_from_slice(&piece[..bytes]),
            _ => return None,
        }
    }
}
