//! The fault matrix between two sidecars: the connection between them is cut at bytes of what goes up and of what comes down,
//! from its handshake on, and a sidecar is killed. The application behind keeps a ledger.
//!
//! Every third byte or so, from a seed; `LENO_FAULTS_ALL=1` cuts at each.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use leno_core::rng::Rng;
use rustix::process::Signal;

use crate::common::{Running, free_port};
use crate::origin::Origin;
use crate::relay::{Cut, Direction, Relay};
use crate::{Way, ask, indented, proxy, status};

const BUDGET: &str = "retry_budget: {percent: 100, per_second: 100000}";
const KEEPS_BODIES: &str = "retry: {backoff: 0}\nretry_budget: {percent: 100, per_second: 100000}";
const BODY: &str = "pay 5 to 7";

/// Two sidecars beside two addresses of an application, and what starts one of them again.
struct Mesh {
    way: Way,
    relay: Relay,
    start: Box<dyn Fn(usize) -> Running>,
    servers: Vec<Option<Running>>,
}

impl Mesh {
    fn start(settings: &str, origin: Origin, apps: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, own, app] = [free_port(), free_port(), free_port()];
        let ports: Vec<SocketAddr> = apps.iter().map(|_| ([127, 0, 0, 1], free_port()).into()).collect();
        let relay = Relay::start(&ports);
        // Each end has its own idea of where the other one is.
        let file = |name: &str, mesh: &[SocketAddr]| {
            let mut text = format!(
                "mesh: cable\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
                 \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
                 \x20 server:\n    balance: round-robin\n    health: none\n{}    instances:\n",
                indented(settings)
            );
            for (at, (address, mesh)) in apps.iter().zip(mesh).enumerate() {
                writeln!(text, "      - {{name: s{at}, address: \"{address}\", mesh: \"{mesh}\"}}").unwrap();
            }
            crate::common::write(folder.path(), name, &text)
        };
        let (near, far) = (file("near.yaml", &relay.addresses), file("far.yaml", &ports));
        let (identity, log) = (folder.path().join("identity"), folder.path().join("access.log"));
        let own_identity = identity.clone();
        let logs = folder.path().to_owned();
        let start = move |at: usize| {
            let role = format!("s{at}");
            proxy(&far, &role, Some(&own_identity), &logs.join(&role))
        };
        let servers = (0..apps.len()).map(|at| Some(start(at))).collect();
        let client = proxy(&near, "client", Some(&identity), &log);
        let address = ([127, 0, 0, 1], out).into();
        let way = Way {
            name: "a cable",
            address,
            origin,
            log,
            _silent: vec![],
            _proxies: vec![client],
            _folder: folder,
        };
        Self { way, relay, start: Box::new(start), servers }
    }

    fn between(settings: &str) -> Self {
        let origin = Origin::start(2);
        let apps = origin.addresses.clone();
        Self::start(settings, origin, &apps)
    }
}

fn all() -> bool {
    std::env::var_os("LENO_FAULTS_ALL").is_some()
}

/// Numbers below `end`, one of `of` or all of them.
fn some(end: usize, of: u64, rng: &mut Rng) -> Vec<usize> {
    (0..end).filter(|_| all() || rng.one_in(of)).collect()
}

#[test]
fn a_connection_between_sidecars_may_be_cut_at_any_byte() {
    thread::scope(|scope| {
        for (settings, keeps) in [(BUDGET, false), (KEEPS_BODIES, true)] {
            scope.spawn(move || {
                let mesh = Mesh::between(settings);
                let mut rng = Rng::new(11);
                matrix(&mesh, keeps, 'r', &mut rng);
                mesh.relay.close_gently();
                matrix(&mesh, keeps, 'c', &mut rng);
            });
        }
    });
}

fn matrix(mesh: &Mesh, keeps: bool, how: char, rng: &mut Rng) {
    let (way, relay) = (&mesh.way, &mesh.relay);
    for (method, body, idempotent) in
        [("GET", "", true), ("PUT", BODY, true), ("POST", "", false), ("POST", BODY, false)]
    {
        // A request on a connection that is made for it, and then one on the same.
        let measure = |path: &str| {
            relay.take_passed();
            assert_eq!(status(&way.ask(method, path, "", body)), 200);
            thread::sleep(Duration::from_millis(20));
            relay.take_passed()
        };
        // A proxy that has just started makes connections before it is asked.
        relay.end_all();
        (0..2).for_each(|_| assert_eq!(status(&way.ask(method, "/measure/0000", "", body)), 200));
        relay.end_all();
        let whole = measure("/measure/0000");
        // The other instance, and then the first one again.
        measure("/measure/0000");
        let request = measure("/measure/0000");
        assert!(whole[0] > request[0] + 500 && whole[1] > request[1] + 500, "{whole:?} {request:?}");
        let first = [whole[0] - request[0], whole[1] - request[1]];
        let mut cuts = Vec::new();
        for (direction, at) in [(Direction::Up, 0), (Direction::Down, 1)] {
            cuts.extend(some(whole[at], 40, rng).into_iter().map(|bytes| Cut::New(direction, bytes)));
            cuts.extend(some(request[at] + 1, 4, rng).into_iter().map(|bytes| Cut::Next(direction, bytes)));
        }
        for (number, cut) in cuts.into_iter().enumerate() {
            let path = format!("/{method}{}/{how}/{number:04}", body.len());
            let case = format!(
                "keeps {keeps}, {how}: {method} of {} bytes, {cut:?} of {whole:?}, {request:?}",
                body.len()
            );
            if matches!(cut, Cut::New(..)) {
                relay.end_all();
            }
            relay.cut(Some(cut));
            let got = way.ask(method, &path, "", body);
            relay.cut(None);
            let effects = way.origin.effects(&path);
            // Before the other sidecar has said its first words nothing of a request is sent to it. It says them when the handshake
            // is over, and at the end of it stand some of ours that need not have come.
            let proof = match cut {
                Cut::New(Direction::Up, bytes) => bytes + 100 < first[0],
                Cut::New(Direction::Down, bytes) => bytes + 200 < first[1],
                Cut::Next(..) => false,
            };
            // A body is taken when it is sent, and not before.
            let again = proof || idempotent && (body.is_empty() || keeps);
            match status(&got) {
                200 => {
                    assert!(got.ends_with("hello"), "{case}: {got}");
                    assert!((1..=2).contains(&effects), "{case}: {effects} effects");
                }
                502 | 503 => {
                    assert!(!again, "{case}: {got}");
                    assert!(got.contains("leno-reason: "), "{case}: {got}");
                }
                other => panic!("{case}: {other}: {got}"),
            }
            assert!(idempotent || effects <= 1, "{case}: {effects} effects");
            assert!(!proof || effects == 1, "{case}: {effects} effects");
        }
    }
}

