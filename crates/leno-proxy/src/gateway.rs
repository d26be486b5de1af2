//! Connections from outside: what stands before a client's first word at a gateway's listener, and who serves it then. In
//! this order: the PROXY header, by which a load balancer says who the client is; the handshake, where TLS ends here, or the
//! client's hello, where it passes; the protocol.
//!
//! All of it is said by strangers, before anybody knows them: each step has a deadline, each has a bound, and so has the
//! number of connections that are at it at a time.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use leno_core::client_hello::{self, STREAM_BYTES_MAX};
use leno_core::edit::Edits;
use leno_core::gateway::{Shown, forwarding, passed_on, turn_away};
use leno_core::head::RequestHead;
use leno_core::name::ServiceId;
use leno_core::proxy_protocol::{self, Ends, V2_BYTES_MAX};
use leno_core::route::Then;
use leno_core::spec::{HttpSpec, ListenerSpec, Serve, SniRoute};
use leno_core::time::Duration;
use leno_identity::ingress::describe_client;
use tokio::net::TcpStream;

use crate::caller::{Caller, Remote};
use crate::downstream::{Arrival, serve_http2};
use crate::io::Stream;
use crate::listen::Guard;
use crate::telemetry::bump;
use crate::worker::Worker;
use crate::{h1, opaque, socket};

pub(crate) mod certificates;

/// How long a load balancer may take for its header, which it sends at once (HAProxy's usual limit is 5 s).
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take for its TLS handshake: two or three round trips and some cryptography over the worst of
/// networks (nginx 60 s, Envoy 15 s, Go's server 10 s).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for the hello that says where its connection goes.
const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one worker that are at one of these steps. Each costs some 15 KiB, much more than an idle one; a client
/// that comes when there are so many is turned away at once instead of waiting for those that may never finish.
const ENTERING_MAX: usize = 4096;
/// Bytes read at a time before TLS.
const READ_BYTES: usize = 4096;
/// The fatal alert `unrecognized_name` (RFC 6066 §3), as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The protocols of HTTP that are offered by ALPN, most wanted first.
pub(crate) const HTTP_PROTOCOLS: &[&[u8]] = &[H2, b"http/1.1"];
const H2: &[u8] = b"h2";

/// The listener that a client came through, and what its handshake has shown.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    listener: Arc<ListenerSpec>,
    /// There when TLS ends here.
    shown: Option<Arc<Shown>>,
}

/// HTTP without anything special.
static PLAIN: HttpSpec = HttpSpec { hosts: Vec::new(), tls: None, redirect: None, forwarded_hops: 0 };

impl Gate {
    fn http(&self) -> &HttpSpec {
        match &self.listener.serve {
            Serve::Http(http) => http,
            Serve::Passthrough(_) | Serve::Tcp { .. } => &PLAIN,
        }
    }

    /// What becomes of a request that is not let in here; `None`: the rules decide.
    pub(crate) fn turn_away(&self, head: &RequestHead<'_>) -> Option<Then> {
        turn_away(self.http(), self.shown.as_deref(), head)
    }

    /// The listener's port, and the name that the client asked for when TLS began.
    pub(crate) fn entered_by(&self) -> (Option<u16>, Option<&str>) {
        let server_name = self.shown.as_deref().and_then(|shown| shown.server_name.as_deref());
        (Some(self.listener.listen.port()), server_name)
    }

    /// The port of HTTPS that requests are sent to.
    pub(crate) fn redirect(&self) -> Option<u16> {
        self.http().redirect
    }

    /// Says where a request came from.
    pub(crate) fn edit(&self, edits: &mut Edits, head: &RequestHead<'_>, client: &Remote) {
        forwarding(self.http(), self.shown.as_deref(), head, client.ip(), edits);
    }
}

