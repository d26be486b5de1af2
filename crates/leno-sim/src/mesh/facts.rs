//! What a scenario says of a service, a host or a request at one moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_core::backend::Backends;
use leno_core::name::Label;
use leno_core::spec::{EndpointSpec, KnownService};
use leno_core::time::{Duration, Instant};

use crate::scenario::{Host, Mood, RequestPlan};

/// The versions that a request may go to (none: any), and the time that its route allows.
pub(super) fn promised(service: &KnownService, path: &str) -> (Vec<Option<Label>>, Option<Duration>) {
    use leno_core::spec::ActionSpec;
    let second = path == "/v2" || path.starts_with("/v2/");
    let rule = service.spec.rules.get(usize::from(!second));
    let versions = match rule.map(|rule| &rule.then) {
        Some(ActionSpec::Split(targets)) => {
            targets.iter().filter(|target| target.weight > 0).map(|target| target.version.clone()).collect()
        }
        _ => Vec::new(),
    };
    (versions, rule.and_then(|rule| rule.timeout).or(service.spec.timeout))
}

/// Key, places taken and whether it cools down, of every endpoint by backend, name and address.
pub(super) fn live_state(
    backends: &Backends,
    now: Instant,
) -> BTreeMap<(String, String, SocketAddr), (u64, u32, bool)> {
    let mut all = BTreeMap::new();
    for backend in backends.iter() {
        for endpoint in backend.endpoints() {
            let name = (backend.name().to_owned(), endpoint.spec.name.to_string(), endpoint.spec.address);
            all.insert(name, (endpoint.key, endpoint.in_flight(), endpoint.cooling(now)));
        }
    }
    all
}

pub(super) fn mood(hosts: &BTreeMap<SocketAddr, Host>, address: SocketAddr, at: Instant) -> (usize, Mood) {
    hosts.get(&address).map_or((0, Mood::Dead), |host| host.mood(at))
}

pub(super) fn usable(endpoint: &EndpointSpec) -> bool {
    endpoint.healthy && endpoint.weight > 0
}

pub(super) fn method(plan: &RequestPlan) -> &'static str {
    if plan.idempotent { "GET" } else { "POST" }
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
