//! Rate limits: how many requests pass in a time.
//!
//! Each limit is a token bucket, kept as one number: the time at which it will be full again (GCRA, the *theoretical
//! arrival time*). A request moves that time on by the limit's interval, and passes if it is then no further away than
//! the burst's worth of intervals. So a limit is exact, over all workers of a process, by one compare-and-swap on one
//! atomic; what two of them see as *now* may differ by a turn of a worker, and the one that is late is the stricter one.
//!
//! In any time `t` no more than `burst + t × requests / per` requests pass. The interval is rounded up to whole
//! nanoseconds: what passes in the long run is less than that by at most one nanosecond for each request.
//!
//! What is counted by keys has a bucket for each, in a table of fixed size (`keys`). A limit that holds mesh-wide has the
//! same buckets; only its interval is that of the proxy's present share ([`Rate::set_share`], [`crate::quota`]).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::head::RequestHead;
use crate::name::ServiceId;
use crate::quota::LEASE;
use crate::route::{Subject, matches};
use crate::spec::{EgressSource, RateScope, RateSpec};
use crate::time::{Duration, Instant};

mod charge;
mod keys;

pub use charge::{Charge, Charged, Verdict};
use keys::Keys;
pub use keys::{KEY_BYTES_MAX, KEYS_MAX};

/// All of a limit, as a share of one.
pub const WHOLE: u32 = 1_000_000_000;

/// A limit as a proxy applies it: what is configured, and what it has counted so far.
#[derive(Clone, Debug)]
pub struct Rate {
    /// What is configured.
    pub spec: Arc<RateSpec>,
    /// Whose limit it is: a service, or a gateway.
    pub owner: ServiceId,
    /// Its name there; of a gateway's rule, `RULE/NAME`.
    pub name: Arc<str>,
    /// What logs and metrics call it: `OWNER/NAME`.
    pub label: Arc<str>,
    /// How many proxies apply it, as far as this one knows by itself.
    pub proxies: usize,
    /// The callers that it concerns, as their names are written; empty: all.
    sources: Box<[Source]>,
    buckets: Arc<Buckets>,
    /// What has become of the requests that it concerns; goes on when the limit is changed.
    pub tally: Arc<Tally>,
}

/// A caller, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Service(Box<str>),
    /// Names that begin with this, or names without a slash for the default namespace.
    Namespace(Option<Box<str>>),
}

/// What has become of requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those that passed.
    pub allowed: AtomicU64,
    /// Those that were refused.
    pub refused: AtomicU64,
    /// Those that would have been refused, if the limit were no dry run.
    pub would_refuse: AtomicU64,
    /// Those whose key had no place of its own.
    pub strangers: AtomicU64,
}

/// The counting part of a limit.
#[derive(Debug)]
struct Buckets {
    /// Nanoseconds between two requests at the proxy's present share.
    interval: AtomicU64,
    /// The same for the whole limit.
    whole_interval: u64,
    /// A burst's worth of intervals.
    tolerance: u64,
    /// The share, of [`WHOLE`].
    share: AtomicU32,
    /// When the one bucket is full again; of a limit with keys, that of those without a place.
    full: AtomicU64,
    keys: Option<Keys>,
}

/// How fast a bucket fills at the moment.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: u64,
    tolerance: u64,
}

/// What a limit says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// It passes.
    pub passes: bool,
    /// How many more would, at once.
    pub left: u32,
    /// Until the next one passes if this one does not.
    pub wait: Duration,
    /// Until a whole burst passes.
    pub reset: Duration,
}

impl Pace {
    /// Takes one request out of a bucket.
    fn take(self, full: &AtomicU64, now: u64) -> Answer {
        // In one order with whose place it is: see `keys`.
        let taken = full.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |full| {
            let next = full.max(now).saturating_add(self.interval);
            (next - now <= self.tolerance).then_some(next)
        });
        match taken {
            Ok(before) => self.answer(true, before.max(now).saturating_add(self.interval), now),
            Err(full) => self.answer(false, full.max(now), now),
        }
    }

    /// Gives back what was taken: the request is refused for another reason.
    fn give_back(self, full: &AtomicU64) {
        // Whoever looked meanwhile was refused too early at the worst.
        let _ = full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            Some(full.saturating_sub(self.interval))
        });
    }

    fn answer(self, passes: bool, full: u64, now: u64) -> Answer {
        let behind = full.saturating_sub(now);
        let left = self.tolerance.saturating_sub(behind) / self.interval.max(1);
        let wait = behind.saturating_add(self.interval).saturating_sub(self.tolerance);
        Answer {
            passes,
            left: u32::try_from(left).unwrap_or(u32::MAX),
            wait: Duration::from_nanos(wait),
            reset: Duration::from_nanos(behind),
        }
    }

    /// Moves a bucket from one pace to another without a request more or less in it, as far as the new one has room.
    fn carry(self, to: Self, full: &AtomicU64, now: u64) {
        let _ = full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let room = self.tolerance.saturating_sub(full.saturating_sub(now));
            // In requests, times the new interval: what the bucket has, at the new pace.
            let has = u128::from(room) * u128::from(to.interval) / u128::from(self.interval.max(1));
            let has = u64::try_from(has).unwrap_or(u64::MAX).min(to.tolerance);
            Some(now.saturating_add(to.tolerance - has))
        });
    }
}

