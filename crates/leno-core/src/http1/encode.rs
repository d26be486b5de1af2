//! Heads on the way out: the fields that came, with edits, and our own framing, `Host` and `Connection`.
//!
//! Text from parsed heads cannot break out of its line, because parsers refuse line ends and NUL. Values of edits
//! are checked here, since they may be built from anything.

use alloc::vec::Vec;

use super::facts::{BodyFraming, Version, list};
use super::response::ResponseFor;
use super::scan::{is_field_value, is_token};
use crate::edit::Edits;
use crate::head::{FieldId, Fields, RequestHead, ResponseHead, Span, is_word};

/// What a request head says besides what came.
#[derive(Clone, Copy, Debug)]
pub struct RequestOptions {
    /// How the body will be framed: none, a length, or chunked.
    pub framing: BodyFraming,
    /// False asks the server to close the connection after its response.
    pub keep_alive: bool,
    /// Passes the offer in the request's `Upgrade` field on.
    pub upgrade: bool,
    /// Asks for a `100 Continue` before the body.
    pub expect_continue: bool,
    /// Tells that trailers are understood on this hop.
    pub te_trailers: bool,
}

/// What a response head says besides what came.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions {
    /// How the body is framed that came; [`encode_response_head`] returns how it must be framed on the way out.
    pub framing: BodyFraming,
    /// The version of the client: HTTP/1.0 knows no chunks and no 1xx.
    pub version: Version,
    /// False tells the client that the connection will be closed after this response.
    pub keep_alive: bool,
    /// What the response answers.
    pub answers: ResponseFor,
}

