//! How many requests are let through in a time. Done by [`crate::rate`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::matching::MatchSpec;
use crate::time::Duration;

/// One limit of a service or of a gateway's rule. Of several that concern one request all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateSpec {
    /// Shown to users; unique in its list. What the limit has counted is carried over a configuration change by it.
    pub name: Arc<str>,
    /// Which requests count; an empty one: all. Its sources are the callers whose identity was verified.
    pub when: MatchSpec,
    /// So many in each [`Self::per`]. From 1 to [`RATE_REQUESTS_MAX`].
    pub requests: u32,
    /// From [`RATE_PER_MIN`] to [`RATE_PER_MAX`].
    pub per: Duration,
    /// So many at once after a pause. From 1 to [`RATE_REQUESTS_MAX`].
    pub burst: u32,
    /// What gets a count of its own: every combination of these. Empty: all requests are counted together.
    pub by: Vec<RateKey>,
    /// Over what it holds.
    pub scope: RateScope,
    /// It is counted and said what would have been refused, and nothing is.
    pub dry_run: bool,
}

/// A part of what a request is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// The service that sends it, by the verified identity of its sidecar.
    Caller,
    /// The client's address, without a port.
    Client,
    /// A header, by its name in lower case; requests without it are counted together.
    Header(Arc<str>),
}

/// Over what a limit holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateScope {
    /// Each proxy counts for itself, over all of its workers.
    #[default]
    Instance,
    /// All proxies together. See [`crate::quota`].
    Mesh,
}

/// Largest number of requests and burst of a limit.
pub const RATE_REQUESTS_MAX: u32 = 1_000_000;
/// In how long a number of requests is counted when nothing is said.
pub const RATE_PER: Duration = Duration::from_secs(1);
/// The shortest: with [`RATE_REQUESTS_MAX`] requests in it, the whole nanoseconds between two of them are still 1 % exact.
pub const RATE_PER_MIN: Duration = Duration::from_millis(100);
/// The longest; what is counted by is lost with the process.
pub const RATE_PER_MAX: Duration = Duration::from_secs(86_400);
/// Most limits of one service or rule: each is looked at for every request.
pub const RATES_MAX: usize = 32;
/// Most parts of what a request is counted by.
pub const RATE_KEYS_MAX: usize = 8;

impl RateSpec {
    /// True when it asks for something that only a request has: a connection of bytes has none of it.
    pub fn looks_at_requests(&self) -> bool {
        self.when.looks_at_requests() || self.by.iter().any(|key| matches!(key, RateKey::Header(_)))
    }

    /// True when what was counted by one says nothing about the other.
    pub fn counts_otherwise(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.requests, it.per, it.burst, it.scope);
        of(self) != of(other) || self.by != other.by
    }
}
