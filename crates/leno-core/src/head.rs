//! Read-only view of a message head. Parsers (`http1`, `mux`) fill an index of spans over bytes that stay where
//! they were read; everybody else looks through a view. No header is ever copied to be looked at.

use alloc::vec::Vec;

/// Where a piece of a head lies, in bytes from the start of the buffer that holds the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of `start..end`. Heads are limited far below 4 GiB, so offsets fit.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes it names in `buf`; empty when it lies outside.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or(&[])
    }
}

/// One header field: a name, a value without surrounding white space, and the name's id when Leno knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as it was written.
    pub name: Span,
    /// The value, trimmed.
    pub value: Span,
    /// Which well-known field it is.
    pub id: FieldId,
}

/// Fields that the data plane itself looks at; everything else is [`FieldId::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each variant is the field of that name")]
pub enum FieldId {
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Trailer,
    Upgrade,
    Expect,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    RequestId,
    Date,
}

impl FieldId {
    /// The id of a field name, in any case.
    pub fn of(name: &[u8]) -> Self {
        // The length picks two candidates at most, and the first letter one of them: an unknown field costs next to nothing.
        let (Some(candidates), Some(first)) = (BY_LENGTH.get(name.len()), name.first()) else {
            return Self::Other;
        };
        for (text, id) in candidates {
            if text.as_bytes().first() == Some(&(first | 0x20)) && is_lower_case_of(text.as_bytes(), name) {
                return *id;
            }
        }
        Self::Other
    }

    /// True for fields that belong to one connection and never cross a proxy (RFC 9110 §7.6.1), besides those
    /// that a `Connection` field names.
    pub const fn hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::TransferEncoding
                | Self::Te
                | Self::Upgrade
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
        )
    }
}

/// True when `found`, which has no control characters, is `word` in any case; `word` has only small letters and hyphens.
pub(crate) fn is_word(word: &[u8], found: &[u8]) -> bool {
    word.len() == found.len() && is_lower_case_of(word, found)
}

/// True when `name` is `text` in any case, where `text` has only small letters and hyphens and is as long. Word by word, the
/// last one overlapping: in such a text the bit by which a capital differs is always set, so that setting it in `name`
/// loses nothing (but tells no hyphen from a carriage return, which no name has).
fn is_lower_case_of(text: &[u8], name: &[u8]) -> bool {
    let long = |text: &[u8; 8], name: &[u8; 8]| {
        u64::from_le_bytes(*text) == u64::from_le_bytes(*name) | 0x2020_2020_2020_2020
    };
    let short =
        |text: &[u8; 4], name: &[u8; 4]| u32::from_le_bytes(*text) == u32::from_le_bytes(*name) | 0x2020_2020;
    if let (Some(text_end), Some(name_end)) = (text.last_chunk(), name.last_chunk()) {
        let (text_words, name_words) = (text.as_chunks().0, name.as_chunks().0);
        long(text_end, name_end) && text_words.iter().zip(name_words).all(|(text, name)| long(text, name))
    } else if let (Some((text, _)), Some((name, _)), Some(text_end), Some(name_end)) =
        (text.split_first_chunk(), name.split_first_chunk(), text.last_chunk(), name.last_chunk())
    {
        short(text, name) && short(text_end, name_end)
    } else {
        text.eq_ignore_ascii_case(name)
    }
}

/// Names of known fields by their length.
static BY_LENGTH: [[(&str, FieldId); 2]; 20] = {
    const NONE: (&str, FieldId) = ("", FieldId::Other);
    let mut table = [[NONE; 2]; 20];
    table[2] = [("te", FieldId::Te), NONE];
    table[4] = [("host", FieldId::Host), ("date", FieldId::Date)];
    table[6] = [("expect", FieldId::Expect), NONE];
    table[7] = [("upgrade", FieldId::Upgrade), ("trailer", FieldId::Trailer)];
    table[10] = [("connection", FieldId::Connection), ("keep-alive", FieldId::KeepAlive)];
    table[12] = [("x-request-id", FieldId::RequestId), NONE];
    table[14] = [("content-length", FieldId::ContentLength), NONE];
    table[16] = [("proxy-connection", FieldId::ProxyConnection), NONE];
    table[17] = [("transfer-encoding", FieldId::TransferEncoding), NONE];
    table[18] = [("proxy-authenticate", FieldId::ProxyAuthenticate), NONE];
    table[19] = [("proxy-authorization", FieldId::ProxyAuthorization), NONE];
    table
};

