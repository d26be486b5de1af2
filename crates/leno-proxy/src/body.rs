//! What the driver needs of the two ends of a request, whatever protocol each speaks: a source of bytes and a sink
//! of bytes in each direction, with backpressure, and heads in front of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::grpc::Status;
use leno_core::head::{Fields, RequestHead, RequestIndex, ResponseHead};
use leno_core::http1::BodyFraming;
use leno_core::mux::Kind;
use leno_core::reason::Reason;
use leno_core::time::Duration;

use crate::io::Stream;
use crate::splice::{Carried, Passage, carry};

/// What a source has at this moment.
#[derive(Debug)]
pub(crate) enum Chunk<'a> {
    /// Payload; taken by [`Source::consume`].
    Data(&'a [u8]),
    /// Nothing yet.
    Empty,
    /// The body is complete.
    End,
}

/// Why a source or sink cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Whether the application behind it may have seen any of the request; only a mesh peer can prove that it did not.
    pub(crate) app_saw: AppSaw,
    /// What happened.
    pub(crate) reason: Reason,
}

impl Broken {
    /// Closed or reset by the other end, with no more knowledge.
    pub(crate) const CLOSED: Self = Self { app_saw: AppSaw::Maybe, reason: Reason::UpstreamClosed };
}

/// Where a body comes from.
pub(crate) trait Source {
    /// What is there without waiting. The same chunk again until it is consumed.
    fn peek(&mut self) -> Result<Chunk<'_>, Broken>;

    /// Takes the chunk that [`Source::peek`] showed.
    fn consume(&mut self);

    /// Waits until there may be more to peek at. Cancel-safe.
    async fn wait(&mut self) -> Result<(), Broken>;

    /// The trailer fields, after [`Chunk::End`].
    fn trailers(&self) -> Fields<'_>;

    /// Bytes come as they are from here on: the connection was handed over to another protocol.
    fn begin_tunnel(&mut self) {}

    /// The plain socket that holds all that is still to come, when bulk comes from it: then the kernel can move it.
    fn passage(&self) -> Option<Passage> {
        None
    }

    /// How a passage ended.
    fn passed(&mut self, _: Carried) {}

    /// Waits until the other end has given up on this message, after its body has ended. Cancel-safe; may wait for ever.
    async fn gone(&mut self);

    /// Waits until the other end has cut this message off, while nobody reads it because the sink takes nothing. May wait for
    /// ever.
    fn cut_off(&self) -> impl Future<Output = ()> + use<Self> {
        std::future::pending()
    }
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes all of `payload`; waits while the other end is slow. May keep it until [`Sink::flush`].
    async fn write(&mut self, payload: &[u8]) -> Result<(), Broken>;

    /// Hands everything kept to the transport.
    async fn flush(&mut self) -> Result<(), Broken>;

    /// Bytes go as they are from here on: the connection was handed over to another protocol.
    fn begin_tunnel(&mut self) {}

    /// The plain socket into which bytes may go as they are; asked after a flush.
    fn passage(&self) -> Option<Rc<Stream>> {
        None
    }

    /// Ends the body and flushes.
    async fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Broken>;
}

/// A sink for requests.
pub(crate) trait RequestSink: Sink {
    /// Takes the head; the body follows.
    fn head(&mut self, head: &RequestHead<'_>, edits: &Edits, hop: &Hop<'_>) -> Result<(), Broken>;
}

/// A source of responses.
pub(crate) trait ResponseSource: Source {
    /// Waits for the next response head, interim ones included. Cancel-safe.
    async fn head(&mut self) -> Result<Arrived, Broken>;

    /// The head that arrived last.
    fn view(&self) -> ResponseHead<'_>;

    /// The protocol that a 101 switches to.
    fn upgrade(&self) -> &[u8];
}

/// A response head that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Its status.
    pub(crate) status: u16,
    /// How the body that follows is framed.
    pub(crate) framing: BodyFraming,
    /// 1xx other than 101: another head follows.
    pub(crate) interim: bool,
}

/// A sink for responses.
pub(crate) trait ResponseSink: Sink {
    /// Takes the head; the body follows. `upgrade` is the protocol that a 101 switches to.
    async fn head(
        &mut self,
        head: &ResponseHead<'_>,
        edits: &Edits,
        framing: BodyFraming,
        upgrade: &[u8],
    ) -> Result<(), Broken>;

