//! Names for the workload: a resolver beside it that answers for the mesh and asks the system's resolvers about everything else.
//!
//! It runs on the main thread and never disturbs the workers. What to answer is decided by [`leno_core::dns`]; here are the sockets
//! and the waiting. Nothing that a client or a resolver sends makes anything grow past a named limit, and every wait has an end.

mod asking;
mod counters;
mod forwarder;
mod local;
mod message;
mod resolvers;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::iana::Rcode;
use leno_core::dns::{Answer, Unheard, Zone, decide};
use leno_core::name::Label;
use leno_core::snapshot::Snapshot;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::asking::Asking;
use self::counters::Count;
pub(crate) use self::counters::Counters;
use self::forwarder::Forwarder;
use self::local::Neighbours;
use self::message::{Query, Unreadable, Way};
use self::resolvers::{RESOLV_CONF, Resolvers};
use self::upstream::{Asker, framed};
use crate::agent::AgentHandle;
use crate::clock::Clock;
use crate::dial::Dialer;

/// Questions that wait for somebody, over all clients; one more is answered at once that it failed.
const QUERIES_MAX: usize = 1024;
/// Clients' connections at a time.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take for its next question (RFC 7766 §6.2.3 advises seconds), and for taking an answer.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// A question is never longer than this in a datagram; what is, is none.
const QUERY_BYTES_MAX: usize = 4096;
/// Questions that the kernel keeps while the main thread is busy: some 1,000 (each takes 768 bytes of it).
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// How often the control plane is asked for one question: a bare name can stand for two services.
const ASKS_PER_QUERY: usize = 3;
/// After a failed receive or accept: the reason does not pass at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Sockets that questions come to; both have the same address.
#[derive(Debug)]
pub struct Sockets {
    /// For datagrams; does not block.
    pub udp: StdSocket,
    /// For streams; does not block.
    pub tcp: StdListener,
}

/// Who is answered; anybody else is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Who asks from an address of the network namespace that this process runs in.
    ThisHost,
    /// Whoever reaches the sockets: they are in a network namespace that has nobody but the workload.
    Everybody,
}

/// What answering needs to know.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Whom to ask about services that are not in the snapshot.
    pub(crate) control: Option<AgentHandle>,
    /// The workload's namespace; `None` beside a gateway.
    pub(crate) namespace: Option<Label>,
    /// Resolvers that the operator names; empty: the system's.
    pub(crate) upstream: Vec<SocketAddr>,
    /// Who is answered.
    pub(crate) clients: Clients,
    /// Makes connections to resolvers.
    pub(crate) dialer: Dialer,
}

