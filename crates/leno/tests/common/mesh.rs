//! A running `leno up`, and what is done to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Running, alive, children, family, free_port, get, leno, until, write};

/// For a mesh to be ready: far above what it takes, because a machine that builds something beside is slow.
const READY_MAX: Duration = Duration::from_secs(40);
/// For a mesh to end.
pub const END_MAX: Duration = Duration::from_secs(30);

/// One mesh at a time: each has a dozen processes, and the tests measure times.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long load is put on a mesh in each of the tests that kill something.
pub fn load_time() -> Duration {
    let seconds = std::env::var("LENO_E2E_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    Duration::from_secs(seconds)
}

/// A `leno up` that is ready.
pub struct Mesh {
    pub up: Running,
    pub gateway: String,
    pub api: String,
    pub ready: Value,
    pub state: PathBuf,
    pub folder: TempDir,
}

/// A copy of the example shop with its gateway on a free port, changed by `change`.
pub fn shop(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop/mesh.yaml");
    let text = fs::read_to_string(example).unwrap();
    assert!(text.contains("listen: 127.0.0.1:8080"), "the example has changed:\n{text}");
    let text = text.replace("listen: 127.0.0.1:8080", &format!("listen: 127.0.0.1:{}", free_port()));
    write(folder, "mesh.yaml", &change(text))
}

impl Mesh {
    /// The example shop.
    pub fn shop() -> Self {
        Self::start(&[], |text| text)
    }

    /// The example shop, changed, with more arguments.
    pub fn start(arguments: &[&str], change: impl FnOnce(String) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = shop(folder.path(), change);
        let state = folder.path().join("state");
        let mut command = leno();
        command.args(["up", "-o", "json"]).arg(file).arg("--state").arg(&state).args(arguments);
        let up = Running::start(&mut command);
        let ready = up.event("ready", READY_MAX);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (gateway, api) = (text(&ready["gateways"][0]), text(&ready["api"]));
        Self { up, gateway, api, ready, state, folder }
    }

    /// What `leno up` tells others about itself.
    pub fn run_file(&self) -> Value {
        serde_json::from_slice(&fs::read(self.state.join("run.json")).unwrap()).unwrap()
    }

    /// The process that a member's entry names.
    pub fn process(&self, name: &str) -> u32 {
        let run = self.run_file();
        let processes = run["processes"].as_array().unwrap().iter();
        let found =
            processes.filter(|process| process["name"] == name).find_map(|process| process["pid"].as_u64());
        found.unwrap_or_else(|| panic!("no process of {name} in {run}")).try_into().unwrap()
    }

    /// The service command behind its wrapper.
    pub fn service(&self, name: &str) -> u32 {
        let wrapper = self.process(name);
        children(wrapper).first().copied().unwrap_or_else(|| panic!("{name} runs no command"))
    }

    /// Ends it politely; nothing may be left.
    pub fn stop(mut self) {
        let (processes, ports) = (family(self.up.pid()), listening(&family(self.up.pid())));
        self.up.signal(Signal::TERM);
        assert_eq!(self.up.wait(END_MAX).code(), Some(0));
        nothing_left(&processes, &ports);
    }
}

/// What the kernel may take to close the sockets of a process that is over.
const SOCKETS_CLOSED: Duration = Duration::from_secs(1);

/// Neither of these processes nor a listener on these ports.
pub fn nothing_left(processes: &[u32], ports: &[u16]) {
    assert!(processes.len() > 1 && !ports.is_empty(), "there was nothing to end: {processes:?} {ports:?}");
    let left: Vec<u32> = processes.iter().copied().filter(|pid| alive(*pid)).collect();
    assert!(left.is_empty(), "processes left: {left:?}");
    let left = || -> Vec<u16> { listeners().into_values().filter(|port| ports.contains(port)).collect() };
    // The last thread of a killed process closes its sockets after the first one is gone: on a busy machine a moment later.
    let end = Instant::now() + SOCKETS_CLOSED;
    while !left().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(left().is_empty(), "ports left: {:?}", left());
}

/// Waits until it is so.
pub fn until_nothing_left(processes: &[u32], within: Duration) {
    assert!(processes.len() > 1, "there was nothing to end: {processes:?}");
    until("the end of every process", within, || !processes.iter().any(|pid| alive(*pid)));
}

/// The TCP ports on which these processes listen.
pub fn listening(processes: &[u32]) -> Vec<u16> {
    let listeners = listeners();
    let mut ports = Vec::new();
    for pid in processes {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()) {
            let inode =
                link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            ports.extend(inode.and_then(|inode: u64| listeners.get(&inode)));
        }
    }
    ports
}

