//! What must hold beside the model: about picks, places, and everything once it is over.

use std::rc::Rc;

use leno_core::backend::{Chosen, Endpoint, Ledger, Limit, NoEndpoint, Permit};
use leno_core::exchange::AppSaw;
use leno_core::name::Label;
use leno_core::route::{BackendId, Then};
use leno_core::snapshot::Snapshot;
use leno_core::spec::{EndpointSpec, KnownService, Limits};

use super::{Client, Mesh, ensure, method, usable};

impl Mesh {
    /// A pick must be an endpoint that the world has, that is wanted, usable, not tried, and not cooling down while
    /// another one is not.
    pub(super) fn check_pick(&self, at: usize, permit: &Permit, tried: &[u64]) -> Result<(), String> {
        let endpoint: &Rc<Endpoint> = permit.endpoint();
        let now = self.agenda.now();
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        let spec = &endpoint.spec;
        let known = self.service(&run.plan.service).is_some_and(|service| service.endpoints.contains(spec));
        ensure(known, || format!("{} is not in the world any more", spec.name))?;
        ensure(usable(spec), || format!("{} takes no requests", spec.name))?;
        ensure(!tried.contains(&endpoint.key), || format!("{} was tried", spec.name))?;
        ensure(run.versions.is_empty() || run.versions.contains(&spec.version), || {
            format!("{} has version {:?}, wanted {:?}", spec.name, spec.version, run.versions)
        })?;
        let same = run.versions.is_empty() || run.version.as_ref().is_none_or(|first| *first == spec.version);
        ensure(same, || format!("a retry changed to version {:?}", spec.version))?;
        if endpoint.cooling(now) {
            let backend = self
                .backends
                .iter()
                .find(|backend| backend.endpoints().iter().any(|e| Rc::ptr_eq(e, endpoint)));
            let better = backend.is_some_and(|backend| {
                backend.endpoints().iter().any(|e| {
                    usable(&e.spec) && !e.cooling(now) && !tried.contains(&e.key) && !self.is_full(e)
                })
            });
            // In a panic those are asked too whose answers were bad, but not those that nobody reaches.
            let panic = permit.chosen() == Chosen::Panic && endpoint.ejected(now);
            ensure(!better || panic, || format!("{} is cooling down and others are not", spec.name))?;
        }
        Ok(())
    }

    /// When no endpoint is found, there must be none: of all versions that were wanted, one has nothing left.
    pub(super) fn check_none(&self, at: usize, tried: &[u64], why: NoEndpoint) -> Result<(), String> {
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        let Some(service) = self.service(&run.plan.service) else { return Ok(()) };
        // A version that the new rules do not name has no backend any more.
        let rules_changed = run.snapshot.generation != self.snapshot.generation;
        let left = |version: &Option<Label>| {
            let of_version = |e: &&EndpointSpec| run.versions.is_empty() || e.version == *version;
            let keys_left = |e: &&EndpointSpec| {
                let live = self.backends.iter().flat_map(|backend| backend.endpoints());
                !live.filter(|live| *live.spec == **e).any(|live| tried.contains(&live.key))
            };
            service.endpoints.iter().filter(of_version).filter(|e| usable(e)).filter(keys_left).count()
        };
        let wanted = if run.versions.is_empty() { vec![None] } else { run.versions.clone() };
        ensure(rules_changed || wanted.iter().any(|version| left(version) == 0), || {
            format!("{why:?} although there are usable endpoints")
        })
    }

    /// A limit that is in the way must have been reached.
    pub(super) fn check_limit(&self, at: usize, by: Limit, backend: BackendId) -> Result<(), String> {
        let Some(run) = self.runs[at].as_ref() else { return Ok(()) };
        let Some((limits, ledger)) = limits_of(&run.snapshot, backend) else { return Ok(()) };
        let max = match by {
            Limit::Requests => limits.requests,
            Limit::Retries => limits.retries,
            Limit::Pending | Limit::Connections | Limit::EndpointRequests => return Ok(()),
        };
        let taken = ledger.counter(by).taken();
        ensure(Some(taken) == max, || format!("{by:?} of {max:?} is in the way with {taken} places taken"))
    }

    /// True for an endpoint that takes no more because of its limit.
    fn is_full(&self, endpoint: &Endpoint) -> bool {
        let of_it = |service: &&KnownService| service.endpoints.contains(&endpoint.spec);
        let service = self.world.services.values().find(of_it);
        let max = service.and_then(|it| it.spec.care.as_ref()?.limits.endpoint_requests);
        endpoint.counter().is_some_and(|counter| max.is_some_and(|max| counter.taken() >= max))
    }

