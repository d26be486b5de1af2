//! Second attempts beside slow ones, through real proxies: in front of applications that speak HTTP/1.1 and HTTP/2, and between
//! two sidecars. The applications are slow now and then, count what they did, and notice when nobody wants an answer any more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod http2;
mod origin;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use common::{Running, free_port, leno, until, within};
use origin::{Origin, SLOW};
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
const TEST_MAX: Duration = Duration::from_secs(120);
const CLIENTS: usize = 8;

/// Proxies between a client and an application with three instances.
struct Way {
    address: SocketAddr,
    admin: String,
    log: PathBuf,
    /// Killed when the test is done.
    _proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Way {
    /// One proxy.
    fn single(settings: &str, addresses: &[SocketAddr]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut text = format!(
            "mesh: one\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n{}    endpoints:\n",
            indented(settings)
        );
        addresses.iter().for_each(|address| writeln!(text, "      - \"{address}\"").unwrap());
        let file = common::write(folder.path(), "mesh.yaml", &text);
        let log = folder.path().join("access.log");
        let (proxy, admin) = proxy(&file, "gateway", None, &log);
        let address = ([127, 0, 0, 1], port).into();
        Self { address, admin, log, _proxies: vec![proxy], _folder: folder }
    }

    /// A client's sidecar, and one beside each instance.
    fn pair(settings: &str, addresses: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, own, app] = [free_port(), free_port(), free_port()];
        let mut text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [web]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{web: {out}}}}}\n\
             \x20 web:\n    health: none\n{}    instances:\n",
            indented(settings)
        );
        for (at, address) in addresses.iter().enumerate() {
            let mesh = free_port();
            writeln!(text, "      - {{name: s{at}, address: \"{address}\", mesh: \"127.0.0.1:{mesh}\"}}")
                .unwrap();
        }
        let file = common::write(folder.path(), "mesh.yaml", &text);
        let (identity, log) = (folder.path().join("identity"), folder.path().join("access.log"));
        let servers = (0..addresses.len()).map(|at| format!("s{at}"));
        let mut proxies: Vec<Running> =
            servers.map(|role| proxy(&file, &role, Some(&identity), &folder.path().join(&role)).0).collect();
        let (client, admin) = proxy(&file, "client", Some(&identity), &log);
        proxies.push(client);
        let address = ([127, 0, 0, 1], out).into();
        Self { address, admin, log, _proxies: proxies, _folder: folder }
    }

    /// Puts load on it; how long each request took, sorted. Every one is answered.
    fn load(&self, method: &'static str, requests: usize, body: &'static str) -> Vec<Duration> {
        let address = self.address;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(SOON)).unwrap();
                    let one = |at: usize| {
                        let begun = Instant::now();
                        ask(&mut stream, method, &format!("/{method}/{client}/{at}"), body);
                        begun.elapsed()
                    };
                    (0..requests / CLIENTS).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut took: Vec<Duration> = clients.into_iter().flat_map(|it| it.join().unwrap()).collect();
        took.sort_unstable();
        took
    }

    /// How often this became of a second attempt.
    fn hedges(&self, outcome: &str) -> u64 {
        let mut answer = common::agent().get(format!("{}/metrics", self.admin)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let wanted = format!("leno_hedges_total{{service=\"web\",outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&wanted)).map_or(0, |count| count.parse().unwrap())
    }

    /// Lines of the access log of requests about which there is something to say.
    fn hedged(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| !line["hedge"].is_null()).collect()
    }
}

