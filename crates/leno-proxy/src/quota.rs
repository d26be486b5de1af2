//! Shares of limits that hold mesh-wide: asks the control plane for them, on the control runtime. The workers read the
//! results from the limits themselves and never wait for any of this. What is asked for and what is fallen back to is decided by
//! [`leno_core::quota`]; without such a limit nothing is ever said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leno_core::name::ServiceId;
use leno_core::quota::{ASK_INTERVAL, ASK_WITHIN, Grant, LimitId, Tenure};
use leno_core::rate::Rate;
use leno_core::snapshot::Snapshot;
use leno_core::spec::RateScope;
use leno_wire::full_name;
use leno_wire::grpc::Client;
use leno_wire::proto::quota::{ASKS_MAX, QuotaAsk, QuotaGrant, QuotaRequest};
use tokio::sync::watch;

use crate::agent::AgentHandle;
use crate::clock::{Clock, unix_micros};

/// Keeps this proxy's shares up to date for as long as there are snapshots.
pub(crate) async fn follow(clock: Clock, mut snapshot: watch::Receiver<Arc<Snapshot>>, control: AgentHandle) {
    let mut tenures: BTreeMap<LimitId, Tenure> = BTreeMap::new();
    let (mut number, mut complained) = (0, false);
    loop {
        let current = snapshot.borrow_and_update().clone();
        let rates: Vec<&Rate> =
            current.rates().iter().filter(|rate| rate.spec.scope == RateScope::Mesh).take(ASKS_MAX).collect();
        if rates.is_empty() {
            tenures.clear();
            if snapshot.changed().await.is_err() {
                return;
            }
            continue;
        }
        let now = clock.now();
        tenures.retain(|id, _| rates.iter().any(|rate| of(rate) == *id));
        fall_back(&rates, &mut tenures, clock);
        number = unix_micros().max(number + 1);
        let asks = rates.iter().map(|rate| {
            let seen = rate.seen();
            let tenure = tenures.entry(of(rate)).or_insert_with(|| Tenure::new(rate.proxies, seen, now));
            let ask = tenure.ask(number, seen, Rate::per_second(&rate.spec), rate.share(), now);
            QuotaAsk {
                owner: full_name(&rate.owner),
                name: rate.name.to_string(),
                demand: ask.demand,
                lease: ask.lease,
                held: ask.held,
                left_ms: u64::try_from(ask.left.as_millis()).unwrap_or(0),
            }
        });
        let request = QuotaRequest { instance: control.name.to_string(), number, asks: asks.collect() };
        let client = control.client.borrow().clone();
        match ask(client, request).await {
            Ok(grants) => {
                complained = false;
                for (id, grant) in grants {
                    let rate = rates.iter().find(|rate| of(rate) == id);
                    if let (Some(rate), Some(tenure)) = (rate, tenures.get_mut(&id)) {
                        rate.set_share(tenure.take(&grant, now), clock.now());
                    }
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::info!(
                        reason = why,
                        "the control plane gives out no shares of mesh-wide limits; without them this proxy keeps to its even share"
                    );
                }
            }
        }
        fall_back(&rates, &mut tenures, clock);
        tokio::select! {
            () = tokio::time::sleep(ASK_INTERVAL) => {}
            changed = snapshot.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Which limit it is for the control plane.
fn of(rate: &Rate) -> LimitId {
    LimitId { owner: rate.owner.clone(), name: rate.name.clone() }
}

/// Takes the even share where a lease has ended.
fn fall_back(rates: &[&Rate], tenures: &mut BTreeMap<LimitId, Tenure>, clock: Clock) {
    let now = clock.now();
    for rate in rates {
        if let Some(share) = tenures.get_mut(&of(rate)).and_then(|tenure| tenure.fall_back(now)) {
            rate.set_share(share, now);
        }
    }
}

async fn ask(client: Option<Client>, request: QuotaRequest) -> Result<Vec<(LimitId, Grant)>, String> {
    let Some(client) = client else { return Err("it is out of reach".to_owned()) };
    let answer = client.quota(request, ASK_WITHIN).await.map_err(|status| status.message().to_owned())?;
    Ok(answer.grants.into_iter().filter_map(grant).collect())
}

/// What was granted; a name that is none was never asked for.
fn grant(grant: QuotaGrant) -> Option<(LimitId, Grant)> {
    let id = LimitId { owner: ServiceId::parse(&grant.owner).ok()?, name: grant.name.into() };
    let lasts = Duration::from_millis(grant.lasts_ms);
    Some((id, Grant { lease: grant.lease, share: grant.share, lasts, holders: grant.holders }))
}
