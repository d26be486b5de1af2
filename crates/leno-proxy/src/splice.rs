//! Bulk from one plain socket to another without passing through this process: the kernel moves its pages through a pipe.
//! It costs half of what reading and writing do; docs/performance.md has the figures.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use crate::body::{Broken, Moved, PumpError};
use crate::buffer::Stock;
use crate::io::Stream;

/// What a pipe may hold, in bytes. 256 KiB cost a fifth more per gigabyte; this is the most that the kernel allows everybody.
const PIPE_BYTES: usize = 1 << 20;
/// A smaller piece is no bulk: whoever moved it goes back to reading and writing, which is cheaper for few bytes.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;
/// Full pipes before other tasks have their turn.
const TURN_PIPES: usize = 4;

/// A socket from which all that is still to come may be moved.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) stream: Rc<Stream>,
    pub(crate) stock: Stock,
}

/// Why moving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// The source's end was reached.
    End,
    /// What comes is no bulk any more, or too many connections move bulk at a time.
    NoBulk,
}

/// Moves bytes until the source ends or what comes is no bulk.
pub(crate) async fn carry(from: &Passage, to: &Stream, moved: &Moved) -> Result<Carried, PumpError> {
    for turn in 1_usize.. {
        // An empty pipe is as good as any other: one that waits for its source has none.
        let ready = std::future::poll_fn(|cx| from.stream.poll_read_ready(cx)).await;
        ready.map_err(|_| PumpError::Source(Broken::CLOSED))?;
        let Some(mut pipe) = from.stock.take_pipe() else { return Ok(Carried::NoBulk) };
        let bytes = match pipe.fill(&from.stream) {
            Ok(0) => return Ok(Carried::End),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(PumpError::Source(Broken::CLOSED)),
        };
        moved.taken.set(true);
        std::future::poll_fn(|cx| {
            while pipe.holds > 0 {
                match pipe.drain(to) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::task::ready!(to.poll_write_ready(cx))?;
                    }
                    other => other?,
                }
            }
            std::task::Poll::Ready(Ok(()))
        })
        .await
        .map_err(|_: io::Error| PumpError::Sink)?;
        moved.bytes.set(moved.bytes.get() + bytes as u64);
        moved.lately.set(true);
        if bytes < SMALL_BYTES {
            return Ok(Carried::NoBulk);
        }
        if turn.is_multiple_of(TURN_PIPES) {
            drop(pipe);
            tokio::task::yield_now().await;
        }
    }
    Ok(Carried::NoBulk)
}

/// Both ends of a pipe. It goes back to its stock when it is dropped empty.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    holds: usize,
    stock: Stock,
}

/// The reading end and the writing end.
#[derive(Debug)]
pub(crate) struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    /// Makes a pipe. Where the user has too many large ones, it is of the usual size.
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Self { read, write })
    }
}

impl Pipe {
    pub(crate) const fn new(ends: Ends, stock: Stock) -> Self {
        Self { ends: Some(ends), holds: 0, stock }
    }

    /// Takes what is there, as much as fits; 0 is the end of the stream. Only for an empty pipe.
    fn fill(&mut self, from: &Stream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let socket = from.socket();
        self.holds = socket.try_io(Interest::READABLE, || {
            let moved = retry_on_intr(|| splice(socket, None, &ends.write, None, PIPE_BYTES, FLAGS))?;
            Ok(moved)
        })?;
        Ok(self.holds)
    }

    /// Gives what the socket takes.
    fn drain(&mut self, to: &Stream) -> io::Result<()> {
        let Some(ends) = &self.ends else { return Ok(()) };
        let (socket, holds) = (to.socket(), self.holds);
        let moved = socket.try_io(Interest::WRITABLE, || {
            Ok(retry_on_intr(|| splice(&ends.read, None, socket, None, holds, FLAGS))?)
        })?;
        self.holds -= moved.min(self.holds);
        if moved == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // What is left in it belongs to a connection that is over.
        let ends = self.ends.take().filter(|_| self.holds == 0);
        self.stock.give_pipe(ends);
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests;
