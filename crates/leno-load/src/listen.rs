//! The loop of an upstream: one thread, all connections.

use std::io::ErrorKind;
use std::net::{SocketAddrV4, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

/// What an upstream does with one connection.
pub(crate) trait Peer {
    /// Of a connection that was just accepted and does not block.
    fn new(stream: TcpStream) -> Self;
    fn stream(&self) -> &TcpStream;
    /// Does all that goes without waiting, or as much as is fair to the others, with edges: what is left undone is
    /// [`Served::More`].
    fn serve(&mut self, readable: bool, buffer: &mut [u8]) -> Result<Served, String>;
}

/// How a turn ended.
#[derive(PartialEq, Eq)]
pub(crate) enum Served {
    /// It waits for the socket.
    Open,
    /// It could go on at once.
    More,
    Over,
}

/// Serves until the process is ended.
pub(crate) fn serve<P: Peer>(address: SocketAddrV4) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{address}: {error}");
    let listener = TcpListener::bind(address).map_err(text)?;
    // The standard library's backlog is 128: too short for hundreds of connections at once.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| text(error.into()))?;
    listener.set_nonblocking(true).map_err(text)?;
    let text = |error: rustix::io::Errno| format!("epoll: {error}");
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(text)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).map_err(text)?;
    let mut peers: Vec<Option<P>> = Vec::new();
    let mut free = Vec::new();
    let mut again: Vec<usize> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let patience = (!again.is_empty()).then_some(&patience);
        match epoll::wait(&epoll, spare_capacity(&mut events), patience) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(text(error)),
        }
        let mut turns: Vec<(usize, bool)> = again.drain(..).map(|at| (at, false)).collect();
        for event in events.drain(..) {
            let data = event.data.u64();
            if data == LISTENER {
                while let Some(stream) = accept(&listener)? {
                    let at = free.pop().unwrap_or_else(|| {
                        peers.push(None);
                        peers.len() - 1
                    });
                    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                    epoll::add(&epoll, &stream, EventData::new_u64(at as u64), interest).map_err(text)?;
                    peers[at] = Some(P::new(stream));
                }
            } else {
                let at = usize::try_from(data).map_err(|error| error.to_string())?;
                turns.push((at, { event.flags }.intersects(!EventFlags::OUT)));
            }
        }
        for (at, readable) in turns {
            let Some(Some(peer)) = peers.get_mut(at) else { continue };
            match peer.serve(readable, &mut buffer) {
                Ok(Served::Open) => {}
                Ok(Served::More) => again.push(at),
                ended => {
                    if let Err(why) = ended {
                        eprintln!("leno-load: upstream: {why}");
                    }
                    let _ = epoll::delete(&epoll, peer.stream());
                    peers[at] = None;
                    free.push(at);
                }
            }
        }
        again.retain(|at| peers.get(*at).is_some_and(Option::is_some));
        again.dedup();
    }
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>, String> {
    match listener.accept() {
        Ok((stream, _)) => {
            let done = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
            done.map_err(|error| error.to_string())?;
            Ok(Some(stream))
        }
        // One that has gone again before it was accepted is nobody's concern.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
            Ok(None)
        }
        Err(error) => Err(format!("accept: {error}")),
    }
}

const BACKLOG: i32 = 4_096;
/// What the listener's events are called.
const LISTENER: u64 = u64::MAX;
const BUFFER_BYTES: usize = 256 * 1024;
/// Events per wake-up.
const EVENTS: usize = 512;
