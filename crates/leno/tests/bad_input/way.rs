//! Proxies between a client and a scripted application.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use crate::SOON;
use crate::common::{Running, agent, alive, free_port, leno, until};

/// What an application does with each connection.
pub(crate) type Application = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// The answer of `/long`: more than all buffers on the way hold.
pub(crate) const LONG_BYTES: usize = 8 << 20;

/// A client's way to an application.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// The last proxy's port for its peers, where there is one, and the directory of the authority that it believes.
    pub(crate) mesh: Option<(SocketAddr, PathBuf)>,
    /// From the client to the application.
    proxies: Vec<Proxy>,
    _folder: tempfile::TempDir,
}

/// One process.
struct Proxy {
    running: Running,
    admin: SocketAddr,
}

impl Way {
    /// Through one proxy.
    pub(crate) fn single(application: &Application) -> Self {
        let (app, folder, port) = (start(application), tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n    protocol: http\n    endpoints: [\"{app}\"]\n"
        );
        fs::write(&file, text).unwrap();
        let proxies = vec![Proxy::start(&file, "gateway", None)];
        let address = ([127, 0, 0, 1], port).into();
        Self { name: "one hop", address, mesh: None, proxies, _folder: folder }
    }

    /// Through a client's and a server's sidecar with mutual TLS between them.
    pub(crate) fn pair(application: &Application) -> Self {
        Self::sidecars(application, "http")
    }

    /// The same for an application of which nobody has said what it speaks.
    pub(crate) fn unknown(application: &Application) -> Self {
        Self::sidecars(application, "auto")
    }

    fn sidecars(application: &Application, protocol: &str) -> Self {
        let (app, folder) = (start(application), tempfile::tempdir().unwrap());
        let [out, mesh, own, unused] = [free_port(), free_port(), free_port(), free_port()];
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {unused}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
             \x20 server:\n    protocol: {protocol}\n    health: none\n    instances:\n\
             \x20     - {{name: server, address: \"{app}\", mesh: \"127.0.0.1:{mesh}\"}}\n"
        );
        fs::write(&file, text).unwrap();
        let identity = folder.path().join("identity");
        let proxies = ["client", "server"].map(|role| Proxy::start(&file, role, Some(&identity)));
        Self {
            name: "a pair",
            address: ([127, 0, 0, 1], out).into(),
            mesh: Some((([127, 0, 0, 1], mesh).into(), identity)),
            proxies: proxies.into(),
            _folder: folder,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// A request that has to be answered: the proxies are as good as before.
    pub(crate) fn serves(&self) {
        let answer = self.ask("/");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer:?}", self.name);
    }

    /// What comes back for a GET until the connection ends.
    pub(crate) fn ask(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{}: {path} hangs", self.name);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Descriptors that each proxy has open.
    pub(crate) fn descriptors(&self) -> Vec<usize> {
        let count =
            |proxy: &Proxy| fs::read_dir(format!("/proc/{}/fd", proxy.running.pid())).unwrap().count();
        self.proxies.iter().map(count).collect()
    }

    /// Waits until no proxy has more than `extra` descriptors above what it had.
    pub(crate) fn holds_no_more_than(&self, before: &[usize], extra: usize) {
        assert!(
            self.proxies.iter().all(|proxy| alive(proxy.running.pid())),
            "{} has not survived",
            self.name
        );
        let mut now = Vec::new();
        until(&format!("{}: {before:?} descriptors again", self.name), 2 * SOON, || {
            now = self.descriptors();
            now.iter().zip(before).all(|(now, before)| *now <= before + extra)
        });
    }

    /// What a proxy has in memory now, in KiB; the first is the one that clients talk to.
    pub(crate) fn resident_kib(&self, proxy: usize) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.proxies[proxy].running.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The sum of the samples of a proxy's metric whose labels contain `label`.
    pub(crate) fn metric(&self, proxy: usize, name: &str, label: &str) -> i64 {
        let url = format!("http://{}/metrics", self.proxies[proxy].admin);
        let text = agent().get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
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
        let ready = running.event("ready", 2 * SOON);
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        Self { running, admin }
    }
}

fn start(application: &Application) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, application) = (listener.local_addr().unwrap(), application.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(3 * SOON)).unwrap();
            stream.set_write_timeout(Some(3 * SOON)).unwrap();
            let application = application.clone();
            thread::spawn(move || application(stream));
        }
    });
    address
}

/// Reads a request's head.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    let head = read_until(stream, b"\r\n\r\n")?;
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The path in a head.
pub(crate) fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Option<Vec<u8>> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(wanted) && read.len() < 100_000 {
        stream.read_exact(&mut byte).ok()?;
        read.push(byte[0]);
    }
    Some(read)
}

/// Reads the body that a head announces.
fn read_body(stream: &mut TcpStream, head: &str) -> Option<()> {
    let head = head.to_ascii_lowercase();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        stream.read_exact(&mut vec![0; length]).ok()?;
    } else if head.contains("transfer-encoding") {
        // The bodies of these tests have no empty chunk within.
        read_until(stream, b"0\r\n")?;
        read_until(stream, b"\r\n")?;
    }
    Some(())
}

/// An application that answers everything in a few bytes, `/long` in many, and `/wait` never.
pub(crate) fn plain() -> Application {
    Arc::new(|mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if read_body(&mut stream, &head).is_none() {
                return;
            }
            let body = match path(&head) {
                "/wait" => {
                    stream.read_exact(&mut [0]).ok();
                    return;
                }
                "/long" => LONG_BYTES,
                _ => 5,
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
            if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&vec![b'x'; body]).is_err() {
                return;
            }
        }
    })
}
