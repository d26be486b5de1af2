//! More requests than an application can work on, on real processes: sidecars with mutual TLS between them, and an application
//! of a known capacity that counts how many requests it has at a time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::mesh::alone;
use common::{Running, free_port, leno, until};
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// What the application works on at a time, and for how long: 200 requests a second.
const PLACES: usize = 4;
const WORK: Duration = Duration::from_millis(20);

/// An application of a known capacity.
#[derive(Clone)]
struct App {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Requests that it works on.
    busy: Mutex<usize>,
    free: Condvar,
    /// Requests that it has, and the most there ever were.
    inside: AtomicUsize,
    most: AtomicUsize,
    served: AtomicUsize,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
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
        stream.set_nodelay(true).ok();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let head = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
            let inside = self.state.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.state.most.fetch_max(inside, Ordering::SeqCst);
            let mut busy = self.state.busy.lock().unwrap();
            while *busy >= PLACES {
                busy = self.state.free.wait(busy).unwrap();
            }
            *busy += 1;
            drop(busy);
            thread::sleep(WORK);
            *self.state.busy.lock().unwrap() -= 1;
            self.state.free.notify_one();
            self.state.inside.fetch_sub(1, Ordering::SeqCst);
            self.state.served.fetch_add(1, Ordering::SeqCst);
            // What it was told about the request.
            let class = head.lines().find_map(|line| line.strip_prefix("leno-priority: ")).unwrap_or("none");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{class}", class.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A client's sidecar and one beside the application, with two workers each.
struct Pair {
    url: String,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    _proxies: Vec<Running>,
}

impl Pair {
    /// `service` has more lines about the application's service.
    fn start(app: &App, service: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, own, client, mesh, edge] = [(); 5].map(|()| free_port());
        let mut text = format!(
            "mesh: busy\ngateway:\n  listen: 127.0.0.1:{edge}\n  routes: [{{to: server}}]\nservices:\n  client:\n    \
             calls: [server]\n    health: none\n    instances:\n      - {{name: client, port: {client}, mesh: \
             \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n  server:\n    health: none\n    instances:\n"
        );
        writeln!(text, "      - {{name: server, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}", app.address)
            .unwrap();
        text.push_str(service);
        let file = folder.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let (server, admin) = proxy(&file, "server", folder.path());
        let (client, _) = proxy(&file, "client", folder.path());
        let url = format!("http://127.0.0.1:{out}/");
        Self { url, admin, folder, _proxies: vec![server, client] }
    }

    fn metric(&self, name: &str) -> f64 {
        let mut answer = common::agent().get(format!("http://{}/metrics", self.admin)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// The lines of the log of `role`.
    fn log(&self, role: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join(role)).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn proxy(file: &Path, role: &str, folder: &Path) -> (Running, SocketAddr) {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "2", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    command.arg("--access-log").arg(folder.join(role)).arg("--identity").arg(folder.join("identity"));
    let running = Running::start(command.stderr(Stdio::inherit()));
    let ready = running.event("ready", SOON);
    let admin = ready["admin"].as_str().unwrap().parse().unwrap();
    (running, admin)
}

/// An answer, as far as it matters here.
struct Answer {
    status: u16,
    reason: String,
    retry_after: Option<u64>,
    body: String,
    took: Duration,
}

fn ask(agent: &ureq::Agent, url: &str, class: Option<&str>) -> Answer {
    let began = Instant::now();
    let mut request = agent.get(url);
    if let Some(class) = class {
        request = request.header("leno-priority", class);
    }
    let mut answer = request.call().unwrap();
    let text = |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
    let (reason, retry_after) = (text("leno-reason"), text("retry-after"));
    Answer {
        status: answer.status().as_u16(),
        reason: reason.unwrap_or_default(),
        retry_after: retry_after.map(|it| it.parse().unwrap()),
        body: answer.body_mut().read_to_string().unwrap(),
        took: began.elapsed(),
    }
}

/// Clients that ask `rate` times a second together, as far as they are answered, until somebody says stop.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Vec<(Instant, Answer)>>>,
}

const CLIENTS: u32 = 60;

impl Load {
    fn start(url: &str, rate: u32, clients: u32, class: Option<&'static str>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let began = Instant::now();
        let threads = (0..clients).map(|place| {
            let (stop, url) = (stop.clone(), url.to_owned());
            thread::spawn(move || {
                let (agent, mut answers) = (common::agent(), Vec::new());
                let pace = Duration::from_secs(1) * clients / rate;
                let mut due = began + pace * place / clients;
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due = (due + pace).max(Instant::now());
                    answers.push((Instant::now(), ask(&agent, &url, class)));
                }
                answers
            })
        });
        Self { threads: threads.collect(), stop }
    }

    fn stop(self) -> Vec<(Instant, Answer)> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

#[test]
fn a_number_holds_exactly_over_all_workers_and_the_others_wait() {
    let _alone = alone();
    let app = App::start();
    let pair = Pair::start(&app, "    concurrency: {limit: 3, queue: 30s}\n");
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                let agent = common::agent();
                for _ in 0..10 {
                    assert_eq!(ask(&agent, &pair.url, None).status, 200);
                }
            });
        }
    });
    assert_eq!(app.state.most.load(Ordering::SeqCst), 3);
    assert_eq!(pair.metric("leno_concurrency_limit"), 3.0);
    until("every place is given back", SOON, || pair.metric("leno_concurrency_in_use") == 0.0);
    assert_eq!(pair.metric("leno_concurrency_admitted_total{class=\"normal\"}"), 240.0);
    assert!(pair.metric("leno_concurrency_wait_seconds_sum") > 0.1);
    until("the log says who waited", SOON, || {
        pair.log("server").iter().any(|line| line["waited_us"].is_u64())
    });
}

