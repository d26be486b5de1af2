//! A gateway's listeners, asked by programs that nobody here wrote: curl, openssl, nginx, Python. Where one is missing its tests
//! are shown as skipped.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod http;
mod pki;
mod proxy_protocol;
mod tcp;
mod tls;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Running, leno};
use serde_json::Value;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// A running gateway.
struct Gateway {
    _running: Running,
    ready: Value,
}

impl Gateway {
    /// Starts the gateway of a file with these listeners; every path leads to `origin`. More services may follow.
    fn start(folder: &Path, listeners: &str, origin: SocketAddr, more: &str) -> Self {
        let text = format!(
            "mesh: edge\ngateway:\n  listeners:\n{listeners}\n  routes:\n    - {{path: /, to: web}}\nservices:\n  web:\n    endpoints: [\"{origin}\"]\n{more}"
        );
        Self::start_file(folder, &text)
    }

    fn start_file(folder: &Path, text: &str) -> Self {
        let file = common::write(folder, "mesh.yaml", text);
        let mut command = leno();
        command.args([
            "proxy",
            "--workers",
            "1",
            "--role",
            "gateway",
            "--drain-seconds",
            "1",
            "--admin",
            "127.0.0.1:0",
            "--file",
        ]);
        let running = Running::start(command.arg(&file).stderr(Stdio::inherit()));
        let ready = running.event("ready", SOON);
        Self { _running: running, ready }
    }

    /// Where a listener listens.
    fn at(&self, listener: &str) -> SocketAddr {
        let address = self.ready["listeners"][listener].as_str();
        address.unwrap_or_else(|| panic!("no listener {listener}: {}", self.ready)).parse().unwrap()
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.ready["admin"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// Connects to a listener.
fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends a request and reads to the end.
fn exchange(at: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(at);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An HTTP server whose every answer is the head that it was asked with.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream));
        }
    });
    address
}

fn echo(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()).ok()?;
    }
}

/// A server that sends back every byte.
fn tcp_echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut piece = [0; 16 * 1024];
                while let Ok(bytes @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..bytes]).is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

/// True when a program is there; else says what is skipped.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok() || Command::new(program).arg("version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED gateway::{test}: {program} is not installed");
    }
    found
}

/// Runs curl: its exit code, and what it printed on both streams.
fn curl(arguments: &[&str]) -> (i32, String) {
    let output =
        common::run(Command::new("curl").args(["-sS", "--noproxy", "*", "--max-time", "8"]).args(arguments));
    // Lines end in `\n`, whatever they ended in.
    let text = common::stdout(&output) + &common::stderr(&output);
    (output.status.code().unwrap_or(-1), text)
}
