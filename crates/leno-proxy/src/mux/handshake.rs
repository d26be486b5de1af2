//! A handshake with a peer on a socket: rustls says what to send and when it is over.

use std::io;

use leno_identity::session::{Handshake, Progress};
use tokio::net::TcpStream;

use super::wire::failure;
use crate::socket;

/// Bytes of a peer that are read at a time: its certificates and their proof have some KiB.
const READ_BYTES: usize = 8 * 1024;

/// Goes on with a handshake, of which the peer's `first` bytes have come, to its end. The caller bounds the wait.
pub(super) async fn shake(socket: &TcpStream, handshake: &mut Handshake, first: Vec<u8>) -> io::Result<()> {
    let mut received = first;
    loop {
        let progress = handshake.receive(&received);
        // After a failure, too: the peer is told why, if it still listens.
        let sent = send_all(socket, handshake.output()).await;
        if progress.map_err(failure)? == Progress::Done {
            return sent;
        }
        sent?;
        received.clear();
        received.reserve(READ_BYTES);
        if receive(socket, &mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads once into the room that `buffer` has. 0 is the end.
pub(super) async fn receive(socket: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket::try_receive(socket, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

async fn send_all(socket: &TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = &output[..];
    while !rest.is_empty() {
        match socket::try_send(socket, rest, &[]) {
            Ok(bytes) => rest = rest.get(bytes..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    output.clear();
    Ok(())
}
