//! Who takes part, and with what weight. Participants of one weight are a class; there are few classes however many
//! participants there are, so that a draw or a turn costs the same for 10 and for 10,000 endpoints.

use alloc::vec::Vec;

use crate::rng::Rng;

/// Draws before the list is walked: with two thirds of the participants unfit, all of them miss twice in a million times.
const DRAWS_MAX: usize = 32;

/// A fixed number of participants by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// By weight, the lightest first.
    classes: Vec<Class>,
    /// Participants by number, class after class, in order within one.
    members: Vec<u32>,
}

/// The participants of one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    weight: u32,
    /// Where its members are.
    start: u32,
    end: u32,
    /// The sum of the weights of all members of the classes before it.
    before: u64,
}

impl Shares {
    /// Participants are numbered as they come; those of weight 0 take no part.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let mut sorted: Vec<(u32, u32)> = weights.zip(0..).filter(|(weight, _)| *weight > 0).collect();
        sorted.sort_unstable();
        let mut classes = Vec::new();
        let (mut start, mut before) = (0, 0);
        for class in sorted.chunk_by(|a, b| a.0 == b.0) {
            let (weight, count) = (class[0].0, class.len() as u32);
            classes.push(Class { weight, start, end: start + count, before });
            start += count;
            before += u64::from(weight) * u64::from(count);
        }
        classes.shrink_to_fit();
        // Not collected in place: the members are half of the pairs that they were sorted as.
        let mut members = Vec::with_capacity(sorted.len());
        members.extend(sorted.into_iter().map(|(_, member)| member));
        Self { classes, members }
    }

    /// How many take part.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// True when all have the same weight.
    pub(super) fn is_even(&self) -> bool {
        self.classes.len() <= 1
    }

    /// Everybody who takes part, class after class.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| *member as usize)
    }

    /// One by chance, by weight, among those that fit. Costs a draw or two while most of them fit; where hardly any
    /// does, a walk over all.
    pub(super) fn draw(&self, rng: &mut Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let total = self.classes.last().map_or(0, |class| class.before + class.sum());
        // A short list is walked as fast as it is drawn from.
        for _ in 0..DRAWS_MAX.min(self.len()) {
            let member = self.of_ticket(rng.below(total));
            if let Some(member) = member.filter(|member| fits(*member)) {
                return Some(member);
            }
        }
        let fitting = || self.iter().filter(|(member, _)| fits(*member));
        let mut ticket = rng.below(fitting().map(|(_, weight)| u64::from(weight)).sum());
        for (member, weight) in fitting() {
            match ticket.checked_sub(u64::from(weight)) {
                Some(rest) => ticket = rest,
                None => return Some(member),
            }
        }
        None
    }

    /// Whose a ticket below the sum of all weights is.
    fn of_ticket(&self, ticket: u64) -> Option<usize> {
        let after = self.classes.partition_point(|class| class.before <= ticket);
        let class = self.classes.get(after.checked_sub(1)?)?;
        let member = u64::from(class.start) + (ticket - class.before) / u64::from(class.weight);
        self.members.get(member as usize).map(|member| *member as usize)
    }

    /// Each participant with its weight.
    fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        self.classes().flat_map(|(weight, members)| members.iter().map(move |at| (*at as usize, weight)))
    }

    /// The weight and the members of each class.
    pub(super) fn classes(&self) -> impl Iterator<Item = (u32, &[u32])> {
        (0..self.classes.len()).filter_map(|number| self.class(number))
    }

    /// The weight and the members of the class of this number.
    pub(super) fn class(&self, number: usize) -> Option<(u32, &[u32])> {
        let class = self.classes.get(number)?;
        Some((class.weight, self.members.get(class.start as usize..class.end as usize)?))
    }
}

impl Class {
    /// The weights of its members together.
    const fn sum(&self) -> u64 {
        self.weight as u64 * (self.end - self.start) as u64
    }
}
