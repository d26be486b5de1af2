//! Memory to read into: a connection has some only while it reads.

use std::cell::RefCell;
use std::mem::take;
use std::rc::Rc;

use leno_core::mux::HeadIndex;

/// Bytes read from TLS at a time: two records.
const READ_BYTES: usize = 32 * 1024;
/// Bytes read and not yet understood.
#[derive(Default)]
pub(super) struct Input {
    /// Empty between turns, unless a frame has come in part.
    pub(super) bytes: Vec<u8>,
    pub(super) filled: usize,
    pub(super) index: HeadIndex,
}

/// A worker's memory to read into: a connection has some only while it reads, and it is the one used last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs(Rc<RefCell<Vec<Vec<u8>>>>);

/// Such buffers kept by a worker. Only one is in use at a time, besides those with a part of a frame in them.
const INPUTS_MAX: usize = 4;

impl Inputs {
    pub(super) fn lend(&self, input: &mut Input) {
        if input.bytes.is_empty() {
            input.bytes = self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; READ_BYTES]);
        }
    }

    pub(super) fn take_back(&self, input: &mut Input) {
        if input.filled == 0 {
            let bytes = take(&mut input.bytes);
            let mut kept = self.0.borrow_mut();
            // One that grew for a large head is not worth keeping.
            if kept.len() < INPUTS_MAX && bytes.len() == READ_BYTES {
                kept.push(bytes);
            }
        }
    }
}
