//! What a route changes, and what it answers by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_core::admission::Class;
use leno_core::http1::is_authority;
use leno_core::name::ServiceId;
use leno_core::spec::{
    ANSWER_BODY_BYTES_MAX, ActionSpec, Answer, Change, Direct, FieldChanges, Fixed, Format, FormatError,
    HostMatch, MIRRORS_MAX, MatchSpec, Mirror, PathChange, PathMatch, Pattern, REDIRECT_STATUSES, Redirect,
    Replacement, Scheme, Scope, VARIABLES,
};

use super::fields::{ANSWER, CLASSES, HEADER_CHANGES, Kind, MIRROR, REDIRECT, REPLACING, REWRITE};
use super::matching::{one_form, pattern};
use super::rate;
use super::read::{Fields, Reader};
use super::rules::RULES_MAX;
use super::value;
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::suggest;
use crate::yaml::{Entry, Node, Value, short};

/// What the route in `fields` changes; `None`: nothing, or a part of it is wrong, which is reported. `when` is `None` when it
/// is not known what the route is about.
pub(crate) fn change(
    fields: &mut Fields<'_>,
    when: Option<&MatchSpec>,
    own: Option<&ServiceId>,
    reader: &mut Reader<'_>,
) -> Option<Arc<Change>> {
    let (mirror, fault, cors) = (fields.get("mirror"), fields.get("fault"), fields.get("cors"));
    // Callers of a service are counted in front of it; a route of its own is applied by each of them alone.
    let rates = if own.is_none() { fields.get("rate_limits") } else { None };
    let (rewriting, request, response) =
        (fields.get("rewrite"), fields.get("request_headers"), fields.get("response_headers"));
    let priority = fields.get("priority").and_then(|node| reader.choice(node, CLASSES));
    let when = when?;
    let priority = priority.and_then(|word| Class::parse(word.as_bytes()));
    let mut change = Change { priority, ..Change::default() };
    if let Some(node) = rewriting {
        (change.path, change.host) = rewrite(node, when, reader).unwrap_or_default();
    }
    if let Some(node) = request {
        change.request = header_changes(node, when, reader).unwrap_or_default();
    }
    if let Some(node) = response {
        change.response = header_changes(node, when, reader).unwrap_or_default();
    }
    if let Some(node) = rates {
        change.rates = rate::limits(node, false, reader);
    }
    if let Some(node) = mirror {
        change.mirrors = mirrors(node, own, reader);
    }
    change.fault = fault.and_then(|node| super::fault::fault(node, reader));
    change.cors = cors.and_then(|node| super::cors::cors(node, when, reader));
    (!change.is_empty()).then(|| Arc::new(change))
}

fn mirrors(node: &Node, own: Option<&ServiceId>, reader: &mut Reader<'_>) -> Vec<Mirror> {
    let items = match &node.value {
        Value::List(_) => reader.list(node, "a list of services", MIRRORS_MAX),
        _ => std::slice::from_ref(node),
    };
    let mut mirrors: Vec<Mirror> = Vec::new();
    for item in items {
        let Some(mirror) = mirror(item, own, reader) else { continue };
        if mirrors.iter().any(|it| it.service == mirror.service && it.version == mirror.version) {
            reader.error(Problem::error(item.span, "this mirror is given twice").hint("add the shares up"));
        }
        mirrors.push(mirror);
    }
    mirrors
}

fn mirror(node: &Node, own: Option<&ServiceId>, reader: &mut Reader<'_>) -> Option<Mirror> {
    if let Value::Scalar(_) = &node.value {
        let service = reader.service(node)?;
        return Some(Mirror { service, version: None, share_ppm: Mirror::ALL_PPM });
    }
    let mut fields = reader.fields(node, &MIRROR)?;
    let (service_node, version, percent) =
        (fields.get("service"), fields.get("version"), fields.get("percent"));
    let complete = fields.complete;
    fields.finish();
    let service = match (service_node, own) {
        (Some(node), _) => reader.service(node),
        (None, Some(own)) => Some(own.clone()),
        (None, None) if !complete => None,
        (None, None) => {
            reader.error(Problem::error(node.span, "the mirror names no service").hint("add `service: …`"));
            None
        }
    };
    let version = match version {
        None => None,
        Some(node) => {
            let text = reader.text(node, Kind::Version)?;
            Some(reader.version_of(service.as_ref()?, text, node.span)?)
        }
    };
    let share_ppm = match percent {
        None => Mirror::ALL_PPM,
        Some(node) => reader.number(node, Kind::Percent, value::percent)?,
    };
    Some(Mirror { service: service?, version, share_ppm })
}

