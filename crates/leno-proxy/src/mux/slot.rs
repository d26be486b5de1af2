//! What the connection's task leaves for one stream's task, and the memory that goes from one stream to the next.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::take;
use std::task::{Poll, Waker};

use leno_core::head::{Field, ResponseIndex};
use leno_core::http1::BodyFraming;
use leno_core::mux::Code;

use crate::body::{Arrived, Broken};

/// What the connection's task leaves for one stream. Used again for another one when the stream is over.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(super) state: RefCell<SlotState>,
}

impl Slot {
    /// Waits until the stream is cut off.
    pub(super) async fn broken(&self) {
        std::future::poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            if state.broken.is_some() {
                return Poll::Ready(());
            }
            state.read_later(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// Body bytes that came and were not taken.
    pub(super) data: Vec<u8>,
    /// The peer's half has ended.
    pub(super) ended: bool,
    /// Heads that came and were not taken: interim ones and the final one. The machine bounds their number.
    pub(super) heads: VecDeque<Head>,
    pub(super) trailers: Trailers,
    /// The stream was cut off.
    pub(super) broken: Option<(Broken, Option<Code>)>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// What the reader of the stream before used, for the next one.
    pub(super) spare: Taken,
}

/// What a stream's reader has taken out of its slot.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The bytes that were shown last.
    pub(super) shown: Vec<u8>,
    /// The response head that arrived last.
    pub(super) head: Head,
    pub(super) trailers: Trailers,
}

/// Trailer fields and their bytes.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    pub(super) fields: Vec<Field>,
    pub(super) bytes: Vec<u8>,
}

/// A response head that waits in a slot.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) arrived: Arrived,
    pub(super) index: ResponseIndex,
    pub(super) bytes: Vec<u8>,
    /// The protocol that a 101 switches to.
    pub(super) upgrade: Vec<u8>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            arrived: Arrived { status: 0, framing: BodyFraming::None, interim: false },
            index: ResponseIndex::default(),
            bytes: Vec::new(),
            upgrade: Vec::new(),
        }
    }
}

impl SlotState {
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = &self.reader {
            waker.wake_by_ref();
        }
    }

    /// Remembers whom to wake. A stream has one task, so the waker is nearly always the one that is known.
    pub(super) fn read_later(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(waker),
            unknown => *unknown = Some(waker.clone()),
        }
    }

    pub(super) fn break_off(&mut self, broken: Broken, code: Option<Code>) {
        self.broken.get_or_insert((broken, code));
        self.wake_reader();
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// Makes the slot ready for another stream.
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.ended = false;
        self.heads.clear();
        self.trailers.fields.clear();
        self.broken = None;
        self.reader = None;
        self.writer = None;
    }

    /// The memory that a reader begins with; that for a head stays until one comes.
    pub(super) fn take_spare(&mut self) -> Taken {
        let Taken { shown, trailers, .. } = &mut self.spare;
        Taken { shown: take(shown), trailers: take(trailers), head: Head::default() }
    }

    /// Takes a reader's memory back.
    pub(super) fn give_spare(&mut self, mut taken: Taken) {
        taken.shown.clear();
        taken.trailers.fields.clear();
        self.spare = taken;
    }

    /// True when it is not worth keeping: a large body, head or trailer section went through it.
    pub(super) fn is_large(&self) -> bool {
        let Taken { shown, head, trailers } = &self.spare;
        let buffers = [&self.data, &self.trailers.bytes, shown, &head.bytes, &trailers.bytes];
        buffers.into_iter().any(|buffer| buffer.capacity() > SPARE_BYTES_MAX)
    }
}

/// The largest buffer that is kept for the next stream, in bytes.
const SPARE_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::{SPARE_BYTES_MAX, SlotState, Taken};

    #[test]
    fn what_was_large_is_not_kept() {
        let fill: [fn(&mut SlotState, &mut Taken, Vec<u8>); 5] = [
            |state, _, bytes| state.data = bytes,
            |state, _, bytes| state.trailers.bytes = bytes,
            |_, taken, bytes| taken.shown = bytes,
            |_, taken, bytes| taken.head.bytes = bytes,
            |_, taken, bytes| taken.trailers.bytes = bytes,
        ];
        for (at, fill) in fill.into_iter().enumerate() {
            for (bytes, large) in [(SPARE_BYTES_MAX, false), (SPARE_BYTES_MAX + 1, true)] {
                let (mut state, mut taken) = (SlotState::default(), Taken::default());
                fill(&mut state, &mut taken, Vec::with_capacity(bytes));
                state.give_spare(taken);
                assert_eq!(state.is_large(), large, "{bytes} bytes at {at}");
            }
        }
    }
}
