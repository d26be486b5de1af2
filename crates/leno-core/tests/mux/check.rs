//! What must hold whatever a peer of the mesh transport sends: used by the tests on files and by the fuzzer.
//!
//! The first byte of an input chooses the end under test and the form, the second the size of the pieces it comes
//! in. The form `frames` gives the rest as `kind, stream and END flag, length, payload` with one byte each, and
//! writes proper frame headers, so that a mutation breaks one frame and not the boundaries of all.

use leno_core::edit::Edits;
use leno_core::head::{Fields, RequestHead, RequestIndex, ResponseHead, ResponseIndex};
use leno_core::http1::{self, BodyFraming, RequestOptions, ResponseFor, ResponseOptions, Version};
use leno_core::mux::{AppSaw, Body, Code, Event, HeadIndex, Kind, Limits, Meta, Mux, Role, StreamId};
use leno_core::time::Instant;

/// Feeds an input in whole and in pieces: both must be understood the same, nothing may panic, memory stays bounded,
/// and every head that is handed out must be the same message to a strict HTTP/1 parser.
pub(crate) fn check(data: &[u8]) {
    let [first, second, rest @ ..] = data else { return };
    let role = if first & 1 == 0 { Role::Acceptor } else { Role::Dialer };
    let mut bytes = settings();
    if first & 2 == 0 {
        bytes.extend_from_slice(rest);
    } else {
        frames(rest, &mut bytes);
    }
    let whole = digest(role, &bytes, bytes.len());
    let pieces = digest(role, &bytes, usize::from(*second) % 40 + 1);
    assert_eq!(whole, pieces, "the same bytes in other pieces");
}

/// What an end with default limits says first.
pub(crate) fn settings() -> Vec<u8> {
    Mux::new(Role::Dialer, Limits::default(), Instant::ZERO).output().to_vec()
}

fn frames(mut rest: &[u8], out: &mut Vec<u8>) {
    while let [kind, stream, length, more @ ..] = rest {
        let length = usize::from(*length).min(more.len());
        let (payload, later) = more.split_at(length);
        // The top bits are those of the real header; a few small stream numbers are used again and again.
        out.extend_from_slice(&[*kind, 0, 0, length as u8, 0, 0, 0, stream & 31]);
        out.extend_from_slice(payload);
        rest = later;
    }
}

/// Everything that an end made of the bytes, as text.
fn digest(role: Role, bytes: &[u8], piece: usize) -> Vec<String> {
    let mut mux = Mux::new(role, Limits::default(), Instant::ZERO);
    if role == Role::Dialer {
        for _ in 0..8 {
            let head = RequestHead { method: b"GET", authority: b"a", path: b"/", fields: Fields::default() };
            mux.open(&Meta::default(), &head, &Edits::new(), false).expect("a dialer opens streams");
        }
    }
    let mut index = HeadIndex::default();
    let mut seen = Seen::default();
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = (end + piece).min(bytes.len());
        loop {
            match mux.receive(Instant::ZERO, &bytes[start..end], &mut index) {
                Err(error) => {
                    seen.all.push(format!("{error:?}"));
                    while let Some((stream, app_saw)) = mux.next_lost() {
                        seen.all.push(format!("lost {} {app_saw:?}", stream.number()));
                    }
                    assert_eq!(mux.streams_open(), 0);
                    return seen.all;
                }
                Ok((used, event)) => {
                    start += used;
                    let Some(event) = event else { break };
                    seen.note(&mut mux, &event, &index);
                    mux.check_invariants();
                }
            }
        }
        assert!(end - start <= mux.limits().read_buffer_bytes(), "more is left over than promised");
    }
    seen.all
}

#[derive(Default)]
struct Seen {
    all: Vec<String>,
    /// The stream of the last data, whose pieces are joined.
    data: Option<StreamId>,
}

impl Seen {
    fn note(&mut self, mux: &mut Mux, event: &Event<'_>, index: &HeadIndex) {
        if let Event::Data { stream, data, end } = event {
            if self.data != Some(*stream) {
                self.all.push(format!("data {} ", stream.number()));
            }
            self.data = if *end { None } else { Some(*stream) };
            if let Some(last) = self.all.last_mut() {
                *last += &data.escape_ascii().to_string();
                *last += if *end { " end" } else { "" };
            }
            mux.release(*stream, data.len());
            return;
        }
        self.data = None;
        self.all.push(match event {
            Event::Request { stream, meta, payload, end } => {
                let head = index.request.view(payload);
                same_request(meta, &head);
                answer(mux, *stream);
                format!("request {} {meta:?} {end} {}", stream.number(), lines(head.path, head.fields))
            }
            Event::Response { stream, meta, payload, end } => {
                let head = index.response.view(payload);
                same_response(meta, &head);
                format!("response {} {meta:?} {end} {}", stream.number(), lines(head.reason, head.fields))
            }
            Event::Trailers { stream, payload } => {
                format!("trailers {} {}", stream.number(), lines(b"", Fields::new(payload, &index.trailers)))
            }
            other => format!("{other:?}"),
        });
    }
}

