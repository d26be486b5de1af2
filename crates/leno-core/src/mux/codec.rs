//! The neutral encoding of a message head: what HEAD and TRAILERS carry.
//!
//! ```text
//! HEAD      kind, metadata, message
//! kind      1 request, 2 response, 3 opaque stream (TCP)
//! metadata  (key varint, value)*, 0        key = tag << 1 | 1 when the value is text, keys ascending
//!           value = varint, or text
//! request   method text, authority text, path text, field*
//! response  status varint, reason text, field*
//! opaque    authority text
//! field     name text, value text          until the end of the payload; TRAILERS is field* alone
//! text      length varint, bytes
//! ```
//!
//! Names are written as they came, so that every span of the decoded index points into the payload and nothing
//! is copied. A static table of names would save some 80 bytes of a browser's request on a link inside a data
//! centre and cost a second buffer.
//!
//! A peer's proxy may be malicious, and what is decoded here is written as HTTP/1 to an application. So the
//! decoder refuses whatever could mean something else there: names that are no tokens, values with CR, LF or
//! NUL, fields of one connection, `Host` beside the authority, and a `Content-Length` that contradicts the
//! declared body.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::frame::{put_varint, take_varint};
use crate::edit::Edits;
use crate::head::{Field, FieldId, Fields, RequestHead, RequestIndex, ResponseHead, ResponseIndex, Span};
use crate::http1::{content_length, is_authority, is_field_value, is_target, is_token, may_be_trailer};

/// What a stream carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1 messages.
    #[default]
    Http,
    /// HTTP/2 messages: the same, from a client that could as well be answered by an application that speaks it.
    Http2,
    /// An opaque byte stream; its head has only an authority.
    Tcp,
}

impl Kind {
    /// The word for it in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }
}

/// What a head says about the bytes after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none. The field `content-length` of a response may still say what a GET would have had.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// As many as come before the end; also what an upgraded or opaque stream has.
    #[default]
    Unknown,
}

/// What one Leno tells the other about a message, beside the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// What the stream carries; of a request only.
    pub kind: Kind,
    /// The body that follows.
    pub body: Body,
    /// Time left until the request's deadline, in whole microseconds.
    pub deadline: Option<Duration>,
    /// Which attempt this is: 0 when unsaid, 1 the first.
    pub attempt: u32,
    /// Name of the route that was taken; at most [`META_TEXT_BYTES_MAX`] printable ASCII bytes, else not sent.
    pub route: &'a [u8],
    /// The request's id; the same rule.
    pub request_id: &'a [u8],
    /// Generation of the sender's configuration; 0 when unsaid.
    pub generation: u64,
    /// The protocol that the request wants to switch to or the response (101) switches to, such as `websocket`;
    /// the same rule. The index then has an `Upgrade` field of this value, which does not cross otherwise.
    pub upgrade: &'a [u8],
}

/// Longest metadata text, in bytes.
pub const META_TEXT_BYTES_MAX: usize = 255;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// A length or number is cut short or does not fit.
    Truncated,
    /// A kind of head that does not belong here.
    Kind,
    /// Metadata out of order, of the wrong type or not printable.
    Meta,
    /// Not a method token.
    Method,
    /// Not a host and port.
    Authority,
    /// Not an absolute path, `*` or empty as the method demands.
    Path,
    /// Not a status code, or one that contradicts the declared body.
    Status,
    /// A field name that is no token.
    Name,
    /// A field value or reason phrase with a control character or surrounding white space.
    Value,
    /// A field that belongs to one connection, or `Host`, or in trailers one that frames or routes.
    Forbidden,
    /// `content-length` contradicts the declared body.
    Length,
    /// More fields or bytes than allowed.
    TooLarge,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "cut short",
            Self::Kind => "a kind that does not belong here",
            Self::Meta => "invalid metadata",
            Self::Method => "invalid method",
            Self::Authority => "invalid authority",
            Self::Path => "invalid path",
            Self::Status => "invalid status",
            Self::Name => "invalid field name",
            Self::Value => "invalid field value",
            Self::Forbidden => "a field that must not cross a proxy",
            Self::Length => "content-length contradicts the body",
            Self::TooLarge => "too large",
        })
    }
}

