//! One application: how its server is started, what its client does, and what must come of it, with and without Leno.

use rustix::process::Signal;

use crate::common::until;
use crate::ground::{CLIENT_SECONDS, Ground, Program, SOON, WORK, find, registries, skip};
use crate::mesh::{API_PORT, CALLER, Mesh, NEAR};
use crate::wire::{Capture, Traffic};

/// A server and a client that nobody here wrote. All scripts run as `sh -eu` in the ground's working folder, with
/// `$HOST`, `$PORT`, `$MARK`, `$PYTHON` and `$DIR`.
pub(crate) struct Scenario {
    /// Its name, and the name of the service.
    pub(crate) name: &'static str,
    /// Where the server listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// What must be installed.
    pub(crate) needs: &'static [Need],
    /// Files that are there from the start: name and content.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Runs once, before anything else.
    pub(crate) prepare: &'static str,
    /// The server; its last command should be an `exec`.
    pub(crate) server: &'static str,
    /// The client. What it writes to standard output must be the same both times.
    pub(crate) client: &'static str,
    /// What has to be in it.
    pub(crate) expect: &'static [&'static str],
    /// Whether `$MARK` crosses the wire in the clear when there is no Leno. If so it must be seen then: that is the
    /// proof that the capture would notice.
    pub(crate) clear: bool,
}

