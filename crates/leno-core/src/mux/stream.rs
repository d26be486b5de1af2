//! One stream's state, and the table of all of them.

use alloc::vec::Vec;

/// A stream of one connection. Cheap to copy; outlives the stream, after which every call with it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Its number on the wire.
    pub(super) number: u32,
    /// Its place in the table.
    pub(super) slot: u32,
}

impl StreamId {
    /// Its number on the wire, the same at both ends: odd, ever increasing, never used again.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// A small dense index for the shell's own per-stream table: below the number of streams that were ever open
    /// at once, used again once this stream is over at both ends and every byte of it was released.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// One direction of a stream.
///
/// ```text
///          interim head
///             .--.
///             v  |   head            END, TRAILERS
///   open --> Head --------> Body -------------------> Done
///             |               |                         ^
///             |               `------- RESET -----------|
///             `-- head with END, RESET -----------------'
/// ```
///
/// A request's direction begins at `Body` or `Done`, because the HEAD is what opens the stream. The stream is
/// over when both directions are `Done` and the shell has released every byte that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// The final head is still to come.
    Head,
    /// DATA may follow.
    Body,
    /// Nothing follows.
    Done,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Its number; 0 in a free slot.
    pub(super) number: u32,
    /// What we send.
    pub(super) send: Half,
    /// What the peer sends.
    pub(super) receive: Half,
    /// DATA bytes we may still send. CREDIT raises it.
    pub(super) send_credit: u32,
    /// DATA bytes the peer may still send. Our CREDIT raises it.
    pub(super) receive_credit: u32,
    /// Bytes handed to the shell and not yet released.
    pub(super) held: u32,
    /// Bytes released for which no CREDIT was sent yet.
    pub(super) due: u32,
    /// Body bytes the peer has still to send by its own declaration; `u64::MAX` when it declared nothing.
    pub(super) body_left: u64,
    /// Offset in everything ever written where the HEAD that opened it ends; 0 when the peer opened it.
    pub(super) head_end: u64,
    /// Interim heads received.
    pub(super) interim: u8,
    /// What the shell could not send and has not been told that it now can.
    pub(super) wants: Wants,
    /// It stands in the queue of streams that may be able to send data.
    pub(super) queued: bool,
}

/// What a stream waits for to go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// It does not wait.
    Nothing,
    /// Room in the output, for a head or trailers.
    Room,
    /// Room in the output, and credit of both kinds, for data.
    Data,
}

impl Stream {
    /// True when nothing more will be sent, received or released.
    pub(super) fn is_over(&self) -> bool {
        self.send == Half::Done && self.receive == Half::Done && self.held == 0
    }
}

/// Streams in slots that are used again, and an index from number to slot.
///
/// The index is an open-addressing table with linear probing at most half full. Numbers are handed out one after
/// the other, a peer that skips one is cut off, so nobody can choose numbers that collide; the multiplicative
/// hash keeps a block of long-lived streams from standing in the way of the short ones after it.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The streams and the free slots between them.
    slots: Vec<Stream>,
    /// Free slots; the last one freed is used first.
    free: Vec<u32>,
    /// `(number, slot)`; number 0 is an empty place. Its length is a power of two, or 0.
    index: Vec<(u32, u32)>,
}

impl Table {
    /// Streams in the table.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The stream of this number.
    pub(super) fn find(&self, number: u32) -> Option<StreamId> {
        let mut at = self.place_of(number)?;
        loop {
            let (found, slot) = *self.index.get(at)?;
            if found == number && number != 0 {
                return Some(StreamId { number, slot });
            }
            if found == 0 {
                return None;
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    /// The stream behind an id, unless it is over.
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.slots.get(id.slot()).filter(|stream| stream.number == id.number)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id.slot()).filter(|stream| stream.number == id.number)
    }

    /// Adds a stream, whose number is in use nowhere.
    pub(super) fn insert(&mut self, stream: Stream) -> StreamId {
        if (self.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        let number = stream.number;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u32
            }
        };
        self.index_insert(number, slot);
        StreamId { number, slot }
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.number = 0;
        self.free.push(id.slot);
        self.index_remove(id.number);
    }

    /// The first stream at or after slot `from`; for walks over all of them.
    pub(super) fn next_from(&self, from: usize) -> Option<(StreamId, &Stream)> {
        let rest = self.slots.get(from..)?;
        let skip = rest.iter().position(|stream| stream.number != 0)?;
        let stream = &rest[skip];
        Some((StreamId { number: stream.number, slot: (from + skip) as u32 }, stream))
    }

    /// Where the search for `number` begins; `None` while the index is empty.
    fn place_of(&self, number: u32) -> Option<usize> {
        let bits = self.index.len().checked_ilog2()?;
        // Fibonacci hashing: consecutive numbers land far apart. Half the numbers are odd, so the lowest bit says
        // nothing.
        let hash = (number >> 1).wrapping_mul(0x9e37_79b9);
        Some((hash.checked_shr(32 - bits).unwrap_or(0)) as usize)
    }

    fn index_insert(&mut self, number: u32, slot: u32) {
        let Some(mut at) = self.place_of(number) else { return };
        while self.index[at].0 != 0 {
            at = (at + 1) & (self.index.len() - 1);
        }
        self.index[at] = (number, slot);
    }

    fn index_remove(&mut self, number: u32) {
        let Some(mut at) = self.place_of(number) else { return };
        let mask = self.index.len() - 1;
        while self.index[at].0 != number {
            if self.index[at].0 == 0 {
                return;
            }
            at = (at + 1) & mask;
        }
        // Pull later entries of the run forward, so that no search ends early at the hole.
        let mut hole = at;
        loop {
            at = (at + 1) & mask;
            let (other, slot) = self.index[at];
            let Some(home) = self.place_of(other).filter(|_| other != 0) else { break };
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.index[hole] = (other, slot);
                hole = at;
            }
        }
        self.index[hole] = (0, 0);
    }

    fn grow(&mut self) {
        let length = (self.index.len() * 2).max(INDEX_LENGTH_MIN);
        self.index.clear();
        self.index.resize(length, (0, 0));
        for slot in 0..self.slots.len() {
            let number = self.slots[slot].number;
            if number != 0 {
                self.index_insert(number, slot as u32);
            }
        }
    }

    /// Panics when the parts of the table contradict each other; for tests.
    pub(super) fn check_invariants(&self) {
        let live = self.slots.iter().filter(|stream| stream.number != 0).count();
        assert_eq!(live, self.len(), "free list and slots disagree");
        assert_eq!(
            live,
            self.index.iter().filter(|(number, _)| *number != 0).count(),
            "index and slots disagree"
        );
        for (slot, stream) in self.slots.iter().enumerate().filter(|(_, stream)| stream.number != 0) {
            let found = self.find(stream.number).map(StreamId::slot);
            assert_eq!(found, Some(slot), "stream {} cannot be found", stream.number);
        }
    }
}

/// Places in the index of the first table, a power of two.
const INDEX_LENGTH_MIN: usize = 16;
