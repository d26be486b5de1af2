//! From the rules that are declared to those that a request is decided by.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Build;
use super::rates::counting;
use crate::name::ServiceId;
use crate::route::{BackendId, Expected, Rule, RuleList, Split, SplitId, Then};
use crate::spec::{ActionSpec, Labels, Mirror, RuleSpec, TargetSpec, TriesSpec, World};

impl Build<'_> {
    /// The rules of a list that are about what this proxy sends.
    pub(super) fn rules(
        &mut self,
        owner: &ServiceId,
        rules: &[RuleSpec],
        outer: Option<&TriesSpec>,
        world: &World,
    ) -> Vec<Rule> {
        let about_us = |rule: &&RuleSpec| rule.when.covers_source(self.own, &world.own.labels);
        let ours: Vec<&RuleSpec> = rules.iter().filter(about_us).collect();
        ours.into_iter().map(|rule| self.rule(owner, rule, outer, world)).collect()
    }

    /// One list without rules that leads to who gets copies, so that a copy is never copied again.
    fn mirror(&mut self, mirror: &Mirror, world: &World) {
        let key = (mirror.service.clone(), mirror.version.clone());
        if self.snapshot.mirrors.contains_key(&key) {
            return;
        }
        let name = match &mirror.version {
            Some(version) => alloc::format!("{}@{version} (mirror)", mirror.service),
            None => alloc::format!("{} (mirror)", mirror.service),
        };
        let target = TargetSpec {
            service: mirror.service.clone(),
            version: mirror.version.clone(),
            labels: Labels::NONE,
            weight: 1,
        };
        let targets = [target];
        let otherwise = self.split(&targets, world);
        let counted = counting(self.outbound_rates(&targets, world), otherwise, None);
        let list = self.add_list(RuleList {
            name: name.into(),
            rules: counted.into_iter().collect::<Vec<_>>().into(),
            otherwise,
            timeout: None,
            tries: None,
            expected: Expected::Http,
        });
        self.snapshot.mirrors.insert(key, list);
    }

    /// One rule; `outer` is what its service says about attempts.
    fn rule(&mut self, owner: &ServiceId, rule: &RuleSpec, outer: Option<&TriesSpec>, world: &World) -> Rule {
        let tries = self.tries_of_rule(rule, outer, world);
        for mirror in rule.change.iter().flat_map(|change| &change.mirrors) {
            self.mirror(mirror, world);
        }
        let then = match &rule.then {
            ActionSpec::Split(targets) => self.split(targets, world),
            ActionSpec::Service(id) => {
                self.snapshot.services.get(id).map_or(Then::NoSuchService, |list| Then::List(*list))
            }
            ActionSpec::Answer(answer) => Then::Answer(answer.status()),
        };
        let own = rule.change.as_ref().map_or(&[][..], |change| &change.rates);
        let mut rates = self.rates(owner, Some(&rule.name), own, 1);
        if let ActionSpec::Split(targets) = &rule.then {
            rates.extend(self.outbound_rates(targets, world));
        }
        let answer = match &rule.then {
            ActionSpec::Answer(answer) => Some(answer.clone()),
            _ => None,
        };
        let fault = rule.change.as_ref().and_then(|change| change.fault.as_ref());
        let experiment =
            fault.map(|fault| self.ledgers.experiment(&owner.to_string().into(), &rule.name, fault));
        Rule {
            timeout: rule.timeout,
            tries,
            change: rule.change.clone().or((answer.is_some() || !rates.is_empty()).then(Arc::default)),
            answer,
            experiment,
            rates,
            ..Rule::new(rule.name.clone(), rule.when.for_its_sources(), then)
        }
    }

    pub(super) fn split(&mut self, targets: &[TargetSpec], world: &World) -> Then {
        let mut resolved = Vec::with_capacity(targets.len());
        for target in targets.iter().filter(|target| target.weight > 0) {
            let Some(service) = world.services.get(&target.service) else {
                return Then::NoSuchService;
            };
            let backend =
                self.backend(&service.spec, target.version.as_ref(), &target.labels, &service.endpoints);
            self.back_up(backend, &service.spec, world);
            resolved.push((backend, target.weight));
        }
        if resolved.is_empty() {
            return Then::NoSuchService;
        }
        self.add_split(resolved)
    }

    pub(super) fn add_split(&mut self, targets: Vec<(BackendId, u32)>) -> Then {
        let next = SplitId(self.snapshot.splits.len() as u32);
        let id = *self.splits.entry(targets.clone()).or_insert(next);
        if id == next {
            self.snapshot.splits.push(Split { targets });
        }
        Then::Split(id)
    }
}
