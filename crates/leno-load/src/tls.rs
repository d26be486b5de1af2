//! TLS handshakes: a new connection, one request and its answer, the end; with a full handshake or a resumed one.
//!
//! A thread for each connection at a time: what a handshake costs is far more than what threads do.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::answer::Answer;
use crate::flags::Flags;
use crate::result::Measured;

/// One run.
pub(crate) struct Handshakes {
    callers: Vec<Caller>,
    pub(crate) length: Duration,
}

/// One connection at a time.
#[derive(Clone)]
struct Caller {
    to: SocketAddrV4,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    resume: bool,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Handshakes {
    /// Reads what it needs and has one answer by each caller: after that there is something to resume.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, String> {
        let known = [
            "to",
            "connections",
            "milliseconds",
            "warm-milliseconds",
            "root",
            "name",
            "body",
            "path",
            "resume",
        ];
        let flags = Flags::parse(arguments, &known)?;
        let name: String = flags.needed("name")?;
        let path: String = flags.or("path", "/".to_owned())?;
        let body: PathBuf = flags.needed("body")?;
        let body = std::fs::read(&body).map_err(|error| format!("{}: {error}", body.display()))?;
        let root: PathBuf = flags.needed("root")?;
        let root =
            CertificateDer::from_pem_file(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(|error| format!("the root: {error}"))?;
        let resume: bool = flags.or("resume", false)?;
        let mut callers = Vec::new();
        for _ in 0..flags.count("connections", CALLERS_MAX)? {
            let mut config =
                ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(roots.clone())
                    .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            // A ticket is good for one connection; so each caller keeps its own.
            config.resumption =
                if resume { Resumption::in_memory_sessions(1) } else { Resumption::disabled() };
            callers.push(Caller {
                to: flags.needed("to")?,
                name: ServerName::try_from(name.clone()).map_err(|error| format!("--name: {error}"))?,
                config: Arc::new(config),
                resume,
                request: format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")
                    .into_bytes(),
                body: body.clone(),
            });
        }
        for caller in &callers {
            caller.call()?;
        }
        let mut handshakes = Self { callers, length: flags.time("milliseconds")? };
        handshakes.measure(flags.time("warm-milliseconds")?)?;
        Ok(handshakes)
    }

    /// Connects again and again for so long.
    pub(crate) fn measure(&mut self, length: Duration) -> Result<Measured, String> {
        let start = Instant::now();
        let threads: Vec<_> = self
            .callers
            .iter()
            .map(|caller| {
                let caller = caller.clone();
                std::thread::spawn(move || caller.call_until(start + length))
            })
            .collect();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| "a thread has panicked")??);
        }
        Ok(Measured { latencies, waits: Vec::new(), duration: start.elapsed() })
    }
}

impl Caller {
    fn call_until(&self, end: Instant) -> Result<Vec<u64>, String> {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let since = Instant::now();
            let kind = self.call()?;
            latencies.push(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if (kind == HandshakeKind::Resumed) != self.resume {
                return Err(format!("a handshake of the other kind: {kind:?}"));
            }
        }
        Ok(latencies)
    }

    /// One connection from its first to its last byte.
    fn call(&self) -> Result<HandshakeKind, String> {
        let text = |error: std::io::Error| format!("{}: {error}", self.to);
        let stream = TcpStream::connect_timeout(&self.to.into(), PATIENCE).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let session = ClientConnection::new(self.config.clone(), self.name.clone());
        let session = session.map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(session, stream);
        stream.write_all(&self.request).map_err(text)?;
        let (mut answer, mut buffer, mut whole) = (Answer::new(), [0; 4_096], false);
        loop {
            match stream.read(&mut buffer).map_err(text)? {
                0 if whole => break,
                0 => return Err("closed within an answer".into()),
                _ if whole => return Err("more than an answer".into()),
                count => whole = answer.take(&buffer[..count], &self.body)?,
            }
        }
        stream.conn.handshake_kind().ok_or_else(|| "no handshake".to_owned())
    }
}

const CALLERS_MAX: usize = 256;
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(10);
