//! One stream, as the driver's source and sink. The same two halves serve both ends.

use std::mem::{swap, take};
use std::rc::Rc;
use std::task::Poll;

use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::http1::BodyFraming;
use leno_core::mux::{Body, Code, Meta, OpenError, SendError, StreamId};
use leno_core::reason::Reason;

use super::slot::{Slot, Taken};
use super::{Conn, code_of};
use crate::body::{Arrived, Broken, Chunk, Hop, RequestSink, ResponseSink, ResponseSource, Sink, Source};

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    handle: Option<Handle>,
    taken: Taken,
    /// Bytes read.
    moved: u64,
}

/// The writing half.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: Rc<Conn>,
    handle: Option<Handle>,
    /// Our half has ended.
    ended: bool,
    /// Bytes written.
    moved: u64,
}

/// A stream's place in its connection.
#[derive(Clone, Debug)]
struct Handle {
    conn: Rc<Conn>,
    stream: StreamId,
    slot: Rc<Slot>,
}

/// A stream that has moved so many bytes in one direction is bulk: streams to come get another connection, so that the bulk
/// has its own and nobody waits behind it. Some seconds of a slow link, some milliseconds of a fast one.
const BULK_BYTES: u64 = 8 << 20;

impl Handle {
    /// Counts bytes of one direction.
    fn moved(&self, total: &mut u64, bytes: usize) {
        let before = *total;
        *total += bytes as u64;
        if before < BULK_BYTES && *total >= BULK_BYTES {
            self.conn.bulk.set(self.conn.bulk.get() + 1);
        }
    }
}

/// Both halves; whatever is not over when they are dropped is given up.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

impl Stream {
    /// A stream that will be opened by the head that is sent.
    pub(crate) fn dial(conn: Rc<Conn>) -> Self {
        Self {
            reader: Reader { handle: None, taken: Taken::default(), moved: 0 },
            writer: Writer::new(conn, None),
        }
    }

    /// A stream that the peer opened.
    pub(crate) fn accept(conn: Rc<Conn>, stream: StreamId, slot: Rc<Slot>) -> Self {
        let handle = Handle { conn: conn.clone(), stream, slot };
        let taken = handle.slot.state.borrow_mut().take_spare();
        Self {
            reader: Reader { handle: Some(handle.clone()), taken, moved: 0 },
            writer: Writer::new(conn, Some(handle)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(handle) = &self.writer.handle else { return };
        let bulk =
            [self.reader.moved, self.writer.moved].into_iter().filter(|moved| *moved >= BULK_BYTES).count();
        handle.conn.bulk.set(handle.conn.bulk.get().saturating_sub(bulk));
        let (over, unread) = {
            let state = &mut *handle.slot.state.borrow_mut();
            let unread = state.data.len() + self.reader.taken.shown.len();
            state.give_spare(take(&mut self.reader.taken));
            (self.writer.ended && state.ended, unread)
        };
        let mut machine = handle.conn.machine.borrow_mut();
        if over {
            machine.release(handle.stream, unread);
        } else {
            // An answer that is complete needs no more of the request; anything else was not wanted any more.
            let code = if self.writer.ended { Code::Enough } else { Code::Cancel };
            machine.reset(handle.stream, code, AppSaw::Maybe);
        }
        drop(machine);
        handle.conn.leave(handle.stream, &handle.slot);
        handle.conn.wake();
    }
}

impl Reader {
    /// Tells the reader where the stream is that its writer has opened.
    pub(crate) fn follow(&mut self, writer: &Writer) {
        if let Some(handle) = &writer.handle {
            self.taken = handle.slot.state.borrow_mut().take_spare();
            self.handle = Some(handle.clone());
        }
    }
}

impl Source for Reader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        let Taken { shown, trailers, .. } = &mut self.taken;
        if shown.is_empty() {
            let state = &mut *handle.slot.state.borrow_mut();
            if state.data.is_empty() {
                return match (state.ended, state.broken) {
                    (true, _) => {
                        if !state.trailers.fields.is_empty() {
                            swap(trailers, &mut state.trailers);
                            state.trailers.fields.clear();
                        }
                        Ok(Chunk::End)
                    }
                    (_, Some((broken, _))) => Err(broken),
                    _ => Ok(Chunk::Empty),
                };
            }
            swap(shown, &mut state.data);
        }
        Ok(Chunk::Data(shown))
    }

