//! Who is measured, with which configuration. Each gets one that its own users would call fair: kept connections,
//! no access log, one worker. The templates are in `bench/`; `@NAMES@` in them are filled in here.

use std::io::BufRead as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::process::{Cores, Process};
use super::{READY, load};
use crate::shell;

/// One candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Direct,
    Nginx,
    Haproxy,
    Leno,
    HaproxyPair,
    LenoPair,
}

/// In the order of the table.
pub(super) const ALL: [Kind; 6] =
    [Kind::Direct, Kind::Nginx, Kind::Haproxy, Kind::Leno, Kind::HaproxyPair, Kind::LenoPair];

impl Kind {
    /// As in `--only`, in the table and in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Leno => "leno",
            Self::HaproxyPair => "haproxy-pair",
            Self::LenoPair => "leno-pair",
        }
    }

    /// What is between the client and the upstream.
    pub(super) fn scenario(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Nginx | Self::Haproxy | Self::Leno => "one proxy",
            Self::HaproxyPair => "pair, mTLS, HTTP/2 between",
            Self::LenoPair => "pair, mTLS, mesh transport between",
        }
    }

    /// Needs our binary.
    pub(super) fn is_leno(self) -> bool {
        matches!(self, Self::Leno | Self::LenoPair)
    }
}

/// Where the answers come from.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// As filled in: file and text.
    pub(super) configuration: (String, String),
    _process: Process,
}

impl Upstream {
    /// Starts nginx on the load generator's core.
    pub(super) fn start(folder: &Path, cores: &Cores) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let address = free_address()?;
        let body = String::from_utf8_lossy(BODY).into_owned();
        let values = [("UPSTREAM", address.to_string()), ("BODY", body), ("DIR", path_text(folder))];
        let (file, configuration) = fill(folder, "nginx-upstream.conf", &values)?;
        let mut process = nginx(cores.load, folder, &file)?;
        await_answer(address, &mut [&mut process])?;
        Ok(Self { address, configuration, _process: process })
    }

    /// What it answers.
    pub(super) fn body(&self) -> &'static [u8] {
        BODY
    }
}

/// A candidate that answers.
pub(super) struct Running {
    pub(super) kind: Kind,
    /// Where requests enter.
    pub(super) entry: SocketAddr,
    /// As filled in: file and text.
    pub(super) configurations: Vec<(String, String)>,
    /// All that is measured.
    processes: Vec<Process>,
}

impl Running {
    /// Starts it on the proxy's core and waits for its first answer.
    pub(super) fn start(
        kind: Kind,
        folder: &Path,
        upstream: &Upstream,
        leno: &Path,
        cores: &Cores,
    ) -> Result<Self, String> {
        let core = cores.proxy;
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let values = [
            ("UPSTREAM", upstream.address.to_string()),
            ("LISTEN", free_address()?.to_string()),
            ("MESH", free_address()?.to_string()),
            ("DIR", path_text(folder)),
        ];
        let mut configurations = Vec::new();
        let mut template = |name: &str| -> Result<PathBuf, String> {
            let (file, configuration) = fill(folder, name, &values)?;
            configurations.push(configuration);
            Ok(file)
        };
        let mut entry: SocketAddr = values[1].1.parse().map_err(|error| format!("{error}"))?;
        let mut processes = Vec::new();
        match kind {
            Kind::Direct => entry = upstream.address,
            Kind::Nginx => processes.push(nginx(core, folder, &template("nginx-proxy.conf")?)?),
            Kind::Haproxy => processes.push(haproxy(core, folder, &template("haproxy.cfg")?)?),
            Kind::HaproxyPair => {
                certificates(folder)?;
                processes.push(haproxy(core, folder, &template("haproxy-pair-b.cfg")?)?);
                processes.push(haproxy(core, folder, &template("haproxy-pair-a.cfg")?)?);
            }
            Kind::Leno => {
                let file = path_text(&template("leno.yaml")?);
                processes.push(leno_process(core, folder, leno, "gateway", &["--file", &file])?);
            }
            Kind::LenoPair => {
                let file = path_text(&template("leno-pair.yaml")?);
                let identity = path_text(&folder.join("identity"));
                // The service's side first: then the caller finds it at its first request.
                for role in ["app-1", "caller-1"] {
                    let arguments = ["--file", &file, "--identity", &identity];
                    processes.push(leno_process(core, folder, leno, role, &arguments)?);
                }
            }
        }
        let mut running = Self { kind, entry, configurations, processes };
        await_answer(entry, &mut running.processes.iter_mut().collect::<Vec<_>>())?;
        Ok(running)
    }

