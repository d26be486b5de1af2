//! What a gateway's listener makes of a request before any rule is asked: whether its host is served here and over this
//! connection, whether it has to come over HTTPS, and what of the forwarding headers can be believed.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::admission::PRIORITY_HEADER;
use crate::edit::Edits;
use crate::head::{RequestHead, host_of};
use crate::route::Then;
use crate::spec::{HostMatch, HttpSpec, SniRoute};

/// What the TLS handshake of a connection has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The names of the certificate that it was given.
    pub names: Arc<[HostMatch]>,
    /// What `X-Forwarded-Client-Cert` says of the client's verified certificate.
    pub client: Option<Arc<str>>,
}

/// What becomes of a request that this listener does not let in; `None`: the rules decide. `shown` is there when TLS
/// ends at the listener.
pub fn turn_away(listener: &HttpSpec, shown: Option<&Shown>, head: &RequestHead<'_>) -> Option<Then> {
    let limited = !listener.hosts.is_empty();
    let asked = shown.and_then(|shown| Some((shown, shown.server_name.as_deref()?)));
    if limited || asked.is_some() {
        let host = lower(host_of(head.authority));
        let host = host.strip_suffix('.').unwrap_or(&host);
        // A client may use one connection for every host that the certificate is for (RFC 9113 §9.1.1), and for no other
        // (RFC 9110 §7.4): there a policy for the name in the handshake could be passed by.
        if let Some((shown, name)) = asked
            && host != name
            && !covers(&shown.names, host)
        {
            return Some(Then::Misdirected);
        }
        if limited && !listener.hosts.iter().any(|known| known.matches(host)) {
            return Some(Then::NoRoute);
        }
    }
    listener.redirect.map(|_| Then::Redirect(redirect_status(head.method)))
}

/// The service of a TLS connection that asks for `name`.
pub fn passed_on<'a>(routes: &'a [SniRoute], name: &str) -> Option<&'a SniRoute> {
    routes.iter().find(|route| route.names.iter().any(|known| known.matches(name)))
}

/// The number of the certificate for `name`, by the names of each: an exact name before a wildcard, earlier ones before
/// later ones.
pub fn certificate_for(certificates: &[Arc<[HostMatch]>], name: &str) -> Option<usize> {
    let exact = |names: &&Arc<[HostMatch]>| {
        names.iter().any(|it| matches!(it, HostMatch::Exact(exact) if **exact == *name))
    };
    let first = certificates.iter().position(|names| exact(&names));
    first.or_else(|| certificates.iter().position(|names| covers(names, name)))
}

/// True when a certificate with these names is one for `host`. Its wildcards stand for exactly one label (RFC 9525 §6.3).
fn covers(names: &[HostMatch], host: &str) -> bool {
    names.iter().any(|name| match name {
        HostMatch::Exact(exact) => **exact == *host,
        HostMatch::Suffix(suffix) => {
            host.strip_suffix(&**suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
        }
    })
}

/// 301 where the method stays the same by everybody's practice, 308 where only that keeps it.
fn redirect_status(method: &[u8]) -> u16 {
    if matches!(method, b"GET" | b"HEAD") { 301 } else { 308 }
}

/// The URL of a request over HTTPS; `None` when it has no host.
pub fn https_url(head: &RequestHead<'_>, port: u16) -> Option<Vec<u8>> {
    let host = host_of(head.authority);
    // What could end a header line or change where the URL leads has no place in a host; the parser refuses it already.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    if host.is_empty() || !host.iter().all(plain) {
        return None;
    }
    let mut url = Vec::with_capacity(16 + host.len() + head.path.len());
    url.extend_from_slice(b"https://");
    url.extend_from_slice(host);
    if port != 443 {
        url.extend_from_slice(alloc::format!(":{port}").as_bytes());
    }
    url.extend_from_slice(if head.path.starts_with(b"/") { head.path } else { b"/" });
    Some(url)
}

/// Headers that say where a request came from: whoever sends one could claim anything.
const CLAIMS: [&[u8]; 4] = [b"forwarded", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip"];

/// The edits that tell the service where a request came from: `peer` is the address at the other end of the connection, as
/// text.
///
/// Of `X-Forwarded-For` as it came, what the trusted proxies appended is kept: the last `forwarded_hops` entries. Without
/// trusted proxies that is nothing. The other headers of the kind pass only from a trusted proxy.
pub fn forwarding(
    listener: &HttpSpec,
    shown: Option<&Shown>,
    head: &RequestHead<'_>,
    peer: &[u8],
    edits: &mut Edits,
) {
    let hops = usize::from(listener.forwarded_hops);
    let mut claimed_scheme = None;
    let mut chain: Vec<&[u8]> = Vec::new();
    for (_, name, value) in head.fields.iter() {
        // Cheap for the many that begin with something else.
        if !matches!(name.first(), Some(b'x' | b'X' | b'f' | b'F' | b'l' | b'L')) {
            continue;
        }
        // What a request is worth is not for whoever comes from outside to say.
        let own = [PRIORITY_HEADER.as_bytes(), b"x-forwarded-client-cert"];
        if own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            edits.remove(name);
        } else if hops == 0 {
            if CLAIMS.iter().any(|claim| name.eq_ignore_ascii_case(claim)) {
                edits.remove(name);
            }
        } else if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            // Several lines are one list (RFC 9110 §5.3).
            let entries = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            chain.extend(entries.filter(|entry| !entry.is_empty()));
        } else if name.eq_ignore_ascii_case(b"x-forwarded-proto") && matches!(value, b"http" | b"https") {
            claimed_scheme = Some(value);
        }
    }
    let trusted = chain.get(chain.len().saturating_sub(hops)..).unwrap_or(&[]);
    edits.set_with(b"x-forwarded-for", |text| {
        for entry in trusted {
            text.extend_from_slice(entry);
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(peer);
    });
    let scheme: &[u8] = if shown.is_some() { b"https" } else { b"http" };
    edits.set(b"x-forwarded-proto", claimed_scheme.unwrap_or(scheme));
    if let Some(client) = shown.and_then(|shown| shown.client.as_deref()) {
        edits.add(b"x-forwarded-client-cert", client.as_bytes());
    }
}

fn lower(host: &[u8]) -> String {
    host.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests;
