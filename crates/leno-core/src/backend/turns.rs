//! Weighted turns: earliest deadline first. Each participant's next turn lies `1 / weight` after its last one, so
//! that any run of turns holds the shares to within as many turns as there are weights; with equal weights it is plain
//! rotation.
//!
//! The members of a class take turns among themselves, and the classes among each other, each as often as its members
//! together. So a turn costs O(log classes). A member that does not fit just now is passed over and has used up its turn:
//! the others share by weight, and it is not looked at again before its next turn. With half of the weight away that
//! is one vain look per turn on average; at worst (hardly anybody fits) one turn costs three looks at each member.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::shares::Shares;

/// Whose turn it is among the participants of some [`Shares`].
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// The state of each class, by its number.
    lines: Vec<Line>,
    /// `(when its next turn is due, class)`, earliest first.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// Classes taken off during one search; kept for its memory.
    passed: Vec<(u64, u32)>,
}

/// The members of one class in line.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The place in the class of the member whose turn is next.
    next: usize,
    /// Virtual time between two turns of the class.
    stride: u64,
}

impl Turns {
    /// Turns that go on where `before` was: a class of a weight that was there before keeps its place in the line, and
    /// goes on with the member that was next or, by `moved` (an old number to a new one), the one after it. So a
    /// configuration swap does not begin every round anew, which would leave the last ones without any turn.
    pub(super) fn following(
        shares: &Shares,
        before: Option<(&Shares, &Self)>,
        moved: impl Fn(usize) -> usize,
    ) -> Self {
        let now = before.and_then(|(_, before)| before.due.peek()).map_or(0, |Reverse((due, _))| *due);
        let old = before.map_or_else(Vec::new, |(shares, before)| before.places(shares));
        let classes = shares.classes().count();
        let mut turns = Self {
            lines: Vec::with_capacity(classes),
            due: BinaryHeap::with_capacity(classes),
            passed: Vec::new(),
        };
        for (number, (weight, members)) in (0..).zip(shares.classes()) {
            let whole = u64::from(weight) * members.len() as u64;
            let mut line = Line { next: 0, stride: (STRIDE / whole).max(1) };
            let mut due = now + line.stride;
            if let Ok(at) = old.binary_search_by_key(&weight, |place| place.weight) {
                let place = &old[at];
                let next = moved(place.next);
                line.next = members.partition_point(|member| (*member as usize) < next) % members.len();
                // A class that has grown has more turns: what it still had to wait is that much less.
                let wait = u128::from(place.due - now) * u128::from(line.stride) / u128::from(place.stride);
                due = now + wait as u64;
            }
            turns.lines.push(line);
            turns.due.push(Reverse((due, number)));
        }
        turns
    }

    /// The one whose turn it is among those that fit. `shares` are the ones that it was made for.
    pub(super) fn next(&mut self, shares: &Shares, fits: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..LOOKS_PER_MEMBER * shares.len() {
            let mut first = self.due.peek_mut()?;
            let Reverse((due, number)) = *first;
            let line = self.lines.get_mut(number as usize)?;
            let (_, members) = shares.class(number as usize)?;
            let member = *members.get(line.next)? as usize;
            line.next = if line.next + 1 < members.len() { line.next + 1 } else { 0 };
            *first = Reverse((due.saturating_add(line.stride), number));
            drop(first);
            if due > REWIND_AT {
                self.rewind(due);
            }
            if fits(member) {
                return Some(member);
            }
        }
        self.search(shares, fits)
    }

    /// Whoever is next in the first class that has somebody who fits: when most of the weight is away, its turns would
    /// have to pass one by one before the turn of somebody light.
    fn search(&mut self, shares: &Shares, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut found = None;
        while let Some(Reverse((due, number))) = self.due.pop() {
            let line = self.lines.get_mut(number as usize);
            let (Some(line), Some((_, members))) = (line, shares.class(number as usize)) else { continue };
            let (already, coming) = members.split_at_checked(line.next).unwrap_or((&[], members));
            let mut waiting = coming.iter().chain(already).map(|member| *member as usize).zip(1..);
            if let Some((member, turns)) = waiting.find(|(member, _)| fits(*member)) {
                line.next = (line.next + turns) % members.len();
                let next = due.saturating_add(line.stride.saturating_mul(turns as u64));
                self.due.push(Reverse((next, number)));
                found = Some((due, member));
                break;
            }
            self.passed.push((due, number));
        }
        // They keep their place in the line but save up no turns: when they fit again they do not get a burst.
        let now = found.map_or(0, |(due, _)| due);
        self.due.extend(self.passed.drain(..).map(|(due, number)| Reverse((due.max(now), number))));
        found.map(|(_, member)| member)
    }

    fn rewind(&mut self, by: u64) {
        let line = core::mem::take(&mut self.due).into_iter();
        self.due = line.map(|Reverse((due, number))| Reverse((due.saturating_sub(by), number))).collect();
    }

    /// Where each class is in its round, the lightest first.
    fn places(&self, shares: &Shares) -> Vec<Place> {
        let place = |Reverse((due, number)): &Reverse<(u64, u32)>| {
            let (weight, members) = shares.class(*number as usize)?;
            let line = self.lines.get(*number as usize)?;
            let next = *members.get(line.next)? as usize;
            Some(Place { weight, due: *due, stride: line.stride, next })
        };
        let mut places: Vec<_> = self.due.iter().filter_map(place).collect();
        places.sort_unstable_by_key(|place| place.weight);
        places
    }
}

/// Where a class is in its round.
struct Place {
    weight: u32,
    due: u64,
    stride: u64,
    /// The number of the participant whose turn is next.
    next: usize,
}

/// Looks at turns as they come, times the number of members: enough for everybody's turn where weights are alike.
const LOOKS_PER_MEMBER: usize = 2;

/// Virtual time between two turns of a participant of weight 1. Divided by the weight of a whole class, up to 1,000
/// times 10,000, it keeps 2^32 steps of precision.
const STRIDE: u64 = 1 << 56;

/// Virtual time is moved back to 0 when it gets here.
const REWIND_AT: u64 = 1 << 62;
