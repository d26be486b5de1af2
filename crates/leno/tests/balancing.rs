//! Balancing on real processes: a gateway before applications that fail, hang and come back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Running, free_port, leno, until};
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// An application that says who it is.
#[derive(Clone)]
struct App {
    address: SocketAddr,
    /// It answers 500 to everything.
    broken: Arc<AtomicBool>,
    /// It does not answer until this is over.
    held: Arc<AtomicBool>,
    /// Requests that wait for an answer.
    waiting: Arc<AtomicUsize>,
}

impl App {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self {
            address: listener.local_addr().unwrap(),
            broken: Arc::default(),
            held: Arc::default(),
            waiting: Arc::default(),
        };
        let this = app.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                thread::spawn(move || this.serve(stream, name));
            }
        });
        app
    }

    fn serve(&self, mut stream: TcpStream, name: &str) {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            while self.held.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let status = if self.broken.load(Ordering::SeqCst) { "500 Broken" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A gateway before some applications, with more lines for their service.
struct Gateway {
    _running: Running,
    port: u16,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Gateway {
    fn start(apps: &[App], service: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("mesh.yaml");
        let endpoints: Vec<String> = apps.iter().map(|app| format!("\"{}\"", app.address)).collect();
        let text = format!(
            "mesh: look\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{to: app}}\nservices:\n  app:\n    \
             endpoints: [{}]\n{service}",
            endpoints.join(", ")
        );
        fs::write(&file, text).unwrap();
        let mut command = leno();
        command.args(["proxy", "--role", "gateway", "--workers", "1", "--admin", "127.0.0.1:0"]);
        command.arg("--access-log").arg(folder.path().join("access.log")).arg("--file").arg(&file);
        let running = Running::start(command.stderr(Stdio::inherit()));
        let ready = running.event("ready", SOON);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { _running: running, port, admin, folder }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn ask(&self) -> (u16, String) {
        ask(&self.url())
    }

    fn metrics(&self) -> String {
        let mut answer = common::agent().get(format!("http://{}/metrics", self.admin)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

fn ask(url: &str) -> (u16, String) {
    let mut answer = common::agent().get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

#[test]
fn an_instance_that_answers_500_is_put_out_and_comes_back_by_itself() {
    let apps = [App::start("a"), App::start("b"), App::start("c")];
    let gateway = Gateway::start(&apps, "    outliers: {ejection: 1s}\n    balance: round-robin\n");
    let spread = |times: usize| {
        let mut counts = BTreeMap::new();
        (0..times).for_each(|_| *counts.entry(gateway.ask()).or_insert(0) += 1);
        counts
    };
    assert_eq!(spread(30).len(), 3, "all of them take part");
    apps[1].broken.store(true, Ordering::SeqCst);
    until("the broken one is put out", SOON, || {
        gateway.ask();
        gateway
            .metrics()
            .contains("leno_outlier_events_total{service=\"app\",event=\"ejected\",detector=\"errors\"} 1")
    });
    // Until its second is over, nothing goes there.
    let begun = Instant::now();
    let found = spread(30);
    if begun.elapsed() < Duration::from_millis(800) {
        assert!(found.keys().all(|(status, _)| *status == 200), "{found:?}");
    }
    let backends = ask(&format!("http://{}/backends", gateway.admin)).1;
    let backends: Value = serde_json::from_str(&backends).unwrap();
    assert!(backends.as_array().unwrap().iter().any(|it| it["endpoint"] == "app-2"), "{backends}");
    // While it is broken it costs one request for each probation, each longer after the last.
    let wait = Instant::now();
    let mut failed = 0;
    while wait.elapsed() < Duration::from_secs(4) {
        failed += usize::from(gateway.ask().0 != 200);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(failed <= 4, "{failed} requests failed in 4 s: 1, 2, 4 s between two of them");
    apps[1].broken.store(false, Ordering::SeqCst);
    until("it is back", SOON, || {
        gateway.ask();
        gateway.metrics().contains("event=\"returned\"")
    });
    let found = spread(30);
    assert_eq!(found.get(&(200, "b".into())), Some(&10), "its full share: {found:?}");
    let tried = |line: &Value| line["attempts"][0]["chosen"] == "probation";
    assert!(gateway.log().iter().any(tried), "the log says which requests were trials");
}

#[test]
fn what_is_over_a_limit_waits_for_a_while_and_is_then_refused_with_the_reason() {
    let app = App::start("a");
    let limits = "    limits: {requests: 2, pending: 1, pending_timeout: 10s}\n";
    let gateway = Gateway::start(std::slice::from_ref(&app), limits);
    app.held.store(true, Ordering::SeqCst);
    let send = || {
        let url = gateway.url();
        thread::spawn(move || ask(&url))
    };
    let under_way = [send(), send()];
    until("two are under way", SOON, || app.waiting.load(Ordering::SeqCst) == 2);
    // Of two more one waits; which of them cannot be seen from outside but by the other one's refusal.
    let mut more = vec![send(), send()];
    until("one is refused", SOON, || more.iter().any(thread::JoinHandle::is_finished));
    let at = more.iter().position(thread::JoinHandle::is_finished).unwrap();
    let refused = more.swap_remove(at).join().unwrap();
    assert!(refused.0 == 503 && refused.1.contains("leno: service_limit: "), "{refused:?}");
    assert!(refused.1.contains("service pending"), "{refused:?}");
    assert_eq!(app.waiting.load(Ordering::SeqCst), 2, "the limit holds");
    app.held.store(false, Ordering::SeqCst);
    for asked in under_way.into_iter().chain(more) {
        assert_eq!(asked.join().unwrap(), (200, "a".into()));
    }
    let text = gateway.metrics();
    assert!(
        text.contains("leno_service_limit_hits_total{service=\"app\",limit=\"service_pending\"} 1"),
        "{text}"
    );
    until("the refusal is in the log", SOON, || {
        gateway.log().iter().any(|line| {
            line["reason"] == "service_limit"
                && line["culprit"] == "configuration"
                && line["why"] == "service pending"
        })
    });
}

#[test]
fn who_waits_in_vain_is_told_in_time_and_connections_have_a_limit_too() {
    let app = App::start("a");
    let limits = "    limits: {connections: 1, pending_timeout: 300ms}\n";
    let gateway = Gateway::start(std::slice::from_ref(&app), limits);
    assert_eq!(gateway.ask().0, 200);
    app.held.store(true, Ordering::SeqCst);
    let url = gateway.url();
    let first = thread::spawn(move || ask(&url));
    until("one is under way", SOON, || app.waiting.load(Ordering::SeqCst) == 1);
    let begun = Instant::now();
    let (status, body) = gateway.ask();
    assert!(
        status == 503 && body.contains("service_limit") && body.contains("connections"),
        "{status} {body}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    app.held.store(false, Ordering::SeqCst);
    assert_eq!(first.join().unwrap(), (200, "a".into()));
    assert_eq!(gateway.ask(), (200, "a".into()), "the connection is free again");
}

/// What a route changes in answers and the cookie that keeps a client at an instance go together.
#[test]
fn a_cookie_is_given_beside_what_a_route_changes() {
    let apps = [App::start("a"), App::start("b")];
    let service = "    balance: {policy: maglev, by: {cookie: sticky}}\n    routes:\n      \
                   - {response_headers: {set: {x-edge: here}, add: {set-cookie: other=1}}, to: {service: app}}\n";
    let gateway = Gateway::start(&apps, service);
    let answer = common::agent().get(gateway.url()).call().unwrap();
    assert_eq!(answer.headers()["x-edge"], "here");
    let cookies: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies[0] == "other=1" && cookies[1].to_str().unwrap().starts_with("sticky="), "{cookies:?}");
}

#[test]
fn a_client_without_the_cookie_gets_one_and_stays_where_it_leads() {
    let apps = [App::start("a"), App::start("b"), App::start("c")];
    let affinity = "    balance: {policy: ring-hash, by: {cookie: sticky, ttl: 1h}}\n";
    let gateway = Gateway::start(&apps, affinity);
    let ask = |cookie: Option<&str>| {
        let mut request = common::agent().get(gateway.url());
        if let Some(cookie) = cookie {
            request = request.header("cookie", format!("other=1; {cookie}"));
        }
        let mut answer = request.call().unwrap();
        let set = answer.headers().get("set-cookie").map(|it| it.to_str().unwrap().to_owned());
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap(), set)
    };
    let mut homes = BTreeMap::new();
    for _ in 0..20 {
        let (status, home, set) = ask(None);
        let set = set.unwrap();
        let (cookie, rest) = set.split_once(';').unwrap();
        assert_eq!((status, rest), (200, " Path=/; HttpOnly; Max-Age=3600"));
        assert!(cookie.starts_with("sticky="), "{cookie}");
        for _ in 0..5 {
            assert_eq!(ask(Some(cookie)), (200, home.clone(), None), "{cookie}");
        }
        homes.insert(cookie.to_owned(), home);
    }
    let used: std::collections::BTreeSet<&String> = homes.values().collect();
    assert_eq!(used.len(), 3, "clients are spread: {homes:?}");
    // One instance fails: its clients go elsewhere, everybody else stays.
    apps[0].broken.store(true, Ordering::SeqCst);
    let (lost, kept): (Vec<_>, Vec<_>) = homes.iter().partition(|(_, home)| *home == "a");
    until("its clients are served by others", SOON, || {
        let healthy = kept.iter().chain(&lost).filter(|(cookie, _)| ask(Some(cookie)).0 == 200).count();
        healthy == homes.len()
    });
    for (cookie, home) in kept {
        assert_eq!(ask(Some(cookie)).1, *home, "{cookie}");
    }
    until("the log says why", SOON, || {
        gateway.log().iter().any(|line| line["attempts"][0]["chosen"] == "affinity")
    });
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let (main, spare) = (App::start("main"), App::start("spare"));
    let nobody = free_port();
    let service = format!("    backup: spare\n  spare:\n    endpoints: [\"{}\"]\n", spare.address);
    let listener = TcpListener::bind(("127.0.0.1", nobody)).unwrap();
    let own = App { address: listener.local_addr().unwrap(), ..main };
    drop(listener);
    // Nobody listens there yet.
    let gateway = Gateway::start(std::slice::from_ref(&own), &service);
    assert_eq!(gateway.ask(), (200, "spare".into()), "the first request is not lost either");
    assert_eq!(gateway.ask(), (200, "spare".into()));
    let listener = TcpListener::bind(own.address).unwrap();
    let this = own.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let this = this.clone();
            thread::spawn(move || this.serve(stream, "main"));
        }
    });
    until("its own instance serves again", SOON, || gateway.ask() == (200, "main".into()));
    until("the log says which requests went to the backup", SOON, || {
        let log = gateway.log();
        log.iter().any(|line| {
            line["attempts"].as_array().unwrap().iter().any(|attempt| attempt["chosen"] == "backup")
        })
    });
}
