//! What [`Mux::receive`](super::Mux::receive) tells the shell.

use core::time::Duration;

use super::AppSaw;
use super::codec::Meta;
use super::error::{Code, StreamError};
use super::stream::StreamId;

/// Something that happened. Slices point into the bytes given to
/// [`Mux::receive`](super::Mux::receive); indexes are those of the [`HeadIndex`](super::HeadIndex) given to it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new stream. [`HeadIndex::request`](super::HeadIndex::request) is its head, over `payload`.
    Request {
        /// The stream.
        stream: StreamId,
        /// What the other Leno says about it.
        meta: Meta<'a>,
        /// The buffer of the index's spans.
        payload: &'a [u8],
        /// The request has no body.
        end: bool,
    },
    /// A response head, interim (1xx but 101) or final. [`HeadIndex::response`](super::HeadIndex::response) is it, over `payload`.
    Response {
        /// The stream.
        stream: StreamId,
        /// What the other Leno says about it.
        meta: Meta<'a>,
        /// The buffer of the index's spans.
        payload: &'a [u8],
        /// The response has no body.
        end: bool,
    },
    /// Body bytes: a piece of a frame, whatever has arrived of it. Every one must be given back with
    /// [`Mux::release`](super::Mux::release), or the peer runs out of credit.
    Data {
        /// The stream.
        stream: StreamId,
        /// At least one byte.
        data: &'a [u8],
        /// The peer's half ended with these bytes.
        end: bool,
    },
    /// Trailer fields, with which the peer's half ended. [`HeadIndex::trailers`](super::HeadIndex::trailers) are they, over `payload`.
    Trailers {
        /// The stream.
        stream: StreamId,
        /// The buffer of the index's spans.
        payload: &'a [u8],
    },
    /// The peer's half ended.
    End {
        /// The stream.
        stream: StreamId,
    },
    /// The peer gave the stream up, or a drain refused it. The stream is over; what the shell holds of it counts
    /// as released.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: Code,
        /// Whether the application can have seen the request. From a dialer it says nothing.
        app_saw: AppSaw,
    },
    /// The peer broke a rule on this stream and was told so with a RESET. The stream is over.
    Broken {
        /// The stream.
        stream: StreamId,
        /// What the peer did.
        error: StreamError,
    },
    /// The peer opened a stream with a head that cannot be, and was told so with a RESET. There is no stream.
    BadRequest {
        /// The number it would have had.
        number: u32,
        /// What is wrong.
        error: StreamError,
    },
    /// The peer drains: open no more streams here, those that are open go on.
    Draining,
    /// A PING came back.
    Pong {
        /// After this time.
        round_trip: Duration,
    },
}