/// Reports what says nothing in a route that answers by itself, at `answer`.
pub(crate) fn sends_nothing(fields: &mut Fields<'_>, answer: &Entry, reader: &mut Reader<'_>) {
    for name in ["rewrite", "request_headers", "mirror", "priority", "fault", "timeout", "retry", "hedge"] {
        if let Some(entry) = fields.entry(name) {
            let message =
                format!("`{name}` is about what is sent to a service, and this route sends nothing");
            let problem = Problem::error(entry.key_span, message);
            reader.error(problem.related(answer.key_span, "it answers by itself").hint("remove it"));
        }
    }
}

fn rewrite(
    node: &Node,
    when: &MatchSpec,
    reader: &mut Reader<'_>,
) -> Option<(Option<PathChange>, Option<Arc<str>>)> {
    let Value::Map(_) = &node.value else {
        return Some((Some(prefix(node, when, reader)?), None));
    };
    let mut fields = reader.fields(node, &REWRITE)?;
    let host = fields.get("host");
    let nothing = ["prefix", "path", "regex"].iter().all(|form| fields.key(form).is_none());
    let path = if host.is_some() && nothing {
        for form in ["prefix", "path", "regex"] {
            fields.entry(form);
        }
        Some(None)
    } else {
        path_change(&mut fields, "rewrite", when, reader).map(Some)
    };
    fields.finish();
    let host = host.map(|node| {
        reader.parsed(node, Kind::Text, |text| {
            if is_authority(text.as_bytes()) { Ok(Arc::from(text)) } else { Err(value::no_authority(text)) }
        })
    });
    let host = match host {
        Some(host) => Some(host?),
        None => None,
    };
    Some((path?, host))
}

/// The one of `prefix`, `path` and `regex` that is given.
fn path_change(
    fields: &mut Fields<'_>,
    what: &str,
    when: &MatchSpec,
    reader: &mut Reader<'_>,
) -> Option<PathChange> {
    let forms = ["prefix", "path", "regex"];
    let (form, Entry { value: node, .. }) =
        one_form(fields, what, &forms, "such as {prefix: /}, or {host: user.internal}", reader)?;
    match form {
        "prefix" => prefix(node, when, reader),
        "path" => {
            let text = reader.text(node, Kind::Template)?;
            // Whatever stands in the gaps, what is around them is a path.
            let plain = text.replace(['{', '}'], "");
            reader.checked(node.span, value::path(&plain))?;
            Some(PathChange::Whole(format(node, text, Scope::Path, when, reader)?))
        }
        _ => {
            let mut fields = reader.fields(node, &REPLACING)?;
            let (found, with) = (fields.get("match"), fields.get("with"));
            fields.finish();
            let (found, with) = (pattern(found?, Pattern::anywhere, reader)?, with?);
            let text = reader.text(with, Kind::Text)?;
            if !text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
                let message = format!("\"{}\" is no part of a path", short(text));
                reader.error(Problem::error(with.span, message).hint("the query stays as it is"));
                return None;
            }
            match Replacement::parse(text, &found) {
                Ok(replacement) => Some(PathChange::Regex(found, replacement)),
                Err(error) => {
                    let at = text.get(..error.at).map_or(0, |before| before.chars().count());
                    let problem = Problem::error(with.part(at, 2), error.problem);
                    reader.error(problem.hint("\\1 is the first group in (…), \\0 all that was matched"));
                    None
                }
            }
        }
    }
}

