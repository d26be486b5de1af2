//! What a text is filed under: hashes of the whole and of its prefixes or suffixes by whole segments.

/// How deep the prefixes (or suffixes) in use are, so that a head is asked for no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depths {
    /// Bit `n`: some have `n` separators.
    depths: u64,
    /// The longest, in bytes.
    longest: usize,
}

impl Depths {
    /// Notes that `part` is in use; false when it is too deep to be noted.
    pub(super) fn add(&mut self, part: &[u8], separator: u8) -> bool {
        let depth = part.iter().filter(|byte| **byte == separator).count();
        if depth > DEPTH_MAX {
            return false;
        }
        self.depths |= 1 << depth;
        self.longest = self.longest.max(part.len());
        true
    }

    const fn has(self, depth: usize) -> bool {
        self.depths >> depth & 1 == 1
    }

    /// True when none is as deep as `depth`, nor deeper.
    const fn all_above(self, depth: usize) -> bool {
        depth > DEPTH_MAX || self.depths >> depth == 0
    }
}

/// The deepest that is noted.
const DEPTH_MAX: usize = 63;

/// Every prefix of `path` of a depth in use that ends with a whole segment, without the slash behind it.
pub(super) fn prefixes(path: &[u8], depths: Depths, mut each: impl FnMut(&[u8])) {
    let mut depth = 0;
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' {
            if depths.all_above(depth) || at > depths.longest {
                return;
            }
            if depths.has(depth) {
                each(&path[..at]);
            }
            depth += 1;
        }
    }
    if !depths.all_above(depth) && depths.has(depth) && path.len() <= depths.longest {
        each(path);
    }
}

/// Every suffix of `host` of a depth in use that begins with a dot.
pub(super) fn suffixes(host: &[u8], depths: Depths, mut each: impl FnMut(&[u8])) {
    let mut depth = 0;
    for (at, byte) in host.iter().enumerate().rev() {
        if *byte == b'.' {
            depth += 1;
            if depths.all_above(depth) || host.len() - at > depths.longest {
                return;
            }
            if depths.has(depth) {
                each(&host[at..]);
            }
        }
    }
}

/// The hash of `text` as it is.
pub(super) fn hash(seed: u64, text: &[u8]) -> u64 {
    hash_words(seed, text, 0)
}

/// The same for texts that differ only in ASCII case (and for a few others: `@` and a backtick are one here).
pub(super) fn hash_any_case(seed: u64, text: &[u8]) -> u64 {
    hash_words(seed, text, 0x2020_2020_2020_2020)
}

/// By eight bytes at a time, each multiplied into the state and folded; `set` is set in every word.
fn hash_words(seed: u64, text: &[u8], set: u64) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mut state = fold(seed ^ text.len() as u64);
    for word in words {
        state = fold(state ^ (u64::from_le_bytes(*word) | set));
    }
    // The rest without a copy of variable length: two reads that may overlap, or three bytes that do.
    let last = match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => match rest {
            [] => return state,
            [first, .., last] => {
                u64::from(*first) | u64::from(rest[rest.len() / 2]) << 8 | u64::from(*last) << 16
            }
            [only] => u64::from(*only),
        },
    };
    fold(state ^ (last | set))
}

fn fold(state: u64) -> u64 {
    // 2^64 divided by the golden ratio, the usual odd constant; the product's halves mix its weak low bits with its strong
    // high ones.
    let product = u128::from(state) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}