/// The indexes that decoding fills; kept and refilled, so that their allocations are paid once per connection.
#[derive(Debug, Default)]
pub struct HeadIndex {
    /// Filled by the last request event.
    pub request: RequestIndex,
    /// Filled by the last response event.
    pub response: ResponseIndex,
    /// Filled by the last trailers event.
    pub trailers: Vec<Field>,
}

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const OPAQUE: u8 = 3;

const KEY_END: u64 = 0;
const KEY_DEADLINE: u64 = 1 << 1;
const KEY_ATTEMPT: u64 = 2 << 1;
const KEY_ROUTE: u64 = 3 << 1 | 1;
const KEY_REQUEST_ID: u64 = 4 << 1 | 1;
const KEY_GENERATION: u64 = 5 << 1;
const KEY_BODY: u64 = 6 << 1;
const KEY_UPGRADE: u64 = 7 << 1 | 1;
/// The major version of HTTP; unsaid: 1.
const KEY_VERSION: u64 = 8 << 1;

/// Appends a request head with `edits` applied. On an error `out` holds a part of it; the caller cuts it off.
pub(super) fn encode_request(
    out: &mut Vec<u8>,
    meta: &Meta<'_>,
    head: &RequestHead<'_>,
    edits: &Edits,
) -> Result<(), BadHead> {
    // An edit of `Host` is an edit of the authority, which is the only place where it crosses.
    let authority = edits
        .added()
        .filter(|(name, _)| FieldId::of(name) == FieldId::Host)
        .last()
        .map_or(head.authority, |(_, value)| value);
    check_authority(authority)?;
    if meta.kind == Kind::Tcp {
        out.push(OPAQUE);
        encode_meta(out, meta, meta.body);
        put_text(out, authority);
        return Ok(());
    }
    check_request_line(head.method, head.path)?;
    out.push(REQUEST);
    encode_meta(out, meta, meta.body);
    put_text(out, head.method);
    put_text(out, authority);
    put_text(out, head.path);
    encode_fields(out, meta.body, meta.upgrade, &head.fields, edits, false)
}

/// Appends a response head with `edits` applied; see [`encode_request`].
pub(super) fn encode_response(
    out: &mut Vec<u8>,
    meta: &Meta<'_>,
    head: &ResponseHead<'_>,
    edits: &Edits,
) -> Result<(), BadHead> {
    if !(100..=999).contains(&head.status) {
        return Err(BadHead::Status);
    }
    let body = if never_has_body(head.status) { Body::None } else { meta.body };
    out.push(RESPONSE);
    encode_meta(out, meta, body);
    put_varint(out, u64::from(head.status));
    put_text(out, if is_value(head.reason) { head.reason } else { b"" });
    encode_fields(out, body, meta.upgrade, &head.fields, edits, true)
}

/// Appends trailer fields, without those that must not be there (RFC 9110 §6.5.1).
pub(super) fn encode_trailers(out: &mut Vec<u8>, fields: &Fields<'_>) -> Result<(), BadHead> {
    for (id, name, value) in fields.iter() {
        if !may_be_trailer(id, name) {
            continue;
        }
        check_field(name, value)?;
        put_text(out, name);
        put_text(out, value);
    }
    Ok(())
}

