//! What the machine reads from and writes to: a guard looks at all that comes before the machine does, and what it has to say is
//! kept until its turn is over.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use leno_core::h2guard::{Fault, Guard, Role, Stop};
use leno_core::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Stream;
use crate::worker::Worker;

/// Bytes that are kept before they are written without being asked, and the most that one write takes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A connection's bytes, as the task sees them that serves it.
pub(super) struct Wire {
    pub(super) stream: Rc<Stream>,
    worker: Rc<Worker>,
    input: RefCell<Kept>,
    output: RefCell<Kept>,
    guard: RefCell<Guard>,
    fault: Cell<Option<Fault>>,
    heard: Cell<Instant>,
    written: Cell<u64>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Bytes from `start` on.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    start: usize,
}

impl Wire {
    /// A connection of which `first` was read already.
    pub(super) fn new(worker: &Rc<Worker>, stream: Rc<Stream>, role: Role, first: Vec<u8>) -> Rc<Self> {
        let now = worker.now();
        let mut guard = Guard::new(role, now);
        let mut first = first;
        let fault = guard.receive(&first, now).err().map(|stop| cut(&mut first, stop));
        Rc::new(Self {
            stream,
            worker: worker.clone(),
            input: RefCell::new(Kept { bytes: first, start: 0 }),
            output: RefCell::default(),
            guard: RefCell::new(guard),
            fault: Cell::new(fault),
            heard: Cell::new(now),
            written: Cell::new(0),
        })
    }

    /// What is wrong with what the peer sends. What came before it is read, and then nothing any more.
    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Since when the peer has something to finish that it has begun.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.guard.borrow().unfinished()
    }

    /// When something last came.
    pub(super) const fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Instant {
        self.worker.now()
    }

    /// Bytes that have left.
    pub(super) const fn written(&self) -> u64 {
        self.written.get()
    }

    /// The peer's first SETTINGS have come.
    pub(super) fn is_settled(&self) -> bool {
        self.guard.borrow().is_settled()
    }

    /// The last stream that a peer which is going has seen or will look at.
    pub(super) fn goaway(&self) -> Option<u32> {
        self.guard.borrow().goaway()
    }

    /// Writes what is kept. Called after each turn of the machine.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let output = &mut *self.output.borrow_mut();
        loop {
            let rest = output.bytes.get(output.start..).unwrap_or(&[]);
            if rest.is_empty() {
                output.start = 0;
                if output.bytes.capacity() > 0 {
                    self.worker.stock.give(std::mem::take(&mut output.bytes));
                }
                return self.stream.poll_flush(cx);
            }
            match self.stream.try_send(rest, &[]) {
                Ok(sent) => {
                    output.start += sent;
                    self.written.set(self.written.get() + sent as u64);
                    self.guard.borrow_mut().sent(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let input = &mut *self.input.borrow_mut();
        loop {
            let rest = input.bytes.get(input.start..).unwrap_or(&[]);
            if !rest.is_empty() {
                let taken = rest.len().min(buffer.remaining());
                buffer.put_slice(rest.get(..taken).unwrap_or(&[]));
                input.start += taken;
                if input.start == input.bytes.len() {
                    input.start = 0;
                    self.worker.stock.give(std::mem::take(&mut input.bytes));
                }
                return Poll::Ready(Ok(()));
            }
            if self.fault.get().is_some() {
                // The task that serves the connection looks at it after this turn.
                return Poll::Pending;
            }
            ready!(self.stream.poll_read_ready(cx))?;
            input.bytes = self.worker.stock.take();
            let received = self.stream.try_receive(&mut input.bytes);
            if !matches!(received, Ok(bytes) if bytes > 0) {
                self.worker.stock.give(std::mem::take(&mut input.bytes));
            }
            match received {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    let now = self.worker.now();
                    self.heard.set(now);
                    if let Err(stop) = self.guard.borrow_mut().receive(&input.bytes, now) {
                        self.fault.set(Some(cut(&mut input.bytes, stop)));
                        if input.bytes.is_empty() {
                            self.worker.stock.give(std::mem::take(&mut input.bytes));
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_keep(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.output.borrow().bytes.len() >= OUTPUT_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        let output = &mut *self.output.borrow_mut();
        let kept = bytes.len().min(OUTPUT_BYTES_MAX - output.bytes.len());
        let needed = output.bytes.len() + kept;
        if needed > output.bytes.capacity() {
            // A stream of data, or the first bytes of a turn.
            let room = if output.bytes.capacity() == 0 {
                self.worker.stock.take()
            } else {
                self.worker.stock.take_large()
            };
            let before = std::mem::replace(&mut output.bytes, room);
            output.bytes.extend_from_slice(&before);
            self.worker.stock.give(before);
        }
        output.bytes.extend_from_slice(bytes.get(..kept).unwrap_or(&[]));
        Poll::Ready(Ok(kept))
    }
}

/// Leaves what came before a fault.
fn cut(bytes: &mut Vec<u8>, stop: Stop) -> Fault {
    bytes.truncate(stop.before);
    stop.fault
}

/// The machine's end of a wire.
pub(super) struct Io(pub(super) Rc<Wire>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_receive(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_keep(cx, bytes)
    }

    /// The machine flushes after each large frame; its task does after each turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_send(cx))?;
        self.0.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