impl Buckets {
    fn new(spec: &RateSpec, seed: u64, share: u32) -> Self {
        let per = u64::try_from(spec.per.as_nanos()).unwrap_or(u64::MAX);
        let whole_interval = per.div_ceil(u64::from(spec.requests.max(1))).max(1);
        let tolerance = whole_interval.saturating_mul(u64::from(spec.burst.max(1))).min(TOLERANCE_MAX);
        Self {
            interval: AtomicU64::new(interval_of(whole_interval, share)),
            whole_interval,
            tolerance,
            share: AtomicU32::new(share),
            full: AtomicU64::new(0),
            keys: (!spec.by.is_empty()).then(|| Keys::new(seed)),
        }
    }

    fn pace(&self) -> Pace {
        self.pace_at(self.interval.load(Ordering::Relaxed))
    }

    /// A bucket of a share has a share of the burst, and always room for one request: a share of less than one would never
    /// let anybody pass.
    fn pace_at(&self, interval: u64) -> Pace {
        Pace { interval, tolerance: self.tolerance.max(interval) }
    }
}

/// Nanoseconds between two requests for somebody who has a share of a limit; at least a minute's share of nothing.
fn interval_of(whole: u64, share: u32) -> u64 {
    let interval = u128::from(whole) * u128::from(WHOLE) / u128::from(share.max(1));
    u64::try_from(interval).unwrap_or(u64::MAX).min(TOLERANCE_MAX)
}

/// No bucket looks further ahead than this, so that sums of times do not overflow: 146 years.
const TOLERANCE_MAX: u64 = u64::MAX / 4;

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The caller's service, verified, as it is written; empty where nobody has verified anything.
    pub caller: &'a str,
    /// The client's address.
    pub client: IpAddr,
}

impl Rate {
    /// True when it counts this request, as far as that does not depend on who sends it.
    pub fn concerns(&self, subject: &Subject<'_>) -> bool {
        matches(&self.spec.when, subject)
    }

    /// True when it counts what `sender` sends.
    fn counts(&self, sender: &Sender<'_>) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|source| source.covers(sender.caller))
    }

    /// Counts one request, or says that it is one too many.
    fn take(&self, head: &RequestHead<'_>, sender: &Sender<'_>, now: Instant) -> (Answer, Taken) {
        let (mut answer, taken) = self.count(head, sender, now);
        if self.spec.scope == RateScope::Mesh {
            // Who has next to no share of a limit gets one with its next lease: nobody is sent away for years.
            let most = LEASE.max(Duration::from_nanos(self.buckets.tolerance));
            (answer.wait, answer.reset) = (answer.wait.min(most), answer.reset.min(most));
        }
        (answer, taken)
    }

    fn count(&self, head: &RequestHead<'_>, sender: &Sender<'_>, now: Instant) -> (Answer, Taken) {
        let (now, pace) = (now.as_nanos(), self.buckets.pace());
        let Some(keys) = &self.buckets.keys else {
            return (pace.take(&self.buckets.full, now), Taken { pace, place: None });
        };
        let key = keys.key(&self.spec.by, head, sender);
        if let Some((answer, place)) = keys.count(key, pace, now) {
            return (answer, Taken { pace, place: Some(place) });
        }
        self.tally.strangers.fetch_add(1, Ordering::Relaxed);
        (pace.take(&self.buckets.full, now), Taken { pace, place: None })
    }

    fn give_back(&self, taken: Taken) {
        let key = taken.place.and_then(|place| self.buckets.keys.as_ref()?.full(place));
        taken.pace.give_back(key.unwrap_or(&self.buckets.full));
    }

    /// The share of the limit that this proxy has, of [`WHOLE`].
    pub fn share(&self) -> u32 {
        self.buckets.share.load(Ordering::Relaxed)
    }

