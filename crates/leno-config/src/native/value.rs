//! Texts -> values that cannot be wrong. Pure functions; who calls them knows the position.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use leno_core::egress::Destination;
use leno_core::name::{Label, LabelError, TrustDomain};
use leno_core::spec::{Cidr, CidrError, HostMatch};

use crate::suggest;
use crate::yaml::short;

/// Longest duration in a mesh file: one day. A longer one is a slip of the unit.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest path, in bytes: what common servers accept as a request line.
const PATH_BYTES_MAX: usize = 4096;

/// Longest host name (RFC 1035 §2.3.4), in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Longest header value or method that a route compares, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// What is wrong with a text, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

pub(crate) fn wrong(message: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), hint: None }
}

impl Wrong {
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says what to write instead.
    pub(crate) fn instead(self, text: &str) -> Self {
        self.hint(format!("write {text}"))
    }

    fn maybe(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// A label; `what` it names is for the message, with its article.
pub(crate) fn label(text: &str, what: &str) -> Result<Label, Wrong> {
    Label::parse(text).map_err(|error| {
        let wrong = wrong(format!("\"{}\" is not {what}: {error}", short(text)));
        match label_like(text).filter(|_| error != LabelError::TooLong) {
            Some(label) => wrong.hint(format!("write \"{label}\"")),
            None => wrong,
        }
    })
}

/// The nearest label, when there is one: `My_Service` -> `my-service`.
fn label_like(text: &str) -> Option<Label> {
    let lower = text.trim().to_lowercase();
    let label: String = lower.chars().map(|c| if matches!(c, '_' | '.' | ' ') { '-' } else { c }).collect();
    Label::parse(label.trim_matches('-')).ok()
}

/// A trust domain.
pub(crate) fn trust_domain(text: &str) -> Result<TrustDomain, Wrong> {
    TrustDomain::parse(text).map_err(|error| {
        let wrong = wrong(format!("\"{}\" is not a trust domain: {error}", short(text)));
        let lower = text.trim().trim_start_matches("spiffe://").trim_end_matches('/').to_lowercase();
        if TrustDomain::parse(&lower).is_ok() {
            wrong.hint(format!("write \"{lower}\""))
        } else {
            wrong.hint("such as shop.mesh")
        }
    })
}

/// `500ms`, `5s`, `1.5s`, `1m30s`, `2h`; more than zero, at most [`DURATION_MAX`].
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    const UNITS: &[(&str, u128)] =
        &[("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
    let invalid =
        || wrong(format!("\"{}\" is not a duration", short(text))).hint("such as 500ms, 5s, 1m30s or 2h");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(format!("the duration {} has no unit", short(text)))
            .hint(format!("write {0}s for seconds, {0}ms for milliseconds", short(text))));
    }
    let (mut nanos, mut rest) = (0_u128, text);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let known = invalid();
            return Err(if number.is_empty() || unit.is_empty() {
                known
            } else {
                known.hint("the units are ms, s, m and h")
            });
        };
        nanos = nanos.saturating_add(scaled(number, *scale).ok_or_else(invalid)?);
        rest = tail;
    }
    let total = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    if text.is_empty() {
        Err(invalid())
    } else if total.is_zero() {
        Err(wrong(format!("the duration {} is zero", short(text)))
            .hint("leave the field out for its default"))
    } else if total > DURATION_MAX {
        Err(wrong(format!("the duration {} is longer than a day", short(text))).hint("at most 24h"))
    } else {
        Ok(total)
    }
}

