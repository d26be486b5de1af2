//! The proxies under test, started and watched.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::common::{Running, agent, alive, free_port, leno};
use crate::origin;
use crate::secure;

/// For a proxy to be ready: far above what it takes, because a machine that builds something beside is slow.
const READY_MAX: Duration = Duration::from_secs(20);

/// Where cases are sent to, and who is behind it.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// How to begin TLS there; `None`: in plain text.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The one that clients talk to comes first.
    proxies: Vec<Proxy>,
    folder: tempfile::TempDir,
}

/// One process.
struct Proxy {
    running: Running,
    admin: SocketAddr,
    /// Where peers reach it.
    mesh: Option<SocketAddr>,
}

impl Target {
    /// One proxy between a client outside and an application of HTTP/1.
    pub(crate) fn gateway() -> Self {
        Self::gateway_before("http", origin::start(0))
    }

    /// The same with an application of the test's choice.
    pub(crate) fn gateway_before(protocol: &str, origin: SocketAddr) -> Self {
        let services = format!("  web:\n    protocol: {protocol}\n    endpoints: [\"{origin}\"]\n");
        Self::gateway_to("    - {path: /, to: web}\n", &services)
    }

    /// A gateway with these routes and services, as a mesh file has them.
    pub(crate) fn gateway_to(routes: &str, services: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n{routes}services:\n{services}"
        );
        fs::write(&file, text).unwrap();
        let proxies = vec![Proxy::start(&file, "gateway", None)];
        Self { name: "gateway", address: ([127, 0, 0, 1], port).into(), tls: None, proxies, folder }
    }

    /// A gateway where TLS ends.
    pub(crate) fn gateway_with_tls() -> Self {
        let (folder, port, origin) = (tempfile::tempdir().unwrap(), free_port(), origin::start(0));
        secure::self_signed(folder.path());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: hop\ngateway:\n  listeners:\n    - protocol: https\n      listen: 127.0.0.1:{port}\n\
             \x20     certificates: [{{cert: own.pem, key: own.key}}]\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n    protocol: http\n    endpoints: [\"{origin}\"]\n"
        );
        fs::write(&file, text).unwrap();
        let proxies = vec![Proxy::start(&file, "gateway", None)];
        Self {
            name: "gateway with TLS",
            address: ([127, 0, 0, 1], port).into(),
            tls: Some(secure::stranger()),
            proxies,
            folder,
        }
    }

    /// The mesh port of a server's sidecar.
    pub(crate) fn inbound() -> Self {
        let mut target = Self::sidecars();
        // The client's has done its part: it has made the authority that this peer's certificate is from.
        let server = target.proxies.remove(1);
        target.name = "inbound";
        target.tls = Some(secure::peer(&target.folder.path().join("identity"), "pair.mesh", "client"));
        target.address = server.mesh.unwrap();
        target.proxies = vec![server];
        target
    }

    /// The port that a client's sidecar has for the server; behind it the mesh and the server's sidecar.
    pub(crate) fn sidecars() -> Self {
        Self::sidecars_before("http", origin::start(0))
    }

    /// The same with an application of the test's choice.
    pub(crate) fn sidecars_before(protocol: &str, origin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, mesh, own, app] = [free_port(), free_port(), free_port(), free_port()];
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
             \x20 server:\n    protocol: {protocol}\n    health: none\n    instances:\n\
             \x20     - {{name: server, address: \"{origin}\", mesh: \"127.0.0.1:{mesh}\"}}\n"
        );
        fs::write(&file, text).unwrap();
        let identity = folder.path().join("identity");
        let mut proxies = ["client", "server"].map(|role| Proxy::start(&file, role, Some(&identity)));
        proxies[1].mesh = Some(([127, 0, 0, 1], mesh).into());
        Self {
            name: "sidecars",
            address: ([127, 0, 0, 1], out).into(),
            tls: None,
            proxies: proxies.into(),
            folder,
        }
    }

    /// All of its processes run.
    pub(crate) fn lives(&self) -> bool {
        self.proxies.iter().all(|proxy| alive(proxy.running.pid()))
    }

    /// The process that clients talk to.
    pub(crate) fn pid(&self) -> u32 {
        self.proxies[0].running.pid()
    }

    /// A sample of the metrics of the process that clients talk to; 0 when there is none.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let url = format!("http://{}/metrics", self.proxies[0].admin);
        let text = agent().get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// What a process has in memory now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Proxy {
    fn start(file: &Path, role: &str, identity: Option<&Path>) -> Self {
        let mut command = leno();
        command
            .args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"])
            .arg(file);
        if let Some(identity) = identity {
            command.arg("--identity").arg(identity);
        }
        let running = Running::start(command.stderr(Stdio::inherit()));
        let ready = running.event("ready", READY_MAX);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { running, admin, mesh: None }
    }
}
