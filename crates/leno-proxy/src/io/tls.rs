//! A TLS session driven by hand over a socket that does not wait: rustls turns bytes into bytes, and this file decides
//! when the socket is read and written. Unlike a generic adapter it reads the socket once for all records that are there,
//! into memory that all sessions of a thread share, so that an idle session holds no buffer of ours; and it works by
//! `&self`, so that both halves of a connection can have it.
//!
//! Bounds: plaintext that nobody took yet is at most one record (16 KiB); bytes of the socket that wait for it at most
//! [`RECEIVE_BYTES_MAX`]; sealed records that the socket did not take at most 64 KiB (rustls' own limit), and nothing is
//! taken while there are any.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, IoSlice, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::socket;

/// The most that is read from a socket at a time, in bytes: four full records.
const RECEIVE_BYTES_MAX: usize = 66 * 1024;
/// The least that is asked for, in bytes, however little room the reader has.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;

thread_local! {
    /// Where sealed records go between the socket and rustls, which keeps its own copy of what is incomplete.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVE_BYTES_MAX]);
}

/// A TLS session over a socket.
#[derive(Debug)]
pub(crate) struct Session {
    socket: TcpStream,
    state: RefCell<State>,
    /// The peer is to see a reset: no farewell.
    cut: Cell<bool>,
}

#[derive(Debug)]
struct State {
    tls: Connection,
    /// Sealed bytes that wait until the plaintext before them is taken; empty nearly always.
    waiting: Vec<u8>,
    /// What the peer did wrong; told when the plaintext before it is taken.
    failed: Option<rustls::Error>,
    sending: Sending,
}

/// Our direction of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// The farewell is written and perhaps not sent; then comes the socket's end.
    Ending,
    Ended,
}

impl Session {
    pub(super) async fn server(
        socket: TcpStream,
        first: Vec<u8>,
        config: Arc<ServerConfig>,
    ) -> io::Result<Box<Self>> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::shake_hands(socket, first, Connection::Server(tls)).await
    }

    pub(super) async fn client(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Box<Self>> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::shake_hands(socket, Vec::new(), Connection::Client(tls)).await
    }

    async fn shake_hands(socket: TcpStream, first: Vec<u8>, tls: Connection) -> io::Result<Box<Self>> {
        let state = State { tls, waiting: first, failed: None, sending: Sending::Open };
        let session = Box::new(Self { socket, state: RefCell::new(state), cut: Cell::new(false) });
        std::future::poll_fn(|cx| session.poll_handshake(cx)).await?;
        Ok(session)
    }

    fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            let state = &mut *self.state.borrow_mut();
            if !state.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if !state.waiting.is_empty() {
                state.open_waiting(&mut Nowhere);
            } else {
                ready!(self.socket.poll_read_ready(cx))?;
                match state.receive(&self.socket, RECEIVE_BYTES_MIN, &mut Nowhere) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if let Some(error) = state.failed.clone() {
                // The peer is told why, if it still listens.
                let _ = state.flush(&self.socket);
                return Poll::Ready(Err(failure(error)));
            }
        }
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        // What rustls says of itself (the answer to a key update, an alert) leaves with whoever comes by.
        if state.tls.wants_write() {
            let _ = state.flush(&self.socket);
        }
        if state.is_readable() {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    /// Reads once into the room that there is. 0 is the peer's farewell.
    pub(super) fn try_receive(&self, room: &mut impl Room) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let before = room.left();
        state.take(room);
        if !state.waiting.is_empty() && room.left() == before {
            state.open_waiting(room);
        }
        if room.left() == before && !state.is_readable() {
            let most = before.clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX);
            state.receive(&self.socket, most, room)?;
            if state.tls.wants_write() {
                let _ = state.flush(&self.socket);
            }
        }
        match before - room.left() {
            0 => state.end(),
            bytes => Ok(bytes),
        }
    }

    /// Takes what rustls takes, seals it, and gives the socket what the socket takes of that.
    pub(super) fn try_send(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        if state.sending != Sending::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.flush(&self.socket)?;
        let taken = match (first.is_empty(), second.is_empty()) {
            (_, true) => state.tls.writer().write(first)?,
            (true, _) => state.tls.writer().write(second)?,
            _ => state.tls.writer().write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?,
        };
        match state.flush(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(taken),
        }
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.state.borrow_mut().flush(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.socket.poll_write_ready(cx))?;
        }
    }

    /// Says farewell and ends our direction, now or with the flush that gets rid of what is before it.
    pub(super) fn shutdown_write(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.sending == Sending::Open {
            state.tls.send_close_notify();
            state.sending = Sending::Ending;
        }
        // What the socket does not take now, a flush sends later; a failure means that the peer is gone.
        let _ = state.flush(&self.socket);
    }

    /// The peer is to see a reset and nothing that looks like an end.
    pub(super) fn cut(&self) {
        self.cut.set(true);
    }

    pub(super) fn alpn(&self) -> Option<Vec<u8>> {
        self.state.borrow().tls.alpn_protocol().map(<[u8]>::to_vec)
    }

    pub(super) fn server_name(&self) -> Option<Arc<str>> {
        match &self.state.borrow().tls {
            Connection::Server(server) => server.server_name().map(|name| name.to_ascii_lowercase().into()),
            Connection::Client(_) => None,
        }
    }

    pub(super) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.state.borrow().tls.peer_certificates()?.first().cloned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.sending == Sending::Open && !self.cut.get() && !state.tls.is_handshaking() {
            // Without it the peer could not tell the end from an attacker's cut. Only as far as the socket takes it at once.
            state.tls.send_close_notify();
            let _ = state.flush(&self.socket);
        }
    }
}

