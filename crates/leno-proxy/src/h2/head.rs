//! Heads between the crate's maps and the core's indexes: one pass in each direction. Names, values and maps take turns
//! with the worker's memory.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use leno_core::edit::Edits;
use leno_core::head::{Field, FieldId, Fields, ResponseIndex, Span};
use leno_core::http1::{Limits, ParseError, end_to_end, is_field_value, may_be_trailer};

/// Memory for heads of one worker.
#[derive(Debug)]
pub(crate) struct Heads {
    /// Where values are written before they are shared with the crate.
    values: BytesMut,
    /// Names by a hash of theirs: making one anew takes memory.
    names: Vec<Option<HeaderName>>,
    /// Empty maps.
    maps: Vec<HeaderMap>,
    /// For values that are put together.
    scratch: Vec<u8>,
    /// For heads of responses.
    responses: Vec<Response>,
}

/// A response's head.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) index: ResponseIndex,
    pub(super) bytes: Vec<u8>,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            values: BytesMut::new(),
            names: vec![None; NAMES_MAX],
            maps: Vec::new(),
            scratch: Vec::new(),
            responses: Vec::new(),
        }
    }
}

/// Values that share one piece of memory, in bytes. Header compression remembers some values for as long as the connection
/// lives, and each of them keeps the whole piece.
const VALUES_BYTES: usize = 2 * 1024;
/// Names that are remembered.
const NAMES_MAX: usize = 256;
/// Maps that are kept, and the fields that one may have room for.
const MAPS_MAX: usize = 64;
const MAP_FIELDS_MAX: usize = 64;
/// Heads of responses that are kept, and the bytes that one may have room for.
const RESPONSES_MAX: usize = 256;
const RESPONSE_BYTES_KEPT: usize = 4 * 1024;

impl Heads {
    /// An empty map.
    pub(super) fn map(&mut self) -> HeaderMap {
        self.maps.pop().unwrap_or_else(|| HeaderMap::with_capacity(16))
    }

    /// Takes a map back.
    pub(super) fn give(&mut self, mut map: HeaderMap) {
        if self.maps.len() < MAPS_MAX && (1..=MAP_FIELDS_MAX).contains(&map.capacity()) {
            map.clear();
            self.maps.push(map);
        }
    }

    /// Memory for a response's head.
    pub(super) fn response(&mut self) -> Response {
        self.responses.pop().unwrap_or_default()
    }

    /// Takes it back. What was unusually large is not worth keeping.
    pub(super) fn give_response(&mut self, response: Response) {
        if self.responses.len() < RESPONSES_MAX && response.bytes.capacity() <= RESPONSE_BYTES_KEPT {
            self.responses.push(response);
        }
    }

    /// Lets go of half of what is kept.
    pub(crate) fn sweep(&mut self) {
        self.responses.truncate(self.responses.len() / 2);
        self.maps.truncate(self.maps.len() / 2);
    }

    /// Adds a field. One that is no field is left out: both ends are checked, but edits may be built from anything.
    pub(super) fn add(&mut self, map: &mut HeaderMap, name: &[u8], value: &[u8]) {
        let Some(key) = self.name(name) else { return };
        let Some(mut text) = self.value(value) else { return };
        // What is new in each request would only push out of the peer's table what is not.
        text.set_sensitive(FieldId::of(name) == FieldId::RequestId);
        // An error means more fields than a map takes, which the limits of a head are far below.
        let _ = map.try_append(key, text);
    }

    /// The fields that cross a proxy, without those that `skip` names, with edits. `content-length`, `host` and `expect` are
    /// the caller's to say.
    pub(super) fn add_all(
        &mut self,
        map: &mut HeaderMap,
        fields: Fields<'_>,
        edits: &Edits,
        skip: impl Fn(&[u8]) -> bool,
    ) {
        let ours = |id: FieldId| matches!(id, FieldId::ContentLength | FieldId::Host | FieldId::Expect);
        for (id, name, value) in end_to_end(fields) {
            if ours(id) || skip(name) || !edits.is_empty() && edits.removes(name) {
                continue;
            }
            self.add(map, name, value);
        }
        for (name, value) in edits.added() {
            let id = FieldId::of(name);
            if !ours(id) && !id.hop_by_hop() {
                self.add(map, name, value);
            }
        }
    }

