//! The gate before the application beside, for all workers: a lock around [`leno_core::admission::Gate`], and who is to be woken
//! when its turn comes. Nothing here is on the way of a request where no concurrency is declared.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use leno_core::admission::{Class, Counts, Entered, Gate, Left, Standing, Ticket};
use leno_core::snapshot::Snapshot;
use leno_core::spec::{Concurrency, ConcurrencyLimit};
use leno_core::time::{Duration, Instant};

use crate::clock::Clock;
use crate::telemetry::{family, line};

/// The gate. It is there as long as its process, and its places with it, whatever becomes of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Door(Mutex<Option<Doorway>>);

#[derive(Debug)]
struct Doorway {
    gate: Gate,
    /// What it follows, and since which generation; `None`: everybody may pass.
    spec: Option<Concurrency>,
    generation: u64,
    /// Of those who wait, by the slots of their tickets.
    wakers: Vec<Option<Waker>>,
}

/// Everybody may pass.
const OPEN: Concurrency = Concurrency::new(ConcurrencyLimit::Fixed(u32::MAX));

/// What becomes of a request that comes to the door.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It has a place, or needs none.
    Admitted(Option<Place>),
    /// It waits, until then.
    Waiting(Place, Instant),
    /// It is refused.
    Shed,
}

impl Door {
    /// Follows the configuration.
    pub(crate) fn follow(&self, snapshot: &Snapshot, now: Instant) {
        let spec = snapshot.concurrency.as_ref();
        let mut door = self.lock();
        match &mut *door {
            None => {
                *door = spec.map(|spec| Doorway {
                    gate: Gate::new(spec, now),
                    spec: Some(spec.clone()),
                    generation: snapshot.generation,
                    wakers: Vec::new(),
                });
            }
            // Every worker tells; one that is late must not bring back what was before.
            Some(doorway) if doorway.generation > snapshot.generation => {}
            Some(doorway) => {
                doorway.generation = snapshot.generation;
                if doorway.spec.as_ref() == spec {
                    return;
                }
                doorway.spec = spec.cloned();
                doorway.gate.configure(spec.unwrap_or(&OPEN), now);
                Self::ring(door);
            }
        }
    }

    /// A request comes that may wait until `deadline` at the most.
    pub(crate) fn enter(
        self: &Arc<Self>,
        class: Class,
        deadline: Option<Instant>,
        now: Instant,
        clock: Clock,
    ) -> Answer {
        let entered = self.with(|gate| gate.enter(class, deadline, now));
        let place = |ticket| Place { door: self.clone(), ticket, clock, left: Left::Otherwise };
        match entered {
            // The configuration has changed since this request was decided.
            None => Answer::Admitted(None),
            Some(Entered::Admitted(ticket)) => Answer::Admitted(Some(place(ticket))),
            Some(Entered::Waiting(ticket, until)) => Answer::Waiting(place(ticket), until),
            Some(Entered::Shed) => Answer::Shed,
        }
    }

