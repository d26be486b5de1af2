//! Instances and gateways' proxies: attached, kept alive by heartbeats, ended by their lease.
//!
//! ```text
//!            attach              stream breaks                lease ends
//!   (none) ----------> attached ---------------> unattended ------------> expired (shown for a while)
//!                       |    ^                      |
//!                 leave |    +----------------------+ attach
//!                       v
//!                     (none)
//! ```
//! A broken stream takes nobody out of service: the sidecar may be serving well while the way to us is cut, and it has
//! one lease to come back. A plain endpoint has no lease and stays until it is removed by hand.

use std::collections::BTreeMap;

use leno_core::name::{Label, ServiceId};
use leno_core::time::{Duration, Instant};
use leno_wire::full_name;

use super::{Effects, MEMBERS_MAX, Refusal, Registry};
use crate::store::{MemberRecord, Op, Reach, RoleRecord, Table};

/// The name of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberKey {
    /// The service of its certificate, or the one it was registered for by hand.
    pub(crate) service: ServiceId,
    /// Unique in that service.
    pub(crate) name: Label,
}

/// A live member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What it is.
    pub(super) role: RoleRecord,
    /// What its sidecar said last.
    pub(super) health: Health,
    /// The generation that it acknowledged last.
    pub(super) generation: u64,
    /// The proxy's own version; empty: not known.
    pub(super) proxy_version: String,
    /// The stream that keeps it alive; `None`: that stream is gone.
    pub(super) attachment: Option<u64>,
    /// When it is removed without a heartbeat; `None` for a plain endpoint.
    pub(super) lease_ends: Option<Instant>,
}

/// Whether a member may get requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It may.
    Healthy,
    /// It may not, for this reason.
    Unhealthy(String),
}

/// A member whose lease ended.
#[derive(Clone, Debug)]
pub(super) struct Expired {
    /// Who.
    pub(super) key: MemberKey,
    /// As it was last.
    pub(super) member: Member,
    /// When.
    pub(super) at: Instant,
}

/// A proxy that says hello.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Who it is; the service from its certificate.
    pub(crate) key: MemberKey,
    /// What it is.
    pub(crate) role: RoleRecord,
    /// How it is.
    pub(crate) health: Health,
    /// The proxy's own version; empty: not known.
    pub(crate) proxy_version: String,
}

/// A stream's hold on a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Tells this hold from any other.
    pub(crate) number: u64,
    /// How long it lasts without a heartbeat.
    pub(crate) lease: Duration,
    /// What the member's service calls.
    pub(crate) calls: Vec<ServiceId>,
}

