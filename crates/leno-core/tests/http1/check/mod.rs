//! What must hold for any bytes. Fuzz targets and ordinary tests call the same functions, so that a corpus that a
//! fuzzer grew is replayed by `cargo test` without a fuzzer.

#![allow(clippy::panic, reason = "in a test a panic is the report")]
// Each user of this module uses a part of it.
#![allow(dead_code, reason = "included by the fuzz targets and by the tests, each of which calls some of it")]

pub(crate) mod body;
pub(crate) mod differential;
pub(crate) mod feed;
pub(crate) mod round_trip;

use feed::{Side, Verdict, in_pieces, in_whole};
use leno_core::http1::{BodyFraming, Limits, ResponseFor};
use leno_core::rng::Rng;

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
        // Single bytes for what is short; for the rest cuts that follow from the bytes, so that a finding repeats.
        let short: Vec<usize> = if data.len() <= 64 { (1..data.len()).collect() } else { Vec::new() };
        for cuts in [short, cuts_of(data)] {
            let pieces = in_pieces(side, &limits, data, &cuts);
            assert_eq!(pieces, whole, "{side:?} cut at {cuts:?}");
        }
    }
}

/// Up to 16 places in rising order.
fn cuts_of(data: &[u8]) -> Vec<usize> {
    let seed = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = Rng::new(seed);
    let mut cuts: Vec<usize> = (0..rng.below(17)).map(|_| rng.below(data.len() as u64) as usize).collect();
    cuts.sort_unstable();
    cuts
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
