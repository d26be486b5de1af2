//! Who is measured, and how each is started. Each gets a configuration that its own users would call fair: kept
//! connections, no access log, one worker.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::certificates::Certificates;
use super::process::{self, Cpu, Process};
use super::protocol::Protocol;
use super::template::{Configuration, Template};
use super::upstream::{Upstream, free_address};
use super::{READY, check, dialect, generator};
use crate::shell;

/// One candidate.
#[derive(Clone)]
pub(super) struct Candidate {
    /// As in `--only`, in tables and in results.
    pub(super) name: String,
    pub(super) group: Group,
    /// What is spoken between two sidecars; empty for the others.
    pub(super) between: &'static str,
    how: How,
}

/// Only candidates of one group are compared with each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Direct,
    One,
    Pair,
}

/// How it is started.
#[derive(Clone, PartialEq, Eq)]
enum How {
    Direct,
    Nginx,
    Haproxy,
    /// Moves plain bytes within the kernel.
    HaproxySplice,
    Envoy,
    Leno,
    NginxPair,
    HaproxyPair {
        alpn: &'static str,
    },
    EnvoyPair {
        http2: bool,
    },
    /// Pairs that do not look at what they carry: a connection with TLS for each.
    HaproxyTcpPair,
    EnvoyTcpPair,
    LenoPair,
    /// A script of the user's that execs a proxy, or starts two.
    External(PathBuf),
}

/// What is configured beyond the usual.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Setup {
    /// In tables; empty: the usual.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    /// Rules before the one that takes everything.
    pub(super) rules: usize,
    pub(super) endpoints: usize,
    pub(super) workers: usize,
    /// May use the load generator's core too.
    pub(super) both_cores: bool,
    /// How many connections a side must hold: peers reserve memory for as many as they are told.
    pub(super) connections: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: String::new(),
            protocol: Protocol::Http1,
            rules: 0,
            endpoints: 1,
            workers: 1,
            both_cores: false,
            connections: 4_096,
        }
    }
}

/// In the order of the tables.
pub(super) fn all() -> Vec<Candidate> {
    let named = |name: &str, group, between, how| Candidate { name: name.to_owned(), group, between, how };
    vec![
        named("direct", Group::Direct, "", How::Direct),
        named("nginx", Group::One, "", How::Nginx),
        named("haproxy", Group::One, "", How::Haproxy),
        named("haproxy-splice", Group::One, "", How::HaproxySplice),
        named("envoy", Group::One, "", How::Envoy),
        named("leno", Group::One, "", How::Leno),
        named("nginx-h1-pair", Group::Pair, "pooled HTTP/1.1", How::NginxPair),
        named("haproxy-h1-pair", Group::Pair, "pooled HTTP/1.1", How::HaproxyPair { alpn: "http/1.1" }),
        named("haproxy-h2-pair", Group::Pair, "HTTP/2", How::HaproxyPair { alpn: "h2" }),
        named("envoy-h1-pair", Group::Pair, "pooled HTTP/1.1", How::EnvoyPair { http2: false }),
        named("envoy-h2-pair", Group::Pair, "HTTP/2", How::EnvoyPair { http2: true }),
        named("haproxy-tcp-pair", Group::Pair, "TLS", How::HaproxyTcpPair),
        named("envoy-tcp-pair", Group::Pair, "TLS", How::EnvoyTcpPair),
        named("leno-pair", Group::Pair, "mesh transport", How::LenoPair),
    ]
}

impl Candidate {
    /// A script that the user names.
    pub(super) fn external(name: &str, group: Group, script: PathBuf) -> Self {
        Self { name: name.to_owned(), group, between: "", how: How::External(script) }
    }

    /// Needs our binary.
    pub(super) fn is_leno(&self) -> bool {
        matches!(self.how, How::Leno | How::LenoPair)
    }

    /// Needs Envoy's.
    pub(super) fn is_envoy(&self) -> bool {
        matches!(self.how, How::Envoy | How::EnvoyPair { .. } | How::EnvoyTcpPair)
    }

