//! Network namespaces: where an application lives that sees nothing of the network but what its sidecar shows it.
//!
//! A socket stays in the namespace of the thread that made it, whichever thread uses it later. So a thread goes there, makes what
//! is needed, and ends; nobody else ever changes its place.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use crate::sys;

/// The address that an application in a namespace of its own has beside loopback: the dummy address of RFC 7600, which is no
/// host's on any network. Without one, resolvers that were told to (`AI_ADDRCONFIG`) find no IPv4 addresses. To a sidecar it
/// stands for the application, on whichever of its addresses that listens.
pub const APP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6: a unique local address (RFC 4193). From one, a public IPv6 address is the second choice after an IPv4 one
/// (RFC 6724 §2.1), which is what a machine without IPv6 needs.
pub const APP_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x1e00, 0, 0, 0, 0, 0, 8);

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Clone, Debug)]
pub struct Namespace {
    link: Arc<File>,
}

impl Namespace {
    /// A new one with nothing in it and no name: once its last process, socket and holder are gone, it is gone, with every
    /// device and rule in it.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn create() -> io::Result<Self> {
        let made = || {
            sys::leave_network_namespace()?;
            File::open("/proc/thread-self/ns/net")
        };
        Ok(Self { link: Arc::new(on_a_thread(made)?) })
    }

    /// The one that a link such as `/proc/PID/ns/net` or `/proc/PID/fd/N` leads to.
    ///
    /// # Errors
    /// There is none, or it may not be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { link: Arc::new(File::open(path)?) })
    }

    /// Its number, which is in the name that `/proc/PID/ns/net` shows: `net:[NUMBER]`.
    ///
    /// # Errors
    /// The system's.
    pub fn number(&self) -> io::Result<u64> {
        Ok(self.link.metadata()?.ino())
    }

    /// A path by which other processes of the same user can open it while this one holds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.link.as_raw_fd()))
    }

    /// Does something inside, on a thread of its own. A process that is started there stays there.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_SYS_ADMIN; what `does` fails with.
    pub fn run<T: Send>(&self, does: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            does()
        })
    }

    /// Takes the calling thread there, for good.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// Runs `does` on a thread that ends with it.
fn on_a_thread<T: Send>(does: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, does)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace has panicked")))
    })
}

/// Makes sockets inside a namespace, for connections to the application in it.
#[derive(Clone, Debug)]
pub(crate) struct SocketMaker {
    orders: SyncSender<Order>,
}

/// Who waits for a socket of which family.
type Order = (Domain, oneshot::Sender<io::Result<Socket>>);

/// Sockets that may be waited for at a time; beyond, dialing the application fails at once.
const ORDERS_MAX: usize = 1024;

impl SocketMaker {
    /// Starts the thread that makes them. It ends with the last of its users.
    pub(crate) fn start(namespace: Namespace) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS_MAX);
        let (tell, entered) = sync_channel(1);
        std::thread::Builder::new().name("app-sockets".to_owned()).spawn(move || {
            let there = namespace.enter();
            let alive = there.is_ok();
            let _ = tell.send(there);
            if alive {
                serve(&inbox);
            }
        })?;
        entered.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for sockets has ended")))?;
        Ok(Self { orders })
    }

    /// A TCP socket inside, not connected, that never blocks.
    pub(crate) async fn socket(&self, to: IpAddr) -> io::Result<Socket> {
        let (answer, answered) = oneshot::channel();
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        self.orders.try_send((domain, answer)).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::other("too many connections to the application at a time"),
            TrySendError::Disconnected(_) => gone(),
        })?;
        answered.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread for sockets has ended")
}

fn serve(inbox: &Receiver<Order>) {
    while let Ok((domain, answer)) = inbox.recv() {
        let made = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP));
        // Whoever asked may have given up.
        let _ = answer.send(made);
    }
}
