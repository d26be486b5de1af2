//! Near endpoints first. The endpoints of a backend are in levels ([`ZonePlan`]); the nearest one takes what it can, the rest
//! goes on to the next. Two things decide what a level can take:
//!
//! - *Who is there*: its share is that of its endpoints which take requests (healthy by their checks, reachable, not put out)
//!   times Envoy's overprovisioning. With the factor 1.4 a level takes all until 29 % of it are away.
//! - *Whether it keeps up*: when its answers take longer than they do in quiet times (or than those of the next level do now),
//!   no more requests are under way there than the rate of its answers and that latency come to, and half of it more.
//!   A zone with few instances and many callers is so used as far as it is fast, and no further. Envoy compares the numbers of
//!   callers and of endpoints in each zone instead, which needs to know all callers, and that they are alike.
//!
//! All of it is looked at a few times per second; a pick costs a look at two numbers and then what a pick costs.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;

use super::endpoint::{Chosen, Endpoint, Outcome};
use super::shares::Shares;
use super::turns::Turns;
use super::{Backend, NO_KEY, NoEndpoint};
use crate::rng::Rng;
use crate::snapshot::{BackendSpec, ZonePlan};
use crate::time::{Duration, Instant};

/// How often it is looked at what levels can take.
const LOOKED_AFTER: Duration = Duration::from_millis(250);
/// How soon when an endpoint fails: a zone that is gone is gone at once, and among 10,000 endpoints a look takes its time.
const LOOKED_AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How long it is remembered how fast a level was that gets no requests now.
const REMEMBERED: Duration = Duration::from_secs(10);
/// What is faster by less than this is not worth the way to another zone, whatever it is in percent.
const WORTH_IT_MICROS: u64 = 3_000;
/// A share of failures, of [`PARTS`], that is worth a try elsewhere: 5 %.
const BAD: u64 = PARTS / 20;
/// Answers in a look before their latency says something.
const ANSWERS_MIN: u32 = 8;
/// Shares are told apart in so many parts.
const PARTS: u64 = 1 << 16;
/// A level that does not keep up although few are under way gets less by this at each look, and by half of it more again when it
/// does. Some requests go there in any case, or nobody would know when it is fast again.
const SQUEEZE: u64 = PARTS / 8;
const SQUEEZED_MAX: u64 = PARTS * 63 / 64;

/// The endpoints of a backend by level.
#[derive(Debug)]
pub(super) struct Zones {
    plan: Arc<ZonePlan>,
    /// Those of each level that take requests, and whose turn it is among them.
    lanes: Vec<(Shares, Turns)>,
    loads: Rc<Loads>,
    /// Where the tickets of each level end, of [`PARTS`].
    ends: Vec<u64>,
}

/// What is under way on the levels of a backend, and how fast they are. Endpoints tell it, so it is where they find it.
#[derive(Debug)]
pub(super) struct Loads {
    levels: Box<[Load]>,
    /// When it is looked at next.
    due: Cell<Instant>,
    looked: Cell<Instant>,
    divided: Cell<Instant>,
}

#[derive(Debug, Default)]
struct Load {
    in_flight: Cell<u32>,
    /// Answers since the last look.
    answers: Cell<u32>,
    /// Latency in microseconds: the mean of the last dozen of answers.
    recent: Cell<u64>,
    /// In quiet times.
    quiet: Cell<u64>,
    /// Since the last look, in sum.
    micros: Cell<u64>,
    /// Requests that found nobody since the last look.
    refused: Cell<u32>,
    /// Requests that were answered badly or not at all since the last look, and the share of them lately, of [`PARTS`].
    failed: Cell<u32>,
    bad: Cell<u64>,
    /// When there was an answer last, as far as looks know.
    answered: Cell<Instant>,
    heard: Cell<Instant>,
    /// Answers per second.
    rate: Cell<u64>,
    /// So much may be under way while it does not keep up; 0: nobody knows yet.
    limit: Cell<u32>,
    /// It takes longer than it should: the limit holds.
    stressed: Cell<bool>,
    /// Latencies above this are too long.
    alarm: Cell<u64>,
    /// The part of its share that it does not get because it does not keep up.
    squeezed: Cell<u64>,
}

impl Loads {
    pub(super) fn new(levels: usize, before: Option<&Rc<Self>>) -> Rc<Self> {
        if let Some(before) = before.filter(|before| before.levels.len() == levels) {
            before.due.set(Instant::ZERO);
            return before.clone();
        }
        Rc::new(Self {
            levels: (0..levels).map(|_| Load::default()).collect(),
            due: Cell::default(),
            looked: Cell::default(),
            divided: Cell::default(),
        })
    }

