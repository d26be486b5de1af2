//! What rules make of a request. Nothing here is on the way of a request whose rules change nothing.
//!
//! A request is matched as it came. Only where a rule hands it to another list, the rules there see what the first one has
//! made of it: a gateway that takes `/shop` off a path hands the service a request as its other callers send it. Headers
//! are always matched as they came.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{
    DELEGATION_MAX, Decision, Link, ListId, Rule, RuleList, Subject, Then, cors, decide_within,
    without_last_slashes,
};
use crate::admission::PRIORITY_HEADER;
use crate::edit::Edits;
use crate::fault::{Experiment, Injected};
use crate::head::RequestHead;
use crate::http1::{is_authority, is_target};
use crate::rate::{Charge, Rate, distinct};
use crate::spec::{
    Abort, Answer, CHANGED_PATH_BYTES_MAX, Direct, FieldChanges, Format, MatchSpec, Mirror, PathChange,
    PathMatch, Redirect, ReplacementPiece, Scheme, Variable,
};

/// What rules would make of the request is none: longer than anybody accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

/// What a request is besides its head, for texts with gaps.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address, without a port.
    pub client: &'a [u8],
    /// What the client speaks.
    pub scheme: Scheme,
    /// The service or gateway whose proxy this is.
    pub source: &'a str,
    /// The service whose rules had the last word.
    pub service: &'a str,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The connection that it came over.
    pub link: Link<'a>,
}

/// What the rules on its way have made of one request.
#[derive(Debug, Default)]
pub struct Changed {
    rewritten: Rewritten,
    /// For the answer's head.
    pub response: Edits,
    /// The rule's own answer.
    pub answer: Option<Arc<Answer>>,
    /// Where it sends the client.
    pub location: Vec<u8>,
    /// Who has made that answer.
    pub made: Made,
    /// And by which rule, if it was not the one that decided.
    pub made_by: Option<(ListId, u32)>,
    /// Who gets a copy.
    pub mirrors: Vec<Mirror>,
    /// What is broken on purpose by the rules on its way, with the rule of each as in `by`.
    pub experiments: Vec<((ListId, u32), Arc<Experiment>)>,
    /// What of that has hit this request; thrown by the shell.
    pub injected: Injected,
    /// The rules that have changed something: the number of each in its list.
    pub by: Vec<(ListId, u32)>,
    /// What the request is counted by.
    pub rates: Vec<Rate>,
    /// What that said, once somebody has asked.
    pub charge: Charge,
}

/// Who has made an answer that no service has given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Made {
    /// The rule says it.
    #[default]
    Rule,
    /// It is about pages of other origins.
    Cors,
    /// Chance has broken the request on purpose.
    Fault,
}

impl Made {
    /// The word for an answer in metrics; `None`: its own.
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Rule => None,
            Self::Cors => Some("preflight"),
            Self::Fault => Some("fault"),
        }
    }
}

/// What is written instead of a head's own parts.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Path and query, if they are others.
    path: Option<Vec<u8>>,
    /// Whom the request is for, if it is another.
    authority: Option<Arc<str>>,
}

impl Rewritten {
    /// What `rule` makes of `head`.
    pub(super) fn by(rule: &Rule, head: &RequestHead<'_>) -> Result<Self, Unfit> {
        let change = rule.change.as_deref();
        let path = change.and_then(|change| change.path.as_ref());
        let path = path.map(|path| changed_path(path, &rule.when, head.path)).transpose()?;
        Ok(Self { path, authority: change.and_then(|it| it.host.clone()) })
    }

    /// The same after another rule.
    pub(super) fn over(self, before: Self) -> Self {
        Self { path: self.path.or(before.path), authority: self.authority.or(before.authority) }
    }

    pub(super) fn head<'a>(&'a self, head: &RequestHead<'a>) -> RequestHead<'a> {
        RequestHead {
            path: self.path.as_deref().unwrap_or(head.path),
            authority: self.authority.as_ref().map_or(head.authority, |authority| authority.as_bytes()),
            ..*head
        }
    }
}

impl Changed {
    /// Has a request that the rule `by` breaks on purpose answered with `abort`.
    pub fn abort(&mut self, abort: Abort, by: (ListId, u32)) {
        let body = "leno: this request was broken on purpose (fault)\n".into();
        let answer = Direct { status: abort.status(), headers: Vec::new(), body };
        self.make(Arc::new(Answer::Direct(answer)), Made::Fault, by);
    }

    /// Has the request answered here; nobody gets a copy of it.
    fn make(&mut self, answer: Arc<Answer>, made: Made, by: (ListId, u32)) {
        self.mirrors.clear();
        (self.answer, self.made, self.made_by) = (Some(answer), made, Some(by));
    }

