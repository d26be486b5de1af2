//! A body that comes, the same at both ends.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use leno_core::head::{Field, Fields};
use leno_core::http1::Limits;

use super::head::read_fields;
use crate::body::Chunk;

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) struct Receiving {
    stream: RecvStream,
    /// What was shown last and not taken; empty: nothing.
    shown: Bytes,
    /// Everything has come, trailers included.
    ended: bool,
    trailers: Vec<Field>,
    trailer_bytes: Vec<u8>,
}

impl Receiving {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self { stream, shown: Bytes::new(), ended: false, trailers: Vec::new(), trailer_bytes: Vec::new() }
    }

    /// What is there.
    pub(super) fn peek(&mut self) -> Result<Chunk<'_>, h2::Error> {
        // Whoever is told that there is nothing waits before anything else, and says then whom to wake.
        if let Poll::Ready(result) = self.poll(&mut Context::from_waker(Waker::noop())) {
            result?;
            return Ok(if self.shown.is_empty() { Chunk::End } else { Chunk::Data(&self.shown) });
        }
        Ok(Chunk::Empty)
    }

    /// Takes what was shown: the peer may send as much again.
    pub(super) fn consume(&mut self) {
        let bytes = std::mem::take(&mut self.shown).len();
        // An error means more than came, which it is not.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    /// Ready when there is something to show, or nothing will ever come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if !self.shown.is_empty() || self.ended {
                return Poll::Ready(Ok(()));
            }
            if self.stream.is_end_stream() {
                self.ended = true;
                continue;
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => self.shown = data?,
                None => {
                    if let Some(trailers) = ready!(self.stream.poll_trailers(cx))? {
                        // Those that may not be there are left out where they go on; these may be nowhere.
                        let limits = Limits {
                            head_bytes_max: Limits::default().trailer_bytes_max,
                            ..Limits::default()
                        };
                        let (bytes, fields) = (&mut self.trailer_bytes, &mut self.trailers);
                        if read_fields(&trailers, &limits, bytes, fields).is_err() {
                            return Poll::Ready(Err(h2::Reason::PROTOCOL_ERROR.into()));
                        }
                    }
                    self.ended = true;
                }
            }
        }
    }

    pub(super) fn trailers(&self) -> Fields<'_> {
        Fields::new(&self.trailer_bytes, &self.trailers)
    }
}