/// A duration, or `0` for no limit.
pub(crate) fn limit(text: &str) -> Result<Duration, Wrong> {
    match text {
        "0" | "0ms" | "0s" | "0m" | "0h" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

/// How long a first attempt has, where it is a time: timers tell no shorter ones than a millisecond apart.
pub(crate) fn delay(text: &str) -> Result<Duration, Wrong> {
    match duration(text) {
        Ok(time) if time < Duration::from_millis(1) => Err(wrong("a time below 1ms").hint("at least 1ms")),
        read => read.map_err(|wrong| wrong.hint("such as p95 or 50ms")),
    }
}

/// Statuses that can be tried again: what is below has succeeded.
pub(crate) const STATUS_MIN: u32 = 300;
pub(crate) const STATUS_MAX: u32 = 599;

/// `503`, or `500-504`: the first and the last.
pub(crate) fn statuses(text: &str) -> Result<(u16, u16), Wrong> {
    let status = |text: &str| number(text, "a status", STATUS_MIN, STATUS_MAX).map(|status| status as u16);
    let Some((first, last)) = text.split_once('-') else { return status(text).map(|it| (it, it)) };
    let (first, last) = (status(first)?, status(last)?);
    if last < first {
        return Err(wrong(format!("the range {} ends before it begins", short(text)))
            .hint(format!("write {last}-{first}")));
    }
    Ok((first, last))
}

/// Bytes: a number, perhaps with `KiB` or `MiB`; at most `max`.
pub(crate) fn size(text: &str, max: u32) -> Result<u32, Wrong> {
    let (digits, scale) = match text {
        _ if text.ends_with("KiB") => (&text[..text.len() - 3], 1 << 10),
        _ if text.ends_with("MiB") => (&text[..text.len() - 3], 1 << 20),
        _ => (text, 1_u64),
    };
    let invalid = || wrong(format!("\"{}\" is not a size", short(text))).hint("such as 4096, 64KiB or 1MiB");
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let bytes = digits.parse::<u64>().map_err(|_| invalid())?.saturating_mul(scale);
    match u32::try_from(bytes) {
        Ok(bytes) if bytes <= max => Ok(bytes),
        _ => {
            Err(wrong(format!("the size {} is too large", short(text)))
                .hint(format!("at most {}KiB", max >> 10)))
        }
    }
}

/// `12` or `1.5` times `scale`; at most 9 digits on either side of the point.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = fraction.parse().ok()?;
    Some(whole * scale + part * scale / 10_u128.pow(fraction.len() as u32))
}

/// A share in percent, as parts of a million: `100`, `5`, `0.1`.
pub(crate) fn percent(text: &str) -> Result<u32, Wrong> {
    const HINT: &str = "more than 0 and at most 100, such as 5 or 0.1";
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str, most: usize| text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole, 3)
        || !digits(fraction, 4)
        || fraction.is_empty() == number.contains('.')
    {
        return Err(wrong(format!("\"{}\" is not a share in percent", short(text))).hint(HINT));
    }
    let parts = format!("{whole}{fraction:0<4}").parse::<u32>().unwrap_or(u32::MAX);
    if !(1..=1_000_000).contains(&parts) {
        return Err(wrong(format!("{} is out of range for a share in percent", short(text))).hint(HINT));
    }
    if text != number {
        return Err(wrong(format!("\"{}\" is not a share in percent", short(text))).instead(number));
    }
    Ok(parts)
}

/// A whole number in `min..=max`; `what` it is, for the message.
pub(crate) fn number(text: &str, what: &str, min: u32, max: u32) -> Result<u32, Wrong> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let quote = if text.parse::<f64>().is_ok() { "" } else { "\"" };
        return Err(wrong(format!("expected {what}, found {quote}{}{quote}", short(text)))
            .hint(format!("a whole number from {min} to {max}")));
    }
    match text.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(wrong(format!("{} is out of range for {what}", short(text)))
            .hint(format!("a whole number from {min} to {max}"))),
    }
}

/// 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, Wrong> {
    let port =
        number(text, "a port", 0, 65535).map_err(|wrong| wrong.hint("a port is a number from 1 to 65535"))?;
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(wrong("port 0 cannot be used")
            .hint("1 to 65535; where a free port may be picked, leave the field out")),
    }
}

