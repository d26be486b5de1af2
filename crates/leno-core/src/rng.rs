//! Chance as an argument: a small seeded generator, the same numbers for the same seed on every machine.

/// SplitMix64. Fast, 64 bits of state, passes BigCrush; not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    /// Advanced by a fixed odd constant at every draw.
    state: u64,
}

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `times` draws on average; always for 0 and 1.
    pub fn one_in(&mut self, times: u64) -> bool {
        times <= 1 || self.below(times) == 0
    }
}
