//! Which web pages of other origins may use a route.

use std::sync::Arc;
use std::time::Duration;

use leno_core::spec::{Allowed, Cors, MatchSpec, Pattern, TextMatch, Unmatched};

use super::fields::{ANY_HEADER, CORS, Kind, ORIGIN, UNMATCHED};
use super::matching::{one_form, pattern};
use super::read::Reader;
use super::rules::RULES_MAX;
use super::value::{self, Wrong, wrong};
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value, short};

/// Reads `cors`; `None` when something about it is wrong, which is reported.
pub(crate) fn cors(node: &Node, when: &MatchSpec, reader: &mut Reader<'_>) -> Option<Arc<Cors>> {
    let errors = reader.problems.errors();
    let mut cors = Cors {
        origins: Vec::new(),
        methods: Vec::new(),
        headers: Allowed::These(Vec::new()),
        expose: Vec::new(),
        max_age: None,
        credentials: false,
        unmatched: Unmatched::default(),
    };
    if let Value::Map(_) = &node.value {
        let mut fields = reader.fields(node, &CORS)?;
        if let Some(node) = fields.get("origins") {
            cors.origins = origins(node, reader);
        }
        if let Some(node) = fields.get("methods") {
            let items = reader.one_or_more(node, "a method, or a list of methods", RULES_MAX);
            let methods = items.iter().filter_map(|item| reader.parsed(item, Kind::Method, value::method));
            cors.methods = methods.collect();
        }
        if let Some(node) = fields.get("headers") {
            let any = matches!(&node.value, Value::Scalar(scalar) if scalar.text == ANY_HEADER[0].0);
            cors.headers = if any { Allowed::Any } else { Allowed::These(headers(node, reader)) };
        }
        if let Some(node) = fields.get("expose") {
            cors.expose = headers(node, reader);
        }
        cors.max_age = fields.get("max_age").and_then(|node| max_age(node, reader));
        if let Some(entry) = fields.entry("credentials") {
            cors.credentials = reader.flag(&entry.value).unwrap_or_default();
            if cors.credentials && cors.lets_anybody_in() {
                let message = "pages that anybody can make could act with their visitors' cookies";
                let problem = Problem::error(entry.key_span, message);
                reader.error(problem.hint("name the origins, or leave `credentials` out"));
            }
        }
        if let Some(node) = fields.get("unmatched")
            && reader.choice(node, UNMATCHED) == Some("forward")
        {
            cors.unmatched = Unmatched::Forward;
        }
        fields.finish();
    } else {
        cors.origins = origins(node, reader);
    }
    if !when.methods.is_empty() && !when.methods.iter().any(|method| &**method == "OPTIONS") {
        let problem = Problem::warning(node.span, "browsers' questions do not reach this route");
        reader.problems.add(problem.hint("they are sent with OPTIONS: add it to the route's `methods`"));
    }
    (reader.problems.errors() == errors).then(|| Arc::new(cors))
}

fn origins(node: &Node, reader: &mut Reader<'_>) -> Vec<TextMatch> {
    let items = match &node.value {
        Value::List(_) => reader.list(node, "a list of origins", RULES_MAX),
        _ => std::slice::from_ref(node),
    };
    items.iter().filter_map(|item| origin(item, reader)).collect()
}

fn origin(node: &Node, reader: &mut Reader<'_>) -> Option<TextMatch> {
    let Value::Map(_) = &node.value else {
        return reader.parsed(node, Kind::Origin, origin_of);
    };
    let mut fields = reader.fields(node, &ORIGIN)?;
    let form = one_form(&mut fields, "origin", &["prefix", "regex"], "such as {regex: …}", reader);
    fields.finish();
    let (form, entry) = form?;
    if form == "regex" {
        return pattern(&entry.value, Pattern::whole, reader).map(TextMatch::Regex);
    }
    let text = reader.text(&entry.value, Kind::Text)?;
    Some(TextMatch::Prefix(text.into()))
}

/// `*`, `SCHEME://HOST[:PORT]`, or the same with `*.` before the host.
fn origin_of(text: &str) -> Result<TextMatch, Wrong> {
    if text == "*" {
        return Ok(TextMatch::Present);
    }
    let bad = || wrong(format!("\"{}\" is no origin", short(text)));
    let Some((scheme, host)) = text.split_once("://") else {
        return Err(bad().hint("with its scheme, such as https://shop.example"));
    };
    if let Some((without, _)) = host.split_once('/') {
        return Err(bad().instead(&format!("{scheme}://{without}")));
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(bad().instead(&text.to_ascii_lowercase()));
    }
    let (bare, below) = host.strip_prefix("*.").map_or((host, false), |bare| (bare, true));
    let good = !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        && leno_core::http1::is_authority(bare.as_bytes())
        && !bare.contains('*');
    if !good {
        return Err(bad().hint("such as https://shop.example, https://*.shop.example, or * for any"));
    }
    if !below {
        return Ok(TextMatch::Exact(text.into()));
    }
    let quoted: String = bare
        .chars()
        .flat_map(|c| Some('\\').filter(|_| !c.is_ascii_alphanumeric()).into_iter().chain([c]))
        .collect();
    let scheme: String = scheme.replace('.', "\\.").replace('+', "\\+");
    let pattern = Pattern::whole(&format!("{scheme}://[a-z0-9.-]+\\.{quoted}"));
    pattern.map(TextMatch::Regex).map_err(|_| bad())
}

fn headers(node: &Node, reader: &mut Reader<'_>) -> Vec<Arc<str>> {
    let items = reader.one_or_more(node, "a header, or a list of headers", RULES_MAX);
    items.iter().filter_map(|item| reader.parsed(item, Kind::Text, value::header_name)).collect()
}

fn max_age(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let age = reader.parsed(node, Kind::Duration, value::duration)?;
    if age.subsec_nanos() > 0 {
        reader.error(Problem::error(node.span, "browsers count whole seconds").hint("such as 10m"));
        return None;
    }
    Some(age)
}
