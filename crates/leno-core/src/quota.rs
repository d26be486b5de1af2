//! Limits that hold mesh-wide: who may use how much of one, by leases of shares.
//!
//! Each proxy that applies such a limit has a share of it, and asks the control plane for the share that it needs every
//! [`ASK_INTERVAL`], with the demand that it has seen. The answer is a lease: a share for [`LEASE`]. The office gives out by
//! demand, max-min fair: whoever wants little gets it, the others get equally much, and what nobody wants is
//! spread evenly, so that the first requests of somebody who was idle find something.
//!
//! **What never happens** while proxies and the control plane hear each other: that shares in use add up to more than the whole. A share is made larger
//! only by what is certainly free: what a proxy had before counts until it says that it applies less, or until its lease has
//! ended. With buckets that keep what they hold when a share changes ([`crate::rate::Rate::set_share`]), what passes in any
//! time `t` through `n` proxies is at most `burst + n + t × requests / per`.
//!
//! **What happens without a control plane**: a lease ends, and its holder falls to the even share of those that there were when it
//! last heard of them. Shares that were not even may then add up to more than the whole until the last old lease has ended: no
//! longer than one [`LEASE`], so that no more than `LEASE × requests / per` pass besides. A proxy that alone is cut off goes on with that
//! even share. The office keeps it free for [`FORGET`]; then it takes the proxy for dead, and gives its share to the others.
//! An office that has just begun gives out nothing new until whatever its predecessor leased has ended.
//!
//! Both halves are pure. Times of the two are never compared: a lease is counted from when it was asked for by who asked, and from
//! when it was given by who gave it, which is later.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::name::{Label, ServiceId};
use crate::rate::{WHOLE, even};
use crate::time::{Duration, Instant};

/// How often a proxy asks.
pub const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a share may be used. Some questions may be lost before it ends.
pub const LEASE: Duration = Duration::from_secs(2);
/// How long a question waits for its answer.
pub const ASK_WITHIN: Duration = Duration::from_millis(500);
/// How long the share of a proxy that says nothing is kept free: as long as an instance may be silent before it is removed.
pub const FORGET: Duration = Duration::from_secs(10);
/// A lease as the office counts it: a holder may find out that it has ended only when it is done with a question.
const LEASE_KEPT: Duration = Duration::from_millis(2_500);
/// Of a limit, this part is kept for those who want nothing at the moment.
const IDLE_PART: u32 = WHOLE / 100;
/// How often shares are worked out anew at most.
const WORK_INTERVAL: Duration = Duration::from_millis(100);
/// Proxies that can have a share of one limit.
pub const HOLDERS_MAX: usize = 10_000;

/// Which limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitId {
    /// The service or gateway whose it is.
    pub owner: ServiceId,
    /// Its name there.
    pub name: Arc<str>,
}

/// A proxy that applies a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderId {
    /// By its certificate.
    pub service: ServiceId,
    /// What it calls itself.
    pub instance: Label,
}

/// What a proxy says about a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Grows with each question of one proxy, also over its restarts.
    pub number: u64,
    /// Requests that it has seen lately, as a part of what the limit lets through, of [`WHOLE`]; may be more than that.
    pub demand: u64,
    /// The lease that it applies; 0: none.
    pub lease: u64,
    /// Its share, and how long it may be used yet.
    pub held: u32,
    /// See [`Self::held`].
    pub left: Duration,
}

/// A share for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Told back with the next question.
    pub lease: u64,
    /// Of [`WHOLE`].
    pub share: u32,
    /// From when it was asked for.
    pub lasts: Duration,
    /// How many proxies share the limit.
    pub holders: u32,
}

/// The control plane's half.
#[derive(Debug)]
pub struct Office {
    /// When it began.
    opened: Instant,
    /// The last lease given.
    last: u64,
    desks: BTreeMap<LimitId, Desk>,
}

/// One limit.
#[derive(Debug, Default)]
struct Desk {
    holders: BTreeMap<HolderId, Holder>,
    /// When it was last worked out who should have how much.
    worked: Option<Instant>,
}

/// One proxy, as the office knows it.
#[derive(Debug)]
struct Holder {
    ask: u64,
    heard: Instant,
    /// Lately, of [`WHOLE`].
    demand: u64,
    /// What it may be using: the lease that it said it applies, and the one given to it after that.
    leases: [Option<Issued>; 2],
    /// What it falls to when its lease ends.
    fallback: u32,
    /// What it should have.
    target: u32,
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    lease: u64,
    share: u32,
    until: Instant,
}