/// Some streams are answered, some cut, so that later frames meet every state.
fn answer(mux: &mut Mux, stream: StreamId) {
    let head = ResponseHead { status: 200, reason: b"", fields: Fields::default() };
    match stream.number() % 8 {
        1 => {
            mux.respond(stream, &Meta::default(), &head, &Edits::new(), false)
                .expect("a new stream is answered");
            mux.send_data(stream, &[0; 100], true).expect("it takes data");
        }
        3 => mux.respond(stream, &Meta::default(), &head, &Edits::new(), false).expect("it is answered"),
        5 => mux.reset(stream, Code::Overload, AppSaw::Nothing),
        _ => {}
    }
}

/// The application must read exactly the message that was let in.
fn same_request(meta: &Meta<'_>, head: &RequestHead<'_>) {
    // Without an authority there is no HTTP/1.1 request; the shell answers it.
    if meta.kind == Kind::Tcp || head.authority.is_empty() {
        return;
    }
    let framing = match meta.body {
        _ if !meta.upgrade.is_empty() => BodyFraming::None,
        body => framing(body),
    };
    let connect = head.method == b"CONNECT";
    let upgrade = !meta.upgrade.is_empty();
    if connect && framing != BodyFraming::None {
        return;
    }
    let options =
        RequestOptions { framing, keep_alive: true, upgrade, expect_continue: false, te_trailers: false };
    let mut bytes = Vec::new();
    http1::encode_request_head(&mut bytes, head, &Edits::new(), &options);
    let mut index = RequestIndex::default();
    match http1::parse_request(&bytes, &roomy(), &mut index) {
        Ok(Some(read)) => {
            let view = index.view(&bytes);
            assert_eq!(read.head_bytes, bytes.len(), "the head ends elsewhere");
            assert_eq!((view.method, view.path), (head.method, head.path));
            assert_eq!(view.authority, head.authority);
            assert_eq!(read.framing, framing, "the body ends elsewhere");
            same_fields(head.fields, view.fields);
        }
        // A CONNECT needs a port, which only this parser asks for.
        Err(_) if connect => {}
        other => unreadable(&format!("{other:?}"), &bytes),
    }
}

fn same_response(meta: &Meta<'_>, head: &ResponseHead<'_>) {
    if head.status == 101 {
        return;
    }
    let answers = ResponseFor::request(b"GET", false);
    let options =
        ResponseOptions { framing: framing(meta.body), version: Version::Http11, keep_alive: true, answers };
    let mut bytes = Vec::new();
    let framing = http1::encode_response_head(&mut bytes, head, &Edits::new(), &options);
    let mut index = ResponseIndex::default();
    match http1::parse_response(&bytes, &roomy(), answers, &mut index) {
        Ok(Some(read)) => {
            let view = index.view(&bytes);
            assert_eq!((read.head_bytes, view.status), (bytes.len(), head.status));
            let expected = match framing {
                BodyFraming::None if read.framing == BodyFraming::Length(0) => BodyFraming::Length(0),
                other => other,
            };
            assert_eq!(read.framing, expected, "the body ends elsewhere");
            same_fields(head.fields, view.fields);
        }
        other => unreadable(&format!("{other:?}"), &bytes),
    }
}

/// Fields that HTTP/1 writes by itself do not count.
fn same_fields(ours: Fields<'_>, theirs: Fields<'_>) {
    let own = |name: &[u8]| {
        [&b"host"[..], b"connection", b"upgrade", b"expect", b"content-length", b"transfer-encoding"]
            .iter()
            .any(|other| other.eq_ignore_ascii_case(name))
    };
    let ours = ours.iter().filter(|(_, name, _)| !own(name));
    assert!(ours.eq(theirs.iter().filter(|(_, name, _)| !own(name))), "other fields");
}

#[allow(clippy::panic, reason = "in a check a panic is the report")]
fn unreadable(verdict: &str, bytes: &[u8]) -> ! {
    panic!("{verdict}: {}", bytes.escape_ascii())
}

fn roomy() -> http1::Limits {
    http1::Limits {
        head_bytes_max: 1 << 20,
        fields_max: 10_000,
        method_bytes_max: 1 << 20,
        target_bytes_max: 1 << 20,
        ..http1::Limits::default()
    }
}

const fn framing(body: Body) -> BodyFraming {
    match body {
        Body::None => BodyFraming::None,
        Body::Length(bytes) => BodyFraming::Length(bytes),
        Body::Unknown => BodyFraming::Chunked,
    }
}

fn lines(start: &[u8], fields: Fields<'_>) -> String {
    let mut text = start.escape_ascii().to_string();
    for (_, name, value) in fields.iter() {
        text += &format!(" | {}: {}", name.escape_ascii(), value.escape_ascii());
    }
    text
}
