//! What the pairs trust each other by, and whether they refuse anybody else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// A root, a certificate of it for each side, and a stranger's.
pub(super) struct Certificates {
    pub(super) folder: PathBuf,
}

impl Certificates {
    /// Makes all of them.
    pub(super) fn make(folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let script = "set -e; cd \"$0\"
            ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
            openssl req -x509 $ec -keyout root.key -out root.pem -subj /CN=root
            for name in app caller; do
                openssl req $ec -keyout $name.key -out $name.csr -subj /CN=$name.bench.mesh
                echo subjectAltName=DNS:$name.bench.mesh > san
                openssl x509 -req -in $name.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile san -out $name.crt
                cat $name.crt $name.key > $name.pem
            done
            openssl req -x509 $ec -keyout stranger.key -out stranger.crt -subj /CN=stranger";
        shell::output(Command::new("sh").args(["-c", script]).arg(folder))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// `alpn` may be empty: nothing is offered. An error unless a client without a certificate and one with a stranger's are both refused at `mesh`.
    pub(super) fn refused(&self, mesh: SocketAddr, alpn: &str) -> Result<(), String> {
        let alpn = if alpn.is_empty() { String::new() } else { format!("-alpn {alpn}") };
        for (who, arguments) in [
            ("without a certificate", ""),
            ("with a stranger's certificate", "-cert stranger.crt -key stranger.key"),
        ] {
            // TLS 1.3 tells the client only after its own handshake is over; so it asks and listens a little.
            let script = format!(
                "cd \"$0\"; (printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'; sleep 1) \
                 | timeout 5 openssl s_client -connect {mesh} {alpn} -quiet {arguments} 2>&1; true"
            );
            let said = shell::output(Command::new("sh").args(["-c", &script]).arg(&self.folder))?;
            let alert = said.lines().any(|line| line.contains("alert") && line.contains("error:"));
            let status = said.contains("HTTP/1.1 400 ");
            if said.contains("HTTP/1.1 200") || !(alert || status) {
                return Err(format!("a client {who} is not refused between the sidecars: {}", said.trim()));
            }
        }
        Ok(())
    }
}

/// What the service's certificate is for.
pub(super) const SERVER_NAME: &str = "app.bench.mesh";