impl Holder {
    fn is_silent(&self, now: Instant) -> bool {
        now.since(self.heard) >= LEASE_KEPT
    }

    /// What it may be using at the most.
    fn in_force(&self, now: Instant) -> u32 {
        let leased = self.leases.iter().flatten().filter(|issued| issued.until > now);
        leased.map(|issued| issued.share).max().unwrap_or(self.fallback)
    }
}

impl Office {
    /// An office that begins now. It keeps nothing: whatever was leased before ends by itself.
    pub const fn new(now: Instant) -> Self {
        Self { opened: now, last: 0, desks: BTreeMap::new() }
    }

    /// Answers a question; `None` when it is an old one that has been overtaken, or when there are too many proxies.
    pub fn ask(&mut self, limit: &LimitId, holder: &HolderId, ask: Ask, now: Instant) -> Option<Grant> {
        let settling = now.since(self.opened) < LEASE_KEPT;
        if !self.desks.contains_key(limit) {
            self.desks.insert(limit.clone(), Desk::default());
        }
        let desk = self.desks.get_mut(limit)?;
        let new = !desk.holders.contains_key(holder);
        if new && desk.holders.len() >= HOLDERS_MAX {
            return None;
        }
        let holders = desk.live(now) + usize::from(new);
        let known = desk.holders.entry(holder.clone()).or_insert_with(|| Holder::new(now));
        if ask.number <= known.ask {
            return None;
        }
        // What it says that it has from elsewhere is believed as far as somebody can have it: all of it only after a restart.
        let elsewhere = if settling { WHOLE } else { known.fallback.max(even(holders)) };
        known.hear(ask, elsewhere, now);
        if new || desk.worked.is_none_or(|worked| now.since(worked) >= WORK_INTERVAL) {
            desk.work(now);
        }
        let others: u64 = desk
            .holders
            .iter()
            .filter(|(id, _)| *id != holder)
            .map(|(_, other)| u64::from(other.in_force(now)))
            .sum();
        let holders = desk.live(now);
        let free = u32::try_from(u64::from(WHOLE).saturating_sub(others)).unwrap_or(0);
        let known = desk.holders.get_mut(holder)?;
        let (had, wanted) =
            (ask.held, if settling { known.during_settling(ask, holders) } else { known.target });
        // A share that is nearly enough stays: moving it costs something, and gains nothing. One that is too large goes: where
        // somebody has nearly all, the little that is too much is all that another one needs.
        let nearly = had <= wanted && wanted - had <= wanted / 32;
        let stays = !settling && nearly && known.applies(ask);
        let share = if stays { had } else { wanted }.min(free);
        self.last += 1;
        let (lease, until) = (self.last, now.after(LEASE_KEPT));
        known.leases[1] = Some(Issued { lease, share, until });
        known.fallback = even(holders);
        Some(Grant { lease, share, lasts: LEASE, holders: u32::try_from(holders).unwrap_or(u32::MAX) })
    }

    /// A proxy has ended, and says so: what it had is free.
    pub fn forget(&mut self, holder: &HolderId) {
        for desk in self.desks.values_mut() {
            if desk.holders.remove(holder).is_some() {
                desk.worked = None;
            }
        }
    }

    /// Lets go of proxies that have said nothing for long, and of limits that nobody has.
    pub fn sweep(&mut self, now: Instant) {
        self.desks.retain(|_, desk| {
            desk.holders.retain(|_, holder| now.since(holder.heard) < FORGET);
            !desk.holders.is_empty()
        });
    }
}

impl Holder {
    const fn new(now: Instant) -> Self {
        Self { ask: 0, heard: now, demand: 0, leases: [None, None], fallback: 0, target: 0 }
    }

    /// Takes a question in: who asks has had the answer to the question before, or has given it up.
    fn hear(&mut self, ask: Ask, elsewhere: u32, now: Instant) {
        (self.ask, self.heard) = (ask.number, now);
        // The mean of about a second, so that the few requests of one interval do not move shares to and fro; but who suddenly
        // needs much more needs it now.
        let jumps = ask.demand > self.demand.saturating_add(u64::from(WHOLE) / 4);
        let smooth = (self.demand.saturating_mul(3)).saturating_add(ask.demand) / 4;
        self.demand = if jumps { ask.demand } else { smooth };
        let applied = self.leases.iter().flatten().find(|issued| issued.lease == ask.lease).copied();
        // One that is not known here was given by another office.
        let applied = applied.filter(|_| ask.lease > 0).unwrap_or(Issued {
            lease: ask.lease,
            share: ask.held.min(elsewhere),
            // What it has without a lease it has until it is given another one.
            until: now.after(if ask.left.is_zero() { FORGET } else { ask.left.min(LEASE_KEPT) }),
        });
        self.leases = [Some(applied), None];
    }