    /// Does something at the gate, if there is one, and wakes those whom that concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Gate) -> T) -> Option<T> {
        let mut door = self.lock();
        let done = act(&mut door.as_mut()?.gate);
        Self::ring(door);
        Some(done)
    }

    /// Wakes those whose turn it is, once nobody has to wait for the lock.
    fn ring(mut door: MutexGuard<'_, Option<Doorway>>) {
        let mut woken = Vec::new();
        if let Some(doorway) = &mut *door {
            while let Some(ticket) = doorway.gate.ring() {
                woken.extend(doorway.wakers.get_mut(ticket.slot()).and_then(Option::take));
            }
        }
        drop(door);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whoever panicked with the lock left numbers behind, nothing half done that could not be lived with.
    fn lock(&self) -> MutexGuard<'_, Option<Doorway>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> Option<View> {
        let door = self.lock();
        let doorway = door.as_ref().filter(|doorway| doorway.spec.is_some())?;
        let auto = matches!(doorway.spec.as_ref()?.limit, ConcurrencyLimit::Auto { .. });
        Some(View {
            limit: doorway.gate.limit(),
            taken: doorway.gate.taken(),
            waiting: doorway.gate.waiting(),
            base: auto.then(|| doorway.gate.auto().base()),
            counts: *doorway.gate.counts(),
        })
    }

    /// Its families of metrics; nothing where no concurrency is declared.
    pub(crate) fn render(&self, out: &mut String) {
        let Some(view) = self.view() else { return };
        let mut gauge = |name: &str, help: &str, value: &dyn std::fmt::Display| {
            family(out, name, "gauge", help);
            line(out, name, "", value);
        };
        gauge("leno_concurrency_limit", "Requests let through to the application at a time.", &view.limit);
        gauge("leno_concurrency_in_use", "Of these places, those that are taken.", &view.taken);
        gauge("leno_concurrency_waiting", "Requests that wait for such a place.", &view.waiting);
        if let Some(base) = view.base {
            let help = "How long the application is thought to work on a request; 0: not known yet.";
            gauge("leno_concurrency_base_seconds", help, &base.as_secs_f64());
        }
        let counters: [(&str, &str, _); 2] = [
            ("leno_concurrency_admitted_total", "Requests let through.", view.counts.admitted),
            ("leno_concurrency_shed_total", "Requests refused for want of a place.", view.counts.shed),
        ];
        for (name, help, values) in counters {
            family(out, name, "counter", help);
            for (class, value) in Class::ALL.into_iter().zip(values) {
                line(out, name, &format!("class=\"{}\"", class.word()), value);
            }
        }
        let name = "leno_concurrency_wait_seconds";
        family(out, name, "summary", "How long requests let through have waited for their place.");
        line(out, "leno_concurrency_wait_seconds_sum", "", view.counts.waited.as_secs_f64());
        line(out, "leno_concurrency_wait_seconds_count", "", view.counts.waits);
    }

    /// What it does at this moment, as JSON; `null` where no concurrency is declared.
    pub(crate) fn write_json(&self, out: &mut String) {
        let Some(view) = self.view() else { return out.push_str("null") };
        // Writing to a String cannot fail.
        let _ =
            write!(out, "{{\"limit\":{},\"in_use\":{},\"waiting\":{}", view.limit, view.taken, view.waiting);
        if let Some(base) = view.base {
            let _ = write!(out, ",\"base_us\":{}", base.as_micros());
        }
        out.push('}');
    }
}

/// What a gate does at one moment.
struct View {
    limit: u32,
    taken: u32,
    waiting: usize,
    /// Where the limit is found out.
    base: Option<Duration>,
    counts: Counts,
}

/// A request's place at the gate, or in the line before it. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    ticket: Ticket,
    clock: Clock,
    left: Left,
}

impl Place {
    /// Waits until it is admitted or refused. Cancel-safe.
    pub(crate) async fn turn(&self) -> Standing {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&self, cx: &Context<'_>) -> Poll<Standing> {
        let mut door = self.door.lock();
        let Some(doorway) = &mut *door else { return Poll::Ready(Standing::Admitted) };
        let standing = doorway.gate.standing(self.ticket);
        if standing != Standing::Waiting {
            return Poll::Ready(standing);
        }
        let slot = self.ticket.slot();
        if doorway.wakers.len() <= slot {
            doorway.wakers.resize(slot + 1, None);
        }
        if let Some(waker) = doorway.wakers.get_mut(slot) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// It has waited for long enough: admitted after all, or refused.
    pub(crate) fn give_up(&self, now: Instant) -> Standing {
        self.door.with(|gate| gate.give_up(self.ticket, now)).unwrap_or(Standing::Admitted)
    }

    /// The head of its answer is there.
    pub(crate) fn headed(&self, now: Instant) {
        self.door.with(|gate| gate.headed(self.ticket, now));
    }

    /// The application has answered it.
    pub(crate) const fn answered(&mut self) {
        self.left = Left::Answered;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.door.with(|gate| gate.leave(self.ticket, self.left, now));
    }
}

#[cfg(test)]
mod tests;
