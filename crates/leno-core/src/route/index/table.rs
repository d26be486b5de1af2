//! Keys to places: a hash table with open addressing that is built once and then only read.

use alloc::vec::Vec;

use super::Place;

/// Filled to a half at most, so that a look ends after a step or two.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// A power of two.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    split: u32,
    place: Place,
}

impl Table {
    /// `(split, key, place)`, each pair of split and key once; no place is [`Place::Nowhere`], which marks a free slot.
    pub(super) fn new(entries: &[(u32, u64, Place)]) -> Self {
        let mut slots = alloc::vec![Slot::default(); (entries.len() * 2).next_power_of_two().max(2)];
        for (split, key, place) in entries {
            let mask = slots.len() - 1;
            let mut at = *key as usize & mask;
            while slots[at].place != Place::Nowhere {
                at = (at + 1) & mask;
            }
            slots[at] = Slot { key: *key, split: *split, place: *place };
        }
        Self { slots }
    }

    /// Where `key` leads in `split`.
    pub(super) fn get(&self, split: u32, key: u64) -> Place {
        let mask = self.slots.len() - 1;
        let mut at = key as usize & mask;
        loop {
            let slot = &self.slots[at & mask];
            if slot.place == Place::Nowhere || slot.key == key && slot.split == split {
                return slot.place;
            }
            at += 1;
        }
    }

    /// The most slots that any look can pass.
    #[cfg(test)]
    pub(super) fn longest_run(&self) -> usize {
        let runs = self.slots.split(|slot| slot.place == Place::Nowhere);
        runs.map(<[Slot]>::len).max().unwrap_or(0) + 1
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }
}