    /// No limit is passed, at any moment, and what is counted is what is there.
    pub(super) fn check_limits(&self) -> Result<(), String> {
        for at in 0..self.snapshot.backends.len() {
            let Some((limits, ledger)) = limits_of(&self.snapshot, BackendId(at as u32)) else { continue };
            let Some(spec) = self.snapshot.backends.get(at) else { continue };
            let runs = || self.active.iter().filter_map(|at| self.runs[*at].as_ref());
            let here = || runs().filter(|run| run.plan.service == spec.service.name.as_str());
            let placed = || here().filter(|run| run.exchange.endpoint().is_some());
            let counts = [
                (Limit::Requests, limits.requests, placed().count()),
                (Limit::Retries, limits.retries, placed().filter(|run| run.attempts > 1).count()),
                (Limit::Pending, limits.pending, here().filter(|run| run.waits.is_some()).count()),
            ];
            for (limit, max, expected) in counts {
                let Some(max) = max else { continue };
                let taken = ledger.counter(limit).taken();
                ensure(taken <= max, || format!("{limit:?}: {taken} of {max}"))?;
                ensure(taken as usize == expected, || {
                    format!("{limit:?}: {taken} counted, {expected} there")
                })?;
            }
            let Some(max) = limits.endpoint_requests else { continue };
            for endpoint in &spec.endpoints {
                let on_it = |run: &&super::Run| {
                    run.exchange.endpoint().is_some_and(|it| it.spec.name == endpoint.name)
                };
                let taken = placed().filter(on_it).count();
                ensure(taken <= max as usize, || format!("{}: {taken} of {max}", endpoint.name))?;
            }
        }
        Ok(())
    }

    /// The places taken on endpoints are those of the requests under way, no more and no fewer.
    pub(super) fn check_places(&self) -> Result<(), String> {
        let mut places: Vec<(u64, u32)> = Vec::new();
        let held = || self.active.iter().filter_map(|at| self.runs[*at].as_ref()?.exchange.endpoint());
        for endpoint in held() {
            match places.iter_mut().find(|(key, _)| *key == endpoint.key) {
                Some((_, count)) => *count += 1,
                None => places.push((endpoint.key, 1)),
            }
        }
        let all = self.backends.iter().flat_map(|backend| backend.endpoints());
        for endpoint in all.chain(held()) {
            let expected = places.iter().find(|(key, _)| *key == endpoint.key).map_or(0, |(_, count)| *count);
            ensure(endpoint.in_flight() == expected, || {
                format!("{} has {} places taken, not {expected}", endpoint.spec.name, endpoint.in_flight())
            })?;
        }
        Ok(())
    }

    /// When nothing is left to happen, every request has come to exactly one end, and no application did anything
    /// that it must not.
    pub(super) fn check_end(&self) -> Result<(), String> {
        ensure(self.active.is_empty(), || format!("requests {:?} never end", self.active))?;
        for (at, run) in self.runs.iter().enumerate() {
            let Some(run) = run else { return Err(format!("request {at} never arrived")) };
            let most = if run.plan.idempotent { run.attempts as u32 } else { 1 };
            ensure(run.finishes == 1, || format!("request {at} ended {} times", run.finishes))?;
            ensure(run.effects <= most, || {
                format!("request {at} ({}) took effect {} times", method(&run.plan), run.effects)
            })?;
            let untouched =
                matches!(run.client, Client::Told(_)) && run.exchange.app_saw() == AppSaw::Nothing;
            ensure(!untouched || run.effects == 0, || format!("request {at} is said to have had no effect"))?;
            let answered = matches!(run.client, Client::Answered | Client::Cut);
            ensure(!answered || run.effects > 0, || format!("request {at} was answered by nobody"))?;
            let routed = !matches!(run.exchange.record().decision.then, Then::NoRoute | Then::NoSuchService);
            ensure(routed || run.attempts == 0, || format!("request {at} had no route and was sent"))?;
        }
        // Saved up at first, plus a fifth of the requests, plus ten per second, for each backend.
        let seconds = self.agenda.now().as_nanos() / 1_000_000_000 + 1;
        let backends = self.backends.iter().count() as u64 + 8;
        let most = (100 + 10 * seconds) * backends + self.runs.len() as u64 / 5;
        ensure(self.budgeted <= most, || format!("{} retries from budgets", self.budgeted))
    }
}

fn limits_of(snapshot: &Snapshot, backend: BackendId) -> Option<(&Limits, &Ledger)> {
    let spec = snapshot.backend(backend)?;
    Some((&spec.care.as_ref()?.limits, &spec.limited.as_ref()?.ledger))
}
