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

/// How long the beginnings in use are, so that a path is asked for no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Bit `n`: some have `n` bytes.
    lengths: [u64; 4],
    /// The longest.
    longest: usize,
}

/// What is longer is filed under so much of it.
const LENGTH_MAX: usize = 255;

impl Lengths {
    /// Notes that `text`, which is not empty, is in use. Returns the part that it is filed under.
    pub(super) fn add<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let part = text.get(..LENGTH_MAX).unwrap_or(text);
        self.longest = self.longest.max(part.len());
        if let Some(word) = self.lengths.get_mut(part.len() / 64) {
            *word |= 1 << (part.len() % 64);
        }
        part
    }

    fn has(&self, length: usize) -> bool {
        self.lengths.get(length / 64).is_some_and(|word| word >> (length % 64) & 1 == 1)
    }
}

/// The keys of every beginning of `path` of a length in use, in one pass.
pub(super) fn starts(seed: u64, path: &[u8], lengths: &Lengths, any_case: bool, mut each: impl FnMut(u64)) {
    let mut state = seed;
    for (at, byte) in path.iter().take(lengths.longest).enumerate() {
        state = step(state, *byte, any_case);
        if lengths.has(at + 1) {
            each(fold(state));
        }
    }
}

/// The key of one beginning.
pub(super) fn start(seed: u64, text: &[u8], any_case: bool) -> u64 {
    fold(text.iter().fold(seed, |state, byte| step(state, *byte, any_case)))
}

/// FNV-1a: what a shorter beginning has come to is where a longer one goes on.
const fn step(state: u64, byte: u8, any_case: bool) -> u64 {
    (state ^ (byte | if any_case { 0x20 } else { 0 }) as u64).wrapping_mul(0x100_0000_01b3)
}

/// The hash of `text` as it is.
pub(super) fn hash(seed: u64, text: &[u8]) -> u64 {
    hash_words(seed, text, 0)
}

/// The same for texts that differ only in ASCII case (and for a few others: `@` and a backtick are one here).
pub(super) fn hash_any_case(seed: u64, text: &[u8]) -> u64 {
    hash_words(seed, text, ANY_CASE)
}

/// One or the other.
pub(super) fn hash_case(seed: u64, text: &[u8], any_case: bool) -> u64 {
    hash_words(seed, text, if any_case { ANY_CASE } else { 0 })
}

/// The bit by which capitals differ, in each byte.
const ANY_CASE: u64 = 0x2020_2020_2020_2020;

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
