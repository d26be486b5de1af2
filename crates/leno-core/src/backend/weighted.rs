//! Which of two drawn endpoints takes a request when weights differ. Both were drawn by weight already; if the idler one
//! always won, a busy service would load all alike, whatever the weights say. So load is measured per weight: the second
//! one takes it only if, with it, it still has no more per weight than the first has without it.

use super::endpoint::Endpoint;
use crate::spec::Balance;

/// Latencies within this factor of each other are alike: weights decide.
const ALIKE: u64 = 2;

/// True when the second takes it.
#[cold]
pub(super) fn prefers(first: &Endpoint, second: &Endpoint, balance: Balance) -> bool {
    let weight = |endpoint: &Endpoint| u64::from(endpoint.spec.weight);
    let load = |endpoint: &Endpoint| u64::from(endpoint.load());
    let has_room = (load(second) + 1) * weight(first) <= load(first) * weight(second);
    if balance != Balance::PeakEwma {
        return has_room;
    }
    let (own, other) = (first.live.rtt.get(), second.live.rtt.get());
    let slower = |a: u64, b: u64| b > 0 && a > ALIKE.saturating_mul(b);
    if slower(own, other) {
        // It takes what the slow one would have had, until it has as much to do for its speed.
        return other.saturating_mul(load(second) + 1) <= own.saturating_mul(load(first) + 1);
    }
    has_room && !slower(other, own)
}
