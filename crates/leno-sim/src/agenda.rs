//! Virtual time: what is going to happen, in order.

use std::collections::BTreeMap;

use leno_core::time::{Duration, Instant};

/// Things to come. What is due at the same instant happens in the order in which it was planned.
#[derive(Debug)]
pub struct Agenda<E> {
    /// The present.
    now: Instant,
    /// Plans made so far.
    planned: u64,
    /// By time and number.
    plans: BTreeMap<(Instant, u64), E>,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { now: Instant::ZERO, planned: 0, plans: BTreeMap::new() }
    }
}

impl<E> Agenda<E> {
    /// The present.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Events that have been planned so far: the step that a failure names.
    pub fn planned(&self) -> u64 {
        self.planned
    }

    /// Plans `event` for `at`, or for now when that is past.
    pub fn plan_at(&mut self, at: Instant, event: E) {
        self.planned += 1;
        self.plans.insert((at.max(self.now), self.planned), event);
    }

    /// Plans `event` for `wait` from now.
    pub fn plan(&mut self, wait: Duration, event: E) {
        self.plan_at(self.now.after(wait), event);
    }

    /// Goes on to the next event; `None` when nothing is planned.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.plans.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// Lets time pass while nothing happens.
    pub fn wait_until(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }
}
