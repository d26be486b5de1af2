//! Which rules of a long list can match a head at all, found without a walk over the list.
//!
//! Rules are told apart by one *dimension* after the other: first by path, those that this leaves together by path without
//! case, then by host, and those that this leaves together by the value of a header or of a query's parameter. Each
//! [`Split`] files its rules under hashes of what they ask for in its dimension, and computes the few hashes that a head
//! can have there: its exact path, each prefix of a depth that some rule asks for, and each beginning of a length that
//! one asks for; its exact host and each suffix of a depth in use; the value of one field. A rule that asks for nothing
//! there, or for something that has no such key, is in the split's rest, which is told apart by the next dimension. What
//! is left together, at most [`WALK_MAX`] rules where the dimensions suffice, is walked in order.
//!
//! A template is filed under what stands before its first part, a call of gRPC under the path that it has. A regular
//! expression has no key, nor has anything that must not be so.
//!
//! The index only proposes: a rule counts when the caller finds that it matches, and of all that do, the smallest number
//! wins. So first-match order holds whatever the index files together, a hash that two patterns share costs one vain
//! look, and a kind of condition that the index knows nothing of leaves its rule where the others have put it. A new
//! kind of condition with keys is a new [`Dimension`]; one without needs no change here.
//!
//! **Cost.** A head costs its keys (their number is bounded by what the rules ask for, not by what a client sends) times
//! one look-up each, and the walks that these lead to. Lists whose rules differ in path, host or the value of a header
//! cost the same at any length. What still costs a step per rule: rules that differ only in method, in a regular
//! expression, in what follows the first part of a template, in whether a header is there, in the value of a fifth field,
//! or in nothing; but only for requests for which they are candidates, and only up to the first that matches.
//!
//! **Hashes are not secret**, and need not be: a request only looks, it adds nothing. Whoever finds a path whose hash is
//! that of another one reaches the other's rules, as by asking for that path itself, and none of them matches. The
//! longest run of slots that a look can pass is fixed when the index is built. Only who writes the rules could make it
//! slow, for their own list.
//!
//! **Memory.** About 90 bytes per rule, or per host of a rule where paths do not tell rules apart.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Rule, Subject, without_last_slashes};
use crate::spec::{FieldMatch, GrpcMatch, HostMatch, MatchSpec, PathMatch, TextMatch};

mod keys;
mod table;

use keys::{Depths, Lengths, hash, hash_any_case, hash_case, prefixes, start, starts, suffixes};
use table::Table;

/// So many rules are walked rather than told apart: finding the keys of a head costs as much as looking at some eight
/// rules that do not match.
pub(super) const WALK_MAX: usize = 8;

/// How many headers and parameters tell rules apart, one after the other.
const FIELDS_MAX: usize = 4;

/// The rules of one list by what they ask for.
#[derive(Clone, Debug)]
pub(super) struct RuleIndex {
    root: Place,
    splits: Vec<Split>,
    /// Where each key of each split leads.
    table: Table,
    /// Rule numbers; each walk is a range of it, in order.
    filed: Vec<u32>,
}

/// Where rules are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    /// In this range of `filed`.
    Walk { start: u32, end: u32 },
    /// Behind this split.
    Split(u32),
}

/// Rules told apart by one dimension.
#[derive(Clone, Debug)]
struct Split {
    by: Dimension,
    /// The rules that have no key in it.
    rest: Place,
}

/// What rules are told apart by, and which kinds of keys are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dimension {
    Path { any_case: bool, exact: bool, prefixes: Depths, starts: Lengths },
    Host { exact: bool, suffixes: Depths },
    Field(FieldOf, Arc<str>),
}

/// What a field is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FieldOf {
    Head,
    Query,
}

impl RuleIndex {
    /// The index of `rules`; `None` for a list that is walked as fast.
    pub(super) fn build(rules: &[Rule]) -> Option<Self> {
        if rules.len() <= WALK_MAX {
            return None;
        }
        let mut build = Build { rules, splits: Vec::new(), keys: Vec::new(), filed: Vec::new() };
        let root = build.place((0..rules.len() as u32).collect(), &Asked::default());
        let Build { splits, keys, mut filed, .. } = build;
        filed.shrink_to_fit();
        Some(Self { root, splits, table: Table::new(&keys), filed })
    }

    /// The smallest number of a rule that `matches`, of all that can match `subject`.
    pub(super) fn first(
        &self,
        subject: &Subject<'_>,
        mut matches: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut first = NONE;
        self.search(self.root, subject, &mut first, &mut matches);
        (first != NONE).then_some(first as usize)
    }

