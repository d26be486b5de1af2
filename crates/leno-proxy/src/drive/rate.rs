//! Requests that are counted. Nothing of this is done for any other.

use std::net::IpAddr;

use leno_core::edit::Edits;
use leno_core::head::RequestHead;
use leno_core::rate::{Charge, Sender};
use leno_core::reason::Reason;
use leno_core::route::{Changed, Decision, Then};

use crate::caller::{Caller, Remote};
use crate::worker::Worker;

/// Counts a request at the limits that concern it; one too many is refused.
pub(super) fn charge(
    worker: &Worker,
    caller: &Caller,
    client: &Remote,
    head: &RequestHead<'_>,
    edits: &Edits,
    changed: &mut Changed,
    decision: &mut Decision,
) {
    let sender = Sender {
        caller: match caller {
            Caller::Inbound { source, .. } => source,
            // Nobody vouches for a client of a gateway.
            Caller::Gateway(_) | Caller::Passage { .. } => "",
            _ => &worker.own_name,
        },
        client: address(caller, client, edits),
    };
    // The turn's time would do for a deadline; for a limit, time that has passed is requests.
    let now = worker.clock.now();
    changed.charge = Charge::of(&changed.rates, head, &sender, now, &mut changed.response);
    if changed.charge.refused_by().is_some() {
        decision.then = Then::Refused(Reason::RateLimited);
    }
}

/// Why a request is refused, in words.
pub(super) fn why(changed: &Changed) -> Option<String> {
    changed.charge.refused_by().map(str::to_owned)
}

/// Who the client is: what trusted proxies in front of a gateway say, which its forwarding header begins with.
fn address(caller: &Caller, client: &Remote, edits: &Edits) -> IpAddr {
    let peer = client.address.ip();
    if !matches!(caller, Caller::Gateway(_)) {
        return peer;
    }
    let said = edits.added().find(|(name, _)| *name == b"x-forwarded-for").map(|(_, chain)| chain);
    let first = said.and_then(|chain| chain.split(|byte| *byte == b',').next()).unwrap_or(b"");
    std::str::from_utf8(first.trim_ascii()).ok().and_then(|text| text.parse().ok()).unwrap_or(peer)
}