impl Sockets {
    /// Binds both sockets. Port 0 becomes one free port, the same for both.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        const TRIES: usize = 16;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            let tcp = stream_socket(address)?;
            match StdSocket::bind(tcp.local_addr()?) {
                Ok(udp) => {
                    udp.set_nonblocking(true)?;
                    // What does not fit is lost, and its client waits for seconds. The system may give less.
                    let _ = SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
                    return Ok(Self { udp, tcp });
                }
                // A port that is free for streams may be taken for datagrams: the next one, when any will do.
                Err(error) if address.port() == 0 => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Where they are.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

fn stream_socket(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(CONNECTIONS_MAX as i32)?;
    Ok(socket.into())
}

/// Answers questions until the process ends.
pub(crate) fn start(sockets: Vec<Sockets>, settings: Settings) -> io::Result<Arc<Counters>> {
    let own = sockets.iter().map(Sockets::address).collect::<io::Result<Vec<_>>>()?;
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut token = [0; 8];
    random.fill(&mut token).map_err(|_| io::Error::other("the system has no random numbers"))?;
    let counters = Arc::new(Counters::default());
    let Settings { clock, snapshot, control, namespace, upstream, clients, dialer } = settings;
    let asker = Asker { random, token, counters: counters.clone(), dialer };
    let resolvers = Resolvers::new(Path::new(RESOLV_CONF), upstream, own);
    let desk = Arc::new(Desk {
        forwarder: Arc::new(Forwarder::new(asker, clock, resolvers)),
        asking: control.map(|control| Asking::new(control, snapshot.clone(), counters.clone())),
        snapshot,
        namespace,
        neighbours: Neighbours::default(),
        clients,
        token,
        counters: counters.clone(),
        turn: AtomicUsize::new(0),
        places: Arc::new(Semaphore::new(QUERIES_MAX)),
    });
    for Sockets { udp, tcp } in sockets {
        tokio::spawn(datagrams(Arc::new(UdpSocket::from_std(udp)?), desk.clone()));
        tokio::spawn(streams(TcpListener::from_std(tcp)?, desk.clone()));
    }
    Ok(counters)
}

/// Where questions are answered.
#[derive(Debug)]
struct Desk {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    namespace: Option<Label>,
    forwarder: Arc<Forwarder>,
    asking: Option<Asking>,
    neighbours: Neighbours,
    clients: Clients,
    token: message::Token,
    counters: Arc<Counters>,
    /// Which of several addresses comes first.
    turn: AtomicUsize,
    /// Questions that wait.
    places: Arc<Semaphore>,
}

/// What became of a message.
enum Seen {
    /// This is answered.
    Answer(Vec<u8>),
    /// Nothing is answered.
    Silent,
    /// Somebody has to be waited for.
    Wait(Query),
}

impl Desk {
    /// Answers what can be answered at once.
    fn see(&self, bytes: &[u8], source: SocketAddr, way: Way) -> Seen {
        let query = match Query::parse(bytes, &self.token) {
            Ok(query) => query,
            Err(Unreadable::Broken(answer)) if self.welcome(source) => {
                self.counters.bump(Count::Malformed);
                return Seen::Answer(answer);
            }
            Err(Unreadable::Refused(answer)) => {
                self.counters.bump(Count::Refused);
                return Seen::Answer(answer);
            }
            Err(Unreadable::Broken(_) | Unreadable::Silent) => {
                self.counters.bump(Count::Malformed);
                return Seen::Silent;
            }
        };
        if query.own {
            self.counters.bump(Count::Loop);
            tracing::warn!(
                %source,
                "a question that this proxy sent to a resolver came back to it: the resolver leads here, or its connections are redirected"
            );
            return Seen::Answer(query.error(Rcode::REFUSED));
        }
        if !self.welcome(source) {
            self.counters.bump(Count::Refused);
            return Seen::Answer(query.error(Rcode::REFUSED));
        }
        match self.decide(&query, self.unheard()) {
            Answer::Ask(_) => Seen::Wait(query),
            Answer::Upstream => match self.forwarder.remembered(&query) {
                Some(answered) => {
                    self.counters.bump(answered.how);
                    Seen::Answer(query.relay(&answered.reply, answered.age, way))
                }
                None => Seen::Wait(query),
            },
            answer => Seen::Answer(self.mesh(&query, &answer, way)),
        }
    }

    /// Answers what has to be waited for.
    async fn wait(&self, query: &Query, way: Way) -> Vec<u8> {
        let mut unheard = self.unheard();
        for _ in 0..ASKS_PER_QUERY {
            match (self.decide(query, unheard), &self.asking) {
                (Answer::Ask(service), Some(asking)) => {
                    if !asking.ask(&service).await {
                        unheard = Unheard::Unsure;
                    }
                }
                (Answer::Upstream, _) => {
                    let answered = self.forwarder.resolve(query, way).await;
                    self.counters.bump(answered.how);
                    return query.relay(&answered.reply, answered.age, way);
                }
                (answer, _) => return self.mesh(query, &answer, way),
            }
        }
        self.counters.bump(Count::Failed);
        query.error(Rcode::SERVFAIL)
    }

    fn mesh(&self, query: &Query, answer: &Answer, way: Way) -> Vec<u8> {
        let failed = matches!(answer, Answer::Unsure);
        self.counters.bump(if failed { Count::Failed } else { Count::Mesh });
        query.answer(answer, self.turn.fetch_add(1, Ordering::Relaxed), way)
    }

    fn decide(&self, query: &Query, unheard: Unheard) -> Answer {
        let zone = Zone { namespace: self.namespace.clone(), search: self.forwarder.search() };
        let snapshot = self.snapshot.borrow().clone();
        decide(&snapshot, &zone, &query.labels(), query.kind(), unheard)
    }

    const fn unheard(&self) -> Unheard {
        if self.asking.is_some() { Unheard::Ask } else { Unheard::Absent }
    }

    fn welcome(&self, source: SocketAddr) -> bool {
        self.clients == Clients::Everybody || self.neighbours.has(source)
    }
}

/// Questions in datagrams.
async fn datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "a question about a name could not be received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let query = match desk.see(buffer.get(..length).unwrap_or_default(), source, Way::Udp) {
            Seen::Silent => continue,
            Seen::Answer(answer) => {
                // A client whose buffer is full loses an answer, as on any network.
                let _ = socket.try_send_to(&answer, source);
                continue;
            }
            Seen::Wait(query) => query,
        };
        let Ok(place) = desk.places.clone().try_acquire_owned() else {
            desk.counters.bump(Count::QueriesMax);
            desk.counters.bump(Count::Failed);
            let _ = socket.try_send_to(&query.error(Rcode::SERVFAIL), source);
            continue;
        };
        let (socket, desk) = (socket.clone(), desk.clone());
        tokio::spawn(async move {
            let answer = desk.wait(&query, Way::Udp).await;
            let _ = socket.try_send_to(&answer, source);
            drop(place);
        });
    }
}

/// Clients that ask over streams.
async fn streams(listener: TcpListener, desk: Arc<Desk>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection with questions about names could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = connections.clone().try_acquire_owned() else {
            desk.counters.bump(Count::ConnectionsMax);
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            // A client that breaks its connection is its own concern.
            let _ = questions(stream, source, &desk).await;
            drop(place);
        });
    }
}

/// One client's questions, one after the other, until it has no more.
async fn questions(mut stream: TcpStream, source: SocketAddr, desk: &Desk) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        timeout(IDLE_MAX, async {
            let length = stream.read_u16().await?;
            bytes.resize(length.into(), 0);
            stream.read_exact(&mut bytes).await
        })
        .await??;
        let answer = match desk.see(&bytes, source, Way::Tcp) {
            Seen::Silent => return Ok(()),
            Seen::Answer(answer) => answer,
            Seen::Wait(query) => match desk.places.try_acquire() {
                Ok(_place) => desk.wait(&query, Way::Tcp).await,
                Err(_) => {
                    desk.counters.bump(Count::QueriesMax);
                    desk.counters.bump(Count::Failed);
                    query.error(Rcode::SERVFAIL)
                }
            },
        };
        timeout(IDLE_MAX, stream.write_all(&framed(&answer))).await??;
    }
}

#[cfg(test)]
mod check;
#[cfg(test)]
mod tests;
