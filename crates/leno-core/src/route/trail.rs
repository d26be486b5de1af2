//! Which rules had a say about a request, and which lost: found by going its way again, for those who ask.

use alloc::string::String;
use alloc::vec::Vec;

use super::change::Rewritten;
use super::matching::{Subject, why_not};
use super::{DELEGATION_MAX, Link, ListId, RuleList, Then};
use crate::head::RequestHead;

/// Rules that are named of those that lost in one list: the last ones before the one that decided. Of thousands nobody reads more.
pub const LOST_MAX: usize = 8;

/// One list on a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which.
    pub list: ListId,
    /// The rule that matched; `None`: none did.
    pub rule: Option<u32>,
    /// Rules before it, in order, each with what it asked for in vain.
    pub lost: Vec<(u32, String)>,
    /// How many rules there were before those.
    pub more: usize,
}

/// The lists that a request passes which begins in `lists[first]`, as far as they have rules.
pub fn trail(lists: &[RuleList], first: ListId, head: &RequestHead<'_>, link: Link<'_>) -> Vec<Passed> {
    let (mut passed, mut rewritten, mut at) = (Vec::new(), Rewritten::default(), first);
    for _ in 0..DELEGATION_MAX {
        let now = rewritten.head(head);
        let Some(list) = lists.get(at.0 as usize) else { break };
        let subject = Subject::on(&now, link);
        let matched = list.rules.first_match(&subject);
        let before = matched.unwrap_or(list.rules.len());
        let from = before.saturating_sub(LOST_MAX);
        let lost = list.rules.iter().enumerate().take(before).skip(from);
        let lost = lost.map(|(number, rule)| (number as u32, why_not(&rule.when, &subject)));
        if !list.rules.is_empty() {
            let rule = matched.map(|number| number as u32);
            passed.push(Passed { list: at, rule, lost: lost.collect(), more: from });
        }
        let Some(rule) = matched.and_then(|number| list.rules.get(number)) else { break };
        let Then::List(next) = rule.then else { break };
        let Ok(further) = Rewritten::by(rule, &now) else { break };
        rewritten = further.over(rewritten);
        at = next;
    }
    passed
}

#[cfg(test)]
mod tests;
