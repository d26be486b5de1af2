//! A mesh on the ground: a control plane and what `leno run` starts, whose sidecars speak over the ground's loopback.

use std::process::Command;

use serde_json::Value;

use crate::common::until;
use crate::ground::{Ground, Program, SOON};

/// Where the control plane's API listens: plain HTTP on loopback, the one thing on the wire that is no TLS.
pub(crate) const API_PORT: u16 = 15014;
/// Where a sidecar offers services to clients on the ground's loopback.
pub(crate) const NEAR: &str = "127.0.0.2";
/// The service as which clients run.
pub(crate) const CALLER: &str = "caller";

/// A control plane, and what there is to know to join its mesh.
pub(crate) struct Mesh<'a> {
    ground: &'a Ground,
    _control: Program,
    api_token: String,
}

impl<'a> Mesh<'a> {
    /// Starts the control plane of a mesh file, which is followed when it changes.
    pub(crate) fn start(ground: &'a Ground, file: &str) -> Self {
        ground.write("mesh.yaml", file);
        let mut command = ground.command(LENO);
        command.args(["control", "--ephemeral", "--file", "mesh.yaml"]);
        let control = ground.start("control", &mut command);
        let ready = event(ground, "control", "ready");
        let api_token = ready["api_token"].as_str().unwrap_or_default().to_owned();
        Self { ground, _control: control, api_token }
    }

    /// The mesh file of one service that the caller calls.
    pub(crate) fn file_of(service: &str) -> String {
        format!("mesh: apps\nservices:\n  {service}: {{}}\n  {CALLER}: {{calls: {service}, health: none}}\n")
    }

    /// A token with which an instance of a service may join.
    pub(crate) fn token(&self, service: &str) -> String {
        let mut command = self.ground.command(LENO);
        command.args(["token", "create", "--service", service]).env("LENO_API_TOKEN", &self.api_token);
        let (good, token) = self.ground.end(&format!("token-{service}"), &mut command);
        assert!(good && !token.is_empty(), "no token for {service}");
        token.trim().to_owned()
    }

    /// A script beside a sidecar of its own, in a namespace of its own, as an instance of a service. Its standard output and
    /// how it ends are the script's.
    pub(crate) fn run(&self, service: &str, port: Option<u16>, script: &str) -> Command {
        // A session of its own, as a shell or a container would give it.
        let mut command = self.ground.command("setsid");
        command.args(["timeout", "--kill-after=10", RUN_SECONDS, LENO]);
        command.env("LENO_TOKEN", self.token(service));
        command.args(["run", "--control", "127.0.0.1:15010", "--service", service]);
        if let Some(port) = port {
            command.args(["--port", &port.to_string()]);
        }
        command.args(["--", "sh", "-euc", script]);
        command
    }

    /// A sidecar for a server that runs already on the ground's loopback.
    pub(crate) fn beside(&self, service: &str, port: u16) -> Program {
        self.proxy(service, &["--app", &format!("127.0.0.1:{port}")])
    }

    /// A sidecar for clients, which offers a service at its own port of [`NEAR`].
    pub(crate) fn near(&self, service: &str, port: u16) -> Program {
        let sidecar =
            self.proxy(CALLER, &["--app", "127.0.0.1:9", "--outbound", &format!("{service}={NEAR}:{port}")]);
        event(self.ground, &format!("sidecar-{CALLER}"), "ready");
        sidecar
    }

    fn proxy(&self, service: &str, more: &[&str]) -> Program {
        let mut command = self.ground.command(LENO);
        command.env("LENO_TOKEN", self.token(service));
        command.args(["proxy", "--control", "127.0.0.1:15010", "--service", service]);
        command.args(["--instance", &format!("{service}-1"), "--mesh-listen", "127.0.0.1:0"]);
        command.args(["--proxy-listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(more);
        self.ground.start(&format!("sidecar-{service}"), &mut command)
    }

    /// Waits until a service has a healthy instance. `alive` ends the wait early: it panics when there is no hope.
    pub(crate) fn wait_for(&self, service: &str, mut alive: impl FnMut()) {
        until(&format!("{service} is healthy"), SOON, || {
            alive();
            self.healthy(service) > 0
        });
    }

    /// Grows with each change of what proxies are told.
    pub(crate) fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().unwrap_or_default()
    }

    /// Whether every proxy holds all that the control plane would tell it.
    pub(crate) fn all_hold(&self, generation: u64) -> bool {
        let status = self.status();
        assert!(
            status["file"]["problem"].is_null(),
            "the mesh file is refused: {}",
            status["file"]["problem"]
        );
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        let holds = |proxy: &Value| proxy["connected"] == true && proxy["up_to_date"] == true;
        !proxies.is_empty() && proxies.iter().all(holds) && status["generation"] == generation
    }

    fn status(&self) -> Value {
        let mut command = self.ground.command(LENO);
        let (_, text) = self.ground.end("status", command.args(["status", "-o", "json"]));
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// How many of a service's instances are healthy.
    pub(crate) fn healthy(&self, service: &str) -> usize {
        let mut command = self.ground.command(LENO);
        let (_, text) = self.ground.end("instances", command.args(["instances", service, "-o", "json"]));
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let list = value.as_array().cloned().unwrap_or_default();
        list.iter().filter(|instance| instance["health"] == "healthy").count()
    }
}

/// Waits for a line of JSON that a program of Leno writes.
pub(crate) fn event(ground: &Ground, program: &str, name: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("{program} says {name}"), SOON, || {
        let said = ground.said(program);
        let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = events.find(|value| value["event"] == name).unwrap_or_default();
        !found.is_null()
    });
    found
}

/// For anything that runs beside a sidecar: longer than any of it takes.
const RUN_SECONDS: &str = "240";
/// The binary under test.
pub(crate) const LENO: &str = env!("CARGO_BIN_EXE_leno");