    /// User and system time of all its processes so far.
    pub(super) fn cpu(&self) -> Result<Duration, String> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Resident memory of all its processes.
    pub(super) fn rss_bytes(&self) -> Result<u64, String> {
        self.processes.iter().map(Process::rss_bytes).sum()
    }
}

fn nginx(core: u32, folder: &Path, file: &Path) -> Result<Process, String> {
    let program = shell::find_program("nginx").ok_or("nginx is not installed")?;
    let arguments = ["-p", &path_text(folder), "-c", &path_text(file), "-e", "stderr", "-g", "daemon off;"];
    Process::start(core, &folder.join("nginx.log"), &program, &arguments)
}

fn haproxy(core: u32, folder: &Path, file: &Path) -> Result<Process, String> {
    let program = shell::find_program("haproxy").ok_or("haproxy is not installed")?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = ["-db", "-f", &path_text(file)];
    Process::start(core, &folder.join(format!("{name}.log")), &program, &arguments)
}

/// Starts one of our proxies in a role of a mesh file and waits for its line of readiness.
fn leno_process(
    core: u32,
    folder: &Path,
    leno: &Path,
    role: &str,
    arguments: &[&str],
) -> Result<Process, String> {
    let log = folder.join(format!("{role}.log"));
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let mut all = vec!["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0"];
    all.extend(arguments);
    let mut process = Process::start(core, &log, leno, &all)?;
    let stdout = process.take_stdout().ok_or("no standard output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    match lines.recv_timeout(READY) {
        Ok(line) if line.contains("\"ready\"") => Ok(process),
        Ok(line) => Err(format!("leno {role} said `{line}`: {}", said().trim())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(format!("leno {role} ended: {}", said().trim())),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(format!("leno {role} is not ready after {} s: {}", READY.as_secs(), said().trim()))
        }
    }
}

/// A root and one leaf that both sides of HAProxy's pair use.
fn certificates(folder: &Path) -> Result<(), String> {
    let script = "set -e; cd \"$0\"
        ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
        openssl req -x509 $ec -keyout root.key -out root.pem -subj /CN=root
        openssl req $ec -keyout leaf.key -out leaf.csr -subj /CN=bench.mesh
        echo subjectAltName=DNS:bench.mesh > san
        openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile san -out leaf.crt
        cat leaf.crt leaf.key > leaf.pem";
    shell::output(Command::new("sh").args(["-c", script]).arg(folder)).map(drop)
}

/// Fills a template of `bench/` in, into `folder`.
fn fill(folder: &Path, name: &str, values: &[(&str, String)]) -> Result<(PathBuf, (String, String)), String> {
    let template = shell::root().join("bench").join(name);
    let mut text =
        std::fs::read_to_string(&template).map_err(|error| format!("{}: {error}", template.display()))?;
    for (key, value) in values {
        text = text.replace(&format!("@{key}@"), value);
    }
    let file = folder.join(name);
    std::fs::write(&file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((file, (name.to_owned(), text)))
}

/// Waits until the right answer comes, or a process ends, or it takes too long.
fn await_answer(entry: SocketAddr, processes: &mut [&mut Process]) -> Result<(), String> {
    let deadline = Instant::now() + READY;
    loop {
        for process in &mut *processes {
            process.is_alive()?;
        }
        match load::check(entry, BODY, 1) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(format!("no answer: {error}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Names and versions of everything that took part, and of the machine.
pub(super) fn versions(leno: &Path) -> Vec<(String, String)> {
    let first_line = |program: &str, argument: &str| {
        let path = if program == "leno" { Some(leno.to_path_buf()) } else { shell::find_program(program) };
        let output = path.and_then(|path| Command::new(path).arg(argument).output().ok());
        let text = output.map(|done| {
            let both = [done.stdout, done.stderr].concat();
            String::from_utf8_lossy(&both).lines().next().unwrap_or_default().trim().to_owned()
        });
        text.unwrap_or_default()
    };
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_default();
    let commit =
        shell::output(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(shell::root()))
            .unwrap_or_default();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    [
        ("leno", format!("{} ({})", first_line("leno", "--version"), commit.trim())),
        ("nginx", first_line("nginx", "-v")),
        ("haproxy", first_line("haproxy", "-v")),
        ("wrk", first_line("wrk", "-v")),
        ("rustc", shell::output(Command::new(rustc).arg("-V")).unwrap_or_default().trim().to_owned()),
        ("kernel", file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("processor", processor),
        ("cores", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
    ]
    .map(|(name, version)| (name.to_owned(), version))
    .to_vec()
}

/// 128 bytes.
const BODY: &[u8; 128] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