    fn enter(&self, endpoint: &Endpoint) {
        if let Some(load) = self.levels.get(usize::from(endpoint.level)) {
            load.in_flight.set(load.in_flight.get() + 1);
        }
    }

    pub(super) fn leave(&self, endpoint: &Endpoint) {
        if let Some(load) = self.levels.get(usize::from(endpoint.level)) {
            load.in_flight.set(load.in_flight.get().saturating_sub(1));
        }
    }

    /// An endpoint of `level` had this outcome.
    pub(super) fn learn(&self, level: u8, outcome: Outcome, took: Duration) {
        let Some(load) = self.levels.get(usize::from(level)) else { return };
        let well = match outcome {
            Outcome::Reached => true,
            // A quick failure makes nobody fast.
            Outcome::Answered(status) => status < 500,
            Outcome::Ended(status) if status < 500 => return,
            Outcome::Outrun => return,
            // One that takes no more does not keep up either.
            Outcome::Ended(_) | Outcome::Shed => false,
            Outcome::Unreachable | Outcome::NoAnswer | Outcome::Cut => false,
        };
        if !well {
            // Who cannot be reached is counted out already.
            let count = if outcome == Outcome::Unreachable { &load.refused } else { &load.failed };
            count.set(count.get().saturating_add(1));
            self.due.set(self.due.get().min(self.divided.get().after(LOOKED_AFTER_FAILURE)));
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, 1_000_000_000);
        load.answers.set(load.answers.get().saturating_add(1));
        load.micros.set(load.micros.get().saturating_add(micros));
        let recent = match load.recent.get() {
            0 => micros,
            recent => (recent * 15 + micros) / 16,
        };
        load.recent.set(recent);
        load.stressed.set(load.alarm.get() > 0 && recent > load.alarm.get());
    }

    /// True when the level has as much under way as it should have.
    fn is_full(&self, level: usize) -> bool {
        self.levels
            .get(level)
            .is_some_and(|load| load.stressed.get() && load.in_flight.get() >= load.limit.get())
    }

    /// Takes note of how fast the levels were since the last look.
    fn measure(&self, overflow_percent: Option<u32>, now: Instant) {
        let since = now.since(self.looked.get());
        // A look that a failure brought forward measures nothing.
        if since < LOOKED_AFTER && self.looked.get() != Instant::ZERO {
            return;
        }
        self.looked.set(now);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        for load in &self.levels {
            let (answers, failed) = (load.answers.replace(0), load.failed.replace(0));
            let micros = load.micros.replace(0);
            let all = u64::from(answers) + u64::from(failed);
            if all > 0 || load.refused.replace(0) > 0 || load.in_flight.get() == 0 {
                load.answered.set(now);
            } else if load.recent.get() > 0 {
                // Nobody answers: so long it takes at least.
                let silence = now.since(load.answered.get()).as_micros();
                load.recent.set(load.recent.get().max(u64::try_from(silence).unwrap_or(u64::MAX)));
            }
            // One answer says little, a dozen nearly all.
            let share = u64::from(failed) * PARTS / all.max(1);
            load.bad.set(
                (load.bad.get() * u64::from(ANSWERS_MIN) + share * all) / (u64::from(ANSWERS_MIN) + all),
            );
            if all >= u64::from(ANSWERS_MIN) {
                load.heard.set(now);
            }
            let rate = u64::from(answers).saturating_mul(1000) / millis;
            load.rate.set((load.rate.get() + rate).div_ceil(2));
            if answers >= ANSWERS_MIN {
                let mean = (micros / u64::from(answers)).max(1);
                load.quiet.set(match load.quiet.get() {
                    0 => mean,
                    quiet if mean < quiet => quiet - (quiet - mean) / 8,
                    // What takes longer for long has become what it takes; but not while others take a part of it.
                    quiet if load.stressed.get() || load.squeezed.get() > 0 => quiet,
                    quiet => quiet + (mean - quiet) / 64,
                });
            }
        }
        for (at, load) in self.levels.iter().enumerate() {
            let next = self.levels.get(at + 1..).unwrap_or_default();
            let known = |load: &&Load| load.quiet.get() > 0 && now.since(load.heard.get()) < REMEMBERED;
            let next = match next {
                [] => continue,
                next => next.iter().find(known),
            };
            let keeps_up = overflow_percent.is_none_or(|percent| load.keeps_up(next, u64::from(percent)));
            // When others fail as often, it is nobody's fault.
            let fails = load.bad.get() > BAD && next.is_none_or(|next| next.bad.get() * 2 < load.bad.get());
            let squeezed = load.squeezed.get();
            load.squeezed.set(match (keeps_up, fails) {
                (true, false) => squeezed.saturating_sub(SQUEEZE / 2),
                (false, false) => (squeezed + SQUEEZE).min(SQUEEZED_MAX),
                // Here every request counts that is answered elsewhere.
                (_, true) => (squeezed + SQUEEZE * 2).min(SQUEEZED_MAX),
            });
        }
    }
}