/// Serves a connection that a gateway's listener has accepted.
pub(crate) fn accept(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr, name: &str, guard: Guard) {
    let Some(listener) = worker.snapshot().listener(name).cloned() else {
        // It was taken out of the configuration; the address is let go of when the proxy starts again.
        return bump(&mut worker.telemetry().malformed, "no_listener");
    };
    let plain = matches!(&listener.serve, Serve::Http(HttpSpec { tls: None, .. }));
    if plain && listener.proxy_protocol.is_none() {
        let caller = Caller::Gateway(Gate { listener, shown: None });
        let stream = Rc::new(Stream::Plain(socket));
        let arrival = Arrival { stream, first: Vec::new(), remote: Remote::new(peer), caller, guard };
        return h1::server::serve(worker, arrival);
    }
    if worker.entering.get() >= ENTERING_MAX {
        return bump(&mut worker.telemetry().limits, "gateway_entering");
    }
    worker.entering.set(worker.entering.get() + 1);
    worker.spawn(move |worker| async move {
        let entered = enter(&worker, socket, peer, listener).await;
        worker.entering.set(worker.entering.get().saturating_sub(1));
        match entered {
            Ok(entered) => serve(&worker, entered, guard),
            Err(refused) => {
                bump(&mut worker.telemetry().malformed, refused.word());
                tracing::debug!(%peer, reason = refused.word(), error = %refused, "a connection was not let in");
            }
        }
    });
}

/// A connection that may be served.
struct Entered {
    stream: Stream,
    first: Vec<u8>,
    remote: Remote,
    caller: Caller,
}

/// Why a connection was not let in.
#[derive(Debug)]
enum Refused {
    /// It did not come from a load balancer that may send a PROXY header, or begins with none.
    Proxy(proxy_protocol::Invalid),
    Untrusted,
    ProxyLate,
    Handshake(io::Error),
    HandshakeLate,
    Hello(client_hello::Invalid),
    HelloLate,
    /// No route is for the name that it asks for.
    Name(Option<String>),
    /// The listener has no certificates that can be used.
    NoCertificate,
    Io(io::Error),
}

impl Refused {
    /// The word in the counter.
    const fn word(&self) -> &'static str {
        match self {
            Self::Proxy(_) => "proxy_header",
            Self::Untrusted => "proxy_untrusted",
            Self::ProxyLate => "proxy_header_timeout",
            Self::Handshake(_) => "tls_handshake",
            Self::HandshakeLate => "tls_handshake_timeout",
            Self::Hello(_) => "client_hello",
            Self::HelloLate => "client_hello_timeout",
            Self::Name(_) => "unknown_server_name",
            Self::NoCertificate => "no_certificate",
            Self::Io(_) => "closed_early",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proxy(invalid) => invalid.fmt(f),
            Self::Untrusted => f.write_str("its address may not send a PROXY header, and has to"),
            Self::ProxyLate | Self::HandshakeLate | Self::HelloLate => f.write_str("it took too long"),
            Self::Handshake(error) | Self::Io(error) => error.fmt(f),
            Self::Hello(invalid) => invalid.fmt(f),
            Self::Name(Some(name)) => write!(f, "no route is for {name:?}"),
            Self::Name(None) => f.write_str("it asks for no name, and no route is for that"),
            Self::NoCertificate => f.write_str("the listener has no certificate"),
        }
    }
}