#[test]
fn who_finds_no_place_in_time_is_refused_before_the_application_sees_it() {
    let _alone = alone();
    let app = App::start();
    let pair = Pair::start(&app, "    concurrency: {limit: 1, queue: none}\n");
    let mut called = Vec::new();
    let answers = {
        let load = Load::start(&pair.url, 400, CLIENTS, None);
        let (agent, end) = (common::agent(), Instant::now() + Duration::from_secs(2));
        while Instant::now() < end {
            let call = agent.post(&pair.url).header("content-type", "application/grpc").send("");
            called.push(call.unwrap().headers().clone());
        }
        load.stop()
    };
    let refusal = called.iter().find(|head| head.contains_key("grpc-status")).unwrap();
    assert_eq!(refusal["grpc-status"], "14", "UNAVAILABLE");
    assert_eq!(refusal["leno-reason"], "service_overloaded");
    let wait: u64 = refusal["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
    assert!((1_000..=3_000).contains(&wait), "{wait}");
    let passed = called.iter().filter(|head| !head.contains_key("grpc-status")).count();
    assert_eq!(app.state.most.load(Ordering::SeqCst), 1);
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
    assert_eq!(app.state.served.load(Ordering::SeqCst), good.len() + passed, "nothing else reached it");
    assert!(good.len() > 20 && refused.len() > 100, "{} and {}", good.len(), refused.len());
    let mut waits = [0; 4];
    for (_, answer) in refused {
        assert_eq!((answer.status, &*answer.reason), (503, "service_overloaded"), "{}", answer.body);
        let wait = answer.retry_after.unwrap();
        assert!((1..=3).contains(&wait), "{wait}");
        waits[wait as usize] += 1;
    }
    assert!(waits.iter().filter(|count| **count > 0).count() > 1, "not all at the same time: {waits:?}");
    // Whoever was asked says so, and whoever asked says whose fault it was.
    until("both logs have it", SOON, || {
        let has = |role: &str| {
            pair.log(role)
                .iter()
                .any(|line| line["reason"] == "service_overloaded" && line["culprit"] == "upstream")
        };
        has("server") && has("client")
    });
}

#[test]
fn an_overload_leaves_the_capacity_for_good_answers_without_a_number() {
    let _alone = alone();
    let app = App::start();
    let pair = Pair::start(&app, "    concurrency: auto\n");
    let agent = common::agent();
    (0..40).for_each(|_| assert_eq!(ask(&agent, &pair.url, None).status, 200));
    assert_eq!(pair.metric("leno_concurrency_limit"), 1000.0, "nothing has happened yet");
    let load = Load::start(&pair.url, 600, CLIENTS, None);
    thread::sleep(Duration::from_secs(4));
    let (from, served) = (Instant::now(), app.state.served.load(Ordering::SeqCst));
    app.state.most.store(0, Ordering::SeqCst);
    thread::sleep(Duration::from_secs(4));
    let (length, most) = (from.elapsed(), app.state.most.load(Ordering::SeqCst));
    let served = app.state.served.load(Ordering::SeqCst) - served;
    let answers = load.stop();
    let (good, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .filter(|(at, _)| *at >= from && *at < from + length)
        .partition(|it| it.1.status == 200);
    // It does 200 a second when the machine has nothing else to do.
    assert!(served >= 400, "it worked on {served} in {length:?}");
    assert!(good.len() * 10 >= served * 9, "{} of {served} were of use", good.len());
    assert!(refused.len() > 100, "{} were refused", refused.len());
    assert!(refused.iter().all(|(_, answer)| answer.reason == "service_overloaded"));
    assert!(most <= 40, "{most} at a time inside");
    let mut took: Vec<Duration> = refused.iter().map(|(_, answer)| answer.took).collect();
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{:?} to be refused", took[took.len() / 2]);
    let limit = pair.metric("leno_concurrency_limit");
    assert!((3.0..=40.0).contains(&limit), "{limit}");
    // When it is over, nobody is refused any more.
    until("it is calm again", SOON, || pair.metric("leno_concurrency_in_use") == 0.0);
    (0..40).for_each(|_| assert_eq!(ask(&agent, &pair.url, None).status, 200));
}

#[test]
fn what_is_critical_does_not_feel_the_others() {
    let _alone = alone();
    let app = App::start();
    let pair = Pair::start(&app, "    concurrency: {limit: 6, queue: 500ms}\n");
    let low = Load::start(&pair.url, 600, CLIENTS, Some("low"));
    thread::sleep(Duration::from_secs(1));
    let critical = Load::start(&pair.url, 40, 8, Some("critical"));
    thread::sleep(Duration::from_secs(4));
    let (critical, low) = (critical.stop(), low.stop());
    let failed = |answers: &[(Instant, Answer)]| answers.iter().filter(|(_, it)| it.status != 200).count();
    assert!(critical.len() > 60, "{}", critical.len());
    assert_eq!(failed(&critical), 0, "of {} critical requests", critical.len());
    assert!(failed(&low) > 100, "{} of {} others", failed(&low), low.len());
    assert!(low.len() - failed(&low) > 100, "they get what is left");
    assert!(pair.metric("leno_concurrency_shed_total{class=\"low\"}") > 100.0);
    assert_eq!(pair.metric("leno_concurrency_shed_total{class=\"critical\"}"), 0.0);
    until("the log says the class", SOON, || {
        let log = pair.log("server");
        log.iter().any(|line| line["class"] == "low" && line["reason"] == "service_overloaded")
            && log.iter().any(|line| line["class"] == "critical" && line["status"] == 200)
    });
}

#[test]
fn rules_say_what_requests_are_worth_and_clients_outside_do_not() {
    let _alone = alone();
    let app = App::start();
    let folder = tempfile::tempdir().unwrap();
    let [edge, mesh] = [(); 2].map(|()| free_port());
    let text = format!(
        "mesh: busy\ngateway:\n  listen: 127.0.0.1:{edge}\n  routes:\n    - {{path: /high, to: server, priority: high}}\n    - \
         {{path: /, to: server}}\nservices:\n  server:\n    health: none\n    concurrency: 5\n    routes:\n      - \
         {{path: /batch, priority: low, to: {{service: server}}}}\n    instances:\n      - {{name: server, address: \"{}\", mesh: \
         \"127.0.0.1:{mesh}\"}}\n",
        app.address
    );
    let file = folder.path().join("mesh.yaml");
    fs::write(&file, text).unwrap();
    let (_server, admin) = proxy(&file, "server", folder.path());
    let (_edge, _) = proxy(&file, "gateway", folder.path());
    let agent = common::agent();
    for (path, class, arrives) in [
        ("/", None, "none"),
        ("/", Some("critical"), "none"),
        ("/high", None, "high"),
        ("/high", Some("critical"), "high"),
        ("/batch", None, "low"),
        ("/batch", Some("critical"), "low"),
    ] {
        let answer = ask(&agent, &format!("http://127.0.0.1:{edge}{path}"), class);
        assert_eq!((answer.status, &*answer.body), (200, arrives), "{path} {class:?}");
    }
    let config = common::get(&format!("http://{admin}/config")).1;
    assert_eq!(config["concurrency"]["limit"], 5, "{config}");
    assert_eq!(config["concurrency"]["in_use"], 0, "{config}");
}
