//! Zones and labels on real processes: near instances are preferred and those of other zones take over, subsets are chosen by
//! labels, and rules ask for those of the caller.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::mesh::{Load, Mesh, alone};
use common::{Running, free_port, get, leno, until};
use serde_json::Value;

/// For anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// An application that says who it is, as long as it lives.
struct App {
    name: &'static str,
    address: SocketAddr,
    alive: Arc<AtomicBool>,
}

impl App {
    fn start(name: &'static str) -> Self {
        let app = Self { name, address: ([127, 0, 0, 1], free_port()).into(), alive: Arc::default() };
        app.rise();
        app
    }

    /// Listens again.
    fn rise(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.alive.store(true, Ordering::SeqCst);
        let (alive, name) = (self.alive.clone(), self.name);
        thread::spawn(move || {
            while alive.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let alive = alive.clone();
                        thread::spawn(move || serve(stream, name, &alive));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(2));
                    }
                    Err(_) => return,
                }
            }
        });
    }

    /// It is gone, as when its machine is.
    fn die(&self) {
        self.alive.store(false, Ordering::SeqCst);
        until("its listener is closed", SOON, || !common::listens(self.address.port()));
    }
}

fn serve(mut stream: TcpStream, name: &str, alive: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 4096];
    while alive.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            _ => return,
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A gateway of a mesh file, without a control plane.
struct Gateway {
    _running: Mutex<Running>,
    port: u16,
    admin: SocketAddr,
    log: PathBuf,
}

impl Gateway {
    fn start(file: &Path, role: &str, port: u16, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let log = file.with_extension(format!("{role}.log"));
        let mut command = leno();
        command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0"]);
        command.arg("--access-log").arg(&log).arg("--file").arg(file).args(arguments);
        let running = Running::start(command.envs(env.iter().copied()).stderr(Stdio::inherit()));
        let ready = running.event("ready", SOON);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { _running: Mutex::new(running), port, admin, log }
    }