impl Load {
    /// Finds out how much may be under way here, beside what is known of the `next` level; false when that does not help.
    fn keeps_up(&self, next: Option<&Self>, percent: u64) -> bool {
        // How long it would take elsewhere, if that is known: when all are slow, it is nobody's fault.
        let quiet = self.quiet.get();
        let usual = next.map_or(quiet, |next| next.recent.get().max(quiet.min(next.quiet.get())));
        if usual == 0 {
            self.alarm.set(0);
            return true;
        }
        let bearable = (usual * percent / 100).max(usual + WORTH_IT_MICROS);
        // Half of that is no reason to go far.
        self.alarm.set(usual.midpoint(bearable));
        self.stressed.set(self.recent.get() > self.alarm.get());
        // Beside the mean, what chance adds to it.
        let by_chance = 1_000 * self.rate.get().saturating_mul(usual).isqrt();
        let most = (self.rate.get().saturating_mul(bearable) + by_chance) / 1_000_000 + 1;
        self.limit.set(u32::try_from(most).unwrap_or(u32::MAX));
        self.recent.get() <= bearable
    }
}

impl Zones {
    pub(super) fn new(
        spec: &BackendSpec,
        loads: Option<&Rc<Loads>>,
        before: Option<&Self>,
        moved: &dyn Fn(usize) -> usize,
    ) -> Option<Self> {
        let (plan, loads) = (spec.zones.clone()?, loads?.clone());
        let lanes = (0..plan.levels.len()).map(|level| {
            let weights = spec.endpoints.iter().zip(&plan.of).map(|(endpoint, (of, _))| {
                if endpoint.healthy && usize::from(*of) == level { endpoint.weight } else { 0 }
            });
            let shares = Shares::new(weights);
            let before = before.and_then(|before| before.lanes.get(level));
            let turns = Turns::following(&shares, before.map(|(shares, turns)| (shares, turns)), moved);
            (shares, turns)
        });
        Some(Self { lanes: lanes.collect(), ends: Vec::new(), loads, plan })
    }

    /// Gives every level the tickets that it can take.
    fn divide(&mut self, endpoints: &[Rc<Endpoint>], panic: bool, now: Instant) {
        self.loads.measure(self.plan.overflow_percent, now);
        self.loads.divided.set(now);
        self.loads.due.set(now.after(LOOKED_AFTER));
        let there = |(shares, _): &(Shares, Turns)| -> u64 {
            let members = shares.members().filter_map(|at| endpoints.get(at));
            let taking = members.filter(|it| !it.cooling(now) || panic && it.ejected(now));
            taking.map(|endpoint| u64::from(endpoint.spec.weight)).sum()
        };
        let health = self.lanes.iter().zip(&self.plan.levels).map(|(lane, level)| {
            // In wide numbers: a weight is whatever an instance says that it is.
            let (there, percent) = (u128::from(there(lane)), u128::from(self.plan.overprovision_percent));
            let health = u128::from(PARTS) * there * percent / (100 * u128::from(level.weight.max(1)));
            u64::try_from(health).unwrap_or(PARTS).min(PARTS)
        });
        let mut left = PARTS;
        let parts: Vec<u64> = health
            .zip(&self.plan.levels)
            .zip(&self.loads.levels)
            .map(|((health, level), load)| {
                if self.plan.divided {
                    return health * u64::from(level.share);
                }
                let part = (health - health * load.squeezed.get() / PARTS).min(left);
                left -= part;
                part
            })
            .collect();
        let sum: u64 = parts.iter().sum();
        let mut end = 0;
        self.ends.clear();
        self.ends.extend(parts.iter().map(|part| {
            end += part;
            // When they cannot take all, each takes more; when nobody can take any, the nearest are as good as others.
            (end * PARTS).checked_div(sum).unwrap_or(PARTS)
        }));
    }
}

