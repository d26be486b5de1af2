//! A control plane in this process, and the clients that talk to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leno_control::{Bound, Control, ControlConfig, ControlError, StateDir};
use leno_core::index::{Key, Kind};
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::session::{Changes, Client as Session};
use leno_identity::authority::control_id;
use leno_identity::credential::{Credential, KeyAndCsr};
use leno_identity::tls::{ALPN_CONTROL, Clock, client_config, pinned_client_config, server_name};
use leno_identity::token::JoinToken;
use leno_identity::{CertificateDer, UnixTime};
use leno_wire::Known;
use leno_wire::grpc::Client;
use leno_wire::proto::mesh::{
    AttachAnswer, AttachMessage, AttachRequest, AttachResponse, Health, Heartbeat, Hello, JoinRequest,
    JoinResponse, Leave,
};
use leno_wire::proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use leno_wire::stream::{pack_request, parse_response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// No single step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A control plane in a task of this test.
pub(crate) struct Running {
    pub(crate) bound: Bound,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), ControlError>>,
}

/// Everything on free ports of loopback.
pub(crate) fn config(state: StateDir) -> ControlConfig {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let trust_domain = Some(TrustDomain::parse("test.mesh").unwrap());
    ControlConfig { mesh_listen: free, api_listen: free, trust_domain, ..ControlConfig::new(state) }
}

pub(crate) async fn start(config: ControlConfig) -> Running {
    let control = Control::bind(config).await.unwrap();
    let bound = control.bound().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(control.serve(async move {
        let _ = stopped.await;
    }));
    Running { bound, stop, task }
}

/// On memory, with a short lease, and the service `cart` declared.
pub(crate) async fn with_cart() -> Running {
    let config = ControlConfig { lease: Duration::from_millis(900), ..config(StateDir::Ephemeral) };
    let running = start(config).await;
    running.declare("cart", "{}").await;
    running
}

