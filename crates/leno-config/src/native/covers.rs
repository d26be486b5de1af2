//! Whether one match takes every request that another one takes: a later rule of which that is true never matches.

use leno_core::spec::{
    EgressSource, FieldMatch, GrpcMatch, HostMatch, MatchSpec, PathMatch, SourceMatch, TextMatch,
};

/// How much work [`covers`] is, in comparisons.
pub(crate) fn comparisons(earlier: &MatchSpec, later: &MatchSpec) -> usize {
    let pairs = |a: usize, b: usize| a.saturating_mul(b);
    let (hosts, methods) =
        (pairs(earlier.hosts.len(), later.hosts.len()), pairs(earlier.methods.len(), later.methods.len()));
    let fields = pairs(earlier.headers.len(), later.headers.len())
        .saturating_add(pairs(earlier.queries.len(), later.queries.len()));
    // To try a pattern on a text is much more than to compare two.
    let pattern =
        if matches!(earlier.path, Some(PathMatch::Regex(_) | PathMatch::Template(_))) { 10 } else { 0 };
    1 + hosts + methods + fields + pattern + pairs(earlier.sources.len(), later.sources.len())
}

/// True when every request that `later` matches is matched by `earlier`. Never true by mistake; it may be false
/// for a pair that only several rules together cover.
pub(crate) fn covers(earlier: &MatchSpec, later: &MatchSpec) -> bool {
    earlier.parts().all(|wide| later.parts().any(|narrow| part_covers(wide, narrow)))
}

fn part_covers(earlier: &MatchSpec, later: &MatchSpec) -> bool {
    let hosts = earlier.hosts.is_empty()
        || (!later.hosts.is_empty()
            && later.hosts.iter().all(|host| earlier.hosts.iter().any(|wide| host_covers(wide, host))));
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|method| earlier.methods.contains(method)));
    let fields = |wide: &[FieldMatch], narrow: &[FieldMatch]| {
        wide.iter().all(|wide| narrow.iter().any(|narrow| field_covers(wide, narrow)))
    };
    let sources = earlier.sources.is_empty()
        || (!later.sources.is_empty()
            && later
                .sources
                .iter()
                .all(|source| earlier.sources.iter().any(|wide| source_covers(wide, source))));
    hosts
        && path_covers(earlier, later)
        && methods
        && fields(&earlier.headers, &later.headers)
        && fields(&earlier.queries, &later.queries)
        && earlier
            .grpc
            .as_ref()
            .is_none_or(|wide| later.grpc.as_ref().is_some_and(|it| call_covers(wide, it)))
        && sources
        && (earlier.link.is_none() || earlier.link == later.link)
}

fn host_covers(wide: &HostMatch, narrow: &HostMatch) -> bool {
    match (wide, narrow) {
        (HostMatch::Exact(a), HostMatch::Exact(b)) => a == b,
        (HostMatch::Exact(_), HostMatch::Suffix(_)) => false,
        (HostMatch::Suffix(a), HostMatch::Exact(b) | HostMatch::Suffix(b)) => b.ends_with(&**a),
    }
}

fn path_covers(earlier: &MatchSpec, later: &MatchSpec) -> bool {
    let any_case = earlier.path_any_case;
    let (wide, narrow) = match (&earlier.path, &later.path) {
        (None, _) => return true,
        (Some(PathMatch::Prefix(prefix)), _) if &**prefix == "/" => return true,
        (Some(_), None) => return false,
        (Some(wide), Some(narrow)) => (wide, narrow),
    };
    if wide == narrow && (any_case || !later.path_any_case) {
        return true;
    }
    // What is compared without case is only within what is: the letters of the two must be told apart by neither.
    if later.path_any_case && !any_case {
        return false;
    }
    let folded = |text: &str| if any_case { text.to_ascii_lowercase() } else { text.to_owned() };
    // Every path of `narrow` begins with this text; whether whole segments of it do.
    let (text, segments) = match narrow {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => (&**text, true),
        PathMatch::Start(text) => (&**text, false),
        PathMatch::Template(template) => (template.fixed().0, true),
        PathMatch::Regex(_) => return false,
    };
    match (wide, narrow) {
        (PathMatch::Exact(exact), PathMatch::Exact(path)) => folded(exact) == folded(path),
        (PathMatch::Exact(_), _) => false,
        (PathMatch::Prefix(prefix), _) => {
            let (prefix, text) = (folded(prefix), folded(text));
            let rest = text.strip_prefix(&*prefix);
            rest.is_some_and(|rest| rest.starts_with('/') || segments && rest.is_empty())
        }
        (PathMatch::Start(start), _) => folded(text).starts_with(&*folded(start)),
        (PathMatch::Regex(pattern), PathMatch::Exact(path)) => {
            !later.path_any_case && pattern.matches(path.as_bytes())
        }
        (PathMatch::Template(template), PathMatch::Exact(path)) => {
            template.matches(path.as_bytes(), any_case)
        }
        (PathMatch::Regex(_) | PathMatch::Template(_), _) => false,
    }
}

fn field_covers(wide: &FieldMatch, narrow: &FieldMatch) -> bool {
    if wide.name != narrow.name {
        return false;
    }
    match (&narrow.value, narrow.not) {
        _ if wide == narrow => true,
        // It is one value, or none: it can be tried.
        (TextMatch::Exact(value), false) if !narrow.any_case || wide.any_case => {
            wide.holds(Some(value.as_bytes()))
        }
        (TextMatch::Present, true) => wide.holds(None),
        // It is there, whatever it is.
        (_, false) => wide.value == TextMatch::Present && !wide.not,
        (_, true) => false,
    }
}

fn call_covers(wide: &GrpcMatch, narrow: &GrpcMatch) -> bool {
    (wide.service.is_none() || wide.service == narrow.service)
        && (wide.method.is_none() || wide.method == narrow.method)
}

fn source_covers(wide: &SourceMatch, narrow: &SourceMatch) -> bool {
    let who = match (&wide.who, &narrow.who) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(EgressSource::Service(service))) => wide.covers(service),
        (wide, narrow) => wide == narrow,
    };
    who && narrow.labels.have(None, &wide.labels)
}

#[cfg(test)]
mod tests;