    fn consume(&mut self) {
        let bytes = self.taken.shown.len();
        self.taken.shown.clear();
        if let Some(handle) = &self.handle {
            handle.moved(&mut self.moved, bytes);
            let mut machine = handle.conn.machine.borrow_mut();
            machine.release(handle.stream, bytes);
            let more_to_say = !machine.output().is_empty();
            drop(machine);
            if more_to_say {
                handle.conn.wake();
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        std::future::poll_fn(|cx| {
            let state = &mut *handle.slot.state.borrow_mut();
            if !state.data.is_empty() || state.ended || state.broken.is_some() {
                return Poll::Ready(Ok(()));
            }
            state.read_later(cx.waker());
            Poll::Pending
        })
        .await
    }

    fn trailers(&self) -> Fields<'_> {
        Fields::new(&self.taken.trailers.bytes, &self.taken.trailers.fields)
    }

    async fn gone(&mut self) {
        let Some(handle) = &self.handle else { return };
        handle.slot.broken().await;
    }

    fn cut_off(&self) -> impl Future<Output = ()> + use<> {
        let slot = self.handle.as_ref().map(|handle| handle.slot.clone());
        async move {
            match slot {
                Some(slot) => slot.broken().await,
                None => std::future::pending().await,
            }
        }
    }
}

impl ResponseSource for Reader {
    async fn head(&mut self) -> Result<Arrived, Broken> {
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        let current = &mut self.taken.head;
        std::future::poll_fn(|cx| {
            let state = &mut *handle.slot.state.borrow_mut();
            if let Some(head) = state.heads.pop_front() {
                let arrived = head.arrived;
                *current = head;
                return Poll::Ready(Ok(arrived));
            }
            if let Some((broken, _)) = state.broken {
                return Poll::Ready(Err(broken));
            }
            state.read_later(cx.waker());
            Poll::Pending
        })
        .await
    }

    fn view(&self) -> ResponseHead<'_> {
        self.taken.head.index.view(&self.taken.head.bytes)
    }

    fn upgrade(&self) -> &[u8] {
        &self.taken.head.upgrade
    }
}

impl Writer {
    const fn new(conn: Rc<Conn>, handle: Option<Handle>) -> Self {
        Self { conn, handle, ended: false, moved: 0 }
    }

