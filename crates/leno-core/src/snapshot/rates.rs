//! What requests are counted by, and where: in front of the application, at a gateway's rules, and for a service in front of
//! which no sidecar stands, where its requests leave.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Build, Snapshot};
use crate::name::ServiceId;
use crate::rate::{Rate, distinct};
use crate::route::{Decision, Rule, Then, TriesId};
use crate::spec::{KnownService, MatchSpec, RateSpec, ServiceSpec, TargetSpec, Transport, World};

impl Snapshot {
    /// Every limit that this proxy applies.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// What a connection of bytes is counted by.
    pub fn rates_of(&self, decision: &Decision) -> &[Rate] {
        let list = self.lists.get(decision.list.0 as usize);
        let rule = decision.rule.and_then(|rule| list?.rules.get(rule as usize));
        rule.map_or(&[], |rule| &rule.rates)
    }
}

impl Build<'_> {
    /// The limits `specs` of `owner`, which so many proxies apply; `rule` is the name of the rule that has them.
    pub(super) fn rates(
        &mut self,
        owner: &ServiceId,
        rule: Option<&str>,
        specs: &[Arc<RateSpec>],
        proxies: usize,
    ) -> Vec<Rate> {
        let mut rates = Vec::with_capacity(specs.len());
        for spec in specs {
            let name = match rule {
                Some(rule) => alloc::format!("{rule}/{}", spec.name).into(),
                None => spec.name.clone(),
            };
            let rate = self.ledgers.rates.rate(owner, &name, spec, proxies);
            if !self.snapshot.rates.iter().any(|known| known.label == rate.label) {
                self.snapshot.rates.push(rate.clone());
            }
            rates.push(rate);
        }
        rates
    }

    /// The limits of those of `targets` that have nobody else to count for them. A request that may go to several is counted for
    /// each: so a limit holds whatever is chosen.
    pub(super) fn outbound_rates(&mut self, targets: &[TargetSpec], world: &World) -> Vec<Rate> {
        let mut rates = Vec::new();
        for target in targets.iter().filter(|target| target.weight > 0) {
            if let Some(known) = world.services.get(&target.service).filter(|known| is_outside(known)) {
                rates.extend(self.rates(&target.service, None, rates_of(&known.spec), 1));
            }
        }
        distinct(rates)
    }

    /// The limits of the application beside: the caller is known here, and nothing comes by another way.
    pub(super) fn inbound_rates(&mut self, service: &ServiceId, world: &World) -> Vec<Rate> {
        let Some(known) = world.services.get(service) else { return Vec::new() };
        self.rates(service, None, rates_of(&known.spec), known.endpoints.len().max(1))
    }
}

/// The last rule of a list whose requests are counted whatever they are; `None`: they are not.
pub(super) fn counting(rates: Vec<Rate>, then: Then, tries: Option<TriesId>) -> Option<Rule> {
    (!rates.is_empty()).then(|| Rule {
        tries,
        change: Some(Arc::default()),
        rates,
        // Nobody has written it, and what it does is not the decision that a log should name.
        ..Rule::new("".into(), MatchSpec::default(), then)
    })
}

/// The limits of a service.
pub(super) fn rates_of(spec: &ServiceSpec) -> &[Arc<RateSpec>] {
    spec.care.as_ref().map_or(&[], |care| &care.rates)
}

/// True when no sidecar stands in front of any of its instances.
fn is_outside(known: &KnownService) -> bool {
    !known.endpoints.iter().any(|endpoint| matches!(endpoint.transport, Transport::Mesh(_)))
}

#[cfg(test)]
mod tests;