    /// True when what it holds was leased to it here.
    fn applies(&self, ask: Ask) -> bool {
        self.leases[0].is_some_and(|issued| issued.lease == ask.lease && issued.share == ask.held)
    }

    /// What it gets while others may still use what another office has leased to them: what it has, and who has nothing no
    /// more than the even share.
    fn during_settling(&self, ask: Ask, holders: usize) -> u32 {
        if ask.left.is_zero() { self.target.min(even(holders).max(ask.held)) } else { ask.held }
    }
}

impl Desk {
    /// How many proxies share the limit.
    fn live(&self, now: Instant) -> usize {
        self.holders.values().filter(|holder| !holder.is_silent(now)).count().max(1)
    }

    /// Works out who should have how much of what is not in the hands of those who say nothing.
    fn work(&mut self, now: Instant) {
        self.worked = Some(now);
        let silent = self.holders.values().filter(|holder| holder.is_silent(now));
        let kept: u64 = silent.map(|holder| u64::from(holder.in_force(now))).sum();
        let mut left = u64::from(WHOLE).saturating_sub(kept);
        let mut wanting: Vec<&mut Holder> =
            self.holders.values_mut().filter(|holder| !holder.is_silent(now)).collect();
        let idle = u64::from(IDLE_PART) / wanting.len().max(1) as u64;
        // A little more than there was: a bucket that is filled no faster than it is emptied stays empty.
        let wanted = |holder: &Holder| idle.saturating_add(holder.demand).saturating_add(holder.demand / 8);
        wanting.sort_by_key(|holder| wanted(holder));
        let count = wanting.len() as u64;
        for (at, holder) in wanting.iter_mut().enumerate() {
            let share = wanted(holder).min(left / (count - at as u64));
            left -= share;
            holder.target = u32::try_from(share).unwrap_or(WHOLE);
        }
        let more = u32::try_from(left / count.max(1)).unwrap_or(0);
        wanting.iter_mut().for_each(|holder| holder.target += more);
    }
}

/// The proxy's half, for one limit.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// The lease applied; 0: none.
    lease: u64,
    /// When its share may not be used any more, or when a first one should have come.
    until: Instant,
    /// How many proxies share the limit, as last heard.
    holders: usize,
    /// What the limit had seen when it was last asked, and when that was.
    seen: (u64, Instant),
}

impl Tenure {
    /// Of a limit that is applied from now on, by so many proxies as far as this one knows.
    pub const fn new(proxies: usize, seen: u64, now: Instant) -> Self {
        Self { lease: 0, until: Instant::ZERO, holders: proxies, seen: (seen, now) }.first(now)
    }

    const fn first(mut self, now: Instant) -> Self {
        self.until = Instant::from_nanos(now.as_nanos().saturating_add(LEASE.as_nanos() as u64));
        self
    }

    /// What is said when it is asked now, of a limit that lets so many requests through in a second and has seen so many.
    pub fn ask(&mut self, number: u64, seen: u64, per_second: f64, share: u32, now: Instant) -> Ask {
        let (before, since) = core::mem::replace(&mut self.seen, (seen, now));
        let elapsed = now.since(since).as_secs_f64().max(0.001);
        let rate = seen.saturating_sub(before) as f64 / elapsed;
        let demand = rate / per_second.max(f64::MIN_POSITIVE) * f64::from(WHOLE);
        let left = if self.lease == 0 { Duration::ZERO } else { self.until.since(now) };
        Ask { number, demand: demand as u64, lease: self.lease, held: share, left }
    }

    /// Takes the answer to a question of `asked` in: the share that is to be used.
    pub fn take(&mut self, grant: &Grant, asked: Instant) -> u32 {
        (self.lease, self.until) = (grant.lease, asked.after(grant.lasts.min(LEASE)));
        self.holders = grant.holders.max(1) as usize;
        grant.share
    }

    /// The share to fall to, when the lease has ended.
    pub fn fall_back(&mut self, now: Instant) -> Option<u32> {
        (self.until <= now).then(|| {
            self.lease = 0;
            even(self.holders)
        })
    }
}

#[cfg(test)]
mod tests;
