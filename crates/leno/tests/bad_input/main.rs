//! Bad input on connections in general, against the real binary on loopback: clients and applications that leave or break off
//! at every stage of an exchange, TLS that is cut, split or false, and crowds of slow connections. After each of them the proxy
//! serves as before, and holds nothing that it did not hold.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod applications;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod crowds;
mod mesh_port;
mod unknown;
mod way;

use std::net::TcpStream;
use std::time::Duration;

/// For anything that should happen at once: far above what it takes, because a machine that builds something beside is slow.
const SOON: Duration = Duration::from_secs(10);

/// How a connection is left.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// "I have said all", and the other half stays open to read.
    Half,
    /// FIN, and nobody reads any more.
    Close,
    /// RST.
    Reset,
}

impl Leave {
    const ALL: [Self; 3] = [Self::Half, Self::Close, Self::Reset];

    /// Leaves; the half that is still open, if one is.
    fn from(self, stream: TcpStream) -> Option<TcpStream> {
        match self {
            Self::Half => {
                stream.shutdown(std::net::Shutdown::Write).ok();
                Some(stream)
            }
            Self::Close => None,
            Self::Reset => {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                None
            }
        }
    }
}
