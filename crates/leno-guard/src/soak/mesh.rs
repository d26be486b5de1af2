//! The processes of the soak test: a control plane that follows a mesh file, a gateway as a plain proxy, and a pair of
//! sidecars; and the mesh file, another one every second.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::proxies::free_address;

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How long an admin address may take to answer.
const ADMIN: Duration = Duration::from_secs(5);
/// How long a process may take to end.
const STOP: Duration = Duration::from_secs(20);

/// A mesh that runs. Dropping it ends its processes.
pub(super) struct Mesh {
    folder: TempDir,
    gateway_listen: SocketAddr,
    upstreams: [SocketAddr; 2],
    /// Control plane, gateway, callee and caller.
    pub(super) processes: Vec<Process>,
    /// Where requests enter the plain proxy.
    pub(super) plain: SocketAddr,
    /// Where requests enter the pair.
    pub(super) pair: SocketAddr,
}

impl Mesh {
    /// `app` is beside the callee's sidecar; the gateway reaches `upstreams`.
    pub(super) fn start(leno: &Path, app: SocketAddr, upstreams: [SocketAddr; 2]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let gateway_listen = free_address()?;
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut mesh =
            Self { folder, gateway_listen, upstreams, processes: Vec::new(), plain: none, pair: none };
        mesh.write(0)?;
        let any = "127.0.0.1:0";
        let file = mesh.file().to_string_lossy().into_owned();
        let arguments =
            ["control", "--ephemeral", "--file", &file, "--mesh-listen", any, "--api-listen", any];
        let control = mesh.process("control", leno, &arguments, "")?;
        let api = Api {
            url: format!("http://{}", text(&control, "api")?),
            token: text(&control, "api_token")?.to_owned(),
        };
        let at = text(&control, "mesh")?;
        let common = ["proxy", "--control", at, "--workers", "1", "--admin", any];

        let token = api.token(leno, "--gateway", "gate")?;
        let arguments = [&common[..], &["--gateway", "gate"]].concat();
        let ready = mesh.process("gateway", leno, &arguments, &token)?;
        mesh.plain = address(text(&ready, "gateway")?)?;

        let sidecar = [&common[..], &["--mesh-listen", any, "--proxy-listen", any]].concat();
        let (token, app) = (api.token(leno, "--service", "app")?, app.to_string());
        let arguments = [&sidecar[..], &["--service", "app", "--instance", "app-1", "--app", &app]].concat();
        mesh.process("callee", leno, &arguments, &token)?;

        // Nothing calls the caller, so nothing listens on its port.
        let token = api.token(leno, "--service", "caller")?;
        let own = ["--service", "caller", "--instance", "caller-1", "--app", "127.0.0.1:9"];
        let outbound = format!("app={}", free_address()?);
        let arguments = [&sidecar[..], &own, &["--outbound", &outbound]].concat();
        let ready = mesh.process("caller", leno, &arguments, &token)?;
        let local = ready["outbound"].as_object().and_then(|all| all.values().next()).and_then(Value::as_str);
        mesh.pair = address(local.ok_or("the caller has no local port")?)?;
        Ok(mesh)
    }