    /// Tells the client, if its protocol can, that no other request will be answered here.
    fn close_after(&mut self) {}

    /// Tells a caller that understands it why there is no answer, and what the application saw, instead of an
    /// answer made here. False when the caller needs an answer.
    fn refuse(&mut self, reason: Reason, app_saw: AppSaw) -> bool;

    /// Ends the connection or stream so that the client sees that its answer is incomplete.
    fn cut(&mut self, reason: Reason);
}

/// A request that arrived: its head, kept until the exchange is over, and what it says to this hop.
#[derive(Debug)]
pub(crate) struct Request {
    /// The head's bytes.
    pub(crate) bytes: Vec<u8>,
    /// Their index.
    pub(crate) index: RequestIndex,
    /// How the body is framed.
    pub(crate) framing: BodyFraming,
    /// The protocol that the client offers to switch to; empty: none.
    pub(crate) upgrade: Vec<u8>,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expect_continue: bool,
    /// The client understands trailers.
    pub(crate) te_trailers: bool,
    /// Time that the caller leaves for the answer.
    pub(crate) time_left: Option<Duration>,
    /// What the client speaks. A connection is a request of its own kind, whose body are the bytes up and whose answer's
    /// body the bytes down.
    pub(crate) kind: Kind,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            index: RequestIndex::default(),
            framing: BodyFraming::None,
            upgrade: Vec::new(),
            expect_continue: false,
            te_trailers: false,
            time_left: None,
            kind: Kind::Http,
        }
    }
}

impl Request {
    /// The head.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        self.index.view(&self.bytes)
    }
}

/// What one Leno says to the next hop beside the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// What the client speaks.
    pub(crate) kind: Kind,
    /// How the body is framed.
    pub(crate) framing: BodyFraming,
    /// The protocol that the client offers to switch to; empty: none.
    pub(crate) upgrade: &'a [u8],
    /// The client waits for `100 Continue`.
    pub(crate) expect_continue: bool,
    /// The client understands trailers.
    pub(crate) te_trailers: bool,
    /// Time left for the answer.
    pub(crate) time_left: Option<Duration>,
    /// 1 for the first attempt.
    pub(crate) attempt: u32,
    /// The list and rule that decided.
    pub(crate) route: &'a str,
    /// The request's id.
    pub(crate) request_id: &'a [u8],
    /// The generation of our snapshot.
    pub(crate) generation: u64,
}

/// Facts about a body under way that others look at: the driver tells the exchange, the record counts bytes.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Payload bytes so far.
    pub(crate) bytes: Cell<u64>,
    /// Something was taken from the source.
    pub(crate) taken: Cell<bool>,
    /// Something moved since somebody last looked.
    pub(crate) lately: Cell<bool>,
    /// The body answers a call of gRPC, whose status comes after it.
    pub(crate) call: Cell<bool>,
    /// That status.
    pub(crate) status: Cell<Option<Status>>,
    /// Where a copy of the body goes, if somebody wants one.
    pub(crate) copy: Option<Rc<Copy>>,
    /// So many bytes a second, if a rule wants it slow.
    pub(crate) pace: Option<u32>,
}

/// A copy of a body.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    held: RefCell<Held>,
    /// It has become longer than [`COPY_BYTES_MAX`], or all copies together than [`COPIES_BYTES_MAX`]: it is no use.
    too_long: Cell<bool>,
    /// The whole body went by.
    whole: Cell<bool>,
}

/// Bytes of a copy, counted with those of all others of their worker as long as they are there.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    all: Rc<Cell<usize>>,
}

/// Largest body that is copied, in bytes.
pub(crate) const COPY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all copies that one worker holds: of the largest, 256.
const COPIES_BYTES_MAX: usize = 256 * COPY_BYTES_MAX;

impl Copy {
    /// A copy that is counted in `all`.
    pub(crate) fn new(all: Rc<Cell<usize>>) -> Self {
        Self { held: RefCell::new(Held { bytes: Vec::new(), all }), ..Self::default() }
    }

    /// Begins anew: another attempt sends the body from its start.
    pub(crate) fn begin(&self) {
        self.held.borrow_mut().clear();
        self.too_long.set(false);
    }

    /// The body went by to its end.
    pub(crate) fn end(&self) {
        self.whole.set(true);
    }

