//! Consistent hashing: the same key goes to the same endpoint, for every caller, as long as it is there.
//!
//! *Ring*: each endpoint has points on a circle, as many as its weight asks for; a key goes to the next point. *Maglev*:
//! each endpoint fills its part of a table in an order of its own; a key goes to the entry that its hash names. The ring
//! moves fewer keys when endpoints come and go, the table divides more evenly and is looked up faster.
//!
//! Both are made of all endpoints that have a weight, also of those that take no requests just now: a key whose endpoint is
//! unhealthy, put out or full goes on to the next one, and everybody else's stays. Nothing is made anew when one falls ill.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::spec::EndpointSpec;

/// Points on the ring of the heaviest endpoint: shares within some 6 % of what weights ask for.
const POINTS: usize = 256;
/// Points on a ring, at most about; with more endpoints each has fewer, at least [`POINTS_MIN`].
const RING_MAX: usize = 1 << 18;
const POINTS_MIN: usize = 16;
/// Entries of a Maglev table, a prime (Envoy's and Istio's size): shares within 1 % for up to 600 endpoints.
const TABLE: usize = 65_537;
/// Entries that are looked at before the endpoints are tried one by one.
const PROBES: u64 = 64;

/// From keys to endpoints.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    /// What it was made of.
    made_of: Vec<(Arc<str>, u32)>,
    lookup: Lookup,
}

#[derive(Clone, Debug)]
enum Lookup {
    /// `(point, endpoint)`, sorted.
    Ring(Arc<[(u64, u32)]>),
    /// Endpoints.
    Table(Arc<[u32]>),
}

impl Hashing {
    /// For these endpoints, which are in the order of their names; `before` is used again when it is the same.
    pub(super) fn new(endpoints: &[Arc<EndpointSpec>], maglev: bool, before: Option<&Self>) -> Self {
        let made_of: Vec<(Arc<str>, u32)> =
            endpoints.iter().map(|endpoint| (endpoint.name.clone(), endpoint.weight)).collect();
        let same =
            |known: &&Self| matches!(known.lookup, Lookup::Table(_)) == maglev && known.made_of == made_of;
        if let Some(known) = before.filter(same) {
            return known.clone();
        }
        let lookup = if maglev { table(&made_of) } else { ring(&made_of) };
        Self { made_of, lookup }
    }

    /// The endpoint of a key: the first that fits, beginning with its own.
    pub(super) fn pick(&self, key: u64, fits: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.lookup {
            Lookup::Ring(points) => {
                let start = points.partition_point(|(point, _)| *point < key);
                let (before, after) = points.split_at_checked(start)?;
                let mut last = u32::MAX;
                after.iter().chain(before).map(|(_, endpoint)| *endpoint).find_map(|endpoint| {
                    // Points of one endpoint often lie side by side.
                    let new = core::mem::replace(&mut last, endpoint) != endpoint;
                    (new && fits(endpoint as usize)).then_some(endpoint as usize)
                })
            }
            Lookup::Table(entries) => {
                let entry = |probe: u64| {
                    let at = mixed(key.wrapping_add(probe)) % (entries.len() as u64).max(1);
                    entries.get(at as usize).map(|endpoint| *endpoint as usize)
                };
                let found = (0..PROBES).filter_map(entry).find(|endpoint| fits(*endpoint));
                let taking =
                    || (0..self.made_of.len()).filter(|at| self.made_of.get(*at).is_some_and(|it| it.1 > 0));
                found.or_else(|| taking().find(|endpoint| fits(*endpoint)))
            }
        }
    }
}

fn ring(endpoints: &[(Arc<str>, u32)]) -> Lookup {
    let heaviest = endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0).max(1);
    // In steps of two, so that one endpoint more does not change everybody's points.
    let most = (RING_MAX / endpoints.len().max(1)).clamp(POINTS_MIN, POINTS).next_power_of_two();
    let mut points = Vec::new();
    for ((name, weight), number) in endpoints.iter().zip(0..) {
        let count = (most as u64 * u64::from(*weight)).div_ceil(u64::from(heaviest));
        let name = of_bytes(name.as_bytes());
        points.extend((0..count).map(|at| (mixed(name ^ mixed(at)), number)));
    }
    points.sort_unstable();
    Lookup::Ring(points.into())
}

fn table(endpoints: &[(Arc<str>, u32)]) -> Lookup {
    const EMPTY: u32 = u32::MAX;
    let heaviest = f64::from(endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0).max(1));
    let size = TABLE as u64;
    // Where each looks next, how far it goes on, its turns per round, and the turns that it has saved up.
    let mut fillers: Vec<(u32, u64, u64, f64, f64)> = endpoints
        .iter()
        .zip(0..)
        .filter(|((_, weight), _)| *weight > 0)
        .map(|((name, weight), number)| {
            let hash = of_bytes(name.as_bytes());
            let skip = 1 + mixed(!hash) % (size - 1);
            (number, hash % size, skip, f64::from(*weight) / heaviest, 0.0)
        })
        .collect();
    let mut entries = alloc::vec![EMPTY; if fillers.is_empty() { 0 } else { TABLE }];
    let mut left = entries.len();
    while left > 0 {
        for (number, next, skip, turns, saved) in &mut fillers {
            *saved += *turns;
            // A rounding error must not cost the heaviest its turn.
            if *saved < 1.0 - 1e-9 || left == 0 {
                continue;
            }
            *saved -= 1.0;
            while let Some(entry) = entries.get_mut(*next as usize) {
                *next = (*next + *skip) % size;
                if *entry == EMPTY {
                    *entry = *number;
                    left -= 1;
                    break;
                }
            }
        }
    }
    Lookup::Table(entries.into())
}

/// FNV-1a, with every bit in every other. It must not change while proxies of two versions serve the same clients.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(hash)
}

const fn mixed(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
