//! What the tests of the real binary share: starting it, watching it, and leaving nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

pub mod anybody;
pub mod cable;
pub mod mesh;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// For one command that should end by itself.
pub const COMMAND_MAX: Duration = Duration::from_secs(60);

/// The binary under test, with an environment that no variable of the machine reaches into.
pub fn leno() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leno"));
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
        "PORT",
        "INSTANCE",
        "VERSION",
        "SERVICE",
        "LENO_API_URL",
        "LENO_API_TOKEN",
        "LENO_STATE",
        "LENO_TOKEN",
        "LENO_ZONE",
        "LENO_LABELS",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, at most [`COMMAND_MAX`].
pub fn run(command: &mut Command) -> Output {
    let mut running = Running::start(command.stderr(Stdio::piped()));
    let stderr = running.child.stderr.take();
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut text).ok();
        }
        text
    });
    let status = running.wait(COMMAND_MAX);
    let mut stdout = running.rest();
    stdout.iter_mut().for_each(|line| line.push('\n'));
    Output { status, stdout: stdout.concat().into_bytes(), stderr: stderr.join().unwrap() }
}

/// Stdout of a run as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Stderr of a run as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that is killed, with its group, when the test is done with it.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts `command` in a process group of its own; its stdout is read line by line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout that `wanted` makes something of.
    pub fn find<T>(&self, within: Duration, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let end = Instant::now() + within;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => seen.push(line),
                },
                Err(why) => panic!("{why} after {within:?}; stdout was:\n{}", seen.join("\n")),
            }
        }
    }

    /// The next JSON line on stdout whose `event` is `name`.
    pub fn event(&self, name: &str, within: Duration) -> Value {
        self.find(within, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["event"] == name).then_some(value)
        })
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "does not end within {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is left of stdout, after the end.
    pub fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(5)) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return lines,
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A `leno up` that is killed takes its processes with it: that is tested too.
        rustix::process::kill_process_group(pid(self.child.id()), Signal::KILL).ok();
        self.child.wait().ok();
    }
}

pub fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

/// True while a process exists and is no zombie.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next())
        .is_some_and(|state| state != 'Z' && state != 'X')
}

/// The processes whose parent is `pid`.
pub fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid) == Some(parent)).collect()
}

/// A process and everything below it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() && all.len() < 1000 {
        let more = children(all[next]);
        all.extend(more);
        next += 1;
    }
    all
}

/// Waits until something holds.
pub fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A free port of 127.0.0.1, from below the range of outgoing connections: it stays free until somebody asks for it.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let seed = Instant::now().duration_since(*EPOCH.get_or_init(Instant::now)).subsec_nanos();
    let start = (seed ^ std::process::id().wrapping_mul(2_654_435_761)) % 5_000;
    for offset in 0..5_000 {
        let port = 10_500 + ((start + offset) % 5_000) as u16;
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(port);
            return port;
        }
    }
    panic!("no free port");
}

static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

/// True when something listens on a port of 127.0.0.1.
pub fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1)).is_ok()
}

/// A client that sends everything straight to where it says.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into()
}

/// `GET url`: status and JSON.
pub fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().unwrap_or(Value::Null))
}

/// `POST url` with a body: status and JSON.
pub fn post(url: &str, body: &str) -> (u16, Value) {
    let mut answer = agent().post(url).send(body).unwrap_or_else(|error| panic!("{url}: {error}"));
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().unwrap_or(Value::Null))
}

/// One of the shop's services, started by itself.
pub struct Demo {
    pub running: Running,
    pub url: String,
    pub port: u16,
}

impl Demo {
    /// Starts `leno demo SERVICE` on a free port.
    pub fn start(service: &str, env: &[(&str, &str)]) -> Self {
        let mut command = leno();
        command.args(["demo", service, "--port", "0"]).envs(env.iter().copied());
        let running = Running::start(&mut command);
        let url = running
            .find(Duration::from_secs(20), |line| line.strip_prefix("listening on ").map(str::to_owned));
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        Self { running, url, port }
    }
}

/// A forward proxy of the ordinary kind: takes absolute-form requests, keeps their first lines, passes each to the
/// port that its table names for the host, closes after each.
pub struct ForwardProxy {
    pub url: String,
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    pub fn start(table: Vec<(&'static str, u16)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (table, noted) = (table.clone(), Arc::clone(&noted));
                std::thread::spawn(move || forward(stream, &table, &noted));
            }
        });
        Self { url, seen }
    }
}

fn forward(mut client: TcpStream, table: &[(&'static str, u16)], noted: &Mutex<Vec<String>>) -> Option<()> {
    client.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let (line, fields) = head.split_once("\r\n")?;
    noted.lock().unwrap().push(line.to_owned());
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (host, path) = target.strip_prefix("http://")?.split_once('/')?;
    let port = table.iter().find(|(name, _)| *name == host)?.1;
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(server, "{method} /{path} HTTP/1.1\r\nconnection: close\r\n{fields}").ok()?;
    std::io::copy(&mut server, &mut client).ok()?;
    client.shutdown(std::net::Shutdown::Both).ok()
}

/// A file in a folder that lives as long as the test.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Ends a test that hangs, with what it was doing.
pub fn within<T: Send + 'static>(limit: Duration, test: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let running = std::thread::spawn(move || {
        let value = test();
        tell.send(()).ok();
        value
    });
    match told.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => panic!("the test takes longer than {limit:?}"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match running.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}
