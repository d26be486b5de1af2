//! Which limits hold mesh-wide, and who shares them.

use leno_core::name::ServiceId;
use leno_core::quota::{HolderId, LimitId};
use leno_core::spec::{RateScope, RateSpec};

use super::{MemberKey, Registry};
use crate::store::RoleRecord;

impl Registry {
    /// True when the proxy is attached.
    pub(crate) fn has_proxy(&self, holder: &HolderId) -> bool {
        let key = MemberKey { service: holder.service.clone(), name: holder.instance.clone() };
        self.members.get(&key).is_some_and(|member| member.attachment.is_some())
    }

    /// True when `asker` applies this limit, and it holds mesh-wide: whose own it is, or whoever calls a service in front of
    /// which no sidecar stands.
    pub(crate) fn shares(&self, limit: &LimitId, asker: &ServiceId) -> bool {
        let mesh = |rate: &RateSpec| rate.scope == RateScope::Mesh;
        if let Some(spec) = self.service(&limit.owner) {
            let has = spec
                .care
                .iter()
                .flat_map(|care| &care.rates)
                .any(|rate| rate.name == limit.name && mesh(rate));
            return has && (limit.owner == *asker || !self.has_sidecars(&limit.owner));
        }
        let gateway = self.gateways.get(&limit.owner).filter(|_| limit.owner == *asker);
        let rules = gateway.iter().flat_map(|gateway| &gateway.rules);
        rules.filter_map(|rule| Some((rule, rule.change.as_ref()?))).any(|(rule, change)| {
            let rest = limit.name.strip_prefix(&*rule.name).and_then(|rest| rest.strip_prefix('/'));
            change.rates.iter().any(|rate| rest == Some(&*rate.name) && mesh(rate))
        })
    }

    fn has_sidecars(&self, service: &ServiceId) -> bool {
        self.members_of(service).any(|(_, member)| matches!(member.role, RoleRecord::Sidecar(_)))
    }
}
