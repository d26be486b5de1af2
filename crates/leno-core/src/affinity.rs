//! What keeps a client at an endpoint: the part of a request that its key is made of.

use alloc::boxed::Box;
use core::net::IpAddr;

use crate::backend::hash_of;
use crate::edit::Edits;
use crate::head::RequestHead;
use crate::rng::Rng;
use crate::spec::{Affinity, CookieSpec, KeySpec};

/// A cookie that a client gets with its answer, because it had none.
#[derive(Clone, Debug)]
pub struct NewCookie {
    /// Its key.
    key: u64,
    /// The answer's head gets it by these.
    pub edits: Edits,
}

/// The key of a request; `None` when it has none of what is asked for. A cookie that it lacks is made, once: `made` is kept
/// from attempt to attempt.
pub fn key(
    affinity: &Affinity,
    head: &RequestHead<'_>,
    source: IpAddr,
    made: &mut Option<Box<NewCookie>>,
    rng: &mut Rng,
) -> Option<u64> {
    if let Some(made) = made {
        return Some(made.key);
    }
    affinity.keys.iter().find_map(|key| match key {
        KeySpec::Header(name) => head.fields.get_named(name.as_bytes()).map(hash_of),
        KeySpec::Query(name) => query(head.path, name.as_bytes()).map(hash_of),
        KeySpec::Source => Some(match source.to_canonical() {
            IpAddr::V4(address) => hash_of(&address.octets()),
            IpAddr::V6(address) => hash_of(&address.octets()),
        }),
        KeySpec::Cookie(spec) => Some(match cookie(head, spec.name.as_bytes()) {
            Some(value) => hash_of(value),
            None => {
                let cookie = NewCookie::new(spec, rng);
                made.insert(cookie.into()).key
            }
        }),
    })
}

impl NewCookie {
    fn new(spec: &CookieSpec, rng: &mut Rng) -> Self {
        let value = alloc::format!("{:016x}", rng.next_u64());
        let mut field = alloc::format!("{}={value}; Path={}; HttpOnly", spec.name, spec.path);
        if let Some(ttl) = spec.ttl {
            field.push_str(&alloc::format!("; Max-Age={}", ttl.as_secs()));
        }
        let mut edits = Edits::new();
        edits.add(b"set-cookie", field.as_bytes());
        Self { key: hash_of(value.as_bytes()), edits }
    }
}

/// The value of a cookie (RFC 6265 §5.4); the first of those with this name.
fn cookie<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<&'h [u8]> {
    // HTTP/2 clients may send one field for each.
    let fields = head.fields.iter().filter(|(_, field, _)| field.eq_ignore_ascii_case(b"cookie"));
    fields.flat_map(|(_, _, value)| value.split(|byte| *byte == b';')).find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// The value of a query parameter as it was sent, the first of those with this name.
fn query<'h>(path: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let at = path.iter().position(|byte| *byte == b'?')?;
    let pairs = path.get(at + 1..)?.split(|byte| *byte == b'&');
    pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"=")).next()
}

#[cfg(test)]
mod tests;
