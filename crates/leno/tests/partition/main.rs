//! Peers that are there and cannot be heard any more: no FIN, no RST, not a packet. Two machines, each a network namespace, and a
//! rule that drops everything between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::cable::{Cable, inside};
use common::{Running, leno, run, stdout, until, within, write};

const TEST_MAX: Duration = Duration::from_secs(120);
/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
/// A peer is asked whether it lives after 10 s of silence and has 5 s for its answer: `leno_core::mux::Limits`. The rest is for
/// a machine that builds something beside.
const GIVEN_UP_MAX: Duration = Duration::from_secs(10 + 5 + 10);

/// Answers `/` at once and `/slow` after a minute; on the next port, greets and is silent from then on.
const APPLICATION: &str = r#"
import http.server, socketserver, threading, time, sys
class Web(http.server.ThreadingHTTPServer):
    daemon_threads = True
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/slow': time.sleep(60)
        self.send_response(200)
        self.send_header('content-length', '5')
        self.end_headers()
        self.wfile.write(b'hello')
    def log_message(self, *_): pass
class Silent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b'greetings\n')
        time.sleep(60)
class Bytes(socketserver.ThreadingTCPServer):
    daemon_threads = True
web, silent = Web(('127.0.0.1', 8000), Handler), Bytes(('127.0.0.1', 8001), Silent)
threading.Thread(target=silent.serve_forever, daemon=True).start()
print('listening', flush=True)
web.serve_forever()
"#;

/// A client of the silent application: says when it has its greeting, and how it ended.
const LISTENER: &str = r#"
import socket
connection = socket.create_connection(('127.0.0.1', 9001))
print(connection.recv(100).decode().strip(), flush=True)
try:
    print('closed' if connection.recv(100) == b'' else 'data', flush=True)
except ConnectionResetError:
    print('reset', flush=True)
"#;

#[test]
fn a_peer_that_cannot_be_heard_is_given_up_and_found_again() {
    if let Some(why) = cannot() {
        // Not `eprintln!`: the test runner keeps that to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED partition: {why}");
        return;
    }
    within(TEST_MAX, || {
        let cable = Cable::lay("cut", 18);
        let folder = tempfile::tempdir().unwrap();
        let text = "mesh: cut\nservices:\n  client:\n    calls: [web, raw]\n    health: none\n    instances:\n\
                    \x20     - {name: client, port: 8002, mesh: \"10.231.18.1:7000\", outbound: {web: 9000, raw: 9001}}\n\
                    \x20 web:\n    protocol: http\n    health: none\n    instances:\n\
                    \x20     - {name: web, port: 8000, mesh: \"10.231.18.2:7000\"}\n\
                    \x20 raw:\n    protocol: tcp\n    health: none\n    instances:\n\
                    \x20     - {name: raw, port: 8001, mesh: \"10.231.18.2:7001\"}\n";
        let file = write(folder.path(), "mesh.yaml", text);
        let application = Running::start(inside(&cable.there, "python3").args(["-c", APPLICATION]));
        application.find(SOON, |line| (line == "listening").then_some(()));
        let _sidecars = [(&cable.there, "web"), (&cable.there, "raw"), (&cable.here, "client")]
            .map(|(machine, role)| sidecar(machine, folder.path(), &file, role));
        until("an answer", SOON, || ask(&cable, "/").starts_with("HTTP/1.1 200 "));

        // Under way when the network fails: a request, and a connection on which nobody says anything.
        let slow = curl(&cable, "/slow").stdout(Stdio::piped()).spawn().unwrap();
        let listener = Running::start(inside(&cable.here, "python3").args(["-c", LISTENER]));
        assert_eq!(listener.find(SOON, |line| Some(line.to_owned())), "greetings");
        let cut = Instant::now();
        nft(
            &cable,
            "add table inet cut; add chain inet cut in { type filter hook input priority -300; }; \
             add rule inet cut in iif end drop; add chain inet cut out { type filter hook output priority -300; }; \
             add rule inet cut out oif end drop",
        );

        // Each learns that its peer is gone, from nobody but Leno.
        let ended = listener.find(GIVEN_UP_MAX, |line| Some(line.to_owned()));
        assert_eq!(ended, "reset", "an end that looks whole");
        let answer = end_of(slow, GIVEN_UP_MAX);
        assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
        assert!(answer.contains("leno-reason: upstream_closed"), "{answer}");
        println!("given up {:.1} s after the cut", cut.elapsed().as_secs_f64());
        // A new request does not wait for a connection that cannot come.
        let answer = ask(&cable, "/");
        assert!(answer.starts_with("HTTP/1.1 50") && answer.contains("leno-reason: connect_"), "{answer}");

        nft(&cable, "delete table inet cut");
        until("an answer through the mended network", SOON, || ask(&cable, "/").starts_with("HTTP/1.1 200 "));
    });
}

/// A sidecar on a machine.
fn sidecar(machine: &str, folder: &Path, file: &Path, role: &str) -> Running {
    let proxy = leno();
    let mut command = inside(machine, proxy.get_program());
    command.args(["proxy", "--workers", "1", "--role", role, "--file"]).arg(file);
    command.arg("--identity").arg(folder.join("identity"));
    let running = Running::start(command.stderr(Stdio::inherit()));
    running.event("ready", SOON);
    running
}

/// The head of what the client's sidecar answers.
fn ask(cable: &Cable, path: &str) -> String {
    stdout(&run(&mut curl(cable, path)))
}

fn curl(cable: &Cable, path: &str) -> Command {
    let mut curl = inside(&cable.here, "curl");
    curl.args(["-s", "-m", "60", "-o", "/dev/null", "-D", "-", &format!("http://127.0.0.1:9000{path}")]);
    curl
}

fn nft(cable: &Cable, commands: &str) {
    let done = run(inside(&cable.there, "nft").arg(commands));
    assert!(done.status.success(), "nft {commands}: {}", common::stderr(&done));
}

fn end_of(mut child: Child, limit: Duration) -> String {
    until("the end of the slow request", limit, || child.try_wait().unwrap().is_some());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Why this cannot be tested here.
fn cannot() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make network namespaces".to_owned());
    }
    let missing = ["ip", "nft", "curl", "python3"].into_iter().find(|program| {
        let found =
            Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        !found.is_ok_and(|status| status.success())
    });
    missing.map(|program| format!("{program} is not installed"))
}