    /// Gives this proxy another share of the limit. What a bucket holds stays in it: of a larger share only what
    /// comes in from now on is more, so that moving a share around makes no request out of nothing.
    pub fn set_share(&self, share: u32, now: Instant) {
        let buckets = &*self.buckets;
        if buckets.share.swap(share, Ordering::Relaxed) == share {
            return;
        }
        let (from, to) = (buckets.pace(), buckets.pace_at(interval_of(buckets.whole_interval, share)));
        let now = now.as_nanos();
        let carry = || {
            from.carry(to, &buckets.full, now);
            if let Some(keys) = &buckets.keys {
                from.carry(to, keys.floor(), now);
                keys.each(|full| from.carry(to, full, now));
            }
        };
        // Between the two steps the bucket must be the stricter one: who gets more first pays in what the bucket would gain.
        if to.interval < from.interval {
            carry();
            buckets.interval.store(to.interval, Ordering::Relaxed);
        } else {
            buckets.interval.store(to.interval, Ordering::Relaxed);
            carry();
        }
    }

    /// Requests that the limit has seen, whatever has become of them; what a share is asked for by.
    pub fn seen(&self) -> u64 {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        of(&self.tally.allowed) + of(&self.tally.refused) + of(&self.tally.would_refuse)
    }

    /// Requests in a second, as the whole limit allows them.
    pub fn per_second(spec: &RateSpec) -> f64 {
        f64::from(spec.requests) / spec.per.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// What was taken from a limit, so that it can be given back.
#[derive(Clone, Copy, Debug)]
struct Taken {
    pace: Pace,
    place: Option<usize>,
}

impl Source {
    fn new(source: &EgressSource) -> Self {
        match source {
            EgressSource::Service(id) => Self::Service(alloc::format!("{id}").into()),
            EgressSource::Namespace(namespace) if namespace.as_str() == crate::name::DEFAULT_NAMESPACE => {
                Self::Namespace(None)
            }
            EgressSource::Namespace(namespace) => {
                Self::Namespace(Some(alloc::format!("{namespace}/").into()))
            }
        }
    }

    fn covers(&self, caller: &str) -> bool {
        match self {
            Self::Service(name) => **name == *caller,
            Self::Namespace(None) => !caller.is_empty() && !caller.contains('/'),
            Self::Namespace(Some(start)) => caller.starts_with(&**start),
        }
    }
}

/// What all limits of a process have counted: it does not change with the configuration.
#[derive(Debug, Default)]
pub struct RateBook {
    seed: u64,
    /// What a proxy begins with of a limit that holds mesh-wide, where it gets its shares from elsewhere.
    first_share: Option<u32>,
    known: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    rate: Rate,
    /// The present snapshot has it.
    used: bool,
}

impl RateBook {
    /// An empty one. `seed` is what nobody outside knows, so that nobody can choose keys that share a place. With `leased`
    /// somebody gives out the shares of limits that hold mesh-wide.
    pub fn new(seed: u64, leased: bool) -> Self {
        Self { seed, first_share: leased.then_some(FIRST_SHARE), known: BTreeMap::new() }
    }

    pub(crate) fn begin(&mut self) {
        self.known.values_mut().for_each(|known| known.used = false);
    }

    pub(crate) fn end(&mut self) {
        self.known.retain(|_, known| known.used);
    }

    /// The limit `name` of `owner`. `proxies`: how many apply it, as far as this one knows.
    pub(crate) fn rate(
        &mut self,
        owner: &ServiceId,
        name: &Arc<str>,
        spec: &Arc<RateSpec>,
        proxies: usize,
    ) -> Rate {
        let label: Arc<str> = alloc::format!("{owner}/{name}").into();
        let before = self.known.get(&label).map(|known| &known.rate);
        let buckets = match before.filter(|before| !before.spec.counts_otherwise(spec)) {
            Some(before) => before.buckets.clone(),
            None => {
                let share = match spec.scope {
                    RateScope::Instance => WHOLE,
                    RateScope::Mesh => self.first_share.unwrap_or_else(|| even(proxies)),
                };
                Arc::new(Buckets::new(spec, self.seed, share))
            }
        };
        let rate = Rate {
            spec: spec.clone(),
            owner: owner.clone(),
            name: name.clone(),
            label: label.clone(),
            proxies,
            // Whose labels are asked for is refused where such a limit is read: only a caller's own proxy knows them.
            sources: spec.when.sources.iter().filter_map(|it| it.who.as_ref()).map(Source::new).collect(),
            buckets,
            tally: before.map(|before| before.tally.clone()).unwrap_or_default(),
        };
        self.known.insert(label, Known { rate: rate.clone(), used: true });
        rate
    }
}

/// A share for each of so many.
pub fn even(proxies: usize) -> u32 {
    WHOLE / u32::try_from(proxies).unwrap_or(u32::MAX).max(1)
}

/// What a proxy begins with until it has heard of its share: one request, and next to nothing after it.
const FIRST_SHARE: u32 = WHOLE / 1000;

/// Every limit of `rates`, each once.
pub(crate) fn distinct(rates: Vec<Rate>) -> Vec<Rate> {
    let mut kept: Vec<Rate> = Vec::with_capacity(rates.len());
    for rate in rates {
        if !kept.iter().any(|it| it.label == rate.label) {
            kept.push(rate);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
