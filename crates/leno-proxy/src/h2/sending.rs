//! A body that goes, the same at both ends.
//!
//! The last piece is kept until it is known whether it is the last one: the end of the stream then goes with it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::SendStream;
use leno_core::head::Fields;

use super::{PIECE_BYTES_MAX, Piece};
use crate::worker::Worker;

/// Something by which data can be sent, as long as the peer listens. Shared with whoever watches for the peer's leaving.
pub(super) trait Outlet {
    /// Does something with the stream; `None` when there is none.
    fn with<T>(&self, act: impl FnOnce(&mut SendStream<Piece>) -> T) -> Option<T>;
}

/// A stream that nobody else looks at.
#[derive(Debug, Default)]
pub(super) struct Own(pub(super) RefCell<Option<SendStream<Piece>>>);

impl Outlet for Own {
    fn with<T>(&self, act: impl FnOnce(&mut SendStream<Piece>) -> T) -> Option<T> {
        self.0.borrow_mut().as_mut().map(act)
    }
}

impl<T: Outlet> Outlet for Rc<T> {
    fn with<R>(&self, act: impl FnOnce(&mut SendStream<Piece>) -> R) -> Option<R> {
        (**self).with(act)
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub(super) struct Sending<O> {
    worker: Rc<Worker>,
    outlet: O,
    kept: Option<Piece>,
    /// Our half has ended.
    pub(super) ended: bool,
}

/// The peer takes no more, or the stream is gone.
pub(super) struct Closed;

impl<O: Outlet> Sending<O> {
    pub(super) const fn new(worker: Rc<Worker>, outlet: O) -> Self {
        Self { worker, outlet, kept: None, ended: false }
    }

    pub(super) const fn outlet(&self) -> &O {
        &self.outlet
    }

    /// Takes all of `payload`; waits while the peer's window or our buffer is full.
    pub(super) async fn write(&mut self, mut payload: &[u8]) -> Result<(), Closed> {
        self.flush()?;
        while !payload.is_empty() {
            let room = poll_fn(|cx| self.poll_room(cx, payload.len())).await?;
            let (now, later) = payload.split_at(room.min(PIECE_BYTES_MAX).min(payload.len()));
            let piece = Piece::copy(now, &self.worker.stock);
            if later.is_empty() {
                self.kept = Some(piece);
            } else {
                self.send(piece, false)?;
            }
            payload = later;
        }
        Ok(())
    }

    /// Hands over what is kept.
    pub(super) fn flush(&mut self) -> Result<(), Closed> {
        match self.kept.take() {
            Some(piece) => self.send(piece, false),
            None => Ok(()),
        }
    }

    /// Ends our half.
    pub(super) fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Closed> {
        if self.ended {
            return Ok(());
        }
        let trailers = self.worker.h2_heads.borrow_mut().trailers(trailers);
        match trailers {
            None => {
                let last = self.kept.take().unwrap_or(Piece::EMPTY);
                self.send(last, true)?;
            }
            Some(trailers) => {
                self.flush()?;
                let sent = self.outlet.with(|stream| stream.send_trailers(trailers));
                sent.ok_or(Closed)?.map_err(|_| Closed)?;
            }
        }
        self.ended = true;
        Ok(())
    }

    fn send(&self, piece: Piece, end: bool) -> Result<(), Closed> {
        self.outlet.with(|stream| stream.send_data(piece, end)).ok_or(Closed)?.map_err(|_| Closed)
    }

    /// How much of so many bytes can be sent now.
    fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Closed>> {
        let room = self.outlet.with(|stream| {
            stream.reserve_capacity(wanted.min(PIECE_BYTES_MAX));
            loop {
                let room = stream.capacity();
                if room > 0 {
                    return Poll::Ready(Ok(room));
                }
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(0)) => {}
                    Some(Ok(room)) => return Poll::Ready(Ok(room)),
                    Some(Err(_)) | None => return Poll::Ready(Err(Closed)),
                }
            }
        });
        room.unwrap_or(Poll::Ready(Err(Closed)))
    }
}
