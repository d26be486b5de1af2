//! Requests that rules change. Nothing of this is done for any other.

use std::borrow::Cow;
use std::rc::Rc;

use leno_core::edit::Edits;
use leno_core::head::RequestHead;
use leno_core::mux::Kind;
use leno_core::reason::Reason;
use leno_core::route::{Changed, Decision, Facts, Then};
use leno_core::snapshot::Snapshot;
use leno_core::spec::Scheme;

use super::{Drive, fault, rate};
use crate::caller::{Caller, Remote};
use crate::worker::Worker;

/// What the rules of `decision` make of a request; their changes of its headers go into `edits`, behind those of this hop.
/// A request that cannot be sent as they want it is refused.
#[cold]
#[allow(clippy::too_many_arguments, reason = "each is a part of the request that is known at this moment")]
pub(super) fn change(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    client: &Remote,
    kind: Kind,
    head: &RequestHead<'_>,
    request_id: &[u8],
    decision: &mut Decision,
    edits: &mut Edits,
) -> Box<Changed> {
    if kind == Kind::Tcp {
        // Of bytes there is nothing to change: their connections are counted.
        let mut changed = Changed::counted(snapshot.rates_of(decision));
        rate::charge(worker, caller, client, head, edits, &mut changed, decision);
        return Box::new(changed);
    }
    // This hop has found out what the client speaks, or what a proxy in front says that it does.
    let said = edits.added().find(|(name, _)| *name == b"x-forwarded-proto").map(|(_, scheme)| scheme);
    let facts = Facts {
        client: client.ip(),
        scheme: if said == Some(b"https") { Scheme::Https } else { Scheme::Http },
        source: &worker.own_name,
        service: snapshot.list_name(decision.list),
        request_id,
        link: caller.link(client),
    };
    match snapshot.change(caller.entry(), head, &facts, edits) {
        Ok(mut changed) => {
            if !changed.rates.is_empty() {
                rate::charge(worker, caller, client, head, edits, &mut changed, decision);
            }
            if matches!(decision.then, Then::Refused(_)) {
                return Box::new(changed);
            }
            if !changed.experiments.is_empty() {
                fault::throw(worker, &mut changed);
            }
            if let (Some(answer), Some((list, rule))) = (&changed.answer, changed.made_by) {
                let then = Then::Answer(answer.status());
                *decision = Decision { list, rule: Some(rule), then, ..*decision };
            }
            Box::new(changed)
        }
        Err(_) => {
            decision.then = Then::Refused(Reason::RequestMalformed);
            Box::default()
        }
    }
}

/// Why a request is refused, in words, if what rules want is the reason.
pub(super) fn why_not(decision: &Decision, changed: &Changed) -> Option<String> {
    match decision.then {
        Then::Refused(Reason::RequestMalformed) => Some(UNFIT.to_owned()),
        Then::Refused(Reason::RateLimited) => rate::why(changed),
        _ => None,
    }
}

/// Why a request is refused that cannot be sent as the rules want it.
const UNFIT: &str = "what a rule makes of its path is longer than a path can be";

impl<'a> Drive<'a> {
    /// The head that is sent.
    pub(super) fn outgoing(&self) -> RequestHead<'a> {
        match self.changed {
            None => self.head,
            Some(changed) => changed.head(&self.head),
        }
    }

    /// What becomes of an answer's head: what rules want, and then what is `own` to this hop.
    pub(super) fn with_changes(&self, own: Option<Edits>) -> Option<Cow<'_, Edits>> {
        match (own, self.changed) {
            (None, None) => None,
            (Some(own), None) => Some(Cow::Owned(own)),
            (None, Some(changed)) => Some(Cow::Borrowed(&changed.response)),
            (Some(own), Some(changed)) => {
                let mut edits = changed.response.clone();
                edits.append(&own);
                Some(Cow::Owned(edits))
            }
        }
    }
}
