//! The world outside: an authority, certificates of all kinds, TLS servers, and a plain one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use crate::SOON;
use crate::common::{Running, free_port, listens, until};

/// An authority of the world outside.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
}

/// A certificate and its key in files.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// SHA-256 of its public key.
    pub(crate) pin: String,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// The authority that the proxies of a mesh share in a folder.
    pub(crate) fn of_mesh(identity: &Path) -> Self {
        let pem = fs::read_to_string(identity.join("authority.pem")).unwrap();
        let (cert, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY").unwrap());
        let issuer = Issuer::from_ca_cert_pem(cert, KeyPair::from_pem(key).unwrap()).unwrap();
        Self { issuer, file: identity.join("roots.pem") }
    }

    /// A certificate for `names`; one with `://` in it is a URI.
    pub(crate) fn issue(&self, folder: &Path, name: &str, names: &[&str]) -> Certificate {
        self.issue_with(folder, name, names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        folder: &Path,
        name: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let (uris, hosts): (Vec<String>, Vec<String>) =
            names.iter().map(|name| (*name).to_owned()).partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let (cert, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        Certificate { pin: pin(&cert), cert, key: key_file }
    }
}

/// The pin of a certificate, as openssl makes it.
pub(crate) fn pin(cert: &Path) -> String {
    let script = "openssl x509 -in \"$1\" -pubkey -noout | openssl pkey -pubin -outform der | sha256sum";
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(cert).output().unwrap();
    let hex = String::from_utf8(done.stdout).unwrap();
    format!("sha256:{}", hex.split(' ').next().unwrap())
}

/// An `openssl s_server` that answers requests with a page about the session.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    _running: Running,
}

impl TlsServer {
    pub(crate) fn start(openssl: &Path, certificate: &Certificate, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(openssl);
        command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
        command.arg(&certificate.cert).arg("-key").arg(&certificate.key).args(arguments);
        let running = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
        until("openssl listens", SOON, || listens(port));
        Self { port, _running: running }
    }
}

/// An nginx that says what it was spoken to, and by whom.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    _running: Running,
}

impl Nginx {
    pub(crate) fn start(nginx: &Path, folder: &Path, certificate: &Certificate, clients: &Authority) -> Self {
        let port = free_port();
        let (cert, key) = (certificate.cert.display(), certificate.key.display());
        let (clients, at) = (clients.file.display(), folder.display());
        let text = format!(
            "daemon off; pid {at}/pid; error_log {at}/error.log; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;
  uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;
  server {{
    listen 127.0.0.1:{port} ssl{};
    {}
    ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_client_certificate {clients}; ssl_verify_client optional;
    location / {{ return 200 \"$server_protocol client=$ssl_client_s_dn verified=$ssl_client_verify request=$connection_requests.\"; }}
  }}
}}
",
            if modern(nginx) { "" } else { " http2" },
            if modern(nginx) { "http2 on;" } else { "" },
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
        let running = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
        until("nginx listens", SOON, || listens(port));
        Self { port, _running: running }
    }
}

/// True when it has the directive that took the place of a word of `listen` (1.25.1).
fn modern(nginx: &Path) -> bool {
    let said = Command::new(nginx).arg("-v").output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said.rsplit('/').next().unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(1), Some(26))
}

/// A plain HTTP server that says who it is and remembers what came.
pub(crate) struct Plain {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Plain {
    pub(crate) fn start(ip: &str) -> Self {
        Self::on(&format!("{ip}:0"))
    }

    pub(crate) fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = seen.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = remembered.clone();
                thread::spawn(move || {
                    stream.set_read_timeout(Some(SOON)).unwrap();
                    let mut read = Vec::new();
                    let mut buffer = [0; 1024];
                    while !read.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(bytes) if bytes > 0 => read.extend_from_slice(&buffer[..bytes]),
                            _ => return,
                        }
                    }
                    seen.lock().unwrap().push(String::from_utf8_lossy(&read).into_owned());
                    let body = format!("outside {}", address.ip());
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).ok();
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}
