//! Head -> rule. Rules are ordered lists; the first that matches wins, and the decision names it. The rules that
//! lost are exactly those before it in its list.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::head::RequestHead;
use crate::spec::{HostMatch, MatchSpec, PathMatch};
use crate::time::Duration;

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

/// Ordered rules and what happens when none matches.
#[derive(Clone, Debug)]
pub struct RuleList {
    /// The service or gateway whose rules these are; shown to users.
    pub name: Arc<str>,
    /// First match wins.
    pub rules: Vec<Rule>,
    /// When no rule matches.
    pub otherwise: Then,
    /// For requests whose rule sets none.
    pub timeout: Option<Duration>,
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
}

/// What a rule does, with every name resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Pick a target of this split.
    Split(SplitId),
    /// Decide again in this list.
    List(ListId),
    /// There is no rule for this request.
    NoRoute,
    /// The rule names a service that the registry does not know.
    NoSuchService,
    /// The entry does not serve this kind of request.
    Unsupported,
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
    /// How long the whole exchange may take.
    pub timeout: Option<Duration>,
}

/// Decides where a request goes, beginning in `lists[first]`. Never answers [`Then::List`].
pub fn decide(lists: &[RuleList], first: ListId, head: &RequestHead<'_>) -> Decision {
    let mut decision = Decision { list: first, rule: None, then: Then::NoRoute, timeout: None };
    for _ in 0..DELEGATION_MAX {
        let Some(list) = lists.get(decision.list.0 as usize) else { break };
        let matched = list.rules.iter().position(|rule| matches(&rule.when, head));
        let rule = matched.and_then(|at| list.rules.get(at));
        decision.rule = matched.map(|at| at as u32);
        decision.then = rule.map_or(list.otherwise, |rule| rule.then);
        // The rule nearest to the caller that sets a timeout has the say: it knows how long this caller waits.
        decision.timeout = decision.timeout.or(rule.and_then(|rule| rule.timeout)).or(list.timeout);
        match decision.then {
            Then::List(next) => decision.list = next,
            _ => return decision,
        }
    }
    Decision { then: Then::NoRoute, ..decision }
}

/// True when everything that `when` asks for holds for `head`.
pub fn matches(when: &MatchSpec, head: &RequestHead<'_>) -> bool {
    path_matches(when.path.as_ref(), head)
        && (when.methods.is_empty() || when.methods.iter().any(|method| method.as_bytes() == head.method))
        && (when.hosts.is_empty() || when.hosts.iter().any(|host| host_matches(host, head.host())))
        && when.headers.iter().all(|header| {
            let found = head.fields.get_named(header.name.as_bytes());
            match (&header.value, found) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(wanted), Some(value)) => wanted.as_bytes() == value,
            }
        })
}

fn path_matches(wanted: Option<&PathMatch>, head: &RequestHead<'_>) -> bool {
    match wanted {
        None => true,
        Some(PathMatch::Exact(path)) => head.path_only() == path.as_bytes(),
        Some(PathMatch::Prefix(prefix)) => {
            let prefix = prefix.trim_end_matches('/').as_bytes();
            match head.path_only().strip_prefix(prefix) {
                Some(rest) => rest.is_empty() || rest[0] == b'/',
                None => false,
            }
        }
    }
}

/// Host names compare without case (RFC 9110 §4.2.3).
fn host_matches(wanted: &HostMatch, host: &[u8]) -> bool {
    match wanted {
        HostMatch::Exact(name) => name.as_bytes().eq_ignore_ascii_case(host),
        HostMatch::Suffix(suffix) => {
            host.len() > suffix.len()
                && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests;