    /// Whether there is a configuration of it for a protocol.
    pub(super) fn speaks(&self, protocol: Protocol) -> bool {
        use Protocol::{Grpc, Http1, Https, Tcp};
        match self.how {
            How::Direct => protocol != Https,
            How::Haproxy | How::Envoy | How::Leno => true,
            How::Nginx => matches!(protocol, Http1 | Https),
            How::HaproxySplice | How::HaproxyTcpPair | How::EnvoyTcpPair => protocol == Tcp,
            How::NginxPair | How::EnvoyPair { http2: false } => protocol == Http1,
            How::HaproxyPair { alpn } => protocol == Http1 || (protocol == Grpc && alpn == "h2"),
            How::EnvoyPair { http2: true } => matches!(protocol, Http1 | Grpc),
            How::LenoPair => protocol != Https,
            How::External(_) => protocol != Https || self.group == Group::One,
        }
    }
}

/// What candidates are started with.
pub(super) struct Stage<'a> {
    pub(super) cores: &'a process::Cores,
    pub(super) certificates: &'a Certificates,
    pub(super) leno: PathBuf,
    pub(super) envoy: PathBuf,
    /// The load generator.
    pub(super) load: PathBuf,
    /// Each candidate has a folder in it.
    pub(super) folder: PathBuf,
}

/// A candidate that answers.
pub(super) struct Running {
    pub(super) candidate: Candidate,
    /// Where requests enter.
    pub(super) entry: SocketAddr,
    /// Where the second of a pair listens for the first.
    pub(super) mesh: Option<SocketAddr>,
    /// As filled in.
    pub(super) configurations: Vec<Configuration>,
    /// All that is measured.
    processes: Vec<Process>,
}

impl Running {
    /// Starts it on the proxy's core and waits for its first right answer.
    pub(super) fn start(
        candidate: &Candidate,
        setup: &Setup,
        upstream: &Upstream,
        stage: &Stage<'_>,
    ) -> Result<Self, String> {
        let name = format!("{}{}{}", setup.protocol.prefix(), candidate.name, setup.name);
        let folder = stage.folder.join(name.replace([' ', ','], "-"));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (listen, mesh) = (free_address()?, free_address()?);
        let both = format!("{},{}", stage.cores.load, stage.cores.proxy);
        let core = if setup.both_cores { both } else { stage.cores.proxy.to_string() };
        let mut start =
            Start { candidate, setup, upstream, stage, folder, core, listen, mesh, filled: Vec::new() };
        let processes = start.processes()?;
        let direct = candidate.group == Group::Direct;
        let mut running = Self {
            candidate: candidate.clone(),
            entry: if direct { upstream.address } else { listen },
            mesh: (candidate.group == Group::Pair).then_some(mesh),
            configurations: start.filled,
            processes,
        };
        let entry = running.entry;
        check::await_answer(&mut running.processes, || generator::ask_once(stage, entry, setup, upstream))?;
        Ok(running)
    }

    /// Whether the hop between two sidecars refuses strangers. A script of the user's may have its own port for it.
    pub(super) fn refuses_strangers(&self, certificates: &Certificates) -> Result<(), String> {
        let alpn = match self.candidate.how {
            How::HaproxyPair { alpn } => alpn,
            How::EnvoyPair { http2: true } => "h2",
            How::LenoPair => "leno/1",
            How::NginxPair | How::EnvoyPair { http2: false } => "http/1.1",
            How::HaproxyTcpPair | How::EnvoyTcpPair => "",
            _ => return Ok(()),
        };
        self.mesh.map_or(Ok(()), |mesh| certificates.refused(mesh, alpn))
    }

    /// User and system time of all its processes so far.
    pub(super) fn cpu(&self) -> Result<Cpu, String> {
        self.processes.iter().map(Process::cpu).try_fold(Cpu::default(), |sum, cpu| Ok(sum + cpu?))
    }

    /// Name and resident memory of each of its processes.
    pub(super) fn memory(&self) -> Result<Vec<(String, u64)>, String> {
        self.processes.iter().map(|process| Ok((process.label.clone(), process.rss_bytes()?))).collect()
    }
}

/// One candidate on its way.
struct Start<'a> {
    candidate: &'a Candidate,
    setup: &'a Setup,
    upstream: &'a Upstream,
    stage: &'a Stage<'a>,
    folder: PathBuf,
    core: String,
    listen: SocketAddr,
    mesh: SocketAddr,
    filled: Vec<Configuration>,
}

