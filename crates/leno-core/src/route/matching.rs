//! Whether one request is what one rule asks for.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::net::IpAddr;

use crate::grpc;
use crate::head::{RequestHead, host_of};
use crate::spec::{FieldMatch, GrpcMatch, HostMatch, LinkMatch, MatchSpec, PathMatch, TextMatch};

/// A request head with the parts that rules look at most, each found once and not once per rule.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub(super) head: &'a RequestHead<'a>,
    link: Link<'a>,
    path: OnceCell<&'a [u8]>,
    host: OnceCell<&'a [u8]>,
}

impl<'a> Subject<'a> {
    /// What rules look at in `head`.
    pub const fn new(head: &'a RequestHead<'a>) -> Self {
        Self::on(head, Link::UNKNOWN)
    }

    /// The same, of a request that came over `link`.
    pub const fn on(head: &'a RequestHead<'a>, link: Link<'a>) -> Self {
        Self { head, link, path: OnceCell::new(), host: OnceCell::new() }
    }

    /// The path without its query.
    pub(super) fn path(&self) -> &'a [u8] {
        self.path.get_or_init(|| self.head.path_only())
    }

    /// The host without its port.
    pub(super) fn host(&self) -> &'a [u8] {
        self.host.get_or_init(|| self.head.host())
    }

    /// The first value of a parameter of the query, decoded.
    pub(super) fn parameter(&self, name: &[u8]) -> Option<Cow<'a, [u8]>> {
        // Empty, or behind the question mark.
        let query = self.head.path.get(self.path().len() + 1..)?;
        parameter(query, name)
    }
}

/// What is known of the connection that a request came over, or that is one.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The port that it connected to, where that says something; else the one that it asks for counts.
    pub port: Option<u16>,
    /// The name that it asked for when TLS began.
    pub server_name: Option<&'a str>,
}

impl Link<'_> {
    /// Nothing is.
    pub const UNKNOWN: Self = Self { client: None, port: None, server_name: None };
}

/// True when the connection is as `when` asks; `authority` is whom the client asks for.
pub(super) fn link_matches(when: &MatchSpec, link: Link<'_>, authority: &[u8]) -> bool {
    let Some(wanted) = &when.link else { return true };
    let LinkMatch { ports, clients, server_names } = &**wanted;
    (ports.is_empty() || ports.contains(&link.port.unwrap_or_else(|| port_of(authority))))
        && (clients.is_empty()
            || link.client.is_some_and(|client| clients.iter().any(|range| range.contains(client))))
        && (server_names.is_empty()
            || link
                .server_name
                .is_some_and(|name| server_names.iter().any(|wanted| host_matches(wanted, name.as_bytes()))))
}

/// The port that an authority says, or HTTP's.
fn port_of(authority: &[u8]) -> u16 {
    let behind = authority.get(host_of(authority).len() + 1..);
    behind.and_then(|port| core::str::from_utf8(port).ok()?.parse().ok()).unwrap_or(80)
}

/// True when everything that `when` asks for holds, besides who sends the request.
pub fn matches(when: &MatchSpec, subject: &Subject<'_>) -> bool {
    path_holds(when, subject)
        && method_holds(when, subject)
        && host_holds(when, subject)
        && when.headers.iter().all(|header| header_holds(header, subject))
        && when.queries.iter().all(|query| query_holds(query, subject))
        && call_holds(when, subject)
        && link_matches(when, subject.link, subject.head.authority)
        && when.also.iter().all(|also| matches(also, subject))
}

/// What of `when`, which does not match, is asked in vain: the first thing, in the order of [`matches()`].
pub(super) fn why_not(when: &MatchSpec, subject: &Subject<'_>) -> String {
    for part in when.parts() {
        let why = if !path_holds(part, subject) {
            "path".into()
        } else if !method_holds(part, subject) {
            "method".into()
        } else if !host_holds(part, subject) {
            "host".into()
        } else if let Some(header) = part.headers.iter().find(|it| !header_holds(it, subject)) {
            alloc::format!("header {}", header.name)
        } else if let Some(query) = part.queries.iter().find(|it| !query_holds(it, subject)) {
            alloc::format!("query {}", query.name)
        } else if !call_holds(part, subject) {
            "grpc".into()
        } else if !link_matches(part, subject.link, subject.head.authority) {
            "connection".into()
        } else {
            continue;
        };
        return why;
    }
    String::new()
}

