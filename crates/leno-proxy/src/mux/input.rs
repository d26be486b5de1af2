//! What a connection's peer has said and the machine has not understood yet.

use leno_core::mux::HeadIndex;

/// The memory that is kept for the next such part, in bytes: a large head's is not.
const KEPT_BYTES_MAX: usize = 1024;

/// Bytes that the machine left, and the index that heads are read into.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of a frame that goes on in the next record; nearly always empty, because a frame of data is taken in
    /// whatever parts it comes. Its bound is the machine's, [`leno_core::mux::Limits::read_buffer_bytes`] and one record.
    left: Vec<u8>,
    pub(super) index: HeadIndex,
}

impl Input {
    /// Has `understand` take what can be taken of what was left and `bytes`, and keeps the rest. `understand` says how much it took.
    pub(super) fn add<E>(
        &mut self,
        bytes: &[u8],
        understand: impl FnOnce(&[u8], &mut HeadIndex) -> Result<usize, E>,
    ) -> Result<(), E> {
        let Self { left, index } = self;
        if left.is_empty() {
            let used = understand(bytes, index)?;
            left.extend_from_slice(bytes.get(used..).unwrap_or(&[]));
            return Ok(());
        }
        left.extend_from_slice(bytes);
        let used = understand(left, index)?;
        if used == left.len() && left.capacity() > KEPT_BYTES_MAX {
            *left = Vec::new();
        } else {
            left.drain(..used);
        }
        Ok(())
    }
}
