//! When a second attempt is begun beside one that takes long.

use crate::time::Duration;

/// When a request that takes long gets a second attempt at another endpoint, whichever answers first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HedgeSpec {
    /// How long the first attempt has for the head of its answer.
    pub after: HedgeAfter,
    /// Second attempts for each hundred requests that may have one, at most [`HEDGE_PERCENT_MAX`]. 0: none at all, also where
    /// the service has them.
    pub percent: u32,
}

/// How long a first attempt has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HedgeAfter {
    /// As long as this share of the answers has taken lately, in percent: from [`HEDGE_QUANTILE_MIN`] to
    /// [`HEDGE_QUANTILE_MAX`].
    Quantile(u32),
    /// So long.
    Time(Duration),
}

/// Second attempts for each hundred requests: a service that gets 5 percent more does not notice, and the slowest 5 percent
/// are those that are worth it ("The Tail at Scale", Dean and Barroso).
pub const HEDGE_PERCENT: u32 = 5;
/// One for each request.
pub const HEDGE_PERCENT_MAX: u32 = 100;
/// What a first attempt has is at least what half of the answers take.
pub const HEDGE_QUANTILE_MIN: u32 = 50;
/// And at most what all but one of a hundred take: beyond there is too little to tell it from.
pub const HEDGE_QUANTILE_MAX: u32 = 99;
/// The longest request body that is kept so that a second attempt can send it, where no policy of retries says another one:
/// what such a policy keeps.
pub const HEDGE_BODY_BYTES_MAX: u32 = 64 << 10;

impl HedgeSpec {
    /// There are none.
    pub const NONE: Self = Self { after: HedgeAfter::Quantile(95), percent: 0 };
}
