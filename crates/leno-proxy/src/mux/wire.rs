//! A connection's TLS records on its socket: sealed from the machine's output into a buffer that the socket is given,
//! received many at a time into another one and opened there.
//!
//! A connection holds neither between two turns, but for what the socket did not take and a record that has come in part.

use std::cell::RefCell;
use std::io;
use std::mem::take;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use leno_core::mux::Mux;
use leno_identity::session::{Established, Opened, RECORD_OVERHEAD, RECORD_PLAIN_MAX, Records};
use rustls::AlertDescription;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::socket;

/// Records that are sealed before the socket is given them.
const SEALED_RECORDS: usize = 8;
/// A buffer of sealed records, in bytes.
const SEALED_BYTES: usize = SEALED_RECORDS * (RECORD_PLAIN_MAX + RECORD_OVERHEAD);
/// Bytes that are received at a time. Each read tells the sender that there is room and wakes it, so few large ones cost less
/// than many small ones; more than this leaves the processor's second-level cache.
const RECEIVED_BYTES: usize = 256 * 1024;
/// Buffers of sealed records that a worker keeps. One is in use at a time, besides those of connections whose peers are slow.
const SPARE_MAX: usize = 4;

/// A worker's buffers for all its connections to peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    received: RefCell<Vec<u8>>,
    sealed: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take_sealed(&self) -> Vec<u8> {
        self.0.sealed.borrow_mut().pop().unwrap_or_else(|| vec![0; SEALED_BYTES])
    }

    fn give_sealed(&self, buffer: Vec<u8>) {
        let mut spare = self.0.sealed.borrow_mut();
        if spare.len() < SPARE_MAX && buffer.len() == SEALED_BYTES {
            spare.push(buffer);
        }
    }
}

/// The session of one connection on its socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    records: Records,
    buffers: Buffers,
    /// Sealed bytes that the socket has not taken lie between `sent` and `sealed` of it; empty when there are none.
    unsent: Vec<u8>,
    sent: usize,
    sealed: usize,
    /// The beginning of a record that has not come whole.
    partial: Vec<u8>,
    /// What the peer said in the same breath as the end of its handshake, until it is looked at.
    early: Option<Vec<u8>>,
    /// Our direction has ended.
    ended: bool,
}

/// What a read came to.
#[derive(Debug)]
pub(super) enum Received {
    /// There may be more.
    Some,
    /// The peer has said farewell.
    End,
}

impl Wire {
    /// A session that was just established.
    pub(super) fn new(socket: TcpStream, established: Established, buffers: Buffers) -> Self {
        let Established { records, early, sealed: partial } = established;
        Self {
            socket,
            records,
            buffers,
            unsent: Vec::new(),
            sent: 0,
            sealed: 0,
            partial,
            early: Some(early),
            ended: false,
        }
    }

    /// Sends all that `machine` has to say.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, machine: &RefCell<Mux>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            let mut machine = machine.borrow_mut();
            let output = machine.output();
            if output.is_empty() && !self.records.has_news() {
                return Poll::Ready(Ok(()));
            }
            self.unsent = self.buffers.take_sealed();
            let (taken, sealed) = self.records.seal(output, &mut self.unsent).map_err(failure)?;
            machine.output_sent(taken);
            self.sealed = sealed;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.unsent.get(self.sent..self.sealed).filter(|rest| !rest.is_empty()) {
            match socket::try_send(&self.socket, rest, &[]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.buffers.give_sealed(take(&mut self.unsent));
        (self.sent, self.sealed) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Reads the socket once and hands the content of each record to `accept`, in order. An end without a farewell is the
    /// error [`io::ErrorKind::UnexpectedEof`].
    pub(super) fn poll_receive<E>(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<io::Result<Result<Received, E>>> {
        let buffers = self.buffers.clone();
        let buffer = &mut *buffers.0.received.borrow_mut();
        if buffer.is_empty() {
            buffer.resize(RECEIVED_BYTES, 0);
        }
        let mut filled = self.partial.len();
        let early = self.early.take();
        if early.is_none() {
            filled += ready!(self.poll_read(cx, buffer.get_mut(filled..).unwrap_or(&mut [])))?;
        } else if let Some(early) = early.filter(|early| !early.is_empty())
            && let Err(error) = accept(&early)
        {
            // What has come with the handshake was more than its last words.
            return Poll::Ready(Ok(Err(error)));
        }
        if let Some(place) = buffer.get_mut(..self.partial.len()) {
            place.copy_from_slice(&self.partial);
        }
        self.partial.clear();
        let mut sealed = buffer.get_mut(..filled).unwrap_or(&mut []);
        loop {
            match self.records.open(sealed) {
                Ok(Opened::Record(bytes, content)) => {
                    if !content.is_empty()
                        && let Err(error) = accept(content)
                    {
                        return Poll::Ready(Ok(Err(error)));
                    }
                    sealed = sealed.get_mut(bytes..).unwrap_or(&mut []);
                }
                Ok(Opened::Incomplete) => {
                    self.partial.extend_from_slice(sealed);
                    return Poll::Ready(Ok(Ok(Received::Some)));
                }
                Ok(Opened::End) => return Poll::Ready(Ok(Ok(Received::End))),
                Err(error) => {
                    self.complain(&error);
                    return Poll::Ready(Err(failure(error)));
                }
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, place: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match socket::try_receive_into(&self.socket, place) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Tells the peer that its records are not what they should be, if the socket takes it at once.
    #[cold]
    fn complain(&mut self, error: &rustls::Error) {
        let alert = match error {
            rustls::Error::AlertReceived(_) => return,
            rustls::Error::DecryptError => AlertDescription::BadRecordMac,
            _ => AlertDescription::UnexpectedMessage,
        };
        let mut record = [0; 64];
        if self.unsent.is_empty()
            && let Ok(bytes) = self.records.seal_alert(alert, &mut record)
        {
            // A failure means that the peer is gone.
            let _ = socket::try_send(&self.socket, record.get(..bytes).unwrap_or(&[]), &[]);
        }
        self.ended = true;
    }

    /// Says farewell and ends our direction, when everything before it is sent.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !self.ended {
            self.ended = true;
            self.unsent = self.buffers.take_sealed();
            self.sealed = self.records.seal_end(&mut self.unsent).map_err(failure)?;
            ready!(self.poll_flush(cx))?;
        }
        // A failure means that the peer is gone.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// As [`leno_identity::reason::explain_io`] expects it.
pub(super) fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