fn encode_meta(out: &mut Vec<u8>, meta: &Meta<'_>, body: Body) {
    let mut number = |key: u64, value: u64| {
        put_varint(out, key);
        put_varint(out, value);
    };
    if let Some(left) = meta.deadline {
        number(KEY_DEADLINE, u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
    }
    if meta.attempt != 0 {
        number(KEY_ATTEMPT, u64::from(meta.attempt));
    }
    put_meta_text(out, KEY_ROUTE, meta.route);
    put_meta_text(out, KEY_REQUEST_ID, meta.request_id);
    if meta.generation != 0 {
        put_varint(out, KEY_GENERATION);
        put_varint(out, meta.generation);
    }
    match body {
        Body::Unknown => {}
        Body::None => out.extend_from_slice(&[KEY_BODY as u8, 0]),
        Body::Length(length) => {
            put_varint(out, KEY_BODY);
            put_varint(out, length.saturating_add(1));
        }
    }
    if is_upgrade(meta.upgrade) {
        put_meta_text(out, KEY_UPGRADE, meta.upgrade);
    }
    if meta.kind == Kind::Http2 {
        put_varint(out, KEY_VERSION);
        put_varint(out, 2);
    }
    out.push(KEY_END as u8);
}

fn put_meta_text(out: &mut Vec<u8>, key: u64, text: &[u8]) {
    if !text.is_empty() && is_meta_text(text) {
        put_varint(out, key);
        put_text(out, text);
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn encode_fields(
    out: &mut Vec<u8>,
    body: Body,
    upgrade: &[u8],
    fields: &Fields<'_>,
    edits: &Edits,
    response: bool,
) -> Result<(), BadHead> {
    let keep_length = response && body == Body::None;
    let names_fields =
        fields.iter().any(|(id, _, value)| id == FieldId::Connection && !is_plain_connection(value));
    let no_edits = edits.is_empty();
    for (id, name, value) in fields.iter() {
        let dropped = match id {
            FieldId::ContentLength => !keep_length,
            FieldId::Host => true,
            _ => id.hop_by_hop() || (names_fields && named_by_connection(fields, name)),
        };
        if dropped || (!no_edits && edits.removes(name)) {
            continue;
        }
        put_text(out, name);
        put_text(out, value);
    }
    for (name, value) in edits.added() {
        let id = FieldId::of(name);
        if id.hop_by_hop() || matches!(id, FieldId::Host | FieldId::ContentLength) {
            continue;
        }
        check_field(name, value)?;
        put_text(out, name);
        put_text(out, value);
    }
    if is_upgrade(upgrade) {
        put_text(out, b"upgrade");
        put_text(out, upgrade);
    }
    if let Body::Length(length) = body {
        put_text(out, b"content-length");
        let mut digits = [0; 20];
        put_text(out, decimal(length, &mut digits));
    }
    Ok(())
}

/// True for the values of `Connection` that name no field.
fn is_plain_connection(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

fn named_by_connection(fields: &Fields<'_>, name: &[u8]) -> bool {
    fields.iter().filter(|(id, ..)| *id == FieldId::Connection).any(|(_, _, value)| {
        value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(name))
    })
}

fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

/// Decodes a request HEAD into `index`, whose spans are over `payload`.
pub(super) fn decode_request<'a>(
    payload: &'a [u8],
    fields_max: u32,
    index: &mut RequestIndex,
) -> Result<Meta<'a>, BadHead> {
    let mut reader = Reader { payload, rest: payload };
    let kind = reader.byte()?;
    let mut meta = reader.meta()?;
    index.fields.clear();
    index.method = Span::default();
    index.path = Span::default();
    match kind {
        OPAQUE => {
            meta.kind = Kind::Tcp;
            index.authority = reader.text()?;
            check_authority(index.authority.of(payload))?;
            return if reader.rest.is_empty() { Ok(meta) } else { Err(BadHead::Truncated) };
        }
        REQUEST => {}
        _ => return Err(BadHead::Kind),
    }
    index.method = reader.text()?;
    index.authority = reader.text()?;
    index.path = reader.text()?;
    check_request_line(index.method.of(payload), index.path.of(payload))?;
    check_authority(index.authority.of(payload))?;
    let length = reader.fields(fields_max, &mut index.fields, meta.upgrade, hop_or_host)?;
    let agrees = match (length, meta.body) {
        (None, Body::Length(_)) => false,
        (None, _) => true,
        (Some(length), Body::Length(declared)) => length == declared,
        (Some(length), Body::None) => length == 0,
        (Some(_), Body::Unknown) => false,
    };
    if agrees { Ok(meta) } else { Err(BadHead::Length) }
}

/// Decodes a response HEAD into `index`, whose spans are over `payload`.
pub(super) fn decode_response<'a>(
    payload: &'a [u8],
    fields_max: u32,
    index: &mut ResponseIndex,
) -> Result<Meta<'a>, BadHead> {
    let mut reader = Reader { payload, rest: payload };
    if reader.byte()? != RESPONSE {
        return Err(BadHead::Kind);
    }
    let meta = reader.meta()?;
    let status = reader.varint()?;
    index.status = u16::try_from(status).ok().filter(|s| (100..=999).contains(s)).ok_or(BadHead::Status)?;
    if never_has_body(index.status) && meta.body != Body::None {
        return Err(BadHead::Status);
    }
    index.reason = reader.text()?;
    if !is_value(index.reason.of(payload)) {
        return Err(BadHead::Value);
    }
    let length = reader.fields(fields_max, &mut index.fields, meta.upgrade, hop_or_host)?;
    let agrees = match (length, meta.body) {
        (None, Body::Length(_)) | (Some(_), Body::Unknown) => false,
        (Some(length), Body::Length(declared)) => length == declared,
        (None, _) | (Some(_), Body::None) => true,
    };
    if agrees { Ok(meta) } else { Err(BadHead::Length) }
}