    /// Puts another version of the mesh file in force. Every version sends the requests of this test to healthy places.
    pub(super) fn write(&self, version: u64) -> Result<(), String> {
        let [a, b] = self.upstreams;
        let endpoints = match version % 4 {
            0 => format!("\"{a}\""),
            1 => format!("\"{a}\", \"{b}\""),
            2 => format!("\"{b}\""),
            _ => format!("{{name: outside-b, address: \"{b}\", weight: 3}}, \"{a}\""),
        };
        let rules: String =
            (0..version % 7).map(|rule| format!("    - {{path: /none-{rule}/, to: outside}}\n")).collect();
        let balance = if version.is_multiple_of(2) { "least-request" } else { "round-robin" };
        let routes: String = (0..version % 3)
            .map(|rule| format!("      - {{path: /none-{rule}/, to: {{weight: 2}}}}\n"))
            .collect();
        let routes = if routes.is_empty() { routes } else { format!("    routes:\n{routes}") };
        let listen = self.gateway_listen;
        let text = format!(
            "mesh: soak
gateways:
  gate:
    listen: \"{listen}\"
    routes:
{}      - to: outside
services:
  outside:
    balance: {balance}
    endpoints: [{endpoints}]
  app:
    balance: {balance}
    timeout: {}s
{routes}  caller:
    calls: app
    health: none
",
            rules.replace("    - ", "      - "),
            60 + version % 5,
        );
        // Replaced whole: nobody reads half a file.
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, text)
            .and_then(|()| std::fs::rename(&next, self.file()))
            .map_err(|error| error.to_string())
    }

    /// Says so when a process has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.processes.iter_mut().find_map(|process| match process.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{} has ended: {status}", process.name)),
            Err(error) => Some(format!("{}: {error}", process.name)),
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("mesh.yaml")
    }

    /// Starts a process and waits for its line of readiness.
    fn process(
        &mut self,
        name: &'static str,
        leno: &Path,
        arguments: &[&str],
        token: &str,
    ) -> Result<Value, String> {
        let log = self.folder.path().join(format!("{name}.log"));
        let file = std::fs::File::create(&log).map_err(|error| error.to_string())?;
        let mut child = Command::new(leno)
            .args(arguments)
            .arg("--die-with-parent")
            .env("LENO_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", leno.display()))?;
        let output = child.stdout.take();
        self.processes.push(Process { name, child, log: log.clone(), admin: None });
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in
                output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok)
            {
                let _ = tell.send(line);
            }
        });
        let line = told.recv_timeout(READY).map_err(|_| {
            format!("{name} is not ready: {}", std::fs::read_to_string(&log).unwrap_or_default().trim())
        })?;
        let ready: Value = serde_json::from_str(&line).map_err(|_| format!("{name} said `{line}`"))?;
        if let Some(process) = self.processes.last_mut() {
            process.admin = ready["admin"].as_str().and_then(|text| text.parse().ok());
        }
        Ok(ready)
    }
}

/// One of the processes under test.
pub(super) struct Process {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
    /// Of a proxy.
    admin: Option<SocketAddr>,
}

impl Process {
    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Open descriptors.
    pub(super) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// The generation of the configuration that it holds, in a proxy that says so.
    pub(super) fn generation(&self) -> Option<u64> {
        let mut stream = TcpStream::connect_timeout(&self.admin?, ADMIN).ok()?;
        stream.set_read_timeout(Some(ADMIN)).ok()?;
        stream.write_all(b"GET /config HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let (_, rest) = said.split_once("\"generation\":")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Lines of its log that say that something is wrong with it or with what it was told.
    pub(super) fn complaints(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let loud = ["ERROR", "panicked", "cannot be used", "refused a resource"];
        let loud = log.lines().filter(|line| loud.iter().any(|word| line.contains(word)));
        loud.take(COMPLAINTS_MAX).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where join tokens come from.
struct Api {
    url: String,
    token: String,
}

impl Api {
    fn token(&self, leno: &Path, kind: &str, name: &str) -> Result<String, String> {
        let done = Command::new(leno)
            .args(["token", "create", "--api", &self.url, kind, name])
            .env("LENO_API_TOKEN", &self.token)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        if done.status.success() {
            Ok(said)
        } else {
            Err(format!("no token for {name}: {}", String::from_utf8_lossy(&done.stderr).trim()))
        }
    }
}

fn text<'a>(ready: &'a Value, name: &str) -> Result<&'a str, String> {
    ready[name].as_str().ok_or_else(|| format!("`{name}` is missing in {ready}"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address"))
}

/// Complaints that are shown of one process.
const COMPLAINTS_MAX: usize = 20;