/// Appends a request head in HTTP/1.1. The target is in origin-form, for CONNECT the authority.
///
/// Fields of one hop, `Host`, `Expect` and framing are dropped from the head and from the edits, and written from
/// `head.authority` and `options`; to change the host, change `head.authority`. Edits may not add such fields either.
/// An empty authority (an HTTP/1.0 request without `Host`) gives an empty `Host`, which servers may refuse.
pub fn encode_request_head(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    edits: &Edits,
    options: &RequestOptions,
) {
    debug_assert!(is_token(head.method), "a method is a token");
    debug_assert!(
        super::scan::value_end(head.path, 0) == head.path.len(),
        "a path has no control characters"
    );
    let target = match head.path {
        [] if head.method == b"CONNECT" => head.authority,
        [] => b"/",
        path => path,
    };
    out.extend_from_slice(head.method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.authority);
    out.extend_from_slice(b"\r\n");
    write_fields(out, head.fields, edits, options.framing == BodyFraming::Chunked, |_| false);
    write_framing(out, options.framing);
    if options.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    let upgrade = if options.upgrade { head.fields.get(FieldId::Upgrade) } else { None };
    if options.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    let wants = [
        (!options.keep_alive && upgrade.is_none(), "close"),
        (upgrade.is_some(), "Upgrade"),
        (options.te_trailers, "TE"),
    ];
    write_connection(out, wants);
    if let Some(protocol) = upgrade {
        write_field(out, b"Upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head in HTTP/1.1 and returns the framing that the body must have, see [`framing_for`]. After [`BodyFraming::UntilClose`] the connection must be closed.
///
/// Fields of one hop and framing are dropped from the head and from the edits. `Content-Length` is kept where it
/// describes a body that is not sent (HEAD and 304). An interim response (1xx besides 101) to a client of HTTP/1.0
/// writes nothing (RFC 9110 §15.2).
pub fn encode_response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    edits: &Edits,
    options: &ResponseOptions,
) -> BodyFraming {
    let interim = (100..200).contains(&head.status) && head.status != 101;
    if interim && options.version == Version::Http10 {
        return BodyFraming::None;
    }
    let framing = framing_for(options.version, options.framing);
    let never_has_length = matches!(head.status, 100..=199 | 204);
    let describes_other = options.answers.head || head.status == 304;
    let keeps_length = framing == BodyFraming::None && describes_other && !never_has_length;
    write_status_line(out, head);
    write_fields(out, head.fields, edits, framing == BodyFraming::Chunked, |id| {
        keeps_length && id == FieldId::ContentLength
    });
    match framing {
        // A body that is just not there would be a body until the connection ends.
        BodyFraming::None if !never_has_length && !describes_other => {
            write_framing(out, BodyFraming::Length(0))
        }
        framing => write_framing(out, framing),
    }
    if !interim {
        let upgrade = if head.status == 101 { head.fields.get(FieldId::Upgrade) } else { None };
        let tunnel = framing == BodyFraming::Tunnel;
        let close = !tunnel && (!options.keep_alive || framing == BodyFraming::UntilClose);
        let keep_alive = !tunnel && !close && options.version == Version::Http10;
        write_connection(out, [(close, "close"), (keep_alive, "keep-alive"), (upgrade.is_some(), "Upgrade")]);
        if let Some(protocol) = upgrade {
            write_field(out, b"Upgrade", protocol);
        }
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// The framing that a response body which came as `framing` has towards a client of `version`. HTTP/1.0 knows no chunks;
/// with HTTP/1.1 they make it possible to keep the connection.
pub const fn framing_for(version: Version, framing: BodyFraming) -> BodyFraming {
    match (version, framing) {
        (Version::Http10, BodyFraming::Chunked) => BodyFraming::UntilClose,
        (Version::Http11, BodyFraming::UntilClose) => BodyFraming::Chunked,
        (_, framing) => framing,
    }
}

/// The fields that cross a proxy: without those of one hop and those that a `Connection` field names (RFC 9110
/// §7.6.1). Framing, `Host` and `Expect` are still among them.
pub fn end_to_end<'a>(fields: Fields<'a>) -> impl Iterator<Item = (FieldId, &'a [u8], &'a [u8])> {
    let named = names_fields(fields);
    fields.iter().filter(move |(id, name, _)| !(id.hop_by_hop() || named && is_named(fields, *id, name)))
}

/// True when a `Connection` field has an option that is the name of a field which would cross otherwise. Framing and
/// `Host` cannot be named away.
fn names_fields(fields: Fields<'_>) -> bool {
    let names = |option: &[u8]| !is_word(b"close", option) && !is_ours(FieldId::of(option));
    // What nearly all say costs no list.
    fields.iter().any(|(id, _, value)| {
        id == FieldId::Connection && !is_word(b"keep-alive", value) && list(value).any(names)
    })
}

/// True when a `Connection` field names the field `name`, which is not ours.
fn is_named(fields: Fields<'_>, id: FieldId, name: &[u8]) -> bool {
    !is_ours(id) && connection_options(fields).any(|option| option.eq_ignore_ascii_case(name))
}

fn connection_options(fields: Fields<'_>) -> impl Iterator<Item = &[u8]> {
    fields.iter().filter(|(id, ..)| *id == FieldId::Connection).flat_map(|(_, _, value)| list(value))
}

/// True for fields that the encoder writes itself.
const fn is_ours(id: FieldId) -> bool {
    id.hop_by_hop() || matches!(id, FieldId::Host | FieldId::ContentLength | FieldId::Expect)
}

/// The fields that came, without those that are ours (besides those that `keep` keeps) and those that the edits remove,
/// and then those that the edits add. Neighbouring lines that stay are copied at once, as they came.
fn write_fields(
    out: &mut Vec<u8>,
    fields: Fields<'_>,
    edits: &Edits,
    chunked: bool,
    keep: impl Fn(FieldId) -> bool,
) {
    let edited = !edits.is_empty();
    let named = names_fields(fields);
    let mut run = Span::default();
    for (field, name, value) in fields.spans() {
        let id = field.id;
        let dropped = is_ours(id) && !keep(id)
            || id == FieldId::Trailer && !chunked
            || named && is_named(fields, id, name)
            || edited && edits.removes(name);
        match fields.line(field) {
            _ if dropped => {}
            Some(line) if line.start == run.end => run.end = line.end,
            Some(line) => {
                out.extend_from_slice(fields.text(run));
                run = line;
            }
            None => {
                out.extend_from_slice(fields.text(run));
                run = Span::default();
                write_field(out, name, value);
            }
        }
    }
    out.extend_from_slice(fields.text(run));
    for (name, value) in edits.added() {
        let id = FieldId::of(name);
        if !is_ours(id) && (id != FieldId::Other || is_token(name)) && is_field_value(value) {
            write_field(out, name, value);
        }
    }
}

fn write_framing(out: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::Length(bytes) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyFraming::None | BodyFraming::UntilClose | BodyFraming::Tunnel => {}
    }
}

/// The `Connection` field with those options that are wanted, if any.
fn write_connection(out: &mut Vec<u8>, wants: [(bool, &str); 3]) {
    let mut lead: &[u8] = b"Connection: ";
    for (_, option) in wants.iter().filter(|(wanted, _)| *wanted) {
        out.extend_from_slice(lead);
        out.extend_from_slice(option.as_bytes());
        lead = b", ";
    }
    if lead == b", " {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_status_line(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    debug_assert!((100..1000).contains(&head.status), "a status has three digits");
    debug_assert!(is_field_value(head.reason), "a reason phrase has no control characters");
    if (head.status, head.reason) == (200, b"OK") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
}

/// One field line.
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(is_token(name) && is_field_value(value), "a field cannot break out of its line");
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal digits.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