impl Registry {
    /// Registers a member, or gives the stream of a member that comes back a new hold on it.
    pub(crate) fn attach(
        &mut self,
        arrival: Arrival,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<Attachment, Refusal> {
        let Arrival { key, role, health, proxy_version } = arrival;
        let calls = match &role {
            RoleRecord::Gateway if self.has_gateway(&key.service) => Vec::new(),
            RoleRecord::Gateway => return Err(Refusal::NoSuchGateway(key.service)),
            RoleRecord::Sidecar(_) | RoleRecord::Plain(_) => match self.service(&key.service) {
                Some(spec) => spec.calls.clone(),
                None => return Err(Refusal::NoSuchService(key.service)),
            },
        };
        match self.members.get(&key) {
            // The same proxy on a new stream, or one that was restarted after its stream had broken. While the old
            // stream lives and the address differs, two proxies claim one name.
            Some(old) if old.role == role || old.attachment.is_none() && old.lease_ends.is_some() => {}
            Some(old) if matches!(role, RoleRecord::Gateway) && matches!(old.role, RoleRecord::Gateway) => {}
            Some(old) => {
                let address = reach(&old.role).map(|reach| reach.address);
                return Err(Refusal::NameTaken { name: key.name.to_string(), address });
            }
            None => self.check_free(&key)?,
        }
        let number = self.next_number();
        let lease_ends = now.after(self.lease);
        let member = Member {
            role,
            health,
            generation: self.members.get(&key).map_or(0, |old| old.generation),
            proxy_version,
            attachment: Some(number),
            lease_ends: Some(lease_ends),
        };
        let old = self.members.insert(key.clone(), member.clone());
        if let Some(ends) = old.as_ref().and_then(|old| old.lease_ends) {
            self.leases.remove(&(ends, key.clone()));
        }
        self.leases.insert((lease_ends, key.clone()));
        self.expired.retain(|expired| expired.key != key);
        let kept = |member: &Member| member.record(&key);
        if old.as_ref().map(kept).as_ref() != Some(&kept(&member)) {
            effects.ops.push(Op::Put(Table::Members, key.row(), kept(&member).encode()));
        }
        self.endpoints_changed(&key.service, now);
        self.finish(now, effects);
        Ok(Attachment { number, lease: self.lease, calls })
    }

    /// Renews a lease.
    pub(crate) fn heartbeat(
        &mut self,
        key: &MemberKey,
        attachment: u64,
        health: Health,
        generation: u64,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<Duration, Refusal> {
        let lease = self.lease;
        let member = self.members.get_mut(key).ok_or(Refusal::LeaseEnded)?;
        if member.attachment != Some(attachment) {
            return Err(Refusal::TakenOver);
        }
        member.generation = generation;
        let ends = now.after(lease);
        if let Some(old) = member.lease_ends.replace(ends) {
            self.leases.remove(&(old, key.clone()));
        }
        self.leases.insert((ends, key.clone()));
        if member.health != health {
            let flipped = member.health.is_healthy() != health.is_healthy();
            member.health = health;
            effects.ops.push(Op::Put(Table::Members, key.row(), member.record(key).encode()));
            if flipped {
                self.endpoints_changed(&key.service, now);
            }
        }
        self.finish(now, effects);
        Ok(lease)
    }

    /// The stream that held a member is gone; its lease runs on.
    pub(crate) fn detach(&mut self, key: &MemberKey, attachment: u64) {
        if let Some(member) = self.members.get_mut(key)
            && member.attachment == Some(attachment)
        {
            member.attachment = None;
        }
    }

    /// A member says goodbye.
    pub(crate) fn leave(&mut self, key: &MemberKey, attachment: u64, now: Instant, effects: &mut Effects) {
        if self.members.get(key).is_some_and(|member| member.attachment == Some(attachment)) {
            self.remove(key, effects);
            self.endpoints_changed(&key.service, now);
            self.finish(now, effects);
        }
    }

    /// Registers a plain endpoint by hand; the same one again changes it.
    pub(crate) fn register_plain(
        &mut self,
        key: MemberKey,
        reach: Reach,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.service(&key.service).is_none() {
            return Err(Refusal::NoSuchService(key.service));
        }
        match self.members.get(&key) {
            Some(Member { role: RoleRecord::Plain(_), .. }) => {}
            Some(_) => return Err(Refusal::HasSidecar(key.name.to_string())),
            None => self.check_free(&key)?,
        }
        let member = Member {
            role: RoleRecord::Plain(reach),
            health: Health::Healthy,
            generation: 0,
            proxy_version: String::new(),
            attachment: None,
            lease_ends: None,
        };
        effects.ops.push(Op::Put(Table::Members, key.row(), member.record(&key).encode()));
        let service = key.service.clone();
        self.members.insert(key, member);
        self.endpoints_changed(&service, now);
        self.finish(now, effects);
        Ok(())
    }

    /// Removes a plain endpoint.
    pub(crate) fn remove_plain(
        &mut self,
        key: &MemberKey,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        match self.members.get(key) {
            None => return Err(Refusal::NoSuchInstance(key.name.to_string())),
            Some(Member { role: RoleRecord::Plain(_), .. }) => {}
            Some(_) => return Err(Refusal::HasSidecar(key.name.to_string())),
        }
        self.remove(key, effects);
        self.endpoints_changed(&key.service, now);
        self.finish(now, effects);
        Ok(())
    }

    /// Removes members whose lease is over; their keys. When this process itself stood still (suspended, starved), the
    /// heartbeats of the meantime may still lie unread in its sockets: then everybody gets a new lease first.
    pub(super) fn end_leases(&mut self, now: Instant, effects: &mut Effects) -> Vec<MemberKey> {
        let gap = now.since(std::mem::replace(&mut self.looked, now));
        if gap > self.lease / 3 + STALL {
            let grace = now.after(self.lease);
            self.leases = std::mem::take(&mut self.leases).into_iter().map(|(_, key)| (grace, key)).collect();
            for member in self.members.values_mut().filter(|member| member.lease_ends.is_some()) {
                member.lease_ends = Some(grace);
            }
        }
        let mut ended = Vec::new();
        while let Some((ends, key)) = self.leases.first().cloned()
            && ends <= now
        {
            if let Some(member) = self.remove(&key, effects) {
                if self.expired.len() == EXPIRED_MAX {
                    self.expired.pop_front();
                }
                self.expired.push_back(Expired { key: key.clone(), member, at: now });
                self.endpoints_changed(&key.service, now);
                ended.push(key);
            }
        }
        self.expired.retain(|expired| now.since(expired.at) < EXPIRED_SHOWN);
        ended
    }

    /// Forgets a member.
    pub(super) fn remove(&mut self, key: &MemberKey, effects: &mut Effects) -> Option<Member> {
        let member = self.members.remove(key)?;
        if let Some(ends) = member.lease_ends {
            self.leases.remove(&(ends, key.clone()));
        }
        effects.ops.push(Op::Delete(Table::Members, key.row()));
        Some(member)
    }

    /// Whether a new member may have this name.
    fn check_free(&self, key: &MemberKey) -> Result<(), Refusal> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(Refusal::TooMany { what: "instances", most: MEMBERS_MAX });
        }
        let in_file = self.file.get(&key.service).into_iter().flat_map(|service| &service.endpoints);
        match in_file.into_iter().find(|endpoint| &*endpoint.name == key.name.as_str()) {
            Some(endpoint) => {
                Err(Refusal::NameTaken { name: key.name.to_string(), address: Some(endpoint.address) })
            }
            None => Ok(()),
        }
    }

