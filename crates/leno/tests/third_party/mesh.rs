//! Leno's processes around one upstream, without a control plane: a gateway that reaches it in plain text, and a
//! pair of sidecars that reach it over the mesh transport.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::free_port;

/// How long anything may take here, on a machine that also compiles.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The instance whose sidecar offers the way over the mesh transport.
const CALLER: &str = "caller-1";

/// A process that is killed at the end.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts a server of somebody else's and waits until it accepts connections.
    pub(crate) fn serve(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut process = Self(child);
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(address).is_err() {
            assert_eq!(process.0.try_wait().unwrap(), None, "{command:?} ended");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of one test, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("third-party-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One `leno proxy`.
pub(crate) struct Proxy {
    _process: Process,
    /// Its line of readiness.
    pub(crate) ready: serde_json::Value,
}

impl Proxy {
    /// Starts a role of a mesh file.
    pub(crate) fn start(file: &Path, role: &str, identity: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leno"));
        command.args([
            "proxy",
            "--role",
            role,
            "--workers",
            "1",
            "--die-with-parent",
            "--drain-seconds",
            "1",
        ]);
        command.args(["--admin", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0"]);
        if role == CALLER {
            command.args(["--outbound", "app=127.0.0.1:0"]);
        }
        command.arg("--file").arg(file).arg("--identity").arg(identity);
        let log = std::fs::File::create(file.with_file_name(format!("{role}.log"))).unwrap();
        // Its stdin stays open as long as we live: it ends with us, however we end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process(command.spawn().unwrap());
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let said = || std::fs::read_to_string(file.with_file_name(format!("{role}.log"))).unwrap_or_default();
        let line = lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("{role} is not ready: {}", said()));
        Self { _process: process, ready: serde_json::from_str(&line).unwrap() }
    }

    /// An address in the line of readiness.
    pub(crate) fn address(&self, path: &str) -> SocketAddr {
        let text = self.ready.pointer(path).and_then(serde_json::Value::as_str);
        text.unwrap_or_else(|| panic!("no {path} in {}", self.ready)).parse().unwrap()
    }
}

/// A gateway and a pair of sidecars around one upstream.
pub(crate) struct Mesh {
    pub(crate) gateway: Proxy,
    pub(crate) caller: Proxy,
    pub(crate) callee: Proxy,
    pub(crate) folder: Folder,
}

impl Mesh {
    /// All of it. `between` is where the caller believes the callee's mesh port to be, given the real one.
    pub(crate) fn with_wire(upstream: SocketAddr, between: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        Self::speaking("auto", upstream, between)
    }

    /// All of it around an upstream that counts its connections. While nobody knows what a client speaks the upstream is
    /// dialed already, and a client whose first words come late has it see a connection that ends without any.
    pub(crate) fn around_counting(upstream: SocketAddr) -> Self {
        Self::speaking("http", upstream, |real| real)
    }

    fn speaking(
        protocol: &str,
        upstream: SocketAddr,
        between: impl FnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let folder = Folder::new();
        let text = |mesh: SocketAddr| {
            format!(
                "mesh: outside\n\
                 gateway:\n  routes: [{{to: plain}}]\n\
                 services:\n\
                 \x20 plain:\n    endpoints: [\"{upstream}\"]\n\
                 \x20 app:\n    protocol: {protocol}\n    health: none\n    instances: [{{name: app-1, address: \"{upstream}\", mesh: \"{mesh}\"}}]\n\
                 \x20 caller:\n    calls: app\n    health: none\n    instances: [{{name: {CALLER}, port: 9}}]\n"
            )
        };
        let real = free_address();
        let identity = folder.path().join("identity");
        let callee = Proxy::start(&folder.file("callee.yaml", text(real)), "app-1", &identity);
        let caller_file = folder.file("caller.yaml", text(between(real)));
        let caller = Proxy::start(&caller_file, CALLER, &identity);
        let gateway = Proxy::start(&caller_file, "gateway", &identity);
        Self { gateway, caller, callee, folder }
    }

    /// All of it.
    pub(crate) fn around(upstream: SocketAddr) -> Self {
        Self::with_wire(upstream, |real| real)
    }

    /// The two ways to the upstream, with a name for messages.
    pub(crate) fn entries(&self) -> [(&'static str, SocketAddr); 2] {
        [("gateway", self.gateway.address("/gateway")), ("pair", self.caller.address("/outbound/app"))]
    }
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// Sends bytes and returns everything that comes back until the other side closes.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
