//! TLS with servers that are no Leno: what to believe is in the endpoint's [`TlsSpec`], the files that it names are read when
//! they are needed and again when they have changed. What a handshake failed by is told in words, in the log and in the
//! answer.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use leno_core::backend::Endpoint;
use leno_core::exchange::ConnectFailure;
use leno_core::route::Speak;
use leno_core::spec::{Alpn, ClientIdentity, Pinned, Protocol, Roots, TlsSpec};
use leno_core::time::{Duration, Instant};
use leno_identity::files;
use leno_identity::outside::{ClientKey, Demands, client_config, mesh_roots};
use leno_identity::reason::explain_io;
use leno_identity::tls::Clock;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::h2;
use crate::h2::client::NoStream;
use crate::io::Stream;
use crate::mux::who_refused;
use crate::telemetry::bump;
use crate::tls::TlsState;
use crate::worker::Worker;

/// How often files are looked at: a rotated certificate is in use this soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the machine's own roots are read again.
const SYSTEM_ROOTS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(600);
/// The same failure is logged again only after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// Endpoints whose protocol is remembered; beyond it, all are forgotten, and each is asked once more.
const ENDPOINTS_MAX: usize = 4096;
/// Configurations that one worker keeps: more than there are services with TLS that one workload calls.
const CONFIGS_MAX: usize = 256;

/// A connection that could not be made, and what to say about it.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What the exchange makes of it.
    pub(crate) failure: ConnectFailure,
    /// Why, in words.
    pub(crate) why: String,
}

impl From<ConnectFailure> for Refused {
    fn from(failure: ConnectFailure) -> Self {
        Self { failure, why: String::new() }
    }
}

/// What is offered to a server: what was asked for, or what the service speaks. Where that is to be found out the server
/// chooses, whatever the client spoke; only an upgrade is for HTTP/1.1 alone.
pub(crate) fn offers(how: Speak, protocol: Protocol, upgrading: bool, spec: &TlsSpec) -> Vec<Alpn> {
    match (how, protocol) {
        (Speak::Opaque, _) => spec.alpn.clone(),
        (_, Protocol::Auto) if upgrading => vec![Alpn::Http11],
        _ if !spec.alpn.is_empty() => spec.alpn.clone(),
        (_, Protocol::Auto) => vec![Alpn::H2, Alpn::Http11],
        (Speak::Http2, _) => vec![Alpn::H2],
        (Speak::Http1, _) => vec![Alpn::Http11],
    }
}

/// A connection to a server outside the mesh, by what it agreed to speak.
pub(crate) enum Reached {
    /// HTTP/1.1, or bytes.
    Stream(Rc<Stream>),
    /// HTTP/2.
    Http2(Box<h2::Call>),
}

/// A connection to `endpoint`, or a stream on one that many share. The caller bounds the wait.
pub(crate) async fn reach(
    worker: &Rc<Worker>,
    endpoint: &Rc<Endpoint>,
    spec: &Arc<TlsSpec>,
    offers: &[Alpn],
    within: Duration,
) -> Result<Reached, Refused> {
    let address = endpoint.spec.address;
    // Where HTTP/2 was spoken before, those who come at a time wait for one connection.
    let http2 = offers == [Alpn::H2]
        || offers.contains(&Alpn::H2) && worker.outside.borrow().http2.contains(&endpoint.key);
    let made = if http2 {
        None
    } else {
        let (stream, agreed) = connect(worker, address, spec, offers).await?;
        if agreed != Some(Alpn::H2) {
            return Ok(Reached::Stream(Rc::new(stream)));
        }
        worker.outside.borrow_mut().remember_http2(endpoint.key);
        Some(stream)
    };
    let made = Rc::new(Cell::new(made));
    let why: Rc<Cell<Option<String>>> = Rc::default();
    let (tell, spec, offers) = (why.clone(), spec.clone(), offers.to_vec());
    let dial = move |worker: Rc<Worker>, endpoint: Rc<Endpoint>| {
        let (made, tell, spec, offers) = (made.take(), tell.clone(), spec.clone(), offers.clone());
        async move {
            if let Some(stream) = made {
                return Ok(stream);
            }
            match connect(&worker, endpoint.spec.address, &spec, &offers).await {
                Ok((stream, Some(Alpn::H2))) => Ok(stream),
                Ok(_) => {
                    // It speaks something else by now; the next attempt finds out what.
                    worker.outside.borrow_mut().http2.remove(&endpoint.key);
                    tell.set(Some("the server does not speak HTTP/2".to_owned()));
                    Err(ConnectFailure::Tls)
                }
                Err(Refused { failure, why }) => {
                    tell.set(Some(why));
                    Err(failure)
                }
            }
        }
    };
    match h2::client::connect(worker, endpoint, http::uri::Scheme::HTTPS, within, dial).await {
        Ok(call) => Ok(Reached::Http2(call)),
        Err(NoStream::NotHttp2) => {
            worker.outside.borrow_mut().http2.remove(&endpoint.key);
            let why = "the server agreed to HTTP/2 and does not speak it".to_owned();
            Err(Refused { failure: ConnectFailure::Refused, why })
        }
        Err(NoStream::Connect(failure)) => Err(Refused { failure, why: why.take().unwrap_or_default() }),
    }
}