    /// Adds a field with a number.
    pub(super) fn add_number(&mut self, map: &mut HeaderMap, name: HeaderName, number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if let Some(value) = self.value(&digits[at..]) {
            let _ = map.try_append(name, value);
        }
    }

    /// Adds a field with a value that `write` appends.
    pub(super) fn add_with(&mut self, map: &mut HeaderMap, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write(&mut scratch);
        self.add(map, name, &scratch);
        self.scratch = scratch;
    }

    /// Trailer fields; `None` when there are none.
    pub(super) fn trailers(&mut self, fields: Fields<'_>) -> Option<HeaderMap> {
        if fields.is_empty() {
            return None;
        }
        let mut map = self.map();
        for (id, name, value) in fields.iter() {
            if may_be_trailer(id, name) {
                self.add(&mut map, name, value);
            }
        }
        (!map.is_empty()).then_some(map)
    }

    /// The target of a request; `None` when it is none. Both were checked when the request came.
    pub(super) fn target(&mut self, scheme: Scheme, authority: &[u8], path: &[u8]) -> Option<Uri> {
        let mut parts = http::uri::Parts::default();
        if !authority.is_empty() {
            parts.scheme = Some(scheme);
            parts.authority = Some(Authority::from_maybe_shared(self.shared(authority)).ok()?);
        }
        if !path.is_empty() || parts.authority.is_some() {
            let path = if path.is_empty() { b"/" } else { path };
            parts.path_and_query = Some(PathAndQuery::from_maybe_shared(self.shared(path)).ok()?);
        }
        Uri::from_parts(parts).ok()
    }

    fn name(&mut self, name: &[u8]) -> Option<HeaderName> {
        let at = hash(name) % NAMES_MAX;
        let slot = self.names.get_mut(at)?;
        if let Some(known) = slot
            && known.as_str().as_bytes().eq_ignore_ascii_case(name)
        {
            return Some(known.clone());
        }
        let new = HeaderName::from_bytes(name).ok()?;
        // A long one is not worth keeping.
        if name.len() <= NAME_BYTES_KEPT {
            *slot = Some(new.clone());
        }
        Some(new)
    }

    fn value(&mut self, value: &[u8]) -> Option<HeaderValue> {
        if value.is_empty() {
            return Some(HeaderValue::from_static(""));
        }
        HeaderValue::from_maybe_shared(self.shared(value)).ok()
    }

    fn shared(&mut self, text: &[u8]) -> Bytes {
        if self.values.capacity() < text.len() {
            // What is larger than usual has memory of its own, which goes with it.
            if text.len() > VALUES_BYTES / 2 {
                return Bytes::copy_from_slice(text);
            }
            self.values = BytesMut::with_capacity(VALUES_BYTES);
        }
        self.values.extend_from_slice(text);
        self.values.split().freeze()
    }
}

/// The longest name that is remembered, in bytes.
const NAME_BYTES_KEPT: usize = 64;

/// FNV-1a over small letters.
fn hash(name: &[u8]) -> usize {
    name.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193))
        as usize
}

/// Appends a map's fields to a head's bytes, as the lines that HTTP/1 has, so that they are copied at once where they go on as
/// such. Crumbs of cookies become one field (RFC 9113 §8.2.3).
///
/// # Errors
/// A field that may not be there.
pub(super) fn read_fields(
    map: &HeaderMap,
    limits: &Limits,
    bytes: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) -> Result<(), ParseError> {
    let mut cookie: Option<usize> = None;
    for (name, value) in map {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if value.first().is_some_and(is_space) || value.last().is_some_and(is_space) || !is_field_value(value)
        {
            return Err(ParseError::FieldValue);
        }
        if name == b"cookie" {
            if let Some(field) = cookie.and_then(|at| fields.get_mut(at)) {
                // It is the last line that was written: a map keeps values of one name together.
                bytes.truncate(field.value.end as usize);
                bytes.extend_from_slice(b"; ");
                bytes.extend_from_slice(value);
                field.value.end = bytes.len() as u32;
                bytes.extend_from_slice(b"\r\n");
                continue;
            }
            cookie = Some(fields.len());
        }
        if fields.len() >= limits.fields_max {
            return Err(ParseError::TooManyFields);
        }
        push_field(bytes, fields, name, value);
    }
    if bytes.len() > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    Ok(())
}