    fn search<M: FnMut(usize) -> bool>(
        &self,
        place: Place,
        subject: &Subject<'_>,
        first: &mut u32,
        matches: &mut M,
    ) {
        match place {
            Place::Nowhere => {}
            Place::Walk { start, end } => {
                for rule in self.filed.get(start as usize..end as usize).unwrap_or(&[]) {
                    if *rule >= *first {
                        return;
                    }
                    if matches(*rule as usize) {
                        *first = *rule;
                        return;
                    }
                }
            }
            Place::Split(number) => {
                let Some(split) = self.splits.get(number as usize) else { return };
                split.by.keys_of_subject(number, subject, |key| {
                    self.search(self.table.get(number, key), subject, first, matches);
                });
                self.search(split.rest, subject, first, matches);
            }
        }
    }
}

/// No rule's number: a list of so many would not fit into memory.
const NONE: u32 = u32::MAX;

impl Dimension {
    /// The keys that `when` has here, into `keys`; none: any request could match it, as far as this dimension can tell.
    fn keys_of_rule(&mut self, split: u32, when: &MatchSpec, keys: &mut Vec<u64>) {
        match self {
            Self::Path { any_case, exact, prefixes, starts } => {
                let hash = |seed: u64, text: &[u8]| hash_case(seed, text, *any_case);
                match &when.path {
                    Some(_) if when.path_any_case != *any_case => {}
                    Some(PathMatch::Exact(path)) => {
                        *exact = true;
                        keys.push(hash(seed(split, Kind::Exact), path.as_bytes()));
                    }
                    Some(PathMatch::Prefix(prefix)) => {
                        let prefix = without_last_slashes(prefix);
                        if prefixes.add(prefix, b'/') {
                            keys.push(hash(seed(split, Kind::Below), prefix));
                        }
                    }
                    Some(PathMatch::Start(text)) if !text.is_empty() => {
                        let text = starts.add(text.as_bytes());
                        keys.push(start(seed(split, Kind::Start), text, *any_case));
                    }
                    Some(PathMatch::Template(template)) => {
                        let (fixed, whole) = template.fixed();
                        if whole {
                            *exact = true;
                            keys.push(hash(seed(split, Kind::Exact), fixed.as_bytes()));
                        } else if !fixed.is_empty() && prefixes.add(fixed.as_bytes(), b'/') {
                            keys.push(hash(seed(split, Kind::Below), fixed.as_bytes()));
                        }
                    }
                    Some(PathMatch::Start(_) | PathMatch::Regex(_)) => {}
                    None => match &when.grpc {
                        Some(GrpcMatch { service: Some(service), method }) if !*any_case => {
                            let path = alloc::format!("/{service}/{}", method.as_deref().unwrap_or(""));
                            if method.is_some() {
                                *exact = true;
                                keys.push(hash(seed(split, Kind::Exact), path.as_bytes()));
                            } else {
                                let path = without_last_slashes(&path);
                                if prefixes.add(path, b'/') {
                                    keys.push(hash(seed(split, Kind::Below), path));
                                }
                            }
                        }
                        _ => {}
                    },
                }
            }
            Self::Host { exact, suffixes } => {
                for host in &when.hosts {
                    match host {
                        HostMatch::Exact(host) => {
                            *exact = true;
                            keys.push(hash_any_case(seed(split, Kind::Exact), host.as_bytes()));
                        }
                        HostMatch::Suffix(suffix) => {
                            let suffix = suffix.as_bytes();
                            if suffix.first() != Some(&b'.') || !suffixes.add(suffix, b'.') {
                                // One host without a key, and the rule's others do not say all of what it matches.
                                keys.clear();
                                return;
                            }
                            keys.push(hash_any_case(seed(split, Kind::Below), suffix));
                        }
                    }
                }
            }
            Self::Field(of, name) => {
                // All of a rule's values must hold, so that one of them is enough of a key.
                let named = of.asked(when).iter().filter(|field| field.name == *name);
                if let Some(value) = named.filter_map(exact_value).next() {
                    keys.push(hash(seed(split, Kind::Exact), value.as_bytes()));
                }
            }
        }
    }

    /// Every key under which a rule can be filed that matches `subject`.
    fn keys_of_subject(&self, split: u32, subject: &Subject<'_>, mut each: impl FnMut(u64)) {
        match self {
            Self::Path { any_case, exact, prefixes: depths, starts: lengths } => {
                let path = subject.path();
                let hash = |seed: u64, text: &[u8]| hash_case(seed, text, *any_case);
                if *exact {
                    each(hash(seed(split, Kind::Exact), path));
                }
                prefixes(path, *depths, |prefix| each(hash(seed(split, Kind::Below), prefix)));
                starts(seed(split, Kind::Start), path, lengths, *any_case, each);
            }
            Self::Host { exact, suffixes: depths } => {
                let host = subject.host();
                if *exact {
                    each(hash_any_case(seed(split, Kind::Exact), host));
                }
                suffixes(host, *depths, |suffix| {
                    each(hash_any_case(seed(split, Kind::Below), suffix));
                });
            }
            Self::Field(FieldOf::Head, name) => {
                if let Some(value) = subject.head.fields.get_named(name.as_bytes()) {
                    each(hash(seed(split, Kind::Exact), value));
                }
            }
            Self::Field(FieldOf::Query, name) => {
                if let Some(value) = subject.parameter(name.as_bytes()) {
                    each(hash(seed(split, Kind::Exact), &value));
                }
            }
        }
    }
}

