//! A request's body as far as it was sent, kept so that it can be sent again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use leno_core::exchange::Tries;
use leno_core::http1::BodyFraming;
use leno_core::mux::Kind;

use crate::body::{Broken, Chunk, Moved, PumpError, Request, RequestSink, Source, pump};
use crate::telemetry::bump;
use crate::worker::Worker;

/// Bytes of bodies that one worker keeps for all of its requests together: 256 of the longest that are kept by default.
/// Beyond, bodies are sent once.
pub(crate) const KEPT_BYTES_MAX: usize = 16 << 20;

/// What was sent of one body.
pub(super) struct Kept {
    worker: Rc<Worker>,
    /// Shared while it is written once more.
    bytes: RefCell<Rc<Vec<u8>>>,
    /// The most that is kept of it.
    bytes_max: usize,
    /// Nothing is kept any more: some of it was not, or it will not be needed.
    over: Cell<bool>,
}

impl Kept {
    /// Room for the body of a request that may have to be sent again; `None` where there is none, or it would not fit.
    pub(super) fn of(worker: &Rc<Worker>, request: &Request, tries: &Tries) -> Option<Box<Self>> {
        let bytes_max = tries.body_bytes_max();
        let fits = match request.framing {
            BodyFraming::Length(bytes) => bytes > 0 && bytes <= bytes_max as u64,
            BodyFraming::Chunked | BodyFraming::UntilClose => bytes_max > 0,
            BodyFraming::None | BodyFraming::Tunnel => false,
        };
        if !fits || request.kind == Kind::Tcp || !request.upgrade.is_empty() {
            return None;
        }
        let (bytes, over) = (RefCell::default(), Cell::new(false));
        Some(Box::new(Self { worker: worker.clone(), bytes, bytes_max, over }))
    }

    /// Keeps all that there is of a body, before any of it is sent; false when that is not all of it. What was kept is sent
    /// first then, and the rest after it. Cancel-safe.
    pub(super) async fn fill(&self, source: &mut impl Source, waits: bool) -> Result<bool, Broken> {
        loop {
            match source.peek()? {
                Chunk::Data(payload) => {
                    if !self.has_room(payload.len()) || !self.keep(payload) {
                        return Ok(false);
                    }
                    source.consume();
                }
                Chunk::Empty if waits => source.wait().await?,
                Chunk::Empty => return Ok(false),
                // Trailers are not kept.
                Chunk::End => return Ok(source.trailers().is_empty()),
            }
        }
    }

    /// How much of it there is, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.borrow().len()
    }

    /// All of the body.
    pub(super) fn whole(&self) -> Rc<Vec<u8>> {
        self.bytes.borrow().clone()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let (own, all) = (self.bytes.borrow().len(), self.worker.kept_bytes.get());
        !self.over.get() && own + bytes <= self.bytes_max && all + bytes <= KEPT_BYTES_MAX
    }

    /// Keeps what was sent; false when there is no room, and from then on.
    fn keep(&self, payload: &[u8]) -> bool {
        if self.over.get() {
            return false;
        }
        let (kept, mut bytes) = (&self.worker.kept_bytes, self.bytes.borrow_mut());
        let fits = bytes.len() + payload.len() <= self.bytes_max;
        if fits && kept.get() + payload.len() <= KEPT_BYTES_MAX {
            kept.set(kept.get() + payload.len());
            Rc::make_mut(&mut bytes).extend_from_slice(payload);
            return true;
        }
        drop(bytes);
        if fits {
            bump(&mut self.worker.telemetry().limits, "kept_bodies");
        }
        self.release();
        false
    }

    /// Forgets all of it: the request will not be sent again.
    pub(super) fn release(&self) {
        self.over.set(true);
        let bytes = self.bytes.take();
        let kept = &self.worker.kept_bytes;
        kept.set(kept.get().saturating_sub(bytes.len()));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}

/// Moves a body as [`pump`] does, after what was sent of it before, and keeps what it moves. A body that cannot be kept
/// any more is moved on as one that was never kept.
pub(super) async fn pump_kept(
    source: &mut impl Source,
    sink: &mut impl RequestSink,
    moved: &Moved,
    kept: &Kept,
) -> Result<(), PumpError> {
    let before = kept.bytes.borrow().clone();
    if !before.is_empty() {
        if let Some(copy) = &moved.copy {
            copy.take(&before);
        }
        sink.write(&before).await.map_err(|_| PumpError::Sink)?;
        moved.bytes.set(moved.bytes.get() + before.len() as u64);
        moved.lately.set(true);
    }
    drop(before);
    while !kept.over.get() {
        match source.peek().map_err(PumpError::Source)? {
            Chunk::Data(payload) => {
                let bytes = payload.len() as u64;
                // What is given up while it is written has not been taken: the next attempt is shown it again.
                sink.write(payload).await.map_err(|_| PumpError::Sink)?;
                if let Some(copy) = &moved.copy {
                    copy.take(payload);
                }
                if !kept.keep(payload) {
                    moved.taken.set(true);
                }
                source.consume();
                moved.bytes.set(moved.bytes.get() + bytes);
                moved.lately.set(true);
            }
            Chunk::Empty => {
                sink.flush().await.map_err(|_| PumpError::Sink)?;
                source.wait().await.map_err(PumpError::Source)?;
            }
            Chunk::End => {
                if let Some(copy) = &moved.copy {
                    copy.end();
                }
                return sink.finish(source.trailers()).await.map_err(|_| PumpError::Sink);
            }
        }
    }
    pump(source, sink, moved).await
}