/// `IP:PORT`, or a port on 127.0.0.1.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(text)?));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { port("0").map(|_| address) } else { Ok(address) };
    }
    let invalid = wrong(format!("\"{}\" is not an address", short(text)));
    if text.contains("://") {
        return Err(invalid.hint("an address has no scheme and no path: IP:PORT"));
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        let shown = if text.parse::<IpAddr>().is_ok() { text } else { "127.0.0.1" };
        return Err(invalid.hint(format!("an address is IP:PORT, such as {shown}:8080")));
    };
    if host.starts_with('[') && !host.ends_with(']') {
        return Err(invalid.hint("an address is IP:PORT, such as [::1]:8080"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(invalid.hint(format!("write an IPv6 address as [{}]:PORT", short(text))));
    }
    let port = port(port_text)?;
    Err(match host {
        "" | "*" => invalid.hint(format!("write 0.0.0.0:{port} for every interface, {port} for 127.0.0.1")),
        "localhost" => invalid.hint(format!("write 127.0.0.1:{port}; names are not resolved here")),
        _ if host.contains(|c: char| c.is_ascii_alphabetic()) => {
            invalid.hint("write the IP address; names are not resolved here")
        }
        _ => invalid.hint("an address is IP:PORT, such as 127.0.0.1:8080"),
    })
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Address(SocketAddr),
    /// A host's name in lower case, and a port.
    Name(Arc<str>, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// An address, or `HOST:PORT`.
pub(crate) fn place(text: &str) -> Result<Place, Wrong> {
    let wrong = match address(text) {
        Ok(address) => return Ok(Place::Address(address)),
        Err(wrong) => wrong,
    };
    let Some((name, port_text)) = text.rsplit_once(':') else { return Err(wrong) };
    // Whether it is a name is what the proxy will say of it, not what looks like one here.
    match Destination::of_authority(name.as_bytes(), 1) {
        Ok(Destination { host: Some(found), .. }) if !text.contains("://") => {
            let port = port(port_text)?;
            match host(name)? {
                HostMatch::Exact(_) => Ok(Place::Name(found.as_str().into(), port)),
                HostMatch::Suffix(_) => Err(wrong),
            }
        }
        _ => Err(wrong),
    }
}

/// A host name or pattern that can be compared with the DNS names that leave: no address.
pub(crate) fn dns_host(text: &str) -> Result<HostMatch, Wrong> {
    let found = host(text)?;
    let name = text.strip_prefix("*.").unwrap_or(text);
    match Destination::of_authority(name.as_bytes(), 1) {
        Ok(Destination { host: Some(_), .. }) => Ok(found),
        _ => Err(wrong(format!("\"{}\" is not a DNS name", short(text)))
            .hint("addresses and their ranges go into `cidrs`")),
    }
}

/// The name of a server: no pattern, no address.
pub(crate) fn server_name(text: &str) -> Result<Arc<str>, Wrong> {
    match dns_host(text)? {
        HostMatch::Exact(name) => Ok(name),
        HostMatch::Suffix(_) => {
            Err(wrong(format!("\"{}\" is not the name of a server", short(text))).hint("write one name"))
        }
    }
}

/// A range of addresses.
pub(crate) fn cidr(text: &str) -> Result<Cidr, Wrong> {
    Cidr::parse(text).map_err(|error| {
        let wrong = wrong(format!("\"{}\" is not a range of addresses: {error}", short(text)));
        match error {
            CidrError::HostBits(range) => wrong.hint(format!("write {range}")),
            CidrError::Mapped => wrong.hint("write it as IPv4: both forms are the same addresses"),
            CidrError::Address | CidrError::Prefix => wrong.hint("such as 10.0.0.0/8, fd00::/8 or 192.0.2.7"),
        }
    })
}

/// A SPIFFE id, of whatever mesh: compared as it is written.
pub(crate) fn spiffe(text: &str) -> Result<Arc<str>, Wrong> {
    let rest = text.strip_prefix("spiffe://").unwrap_or_default();
    let domain = rest.split('/').next().unwrap_or_default();
    let good = rest.len() <= TEXT_BYTES_MAX
        && TrustDomain::parse(domain).is_ok()
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'))
        && !rest.ends_with('/');
    if good {
        Ok(text.into())
    } else {
        Err(wrong(format!("\"{}\" is not a SPIFFE id", short(text)))
            .hint("such as spiffe://shop.mesh/ns/default/sa/cart"))
    }
}

/// The name of a service of gRPC, `package.Service`, or nothing.
pub(crate) fn grpc_service(text: &str) -> Result<&str, Wrong> {
    const BYTES_MAX: usize = 255;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if text.len() <= BYTES_MAX && text.bytes().all(plain) {
        return Ok(text);
    }
    Err(wrong(format!("\"{}\" is not the name of a gRPC service", short(text)))
        .hint("such as shop.v1.Cart, or \"\" for the whole server"))
}

/// A path of a URL: absolute, normal, without a query.
pub(crate) fn path(text: &str) -> Result<&str, Wrong> {
    let invalid = |why: &str| wrong(format!("\"{}\" is not a path: {why}", short(text)));
    if let Some((scheme, rest)) = text.split_once("://") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        return Err(invalid(&format!("it begins with {}://", short(scheme)))
            .hint(format!("write \"{}\"; a host goes into `host`", short(path))));
    }
    if !text.starts_with('/') {
        return Err(invalid("it does not begin with a slash").hint(format!("write \"/{}\"", short(text))));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(invalid(&format!("it has more than {PATH_BYTES_MAX} bytes")));
    }
    if let Some(at) = text.find(['?', '#']) {
        return Err(invalid("it has a query or fragment").hint(format!("write \"{}\"", short(&text[..at]))));
    }
    if text.contains('*') {
        return Err(invalid("it has a `*`").hint(
            "a path takes everything below it as it is; for parts that vary write {template: /path/*}",
        ));
    }
    if text.contains("//") {
        return Err(invalid("it has an empty segment (`//`)")
            .hint(format!("write \"{}\"", short(&single_slashes(text)))));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(invalid("it has a `.` or `..` segment").hint("write the path that requests really have"));
    }
    if let Some(c) = text
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        let encoded: String = c.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        return Err(invalid("a character that a path cannot have").hint(format!("write it as {encoded}")));
    }
    let mut percents = text.match_indices('%');
    if percents.any(|(at, _)| {
        !text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    }) {
        return Err(invalid("a `%` without two hexadecimal digits").hint("write a percent sign as %25"));
    }
    Ok(text)
}

fn single_slashes(path: &str) -> String {
    let mut single = String::new();
    for c in path.chars() {
        if c != '/' || !single.ends_with('/') {
            single.push(c);
        }
    }
    single
}

/// A host name, an IP address, or `*.` before a name.
pub(crate) fn host(text: &str) -> Result<HostMatch, Wrong> {
    let invalid = |why: &str| wrong(format!("\"{}\" is not a host: {why}", short(text)));
    if text == "*" {
        return Err(invalid("it is every host").hint("leave `host` out to match every host"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(invalid("it is a URL").hint(format!("write \"{}\"", short(host))));
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: Ipv6Addr = inside.parse().map_err(|_| invalid("no IPv6 address in the brackets"))?;
        return Ok(HostMatch::Exact(format!("[{ip}]").into()));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(invalid("it has a port").hint(format!("write \"{}\"", short(host))));
    }
    if text.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(
            invalid("hosts are lower case").hint(format!("write \"{}\"", short(&text.to_lowercase())))
        );
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.len() > HOST_BYTES_MAX {
        return Err(invalid(&format!("it has more than {HOST_BYTES_MAX} bytes")));
    }
    if name.contains('*') {
        return Err(invalid("`*` can only be its first label").hint("such as *.example.com"));
    }
    // Underscores are no part of a host name in DNS, and are used in container networks all the same.
    let good = |label: &str| Label::parse(&label.replace('_', "x")).is_ok();
    if !name.split('.').all(good) {
        let what = if name.contains('/') {
            "it has a path"
        } else {
            "its parts are a-z, 0-9 and '-', joined by dots"
        };
        return Err(invalid(what));
    }
    Ok(if name.len() < text.len() {
        HostMatch::Suffix(format!(".{name}").into())
    } else {
        HostMatch::Exact(name.into())
    })
}

/// A method token in upper case.
pub(crate) fn method(text: &str) -> Result<Arc<str>, Wrong> {
    const KNOWN: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    let upper = text.to_ascii_uppercase();
    if KNOWN.contains(&text) {
        return Ok(text.into());
    }
    let invalid = |why: &str| wrong(format!("\"{}\" is not a method: {why}", short(text)));
    if text == "*" {
        return Err(invalid("it is every method").hint("leave `methods` out to match every method"));
    }
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(is_token) {
        return Err(invalid("it has characters that a method cannot have"));
    }
    if KNOWN.contains(&&*upper) {
        return Err(invalid("methods are upper case").hint(format!("write {upper}")));
    }
    // Registered and private methods are all upper case; what is one letter off a common one is a slip.
    if upper != text {
        return Err(
            invalid("methods are upper case").maybe(suggest::did_you_mean(&upper, KNOWN.iter().copied()))
        );
    }
    Ok(text.into())
}

/// A header's name, in lower case.
pub(crate) fn header_name(text: &str) -> Result<Arc<str>, Wrong> {
    let invalid = |why: &str| wrong(format!("\"{}\" is not a header: {why}", short(text)));
    if text.starts_with(':') {
        return Err(
            invalid("names that begin with `:` are not headers").hint("use `path`, `methods` or `host`")
        );
    }
    if text.eq_ignore_ascii_case("host") {
        return Err(wrong("a route compares the host by `host`, not as a header").hint("move it to `host`"));
    }
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(is_token) {
        return Err(
            invalid("it has a character that a header's name cannot have").hint("letters, digits and '-'")
        );
    }
    Ok(text.to_ascii_lowercase().into())
}

/// What is wrong with a text that is no `HOST` or `HOST:PORT`.
pub(crate) fn no_authority(text: &str) -> Wrong {
    let why =
        if text.contains("://") { "it is a URL" } else { "letters, digits, `-`, `.` and perhaps a port" };
    wrong(format!("\"{}\" is not a host: {why}", short(text)))
        .hint("such as user.internal or user.internal:8080")
}

/// A part of a header's value.
pub(crate) fn header_text(text: &str) -> Result<&str, Wrong> {
    if text.len() > TEXT_BYTES_MAX || !text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        return Err(wrong(format!(
            "\"{}\" is not a header's value: only printable ASCII can be compared",
            short(text)
        )));
    }
    Ok(text)
}

/// The name of a service or method of gRPC.
pub(crate) fn grpc_name(text: &str) -> Result<&str, Wrong> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(good) {
        return Err(wrong(format!("\"{}\" is not the name of a service or method of gRPC", short(text)))
            .hint("a service with its package, such as shop.Cart; a method, such as Add"));
    }
    Ok(text)
}

/// A header's value; `*` is any.
pub(crate) fn header_value(text: &str) -> Result<Option<Arc<str>>, Wrong> {
    if text == "*" {
        return Ok(None);
    }
    header_text(text)?;
    if text.trim() != text {
        return Err(wrong(format!(
            "\"{}\" never matches: a header's value has no space around it",
            short(text)
        ))
        .hint(format!("write \"{}\"", short(text.trim()))));
    }
    Ok(Some(text.into()))
}

/// The name of an environment variable.
pub(crate) fn variable(text: &str) -> Result<&str, Wrong> {
    if text == "PORT" {
        return Err(wrong("PORT is set by Leno").hint("use `port` to choose the application's port"));
    }
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        Ok(text)
    } else {
        Err(wrong(format!("\"{}\" is not the name of an environment variable", short(text)))
            .hint("letters, digits and '_', not beginning with a digit"))
    }
}

/// Characters of a token (RFC 9110 §5.6.2).
const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests;