/// Sends a request on a connection that stays and reads the answer.
fn ask(stream: &mut TcpStream, method: &str, path: &str, body: &str) {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: web\r\n{length}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // The body comes after the head, as many clients send it.
    stream.write_all(body.as_bytes()).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"hello") {
        let read = stream.read(&mut piece).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(read > 0, "{path}: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
}

fn indented(settings: &str) -> String {
    settings.lines().map(|line| format!("    {line}\n")).collect()
}

fn proxy(file: &Path, role: &str, identity: Option<&Path>, log: &Path) -> (Running, String) {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    command.arg("--access-log").arg(log);
    if let Some(identity) = identity {
        command.arg("--identity").arg(identity);
    }
    let running = Running::start(command.stderr(Stdio::inherit()));
    let ready = running.event("ready", SOON);
    let admin = format!("http://{}", ready["admin"].as_str().unwrap());
    (running, admin)
}

/// The share of the requests, in thousandths, that took no longer.
fn quantile(took: &[Duration], thousandths: usize) -> Duration {
    took[took.len() * thousandths / 1_000]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// In front of HTTP/1.1.
    Single,
    /// In front of HTTP/2.
    Http2,
    /// Between sidecars, in front of HTTP/1.1.
    Pair,
}

/// What the policy promises: the slow tail is gone, the application got at most so many requests more, and it could stop working
/// on those that nobody waited for any more.
fn the_tail_is_cut(kind: Kind) {
    const REQUESTS: usize = 3_200;
    let start = |policy: &str| {
        let origin = match kind {
            Kind::Http2 => http2::start(3),
            Kind::Single | Kind::Pair => Origin::start(3),
        };
        let way = match kind {
            Kind::Single => Way::single(policy, &origin.addresses),
            Kind::Http2 => Way::single(&format!("protocol: http2\n{policy}"), &origin.addresses),
            Kind::Pair => Way::pair(policy, &origin.addresses),
        };
        (way, origin)
    };
    let (way, origin) = start("outliers: none");
    let without = way.load("GET", REQUESTS, "");
    assert_eq!(origin.requests(), REQUESTS);
    assert!(way.hedged().is_empty());

    let (way, origin) = start("outliers: none\nhedge: p95");
    let with = way.load("GET", REQUESTS, "");
    let p99 = |took: &[Duration]| quantile(took, 990);
    println!(
        "{kind:?}: p99 {:?} without and {:?} with, p50 {:?} and {:?}, {} requests reach the application of {REQUESTS}, {} cancelled",
        p99(&without),
        p99(&with),
        quantile(&without, 500),
        quantile(&with, 500),
        origin.requests(),
        origin.cancelled()
    );
    assert!(p99(&without) >= SLOW, "{:?}", p99(&without));
    // It is a tenth; a machine that builds something beside is slow itself.
    assert!(p99(&with) * 3 < p99(&without) * 2, "{:?} of {:?}", p99(&with), p99(&without));
    // The budget is exact, also at the beginning.
    assert!(origin.requests() * 100 <= REQUESTS * 105, "{}", origin.requests());
    assert!(origin.requests() > REQUESTS, "nothing was hedged");
    let (won, lost) = (way.hedges("won"), way.hedges("lost"));
    // One that is outrun at once may not even arrive.
    let made = won + lost + way.hedges("failed");
    assert!(made >= (origin.requests() - REQUESTS) as u64 && made * 100 <= REQUESTS as u64 * 5, "{made}");
    assert!(won > 10, "{won} won, {lost} lost");
    // Whoever was outrun was slow, and nearly always still at it.
    until("the application notices", SOON, || origin.cancelled() as u64 >= won / 2);
    until("the log is written", SOON, || {
        way.hedged().iter().filter(|line| line["hedge"] == "won").count() as u64 == won
    });
    for line in way.hedged() {
        let attempts = line["attempts"].as_array().unwrap();
        let (first, last) = (&attempts[0], &attempts[attempts.len() - 1]);
        match line["hedge"].as_str().unwrap() {
            "won" => {
                assert!(attempts.len() == 2 && last["hedge"] == true && first["outrun"] == true, "{line}");
                assert_ne!(last["endpoint"], first["endpoint"], "{line}");
            }
            "lost" => assert!(
                last["hedge"].is_null() && first["hedge"] == true && first["outrun"] == true,
                "{line}"
            ),
            "no_budget" => assert_eq!(attempts.len(), 1, "{line}"),
            other => panic!("{other}: {line}"),
        }
        assert_eq!(line["status"], 200);
    }

    // What is not idempotent is done once, however long it takes.
    let before = origin.requests();
    way.load("POST", 800, "pay 5 to 7");
    assert_eq!(origin.requests() - before, 800);
    assert_eq!(origin.most_effects("/POST/"), 1);
    // A body goes with both attempts.
    let before = origin.requests();
    way.load("PUT", 1_600, "put 5 to 7");
    assert!((1_601..=1_680 + 10).contains(&(origin.requests() - before)), "{}", origin.requests() - before);
    assert!(origin.most_effects("/PUT/") == 2 && origin.bodies_of("/PUT/", "put 5 to 7"));
}

#[test]
fn the_tail_is_cut_in_front_of_an_application() {
    within(TEST_MAX, || the_tail_is_cut(Kind::Single));
}

#[test]
fn the_tail_is_cut_in_front_of_an_application_in_http2() {
    within(TEST_MAX, || the_tail_is_cut(Kind::Http2));
}

#[test]
fn the_tail_is_cut_between_sidecars() {
    within(TEST_MAX, || the_tail_is_cut(Kind::Pair));
}

/// When everything is slow, the second attempts are no more than their share of the load.
#[test]
fn a_service_that_is_slow_as_a_whole_gets_no_more_than_the_share() {
    within(TEST_MAX, || {
        let origin = Origin::start(3);
        let way = Way::single("outliers: none\nhedge: {after: 5ms, percent: 10}", &origin.addresses);
        origin.all_take(Duration::from_millis(15));
        way.load("GET", 800, "");
        let requests = origin.requests();
        assert!((801..=880).contains(&requests), "{requests}");
        assert!(way.hedges("no_budget") > 400, "{}", way.hedges("no_budget"));
        // A rule has the say, and so does the client that goes away.
        let mut stream = TcpStream::connect(way.address).unwrap();
        origin.all_take(Duration::from_secs(5));
        write!(stream, "GET /gone HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        let before = origin.cancelled();
        until("both attempts are under way", SOON, || origin.effects("/gone") >= 1);
        thread::sleep(Duration::from_millis(50));
        drop(stream);
        until("both are cancelled", SOON, || origin.cancelled() - before == origin.effects("/gone"));
    });
}

/// A call whose message is at hand may have a second attempt, where its policy says that it may have its effect twice; one whose
/// message comes later is sent once, and so is one of which nothing is said.
#[test]
fn calls_are_hedged_as_far_as_they_are_at_hand() {
    const CALLS: usize = 200;
    within(TEST_MAX, || {
        let settings = |policy: &str| {
            format!(
                "protocol: grpc\noutliers: none\nhedge: {{after: 5ms, percent: 50}}\nretry: {{methods: {policy}}}"
            )
        };
        for (policy, pause, hedged) in [("any", 0, true), ("any", 20, false), ("idempotent", 0, false)] {
            let origin = http2::start(2);
            origin.all_take(Duration::from_millis(15));
            let way = Way::single(&settings(policy), &origin.addresses);
            let calls = if pause == 0 { CALLS } else { CALLS / 10 };
            http2::client(way.address, async |send| {
                for at in 0..calls {
                    let status =
                        http2::call(&send, &format!("/a.B/{at}"), Duration::from_millis(pause)).await;
                    assert_eq!(status, 200);
                }
            });
            let requests = origin.requests();
            if hedged {
                // None of them wins here, so that they become few.
                assert!((calls + 5..=calls + calls / 2).contains(&requests), "{requests} of {calls}");
                assert!(origin.bodies_of("/a.B/", "\0\0\0\0\u{5}hello"));
            } else {
                assert_eq!(requests, calls, "{policy}, {pause} ms");
            }
        }
    });
}