    /// How many live instances there are (gateways' proxies are none), and how many of them may get requests.
    pub(super) fn count_by_service(&self) -> BTreeMap<&ServiceId, (u64, u64)> {
        let mut counts = BTreeMap::new();
        for (key, member) in &self.members {
            if !matches!(member.role, RoleRecord::Gateway) {
                let (all, healthy): &mut (u64, u64) = counts.entry(&key.service).or_default();
                *all += 1;
                *healthy += u64::from(member.health.is_healthy());
            }
        }
        for (id, service) in &self.file {
            if !service.endpoints.is_empty() {
                let (all, healthy) = counts.entry(id).or_default();
                *all += service.endpoints.len() as u64;
                *healthy += service.endpoints.iter().filter(|endpoint| endpoint.healthy).count() as u64;
            }
        }
        counts
    }
}

impl Member {
    /// A member as it was kept.
    pub(super) fn restored(record: MemberRecord, lease_ends: Option<Instant>) -> Self {
        Self {
            role: record.role,
            health: record.unhealthy.map_or(Health::Healthy, Health::Unhealthy),
            generation: 0,
            proxy_version: record.proxy_version,
            attachment: None,
            lease_ends,
        }
    }

    /// As it is kept.
    fn record(&self, key: &MemberKey) -> MemberRecord {
        MemberRecord {
            service: key.service.clone(),
            name: key.name.clone(),
            role: self.role.clone(),
            unhealthy: match &self.health {
                Health::Healthy => None,
                Health::Unhealthy(reason) => Some(reason.clone()),
            },
            proxy_version: self.proxy_version.clone(),
        }
    }
}

impl MemberKey {
    /// Not after any member of `service`.
    pub(super) fn first_of(service: &ServiceId) -> std::ops::Bound<Self> {
        // "0" is not the smallest label, "-" cannot begin one; the digits come first of what can.
        match Label::parse("0") {
            Ok(name) => std::ops::Bound::Included(Self { service: service.clone(), name }),
            Err(_) => std::ops::Bound::Unbounded,
        }
    }

    /// Its row in the store.
    fn row(&self) -> String {
        format!("{}/{}", full_name(&self.service), self.name)
    }
}

impl Health {
    /// Whether requests may be sent to it.
    pub(crate) const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}

/// Where a member is reached, if it is.
pub(super) const fn reach(role: &RoleRecord) -> Option<&Reach> {
    match role {
        RoleRecord::Sidecar(reach) | RoleRecord::Plain(reach) => Some(reach),
        RoleRecord::Gateway => None,
    }
}

/// A third of a lease may pass between two looks at the leases; so much more is no stall yet.
const STALL: Duration = Duration::from_millis(500);
/// How long members whose lease ended are still shown.
const EXPIRED_SHOWN: Duration = Duration::from_secs(300);
/// Most of them.
const EXPIRED_MAX: usize = 1000;