/// Index of a request head: filled by a parser, kept and refilled for the next request so that its allocation
/// is paid once per connection.
#[derive(Clone, Debug, Default)]
pub struct RequestIndex {
    /// The method token.
    pub method: Span,
    /// `host[:port]` that the request is for: from an absolute-form target when there is one, else from `Host`,
    /// else empty.
    pub authority: Span,
    /// Path and query, beginning with `/`; `*` for a server-wide OPTIONS; empty for CONNECT.
    pub path: Span,
    /// Every field in the order it came.
    pub fields: Vec<Field>,
}

impl RequestIndex {
    /// The view of this index over the buffer it was made from.
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> RequestHead<'a> {
        RequestHead {
            method: self.method.of(buf),
            authority: self.authority.of(buf),
            path: self.path.of(buf),
            fields: Fields { buf, fields: &self.fields },
        }
    }
}

/// Index of a response head; see [`RequestIndex`].
#[derive(Clone, Debug, Default)]
pub struct ResponseIndex {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: Span,
    /// Every field in the order it came.
    pub fields: Vec<Field>,
}

impl ResponseIndex {
    /// The view of this index over the buffer it was made from.
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> ResponseHead<'a> {
        ResponseHead {
            status: self.status,
            reason: self.reason.of(buf),
            fields: Fields { buf, fields: &self.fields },
        }
    }
}

/// A request head as rules and encoders see it, whatever protocol it came by.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method token, case-sensitive.
    pub method: &'a [u8],
    /// `host[:port]`, possibly empty.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// The header fields.
    pub fields: Fields<'a>,
}

impl<'a> RequestHead<'a> {
    /// The authority without its port, brackets of an IPv6 address kept.
    pub fn host(&self) -> &'a [u8] {
        host_of(self.authority)
    }

    /// The path without its query.
    pub fn path_only(&self) -> &'a [u8] {
        match memchr::memchr(b'?', self.path) {
            Some(at) => &self.path[..at],
            None => self.path,
        }
    }

    /// True when doing the request twice is the same as doing it once (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }
}

/// The host part of `host[:port]`.
pub fn host_of(authority: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', authority) {
        // A colon inside brackets belongs to the address, not to a port.
        Some(at) if !authority[at..].contains(&b']') => &authority[..at],
        _ => authority,
    }
}

/// A response head as rules and encoders see it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: &'a [u8],
    /// The header fields.
    pub fields: Fields<'a>,
}

/// The header fields of a head, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// The bytes that the spans point into.
    buf: &'a [u8],
    /// The fields' spans.
    fields: &'a [Field],
}

impl<'a> Fields<'a> {
    /// A view of `fields` over `buf`.
    pub const fn new(buf: &'a [u8], fields: &'a [Field]) -> Self {
        Self { buf, fields }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.fields.len()
    }

    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// `(id, name, value)` of each.
    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &'a [u8], &'a [u8])> + use<'a> {
        let buf = self.buf;
        self.fields.iter().map(move |f| (f.id, f.name.of(buf), f.value.of(buf)))
    }

    /// The same with the spans that they come from.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (&'a Field, &'a [u8], &'a [u8])> + use<'a> {
        let buf = self.buf;
        self.fields.iter().map(move |f| (f, f.name.of(buf), f.value.of(buf)))
    }

    /// The whole line of `field`, when it stands in the buffer just as one would write it: `name: value` and CRLF.
    pub(crate) fn line(&self, field: &Field) -> Option<Span> {
        let colon = Span { start: field.name.end, end: field.value.start };
        let end = Span { start: field.value.end, end: field.value.end + 2 };
        let usual = self.text(colon) == b": " && self.text(end) == b"\r\n";
        usual.then_some(Span { start: field.name.start, end: end.end })
    }

    /// The bytes of a span.
    pub(crate) fn text(&self, span: Span) -> &'a [u8] {
        span.of(self.buf)
    }

    /// The first value of a well-known field.
    pub fn get(&self, id: FieldId) -> Option<&'a [u8]> {
        self.fields.iter().find(|f| f.id == id).map(|f| f.value.of(self.buf))
    }

    /// The first value of the field `name`, in any case.
    pub fn get_named(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().find(|(_, n, _)| n.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }
}
