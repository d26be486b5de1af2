//! A thousand WebSockets and a thousand gRPC streams, held open while the mesh's configuration changes twenty times. None may be
//! cut, and on each every message has to come back, in order and once.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::until;
use crate::ground::{Ground, Program};
use crate::mesh::{CALLER, Mesh};
use crate::scenario::{PYTHON, Scenario};

#[test]
fn a_thousand_websockets_and_a_thousand_grpc_streams_through_twenty_changes() {
    let Some(ground) = SCENARIO.ground(SCENARIO.name) else { return };
    let mesh = Mesh::start(&ground, &file(0));
    let mut kinds: Vec<Kind> = [("websockets", 8765), ("grpc", 50051)]
        .into_iter()
        .map(|(name, port)| Kind::start(&ground, &mesh, name, port))
        .collect();
    for kind in &mut kinds {
        kind.wait("all streams are open", OPENING, |said| said["opened"] == STREAMS);
    }
    let mut generation = mesh.generation();
    for change in 1..=CHANGES {
        ground.write("mesh.yaml", file(change));
        until("the control plane takes the change", CHANGE, || mesh.generation() > generation);
        generation = mesh.generation();
        until("every sidecar takes the change", CHANGE, || mesh.all_hold(generation));
        // From here on whatever comes back came through a sidecar that has changed.
        for kind in &mut kinds {
            let before = kind.said()["least"].as_u64().unwrap_or_default();
            let what = format!("a message on every stream after change {change}");
            kind.wait(&what, CHANGE, |said| said["least"].as_u64() > Some(before));
        }
    }
    ground.write("stop", "");
    for kind in &mut kinds {
        kind.wait("all streams end well", OPENING, |said| said["ended"] == STREAMS);
        let least = kind.said()["least"].as_u64().unwrap();
        assert!(least >= CHANGES, "{}: a stream had {least} messages only", kind.name);
    }
    kinds.into_iter().for_each(Kind::stop);
}

/// The streams of one protocol: a server, a client, each with its sidecar.
struct Kind<'a> {
    ground: &'a Ground,
    name: &'static str,
    server: Program,
    client: Program,
}

impl<'a> Kind<'a> {
    fn start(ground: &'a Ground, mesh: &Mesh<'a>, name: &'static str, port: u16) -> Self {
        let environment = SCENARIO.environment(name);
        let script = |text: String| format!("ulimit -n 8192; exec $PYTHON {text}");
        let serve = script(format!("many_server.py {name} 127.0.0.1:{port}"));
        let mut command = mesh.run(name, Some(port), &serve);
        let mut server = ground.start(&format!("server-{name}"), command.envs(environment.clone()));
        mesh.wait_for(name, || assert!(server.ended().is_none(), "{name}: the server ended"));
        let call = script(format!("many_client.py {name} {name}:{port} {STREAMS}"));
        let mut command = mesh.run(CALLER, None, &call);
        let client = ground.start(&format!("client-{name}"), command.envs(environment));
        Self { ground, name, server, client }
    }

    /// What the client said last.
    fn said(&self) -> Value {
        let text = self.ground.said(&format!("client-{}", self.name));
        text.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    /// Waits until the client says something; fails at the first stream that is cut.
    fn wait(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Value) -> bool) {
        let end = Instant::now() + within;
        loop {
            let said = self.said();
            let troubles = said["troubles"].as_u64().unwrap_or_default();
            assert_eq!(troubles, 0, "{}: streams were cut or hurt while waiting: {what}", self.name);
            if holds(&said) {
                return;
            }
            assert!(self.client.ended().is_none(), "{}: the client ended while waiting: {what}", self.name);
            assert!(self.server.ended().is_none(), "{}: the server ended while waiting: {what}", self.name);
            assert!(Instant::now() < end, "{}: {what}: not within {within:?}: {said}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(self) {
        drop(self.client);
        self.server.stop(Signal::TERM);
    }
}

/// The mesh after a number of changes: routes, weights, services, a gateway and what the caller calls, each with its own period.
fn file(change: u64) -> String {
    let mut text = "mesh: apps\n".to_owned();
    if change % 5 > 2 {
        text.push_str(&format!("gateway:\n  routes: [{{path: /{change}/, to: websockets}}]\n"));
    }
    text.push_str("services:\n");
    for name in ["websockets", "grpc"] {
        let balance = ["least-request", "round-robin", "random"][(change % 3) as usize];
        text.push_str(&format!("  {name}:\n    balance: {balance}\n"));
        if change % 2 == 1 {
            let to = if change % 4 == 1 { "extra" } else { name };
            text.push_str(&format!("    routes: [{{path: /{change}/, to: {to}, timeout: 1s}}]\n"));
        }
    }
    let weight = 1 + change;
    text.push_str(&format!(
        "  extra:\n    endpoints: [{{address: \"127.0.0.1:9\", weight: {weight}}}, \"127.0.0.1:10\"]\n"
    ));
    for number in 0..change % 4 {
        text.push_str(&format!("  added-{change}-{number}: {{endpoints: [\"127.0.0.1:9\"]}}\n"));
    }
    let calls = if change % 3 == 2 { "websockets, grpc, extra" } else { "websockets, grpc" };
    text.push_str(&format!("  {CALLER}: {{calls: [{calls}], health: none}}\n"));
    text
}

/// What there is to have for the test; its scripts are not used.
const SCENARIO: Scenario = Scenario {
    name: "long-lived",
    needs: &[PYTHON],
    files: &[
        ("many_server.py", include_str!("programs/many_server.py")),
        ("many_client.py", include_str!("programs/many_client.py")),
    ],
    ..Scenario::BARE
};
/// Of each kind.
const STREAMS: u64 = 1_000;
/// How often the configuration changes.
const CHANGES: u64 = 20;
/// For all streams to open, or to end.
const OPENING: Duration = Duration::from_secs(60);
/// For a change to be in force, or for a message on every stream.
const CHANGE: Duration = Duration::from_secs(20);

#[test]
fn every_change_is_one() {
    let files: std::collections::BTreeSet<String> = (0..=CHANGES).map(file).collect();
    assert_eq!(files.len() as u64, CHANGES + 1);
}
