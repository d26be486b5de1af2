//! Head -> rule. Rules are ordered lists; the first that matches wins, and the decision names it. The rules that
//! lost are exactly those before it in its list.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::ops::Deref;

use crate::fault::Experiment;
use crate::head::RequestHead;
use crate::mux::Kind;
use crate::rate::Rate;
use crate::reason::Reason;
use crate::spec::{Answer, Change, MatchSpec, Protocol};
use crate::time::Duration;

mod change;
mod cors;
mod index;
mod matching;
mod trail;

pub use change::{Changed, Facts, Made, Unfit};
use index::RuleIndex;
use matching::link_matches;
use matching::without_last_slashes;
pub use matching::{Link, Subject, matches};
pub use trail::{LOST_MAX, Passed, trail};

/// How many lists one request may be handed through; deeper is refused when the snapshot is built.
pub const DELEGATION_MAX: usize = 4;

/// Index of a [`RuleList`] in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListId(pub u32);

/// Index of a [`Split`] in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SplitId(pub u32);

/// Index of a backend in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// What is configured about attempts: the place in its snapshot, plus one, so that nothing is as small as something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TriesId(pub NonZeroU32);

/// Ordered rules and what happens when none matches.
#[derive(Clone, Debug)]
pub struct RuleList {
    /// The service or gateway whose rules these are; shown to users.
    pub name: Arc<str>,
    /// First match wins.
    pub rules: Rules,
    /// When no rule matches.
    pub otherwise: Then,
    /// For requests whose rule sets none.
    pub timeout: Option<Duration>,
    /// For requests that no rule matches.
    pub tries: Option<TriesId>,
    /// What may be spoken on connections that end up here.
    pub expected: Expected,
}

/// What may be spoken on a connection, as far as configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is said: the first bytes of either side decide.
    #[default]
    Anything,
    /// HTTP of some version: it is declared, or there are rules that look at requests, which bytes that nobody looks into
    /// would pass unseen.
    Http,
    /// Bytes that nobody looks into.
    Opaque,
}

impl Expected {
    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Anything => "auto",
            Self::Http => "http",
            Self::Opaque => "tcp",
        }
    }
}

/// Rules in order, with an index beside them when there are many: a request costs the same however long the list is.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    index: Option<Box<RuleIndex>>,
}

/// One compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique in its list.
    pub name: Arc<str>,
    /// What must hold.
    pub when: MatchSpec,
    /// What happens.
    pub then: Then,
    /// Overrides the list's timeout.
    pub timeout: Option<Duration>,
    /// What it changes in a request and in its answer; there for an answer of its own too, which has to be made.
    pub change: Option<Arc<Change>>,
    /// For [`Then::Answer`].
    pub answer: Option<Arc<Answer>>,
    /// What holds for its requests' attempts, the list's share included.
    pub tries: Option<TriesId>,
    /// What it breaks on purpose.
    pub experiment: Option<Arc<Experiment>>,
    /// What its requests are counted by; with some there is a [`Self::change`] too.
    pub rates: Vec<Rate>,
}

impl Rule {
    /// One that does this with what matches, and nothing else.
    pub(crate) fn new(name: Arc<str>, when: MatchSpec, then: Then) -> Self {
        Self {
            name,
            when,
            then,
            timeout: None,
            change: None,
            answer: None,
            tries: None,
            experiment: None,
            rates: Vec::new(),
        }
    }
}

/// What a rule does, with every name resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Pick a target of this split.
    Split(SplitId),
    /// The same, once there is a place for one more at the application beside.
    Admit(SplitId),
    /// Decide again in this list.
    List(ListId),
    /// Go on to the address that the client wanted, which is no service's.
    Direct(SocketAddr),
    /// There is no rule for this request.
    NoRoute,
    /// The rule names a service that the registry does not know.
    NoSuchService,
    /// The entry does not serve this kind of request.
    Unsupported,
    /// It is refused.
    Refused(Reason),
    /// The request is for a host that this connection is not for.
    Misdirected,
    /// The same URL is served over HTTPS: answer with this status.
    Redirect(u16),
    /// The rule answers by itself, with this status.
    Answer(u16),
}

/// Backends by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Where the requests go, with the share of each.
    pub targets: Vec<(BackendId, u32)>,
}

/// What was decided for one request, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The list that had the last word.
    pub list: ListId,
    /// The rule in it; `None`: no rule matched and the list's `otherwise` holds.
    pub rule: Option<u32>,
    /// What to do.
    pub then: Then,
    /// How long the whole exchange may take; 0: no limit.
    pub timeout: Option<Duration>,
    /// A rule on the way changes the request or its answer, or answers: see [`Changed`].
    pub changed: bool,
    /// What is configured about its attempts.
    pub tries: Option<TriesId>,
}

