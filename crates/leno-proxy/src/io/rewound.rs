//! A stream as libraries want it: `AsyncRead` and `AsyncWrite` for one task.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use super::tls::Room as _;
use crate::socket;

/// A stream for one task that reads and writes it, beginning with what was read before.
#[derive(Debug)]
pub(crate) struct Rewound {
    stream: Rc<Stream>,
    /// Bytes that were read before, from `start` on; without memory once they are taken.
    first: Vec<u8>,
    start: usize,
}

impl Rewound {
    /// `stream` as if `first` had not been read yet.
    pub(crate) const fn new(stream: Rc<Stream>, first: Vec<u8>) -> Self {
        Self { stream, first, start: 0 }
    }

    fn take_first(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = self.first.get(self.start..).unwrap_or(&[]);
        let bytes = left.len().min(buffer.left());
        if left.is_empty() {
            return false;
        }
        buffer.put(&left[..bytes]);
        self.start += bytes;
        if self.start == self.first.len() {
            self.first = Vec::new();
            self.start = 0;
        }
        true
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 || self.take_first(buffer) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let read = match &*self.stream {
                Stream::Plain(stream) => socket::try_receive_buf(stream, buffer),
                Stream::Tls(session) => session.try_receive(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, &[])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The first two that are not empty: who writes frames has a head and a body.
        let mut slices = slices.iter().filter(|slice| !slice.is_empty()).map(|slice| &**slice);
        let (first, second) = (slices.next().unwrap_or(&[]), slices.next().unwrap_or(&[]));
        self.poll_send(cx, first, second)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.shutdown_write();
        self.stream.poll_flush(cx)
    }
}

impl Rewound {
    fn poll_send(&self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        if first.is_empty() && second.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match self.stream.try_send(first, second) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.stream.poll_write_ready(cx))?;
        }
    }
}