    /// Nothing is changed, only counted.
    pub fn counted(rates: &[Rate]) -> Self {
        Self { rates: rates.to_vec(), ..Self::default() }
    }

    /// The head that is sent instead of `head`.
    pub fn head<'a>(&'a self, head: &RequestHead<'a>) -> RequestHead<'a> {
        self.rewritten.head(head)
    }

    /// What the rules do that a request passes which begins in `lists[first]`. Changes of its headers go into `edits`.
    ///
    /// # Errors
    /// It would be no request any more.
    pub(crate) fn by(
        lists: &[RuleList],
        first: ListId,
        head: &RequestHead<'_>,
        facts: &Facts<'_>,
        edits: &mut Edits,
    ) -> Result<Self, Unfit> {
        let mut changed = Self::default();
        let mut at = first;
        let mut shared = false;
        for _ in 0..DELEGATION_MAX {
            let now = changed.rewritten.head(head);
            let Some(list) = lists.get(at.0 as usize) else { break };
            let Some(number) = list.rules.first_match(&Subject::on(&now, facts.link)) else { break };
            let Some(rule) = list.rules.get(number) else { break };
            if !rule.rates.is_empty() {
                let subject = Subject::on(&now, facts.link);
                changed.rates.extend(rule.rates.iter().filter(|rate| rate.concerns(&subject)).cloned());
            }
            if let Some(change) = &rule.change {
                let step = Step { rule, asked: head, now, facts };
                if !change.changes_nothing() || rule.answer.is_some() {
                    changed.by.push((at, number as u32));
                }
                step.edit(&change.request, edits);
                step.edit(&change.response, &mut changed.response);
                if let Some(class) = change.priority {
                    edits.remove_all(PRIORITY_HEADER.as_bytes());
                    edits.add(PRIORITY_HEADER.as_bytes(), class.word().as_bytes());
                }
                if let Some(cors) = change.cors.as_ref().filter(|_| !shared) {
                    shared = true;
                    if let Some(answer) = cors::share(cors, head, &mut changed.response) {
                        changed.make(answer, Made::Cors, (at, number as u32));
                        break;
                    }
                }
                changed.experiments.extend(rule.experiment.clone().map(|it| ((at, number as u32), it)));
                match rule.answer.as_deref() {
                    Some(Answer::Redirect(redirect)) => changed.location = step.location(redirect)?,
                    Some(Answer::Direct(direct)) => step.add(&direct.headers, &mut changed.response),
                    None => {}
                }
                changed.answer.clone_from(&rule.answer);
                changed.mirrors.extend_from_slice(&change.mirrors);
                let further = Rewritten::by(rule, &now)?;
                changed.rewritten = further.over(core::mem::take(&mut changed.rewritten));
            }
            match rule.then {
                Then::List(next) => at = next,
                _ => break,
            }
        }
        changed.rates = distinct(changed.rates);
        Ok(changed)
    }
}

/// One rule at one request.
struct Step<'a> {
    rule: &'a Rule,
    /// The request as it came.
    asked: &'a RequestHead<'a>,
    /// As the rules before this one have left it.
    now: RequestHead<'a>,
    facts: &'a Facts<'a>,
}

impl Step<'_> {
    /// Changes fields. What has become no value of a field is left out when it is written.
    fn edit(&self, changes: &FieldChanges, edits: &mut Edits) {
        for name in &changes.remove {
            edits.remove_all(name.as_bytes());
        }
        for (name, _) in &changes.set {
            edits.remove_all(name.as_bytes());
        }
        self.add(&changes.set, edits);
        self.add(&changes.add, edits);
    }

    fn add(&self, fields: &[(Arc<str>, Format)], edits: &mut Edits) {
        for (name, value) in fields {
            edits.add_with(name.as_bytes(), |out| value.write(out, |variable, out| self.fill(variable, out)));
        }
    }

    /// Appends what stands for `variable`.
    fn fill(&self, variable: &Variable, out: &mut Vec<u8>) {
        let (asked, facts) = (self.asked, self.facts);
        out.extend_from_slice(match variable {
            Variable::Part(name) => part(&self.rule.when, self.now.path_only(), name),
            Variable::ClientAddress => facts.client,
            Variable::Host => asked.host(),
            Variable::Method => asked.method,
            Variable::Path => asked.path_only(),
            Variable::Query => asked.path.get(asked.path_only().len() + 1..).unwrap_or(b""),
            Variable::Scheme => facts.scheme.word().as_bytes(),
            Variable::Source => facts.source.as_bytes(),
            Variable::Service => facts.service.as_bytes(),
            Variable::Route => self.rule.name.as_bytes(),
            Variable::RequestId => facts.request_id,
        });
    }

    /// The URL that a redirect names; a path alone for a client that has not said which host it wants.
    fn location(&self, redirect: &Redirect) -> Result<Vec<u8>, Unfit> {
        let asked = self.asked;
        let mut url = Vec::new();
        let asked_host = Some(asked.host()).filter(|_| is_authority(asked.authority));
        if let Some(host) = redirect.host.as_ref().map(|host| host.as_bytes()).or(asked_host) {
            let scheme = redirect.scheme.unwrap_or(self.facts.scheme);
            url.extend_from_slice(scheme.word().as_bytes());
            url.extend_from_slice(b"://");
            url.extend_from_slice(host);
            let asked_port = || {
                let said = asked.authority.get(asked.host().len() + 1..)?;
                core::str::from_utf8(said).ok()?.parse().ok()
            };
            let port = match redirect.port {
                None if redirect.scheme.is_none() && redirect.host.is_none() => asked_port(),
                port => port,
            };
            if let Some(port) = port.filter(|port| *port != scheme.usual_port()) {
                url.extend_from_slice(alloc::format!(":{port}").as_bytes());
            }
        }
        let path = redirect.path.as_ref().map(|path| changed_path(path, &self.rule.when, self.now.path));
        let path = path.transpose()?;
        let path = path.as_deref().unwrap_or(asked.path);
        let path = if path.first() == Some(&b'/') { path } else { b"/" };
        // Without a host before it, two slashes would begin one.
        let slashes = path.iter().take_while(|byte| **byte == b'/').count();
        let from = if url.is_empty() { slashes - 1 } else { 0 };
        url.extend_from_slice(path.get(from..).unwrap_or(b"/"));
        Ok(url)
    }
}

