//! A connection, whatever is around its bytes. Both halves of a connection share it, so that everything works on a
//! shared reference: reading and writing are tried first and waited for only when the socket would block.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::socket;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
}

impl Stream {
    /// The socket below.
    pub(crate) const fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
        }
    }

    /// Waits until [`Self::try_receive`] may have something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads once into the spare room of `buffer`, of which there must be some. 0 is the end of the stream.
    pub(crate) fn try_receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => socket::try_receive(stream, buffer),
        }
    }

    /// Writes what the connection takes of `first` and then of `second`; how many bytes. At least one of them is not empty.
    pub(crate) fn try_send(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => socket::try_send(stream, first, second),
        }
    }

    /// Waits until [`Self::try_send`] may take something.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Ends our direction; the other one goes on.
    pub(crate) fn shutdown_write(&self) {
        // A failure means that the peer is gone, which the other direction finds out.
        let _ = SockRef::from(self.socket()).shutdown(Shutdown::Write);
    }

    /// Makes whoever reads see the end of the stream, as if the peer had closed it.
    pub(crate) fn shutdown_read(&self) {
        // A failure means that it is closed already.
        let _ = SockRef::from(self.socket()).shutdown(Shutdown::Read);
    }

    /// Makes the peer see a reset instead of an orderly end when the stream is dropped.
    pub(crate) fn reset_on_close(&self) {
        // A failure means that the socket is already gone.
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Lets the kernel ask now and then whether the other end still lives, after so much silence.
    pub(crate) fn probe_after(&self, silence: Duration) {
        let probes = socket2::TcpKeepalive::new().with_time(silence);
        // A failure means that the socket is already gone.
        let _ = SockRef::from(self.socket()).set_tcp_keepalive(&probes);
    }
}

/// The same for libraries that want to read and write by tokio's traits; bytes that were read already come first.
#[derive(Debug)]
pub(crate) struct Rewound {
    stream: Rc<Stream>,
    /// Bytes that were read before, from `start` on.
    first: Vec<u8>,
    start: usize,
    /// What was read for somebody whose buffer has no room that a `Vec` could be.
    scratch: Vec<u8>,
}

impl Rewound {
    /// `stream` as if `first` had not been read yet.
    pub(crate) const fn new(stream: Rc<Stream>, first: Vec<u8>) -> Self {
        Self { stream, first, start: 0, scratch: Vec::new() }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.first.get(this.start..).unwrap_or(&[]);
        if !rest.is_empty() {
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..taken).unwrap_or(&[]));
            this.start += taken;
            if this.start == this.first.len() {
                (this.first, this.start) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        if let Stream::Plain(_) = &*this.stream {
            // The library's own buffer is read into, without a copy.
            return this.poll_plain(cx, buffer);
        }
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            this.scratch.clear();
            this.scratch.reserve(buffer.remaining().min(READ_BYTES_MAX));
            match this.stream.try_receive(&mut this.scratch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) => {
                    let taken = this.scratch.len().min(buffer.remaining());
                    buffer.put_slice(this.scratch.get(..taken).unwrap_or(&[]));
                    // Room may be more than was asked for; what does not fit comes first next time.
                    this.first.extend_from_slice(this.scratch.get(taken..).unwrap_or(&[]));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Rewound {
    fn poll_plain(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.stream.socket();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(bytes) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match self.stream.try_send(bytes, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

/// Bytes read at a time where they have to be copied.
const READ_BYTES_MAX: usize = 16 * 1024;
