//! The mesh transport against what a hostile peer can send, and against what a fuzzer has found so far.

#[path = "mux/check.rs"]
mod check;

use std::fs;
use std::path::Path;

use check::{check, settings};
use leno_core::edit::Edits;
use leno_core::head::{Field, FieldId, Fields, RequestHead, ResponseHead, Span};
use leno_core::mux::{AppSaw, Body, Code, HeadIndex, Limits, Meta, Mux, Role};
use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

#[test]
fn what_the_fuzzer_found_still_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs = 0;
    for folder in ["corpus/mux", "found/mux"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            check(&fs::read(entry.expect("a folder can be listed").path()).expect("a file can be read"));
            inputs += 1;
        }
    }
    assert!(inputs >= 10, "there are {inputs} inputs");
}

#[test]
fn valid_conversations_with_flipped_bits_never_panic() {
    let mut rng = Rng::new(11);
    for conversation in [dialer_says(), acceptor_says()] {
        for round in 0..1_500 {
            let mut input = conversation.clone();
            for _ in 0..round % 5 {
                let at = 2 + rng.below(input.len() as u64 - 2) as usize;
                input[at] ^= 1 << rng.below(8);
            }
            input[1] = rng.next_u64() as u8;
            check(&input);
        }
    }
}

#[test]
fn made_up_frames_never_panic() {
    let mut rng = Rng::new(12);
    for _ in 0..3_000 {
        let mut input = vec![2 + rng.below(2) as u8, rng.next_u64() as u8];
        let mut next = 1;
        for _ in 0..rng.below(30) {
            let kind = rng.below(13) as u8 | u8::from(rng.one_in(3)) << 7;
            let payload = match kind & 0x7f {
                2 => head(&mut rng),
                6 => vec![rng.below(12) as u8, rng.below(2) as u8],
                7 | 10 => (rng.below(40_000) as u32).to_be_bytes().to_vec(),
                8 | 9 => rng.below(3).to_be_bytes().to_vec(),
                _ => (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect(),
            };
            let stream = if kind & 0x7f == 2 && rng.below(4) > 0 {
                next += 2;
                next - 2
            } else {
                rng.below(12) as u8
            };
            input.extend([kind, stream, payload.len() as u8]);
            input.extend(payload);
        }
        check(&input);
    }
}

/// A head payload, often valid.
fn head(rng: &mut Rng) -> Vec<u8> {
    let texts: [&[u8]; 14] = [
        b"GET",
        b"POST",
        b"a",
        b"a:80",
        b"/",
        b"/x?y",
        b"x-name",
        b"value",
        b"content-length",
        b"5",
        b"host",
        b"connection",
        b"a\r\nb",
        b"",
    ];
    let mut bytes = if rng.one_in(2) { vec![1, 0] } else { vec![1, 12, rng.below(8) as u8, 0] };
    if rng.one_in(3) {
        bytes = vec![2, 0, 200, 1];
    }
    let mut put = |text: &[u8]| {
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text);
    };
    if rng.below(4) > 0 {
        [&b"GET"[..], b"a", b"/"].into_iter().for_each(&mut put);
    }
    for _ in 0..2 * rng.below(3) {
        put(texts[rng.below(14) as usize]);
    }
    bytes
}

fn request_fields(buf: &mut Vec<u8>, fields: &[(&str, &str)]) -> Vec<Field> {
    let mut put = |text: &str| {
        let start = buf.len();
        buf.extend_from_slice(text.as_bytes());
        Span::new(start, buf.len())
    };
    let field = |(name, value): &(&str, &str)| Field {
        name: put(name),
        value: put(value),
        id: FieldId::of(name.as_bytes()),
    };
    fields.iter().map(field).collect()
}

/// An input: what a dialer says in a busy life.
fn dialer_says() -> Vec<u8> {
    let mut dialer = Mux::new(Role::Dialer, Limits::default(), Instant::ZERO);
    let mut buf = Vec::new();
    let fields =
        request_fields(&mut buf, &[("Accept", "*/*"), ("X-A", "some text"), ("content-length", "40")]);
    let head = |path| RequestHead {
        method: b"POST",
        authority: b"app:80",
        path,
        fields: Fields::new(&buf, &fields),
    };
    for round in 0..8 {
        let meta = Meta {
            body: if round % 2 == 0 { Body::Length(40) } else { Body::Unknown },
            deadline: Some(Duration::from_secs(1)),
            attempt: 1,
            route: b"default",
            request_id: b"0123",
            generation: 3,
            upgrade: if round == 3 { b"websocket" } else { b"" },
            ..Meta::default()
        };
        let stream = dialer.open(&meta, &head(b"/a/b?c"), &Edits::new(), false).expect("opens");
        dialer.send_data(stream, &[b'x'; 40], round % 2 == 0).expect("sends");
        match round {
            5 => dialer.send_trailers(stream, &Fields::new(&buf, &fields)).expect("ends"),
            7 => dialer.reset(stream, Code::Cancel, AppSaw::Maybe),
            _ => {}
        }
    }
    input(0, &dialer)
}

/// An input: what an acceptor says to eight requests.
fn acceptor_says() -> Vec<u8> {
    let mut acceptor = Mux::new(Role::Acceptor, Limits::default(), Instant::ZERO);
    let mut dialer = Mux::new(Role::Dialer, Limits::default(), Instant::ZERO);
    let request = RequestHead { method: b"GET", authority: b"a", path: b"/", fields: Fields::default() };
    for _ in 0..8 {
        dialer.open(&Meta::default(), &request, &Edits::new(), false).expect("opens");
    }
    let mut index = HeadIndex::default();
    let mut at = 0;
    let mut round = 0;
    while let (used, Some(event)) =
        acceptor.receive(Instant::ZERO, &dialer.output()[at..], &mut index).expect("an honest peer")
    {
        at += used;
        let leno_core::mux::Event::Request { stream, .. } = event else { continue };
        let mut buf = Vec::new();
        let fields = request_fields(&mut buf, &[("server", "app"), ("content-type", "text/plain")]);
        let head = |status| ResponseHead { status, reason: b"Fine", fields: Fields::new(&buf, &fields) };
        round += 1;
        if round == 2 {
            acceptor.respond(stream, &Meta::default(), &head(103), &Edits::new(), false).expect("interim");
        }
        if round == 4 {
            acceptor.reset(stream, Code::AppConnectFailed, AppSaw::Nothing);
            continue;
        }
        acceptor.respond(stream, &Meta::default(), &head(200), &Edits::new(), false).expect("responds");
        acceptor.send_data(stream, b"hello", round % 3 == 0).expect("sends");
        if round == 5 {
            acceptor.send_trailers(stream, &Fields::new(&buf, &fields)).expect("ends");
        }
    }
    acceptor.drain(Instant::ZERO);
    input(1, &acceptor)
}

/// The form of [`check`]: the end under test, the size of the pieces, what the other end says after its SETTINGS.
fn input(end: u8, from: &Mux) -> Vec<u8> {
    let mut input = vec![end, 7];
    input.extend_from_slice(from.output().strip_prefix(&settings()[..]).expect("SETTINGS come first"));
    input
}