    fn ask(&self, path: &str) -> (u16, String) {
        let mut answer = common::agent().get(format!("http://127.0.0.1:{}{path}", self.port)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// Who answered so many requests, each of which must be answered well.
    fn spread(&self, times: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            let (status, who) = self.ask("/");
            assert_eq!(status, 200, "{who}");
            *counts.entry(who).or_insert(0) += 1;
        }
        counts
    }

    fn metrics(&self) -> String {
        let mut answer = common::agent().get(format!("http://{}/metrics", self.admin)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    fn logged(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

#[test]
fn requests_stay_in_the_zone_leave_it_when_it_is_gone_and_come_back() {
    let apps = [App::start("near-1"), App::start("near-2"), App::start("far-1"), App::start("far-2")];
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let endpoint =
        |app: &App, zone: &str| format!("      - {{address: \"{}\", zone: {zone}}}\n", app.address);
    let text = format!(
        "mesh: zones\ngateway:\n  listen: 127.0.0.1:{port}\n  zone: eu/a\n  routes:\n    - {{to: app}}\nservices:\n  app:\n    \
         balance: random\n    endpoints:\n{}{}{}{}",
        endpoint(&apps[0], "eu/a"),
        endpoint(&apps[1], "eu/a"),
        endpoint(&apps[2], "eu/b"),
        endpoint(&apps[3], "eu/b"),
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let gateway = Gateway::start(&file, "gateway", port, &[], &[]);
    let is = |counts: &BTreeMap<String, usize>, place: &str| counts.keys().all(|who| who.starts_with(place));
    let counts = gateway.spread(100);
    assert!(is(&counts, "near") && counts.len() == 2, "{counts:?}");

    // The zone goes while requests come: nobody is failed by it.
    let ask = |count: usize| {
        thread::scope(|scope| {
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| gateway.spread(count))).collect();
            thread::sleep(Duration::from_millis(50));
            apps[..2].iter().for_each(App::die);
            asking.into_iter().for_each(|asking| drop(asking.join().unwrap()));
        });
    };
    ask(400);
    let counts = gateway.spread(100);
    assert!(is(&counts, "far") && counts.len() == 2, "{counts:?}");

    // It comes back, one request at a time at first.
    apps[..2].iter().for_each(App::rise);
    until("everything is near again", SOON, || {
        let counts = gateway.spread(100);
        is(&counts, "near") && counts.len() == 2
    });

    let metrics = gateway.metrics();
    let count = |relation: &str| -> u64 {
        let name = format!("leno_zone_attempts_total{{relation=\"{relation}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&*name));
        line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    };
    assert!(count("same_zone") >= 200 && count("same_region") >= 100 && count("elsewhere") == 0, "{metrics}");
    until("the log says which requests left the zone", SOON, || {
        gateway.logged().iter().any(|line| line["attempts"][0]["chosen"] == "other_zone")
    });
}

#[test]
fn subsets_are_chosen_by_labels_and_rules_ask_for_those_of_the_caller() {
    let apps = [App::start("stable"), App::start("ssd"), App::start("canary")];
    let folder = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let gateway = |name: &str, port: u16| {
        format!(
            "  {name}:\n    listen: 127.0.0.1:{port}\n    routes:\n      - {{path: /direct, to: {{service: app, labels: {{track: canary}}}}}}\n      - {{to: app}}\n"
        )
    };
    let text = format!(
        "mesh: labels\ngateways:\n{}{}{}services:\n  app:\n    endpoints:\n      \
         - {{address: \"{}\", version: v1, labels: {{track: stable}}}}\n      \
         - {{address: \"{}\", version: v1, labels: {{track: stable, disk: ssd}}}}\n      \
         - {{address: \"{}\", version: v2, labels: {{track: canary}}}}\n    routes:\n      \
         - {{path: /ssd, to: {{labels: {{disk: ssd, version: v1}}}}}}\n      \
         - {{from: {{service: default/*, labels: {{track: canary}}}}, to: {{labels: {{track: canary}}}}}}\n      \
         - {{to: {{labels: {{track: stable}}}}}}\n",
        gateway("plain", ports[0]),
        gateway("labelled", ports[1]),
        gateway("told", ports[2]),
        apps[0].address,
        apps[1].address,
        apps[2].address,
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let plain = Gateway::start(&file, "plain", ports[0], &[], &[]);
    let labelled =
        Gateway::start(&file, "labelled", ports[1], &["--label", "track=canary", "--zone", "eu/a"], &[]);
    let told = Gateway::start(&file, "told", ports[2], &[], &[("LENO_LABELS", "disk=ssd,track=canary")]);
    let names = |counts: BTreeMap<String, usize>| counts.into_keys().collect::<Vec<_>>();
    assert_eq!(names(plain.spread(40)), ["ssd", "stable"]);
    assert_eq!(names(labelled.spread(40)), ["canary"]);
    assert_eq!(names(told.spread(40)), ["canary"]);
    for gateway in [&plain, &labelled, &told] {
        assert_eq!(gateway.ask("/ssd"), (200, "ssd".into()));
        assert_eq!(gateway.ask("/direct"), (200, "canary".into()));
    }
    let (_, config) = get(&format!("http://{}/config", plain.admin));
    let backends = config["backends"].as_array().unwrap();
    let canary = backends.iter().find(|it| it["name"] == "app[track=canary]").unwrap();
    assert_eq!(canary["endpoints"][0]["labels"]["track"], "canary");
}

#[test]
fn a_mesh_knows_the_zones_of_its_instances_and_loses_one_without_losing_a_request() {
    let _alone = alone();
    let mesh = Mesh::start(&[], |text| {
        let text = text.replace("gateway:\n", "gateway:\n  zone: eu/a\n");
        let text = text.replace(
            "      - {version: v1, replicas: 2}\n",
            "      - {version: v1, replicas: 2, zone: eu/a, labels: {disk: ssd}}\n",
        );
        text.replace("      - {version: v2}\n", "      - {version: v2, replicas: 2, zone: eu/b}\n")
    });
    let instance = |name: &str| common::mesh::instance(&mesh.api, name).unwrap();
    assert_eq!(instance("product-1")["zone"], "eu/a");
    assert_eq!(instance("product-2")["labels"]["disk"], "ssd");
    assert_eq!(instance("product-3")["zone"], "eu/b");
    let mut status = leno();
    let status = common::stdout(&common::run(status.args(["status", "--api"]).arg(&mesh.api)));
    let zone_of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
        line.split_whitespace().nth(3).unwrap_or_default().to_owned()
    };
    assert_eq!(["product-1", "product-4", "gateway", "cart-1"].map(zone_of), ["eu/a", "eu/b", "eu/a", "-"]);

    let products = format!("{}/products/1", mesh.gateway);
    let near = common::mesh::calls(&products, 200);
    assert_eq!((near.failed, near.good), (0, 200), "{:?}", near.bad);
    assert_eq!(near.by_instance.keys().collect::<Vec<_>>(), ["product-1", "product-2"]);

    // The sidecars of the zone die at once; `leno up` starts them anew after a while.
    let load = Load::start(&mesh.gateway, 100);
    thread::sleep(Duration::from_millis(300));
    for name in ["sidecar of product-1", "sidecar of product-2"] {
        rustix::process::kill_process(common::pid(mesh.process(name)), rustix::process::Signal::KILL)
            .unwrap();
    }
    thread::sleep(Duration::from_secs(1));
    let tally = load.stop();
    assert_eq!(tally.failed, 0, "{:?}", tally.bad);
    let far: u64 = ["product-3", "product-4"].iter().filter_map(|name| tally.by_instance.get(*name)).sum();
    assert!(far > 0, "{:?}", tally.by_instance);
    until("its requests are near again", SOON, || {
        let near = common::mesh::calls(&products, 48);
        near.failed == 0 && near.by_instance.keys().all(|name| name == "product-1" || name == "product-2")
    });
    mesh.stop();
}
