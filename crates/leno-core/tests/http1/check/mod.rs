//! What must hold for any bytes. Fuzz targets and ordinary tests call the same functions, so that a corpus that a
//! fuzzer grew is replayed by `cargo test` without a fuzzer.

// Each user of this module uses a part of it.
#![allow(dead_code, reason = "included by the fuzz targets and by the tests, each of which calls some of it")]

pub(crate) mod body;
pub(crate) mod differential;
pub(crate) mod feed;
pub(crate) mod round_trip;

use feed::{Side, Verdict, in_pieces, in_whole};
use leno_core::http1::{BodyFraming, Limits, ResponseFor};

/// Any bytes, read as a request.
pub(crate) fn request(data: &[u8]) {
    message(Side::Request, data);
    differential::request(data);
    round_trip::request(data);
}

/// Any bytes, read as a response to each kind of request.
pub(crate) fn response(data: &[u8]) {
    for answers in ANSWERS {
        message(Side::Response(answers), data);
        round_trip::response(data, answers);
    }
    differential::response(data);
}

/// Any bytes, read as a body with each framing.
pub(crate) fn body(data: &[u8]) {
    message(Side::Body(BodyFraming::Chunked), data);
    let length = data.len() as u64;
    for bytes in [0, 1, length / 2, length, length + 1] {
        message(Side::Body(BodyFraming::Length(bytes)), data);
    }
    message(Side::Body(BodyFraming::UntilClose), data);
    body::agrees_with_httparse(data);
    body::comes_back(data);
}

/// The kinds of request that a response can answer.
pub(crate) const ANSWERS: [ResponseFor; 4] = [
    ResponseFor { head: false, connect: false, upgrade: false },
    ResponseFor { head: true, connect: false, upgrade: false },
    ResponseFor { head: false, connect: true, upgrade: false },
    ResponseFor { head: false, connect: false, upgrade: true },
];

/// The verdict does not depend on how the bytes are split, and limits are kept.
fn message(side: Side, data: &[u8]) {
    for limits in [Limits::default(), SMALL] {
        let whole = in_whole(side, &limits, data);
        if let Verdict::Accepted(message) = &whole {
            assert!(message.head_bytes <= limits.head_bytes_max, "the head is within its limit");
            assert!(message.fields <= limits.fields_max, "the fields are within their limit");
        }
        // Single bytes for what is short; for the rest steps that do not align with anything.
        let steps: &[usize] = if data.len() <= 400 { &[1, 2, 7] } else { &[3, 61, 509] };
        for step in steps {
            let cuts: Vec<usize> = (0..data.len()).step_by(*step).skip(1).collect();
            let pieces = in_pieces(side, &limits, data, &cuts);
            assert_eq!(pieces, whole, "{side:?} in steps of {step}");
        }
    }
}

/// Limits that are soon reached.
pub(crate) const SMALL: Limits = Limits {
    head_bytes_max: 120,
    fields_max: 3,
    method_bytes_max: 5,
    target_bytes_max: 20,
    chunk_line_bytes_max: 12,
    chunk_extension_bytes_max: 16,
    trailer_bytes_max: 40,
};
