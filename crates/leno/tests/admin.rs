//! The first look inside a proxy: its admin address and its access log, asked as a scraper and a person would.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::{Running, free_port, leno, until};
use rustix::process::Signal;
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A gateway before an application that answers `/slow` only when it is told to.
struct Gateway {
    running: Running,
    port: u16,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    /// The application's end of a connection that asked for `/slow`.
    slow: std::sync::mpsc::Receiver<TcpStream>,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, nobody) = (free_port(), free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: look\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /gone, to: gone}}\n    \
             - {{path: /app, to: app}}\nservices:\n  app:\n    endpoints: [\"{}\"]\n  gone:\n    \
             endpoints: [\"127.0.0.1:{nobody}\"]\n",
            listener.local_addr().unwrap()
        );
        fs::write(&file, text).unwrap();
        let (tell, slow) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let tell = tell.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(bytes) = stream.read(&mut buffer) {
                        let head = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
                        if bytes == 0 {
                            return;
                        }
                        if head.contains("/slow") {
                            tell.send(stream.try_clone().unwrap()).unwrap();
                            continue;
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
                    }
                });
            }
        });
        let mut command = leno();
        command.args(["proxy", "--role", "gateway", "--workers", "2", "--admin", "127.0.0.1:0"]);
        command.arg("--access-log").arg(folder.path().join("access.log")).arg("--file").arg(&file);
        let running = Running::start(command.stderr(Stdio::inherit()));
        let ready = running.event("ready", SOON);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { running, port, admin, folder, slow }
    }

    fn ask(&self, path: &str) -> (u16, String) {
        let mut answer = common::agent().get(format!("http://127.0.0.1:{}{path}", self.port)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn look(&self, path: &str) -> (u16, String) {
        let mut answer = common::agent().get(format!("http://{}{path}", self.admin)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

/// Samples by name and labels; panics where the text is not Prometheus' format 0.0.4.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = sample.split('{').next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(families.contains_key(family) || families.contains_key(name), "{line} has no type");
        assert!(
            samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(),
            "{sample} is there twice"
        );
    }
    samples
}

#[test]
fn every_request_is_counted_and_written_down_once() {
    let gateway = Gateway::start();
    for _ in 0..10 {
        assert_eq!(gateway.ask("/app/x?secret=1"), (200, "hello".into()));
    }
    assert_eq!(gateway.ask("/gone").0, 503);
    assert_eq!(gateway.ask("/elsewhere").0, 404);

    let (status, text) = gateway.look("/metrics");
    assert_eq!(status, 200);
    let found = samples(&text);
    let to = |destination: &str| {
        format!("direction=\"outbound\",source=\"gateway\",destination=\"{destination}\"")
    };
    let requests = |destination: &str, status: u16, reason: &str| {
        let labels = format!("{},status=\"{status}\",reason=\"{reason}\"", to(destination));
        found.get(&format!("leno_requests_total{{{labels}}}")).copied()
    };
    assert_eq!(requests("app", 200, ""), Some(10.0), "{text}");
    assert_eq!(requests("gone", 503, "connect_failed"), Some(1.0), "{text}");
    assert_eq!(requests("gateway", 404, "no_route"), Some(1.0), "{text}");
    let bucket =
        |bound: &str| found[&format!("leno_request_duration_seconds_bucket{{{},le=\"{bound}\"}}", to("app"))];
    assert_eq!(bucket("+Inf"), 10.0);
    assert!(bucket("0.001") <= bucket("0.1") && bucket("0.1") <= bucket("+Inf"));
    assert_eq!(found[&format!("leno_request_duration_seconds_count{{{}}}", to("app"))], 10.0);
    assert_eq!(found[&format!("leno_response_bytes_total{{{}}}", to("app"))], 50.0);
    assert!(found["leno_connections_accepted_total{listener=\"gateway\"}"] >= 1.0, "{text}");

    until("twelve lines in the access log", SOON, || gateway.log().len() == 12);
    let log = gateway.log();
    let first = &log[0];
    assert_eq!(
        (&first["status"], &first["method"], &first["path"], &first["destination"], &first["response_bytes"]),
        (&200.into(), &"GET".into(), &"/app/x?secret=1".into(), &"app".into(), &5.into()),
        "{first}"
    );
    assert_eq!(first["attempts"][0]["endpoint"], "app-1", "{first}");
    assert_eq!(first["request_id"].as_str().unwrap().len(), 36, "{first}");
    let failed = log.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!(
        (&failed["reason"], &failed["culprit"]),
        (&"connect_failed".into(), &"upstream".into()),
        "{failed}"
    );
    assert_eq!(failed["attempts"][0]["failed"], "connect_failed", "{failed}");
}

#[test]
fn the_admin_address_shows_what_is_held_and_takes_no_orders() {
    let gateway = Gateway::start();
    assert_eq!(gateway.look("/live").0, 200);
    assert_eq!(gateway.look("/ready").0, 200);
    let (status, config) = gateway.look("/config");
    let config: Value = serde_json::from_str(&config).unwrap_or_else(|_| panic!("{config}"));
    assert_eq!((status, &config["name"]), (200, &"gateway".into()));
    assert!(config["backends"].to_string().contains("\"app-1\""), "{config}");
    assert!(serde_json::from_str::<Value>(&gateway.look("/backends").1).unwrap().is_array());
    assert_eq!(gateway.look("/nothing").0, 404);
    let posted = common::agent().post(format!("http://{}/config", gateway.admin)).send("x").unwrap();
    assert_eq!(posted.status().as_u16(), 405);
}

#[test]
fn a_stopping_proxy_is_not_ready_and_finishes_what_is_under_way() {
    let mut gateway = Gateway::start();
    let port = gateway.port;
    let asked = thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /app/slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let mut application = gateway.slow.recv_timeout(SOON).unwrap();
    gateway.running.signal(Signal::TERM);
    until("not ready", SOON, || gateway.look("/ready").0 == 503);
    application.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    let answer = asked.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("late"), "{answer}");
    assert_eq!(gateway.running.wait(SOON).code(), Some(0));
    assert!(!common::listens(port));
}
