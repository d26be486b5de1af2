//! Cross-origin resource sharing: what a browser is told about pages of other origins (Fetch standard, section 3.3).
//!
//! Where a rule says it, it is the rule's business alone: what the service itself says of it is taken away.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::edit::Edits;
use crate::head::RequestHead;
use crate::spec::{Allowed, Answer, Cors, Direct, Unmatched};

const ALLOW_ORIGIN: &[u8] = b"access-control-allow-origin";
const ALLOW_CREDENTIALS: &[u8] = b"access-control-allow-credentials";
const EXPOSE_HEADERS: &[u8] = b"access-control-expose-headers";
const ALLOW_METHODS: &[u8] = b"access-control-allow-methods";
const ALLOW_HEADERS: &[u8] = b"access-control-allow-headers";
const MAX_AGE: &[u8] = b"access-control-max-age";
const REQUEST_METHOD: &[u8] = b"access-control-request-method";
const REQUEST_HEADERS: &[u8] = b"access-control-request-headers";

/// What every page may use.
const SIMPLE_METHODS: &[u8] = b"GET, HEAD, POST";

/// Longest list of headers that is said back to whoever asked for it, in bytes.
const ASKED_BYTES_MAX: usize = 4096;

/// Changes the answer to `head`, and makes it where it is a browser's question that the service is not asked.
pub(super) fn share(cors: &Cors, head: &RequestHead<'_>, response: &mut Edits) -> Option<Arc<Answer>> {
    let origin = head.fields.get_named(b"origin");
    let allowed = origin.is_some_and(|origin| cors.origins.iter().any(|it| it.holds(origin, false)));
    if origin.is_some() && !allowed && cors.unmatched == Unmatched::Forward {
        // The service has the say about it.
        return None;
    }
    for name in [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE_HEADERS] {
        response.remove_all(name);
    }
    let any = cors.origins.iter().any(|it| matches!(it, crate::spec::TextMatch::Present));
    if any && !cors.credentials {
        // Said to everybody, so that a cache may give the answer to one that asked from nowhere to a page.
        response.add(ALLOW_ORIGIN, b"*");
    } else {
        // What is answered depends on the origin, also where there is none.
        response.add(b"vary", b"Origin");
        if let Some(origin) = origin.filter(|_| allowed) {
            response.add(ALLOW_ORIGIN, origin);
        }
    }
    if allowed && cors.credentials {
        response.add(ALLOW_CREDENTIALS, b"true");
    }
    let asks = head.method == b"OPTIONS" && head.fields.get_named(REQUEST_METHOD).is_some();
    match (asks && origin.is_some(), allowed) {
        (false, _) => {
            if allowed && !cors.expose.is_empty() {
                response.add_with(EXPOSE_HEADERS, |out| write_list(&cors.expose, out));
            }
            None
        }
        (true, false) => {
            let body = "leno: pages of this origin may not use this (cors)\n".into();
            Some(Arc::new(Answer::Direct(Direct { status: 403, headers: Vec::new(), body })))
        }
        (true, true) => {
            answer_question(cors, head, response);
            Some(Arc::new(Answer::Direct(Direct { status: 204, headers: Vec::new(), body: "".into() })))
        }
    }
}

fn answer_question(cors: &Cors, head: &RequestHead<'_>, response: &mut Edits) {
    response.add_with(ALLOW_METHODS, |out| match cors.methods.as_slice() {
        [] => out.extend_from_slice(SIMPLE_METHODS),
        methods => write_list(methods, out),
    });
    let asked = head.fields.get_named(REQUEST_HEADERS).filter(|asked| asked.len() <= ASKED_BYTES_MAX);
    match (&cors.headers, asked) {
        (Allowed::Any, Some(asked)) => response.add(ALLOW_HEADERS, asked),
        (Allowed::These(headers), _) if !headers.is_empty() => {
            response.add_with(ALLOW_HEADERS, |out| write_list(headers, out));
        }
        _ => {}
    }
    if let Some(max_age) = cors.max_age {
        response.add(MAX_AGE, alloc::format!("{}", max_age.as_secs()).as_bytes());
    }
}

fn write_list(names: &[Arc<str>], out: &mut Vec<u8>) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(name.as_bytes());
    }
}

#[cfg(test)]
mod tests;
