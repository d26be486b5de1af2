//! Byte buffers of connections: bounded, compacted, and returned to the worker while a connection is idle.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::socket;

/// One read from a socket at most; also the size of every buffer in the worker's stock. 16 KiB is a TLS record and
/// a typical socket read; larger buffers cost cache, smaller ones system calls.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers that a worker keeps for reuse: 4 MiB at most.
const STOCK_MAX: usize = 256;

/// Empty buffers of one worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stock(Rc<RefCell<Vec<Vec<u8>>>>);

impl Stock {
    /// An empty buffer: the one that was given last, which the processor still has in its cache.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Drops half of the buffers: after a burst the memory goes back within some sweeps.
    pub(crate) fn sweep(&self) {
        let mut stock = self.0.borrow_mut();
        let stay = stock.len() / 2;
        stock.truncate(stay);
        stock.shrink_to(STOCK_MAX);
    }

    /// Takes a buffer back. What is still in it is forgotten.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut stock = self.0.borrow_mut();
        // A buffer that grew for one large head is not worth keeping.
        if stock.len() < STOCK_MAX && (BUFFER_BYTES..=2 * BUFFER_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            stock.push(buffer);
        }
    }
}

/// Bytes read and not yet consumed.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    data: Vec<u8>,
    /// Where the unconsumed bytes begin.
    start: usize,
    stock: Stock,
}

impl ReadBuffer {
    /// An empty buffer that holds no memory.
    pub(crate) const fn new(stock: Stock) -> Self {
        Self { data: Vec::new(), start: 0, stock }
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

    /// Reads once without waiting, at most up to `limit` unconsumed bytes in all. 0 is the end of the stream.
    pub(crate) fn try_read(&mut self, stream: &TcpStream, limit: usize) -> io::Result<usize> {
        self.make_room(limit);
        let read = socket::try_receive(stream, &mut self.data);
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
            self.data = self.stock.take();
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
