//! An instance: some requests at a time, the others in line.

use std::collections::VecDeque;

use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

use super::{Back, exponential};

/// An instance, and what becomes of it.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Requests that it works on at a time.
    pub servers: usize,
    /// The mean time for one: half of it fixed, half of it exponential.
    pub mean: Duration,
    /// What it is like, from when on; before the first, [`Mood::Fine`].
    pub moods: Vec<(Instant, Mood)>,
}

/// What an instance is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Fine,
    /// Everything takes so many times as long.
    Slow(u32),
    /// This share of the answers, in percent, is 500, at once.
    Errors(u32),
    /// This share of the answers, in percent, takes so many times as long.
    Tail(u32, u32),
    /// Nobody listens; what it worked on breaks.
    Dead,
    /// It takes no new connections and finishes what it has.
    Stopping,
    /// Connection attempts are never answered.
    Silent,
    /// It has just started: everything takes so many times as long at first, and as it should after so many requests.
    Cold(u32, u32),
}

/// Something that an instance is done with.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    number: usize,
    attempt: u32,
    status: u16,
}

pub(super) struct Host {
    plan: HostPlan,
    busy: usize,
    line: VecDeque<(usize, u32)>,
    served: u32,
}

impl Host {
    pub(super) fn new(plan: &HostPlan) -> Self {
        Self { plan: plan.clone(), busy: 0, line: VecDeque::new(), served: 0 }
    }

    fn mood(&self, now: Instant) -> Mood {
        self.plan.moods.iter().rev().find(|(from, _)| *from <= now).map_or(Mood::Fine, |(_, mood)| *mood)
    }

    pub(super) fn accepts(&self, now: Instant) -> bool {
        !matches!(self.mood(now), Mood::Dead | Mood::Silent | Mood::Stopping)
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.mood(now) == Mood::Silent
    }

    /// A request arrives; `later` is called with what will be served and when.
    pub(super) fn take(
        &mut self,
        number: usize,
        attempt: u32,
        now: Instant,
        rng: &mut Rng,
        mut later: impl FnMut(Duration, Served),
    ) {
        if self.busy < self.plan.servers {
            self.busy += 1;
            let (wait, status) = self.work(now, rng);
            later(wait, Served { number, attempt, status });
        } else {
            self.line.push_back((number, attempt));
        }
    }

    /// Something is served: who is told what, and the next in line begins.
    pub(super) fn done(
        &mut self,
        served: Served,
        now: Instant,
        rng: &mut Rng,
        mut later: impl FnMut(Duration, Served),
    ) -> Option<(usize, u32, Back)> {
        self.served += 1;
        match self.line.pop_front() {
            Some((number, attempt)) => {
                let (wait, status) = self.work(now, rng);
                later(wait, Served { number, attempt, status });
            }
            None => self.busy -= 1,
        }
        let back = match self.mood(now) {
            Mood::Dead => Back::Broke,
            Mood::Silent => return None,
            _ => Back::Answer(served.status),
        };
        Some((served.number, served.attempt, back))
    }

    /// How long a request takes, and what comes of it.
    fn work(&self, now: Instant, rng: &mut Rng) -> (Duration, u16) {
        let usual = self.plan.mean.mul_f64(0.5 + 0.5 * exponential(rng));
        match self.mood(now) {
            Mood::Slow(times) => (usual * times, 200),
            Mood::Tail(percent, times) if rng.below(100) < u64::from(percent) => (usual * times, 200),
            Mood::Errors(percent) if rng.below(100) < u64::from(percent) => (self.plan.mean / 10, 500),
            Mood::Cold(times, requests) if self.served < requests => {
                let left = f64::from(requests - self.served) / f64::from(requests);
                (usual.mul_f64(1.0 + f64::from(times - 1) * left), 200)
            }
            Mood::Dead => (Duration::ZERO, 200),
            _ => (usual, 200),
        }
    }
}