/// How an application is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking first.
    Http2,
    /// Bytes as they come.
    Opaque,
}

/// How to speak to endpoints of `protocol` for a client that spoke `kind`.
pub const fn speak(kind: Kind, protocol: Protocol) -> Speak {
    match (kind, protocol) {
        (Kind::Tcp, _) => Speak::Opaque,
        (_, Protocol::Http2 | Protocol::Grpc) | (Kind::Http2, Protocol::Auto) => Speak::Http2,
        _ => Speak::Http1,
    }
}

/// Decides where a request goes, beginning in `lists[first]`. Never answers [`Then::List`].
pub fn decide(lists: &[RuleList], first: ListId, head: &RequestHead<'_>, link: Link<'_>) -> Decision {
    decide_within(lists, Decision::nowhere(first), head, link, DELEGATION_MAX)
}

/// The same, through at most so many lists, from the list of `decision` on.
fn decide_within(
    lists: &[RuleList],
    mut decision: Decision,
    head: &RequestHead<'_>,
    link: Link<'_>,
    lists_max: usize,
) -> Decision {
    let subject = Subject::on(head, link);
    for left in (0..lists_max).rev() {
        let Some(list) = lists.get(decision.list.0 as usize) else { break };
        let matched = list.rules.first_match(&subject);
        let rule = matched.and_then(|at| list.rules.get(at));
        decision.rule = matched.map(|at| at as u32);
        decision.then = rule.map_or(list.otherwise, |rule| rule.then);
        // The rule nearest to the caller that sets a timeout has the say: it knows how long this caller waits.
        decision.timeout = decision.timeout.or(rule.and_then(|rule| rule.timeout)).or(list.timeout);
        decision.tries = decision.tries.or(rule.map_or(list.tries, |rule| rule.tries));
        if let Some(rule) = rule
            && let Some(change) = &rule.change
        {
            decision.changed = true;
            if let Then::List(next) = decision.then
                && change.rewrites()
            {
                let decision = Decision { list: next, ..decision };
                return change::decide_further(lists, decision, rule, head, link, left);
            }
        }
        match decision.then {
            Then::List(next) => decision.list = next,
            _ => return decision,
        }
    }
    Decision { then: Then::NoRoute, ..decision }
}

/// Decides where a connection goes that carries no requests: the first rule of `lists[first]` that asks for nothing, such as
/// a split by version, else what holds when no rule matches. Where requests are looked at, such a connection has no way.
pub fn decide_connection(lists: &[RuleList], first: ListId, link: Link<'_>, authority: &[u8]) -> Decision {
    let mut decision = Decision::nowhere(first);
    for _ in 0..DELEGATION_MAX {
        let Some(list) = lists.get(decision.list.0 as usize) else { break };
        if list.expected == Expected::Http {
            return Decision { then: Then::Unsupported, ..decision };
        }
        // Bytes have no head that could be looked at, changed or answered; but connections can be counted.
        let matched = list.rules.iter().position(|rule| {
            let counts_only = |change: &Arc<Change>| change.changes_nothing() && rule.answer.is_none();
            !rule.when.looks_at_requests()
                && rule.when.parts().all(|part| link_matches(part, link, authority))
                && rule.change.as_ref().is_none_or(counts_only)
        });
        decision.rule = matched.map(|at| at as u32);
        let rule = matched.and_then(|at| list.rules.get(at));
        decision.then = rule.map_or(list.otherwise, |rule| rule.then);
        decision.tries = decision.tries.or(rule.map_or(list.tries, |rule| rule.tries));
        decision.changed |= rule.is_some_and(|rule| !rule.rates.is_empty());
        match decision.then {
            Then::List(next) => decision.list = next,
            _ => return decision,
        }
    }
    Decision { then: Then::NoRoute, ..decision }
}

impl Decision {
    /// No decision yet, or none possible.
    pub const fn nowhere(list: ListId) -> Self {
        Self { list, rule: None, then: Then::NoRoute, timeout: None, tries: None, changed: false }
    }
}

impl Rules {
    /// The number of the first rule that matches.
    pub fn first_match(&self, subject: &Subject<'_>) -> Option<usize> {
        match &self.index {
            None => self.rules.iter().position(|rule| matches(&rule.when, subject)),
            Some(index) => index
                .first(subject, |rule| self.rules.get(rule).is_some_and(|rule| matches(&rule.when, subject))),
        }
    }
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let index = RuleIndex::build(&rules).map(Box::new);
        Self { rules, index }
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
