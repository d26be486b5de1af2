//! Which requests a route is about.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_core::spec::{
    FieldMatch, GrpcMatch, LinkMatch, MatchSpec, PATTERN_BYTES_MAX, PathMatch, Pattern, Template, TextMatch,
};

use super::fields::{CALL, Kind, PATH, VALUE};
use super::read::{Fields, Reader, a};
use super::rules::RULES_MAX;
use super::{value, zones};
use crate::diagnostic::Problem;
use crate::source::Span;
use crate::yaml::{Entry, Node, Value, short};

/// What a request must look like for a route of a service, and who must send it.
pub(crate) fn of_service(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<MatchSpec> {
    let errors = reader.problems.errors();
    let mut sources = Vec::new();
    if let Some(node) = fields.get("from") {
        let items = match &node.value {
            Value::Map(_) => std::slice::from_ref(node),
            _ => reader.one_or_more(node, "a caller, or a list of callers", RULES_MAX),
        };
        for item in items {
            sources.extend(zones::source(item, reader));
        }
    }
    let when = matching(fields, reader)?;
    (reader.problems.errors() == errors).then_some(MatchSpec { sources, ..when })
}

/// What a request must look like.
pub(crate) fn matching(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<MatchSpec> {
    let errors = reader.problems.errors();
    let mut when = MatchSpec::default();
    if let Some(node) = fields.get("host") {
        for item in reader.one_or_more(node, "a host, or a list of hosts", RULES_MAX) {
            when.hosts.extend(reader.parsed(item, Kind::Host, value::host));
        }
        when.hosts.sort();
        when.hosts.dedup();
    }
    when.link = link(fields, reader);
    let path_entry = fields.entry("path");
    if let Some(entry) = path_entry
        && let Some((path, any_case)) = path(&entry.value, reader)
    {
        when.path = Some(path);
        when.path_any_case = any_case;
    }
    let methods = fields.entry("methods");
    if let Some(entry) = methods {
        for item in reader.one_or_more(&entry.value, "a method, or a list of methods", RULES_MAX) {
            let method = reader.parsed(item, Kind::Method, value::method);
            when.methods.extend(method.filter(|method| !when.methods.contains(method)));
        }
    }
    if let Some(node) = fields.get("headers") {
        when.headers = headers(node, reader);
    }
    if let Some(node) = fields.get("query") {
        when.queries = query(node, reader);
    }
    if let Some(entry) = fields.entry("grpc") {
        when.grpc = call(&entry.value, reader);
        if let Some(path) = path_entry {
            let problem = Problem::error(entry.key_span, "a route has either `path` or `grpc`");
            let hint = "the path of a call is made of its service and method";
            reader.error(problem.related(path.key_span, "this one is given too").hint(hint));
        }
        if let Some(methods) = methods
            && !when.methods.is_empty()
            && !when.methods.iter().any(|method| &**method == "POST")
        {
            let problem = Problem::warning(methods.key_span, "this route never matches");
            reader.problems.add(problem.related(entry.key_span, "a call of gRPC is always a POST"));
        }
    }
    (reader.problems.errors() == errors).then_some(when)
}

/// What its connection must be like.
fn link(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Arc<LinkMatch>> {
    let mut link = LinkMatch::default();
    if let Some(node) = fields.get("port") {
        for item in reader.one_or_more(node, "a port, or a list of ports", RULES_MAX) {
            link.ports.extend(reader.number(item, Kind::Port, value::port));
        }
    }
    if let Some(node) = fields.get("client") {
        for item in reader.one_or_more(node, "a range of addresses, or a list of them", RULES_MAX) {
            link.clients.extend(reader.parsed(item, Kind::Range, value::cidr));
        }
    }
    if let Some(node) = fields.get("sni") {
        for item in reader.one_or_more(node, "a host, or a list of hosts", RULES_MAX) {
            link.server_names.extend(reader.parsed(item, Kind::Host, value::host));
        }
    }
    (link != LinkMatch::default()).then(|| Arc::new(link))
}

/// The one of these forms that is given, or a report.
pub(crate) fn one_form<'n>(
    fields: &mut Fields<'n>,
    what: &str,
    forms: &[&'static str],
    example: &str,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, &'n Entry)> {
    let mut given = forms.iter().filter_map(|name| Some((*name, fields.entry(name)?))).collect::<Vec<_>>();
    given.sort_by_key(|(_, entry)| (entry.key_span.line, entry.key_span.column));
    match given[..] {
        [only] => Some(only),
        [] if !fields.complete => None,
        [] => {
            reader.error(Problem::error(fields.span, format!("the {what} says nothing")).hint(example));
            None
        }
        [(first, before), (second, entry), ..] => {
            let message = format!("{} has one form: `{first}` or `{second}`", a(what));
            let problem = Problem::error(entry.key_span, message);
            reader.error(
                problem.related(before.key_span, "this one is given too").hint("remove one of the two"),
            );
            None
        }
    }
}

/// A path, and whether its case makes no difference.
fn path(node: &Node, reader: &mut Reader<'_>) -> Option<(PathMatch, bool)> {
    let Value::Map(_) = &node.value else {
        return reader.parsed(node, Kind::Path, value::path).map(|path| (prefix_match(path), false));
    };
    let mut fields = reader.fields(node, &PATH)?;
    let forms = ["exact", "prefix", "starts_with", "regex", "template"];
    let form = one_form(&mut fields, "path", &forms, "such as {exact: /users}", reader);
    let any_case = fields.entry("ignore_case");
    let ignore = any_case.map(|entry| reader.flag(&entry.value));
    fields.finish();
    let (form, Entry { value: node, .. }) = form?;
    let plain = |reader: &mut Reader<'_>| reader.parsed(node, Kind::Path, value::path);
    let path = match form {
        "exact" => PathMatch::Exact(plain(reader)?.into()),
        "prefix" => prefix_match(plain(reader)?),
        "starts_with" => PathMatch::Start(plain(reader)?.into()),
        "template" => PathMatch::Template(template(node, reader)?),
        _ => PathMatch::Regex(path_pattern(node, reader)?),
    };
    case_of_pattern(matches!(path, PathMatch::Regex(_)), any_case, reader)?;
    Some((path, ignore.unwrap_or(Some(false))?))
}

/// A slash at the end makes no difference to a prefix: it is one of whole segments anyway.
fn prefix_match(path: &str) -> PathMatch {
    let trimmed = path.trim_end_matches('/');
    PathMatch::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

fn template(node: &Node, reader: &mut Reader<'_>) -> Option<Template> {
    let text = reader.text(node, Kind::Template)?;
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            let at = text.get(..error.at).map_or(0, |before| before.chars().count());
            let message = format!("\"{}\" is not a path template: {error}", short(text));
            let hint = "such as /users/{id}/posts/*, with `**` at its end for any rest";
            reader.error(Problem::error(node.part(at, 1), message).hint(hint));
            None
        }
    }
}

/// A regular expression for whole paths.
fn path_pattern(node: &Node, reader: &mut Reader<'_>) -> Option<Pattern> {
    let pattern = pattern(node, Pattern::whole, reader)?;
    // Enough to find what people write by mistake; `a?/b` and `a|/b` are none.
    let text = pattern.as_str();
    let mut chars = text.chars();
    let literal = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if literal && !text.contains('|') && !matches!(chars.next(), Some('?' | '*' | '{')) {
        let problem = Problem::warning(node.part(0, 1), "this route never matches");
        reader.problems.add(problem.hint(format!("a path begins with a slash: write \"/{}\"", short(text))));
    }
    Some(pattern)
}

/// A regular expression as `compile` makes it.
pub(crate) fn pattern(
    node: &Node,
    compile: fn(&str) -> Result<Pattern, leno_core::spec::PatternError>,
    reader: &mut Reader<'_>,
) -> Option<Pattern> {
    let text = reader.text(node, Kind::Regex)?;
    if text.is_empty() {
        let problem = Problem::error(node.span, "the regular expression is empty");
        reader.error(problem.hint("such as /v[0-9]+/.*; it has to match the whole text"));
        return None;
    }
    match compile(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let place = error.at.and_then(|at| Some(text.get(..at)?.chars().count()));
            let span = place.map_or(node.span, |at| node.part(at, 1));
            let message = format!("\"{}\" is not a regular expression: {error}", short(text));
            let hint = match error.at {
                _ if error.problem.contains("look-around") || error.problem.contains("backreference") => {
                    "only what can be matched in linear time is supported, as in RE2".to_owned()
                }
                Some(_) => "write a backslash before a character that is meant as it is".to_owned(),
                None => {
                    format!("at most {PATTERN_BYTES_MAX} bytes, and small repetitions: they are written out")
                }
            };
            reader.error(Problem::error(span, message).hint(hint));
            None
        }
    }
}

/// `ignore_case` says nothing to a regular expression: whoever gives it would be mistaken.
fn case_of_pattern(is_pattern: bool, ignore_case: Option<&Entry>, reader: &mut Reader<'_>) -> Option<()> {
    match ignore_case.filter(|_| is_pattern) {
        None => Some(()),
        Some(entry) => {
            let problem = Problem::error(entry.key_span, "a regular expression has no `ignore_case`");
            reader.error(problem.hint("begin it with (?i) instead"));
            None
        }
    }
}

fn headers(node: &Node, reader: &mut Reader<'_>) -> Vec<FieldMatch> {
    let mut headers: BTreeMap<Arc<str>, (FieldMatch, Span)> = BTreeMap::new();
    for entry in reader.map(node, "a map from headers to values").iter().take(RULES_MAX) {
        let name = reader.checked(entry.key_span, value::header_name(&entry.key));
        let value = field(entry, "header", reader);
        let (Some(name), Some(value)) = (name, value) else { continue };
        if let Some((_, before)) = headers.get(&name) {
            let problem = Problem::error(
                entry.key_span,
                format!("the header \"{}\" is given twice", short(&entry.key)),
            );
            reader.error(
                problem.related(*before, "first given here").hint("case makes no difference in headers"),
            );
            continue;
        }
        headers.insert(name.clone(), (FieldMatch { name, ..value }, entry.key_span));
    }
    headers.into_values().map(|(header, _)| header).collect()
}

fn query(node: &Node, reader: &mut Reader<'_>) -> Vec<FieldMatch> {
    let mut parameters = Vec::new();
    for entry in reader.map(node, "a map from parameters to values").iter().take(RULES_MAX) {
        if entry.key.is_empty() {
            reader.error(Problem::error(entry.key_span, "a parameter has a name"));
            continue;
        }
        parameters.extend(field(entry, "parameter", reader));
    }
    parameters.sort_by(|a: &FieldMatch, b: &FieldMatch| a.name.cmp(&b.name));
    parameters
}

/// What a header or parameter must be; its name is the key.
fn field(entry: &Entry, what: &str, reader: &mut Reader<'_>) -> Option<FieldMatch> {
    let node = &entry.value;
    let plain = FieldMatch::exact(&entry.key, None);
    match &node.value {
        Value::Nothing => {
            let message = format!("the {what} \"{}\" has no value", short(&entry.key));
            let problem = Problem::error(entry.key_span, message);
            reader.error(problem.hint("write \"*\" for any value, \"\" for an empty one"));
            None
        }
        Value::Map(_) => long_field(node, plain, reader),
        _ => {
            let value = reader.parsed(node, Kind::Text, value::header_value)?;
            Some(FieldMatch { value: value.map_or(TextMatch::Present, TextMatch::Exact), ..plain })
        }
    }
}

fn long_field(node: &Node, plain: FieldMatch, reader: &mut Reader<'_>) -> Option<FieldMatch> {
    let mut fields = reader.fields(node, &VALUE)?;
    let forms = ["exact", "prefix", "suffix", "contains", "regex", "present"];
    let form = one_form(&mut fields, "value", &forms, "such as {prefix: beta-}", reader);
    let (not, case) = (fields.entry("not"), fields.entry("ignore_case"));
    let inverted = not.map_or(Some(false), |entry| reader.flag(&entry.value));
    let any_case = case.map_or(Some(false), |entry| reader.flag(&entry.value));
    fields.finish();
    let (form, entry) = form?;
    let node = &entry.value;
    let text = |reader: &mut Reader<'_>| -> Option<Arc<str>> {
        reader.parsed(node, Kind::Text, |text| value::header_text(text).map(Arc::from))
    };
    let (value, mut inverted) = match form {
        "exact" => match reader.parsed(node, Kind::Text, value::header_value)? {
            Some(value) => (TextMatch::Exact(value), inverted?),
            None => (TextMatch::Exact("*".into()), inverted?),
        },
        "prefix" => (TextMatch::Prefix(text(reader)?), inverted?),
        "suffix" => (TextMatch::Suffix(text(reader)?), inverted?),
        "contains" => (TextMatch::Contains(text(reader)?), inverted?),
        "regex" => (TextMatch::Regex(pattern(node, Pattern::whole, reader)?), inverted?),
        _ => (TextMatch::Present, inverted?),
    };
    case_of_pattern(matches!(value, TextMatch::Regex(_)), case, reader)?;
    if value == TextMatch::Present {
        let there = reader.flag(node)?;
        if let Some(extra) = not.or(case) {
            let problem = Problem::error(extra.key_span, "`present` says all by itself");
            reader.error(problem.hint("write {present: false} for what must not be there"));
            return None;
        }
        inverted = !there;
    }
    Some(FieldMatch { value, any_case: any_case?, not: inverted, ..plain })
}

/// `package.Service`, `package.Service/Method`, or the two apart.
fn call(node: &Node, reader: &mut Reader<'_>) -> Option<GrpcMatch> {
    if let Value::Map(_) = &node.value {
        let mut fields = reader.fields(node, &CALL)?;
        let mut part = |name: &'static str, reader: &mut Reader<'_>| match fields.get(name) {
            Some(node) => reader.parsed(node, Kind::Text, value::grpc_name).map(|it| Some(it.into())),
            None => Some(None),
        };
        let (service, method) = (part("service", reader), part("method", reader));
        let (span, complete) = (fields.span, fields.complete);
        fields.finish();
        let call = GrpcMatch { service: service?, method: method? };
        if call == GrpcMatch::default() && complete {
            let problem = Problem::error(span, "the call says nothing");
            reader.error(problem.hint("such as {service: shop.Cart}"));
            return None;
        }
        return Some(call);
    }
    reader.parsed(node, Kind::Call, |text| {
        let text = text.strip_prefix('/').unwrap_or(text);
        let (service, method) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        Ok(GrpcMatch {
            service: Some(value::grpc_name(service)?.into()),
            method: method.map(value::grpc_name).transpose()?.map(Arc::from),
        })
    })
}
