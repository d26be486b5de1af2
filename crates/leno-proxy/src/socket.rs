//! Reading and writing a TCP socket without waiting, with as few system calls as it takes.

use std::io::{self, IoSlice};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads once into the spare room of `buffer`, of which there must be some. 0 is the end of the stream.
///
/// A read that leaves room has emptied the socket. The poller is edge-triggered and tells when more has come, the end
/// included, so the stream counts as unreadable from then on: asking again would be one system call for nothing. (Urgent data,
/// which HTTP does not know, also ends a read early: what follows it is read when more comes.)
pub(crate) fn try_receive(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    let mut received = None;
    let drained = stream.try_io(Interest::READABLE, || {
        let (_, bytes) = retry_on_intr(|| recv(stream, spare_capacity(buffer), RecvFlags::empty()))?;
        received = Some(bytes);
        if bytes > 0 && bytes < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes) }
    });
    received.map_or(drained, Ok)
}

/// Writes what the socket takes of `first` and then of `second`; how many bytes. At least one of them is not empty.
pub(crate) fn try_send(stream: &TcpStream, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let sent = stream.try_io(Interest::WRITABLE, || {
        let sent = retry_on_intr(|| match (first.is_empty(), second.is_empty()) {
            (_, true) => send(stream, first, SendFlags::NOSIGNAL),
            (true, _) => send(stream, second, SendFlags::NOSIGNAL),
            _ => rustix::io::writev(stream, &[IoSlice::new(first), IoSlice::new(second)]),
        });
        sent.map_err(|error: Errno| error.into())
    })?;
    if sent == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) }
}

/// Reads once into `place`, as [`try_receive`] does.
pub(crate) fn try_receive_into(stream: &TcpStream, place: &mut [u8]) -> io::Result<usize> {
    let room = place.len();
    let mut received = None;
    let drained = stream.try_io(Interest::READABLE, || {
        let (bytes, _) = retry_on_intr(|| recv(stream, &mut *place, RecvFlags::empty()))?;
        received = Some(bytes.min(room));
        if bytes > 0 && bytes < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes) }
    });
    received.map_or(drained, Ok)
}

/// Writes what the socket takes of several slices, of which at least one is not empty.
pub(crate) fn try_send_slices(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let sent = stream.try_io(Interest::WRITABLE, || {
        retry_on_intr(|| rustix::io::writev(stream, slices)).map_err(Into::into)
    })?;
    if sent == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) }
}