pub(crate) fn on(path: &Path) -> ControlConfig {
    config(StateDir::Path(path.to_owned()))
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// `GET path`, which must be 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// With the token.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let token = format!("Authorization: Bearer {}\r\n", self.bound.api_token);
        http(self.bound.api, method, path, &token, body).await
    }

    pub(crate) async fn declare(&self, name: &str, declaration: &str) {
        let (status, answer) =
            self.call("PUT", &format!("/v1/services/default/{name}"), Some(declaration)).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) async fn mint(&self, request: &str) -> String {
        let (status, answer) = self.call("POST", "/v1/tokens", Some(request)).await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A credential of `service`, which must be declared.
    pub(crate) async fn member(&self, service: &str) -> Credential {
        let token = self.mint(&format!(r#"{{"service": "{service}"}}"#)).await;
        let key = KeyAndCsr::generate().unwrap();
        let answer = self.join(&token, key.csr_der()).await.unwrap();
        accept(key, answer)
    }

    pub(crate) async fn join(&self, token: &str, csr_der: &[u8]) -> Result<JoinResponse, Status> {
        let client = stranger(&self.bound).await;
        let request =
            JoinRequest { token: token.to_owned(), csr_der: csr_der.to_vec(), instance: "test".to_owned() };
        client.join(request, PATIENCE).await
    }

    pub(crate) async fn connect(&self, credential: &Credential) -> Client {
        let expected = control_id(&self.bound.trust_domain);
        let tls = client_config(credential, &expected, &[ALPN_CONTROL], &Clock::system()).unwrap();
        dial(self.bound.mesh, tls).await.unwrap()
    }

    /// Waits until `wanted` holds of `GET path`.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = tokio::time::Instant::now();
        loop {
            let value = self.get(path).await;
            if wanted(&value) {
                return value;
            }
            assert!(begin.elapsed() < PATIENCE, "{path} is still {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The credential that follows from an answer.
pub(crate) fn accept(key: KeyAndCsr, answer: JoinResponse) -> Credential {
    let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
    let id = SpiffeId::parse(&answer.id).unwrap();
    key.accept(certificates(answer.chain), certificates(answer.roots), &id, now()).unwrap()
}

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A connection without a certificate, to whoever has the pin.
pub(crate) async fn stranger(bound: &Bound) -> Client {
    let tls = pinned_client_config(bound.pin, &[ALPN_CONTROL], &Clock::system()).unwrap();
    dial(bound.mesh, tls).await.unwrap()
}

pub(crate) async fn dial(
    address: SocketAddr,
    tls: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Client, Box<dyn std::error::Error>> {
    let tcp = TcpStream::connect(address).await?;
    let io = tokio_rustls::TlsConnector::from(tls).connect(server_name(), tcp).await?;
    let (client, connection) = Client::handshake(io).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) fn pin_of(token: &str) -> leno_identity::authority::Pin {
    JoinToken::parse(token).unwrap().pin
}

pub(crate) fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

/// An attached instance.
pub(crate) struct Lease {
    pub(crate) out: mpsc::Sender<AttachRequest>,
    pub(crate) answers: Streaming<AttachResponse>,
}

pub(crate) fn hello(instance: &str, address: &str) -> Hello {
    Hello {
        instance: instance.to_owned(),
        mesh_address: address.to_owned(),
        version: "v1".to_owned(),
        proxy_version: "0.0.0-test".to_owned(),
        health: Some(Health { healthy: true, reason: String::new() }),
        ..Hello::default()
    }
}

impl Lease {
    pub(crate) async fn open(client: &Client, hello: Hello) -> Result<(Self, AttachAnswer), Status> {
        let (out, requests) = mpsc::channel(4);
        let first = AttachRequest { message: Some(AttachMessage::Hello(hello)) };
        out.send(first).await.unwrap();
        let answers = client.attach(ReceiverStream::new(requests)).await?;
        let mut lease = Self { out, answers };
        let answer = lease.answer().await?;
        Ok((lease, answer))
    }

    pub(crate) async fn answer(&mut self) -> Result<AttachAnswer, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("no answer in time");
        message?.and_then(|answer| answer.message).ok_or_else(|| Status::ok("the stream ended"))
    }

    pub(crate) async fn heartbeat(&mut self, problem: Option<&str>) -> Result<AttachAnswer, Status> {
        let health = Health { healthy: problem.is_none(), reason: problem.unwrap_or_default().to_owned() };
        let heartbeat = Heartbeat { health: Some(health), generation: 7 };
        let _ = self.out.send(AttachRequest { message: Some(AttachMessage::Heartbeat(heartbeat)) }).await;
        self.answer().await
    }

    pub(crate) async fn leave(mut self) {
        let leave = Leave { reason: "done".to_owned() };
        self.out.send(AttachRequest { message: Some(AttachMessage::Leave(leave)) }).await.unwrap();
        assert!(self.answer().await.is_err());
    }
}

/// A proxy's end of a control stream, with what it holds.
pub(crate) struct Proxy {
    pub(crate) session: Session,
    pub(crate) held: BTreeMap<Key, Known>,
    /// Names that are refused with this reason.
    pub(crate) refuse: Option<(Key, String)>,
    out: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
    name: String,
    first: bool,
    /// Resources in all responses so far.
    pub(crate) offered: usize,
    /// Removals in all responses so far.
    pub(crate) removals: usize,
}

impl Proxy {
    pub(crate) async fn open(client: &Client, name: &str, session: Session) -> Result<Self, Status> {
        let (out, requests) = mpsc::channel(64);
        let answers = client.delta(ReceiverStream::new(requests)).await?;
        let mut session = session;
        session.connected();
        let held = BTreeMap::new();
        let name = name.to_owned();
        let mut proxy =
            Self { session, held, refuse: None, out, answers, name, first: true, offered: 0, removals: 0 };
        proxy.pump().await;
        Ok(proxy)
    }

    pub(crate) async fn want(&mut self, kind: Kind, name: &str) {
        self.session.want(Key::new(kind, id(name)));
        self.pump().await;
    }

    pub(crate) async fn pump(&mut self) {
        while let Some(request) = self.session.poll() {
            let node =
                std::mem::take(&mut self.first).then(|| Node { id: self.name.clone(), ..Node::default() });
            let _ = self.out.send(pack_request(&request, node)).await;
        }
    }

    /// The next response, taken in and answered.
    pub(crate) async fn next(&mut self) -> Result<Changes, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("no response in time")?;
        let Some(message) = message else { return Err(Status::ok("the stream ended")) };
        let response = parse_response(message).unwrap();
        self.offered += response.resources.len();
        self.removals += response.removed.len();
        let (held, refuse) = (&mut self.held, &self.refuse);
        let changes = self.session.receive(response, |key, resource| {
            let known = Known::decode(&resource).map_err(|error| error.to_string())?;
            match refuse {
                Some((refused, reason)) if refused == key => return Err(reason.clone()),
                _ => {}
            }
            held.insert(key.clone(), known);
            Ok(())
        });
        for key in &changes.removed {
            self.held.remove(key);
        }
        self.pump().await;
        Ok(changes)
    }

    /// Takes responses in until `wanted` holds.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            if wanted(self) {
                return;
            }
            self.next().await.unwrap();
        }
        panic!("100 responses and not there yet: {:?}", self.held);
    }

    /// Endpoints of a service as `name healthy`.
    pub(crate) fn endpoints(&self, name: &str) -> Vec<String> {
        match self.held.get(&Key::new(Kind::Endpoints, id(name))) {
            Some(Known::Endpoints(_, endpoints)) => endpoints
                .iter()
                .map(|e| format!("{} {}", e.name, if e.healthy { "up" } else { "down" }))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Nothing comes for a while.
    pub(crate) async fn silent(&mut self, wait: Duration) {
        if let Ok(message) = tokio::time::timeout(wait, self.answers.message()).await {
            panic!("unexpected: {message:?}");
        }
    }
}

/// One request on its own connection; `headers` end with CRLF each.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: Option<&str>,
) -> (u16, Value) {
    let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
    let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{length}{headers}\r\n{}",
        body.unwrap_or_default()
    );
    let exchange = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        // A refusal may come before the whole body was taken.
        let _ = tcp.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("no answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (status, value)
}
