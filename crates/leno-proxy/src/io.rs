//! A connection's bytes, plain or through TLS: what every protocol reads from and writes to.
//!
//! Reading and writing never wait; `poll_read_ready` and `poll_write_ready` do. As with a socket, one task at a time may
//! wait for each of the two. A plain stream is the socket and nothing else: what TLS adds costs it one comparison.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::socket;

#[cfg(test)]
mod tests;
mod tls;

pub(crate) use tls::Session;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// The socket itself.
    Plain(TcpStream),
    /// A TLS session over one.
    Tls(Box<Session>),
}

impl Stream {
    /// Shakes hands as a server. `first` is what was already read from the socket. The caller bounds the wait.
    pub(crate) async fn server(
        socket: TcpStream,
        first: Vec<u8>,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        Ok(Self::Tls(Session::server(socket, first, config).await?))
    }

    /// Shakes hands as a client. The caller bounds the wait.
    pub(crate) async fn client(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        Ok(Self::Tls(Session::client(socket, config, name).await?))
    }

    /// The socket below.
    pub(crate) const fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(session) => session.socket(),
        }
    }

    /// Waits until [`Stream::try_receive`] may have something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Tls(session) => session.poll_read_ready(cx),
        }
    }

    /// Reads once into the spare room of `buffer`, of which there must be some. 0 is the end of the stream; the end of a
    /// TLS connection without its farewell is the error [`io::ErrorKind::UnexpectedEof`].
    pub(crate) fn try_receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket::try_receive(socket, buffer),
            Self::Tls(session) => session.try_receive(buffer),
        }
    }

    /// Waits until [`Stream::try_send`] may take something.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(cx)
    }

    /// Takes what it can of `first` and then of `second`; how many bytes. At least one of them is not empty.
    ///
    /// What a TLS session took may still be on its way to the socket, at most 64 KiB of it: whoever stops sending for a
    /// while ends with [`Stream::poll_flush`].
    pub(crate) fn try_send(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket::try_send(socket, first, second),
            Self::Tls(session) => session.try_send(first, second),
        }
    }

    /// Waits until the socket has everything that was taken. A plain stream never keeps anything.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => session.poll_flush(cx),
        }
    }

    /// Ends the sending direction. A failure means that the peer is gone, which reading finds out.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Self::Plain(socket) => drop(SockRef::from(socket).shutdown(Shutdown::Write)),
            Self::Tls(session) => session.shutdown_write(),
        }
    }

    /// Makes whoever reads see the end of the stream, as if the peer had closed it.
    pub(crate) fn shutdown_read(&self) {
        // A failure means that it is closed already.
        let _ = SockRef::from(self.socket()).shutdown(Shutdown::Read);
    }

    /// Lets the kernel ask now and then whether the other end still lives, after so much silence.
    pub(crate) fn probe_after(&self, silence: Duration) {
        let probes = socket2::TcpKeepalive::new().with_time(silence);
        // A failure means that the socket is already gone.
        let _ = SockRef::from(self.socket()).set_tcp_keepalive(&probes);
    }

    /// Waits until the connection has failed, whatever is still to be read: the peer has reset it, or is dead.
    pub(crate) async fn failed(&self) {
        // An error means that the reactor is gone, and with it everything.
        let _ = self.socket().ready(Interest::ERROR).await;
    }

    /// Makes the peer see a reset instead of an orderly end when the stream is dropped.
    pub(crate) fn reset_on_close(&self) {
        // A failure means that the socket is already gone.
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
        if let Self::Tls(session) = self {
            session.cut();
        }
    }

    /// The TLS session, if it is one.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(session) => Some(session),
        }
    }

    /// The protocol that both ends agreed on by ALPN.
    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        self.session().and_then(Session::alpn)
    }

    /// The name that the client asked for (SNI), in lower case.
    pub(crate) fn server_name(&self) -> Option<Arc<str>> {
        self.session().and_then(Session::server_name)
    }

    /// The certificate that the peer has proved to be its own.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.session().and_then(Session::peer_certificate)
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}