    pub(crate) fn take(&self, payload: &[u8]) {
        let mut held = self.held.borrow_mut();
        let all = held.all.get() + payload.len();
        if held.bytes.len() + payload.len() > COPY_BYTES_MAX || all > COPIES_BYTES_MAX {
            self.too_long.set(true);
            held.clear();
        } else if !self.too_long.get() {
            held.all.set(all);
            held.bytes.extend_from_slice(payload);
        }
    }

    /// The body, when all of it was copied; `Err` when it was too long.
    pub(crate) fn taken(&self) -> Result<Option<Held>, ()> {
        match (self.too_long.get(), self.whole.get()) {
            (true, _) => Err(()),
            (false, whole) => Ok(whole.then(|| self.held.take())),
        }
    }
}

impl Held {
    fn clear(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.bytes.len()));
        self.bytes = Vec::new();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Which side ended a pump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PumpError {
    /// The side that sends.
    Source(Broken),
    /// The side that receives.
    Sink,
}

/// Moves a body from `source` to `sink` to its end.
pub(crate) async fn pump(
    source: &mut impl Source,
    sink: &mut impl Sink,
    moved: &Moved,
) -> Result<(), PumpError> {
    loop {
        match source.peek().map_err(PumpError::Source)? {
            Chunk::Data(payload) => {
                let bytes = payload.len() as u64;
                moved.taken.set(true);
                if let Some(copy) = &moved.copy {
                    copy.take(payload);
                }
                match moved.pace {
                    None => sink.write(payload).await.map_err(|_| PumpError::Sink)?,
                    Some(pace) => Box::pin(trickle(payload, pace, sink, moved)).await?,
                }
                source.consume();
                moved.bytes.set(moved.bytes.get() + bytes);
                moved.lately.set(true);
            }
            Chunk::Empty => {
                sink.flush().await.map_err(|_| PumpError::Sink)?;
                if moved.copy.is_none()
                    && moved.pace.is_none()
                    && let Some(from) = source.passage()
                    && let Some(to) = sink.passage()
                {
                    let carried = carry(&from, &to, moved).await?;
                    source.passed(carried);
                    if carried == Carried::End {
                        continue;
                    }
                }
                source.wait().await.map_err(PumpError::Source)?;
            }
            Chunk::End => {
                if let Some(copy) = &moved.copy {
                    copy.end();
                }
                let trailers = source.trailers();
                if moved.call.get() {
                    moved.status.set(Status::of(trailers));
                }
                return sink.finish(trailers).await.map_err(|_| PumpError::Sink);
            }
        }
    }
}

/// In so many parts a body is sent that is to be slow.
const TRICKLE_PARTS_PER_SECOND: u32 = 10;

/// Sends `payload` at `pace` bytes a second. When it is dropped in between, so is the body.
#[cold]
async fn trickle(payload: &[u8], pace: u32, sink: &mut impl Sink, moved: &Moved) -> Result<(), PumpError> {
    let part_bytes = (pace / TRICKLE_PARTS_PER_SECOND).max(1) as usize;
    for part in payload.chunks(part_bytes) {
        // What the last part took longer than its time is not made up for.
        tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / f64::from(pace))).await;
        sink.write(part).await.map_err(|_| PumpError::Sink)?;
        sink.flush().await.map_err(|_| PumpError::Sink)?;
        moved.lately.set(true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_one_by_one_and_together() {
        let all = Rc::new(Cell::new(0));
        let copy = Copy::new(all.clone());
        copy.take(&[1; 1000]);
        assert!(copy.taken().unwrap().is_none(), "the body goes on");
        copy.whole.set(true);
        let held = copy.taken().unwrap().unwrap();
        assert_eq!((held.bytes.len(), all.get()), (1000, 1000));
        drop((held, copy));
        assert_eq!(all.get(), 0);
        let long = Copy::new(all.clone());
        long.take(&[1; COPY_BYTES_MAX]);
        long.take(&[1]);
        long.whole.set(true);
        assert_eq!((long.taken().is_err(), all.get()), (true, 0));
        // What others hold leaves no room.
        all.set(COPIES_BYTES_MAX - 10);
        let late = Copy::new(all.clone());
        late.take(&[1; 11]);
        assert_eq!((late.taken().is_err(), all.get()), (true, COPIES_BYTES_MAX - 10));
    }
}