impl State {
    /// True when something can be said without the socket: plaintext, the end, or what is wrong.
    fn is_readable(&mut self) -> bool {
        self.failed.is_some()
            || !self.waiting.is_empty()
            || !matches!(self.tls.reader().fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Moves plaintext into the room that there is. True when there is more of it than room.
    fn take(&mut self, room: &mut impl Room) -> bool {
        let mut reader = self.tls.reader();
        while let Ok(plain) = reader.fill_buf()
            && !plain.is_empty()
        {
            let bytes = plain.len().min(room.left());
            if bytes == 0 {
                return true;
            }
            room.put(&plain[..bytes]);
            reader.consume(bytes);
        }
        false
    }

    /// What there is to say when there is no plaintext: the end (0), a cut, a fault, or nothing yet.
    fn end(&mut self) -> io::Result<usize> {
        if let Some(error) = self.failed.clone() {
            return Err(failure(error));
        }
        self.tls.reader().fill_buf().map(|_| 0)
    }

    /// Reads the socket once and opens what came. 0 is the end of the socket.
    fn receive(&mut self, socket: &TcpStream, most: usize, room: &mut impl Room) -> io::Result<usize> {
        RECEIVED.with_borrow_mut(|received| {
            let place = received.get_mut(..most).unwrap_or(&mut []);
            let bytes = socket::try_receive_into(socket, place)?;
            match received.get(..bytes) {
                Some(sealed) if bytes > 0 => self.open(sealed, room),
                // rustls takes an empty read for the end.
                _ => drop(self.tls.read_tls(&mut io::empty())),
            }
            Ok(bytes)
        })
    }

    fn open_waiting(&mut self, room: &mut impl Room) {
        let waiting = std::mem::take(&mut self.waiting);
        self.open(&waiting, room);
    }

    /// Opens records as long as there is room for what is in them; keeps the rest.
    fn open(&mut self, mut sealed: &[u8], room: &mut impl Room) {
        loop {
            if self.take(room) && !sealed.is_empty() {
                self.waiting.extend_from_slice(sealed);
                return;
            }
            if sealed.is_empty() || self.failed.is_some() {
                return;
            }
            match self.tls.read_tls(&mut sealed) {
                // After its farewell nothing that the peer sends means anything.
                Ok(0) => return,
                Ok(_) => self.failed = self.tls.process_new_packets().err(),
                Err(_) => self.failed = Some(rustls::InvalidMessage::MessageTooLarge.into()),
            }
        }
    }

    /// Gives the socket what is sealed, and ends our direction when that was asked for.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Wire(socket))?;
        }
        if self.sending == Sending::Ending {
            self.sending = Sending::Ended;
            // A failure means that the peer is gone, which reading finds out.
            let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
        }
        Ok(())
    }
}

fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Where plaintext goes.
pub(super) trait Room {
    /// Bytes that still fit.
    fn left(&self) -> usize;
    /// Takes bytes that fit.
    fn put(&mut self, bytes: &[u8]);
}

impl Room for Vec<u8> {
    fn left(&self) -> usize {
        self.capacity() - self.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Room for ReadBuf<'_> {
    fn left(&self) -> usize {
        self.remaining()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// During a handshake: plaintext stays where it is.
struct Nowhere;

impl Room for Nowhere {
    fn left(&self) -> usize {
        0
    }

    fn put(&mut self, _bytes: &[u8]) {}
}

/// The socket as rustls writes to it.
struct Wire<'a>(&'a TcpStream);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::try_send(self.0, bytes, &[])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        socket::try_send_slices(self.0, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
