//! What a proxy speaks TLS with: made from one credential, replaced whole when it is renewed.

use std::sync::Arc;

use leno_core::peer::SpiffeId;
use leno_identity::credential::Credential;
use leno_identity::tls::{Clock, TlsError, client_config, server_config};
use rustls::{ClientConfig, ServerConfig};

/// The protocol between two Lenos, as negotiated by ALPN.
pub(crate) const ALPN: &[u8] = b"leno/1";
/// What a peer that is no Leno may speak instead, with a certificate of the mesh.
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";
/// The same in one connection for many requests.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// One credential and what follows from it.
#[derive(Debug)]
pub(crate) struct TlsState {
    /// Who we are.
    pub(crate) credential: Arc<Credential>,
    /// For connections that peers make to us.
    pub(crate) server: Arc<ServerConfig>,
}

impl TlsState {
    /// Builds the server's side; the client's depends on whom we expect.
    pub(crate) fn new(credential: Arc<Credential>) -> Result<Self, TlsError> {
        let server = server_config(&credential, &[ALPN, ALPN_HTTP2, ALPN_HTTP1], &Clock::system())?;
        Ok(Self { credential, server })
    }

    /// For a connection to exactly this peer.
    pub(crate) fn client(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&self.credential, expected, &[ALPN], &Clock::system())
    }
}