    /// Waits until the machine would take more of this stream, or the stream is broken.
    async fn writable(handle: &Handle) -> Result<(), Broken> {
        let mut first = true;
        std::future::poll_fn(|cx| {
            let state = &mut *handle.slot.state.borrow_mut();
            if let Some((broken, _)) = state.broken {
                return Poll::Ready(Err(broken));
            }
            if !std::mem::take(&mut first) && state.writer.is_none() {
                return Poll::Ready(Ok(()));
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn broken(handle: &Handle) -> Broken {
        handle.slot.state.borrow().broken.map_or(Broken::CLOSED, |(broken, _)| broken)
    }

    fn end_with(&mut self, code: Code, app_saw: AppSaw) {
        if let Some(handle) = &self.handle {
            handle.conn.machine.borrow_mut().reset(handle.stream, code, app_saw);
            handle.conn.wake();
        }
    }
}

impl Sink for Writer {
    async fn write(&mut self, mut payload: &[u8]) -> Result<(), Broken> {
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        loop {
            let sent = handle.conn.machine.borrow_mut().send_data(handle.stream, payload, false);
            let sent = sent.map_err(|_| Self::broken(handle))?;
            handle.moved(&mut self.moved, sent);
            handle.conn.wake();
            payload = payload.get(sent..).unwrap_or(&[]);
            if payload.is_empty() {
                return Ok(());
            }
            Self::writable(handle).await?;
        }
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        // The connection's task was woken by whoever wrote, and runs after this one.
        Ok(())
    }

    async fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Broken> {
        if self.ended {
            return Ok(());
        }
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        loop {
            let sent = {
                let mut machine = handle.conn.machine.borrow_mut();
                if trailers.is_empty() {
                    machine.send_end(handle.stream)
                } else {
                    machine.send_trailers(handle.stream, &trailers)
                }
            };
            match sent {
                Ok(()) => break,
                Err(SendError::Full) => Self::writable(handle).await?,
                Err(_) => return Err(Self::broken(handle)),
            }
        }
        self.ended = true;
        handle.conn.wake();
        Ok(())
    }
}

impl RequestSink for Writer {
    fn head(&mut self, head: &RequestHead<'_>, edits: &Edits, hop: &Hop<'_>) -> Result<(), Broken> {
        let meta = Meta {
            kind: hop.kind,
            // What follows an accepted upgrade is no body of the request, but it follows it.
            body: if hop.upgrade.is_empty() { body(hop.framing) } else { Body::Unknown },
            deadline: hop.time_left,
            attempt: hop.attempt,
            route: hop.route.as_bytes(),
            request_id: hop.request_id,
            generation: hop.generation,
            upgrade: hop.upgrade,
        };
        let end = hop.framing == BodyFraming::None && hop.upgrade.is_empty();
        let opened = self.conn.machine.borrow_mut().open(&meta, head, edits, end);
        // Nothing was sent: whatever the limit was, another connection or endpoint may do.
        let reason = |error| match error {
            OpenError::Head(_) => Reason::RequestMalformed,
            OpenError::Streams | OpenError::Draining | OpenError::Full => Reason::Overload,
        };
        let stream = opened.map_err(|error| Broken { app_saw: AppSaw::Nothing, reason: reason(error) })?;
        let slot = self.conn.enter(stream);
        self.handle = Some(Handle { conn: self.conn.clone(), stream, slot });
        self.ended = end;
        self.conn.wake();
        Ok(())
    }
}

impl ResponseSink for Writer {
    async fn head(
        &mut self,
        head: &ResponseHead<'_>,
        edits: &Edits,
        framing: BodyFraming,
        upgrade: &[u8],
    ) -> Result<(), Broken> {
        let Some(handle) = &self.handle else { return Err(Broken::CLOSED) };
        let meta = Meta { body: body(framing), upgrade, ..Meta::default() };
        let interim = (100..200).contains(&head.status) && head.status != 101;
        let end = framing == BodyFraming::None && !interim;
        loop {
            let sent = handle.conn.machine.borrow_mut().respond(handle.stream, &meta, head, edits, end);
            handle.conn.wake();
            match sent {
                Ok(()) => break,
                // An interim head that does not fit is dropped: it is only advice.
                Err(SendError::Full) if interim => return Ok(()),
                Err(SendError::Full) => Self::writable(handle).await?,
                Err(SendError::Head(_)) => {
                    return Err(Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed });
                }
                Err(SendError::Gone | SendError::State) => return Err(Self::broken(handle)),
            }
        }
        self.ended |= end;
        Ok(())
    }

    fn refuse(&mut self, reason: Reason, app_saw: AppSaw) -> bool {
        self.end_with(code_of(reason), app_saw);
        true
    }

    fn cut(&mut self, reason: Reason) {
        self.end_with(code_of(reason), AppSaw::Maybe);
    }
}

const fn body(framing: BodyFraming) -> Body {
    match framing {
        BodyFraming::None => Body::None,
        BodyFraming::Length(bytes) => Body::Length(bytes),
        BodyFraming::Chunked | BodyFraming::UntilClose | BodyFraming::Tunnel => Body::Unknown,
    }
}