/// Another prefix: the route's own path has to be one.
fn prefix(node: &Node, when: &MatchSpec, reader: &mut Reader<'_>) -> Option<PathChange> {
    let path = reader.parsed(node, Kind::Path, value::path)?;
    match &when.path {
        Some(PathMatch::Prefix(_) | PathMatch::Start(_) | PathMatch::Exact(_)) => {
            Some(PathChange::Prefix(path.into()))
        }
        Some(PathMatch::Template(_) | PathMatch::Regex(_)) | None => {
            let problem = Problem::error(node.span, "the route's path has no prefix that could be replaced");
            reader.error(problem.hint(match &when.path {
                Some(PathMatch::Template(_)) => "write {path: …} with parts of the template, such as /u/{id}",
                Some(_) => "write {regex: {match: …, with: …}}, or {path: …} for the whole path",
                None => "give the route a `path`, such as `path: /`; or write {path: …} for the whole path",
            }));
            None
        }
    }
}

fn header_changes(node: &Node, when: &MatchSpec, reader: &mut Reader<'_>) -> Option<FieldChanges> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &HEADER_CHANGES)?;
    let (remove, set, add) = (fields.get("remove"), fields.get("set"), fields.get("add"));
    fields.finish();
    let mut changes = FieldChanges::default();
    let mut taken = BTreeMap::new();
    if let Some(node) = remove {
        for item in reader.one_or_more(node, "a header, or a list of headers", RULES_MAX) {
            let Some(text) = reader.text(item, Kind::Text) else { continue };
            changes.remove.extend(header(text, item.span, &mut taken, reader));
        }
    }
    if let Some(node) = set {
        changes.set = values(node, when, &mut taken, reader);
    }
    if let Some(node) = add {
        changes.add = values(node, when, &mut BTreeMap::new(), reader);
    }
    if changes == FieldChanges::default() && reader.problems.errors() == errors {
        reader.error(Problem::error(node.span, "the map is empty").hint("such as {set: {x-env: test}}"));
    }
    (reader.problems.errors() == errors).then_some(changes)
}

/// Headers with values that may have gaps.
fn values(
    node: &Node,
    when: &MatchSpec,
    taken: &mut BTreeMap<Arc<str>, Span>,
    reader: &mut Reader<'_>,
) -> Vec<(Arc<str>, Format)> {
    let mut values = Vec::new();
    for entry in reader.map(node, "a map from headers to values").iter().take(RULES_MAX) {
        let name = header(&entry.key, entry.key_span, taken, reader);
        if matches!(entry.value.value, Value::Nothing) {
            let message = format!("the header \"{}\" has no value", short(&entry.key));
            reader.error(Problem::error(entry.key_span, message).hint("write \"\" for an empty one"));
            continue;
        }
        let Some(text) = reader.parsed(&entry.value, Kind::Text, value::header_text) else { continue };
        let value = format(&entry.value, text, Scope::Field, when, reader);
        values.extend(name.zip(value));
    }
    values
}

/// The name of a header that can be changed, and is not changed yet.
fn header(
    text: &str,
    span: Span,
    taken: &mut BTreeMap<Arc<str>, Span>,
    reader: &mut Reader<'_>,
) -> Option<Arc<str>> {
    if let Some(fixed) = Fixed::of(text) {
        let message = format!("the header \"{}\" cannot be changed: it {}", short(text), fixed.why());
        reader.error(Problem::error(span, message));
        return None;
    }
    let name: Arc<str> = text.to_ascii_lowercase().into();
    if let Some(before) = taken.get(&name) {
        let problem = Problem::error(span, format!("the header \"{}\" is given twice", short(text)));
        reader.error(problem.related(*before, "first given here").hint("`set` alone replaces what came"));
        return None;
    }
    taken.insert(name.clone(), span);
    Some(name)
}

/// A text with gaps.
fn format(
    node: &Node,
    text: &str,
    scope: Scope,
    when: &MatchSpec,
    reader: &mut Reader<'_>,
) -> Option<Format> {
    let parts: Vec<&str> = match &when.path {
        Some(PathMatch::Template(template)) => template.names().collect(),
        _ => Vec::new(),
    };
    let FormatError { problem, at, unknown } = match Format::parse(text, scope, &parts) {
        Ok(format) => return Some(format),
        Err(error) => error,
    };
    let place = text.get(..at).map_or(0, |before| before.chars().count());
    let variables = VARIABLES.iter().map(|(name, _)| *name).filter(|_| scope == Scope::Field);
    let known: Vec<&str> = parts.iter().copied().chain(variables).collect();
    let hint = match &unknown {
        None => None,
        Some(name) => suggest::did_you_mean(name, known.iter().copied()).or_else(|| {
            Some(if known.is_empty() {
                "give the path a form with parts, such as {template: /users/{id}}".to_owned()
            } else {
                format!("one of: {}", known.join(", "))
            })
        }),
    };
    let length = unknown.map_or(1, |name| name.chars().count() + 2);
    reader.error(Problem::error(node.part(place, length), problem).maybe_hint(hint));
    None
}

