//! From a wish for an endpoint to a place on one, or to the reason why there is none.

use leno_core::backend::{Choice, Limit, NoEndpoint, hash_of};
use leno_core::exchange::Input;
use leno_core::reason::Reason;
use leno_core::route::BackendId;
use leno_core::time::Duration;

use super::{Event, Mesh};
use crate::model::Fact;

impl Mesh {
    pub(super) fn pick(&mut self, at: usize, choice: Choice, budget: bool) -> Result<(), String> {
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        let snapshot = run.snapshot.clone();
        if let (true, Choice::Backend(backend)) = (budget, choice) {
            if !self.backends.try_retry(&snapshot, backend, now) {
                let fact = Fact::NotFound(Reason::NoHealthyEndpoint);
                return self.feed(at, Input::OverBudget, fact);
            }
            self.budgeted += 1;
        }
        let (tried, count) = run.exchange.tried();
        // Few clients, some of which have no key.
        let key = (!at.is_multiple_of(6)).then(|| hash_of(&[(at % 6) as u8]));
        let rng = &mut self.rng;
        match self.backends.pick_by(&snapshot, choice, &tried[..count], now, rng, |_, _| key) {
            Ok(permit) => {
                self.check_pick(at, &permit, &tried[..count])?;
                if count == 0 {
                    self.backends.request_started(&snapshot, permit.backend(), now);
                }
                let endpoint = permit.endpoint().spec.clone();
                if let Some(run) = self.runs[at].as_mut() {
                    run.attempts += 1;
                    run.target = Some((endpoint.address, 0));
                    run.version.get_or_insert_with(|| endpoint.version.clone());
                }
                self.summary.retries += u64::from(count > 0);
                self.feed(at, Input::Picked(permit), Fact::Found)
            }
            Err(NoEndpoint::Limit { by, backend }) => {
                self.check_limit(at, by, backend)?;
                self.limited(at, by, backend)
            }
            Err(why) => {
                self.check_none(at, &tried[..count], why)?;
                let reason = match why {
                    NoEndpoint::Empty => Reason::NoEndpoint,
                    NoEndpoint::Unresolved => Reason::NameNotResolved,
                    NoEndpoint::Unhealthy | NoEndpoint::AllTried => Reason::NoHealthyEndpoint,
                    NoEndpoint::Limit { .. } => Reason::ServiceLimit,
                };
                self.feed(at, Input::NoEndpoint(why), Fact::NotFound(reason))
            }
        }
    }

    /// There is no room: the request waits for some, or is told.
    fn limited(&mut self, at: usize, by: Limit, backend: BackendId) -> Result<(), String> {
        let now = self.agenda.now();
        self.summary.limited += 1;
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        if run.waits.is_none()
            && by.is_worth_a_wait()
            && let Some((place, wait)) = self.backends.wait(&run.snapshot, backend)
        {
            run.waits = Some((place, backend, now.after(wait)));
        }
        match &run.waits {
            Some((_, _, until)) if now < *until => {
                let wait = Duration::from_micros(1 + self.rng.below(20_000));
                self.agenda.plan_at(now.after(wait).min(*until), Event::Look(at));
                self.plan_timer(at);
                Ok(())
            }
            _ => {
                run.waits = None;
                let why = NoEndpoint::Limit { by, backend };
                self.feed(at, Input::NoEndpoint(why), Fact::NotFound(Reason::ServiceLimit))
            }
        }
    }

    pub(super) fn look(&mut self, at: usize) -> Result<(), String> {
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        match &run.waits {
            // The budget was asked before the wait.
            Some((_, backend, _)) => self.pick(at, Choice::Backend(*backend), false),
            None => Ok(()),
        }
    }
}