/// A sidecar whose application is gone says so, and what it says is the proof by which every method is sent again. Up to its last
/// byte there is none.
#[test]
fn the_word_of_a_sidecar_is_no_proof_before_it_is_whole() {
    let nobody = || ([127, 0, 0, 1], free_port()).into();
    let settings = format!("outliers: none\nretry: {{attempts: 2, backoff: 0}}\n{BUDGET}");
    let mesh = Mesh::start(&settings, Origin::start(0), &[nobody(), nobody()]);
    let (way, relay) = (&mesh.way, &mesh.relay);
    for gently in [false, true] {
        if gently {
            relay.close_gently();
        }
        let mut tried_again = Vec::new();
        for bytes in 0..100 {
            // Both say so, so that both connections stand: the one that was cut may not have been missed yet.
            crate::common::until("both connections stand", crate::SOON, || {
                status(&way.ask("GET", "/both", "", "")) == 503
            });
            relay.cut(Some(Cut::Next(Direction::Down, bytes)));
            let got = way.ask("POST", &format!("/{bytes}"), "", BODY);
            relay.cut(None);
            let both = got.contains("tried s0, s1") || got.contains("tried s1, s0");
            let wanted = if both { "leno-reason: connect_failed" } else { "leno-reason: upstream_closed" };
            assert!(got.contains(wanted), "{bytes}, {gently}: {got}");
            tried_again.push(both);
        }
        let whole = tried_again.iter().position(|both| *both).unwrap_or(0);
        // TLS alone adds more than 20 bytes to what it says.
        assert!(whole > 25, "{whole}: {tried_again:?}");
        assert!(tried_again[whole..].iter().all(|both| *both), "{whole}: {tried_again:?}");
    }
}

/// A sidecar that is killed with requests on their way: what may be sent again is, and nothing else happens twice.
#[test]
fn a_sidecar_may_be_killed_at_any_time() {
    const KILLS: u64 = 6;
    let mut mesh = Mesh::between(KEEPS_BODIES);
    let (address, stop) = (mesh.way.address, Arc::new(AtomicBool::new(false)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let count = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, asked, count) = (stop.clone(), asked.clone(), count.clone());
            thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let (method, body) = [("GET", ""), ("POST", BODY), ("PUT", BODY)][number % 3];
                    let path = format!("/{method}/{client}/{number}");
                    let got = ask(address, method, &path, "", body);
                    count.fetch_add(1, Ordering::Relaxed);
                    asked.lock().unwrap().push((method, path, status(&got), got));
                }
            })
        })
        .collect();
    let mut rng = Rng::new(5);
    for kill in 0..KILLS {
        let before = count.load(Ordering::Relaxed);
        crate::common::until("requests go on", crate::SOON, || count.load(Ordering::Relaxed) > before + 60);
        thread::sleep(Duration::from_micros(rng.below(20_000)));
        let at = (kill % 2) as usize;
        let mut server = mesh.servers[at].take().unwrap();
        server.signal(Signal::KILL);
        server.wait(crate::SOON);
        let before = count.load(Ordering::Relaxed);
        crate::common::until("requests go on", crate::SOON, || count.load(Ordering::Relaxed) > before + 30);
        mesh.servers[at] = Some((mesh.start)(at));
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let asked = asked.lock().unwrap();
    let mut failed = 0;
    for (method, path, status, got) in &*asked {
        let effects = mesh.way.origin.effects(path);
        match (*method, status) {
            (_, 200) => assert!(effects >= 1 && got.ends_with("hello"), "{path}: {effects} effects: {got}"),
            ("POST", 502 | 503) => failed += 1,
            _ => panic!("{path}: {got}"),
        }
        assert!(*method != "POST" || effects <= 1, "{path}: {effects} effects");
    }
    assert!(
        failed <= KILLS as usize * 6,
        "{failed} of {} failed: each kill met more than are under way",
        asked.len()
    );
    println!("{} requests, {KILLS} kills, {failed} that are not idempotent failed", asked.len());
}