impl Backend {
    /// Picks on the nearest level that can take it.
    pub(super) fn pick_near(
        &mut self,
        avoid: &[u64],
        now: Instant,
        rng: &mut Rng,
        has_room: impl Fn(&Endpoint) -> bool,
        is_wanted: impl Fn(&Endpoint) -> bool,
    ) -> Result<(Rc<Endpoint>, Chosen), NoEndpoint> {
        let key = self.hashed().map(|(_, key)| key);
        let panic = self.group.as_ref().is_some_and(|group| group.panic.get());
        let zones = self.special.as_mut().and_then(|special| special.zones.as_mut());
        let Some(zones) = zones.filter(|zones| zones.lanes.len() > 1) else {
            return self.pick(avoid, now, rng, has_room, is_wanted);
        };
        if now >= zones.loads.due.get() || zones.ends.is_empty() {
            zones.divide(&self.endpoints, panic, now);
        }
        let levels = zones.lanes.len();
        // A key always has the same ticket, so that it moves only with the part of the level that does.
        let ticket =
            key.map_or_else(|| rng.below(PARTS), |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48);
        let meant = zones.ends.partition_point(|end| *end <= ticket).min(levels - 1);
        let takes_any = |level: usize| {
            let end = |at: usize| zones.ends.get(at).copied().unwrap_or(0);
            zones.lanes.get(level).is_some_and(|(shares, _)| shares.len() > 0)
                && (level + 1 == levels
                    || end(level) > level.checked_sub(1).map_or(0, end)
                    || !zones.plan.divided)
        };
        let mut first = meant;
        if avoid.iter().any(|key| *key != NO_KEY) {
            // Who fails may not be alone with it: the next attempt leaves the place of the first one.
            let tried = self.endpoints.iter().filter(|it| avoid.contains(&it.key)).map(|it| it.level);
            let tried = tried.fold(0_u32, |levels, level| levels | 1 << level.min(31));
            first = (0..levels)
                .find(|level| tried & 1 << (*level).min(31) == 0 && takes_any(*level))
                .unwrap_or(meant);
        } else if key.is_none() && !zones.plan.divided && zones.loads.is_full(meant) {
            let free = |level: &usize| takes_any(*level) && !zones.loads.is_full(*level);
            first = (meant + 1..levels).find(free).unwrap_or(meant);
        }
        let usual = if zones.plan.divided { meant } else { 0 };
        let order = || core::iter::once(first).chain((0..levels).filter(move |level| *level != first));
        let on =
            |level: usize, endpoint: &Endpoint| usize::from(endpoint.level) == level && has_room(endpoint);
        let chosen_as = |(endpoint, chosen): (Rc<Endpoint>, Chosen)| {
            let farther = chosen == Chosen::Balanced && usize::from(endpoint.level) != usual;
            let chosen = if farther { Chosen::Farther(endpoint.near) } else { chosen };
            (endpoint, chosen)
        };
        for level in order() {
            let open = |it: &Endpoint| !avoid.contains(&it.key) && on(level, it);
            let at = self.on_level(level, |backend| {
                backend.choose(rng, |it| it.takes(now, panic) && open(it) && is_wanted(it))
            });
            if let Some(endpoint) = at.and_then(|at| self.endpoints.get(at)) {
                return Ok(chosen_as((endpoint.clone(), endpoint.chosen(now, panic))));
            }
        }
        // Nobody is as should be: whoever comes nearest to it, and last those who are out.
        let mut found = Err(NoEndpoint::Unhealthy);
        for level in order() {
            let picked =
                self.on_level(level, |backend| backend.pick(avoid, now, rng, |it| on(level, it), &is_wanted));
            match (&found, &picked) {
                (_, Ok((_, chosen))) if *chosen != Chosen::LastResort => return picked.map(chosen_as),
                (Err(NoEndpoint::Unhealthy), _) | (Err(_), Ok(_)) => found = picked,
                _ => {}
            }
        }
        found
    }

    /// Notes that a request is under way on an endpoint's level; false where that is not counted.
    pub(super) fn enter_level(&self, endpoint: &Endpoint) -> bool {
        let loads = self.group.as_ref().and_then(|group| group.loads.as_ref());
        if let Some(loads) = loads {
            loads.enter(endpoint);
        }
        loads.is_some()
    }

    /// Lets those of one level stand in for all.
    fn on_level<R>(&mut self, level: usize, pick: impl FnOnce(&mut Self) -> R) -> R {
        self.swap_lane(level);
        let picked = pick(self);
        self.swap_lane(level);
        picked
    }

    fn swap_lane(&mut self, level: usize) {
        let zones = self.special.as_mut().and_then(|special| special.zones.as_mut());
        if let Some((shares, turns)) = zones.and_then(|zones| zones.lanes.get_mut(level)) {
            core::mem::swap(&mut self.shares, shares);
            core::mem::swap(&mut self.turns, turns);
        }
    }
}

#[cfg(test)]
mod tests;