/// A worker's configurations for servers outside the mesh.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    known: Vec<Known>,
    /// Endpoints, by key, that agreed to HTTP/2.
    http2: BTreeSet<u64>,
}

impl Configs {
    fn remember_http2(&mut self, key: u64) {
        if self.http2.len() >= ENDPOINTS_MAX {
            self.http2.clear();
        }
        self.http2.insert(key);
    }
}

#[derive(Debug)]
struct Known {
    spec: Arc<TlsSpec>,
    offers: Vec<Alpn>,
    /// The certificate that this proxy had, where it plays a part.
    mesh: Option<Arc<TlsState>>,
    config: Arc<ClientConfig>,
    /// The files that it was made of, as they were.
    files: Vec<(Arc<str>, Option<Stamp>)>,
    looked: Instant,
    /// What was last said about a failure, and when.
    complaint: Option<(String, Instant)>,
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(SystemTime, u64);

/// Connects to `address` and shakes hands; also says what was agreed on to be spoken. The caller bounds the wait.
async fn connect(
    worker: &Rc<Worker>,
    address: SocketAddr,
    spec: &Arc<TlsSpec>,
    offers: &[Alpn],
) -> Result<(Stream, Option<Alpn>), Refused> {
    let unusable = |why: String| Refused { failure: ConnectFailure::Tls, why };
    let config = config(worker, spec, offers).map_err(unusable)?;
    let name = server_name(spec, address);
    let refused = |error: &io::Error| Refused { failure: ConnectFailure::Refused, why: error.to_string() };
    let socket = worker.dialer.connect(address).await.map_err(|error| refused(&error))?;
    socket.set_nodelay(true).map_err(|error| refused(&error))?;
    let stream = Stream::client(socket, config, name).await.map_err(|error| match explain_io(&error) {
        Some(reason) => {
            let by = who_refused(&reason);
            *worker.telemetry().tls_refused.entry((by, reason.label().to_owned())).or_default() += 1;
            let why = reason.to_string();
            if is_news(worker, spec, offers, &why) {
                tracing::warn!(%address, server = spec.expects(), why, "TLS with a server outside the mesh failed");
            }
            Refused { failure: ConnectFailure::Tls, why }
        }
        None => refused(&error),
    })?;
    bump(&mut worker.telemetry().dialed, "tls");
    let agreed = stream.alpn();
    let agreed = agreed.and_then(|id| Alpn::parse(std::str::from_utf8(&id).ok()?));
    Ok((stream, agreed))
}

/// True when a failure was not told of lately: a client that calls again and again fills no log.
fn is_news(worker: &Worker, spec: &Arc<TlsSpec>, offers: &[Alpn], why: &str) -> bool {
    let now = worker.now();
    let configs = &mut worker.outside.borrow_mut().known;
    let Some(known) = configs.iter_mut().find(|known| known.is(spec, offers)) else { return true };
    let said =
        known.complaint.as_ref().is_some_and(|(said, at)| said == why && now.since(*at) < REPEAT_AFTER);
    if !said {
        known.complaint = Some((why.to_owned(), now));
    }
    !said
}

impl Known {
    fn is(&self, spec: &Arc<TlsSpec>, offers: &[Alpn]) -> bool {
        self.offers == offers && (Arc::ptr_eq(&self.spec, spec) || self.spec == *spec)
    }
}

/// Whom to ask for; an address is not sent, only compared.
fn server_name(spec: &TlsSpec, address: SocketAddr) -> ServerName<'static> {
    let named = spec.sni.as_deref().and_then(|sni| ServerName::try_from(sni.to_owned()).ok());
    named.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()))
}