async fn enter(
    worker: &Rc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
    listener: Arc<ListenerSpec>,
) -> Result<Entered, Refused> {
    let mut first = Vec::new();
    let mut ends = None;
    if let Some(trusted) = &listener.proxy_protocol {
        // Whoever may not send a header may not come without one either: it would be taken for the load balancer itself.
        if !trusted.iter().any(|range| range.contains(peer.ip().to_canonical())) {
            return Err(Refused::Untrusted);
        }
        ends = within(worker, PROXY_HEADER_TIMEOUT, proxy_header(&socket, &mut first), Refused::ProxyLate)
            .await?;
    }
    let remote = match ends {
        Some(Ends { source, destination }) => Remote::new(source).with_destination(destination),
        None => match socket.local_addr() {
            Ok(own) => Remote::new(peer).with_destination(own),
            Err(_) => Remote::new(peer),
        },
    };
    if let Serve::Passthrough(routes) = &listener.serve {
        let hello = client_hello(&socket, &mut first);
        let name = within(worker, CLIENT_HELLO_TIMEOUT, hello, Refused::HelloLate).await?;
        let Some(SniRoute { to, .. }) = name.as_deref().and_then(|name| passed_on(routes, name)) else {
            // So that the client can say what is wrong. What does not fit into an empty buffer is not worth a wait.
            let _ = socket::try_send(&socket, &UNRECOGNIZED_NAME, &[]);
            return Err(Refused::Name(name));
        };
        let caller = passage(to, name.as_deref());
        return Ok(Entered { stream: Stream::Plain(socket), first, remote, caller });
    }
    let (stream, shown) = match listener.termination() {
        None => (Stream::Plain(socket), None),
        Some(spec) => {
            let Some(termination) = worker.termination(&listener.name) else {
                return Err(Refused::NoCertificate);
            };
            let handshake = async {
                let first = std::mem::take(&mut first);
                Stream::server(socket, first, termination.config.clone()).await.map_err(Refused::Handshake)
            };
            let stream = within(worker, HANDSHAKE_TIMEOUT, handshake, Refused::HandshakeLate).await?;
            let server_name = stream.server_name();
            let forward = spec.clients.as_ref().is_some_and(|clients| clients.forward);
            let client = stream.peer_certificate().filter(|_| forward);
            let shown = Shown {
                names: termination.names(server_name.as_deref()),
                server_name,
                client: client.and_then(|certificate| describe_client(&certificate)).map(Arc::from),
            };
            (stream, Some(shown))
        }
    };
    let caller = match &listener.serve {
        Serve::Tcp { to, .. } => passage(to, shown.as_ref().and_then(|shown| shown.server_name.as_deref())),
        _ => Caller::Gateway(Gate { listener, shown: shown.map(Arc::new) }),
    };
    Ok(Entered { stream, first, remote, caller })
}

fn serve(worker: &Rc<Worker>, entered: Entered, guard: Guard) {
    let Entered { stream, first, remote, caller } = entered;
    let http2 = stream.alpn().is_some_and(|protocol| protocol == H2);
    let passes = matches!(caller, Caller::Passage { .. });
    let arrival = Arrival { stream: Rc::new(stream), first, remote, caller, guard };
    if passes {
        worker.spawn(move |worker| opaque::serve(worker, arrival));
    } else if http2 {
        serve_http2(worker, arrival);
    } else {
        h1::server::serve(worker, arrival);
    }
}

fn passage(service: &ServiceId, name: Option<&str>) -> Caller {
    Caller::Passage { service: service.clone(), authority: name.unwrap_or_default().into() }
}

/// The result of `step`, or `late` when it takes too long.
async fn within<T>(
    worker: &Worker,
    limit: Duration,
    step: impl Future<Output = Result<T, Refused>>,
    late: Refused,
) -> Result<T, Refused> {
    let deadline = worker.clock.to_tokio(worker.now().after(limit));
    tokio::time::timeout_at(deadline, step).await.unwrap_or(Err(late))
}

/// Reads the header at the start of a connection; what was read behind it stays in `first`.
async fn proxy_header(socket: &TcpStream, first: &mut Vec<u8>) -> Result<Option<Ends>, Refused> {
    loop {
        if let Some(header) = proxy_protocol::parse(first).map_err(Refused::Proxy)? {
            first.drain(..header.bytes);
            return Ok(header.client);
        }
        read(socket, first, V2_BYTES_MAX).await?;
    }
}

/// Reads a TLS client's hello; everything that was read stays in `first`. The name that it asks for.
async fn client_hello(socket: &TcpStream, first: &mut Vec<u8>) -> Result<Option<String>, Refused> {
    let mut reader = client_hello::Reader::default();
    let mut seen = 0;
    loop {
        let new = first.get(seen..).unwrap_or(&[]);
        if let Some(hello) = reader.take(new).map_err(Refused::Hello)? {
            return Ok(hello.server_name);
        }
        seen = first.len();
        read(socket, first, STREAM_BYTES_MAX).await?;
    }
}

/// Reads what there is behind what was read before, up to so many bytes in all and at least one.
async fn read(socket: &TcpStream, first: &mut Vec<u8>, most: usize) -> Result<(), Refused> {
    // Whoever parses it has given up before there is no room left.
    first.reserve_exact(READ_BYTES.min((most + READ_BYTES).saturating_sub(first.len())).max(1));
    loop {
        socket.readable().await.map_err(Refused::Io)?;
        match socket::try_receive(socket, first) {
            Ok(0) => return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Refused::Io(error)),
        }
    }
}
