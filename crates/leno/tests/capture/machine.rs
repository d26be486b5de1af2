//! A machine of its own for each test: a network namespace in which a mesh runs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use leno_proxy::netns::Namespace;
use tempfile::TempDir;

use crate::common::{Running, leno, write};

/// The machine's address beside loopback.
pub(crate) const V4: &str = "10.77.0.1";
/// The same for IPv6.
pub(crate) const V6: &str = "fd77::1";

/// A network namespace, and a folder.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    pub(crate) folder: TempDir,
}

impl Machine {
    /// One with two addresses, or `None` after saying that `test` is skipped.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if let Some(why) = cannot(&["nft", "ip", "curl", "python3"]) {
            // Not `eprintln!`: the test runner keeps that to itself when a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED capture::{test}: {why}");
            return None;
        }
        let namespace = Namespace::create().unwrap();
        let machine = Self { namespace, folder: tempfile::tempdir().unwrap() };
        machine.shell(&format!(
            "ip link set lo up && ip address add {V4}/32 dev lo && ip address add {V6}/128 dev lo nodad"
        ));
        Some(machine)
    }

    /// Starts a process in it.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        self.namespace.run(|| Ok(Running::start(command))).unwrap()
    }

    /// Runs a process in it to its end.
    pub(crate) fn output(&self, command: &mut Command) -> Output {
        self.namespace.run(|| Ok(crate::common::run(command))).unwrap()
    }

    /// Does something in it.
    pub(crate) fn inside<T: Send>(&self, does: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(|| Ok(does())).unwrap()
    }

    /// What a shell script says, without the end of its last line; it must succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.output(Command::new("sh").args(["-ec", script]).stdin(Stdio::null()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text.trim_end().to_owned()
    }

    /// Starts a mesh of two services without instances, `app` and `caller`, behind a gateway on port 8080.
    pub(crate) fn mesh(&self) -> Mesh<'_> {
        let text = "mesh: t\n\
            gateway: {listen: \"127.0.0.1:8080\", routes: [{to: app}]}\n\
            services:\n  app: {health: tcp}\n  caller: {calls: app}\n";
        let file = write(self.folder.path(), "mesh.yaml", text);
        let state = self.folder.path().join("state");
        let up = self.start(leno().args(["up", "-o", "json"]).arg(&file).arg("--state").arg(&state));
        up.event("ready", Duration::from_secs(40));
        Mesh { machine: self, _up: up, state }
    }

    /// Serves `text` by HTTP to whoever asks, on both of the machine's addresses.
    pub(crate) fn serve(&self, text: &str) -> Running {
        let script = format!(
            "import http.server, socket, sys\n\
             class Server(http.server.ThreadingHTTPServer):\n    address_family = socket.AF_INET6\n\
             class Handler(http.server.BaseHTTPRequestHandler):\n    protocol_version = 'HTTP/1.1'\n    \
             def do_GET(self):\n        body = b'{text}'\n        self.send_response(200)\n        \
             self.send_header('content-length', str(len(body)))\n        self.end_headers()\n        self.wfile.write(body)\n    \
             def log_message(self, *_): pass\n\
             server = Server(('::', 8000), Handler)\n\
             print('listening', flush=True)\nserver.serve_forever()\n"
        );
        let server = self.start(Command::new("python3").args(["-c", &script]));
        server.find(Duration::from_secs(20), |line| (line == "listening").then_some(()));
        server
    }
}

/// A mesh that runs on a machine.
pub(crate) struct Mesh<'a> {
    pub(crate) machine: &'a Machine,
    _up: Running,
    pub(crate) state: PathBuf,
}

impl Mesh<'_> {
    /// `leno run` with these options for this program.
    pub(crate) fn run(&self, options: &[&str], program: &[&str]) -> Command {
        let mut command = leno();
        command.arg("run").arg("--state").arg(&self.state).args(options).arg("--").args(program);
        command
    }

    /// What the registry knows.
    pub(crate) fn instances(&self) -> String {
        let output = self.machine.output(leno().arg("instances").arg("--state").arg(&self.state));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the gateway answers: the status and the body.
    pub(crate) fn ask_gateway(&self) -> String {
        let asked = "curl -s -m 5 -w ' %{http_code}' http://127.0.0.1:8080/ || true";
        self.machine.shell(asked)
    }
}

/// Why namespaces cannot be made here, or which of these programs is missing.
pub(crate) fn cannot(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing = programs.iter().find(|program| !found(program));
    missing.map(|program| format!("{program} is not installed"))
}

/// Whether a process has this word in its command line, and is no zombie.
pub(crate) fn processes_with(word: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word) && crate::common::alive(*pid)
    };
    pids.filter(|pid| *pid != std::process::id()).filter(has).collect()
}