/// The configuration for `spec`, made anew when something that it was made of has changed.
fn config(worker: &Worker, spec: &Arc<TlsSpec>, offers: &[Alpn]) -> Result<Arc<ClientConfig>, String> {
    let uses_mesh = spec.roots == Some(Roots::Mesh) || spec.identity == Some(ClientIdentity::Mesh);
    let mesh = if uses_mesh { worker.tls().clone() } else { None };
    let configs = &mut worker.outside.borrow_mut().known;
    let now = worker.now();
    let same = |a: &Option<Arc<TlsState>>, b: &Option<Arc<TlsState>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    };
    let at = configs.iter().position(|known| known.is(spec, offers));
    if let Some(known) = at.and_then(|at| configs.get_mut(at)) {
        if now.since(known.looked) < LOOK_INTERVAL && same(&known.mesh, &mesh) {
            return Ok(known.config.clone());
        }
        known.looked = now;
        let changed = known.files.iter().any(|(file, stamp)| self::stamp(file) != *stamp);
        if !changed && same(&known.mesh, &mesh) && spec.roots != Some(Roots::System) && !by_default(spec) {
            return Ok(known.config.clone());
        }
    }
    let made = make(worker, spec, offers, mesh.as_deref());
    match (made, at.and_then(|at| configs.get_mut(at))) {
        (Ok((config, files)), Some(known)) => {
            (known.config, known.files, known.mesh) = (config.clone(), files, mesh);
            Ok(config)
        }
        (Ok((config, files)), None) => {
            if configs.len() >= CONFIGS_MAX {
                configs.clear();
            }
            let offers = offers.to_vec();
            let spec = spec.clone();
            let complaint = None;
            configs.push(Known { spec, offers, mesh, config: config.clone(), files, looked: now, complaint });
            Ok(config)
        }
        // Half a rotation, most likely: the next look finds both halves.
        (Err(why), Some(known)) => {
            tracing::warn!(
                why,
                "files for TLS outside the mesh cannot be read again; what was read before stays in use"
            );
            Ok(known.config.clone())
        }
        (Err(why), None) => {
            tracing::warn!(
                why,
                server = spec.expects(),
                "TLS with a server outside the mesh cannot be begun"
            );
            Err(why)
        }
    }
}

/// True when the machine's roots are meant without being named.
fn by_default(spec: &TlsSpec) -> bool {
    spec.roots.is_none() && spec.pinned.is_empty()
}

type Made = (Arc<ClientConfig>, Vec<(Arc<str>, Option<Stamp>)>);

fn make(worker: &Worker, spec: &TlsSpec, offers: &[Alpn], mesh: Option<&TlsState>) -> Result<Made, String> {
    let mut files = Vec::new();
    let mut read = |file: &Arc<str>| {
        // Before it is read: a change in between is then seen the next time.
        files.push((file.clone(), stamp(file)));
        files::certificates(file.as_ref().as_ref()).map_err(|error| error.to_string())
    };
    let credential = || mesh.map(|mesh| &*mesh.credential).ok_or("this proxy has no certificate of the mesh");
    let roots = match &spec.roots {
        None if !by_default(spec) => None,
        None | Some(Roots::System) => Some(worker.system_roots.get()?),
        Some(Roots::Mesh) => Some(mesh_roots(credential()?)),
        Some(Roots::File(file)) => {
            let mut store = RootCertStore::empty();
            for certificate in read(file)? {
                store.add(certificate).map_err(|error| format!("{file}: {error}"))?;
            }
            Some(Arc::new(store))
        }
    };
    let mut demands = Demands { roots, spiffe: spec.spiffe.clone(), ..Demands::default() };
    for pinned in &spec.pinned {
        match pinned {
            Pinned::Key(key) => demands.keys.push(*key),
            Pinned::File(file) => demands.pinned.extend(read(file)?),
        }
    }
    for name in &spec.names {
        let name =
            ServerName::try_from(name.to_string()).map_err(|_| format!("{name:?} is no server's name"))?;
        demands.names.push(name);
    }
    demands.identity = match &spec.identity {
        None => None,
        Some(ClientIdentity::Mesh) => Some(ClientKey::of(credential()?)),
        Some(ClientIdentity::Files { cert, key }) => {
            let chain = read(cert)?;
            files.push((key.clone(), stamp(key)));
            let key_der = files::private_key(key.as_ref().as_ref()).map_err(|error| error.to_string())?;
            Some(ClientKey::new(chain, key_der).map_err(|error| format!("{cert} and {key}: {error}"))?)
        }
    };
    let offers: Vec<&[u8]> = offers.iter().map(|alpn| alpn.id().as_bytes()).collect();
    let config = client_config(demands, &offers, &Clock::system()).map_err(|error| error.to_string())?;
    Ok((config, files))
}

fn stamp(file: &str) -> Option<Stamp> {
    let facts = std::fs::metadata(file).ok()?;
    Some(Stamp(facts.modified().ok()?, facts.len()))
}

/// The authorities that the machine trusts, read once for all workers and again now and then.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemRoots(Arc<Mutex<Option<ReadRoots>>>);

/// The roots, and when they were read.
type ReadRoots = (Arc<RootCertStore>, std::time::Instant);

impl SystemRoots {
    fn get(&self) -> Result<Arc<RootCertStore>, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((roots, read)) = &*known
            && read.elapsed() < SYSTEM_ROOTS_INTERVAL
        {
            return Ok(roots.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            return match &*known {
                Some((roots, _)) => Ok(roots.clone()),
                None => Err(match found.errors.first() {
                    Some(error) => format!("the machine's trusted authorities cannot be read: {error}"),
                    None => "the machine trusts no authority; name them by `roots`".to_owned(),
                }),
            };
        }
        let roots = Arc::new(store);
        *known = Some((roots.clone(), std::time::Instant::now()));
        Ok(roots)
    }
}