impl Start<'_> {
    /// The service's side of a pair is first: then the caller finds it at its first request.
    fn processes(&mut self) -> Result<Vec<Process>, String> {
        let tcp = self.setup.protocol == Protocol::Tcp;
        Ok(match &self.candidate.how {
            How::Direct => Vec::new(),
            How::Nginx => vec![self.nginx("nginx-proxy.conf")?],
            How::NginxPair => vec![self.nginx("nginx-pair-b.conf")?, self.nginx("nginx-pair-a.conf")?],
            How::Haproxy if !tcp => vec![self.haproxy("haproxy.cfg", "")?],
            How::Haproxy | How::HaproxySplice => vec![self.haproxy("haproxy-tcp.cfg", "")?],
            How::HaproxyPair { alpn } => {
                vec![self.haproxy("haproxy-pair-b.cfg", alpn)?, self.haproxy("haproxy-pair-a.cfg", alpn)?]
            }
            How::HaproxyTcpPair => {
                vec![self.haproxy("haproxy-tcp-pair-b.cfg", "")?, self.haproxy("haproxy-tcp-pair-a.cfg", "")?]
            }
            How::Envoy if tcp => vec![self.envoy("envoy-tcp.yaml", true)?],
            How::Envoy => vec![self.envoy("envoy.yaml", true)?],
            How::EnvoyTcpPair => {
                vec![self.envoy("envoy-tcp-pair-b.yaml", true)?, self.envoy("envoy-tcp-pair-a.yaml", true)?]
            }
            How::EnvoyPair { http2 } => {
                vec![self.envoy("envoy-pair-b.yaml", *http2)?, self.envoy("envoy-pair-a.yaml", *http2)?]
            }
            How::Leno => match self.setup.protocol {
                Protocol::Tcp => vec![self.leno("leno-tcp.yaml", "caller-1")?],
                Protocol::Https => vec![self.leno("leno-https.yaml", "gateway")?],
                Protocol::Http1 | Protocol::Grpc => vec![self.leno("leno.yaml", "gateway")?],
            },
            How::LenoPair => {
                vec![self.leno("leno-pair.yaml", "app-1")?, self.leno("leno-pair.yaml", "caller-1")?]
            }
            How::External(script) => vec![self.external(script)?],
        })
    }

    fn nginx(&mut self, template: &str) -> Result<Process, String> {
        let rule = |path: String| format!("        location {path} {{ proxy_pass http://app; }}");
        let endpoint = |_, address| format!("        server {address};");
        let (listen, blocks) = dialect::nginx(self.setup.protocol);
        let file = self.fill(template, &[("BIND", listen.to_owned())], &blocks, rule, endpoint)?;
        nginx(&self.core, &self.folder, &file)
    }

    fn haproxy(&mut self, template: &str, alpn: &str) -> Result<Process, String> {
        // Its users keep long lists of paths in a map, which is a tree.
        let map = self.folder.join("rules.map");
        let lines: String =
            (0..self.setup.rules).map(|number| format!("{} app\n", rule_path(number))).collect();
        std::fs::write(&map, lines).map_err(|error| format!("{}: {error}", map.display()))?;
        let certificates = path_text(&self.stage.certificates.folder);
        let (bind, server) = dialect::haproxy(self.setup.protocol, &certificates);
        let endpoint = |number, address| format!("    server app-{number} {address}{server}");
        let mut extra = vec![("ALPN", alpn.to_owned()), ("BIND", bind)];
        let splice = if self.candidate.how == How::HaproxySplice { "    option splice-auto" } else { "" };
        if self.setup.rules > 0 {
            let line = format!("    use_backend %[path,map_beg({},app)]", map.display());
            extra.push(("ROUTES", line));
        }
        let file = self.fill(template, &extra, &[("SPLICE", splice)], |_| String::new(), endpoint)?;
        let program = shell::find_program("haproxy").ok_or("haproxy is not installed")?;
        self.start(template, &program, &["-db", "-f", &path_text(&file)])
    }

    fn envoy(&mut self, template: &str, http2: bool) -> Result<Process, String> {
        let rule = |path: String| {
            let indent = " ".repeat(24);
            format!("{indent}- {{match: {{prefix: \"{path}\"}}, route: {{cluster: app}}}}")
        };
        let endpoint = |_, address: SocketAddr| {
            let (indent, host, port) = (" ".repeat(14), address.ip(), address.port());
            format!(
                "{indent}- {{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}"
            )
        };
        let between = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
        let alpn = if http2 { "h2" } else { "http/1.1" };
        let extra = [("BETWEEN", between.to_owned()), ("ALPN", alpn.to_owned())];
        let blocks = dialect::envoy(self.setup.protocol);
        let file = path_text(&self.fill(template, &extra, &blocks, rule, endpoint)?);
        let workers = self.setup.workers.to_string();
        let arguments = ["-c", &file, "--concurrency", &workers, "--disable-hot-restart", "-l", "error"];
        self.start(template, &self.stage.envoy.clone(), &arguments)
    }

    /// Starts one of our proxies in a role of a mesh file and waits for its line of readiness.
    fn leno(&mut self, template: &str, role: &str) -> Result<Process, String> {
        let rule = |path: String| format!("    - {{path: {path}, to: app}}");
        let endpoint = |_, address| format!("      - \"{address}\"");
        let blocks = dialect::leno(self.setup.protocol);
        let file = path_text(&self.fill(template, &[], &blocks, rule, endpoint)?);
        let workers = self.setup.workers.to_string();
        let identity = path_text(&self.folder.join("identity"));
        let mut arguments =
            vec!["proxy", "--file", &file, "--role", role, "--workers", &workers, "--admin", "127.0.0.1:0"];
        // A sidecar has an identity; a plain gateway needs none.
        if role != "gateway" {
            arguments.extend(["--identity", &identity]);
        }
        let mut process = self.start(role, &self.stage.leno.clone(), &arguments)?;
        let said = || std::fs::read_to_string(self.folder.join(format!("{role}.log"))).unwrap_or_default();
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

    fn external(&self, script: &Path) -> Result<Process, String> {
        let values = [
            ("LISTEN", self.listen.to_string()),
            ("MESH", self.mesh.to_string()),
            ("UPSTREAM", self.upstream.address.to_string()),
            ("DIR", path_text(&self.folder)),
            ("CERTS", path_text(&self.stage.certificates.folder)),
            ("CORE", self.core.clone()),
            ("PROTOCOL", self.setup.protocol.word().to_owned()),
        ];
        let log = self.folder.join("external.log");
        Process::start(&self.candidate.name, &self.core, &log, script, &[], &values)
    }

    fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process, String> {
        let label = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        Process::start(label, &self.core, &self.folder.join(format!("{label}.log")), program, arguments, &[])
    }

    fn fill(
        &mut self,
        name: &str,
        extra: &[(&str, String)],
        blocks: &[(&str, &str)],
        rule: impl Fn(String) -> String,
        endpoint: impl Fn(usize, SocketAddr) -> String,
    ) -> Result<PathBuf, String> {
        let mut template = Template::open(name)?;
        for (key, block) in blocks {
            template.lines(key, block.lines().map(str::to_owned));
        }
        for (key, value) in extra {
            template.set(key, value);
        }
        template.set("LISTEN_PORT", &self.listen.port().to_string());
        template.set("LISTEN", &self.listen.to_string());
        template.set("MESH_PORT", &self.mesh.port().to_string());
        template.set("MESH", &self.mesh.to_string());
        template.set("UPSTREAM", &self.upstream.address.to_string());
        template.set("DIR", &path_text(&self.folder));
        template.set("CERTS", &path_text(&self.stage.certificates.folder));
        template.set("CONNECTIONS", &self.setup.connections.to_string());
        template.lines("ROUTES", (0..self.setup.rules).map(|number| rule(rule_path(number))));
        let endpoints = self.upstream.endpoints(self.setup.endpoints);
        template.lines("ENDPOINTS", endpoints.enumerate().map(|(number, at)| endpoint(number, at)));
        let label = format!("{}{}", self.setup.protocol.prefix(), self.setup.name);
        let (file, configuration) = template.write(&self.folder, label.trim_end_matches('-'))?;
        if !self.filled.iter().any(|filled| filled.name == configuration.name) {
            self.filled.push(Configuration {
                name: format!("{}-{}", self.candidate.name, configuration.name),
                ..configuration
            });
        }
        Ok(file)
    }
}

/// The path of a rule; requests go to something below it.
pub(super) fn rule_path(number: usize) -> String {
    format!("/r/{number:05}/")
}

/// Starts nginx in the foreground.
pub(super) fn nginx(core: &str, folder: &Path, file: &Path) -> Result<Process, String> {
    let program = shell::find_program("nginx").ok_or("nginx is not installed")?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = ["-p", &path_text(folder), "-c", &path_text(file), "-e", "stderr", "-g", "daemon off;"];
    Process::start(&name, core, &folder.join(format!("{name}.log")), &program, &arguments, &[])
}

pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
