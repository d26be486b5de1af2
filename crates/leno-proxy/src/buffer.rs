//! Byte buffers of connections: bounded, compacted, and returned to the worker while a connection is idle.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::io::Stream;
use crate::splice::{Ends, Pipe};

/// The usual buffer, in bytes: a body of 16 KiB, which is what many programs write at a time, together with its head. Larger
/// ones cost cache, smaller ones system calls.
pub(crate) const BUFFER_BYTES: usize = 18 * 1024;
/// The buffer for bodies of which more is known to come than a usual one holds: a fourth of the system calls.
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// The largest that a usual buffer may have grown to and be kept, in bytes.
const GROWN_BYTES_MAX: usize = 2 * BUFFER_BYTES;
/// Buffers that a worker keeps for reuse: 4.5 MiB at most of the usual ones, and 1 MiB of large ones.
const STOCK_MAX: usize = 256;
const LARGE_STOCK_MAX: usize = 16;
/// Pipes that a worker has at a time. Each is one direction of a connection that moves bulk at this moment, holds two descriptors
/// and up to 1 MiB of the kernel's memory while its receiver is slow; who gets none reads and writes.
pub(crate) const PIPES_MAX: usize = 64;

/// Empty buffers of one worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stock(Rc<RefCell<Shelves>>);

#[derive(Debug, Default)]
struct Shelves {
    usual: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// Empty ones, and how many are in use.
    pipes: Vec<Ends>,
    pipes_out: usize,
}

impl Stock {
    /// An empty buffer: the one that was given last, which the processor still has in its cache.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().usual.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// An empty large buffer.
    pub(crate) fn take_large(&self) -> Vec<u8> {
        self.0.borrow_mut().large.pop().unwrap_or_else(|| Vec::with_capacity(LARGE_BUFFER_BYTES))
    }

    /// Drops half of the buffers: after a burst the memory goes back within some sweeps.
    pub(crate) fn sweep(&self) {
        let Shelves { usual, large, pipes, .. } = &mut *self.0.borrow_mut();
        usual.truncate(usual.len() / 2);
        large.truncate(large.len() / 2);
        pipes.truncate(pipes.len() / 2);
    }

    /// An empty pipe, unless there are too many in use.
    pub(crate) fn take_pipe(&self) -> Option<Pipe> {
        let shelves = &mut *self.0.borrow_mut();
        if shelves.pipes_out >= PIPES_MAX {
            return None;
        }
        let ends = shelves.pipes.pop().or_else(|| Ends::new().ok())?;
        shelves.pipes_out += 1;
        Some(Pipe::new(ends, self.clone()))
    }

    /// Takes a pipe back; `None`: it is of no more use.
    pub(crate) fn give_pipe(&self, ends: Option<Ends>) {
        let shelves = &mut *self.0.borrow_mut();
        shelves.pipes_out -= 1;
        shelves.pipes.extend(ends);
    }

    /// Pipes in use, and empty ones.
    #[cfg(test)]
    pub(crate) fn pipes(&self) -> (usize, usize) {
        let shelves = self.0.borrow();
        (shelves.pipes_out, shelves.pipes.len())
    }

    /// Takes a buffer back. What is still in it is forgotten. One of another size, which grew for one large head, is not
    /// worth keeping.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let Shelves { usual, large, .. } = &mut *self.0.borrow_mut();
        let (shelf, most) = match buffer.capacity() {
            LARGE_BUFFER_BYTES => (large, LARGE_STOCK_MAX),
            BUFFER_BYTES..=GROWN_BYTES_MAX => (usual, STOCK_MAX),
            _ => return,
        };
        if shelf.len() < most {
            buffer.clear();
            shelf.push(buffer);
        }
    }
}

/// Bytes read and not yet consumed.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    data: Vec<u8>,
    /// Where the unconsumed bytes begin.
    start: usize,
    /// The next buffer is to be a large one.
    large: bool,
    stock: Stock,
}

impl ReadBuffer {
    /// An empty buffer that holds no memory.
    pub(crate) const fn new(stock: Stock) -> Self {
        Self { data: Vec::new(), start: 0, large: false, stock }
    }

    /// A buffer in which `first` is there already.
    pub(crate) const fn beginning_with(stock: Stock, first: Vec<u8>) -> Self {
        Self { data: first, start: 0, large: false, stock }
    }

    /// Where its memory comes from.
    pub(crate) const fn stock(&self) -> &Stock {
        &self.stock
    }

    /// Takes everything out.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        let bytes = self.filled().to_vec();
        self.consume(bytes.len());
        bytes
    }

    /// The bytes that are there.
    pub(crate) fn filled(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or(&[])
    }

    /// True when there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.start >= self.data.len()
    }

    /// Drops the first `bytes`. An empty buffer holds no memory: its bytes go to whoever reads next.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.data.len());
        if self.start == self.data.len() {
            self.start = 0;
            self.give_back();
        }
    }

    /// Tells how many bytes are known to come.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.large = bytes > BUFFER_BYTES as u64;
    }

    /// Reads once without waiting, at most up to `limit` unconsumed bytes in all. 0 is the end of the stream.
    pub(crate) fn try_read(&mut self, stream: &Stream, limit: usize) -> io::Result<usize> {
        self.make_room(limit);
        let read = stream.try_receive(&mut self.data);
        if self.data.is_empty() {
            self.give_back();
        }
        read
    }

    fn give_back(&mut self) {
        if self.data.capacity() > 0 {
            self.stock.give(std::mem::take(&mut self.data));
        }
    }

    fn make_room(&mut self, limit: usize) {
        if self.data.capacity() == 0 {
            let large = std::mem::take(&mut self.large);
            self.data = if large { self.stock.take_large() } else { self.stock.take() };
        }
        if self.data.capacity() > self.data.len() {
            return;
        }
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
        if self.data.capacity() == self.data.len() {
            self.data.reserve(self.data.len().min(limit.saturating_sub(self.data.len())).max(1));
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.give_back();
    }
}
