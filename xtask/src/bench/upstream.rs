//! Where the answers come from, on the load generator's core: nginx, or for what nginx cannot answer `leno-load`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use super::candidate::{Stage, nginx, path_text};
use super::check;
use super::process::Process;
use super::protocol::Protocol;
use super::template::{Configuration, Template};

/// A running upstream.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) configurations: Vec<Configuration>,
    protocol: Protocol,
    folder: PathBuf,
    _process: Process,
}

/// What an answer holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Bytes128,
    KiB10,
    KiB100,
    MiB1,
}

impl Body {
    /// In tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bytes128 => "128 B",
            Self::KiB10 => "10 KiB",
            Self::KiB100 => "100 KiB",
            Self::MiB1 => "1 MiB",
        }
    }

    /// The path that is answered so, and the name of the file that holds the same.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Bytes128 => "128",
            Self::KiB10 => "10k",
            Self::KiB100 => "100k",
            Self::MiB1 => "1m",
        }
    }

    fn bytes(self) -> Vec<u8> {
        let size = match self {
            Self::Bytes128 => return BODY.to_vec(),
            Self::KiB10 => 10 << 10,
            Self::KiB100 => 100 << 10,
            Self::MiB1 => 1 << 20,
        };
        // Not periodic in any power of two: bytes from a wrong place are wrong bytes.
        (0..size).map(|at: u32| (at.wrapping_mul(at / 251 + 31) >> 3).to_le_bytes()[0]).collect()
    }
}

impl Upstream {
    /// Starts the one for a protocol. A wide one answers on all of 127.0.0.0/8, so that one process is many endpoints.
    pub(super) fn start(stage: &Stage<'_>, protocol: Protocol, wide: bool) -> Result<Self, String> {
        let folder = stage.folder.join(if wide { "upstream-wide" } else { "upstream" });
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for body in [Body::Bytes128, Body::KiB10, Body::KiB100, Body::MiB1] {
            let file = folder.join(body.file());
            std::fs::write(&file, body.bytes()).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let address = free_address()?;
        match protocol {
            Protocol::Http1 | Protocol::Https => Self::nginx(stage, folder, address, protocol, wide),
            Protocol::Grpc => Self::own(stage, folder, address, protocol, "grpc-upstream"),
            Protocol::Tcp => Self::own(stage, folder, address, protocol, "tcp-upstream"),
        }
    }

    fn nginx(
        stage: &Stage<'_>,
        folder: PathBuf,
        address: SocketAddr,
        protocol: Protocol,
        wide: bool,
    ) -> Result<Self, String> {
        let mut template = Template::open("nginx-upstream.conf")?;
        template.set("LISTEN", &if wide { address.port().to_string() } else { address.to_string() });
        template.set("BODY", &String::from_utf8_lossy(BODY));
        template.set("DIR", &path_text(&folder));
        template.set("CONNECTIONS", "65536");
        let (file, configuration) = template.write(&folder, if wide { "wide" } else { "" })?;
        let mut process = [nginx(&stage.cores.load.to_string(), &folder, &file)?];
        check::await_answer(&mut process, || check::get(address, "/").map(drop))?;
        let [process] = process;
        Ok(Self { address, configurations: vec![configuration], protocol, folder, _process: process })
    }

    fn own(
        stage: &Stage<'_>,
        folder: PathBuf,
        address: SocketAddr,
        protocol: Protocol,
        word: &str,
    ) -> Result<Self, String> {
        let core = stage.cores.load.to_string();
        let (log, listen) = (folder.join(format!("{word}.log")), address.to_string());
        let mut process =
            [Process::start(word, &core, &log, &stage.load, &[word, "--listen", &listen], &[])?];
        check::await_answer(&mut process, || {
            TcpStream::connect(address).map(drop).map_err(|error| format!("{address}: {error}"))
        })?;
        let [process] = process;
        Ok(Self { address, configurations: Vec::new(), protocol, folder, _process: process })
    }

    /// The file that holds an answer's body.
    pub(super) fn body_file(&self, body: Body) -> PathBuf {
        self.folder.join(body.file())
    }

    /// So many addresses that lead here; more than one only with a wide one.
    pub(super) fn endpoints(&self, count: usize) -> impl Iterator<Item = SocketAddr> {
        let address = self.address;
        (0..count).map(move |number| {
            let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
            let host = match number {
                0 => Ipv4Addr::LOCALHOST,
                number => Ipv4Addr::new(127, 1, byte(number / 250), byte(1 + number % 250)),
            };
            SocketAddr::new(host.into(), address.port())
        })
    }

    /// Connections that it has accepted so far, without the one that asks; 0 when it is not nginx, which alone says it.
    pub(super) fn accepted(&self) -> Result<u64, String> {
        if matches!(self.protocol, Protocol::Grpc | Protocol::Tcp) {
            return Ok(0);
        }
        let text = check::get(self.address, "/status")?;
        let mut counts = text.lines().skip_while(|line| !line.starts_with("server accepts")).skip(1);
        counts
            .next()
            .and_then(|line| line.split_whitespace().next())
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| format!("nginx's status makes no sense: {text}"))
    }
}

pub(super) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))
}

/// 128 bytes.
const BODY: &[u8; 128] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