impl FieldOf {
    /// What a rule asks of such fields.
    fn asked(self, when: &MatchSpec) -> &[FieldMatch] {
        match self {
            Self::Head => &when.headers,
            Self::Query => &when.queries,
        }
    }
}

/// The one value that a field must have, if that is what is asked.
fn exact_value(field: &FieldMatch) -> Option<&Arc<str>> {
    match &field.value {
        TextMatch::Exact(value) if !field.not && !field.any_case => Some(value),
        _ => None,
    }
}

/// What a key is begun with, so that those of two splits, and of two kinds in one, lie in different slots.
const fn seed(split: u32, kind: Kind) -> u64 {
    (split as u64) << 32 | (kind as u64) << 30
}

/// What a key stands for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Exact,
    Below,
    Start,
}

/// The dimensions that have been used on the way to some rules.
#[derive(Clone, Debug, Default)]
struct Asked {
    path: bool,
    path_any_case: bool,
    host: bool,
    fields: Vec<(FieldOf, Arc<str>)>,
}

/// An index under construction.
struct Build<'a> {
    rules: &'a [Rule],
    splits: Vec<Split>,
    /// `(split, key, where it leads)`
    keys: Vec<(u32, u64, Place)>,
    filed: Vec<u32>,
}

impl Build<'_> {
    /// Files `members` (rule numbers in order) that the dimensions in `asked` have left together.
    fn place(&mut self, members: Vec<u32>, asked: &Asked) -> Place {
        if members.is_empty() {
            return Place::Nowhere;
        }
        if members.len() > WALK_MAX {
            let mut asked = asked.clone();
            while let Some(by) = self.next_dimension(&members, &mut asked) {
                if let Some(split) = self.split(by, &members, &asked) {
                    return Place::Split(split);
                }
            }
        }
        let start = self.filed.len() as u32;
        self.filed.extend(members);
        Place::Walk { start, end: self.filed.len() as u32 }
    }

    /// Tells `members` apart; `None` when none of them has a key in this dimension.
    fn split(&mut self, mut by: Dimension, members: &[u32], asked: &Asked) -> Option<u32> {
        let number = self.splits.len() as u32;
        let (mut keyed, mut rest, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for member in members {
            if let Some(rule) = self.rules.get(*member as usize) {
                // All of what a rule asks must hold, so that one part of it is enough of a key.
                for part in rule.when.parts() {
                    by.keys_of_rule(number, part, &mut keys);
                    if !keys.is_empty() {
                        break;
                    }
                }
            }
            if keys.is_empty() {
                rest.push(*member);
            }
            keyed.extend(keys.drain(..).map(|key| (key, *member)));
        }
        if keyed.is_empty() {
            return None;
        }
        self.splits.push(Split { by, rest: Place::Nowhere });
        keyed.sort_unstable();
        keyed.dedup();
        for same in keyed.chunk_by(|a, b| a.0 == b.0) {
            let place = self.place(same.iter().map(|(_, member)| *member).collect(), asked);
            self.keys.push((number, same[0].0, place));
        }
        let rest = self.place(rest, asked);
        if let Some(split) = self.splits.get_mut(number as usize) {
            split.rest = rest;
        }
        Some(number)
    }

    /// What to tell `members` apart by next.
    fn next_dimension(&self, members: &[u32], asked: &mut Asked) -> Option<Dimension> {
        let by_path = |any_case| {
            let (prefixes, starts) = (Depths::default(), Lengths::default());
            Some(Dimension::Path { any_case, exact: false, prefixes, starts })
        };
        if !core::mem::replace(&mut asked.path, true) {
            return by_path(false);
        }
        if !core::mem::replace(&mut asked.path_any_case, true) {
            return by_path(true);
        }
        if !core::mem::replace(&mut asked.host, true) {
            return Some(Dimension::Host { exact: false, suffixes: Depths::default() });
        }
        if asked.fields.len() == FIELDS_MAX {
            return None;
        }
        // The field whose value most of them ask for.
        let mut wanted: BTreeMap<(FieldOf, &Arc<str>), usize> = BTreeMap::new();
        let rules = members.iter().filter_map(|member| self.rules.get(*member as usize));
        for rule in rules {
            for of in [FieldOf::Head, FieldOf::Query] {
                let fields = rule.when.parts().flat_map(|part| of.asked(part));
                for field in fields.filter(|field| exact_value(field).is_some()) {
                    *wanted.entry((of, &field.name)).or_insert(0) += 1;
                }
            }
        }
        wanted.retain(|(of, name), _| !asked.fields.iter().any(|(it, known)| it == of && known == *name));
        let ((of, name), _) = wanted.into_iter().max_by_key(|(_, count)| *count)?;
        asked.fields.push((of, name.clone()));
        Some(Dimension::Field(of, name.clone()))
    }
}

#[cfg(test)]
mod tests;