/// Every listening TCP port, by inode.
fn listeners() -> BTreeMap<u64, u16> {
    const LISTEN: &str = "0A";
    let text = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let lines = text.iter().flat_map(|text| text.lines().skip(1));
    let listener = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (*fields.get(3)? == LISTEN).then_some((fields.get(9)?.parse().ok()?, port))
    };
    lines.filter_map(listener).collect()
}

/// What came of requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub good: u64,
    /// The first few, with when.
    pub bad: Vec<String>,
    pub failed: u64,
    /// Good answers by instance.
    pub by_instance: BTreeMap<String, u64>,
    pub slowest: Duration,
}

impl Tally {
    fn take(&mut self, at: Duration, took: Duration, answer: Result<Value, String>) {
        self.slowest = self.slowest.max(took);
        match answer {
            Ok(answer) => {
                self.good += 1;
                let instance = answer["served_by"]["instance"].as_str().unwrap_or("?").to_owned();
                *self.by_instance.entry(instance).or_default() += 1;
            }
            Err(why) => {
                self.failed += 1;
                if self.bad.len() < 10 {
                    self.bad.push(format!("{at:.2?} (after {took:.2?}): {why}"));
                }
            }
        }
    }
}

/// Puts load on a gateway until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Connections of a load; each sends its next request when it is due and the last one is answered.
const CONNECTIONS: u32 = 12;

impl Load {
    /// `rate` requests a second: products, and now and then a user's page.
    pub fn start(gateway: &str, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let began = Instant::now();
        let threads = (0..CONNECTIONS).map(|place| {
            let (stop, tally, gateway) = (Arc::clone(&stop), Arc::clone(&tally), gateway.to_owned());
            std::thread::spawn(move || {
                let agent = super::agent();
                let pace = Duration::from_secs(1) * CONNECTIONS / rate;
                let mut due = began + pace * place / CONNECTIONS;
                let mut count = place;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += pace;
                    count += 1;
                    let path = if count.is_multiple_of(10) { "/users/1" } else { "/products/1" };
                    let sent = Instant::now();
                    let answer = ask(&agent, &format!("{gateway}{path}"));
                    tally.lock().unwrap().take(sent - began, sent.elapsed(), answer);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, tally, threads }
    }

    /// What came of it.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.tally.lock().unwrap())
    }
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<Value, String> {
    let mut answer = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    if status != 200 {
        return Err(format!("{url}: {status} {} {text}", reason(&answer)));
    }
    serde_json::from_str(&text).map_err(|error| format!("{url}: {error}: {text}"))
}

/// Why Leno answered by itself, if it did.
fn reason<T>(answer: &ureq::http::Response<T>) -> String {
    let own = answer.headers().iter().filter(|(name, _)| name.as_str().contains("leno"));
    own.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Sends `count` requests over several connections, as fast as they are answered.
pub fn calls(url: &str, count: u64) -> Tally {
    let tally = Mutex::new(Tally::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for place in 0..u64::from(CONNECTIONS) {
            let tally = &tally;
            scope.spawn(move || {
                let agent = super::agent();
                for _ in 0..(count + place) / u64::from(CONNECTIONS) {
                    let sent = Instant::now();
                    let answer = ask(&agent, url);
                    tally.lock().unwrap().take(sent - began, sent.elapsed(), answer);
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The registry's entry of an instance.
pub fn instance(api: &str, name: &str) -> Option<Value> {
    let (status, instances) = get(&format!("{api}/v1/instances"));
    assert_eq!(status, 200, "{instances}");
    instances.as_array().unwrap().iter().find(|instance| instance["name"] == name).cloned()
}
