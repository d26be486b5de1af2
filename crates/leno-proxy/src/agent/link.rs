//! One connection to the control plane: TCP, TLS, HTTP/2; and the calls that trade a key for a certificate.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use leno_core::peer::SpiffeId;
use leno_identity::authority::control_id;
use leno_identity::credential::{Credential, KeyAndCsr};
use leno_identity::reason::{explain, explain_io};
use leno_identity::tls::{ALPN_CONTROL, Clock, client_config, pinned_client_config, server_name};
use leno_identity::token::JoinToken;
use leno_wire::grpc::Client;
use leno_wire::proto::mesh::{JoinRequest, JoinResponse, RenewRequest};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};

use crate::clock::unix_now;
use crate::dial::Dialer;

/// An open connection.
pub(super) struct Link {
    /// Makes calls on it.
    pub(super) client: Client,
    /// Drives it; ends with the connection, and says why.
    driver: Driver,
}

/// Ends with the link that it drives.
struct Driver(JoinHandle<Result<(), hyper::Error>>);

/// Why there is no certificate.
pub(super) enum JoinError {
    /// The control plane refuses this token or request for good.
    Refused(String),
    /// Worth trying again.
    Again(String),
}

/// For name lookup, TCP, TLS and HTTP/2 together. On a loaded machine a handshake takes some 10 ms; a packet lost twice
/// takes 3 s.
const DIAL_WITHIN: Duration = Duration::from_secs(4);
/// For one unary call; the control plane writes to its disk meanwhile.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// A broken connection's driver ends within a moment and knows the reason better than the call that failed.
const REASON_WITHIN: Duration = Duration::from_millis(100);

/// Connects with our identity to exactly the control plane of our trust domain.
pub(super) async fn dial(
    dialer: Dialer,
    control: String,
    credential: Arc<Credential>,
) -> Result<Link, String> {
    let expected = control_id(&credential.id.trust_domain);
    let config = client_config(&credential, &expected, &[ALPN_CONTROL], &Clock::system())
        .map_err(|error| error.to_string())?;
    open(&dialer, &control, config).await
}

/// Trades the token and a fresh key for a credential.
pub(super) async fn join(
    dialer: Dialer,
    control: String,
    token: JoinToken,
    instance: String,
) -> Result<Credential, JoinError> {
    let again = |error: &dyn Error| JoinError::Again(error.to_string());
    let config = pinned_client_config(token.pin, &[ALPN_CONTROL], &Clock::system()).map_err(|e| again(&e))?;
    let key = KeyAndCsr::generate().map_err(|e| again(&e))?;
    let link = open(&dialer, &control, config).await.map_err(JoinError::Again)?;
    let request = JoinRequest { token: token.text(), csr_der: key.csr_der().to_vec(), instance };
    match link.client.join(request, CALL_WITHIN).await {
        Ok(response) => accept(key, response, None).map_err(JoinError::Again),
        Err(status) => {
            let what = "joining was refused";
            match status.code() {
                Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
                    Err(JoinError::Refused(format!("{what}: {}", status.message())))
                }
                _ => Err(JoinError::Again(link.explain("joining", &status).await)),
            }
        }
    }
}

/// Trades a fresh key for a credential of the same identity, over a connection that has it.
pub(super) async fn renew(client: Client, id: SpiffeId) -> Result<Credential, String> {
    let key = KeyAndCsr::generate().map_err(|error| error.to_string())?;
    let request = RenewRequest { csr_der: key.csr_der().to_vec() };
    let response = client
        .renew(request, CALL_WITHIN)
        .await
        .map_err(|status| format!("renewing: {}", status.message()))?;
    accept(key, response, Some(&id))
}

/// Checks what the authority answered; `id` is who we are already, if we are somebody.
fn accept(key: KeyAndCsr, response: JoinResponse, id: Option<&SpiffeId>) -> Result<Credential, String> {
    let granted = SpiffeId::parse(&response.id).map_err(|error| format!("{:?}: {error}", response.id))?;
    let der = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(CertificateDer::from).collect();
    key.accept(der(response.chain), der(response.roots), id.unwrap_or(&granted), unix_now())
        .map_err(|error| format!("the certificate from the control plane cannot be used: {error}"))
}

async fn open(dialer: &Dialer, control: &str, config: Arc<ClientConfig>) -> Result<Link, String> {
    let opening = async {
        let tcp = dialer.connect_host(control).await.map_err(|error| format!("connecting: {error}"))?;
        // Small messages that should leave at once.
        tcp.set_nodelay(true).map_err(|error| format!("connecting: {error}"))?;
        let tls = TlsConnector::from(config).connect(server_name(), tcp).await.map_err(|error| {
            explain_io(&error).map_or_else(|| format!("TLS: {error}"), |reason| format!("TLS: {reason}"))
        })?;
        let (client, driver) = Client::handshake(tls).await.map_err(|error| root_cause(&error))?;
        Ok(Link { client, driver: Driver(tokio::spawn(driver)) })
    };
    match timeout(DIAL_WITHIN, opening).await {
        Ok(result) => result,
        Err(_) => Err(format!("connecting: no answer within {DIAL_WITHIN:?}")),
    }
}

impl Link {
    /// Waits for the connection to end; says why.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.driver.0).await {
            Ok(Ok(())) => "the control plane closed the connection".into(),
            Ok(Err(error)) => root_cause(&error),
            Err(_) => "the connection's driver ended".into(),
        }
    }

    /// Why a call failed: what the control plane says, unless only the connection can say it.
    pub(super) async fn explain(mut self, what: &str, status: &Status) -> String {
        // What tonic makes of a broken connection.
        let broken =
            matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
        if broken && let Ok(reason) = timeout(REASON_WITHIN, self.ended()).await {
            return format!("{what}: {reason}");
        }
        format!("{what}: {}", status.message())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The TLS reason at the bottom of an error, or else the whole chain of causes. In TLS 1.3 a client learns only from
/// its first read that its certificate was refused, so the reason arrives wrapped by HTTP/2.
fn root_cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    // Causes nest a handful deep.
    for _ in 0..16 {
        let Some(cause) = next else { break };
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return format!("TLS: {}", explain(error));
        }
        if let Some(reason) = cause.downcast_ref::<std::io::Error>().and_then(explain_io) {
            return format!("TLS: {reason}");
        }
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
