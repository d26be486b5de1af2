//! How connections leave this process: marked, so that capture lets them through, and into the application's namespace where
//! it has one of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::netns::{APP_V4, APP_V6, Namespace, SocketMaker};

/// Makes every TCP connection that this proxy begins. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    /// `SO_MARK` of every socket: what capture's rules let through.
    mark: Option<u32>,
    /// The application's place, when that is not ours.
    app: Option<Arc<AppDoor>>,
}

/// The way into the application's namespace.
#[derive(Debug)]
struct AppDoor {
    sockets: SocketMaker,
    /// Which of [`PLACES`] answered last.
    place: AtomicUsize,
}

/// Where an application in a namespace of its own may listen, in the order in which that is tried. It has all of them for
/// itself, so whoever answers is the application.
const PLACES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(APP_V4),
    IpAddr::V6(APP_V6),
];

impl Dialer {
    /// One that marks its sockets, and reaches an application inside a namespace at [`APP_V4`].
    ///
    /// # Errors
    /// The namespace cannot be entered, or sockets cannot be marked: better now than with each connection.
    pub(crate) fn new(mark: Option<u32>, namespace: Option<&Namespace>) -> io::Result<Self> {
        let app = match namespace {
            Some(namespace) => {
                let sockets = SocketMaker::start(namespace.clone())?;
                Some(Arc::new(AppDoor { sockets, place: AtomicUsize::new(0) }))
            }
            None => None,
        };
        if let Some(mark) = mark {
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?.set_mark(mark)?;
        }
        Ok(Self { mark, app })
    }

    /// Connects. The caller bounds the wait. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match (&self.app, self.mark) {
            (Some(app), _) if address.ip() == IpAddr::V4(APP_V4) => app.connect(address.port()).await,
            (_, None) => TcpStream::connect(address).await,
            (_, Some(mark)) => {
                let kind = Type::STREAM.nonblocking();
                let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
                socket.set_mark(mark)?;
                start(socket, address).await
            }
        }
    }

    /// Connects to the first that answers of the addresses that `host:port` stands for.
    ///
    /// # Errors
    /// That of the last address, or of looking the name up.
    pub async fn connect_host(&self, host_and_port: &str) -> io::Result<TcpStream> {
        let mut last = None;
        for address in tokio::net::lookup_host(host_and_port).await? {
            match self.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    /// `SO_MARK` for sockets that are made elsewhere.
    pub(crate) const fn mark(&self) -> Option<u32> {
        self.mark
    }
}

impl AppDoor {
    /// Tries the place that answered last, then the others.
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let known = self.place.load(Ordering::Relaxed);
        let others = (0..PLACES.len()).filter(|place| *place != known);
        let mut refused = None;
        for place in std::iter::once(known).chain(others) {
            let Some(ip) = PLACES.get(place).copied() else { continue };
            let attempt = async { start(self.sockets.socket(ip).await?, SocketAddr::new(ip, port)).await };
            match attempt.await {
                Ok(stream) => {
                    self.place.store(place, Ordering::Relaxed);
                    return Ok(stream);
                }
                // Nobody listens there, or the namespace has no IPv6.
                Err(error) if nobody(&error) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
    }
}

fn nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable, Unsupported};
    matches!(error.kind(), ConnectionRefused | AddrNotAvailable | NetworkUnreachable | Unsupported)
}

async fn start(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}
