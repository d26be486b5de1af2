//! What services and rules say about attempts, each once in the snapshot.

use alloc::sync::Arc;
use core::num::NonZeroU32;

use super::{Build, Snapshot};
use crate::exchange::Tries;
use crate::route::{Decision, TriesId};
use crate::spec::{ActionSpec, BudgetSpec, RuleSpec, ServiceSpec, TriesSpec, World};

/// How many retries the service's endpoints take.
pub(super) fn budget(service: &ServiceSpec) -> Option<BudgetSpec> {
    service.tries.as_ref().and_then(|tries| tries.budget)
}

impl Snapshot {
    /// What is configured about the attempts of a request.
    pub fn tries(&self, decision: &Decision) -> Option<&Arc<Tries>> {
        self.tries.get(decision.tries?.0.get() as usize - 1)
    }
}

impl Build<'_> {
    /// What holds for requests that a rule takes, whose service says `outer`. A gateway's rule that says something itself takes
    /// the rest from the service that it leads to; one that says nothing leaves all to that service's own rules.
    pub(super) fn tries_of_rule(
        &mut self,
        rule: &RuleSpec,
        outer: Option<&TriesSpec>,
        world: &World,
    ) -> Option<TriesId> {
        let led_to = match &rule.then {
            ActionSpec::Service(id) => world.services.get(id).and_then(|known| known.spec.tries.as_deref()),
            _ => None,
        };
        match &rule.tries {
            Some(own) => self.tries(Some(own), outer.or(led_to)),
            None => self.tries(outer, None),
        }
    }

    /// What holds in front of the application beside: the caller's sidecar says how long a request may take; how long it may
    /// be silent holds at both.
    pub(super) fn local_tries(&mut self, declared: Option<&ServiceSpec>) -> Option<TriesId> {
        let idle_timeout = declared.and_then(|spec| spec.tries.as_ref()?.idle_timeout);
        self.tries(Some(&TriesSpec { idle_timeout, ..TriesSpec::default() }), None)
    }

    /// What holds where `own` is said within `outer`; `None` when neither says anything about single requests.
    pub(super) fn tries(&mut self, own: Option<&TriesSpec>, outer: Option<&TriesSpec>) -> Option<TriesId> {
        let spec = TriesSpec { budget: None, ..own?.within(outer) };
        if !spec.concerns_requests() {
            return None;
        }
        if let Some(known) = self.tries.get(&spec) {
            return Some(*known);
        }
        self.snapshot.tries.push(Arc::new(Tries::from(&spec)));
        let id = TriesId(NonZeroU32::new(self.snapshot.tries.len() as u32)?);
        self.tries.insert(spec, id);
        Some(id)
    }
}