/// Something that has to be there.
pub(crate) enum Need {
    /// A program of the machine.
    Program(&'static str),
    /// A file below the folder of what comes from the registries of Python and Node.
    Registry(&'static str),
    /// PostgreSQL's server, which is in no `PATH`.
    PostgresServer,
}

impl Need {
    /// Why it is not there, if it is not.
    pub(crate) fn missing(&self) -> Option<String> {
        let (name, there) = match self {
            Self::Program(name) => (*name, find(name).is_some()),
            Self::Registry(path) => (*path, registries().join(path).exists()),
            Self::PostgresServer => {
                let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
                (
                    "postgres",
                    folders.map(|folder| folder.path().join("bin/initdb")).any(|file| file.is_file()),
                )
            }
        };
        (!there).then(|| format!("{name} is not installed (`cargo xtask test` installs it)"))
    }
}

/// Python with the packages of the scenarios.
pub(crate) const PYTHON: Need = Need::Registry("venv/complete");

/// Node with the packages of the scenarios.
pub(crate) const NODE: Need = Need::Registry("node_modules/complete");

impl Scenario {
    /// What there is to leave out: for scenarios to start from.
    pub(crate) const BARE: Self = Self {
        name: "",
        port: 0,
        needs: &[],
        files: &[],
        prepare: "",
        server: "",
        client: "",
        expect: &[],
        clear: true,
    };

    /// Runs it on plain loopback, through the ports of a pair of sidecars, and captured; the client has to see the same.
    pub(crate) fn check(&self) {
        let Some(ground) = self.ground(self.name) else { return };
        let (direct, traffic) = self.direct(&ground);
        for wanted in self.expect {
            assert!(direct.contains(wanted), "{}: no {wanted:?} without Leno, in:\n{direct}", self.name);
        }
        if self.clear {
            assert!(
                traffic.holds(self.mark().as_bytes()),
                "{}: the capture does not see the mark",
                self.name
            );
        }
        self.same("by port", &direct, &self.by_port(&ground));
        let (captured, traffic) = self.captured(&ground);
        self.same("captured", &direct, &captured);
        traffic.check_tls(&[API_PORT]);
        assert!(!traffic.holds(self.mark().as_bytes()), "{}: the mark crosses in the clear", self.name);
        let bytes = traffic.bytes(&[API_PORT]);
        assert!(bytes > direct.len(), "{}: {bytes} bytes cannot have been all of it", self.name);
    }

    /// Checks that the client saw the same as without Leno.
    fn same(&self, way: &str, direct: &str, seen: &str) {
        let pairs = direct.lines().map(Some).chain(std::iter::repeat(None));
        let differs = pairs
            .zip(seen.lines().map(Some).chain(std::iter::repeat(None)))
            .take_while(|(a, b)| a.or(*b).is_some());
        let different: Vec<String> = differs
            .filter(|(a, b)| a != b)
            .take(10)
            .map(|(a, b)| format!("  {} | {}", a.unwrap_or("(nothing)"), b.unwrap_or("(nothing)")))
            .collect();
        assert!(
            different.is_empty(),
            "{}, {way}: without Leno | with Leno\n{}",
            self.name,
            different.join("\n")
        );
    }

    /// The ground with all that it needs, or `None` after saying which test is skipped and why.
    pub(crate) fn ground(&self, test: &str) -> Option<Ground> {
        let always = [Need::Program("tcpdump"), Need::Program("nc"), Need::Program("nsenter")];
        if let Some(why) = always.iter().chain(self.needs).find_map(Need::missing) {
            skip(test, &why);
            return None;
        }
        let ground = Ground::make(test)?;
        for (name, content) in self.files {
            ground.write(name, content);
        }
        let (good, _) = ground.run("prepare", self.prepare, &self.environment("127.0.0.1"));
        assert!(good, "{}: its preparation fails", self.name);
        Some(ground)
    }

    /// Server and client on the ground's own loopback: what the client saw, and what crossed.
    fn direct(&self, ground: &Ground) -> (String, Traffic) {
        ground.names(&format!("127.0.0.1 {}\n", self.name));
        let capture = Capture::start(ground, "direct");
        let server = self.server_on_loopback(ground, "server-direct");
        let seen = self.client_on_loopback(ground, "direct");
        server.stop(Signal::TERM);
        (seen, capture.stop(ground))
    }

    /// The client speaks to a local port of a sidecar of its own, as where nothing may be captured: what it saw.
    fn by_port(&self, ground: &Ground) -> String {
        ground.names(&format!("{NEAR} {}\n", self.name));
        let mesh = Mesh::start(ground, &Mesh::file_of(self.name));
        let server = self.server_on_loopback(ground, "server-by-port");
        let _beside = mesh.beside(self.name, self.port);
        let _near = mesh.near(self.name, self.port);
        mesh.wait_for(self.name, || {});
        let seen = self.client_on_loopback(ground, "by-port");
        server.stop(Signal::TERM);
        seen
    }

    /// Server and client each in a namespace of its own, captured: what the client saw, and what crossed between them.
    fn captured(&self, ground: &Ground) -> (String, Traffic) {
        ground.names("");
        let capture = Capture::start(ground, "captured");
        let mesh = Mesh::start(ground, &Mesh::file_of(self.name));
        let server = self.server_captured(ground, &mesh);
        let mut command = mesh.run(CALLER, None, &bounded(self.client));
        command.envs(self.environment(self.name));
        let (good, seen) = ground.end("client-captured", &mut command);
        assert!(good, "{}: the client fails when captured", self.name);
        server.stop(Signal::TERM);
        (seen, capture.stop(ground))
    }

    /// Starts the server with a sidecar, in a namespace of its own, and waits until the mesh finds it healthy.
    pub(crate) fn server_captured(&self, ground: &Ground, mesh: &Mesh<'_>) -> Program {
        let mut command = mesh.run(self.name, Some(self.port), self.server);
        command.envs(self.environment(self.name));
        let mut server = ground.start("server-captured", &mut command);
        mesh.wait_for(self.name, || assert!(server.ended().is_none(), "{}: the server ended", self.name));
        server
    }

    /// Starts the server and waits until it takes connections.
    fn server_on_loopback(&self, ground: &Ground, log: &str) -> Program {
        let mut command = ground.script(self.server);
        command.envs(self.environment(self.name));
        let mut server = ground.start(log, &mut command);
        let probe = format!("nc -z 127.0.0.1 {}", self.port);
        until(&format!("{}: the server listens", self.name), SOON, || {
            assert!(server.ended().is_none(), "{}: the server ended", self.name);
            ground.holds(&probe)
        });
        server
    }

    fn client_on_loopback(&self, ground: &Ground, way: &str) -> String {
        let (good, seen) = ground.run(&format!("client-{way}"), self.client, &self.environment(self.name));
        assert!(good, "{}: the client fails ({way})", self.name);
        seen
    }

    /// What scripts are told.
    pub(crate) fn environment(&self, host: &str) -> Vec<(&'static str, String)> {
        let registries = registries();
        vec![
            ("HOST", host.to_owned()),
            ("PORT", self.port.to_string()),
            ("MARK", self.mark()),
            ("DIR", WORK.to_owned()),
            ("PYTHON", registries.join("venv/bin/python3").display().to_string()),
            ("NODE_PATH", registries.join("node_modules").display().to_string()),
            ("PYTHONUNBUFFERED", "1".to_owned()),
        ]
    }

    /// What may never be seen between sidecars.
    pub(crate) fn mark(&self) -> String {
        format!("leno-mark-{}-seen", self.name)
    }
}

/// A script that ends after a minute, however it goes.
fn bounded(script: &str) -> String {
    format!("exec timeout --kill-after=2 {CLIENT_SECONDS} sh -euc '{}'", script.replace('\'', "'\\''"))
}