/// Another URL.
pub(crate) fn redirect(node: &Node, when: &MatchSpec, reader: &mut Reader<'_>) -> Option<ActionSpec> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &REDIRECT)?;
    let scheme = fields.get("scheme").and_then(|node| reader.choice(node, REDIRECT.choices("scheme")));
    let host = fields.get("host").and_then(|node| match reader.parsed(node, Kind::Host, value::host)? {
        HostMatch::Exact(host) => Some(host),
        HostMatch::Suffix(_) => {
            reader.error(Problem::error(node.span, "a client is sent to one host").hint("write one name"));
            None
        }
    });
    let port = fields.get("port").and_then(|node| reader.number(node, Kind::Port, value::port));
    let status = fields.get("status").map_or(Some(302), |node| {
        let status =
            reader.number(node, Kind::Between(301, 308), |text| value::number(text, "a status", 301, 308))?;
        let status = u16::try_from(status).ok().filter(|status| REDIRECT_STATUSES.contains(status));
        if status.is_none() {
            let problem = Problem::error(node.span, "this status sends nobody anywhere");
            reader.error(problem.hint("301, 302, 303, 307 or 308"));
        }
        status
    });
    let forms = ["prefix", "path", "regex"];
    let path = if forms.iter().any(|form| fields.key(form).is_some()) {
        path_change(&mut fields, "redirect", when, reader)
    } else {
        for form in forms {
            fields.entry(form);
        }
        None
    };
    let (span, complete) = (fields.span, fields.complete);
    fields.finish();
    if reader.problems.errors() > errors {
        return None;
    }
    if complete && scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        let problem = Problem::error(span, "the redirect leads to itself");
        reader.error(problem.hint("such as {host: www.example.com}, or {prefix: /new}"));
        return None;
    }
    let scheme = scheme.and_then(Scheme::parse);
    Some(ActionSpec::Answer(Arc::new(Answer::Redirect(Redirect {
        scheme,
        host,
        port,
        path,
        status: status?,
    }))))
}

/// An answer.
pub(crate) fn answer(node: &Node, when: &MatchSpec, reader: &mut Reader<'_>) -> Option<ActionSpec> {
    let status = |node: &Node, reader: &mut Reader<'_>| {
        let number = |text: &str| value::number(text, "a status", 200, 599);
        u16::try_from(reader.number(node, Kind::Between(200, 599), number)?).ok()
    };
    let direct = |status, headers, body| {
        Some(ActionSpec::Answer(Arc::new(Answer::Direct(Direct { status, headers, body }))))
    };
    let Value::Map(_) = &node.value else {
        return direct(status(node, reader)?, Vec::new(), "".into());
    };
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &ANSWER)?;
    let (status_node, headers, body) = (fields.get("status"), fields.get("headers"), fields.get("body"));
    fields.finish();
    let status = status_node.and_then(|node| status(node, reader));
    let headers = headers.map_or(Vec::new(), |node| values(node, when, &mut BTreeMap::new(), reader));
    let text = body.and_then(|node| reader.text(node, Kind::Text));
    if let (Some(body), Some(text)) = (body, text) {
        if text.len() > ANSWER_BODY_BYTES_MAX {
            let message = format!("the body has {} bytes", text.len());
            let hint =
                format!("at most {ANSWER_BODY_BYTES_MAX} are supported: every proxy holds it in memory");
            reader.error(Problem::error(body.span, message).hint(hint));
        }
        if matches!(status, Some(204 | 205 | 304)) && !text.is_empty() {
            reader
                .error(Problem::error(body.span, "an answer with this status has no body").hint("remove it"));
        }
    }
    if reader.problems.errors() > errors {
        return None;
    }
    direct(status?, headers, text.unwrap_or("").into())
}