/// Decodes TRAILERS into `index`, whose spans are over `payload`.
pub(super) fn decode_trailers(
    payload: &[u8],
    fields_max: u32,
    index: &mut Vec<Field>,
) -> Result<(), BadHead> {
    Reader { payload, rest: payload }.fields(fields_max, index, b"", forbidden_in_trailers).map(|_| ())
}

/// 1xx but 101, 204 and 304 never have one (RFC 9110 §6.4.1).
fn never_has_body(status: u16) -> bool {
    matches!(status, 100 | 102..=199 | 204 | 304)
}

fn hop_or_host(id: FieldId) -> bool {
    id.hop_by_hop() || id == FieldId::Host
}

fn forbidden_in_trailers(id: FieldId) -> bool {
    hop_or_host(id) || matches!(id, FieldId::ContentLength | FieldId::Trailer | FieldId::Expect)
}

/// A place in a payload.
struct Reader<'a> {
    /// The whole payload, which spans are relative to.
    payload: &'a [u8],
    /// What is not yet read.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, BadHead> {
        let (&byte, rest) = self.rest.split_first().ok_or(BadHead::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, BadHead> {
        take_varint(&mut self.rest).ok_or(BadHead::Truncated)
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadHead> {
        let length = usize::try_from(self.varint()?).map_err(|_| BadHead::Truncated)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(BadHead::Truncated)?;
        self.rest = rest;
        Ok(text)
    }

    fn text(&mut self) -> Result<Span, BadHead> {
        let length = self.bytes()?.len();
        let end = self.payload.len() - self.rest.len();
        Ok(Span::new(end - length, end))
    }

    fn meta(&mut self) -> Result<Meta<'a>, BadHead> {
        let mut meta = Meta::default();
        let mut last = KEY_END;
        loop {
            let key = self.varint()?;
            if key == KEY_END {
                return Ok(meta);
            }
            // Ascending keys make a repeated one impossible.
            if key <= last {
                return Err(BadHead::Meta);
            }
            last = key;
            if key & 1 == 1 {
                let text = self.bytes()?;
                let known = match key {
                    KEY_ROUTE => &mut meta.route,
                    KEY_REQUEST_ID => &mut meta.request_id,
                    KEY_UPGRADE => &mut meta.upgrade,
                    _ => continue,
                };
                if !is_meta_text(text) || (key == KEY_UPGRADE && !is_upgrade(text)) {
                    return Err(BadHead::Meta);
                }
                *known = text;
            } else {
                let value = self.varint()?;
                match key {
                    KEY_DEADLINE => meta.deadline = Some(Duration::from_micros(value)),
                    KEY_ATTEMPT => meta.attempt = u32::try_from(value).map_err(|_| BadHead::Meta)?,
                    KEY_GENERATION => meta.generation = value,
                    KEY_VERSION if value == 2 => meta.kind = Kind::Http2,
                    KEY_BODY => meta.body = value.checked_sub(1).map_or(Body::None, Body::Length),
                    _ => {}
                }
            }
        }
    }

    /// Reads fields to the end of the payload. One `Upgrade` is allowed, and needed, when it says what the metadata
    /// said. Returns the value of `content-length` when there is one.
    fn fields(
        &mut self,
        fields_max: u32,
        index: &mut Vec<Field>,
        upgrade: &[u8],
        forbidden: fn(FieldId) -> bool,
    ) -> Result<Option<u64>, BadHead> {
        index.clear();
        let mut length = None;
        let mut upgrades = 0;
        while !self.rest.is_empty() {
            if index.len() >= fields_max as usize {
                return Err(BadHead::TooLarge);
            }
            let name = self.text()?;
            let value = self.text()?;
            let (name_text, value_text) = (name.of(self.payload), value.of(self.payload));
            check_field(name_text, value_text)?;
            let id = FieldId::of(name_text);
            if id == FieldId::Upgrade && value_text == upgrade && !upgrade.is_empty() {
                upgrades += 1;
            } else if forbidden(id) {
                return Err(BadHead::Forbidden);
            }
            if id == FieldId::ContentLength {
                let parsed = content_length(value_text).map_err(|_| BadHead::Length)?;
                if length.replace(parsed).is_some() {
                    return Err(BadHead::Length);
                }
            }
            index.push(Field { name, value, id });
        }
        if upgrades == usize::from(!upgrade.is_empty()) { Ok(length) } else { Err(BadHead::Forbidden) }
    }
}