/// Goes on in the list of `decision`, with the request that `rule` has made of `head`.
#[cold]
pub(super) fn decide_further(
    lists: &[RuleList],
    decision: Decision,
    rule: &Rule,
    head: &RequestHead<'_>,
    link: Link<'_>,
    lists_left: usize,
) -> Decision {
    let Ok(rewritten) = Rewritten::by(rule, head) else {
        // It is refused when it is changed; where it would have gone does not matter.
        return Decision { then: Then::NoRoute, ..decision };
    };
    decide_within(lists, decision, &rewritten.head(head), link, lists_left)
}

/// The path and query that become of `path`.
fn changed_path(change: &PathChange, when: &MatchSpec, path: &[u8]) -> Result<Vec<u8>, Unfit> {
    let query_at = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (path, query) = path.split_at(query_at);
    let mut out = Vec::with_capacity(path.len() + query.len() + 16);
    match change {
        PathChange::Prefix(to) => {
            let matched = match &when.path {
                Some(PathMatch::Prefix(prefix)) => without_last_slashes(prefix).len(),
                Some(PathMatch::Start(start)) => start.len(),
                _ => path.len(),
            };
            join(to, path.get(matched..).unwrap_or(b""), &mut out);
        }
        PathChange::Whole(format) => format.write(&mut out, |variable, out| {
            // Nothing else can stand in a path.
            if let Variable::Part(name) = variable {
                out.extend_from_slice(part(when, path, name));
            }
        }),
        PathChange::Regex(pattern, with) => {
            let mut end = 0;
            for found in pattern.regex().captures_iter(path) {
                let all = found.get_match();
                out.extend_from_slice(&path[end..all.start()]);
                for piece in with.pieces() {
                    match piece {
                        ReplacementPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
                        ReplacementPiece::Group(number) => {
                            out.extend_from_slice(found.get(*number).map_or(b"", |group| group.as_bytes()));
                        }
                    }
                }
                end = all.end();
                if out.len() > CHANGED_PATH_BYTES_MAX {
                    return Err(Unfit);
                }
            }
            out.extend_from_slice(&path[end..]);
        }
    }
    if out.first() != Some(&b'/') {
        out.insert(0, b'/');
    }
    out.extend_from_slice(query);
    // Texts of rules and pieces of paths are fit for a path; together they may be too long.
    if out.len() > CHANGED_PATH_BYTES_MAX || !is_target(&out) { Err(Unfit) } else { Ok(out) }
}

/// `to` with what is left of a path behind it, by one slash.
fn join(to: &str, rest: &[u8], out: &mut Vec<u8>) {
    let to = to.as_bytes();
    match (to.strip_suffix(b"/"), rest.strip_prefix(b"/")) {
        (Some(to), Some(_)) => out.extend_from_slice(to),
        _ => out.extend_from_slice(to),
    }
    out.extend_from_slice(rest);
}

/// What the part `name` of the rule's template stands for.
fn part<'a>(when: &MatchSpec, path: &'a [u8], name: &str) -> &'a [u8] {
    match &when.path {
        Some(PathMatch::Template(template)) => template.part(path, when.path_any_case, name).unwrap_or(b""),
        _ => b"",
    }
}

#[cfg(test)]
mod tests;
