//! Weighted turns: earliest deadline first. Each participant's next turn lies `1 / weight` after its last one, so
//! that any run of turns holds the shares to within one turn each. A pick costs O(log n); with equal weights it is
//! plain rotation.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Whose turn it is among a fixed number of participants.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// Each one's weight; those with 0 never have a turn.
    weights: Vec<u32>,
    /// `(when its next turn is due, index)`, earliest first.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// Entries taken off during one pick; kept for its memory.
    passed: Vec<(u64, u32)>,
}

/// Virtual time between two turns of a participant of weight 1. Divided by the weight, it keeps 2^32 steps of
/// precision, and 2^24 rounds pass before the sum could overflow, which `rewind` prevents.
const STRIDE: u64 = 1 << 40;

/// Virtual time is moved back to 0 before it gets here.
const REWIND_AT: u64 = 1 << 62;

impl Turns {
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let weights: Vec<u32> = weights.collect();
        let mut due = Vec::with_capacity(weights.len());
        for (at, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            due.push(Reverse((STRIDE / u64::from(*weight), at as u32)));
        }
        Self { weights, due: due.into(), passed: Vec::new() }
    }

    /// Goes on where `before` was if its participants were the same, so that a configuration swap does not begin
    /// every round anew.
    pub(super) fn following(self, before: Option<&Self>) -> Self {
        match before {
            Some(before) if before.weights == self.weights => before.clone(),
            _ => self,
        }
    }

    /// The one whose turn it is among those that fit. Those that do not fit keep their place in the line but save
    /// up no turns: when they fit again they do not get a burst.
    pub(super) fn next(&mut self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut found = None;
        while let Some(Reverse((due, at))) = self.due.pop() {
            if fits(at as usize) {
                found = Some((due, at));
                break;
            }
            self.passed.push((due, at));
        }
        let now = found.map_or(0, |(due, _)| due);
        for (due, at) in self.passed.drain(..) {
            self.due.push(Reverse((due.max(now), at)));
        }
        let (due, at) = found?;
        let weight = self.weights.get(at as usize).copied().unwrap_or(1).max(1);
        self.due.push(Reverse((due.saturating_add(STRIDE / u64::from(weight)), at)));
        if due > REWIND_AT {
            self.rewind(due);
        }
        Some(at as usize)
    }

    fn rewind(&mut self, by: u64) {
        let due = core::mem::take(&mut self.due).into_vec();
        self.due = due.into_iter().map(|Reverse((due, at))| Reverse((due.saturating_sub(by), at))).collect();
    }
}
