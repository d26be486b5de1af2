//! HTTP/2 on connections: the `h2` crate's machine between a connection and the driver's sources and sinks.
//!
//! The crate speaks the protocol (frames, header compression, flow control, stream states); this module decides what is
//! allowed, converts heads in one pass each way, has streams served by tasks that are used again, and pools
//! connections to servers. Nothing outside of it names a type of the crate, so that a machine of our own can take its
//! place: `wire` is what it would read from and write to, `stream` and `call` are what the driver would see of it.
//!
//! Streams hand what they have to say to the crate; the connection's task is woken once and runs after everything that was ready
//! in this turn of the worker, so all frames of a turn leave in one write.

use bytes::Buf;
use leno_core::exchange::AppSaw;
use leno_core::reason::Reason;
use leno_core::time::Duration;

use crate::body::Broken;
use crate::buffer::{BUFFER_BYTES, Stock};

mod call;
pub(crate) mod client;
mod desk;
mod head;
pub(crate) mod probe;
mod receiving;
mod request;
mod sending;
pub(crate) mod server;
mod stream;
mod websocket;
mod wire;

pub(crate) use call::Call;
pub(crate) use desk::Desks;
pub(crate) use head::{Heads, push_field};

/// Streams that a client may have open at a time on one connection: as many as on a connection of the mesh transport
/// (nginx 128, Envoy recommends 100, RFC 9113 §6.5.2 no fewer than 100).
const STREAMS_MAX: u32 = 256;
/// Bytes of one stream's body that may come before they have gone on: as on the mesh transport. Enough for 2 Gbit/s over 1 ms.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection together: a whole window for each, so that no stream that is slow holds up another.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// The same for a connection from outside, of which there may be many that mean no good: 64 streams that are stuck hold up the
/// others of their own connection.
const OUTSIDE_CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of one stream that wait until the connection and the peer's window take them.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// A decoded head with 32 bytes for each field (RFC 9113 §6.5.2): what HTTP/1's head may have.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Streams that were cut off before we have looked at them. The crate's default is 20, which a caller that gives up on all its
/// calls at once may reach; the guard counts those that come one after the other.
const RESETS_UNSEEN_MAX: usize = 128;
/// Streams that we ended and whose late frames are still expected, and for how long.
const RESETS_REMEMBERED_MAX: usize = 256;
const RESETS_REMEMBERED: std::time::Duration = std::time::Duration::from_secs(1);
/// Streams of one connection that we may end because the peer broke a rule on them, before it is the connection that ends.
const BROKEN_STREAMS_MAX: usize = 1024;

/// Silence of a peer with streams open before it is asked whether it lives, and how long it may take to answer. An
/// application's streams may be silent for days, its machine may not.
const PING_AFTER: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest payload that stands in the crate's queue without memory of its own: most messages of gRPC.
const SMALL_BYTES_MAX: usize = 118;

/// A piece of a body on its way to the crate.
#[derive(Debug)]
pub(crate) enum Piece {
    /// In its place.
    Small { bytes: [u8; SMALL_BYTES_MAX], start: u8, end: u8 },
    /// In one of the worker's buffers, which goes back there.
    Large { bytes: Vec<u8>, start: usize, stock: Stock },
}

/// The longest piece, in bytes.
const PIECE_BYTES_MAX: usize = BUFFER_BYTES;

impl Piece {
    /// Nothing.
    const EMPTY: Self = Self::Small { bytes: [0; SMALL_BYTES_MAX], start: 0, end: 0 };

    /// A copy of `payload`, which is no longer than [`PIECE_BYTES_MAX`].
    fn copy(payload: &[u8], stock: &Stock) -> Self {
        let mut small = [0; SMALL_BYTES_MAX];
        if let Some(room) = small.get_mut(..payload.len()) {
            room.copy_from_slice(payload);
            return Self::Small { bytes: small, start: 0, end: payload.len() as u8 };
        }
        let mut bytes = stock.take();
        bytes.extend_from_slice(payload);
        Self::Large { bytes, start: 0, stock: stock.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Small { bytes, start, end } => {
                bytes.get(usize::from(*start)..usize::from(*end)).unwrap_or(&[])
            }
            Self::Large { bytes, start, .. } => bytes.get(*start..).unwrap_or(&[]),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Small { start, end, .. } => {
                *start = usize::from(*start).saturating_add(count).min(usize::from(*end)) as u8;
            }
            Self::Large { bytes, start, .. } => *start = start.saturating_add(count).min(bytes.len()),
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Self::Large { bytes, stock, .. } = self {
            stock.give(std::mem::take(bytes));
        }
    }
}

/// What it means for an exchange that its stream to a client failed.
fn broken_below(error: &::h2::Error) -> Broken {
    // What the crate itself ended broke a rule: a body of another length than was said, or trailers that are none.
    let reason = if error.is_library() && error.is_reset() {
        Reason::RequestMalformed
    } else {
        Reason::DownstreamGone
    };
    Broken { app_saw: AppSaw::Maybe, reason }
}

/// What it means for an exchange that its stream to a server failed. `unseen`: provably before the server saw it.
fn broken_above(error: &::h2::Error, unseen: bool) -> Broken {
    let refused =
        error.is_remote() && error.is_reset() && error.reason() == Some(::h2::Reason::REFUSED_STREAM);
    let app_saw = if unseen || refused { AppSaw::Nothing } else { AppSaw::Maybe };
    let reason = if error.is_library() {
        Reason::UpstreamMalformed
    } else if refused {
        Reason::Overload
    } else {
        Reason::UpstreamClosed
    };
    Broken { app_saw, reason }
}

/// How a client is told that its answer is cut.
const fn code_of(reason: Reason) -> ::h2::Reason {
    match reason {
        Reason::DownstreamGone
        | Reason::RequestTimeout
        | Reason::TryTimeout
        | Reason::OutOfTime
        | Reason::IdleTimeout => ::h2::Reason::CANCEL,
        Reason::RequestMalformed => ::h2::Reason::PROTOCOL_ERROR,
        _ => ::h2::Reason::INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::{PIECE_BYTES_MAX, Piece, SMALL_BYTES_MAX};
    use crate::buffer::Stock;

    #[test]
    fn a_piece_is_read_in_any_steps() {
        let stock = Stock::default();
        for length in [0, 1, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, PIECE_BYTES_MAX] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut piece = Piece::copy(&payload, &stock);
            let mut read = Vec::new();
            while piece.has_remaining() {
                let step = piece.chunk().len().min(7);
                read.extend_from_slice(&piece.chunk()[..step]);
                piece.advance(step);
            }
            assert_eq!(read, payload);
            piece.advance(1);
            assert_eq!(piece.remaining(), 0);
        }
    }
}
