//! As much of HTTP/2 as a load generator and its upstream need: frames on a socket, and header compression. By hand,
//! because what the generator costs the proxy under test cannot get.

mod hpack;
mod huffman;
mod wire;

pub(crate) use self::hpack::Fields;
pub(crate) use self::wire::{END_HEADERS, END_STREAM, Progress, Sending, Side, Wire};

/// Kinds of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