/// Appends one field as a line.
pub(crate) fn push_field(bytes: &mut Vec<u8>, fields: &mut Vec<Field>, name: &[u8], value: &[u8]) {
    let start = bytes.len();
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b": ");
    let value_start = bytes.len();
    bytes.extend_from_slice(value);
    let value_end = bytes.len();
    bytes.extend_from_slice(b"\r\n");
    fields.push(Field {
        name: Span::new(start, start + name.len()),
        value: Span::new(value_start, value_end),
        id: FieldId::of(name),
    });
}

const fn is_space(byte: &u8) -> bool {
    matches!(*byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_cookies_are_joined_and_lines_are_those_of_http1() {
        let mut heads = Heads::default();
        let mut map = heads.map();
        for (name, value) in [("a", "1"), ("cookie", "x=1"), ("b", "2"), ("cookie", "y=2"), ("cookie", "z=3")]
        {
            heads.add(&mut map, name.as_bytes(), value.as_bytes());
        }
        let (mut bytes, mut fields) = (Vec::new(), Vec::new());
        read_fields(&map, &Limits::default(), &mut bytes, &mut fields).unwrap();
        assert_eq!(bytes, b"a: 1\r\ncookie: x=1; y=2; z=3\r\nb: 2\r\n");
        let view = Fields::new(&bytes, &fields);
        assert_eq!(view.get_named(b"cookie"), Some(&b"x=1; y=2; z=3"[..]));
        assert_eq!(view.len(), 3);
    }

    #[test]
    fn what_belongs_to_one_hop_does_not_cross() {
        let text =
            b"Connection: x-own, close\r\nX-Own: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n\
            Transfer-Encoding: chunked\r\nHost: a\r\nX-Kept: yes\r\nProxy-Connection: close\r\n";
        let mut fields = Vec::new();
        let mut bytes = Vec::new();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            push_field(&mut bytes, &mut fields, &line[..colon], &line[colon + 2..line.len() - 1]);
        }
        let mut heads = Heads::default();
        let mut map = heads.map();
        let mut edits = Edits::default();
        edits.add(b"connection", b"close");
        edits.add(b"x-added", b"1");
        heads.add_all(&mut map, Fields::new(&bytes, &fields), &edits, |_| false);
        let names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-kept", "x-added"]);
    }

    #[test]
    fn values_with_space_around_or_too_many_fields_are_refused() {
        let mut map = HeaderMap::new();
        map.insert("a", HeaderValue::from_static(" 1"));
        let read =
            |map: &HeaderMap, limits: &Limits| read_fields(map, limits, &mut Vec::new(), &mut Vec::new());
        assert_eq!(read(&map, &Limits::default()), Err(ParseError::FieldValue));
        map.insert("a", HeaderValue::from_static("1"));
        map.insert("b", HeaderValue::from_static("2"));
        assert_eq!(read(&map, &Limits::default()), Ok(()));
        let limits = Limits { fields_max: 1, ..Limits::default() };
        assert_eq!(read(&map, &limits), Err(ParseError::TooManyFields));
    }

    #[test]
    fn numbers_are_written_in_digits() {
        let mut heads = Heads::default();
        for number in [0, 7, 10, 1234, u64::MAX] {
            let mut map = heads.map();
            heads.add_number(&mut map, http::header::CONTENT_LENGTH, number);
            assert_eq!(map["content-length"], number.to_string());
        }
    }

    #[test]
    fn names_are_remembered_whatever_their_case() {
        let mut heads = Heads::default();
        for name in ["X-Some-Name", "x-some-name", "content-type", "bad name", ""] {
            let made = heads.name(name.as_bytes());
            assert_eq!(made.is_some(), !name.contains("bad") && !name.is_empty(), "{name}");
            if let Some(made) = made {
                assert_eq!(made.as_str(), name.to_ascii_lowercase());
            }
        }
    }
}
