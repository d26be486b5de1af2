//! `Quota`: shares of limits that hold mesh-wide.

use leno_core::name::{Label, ServiceId};
use leno_core::quota::{Ask, HolderId, LimitId};
use leno_core::time::Duration;
use leno_wire::proto::quota::{ASKS_MAX, QuotaGrant, QuotaRequest, QuotaResponse};
use tonic::Status;

use super::{Peer, Serving};

/// Answers one question.
pub(super) fn quota(request: QuotaRequest, serving: &Serving, peer: &Peer) -> Result<QuotaResponse, Status> {
    let service = peer.authenticated()?.service.clone();
    let instance = Label::parse(&request.instance)
        .map_err(|error| Status::invalid_argument(format!("instance {:?}: {error}", request.instance)))?;
    if request.asks.len() > ASKS_MAX {
        return Err(Status::invalid_argument(format!("more than {ASKS_MAX} limits")));
    }
    let holder = HolderId { service, instance };
    let mut asks = Vec::with_capacity(request.asks.len());
    for ask in request.asks {
        let owner = ServiceId::parse(&ask.owner)
            .map_err(|error| Status::invalid_argument(format!("owner {:?}: {error}", ask.owner)))?;
        let limit = LimitId { owner, name: ask.name.into() };
        let left = Duration::from_millis(ask.left_ms);
        let (demand, lease, held) = (ask.demand, ask.lease, ask.held);
        asks.push((limit, Ask { number: request.number, demand, lease, held, left }));
    }
    let grants = serving.mesh.share_out(&holder, asks);
    let grants = grants.ok_or_else(|| Status::not_found("this instance is not attached"))?;
    let grants = grants.into_iter().map(|(limit, grant)| QuotaGrant {
        owner: leno_wire::full_name(&limit.owner),
        name: limit.name.to_string(),
        lease: grant.lease,
        share: grant.share,
        lasts_ms: u64::try_from(grant.lasts.as_millis()).unwrap_or(0),
        holders: grant.holders,
    });
    Ok(QuotaResponse { grants: grants.collect() })
}