fn check_request_line(method: &[u8], path: &[u8]) -> Result<(), BadHead> {
    if !is_token(method) {
        return Err(BadHead::Method);
    }
    let fits = match path.first() {
        None => method == b"CONNECT",
        Some(b'/') => method != b"CONNECT" && is_target(path),
        Some(_) => path == b"*" && method == b"OPTIONS",
    };
    if fits { Ok(()) } else { Err(BadHead::Path) }
}

fn check_authority(authority: &[u8]) -> Result<(), BadHead> {
    // A request of HTTP/1.0 may come without one.
    if authority.is_empty() || is_authority(authority) { Ok(()) } else { Err(BadHead::Authority) }
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), BadHead> {
    if !is_token(name) {
        return Err(BadHead::Name);
    }
    if is_value(value) { Ok(()) } else { Err(BadHead::Value) }
}

/// RFC 9110 §5.5: no control character but a tab, no white space around it.
fn is_value(text: &[u8]) -> bool {
    let around = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !around(text.first()) && !around(text.last()) && is_field_value(text)
}

fn is_meta_text(text: &[u8]) -> bool {
    text.len() <= META_TEXT_BYTES_MAX && is_value(text) && text.is_ascii() && !text.contains(&b'\t')
}

/// A protocol that a connection may switch to: names with an optional version, comma-separated (RFC 9110 §7.8),
/// but no `h2c`, whose requests would pass every rule unseen.
fn is_upgrade(text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    let part = |part: &[u8]| {
        let part = part.trim_ascii();
        let h2c = part.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"));
        !h2c && part.split(|b| *b == b'/').all(is_token)
    };
    is_meta_text(text) && text.split(|b| *b == b',').all(part)
}
