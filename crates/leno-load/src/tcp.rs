//! Bytes without a protocol: bulk in both directions, checked byte by byte, and connections that carry one short exchange.
//!
//! A client first says in 16 bytes what it wants. They look like no protocol that a proxy knows.

pub(crate) mod bulk;
pub(crate) mod exchange;
pub(crate) mod upstream;

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Bytes without end.
    Download,
    /// To send bytes without end; every [`RECEIPT_BYTES`] that were right are acknowledged by one byte.
    Upload,
    /// Its first [`EXCHANGE_BYTES`], the order with them, back, and then the end.
    Exchange,
}

impl Order {
    const ALL: [Self; 3] = [Self::Download, Self::Upload, Self::Exchange];

    fn bytes(self) -> &'static [u8; ORDER_BYTES] {
        match self {
            Self::Download => b"\0\x01leno download\n",
            Self::Upload => b"\0\x01leno uploads.\n",
            Self::Exchange => b"\0\x01leno exchange\n",
        }
    }
}

/// Bytes of which each place has its own: a period that no power of two divides.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new() -> Self {
        let one = |at: usize| (at.wrapping_mul(at / 251 + 31) >> 3).to_le_bytes()[0];
        Self { bytes: (0..PERIOD + PIECE_BYTES).map(|at| one(at % PERIOD)).collect() }
    }

    /// From a place on, as many as there are in one piece, at most [`PIECE_BYTES`].
    pub(crate) fn from(&self, place: usize) -> &[u8] {
        let start = place % PERIOD;
        &self.bytes[start..start + PIECE_BYTES]
    }

    /// An error unless these bytes belong to this place.
    pub(crate) fn check(&self, place: usize, bytes: &[u8]) -> Result<(), String> {
        let mut at = place;
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.from(at)[..piece.len()] != *piece {
                return Err(format!("a wrong byte between {at} and {}", at + piece.len()));
            }
            at += piece.len();
        }
        Ok(())
    }
}

const ORDER_BYTES: usize = 16;
/// How much a client sends and gets back.
const EXCHANGE_BYTES: usize = 128;
/// An upload is acknowledged in steps of this.
const RECEIPT_BYTES: usize = 256 * 1024;
/// Written and compared at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A prime.
const PERIOD: usize = 65_521;

#[cfg(test)]
mod tests {
    use super::{PERIOD, PIECE_BYTES, Pattern};

    #[test]
    fn a_byte_from_another_place_is_a_wrong_one() {
        let pattern = Pattern::new();
        let mut bytes = pattern.from(10)[..PIECE_BYTES].to_vec();
        assert!(pattern.check(10, &bytes).is_ok());
        assert!(pattern.check(10 + PERIOD, &bytes).is_ok());
        assert!(pattern.check(10 + 65_536, &bytes).is_err());
        assert!(pattern.check(11, &bytes).is_err());
        bytes[PIECE_BYTES - 1] ^= 1;
        assert!(pattern.check(10, &bytes).is_err());
    }
}