fn path_holds(when: &MatchSpec, subject: &Subject<'_>) -> bool {
    when.path.as_ref().is_none_or(|wanted| path_matches(wanted, when.path_any_case, subject.path()))
}

fn method_holds(when: &MatchSpec, subject: &Subject<'_>) -> bool {
    when.methods.is_empty() || when.methods.iter().any(|method| method.as_bytes() == subject.head.method)
}

fn host_holds(when: &MatchSpec, subject: &Subject<'_>) -> bool {
    when.hosts.is_empty() || when.hosts.iter().any(|wanted| host_matches(wanted, subject.host()))
}

fn header_holds(header: &FieldMatch, subject: &Subject<'_>) -> bool {
    header.holds(subject.head.fields.get_named(header.name.as_bytes()))
}

fn query_holds(query: &FieldMatch, subject: &Subject<'_>) -> bool {
    query.holds(subject.parameter(query.name.as_bytes()).as_deref())
}

fn call_holds(when: &MatchSpec, subject: &Subject<'_>) -> bool {
    when.grpc.as_ref().is_none_or(|wanted| call_matches(wanted, subject))
}

fn path_matches(wanted: &PathMatch, any_case: bool, path: &[u8]) -> bool {
    match wanted {
        PathMatch::Exact(wanted) => same(wanted.as_bytes(), path, any_case),
        PathMatch::Prefix(prefix) => {
            let rest = after(without_last_slashes(prefix), path, any_case);
            rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
        }
        PathMatch::Start(start) => after(start.as_bytes(), path, any_case).is_some(),
        PathMatch::Regex(pattern) => pattern.matches(path),
        PathMatch::Template(template) => template.matches(path, any_case),
    }
}

/// `/a/` covers what `/a` does.
pub(super) fn without_last_slashes(prefix: &str) -> &[u8] {
    let mut prefix = prefix.as_bytes();
    while let [shorter @ .., b'/'] = prefix {
        prefix = shorter;
    }
    prefix
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

impl FieldMatch {
    /// True when the `found` value, or there being none, is what this asks for.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        found.is_some_and(|value| self.value.holds(value, self.any_case)) != self.not
    }
}

impl TextMatch {
    /// True when `value` is what this asks for.
    pub fn holds(&self, value: &[u8], any_case: bool) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => same(text.as_bytes(), value, any_case),
            Self::Prefix(text) => after(text.as_bytes(), value, any_case).is_some(),
            Self::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|end| same(text.as_bytes(), end, any_case)),
            Self::Contains(text) if any_case => {
                let here = |part: &[u8]| text.as_bytes().eq_ignore_ascii_case(part);
                text.is_empty() || value.windows(text.len()).any(here)
            }
            Self::Contains(text) => memchr::memmem::find(value, text.as_bytes()).is_some(),
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

fn same(wanted: &[u8], found: &[u8], any_case: bool) -> bool {
    if any_case { wanted.eq_ignore_ascii_case(found) } else { wanted == found }
}

/// What follows `start` in `text`, if it begins with that.
fn after<'a>(start: &[u8], text: &'a [u8], any_case: bool) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_at_checked(start.len())?;
    same(start, begin, any_case).then_some(rest)
}

/// Calls are `POST /package.Service/Method`.
fn call_matches(wanted: &GrpcMatch, subject: &Subject<'_>) -> bool {
    let (path, head) = (subject.path(), subject.head);
    let Some(at) = memchr::memrchr(b'/', path) else { return false };
    let (service, method) = (path.get(1..at).unwrap_or(b""), &path[at + 1..]);
    wanted.service.as_ref().is_none_or(|wanted| wanted.as_bytes() == service)
        && wanted.method.as_ref().is_none_or(|wanted| wanted.as_bytes() == method)
        && head.method == b"POST"
        && grpc::is_call(head.fields)
}

/// The first value of `name` in `a=b&c=d`, decoded; a name without a value has an empty one.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (found, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        (!pair.is_empty() && *decoded(found) == *name).then(|| decoded(value))
    })
}

/// Percent-encoded text as it is meant; `+` is a space in queries. What is no encoding stays as it is.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        out.push(match (byte, digit(at), digit(at + 1)) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                (high << 4 | low) as u8
            }
            (b'+', ..) => b' ',
            (byte, ..) => *byte,
        });
    }
    Cow::Owned(out)
}
