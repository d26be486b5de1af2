//! What is too long for a file of test data.

use alloc::vec::Vec;

use crate::head::{RequestIndex, ResponseIndex};
use crate::http1::scan::Progress;
use crate::http1::*;

fn parse(wire: &[u8], limits: &Limits) -> Result<Option<RequestMeta>, ParseError> {
    parse_request(wire, limits, &mut RequestIndex::default())
}

/// A request whose head has exactly `bytes` bytes.
fn request_of(bytes: usize) -> Vec<u8> {
    let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ".to_vec();
    wire.resize(bytes - 4, b'x');
    wire.extend_from_slice(b"\r\n\r\n");
    wire
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    let limits = Limits::default();
    let max = limits.head_bytes_max;
    let meta = parse(&request_of(max), &limits).unwrap().unwrap();
    assert_eq!(meta.head_bytes, max);
    assert_eq!(parse(&request_of(max + 1), &limits), Err(ParseError::HeadTooLarge));
    // It is known before the head is complete: with one byte less it still could become acceptable.
    let endless = request_of(max + 500);
    assert_eq!(parse(&endless[..max], &limits), Err(ParseError::HeadTooLarge));
    assert_eq!(parse(&endless[..max - 1], &limits), Ok(None));
}

#[test]
fn a_response_head_has_the_same_limit() {
    let mut wire = b"HTTP/1.1 200 OK\r\nX-A: ".to_vec();
    wire.resize(Limits::default().head_bytes_max, b'x');
    let parse = |wire: &[u8]| {
        parse_response(wire, &Limits::default(), ResponseFor::default(), &mut ResponseIndex::default())
    };
    assert_eq!(parse(&wire), Err(ParseError::HeadTooLarge));
    assert_eq!(parse(&wire[..wire.len() - 1]), Ok(None));
}

#[test]
fn ten_thousand_fields_are_refused_at_the_hundred_and_first() {
    let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for _ in 0..10_000 {
        wire.extend_from_slice(b"a:\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    let mut index = RequestIndex::default();
    let verdict = parse_request(&wire, &Limits::default(), &mut index);
    assert_eq!(verdict, Err(ParseError::TooManyFields));
    assert_eq!(index.fields.len(), 100);
    assert_eq!(ParseError::TooManyFields.status(), 431);
}

#[test]
fn a_target_may_be_as_long_as_the_limit_and_no_longer() {
    let limits = Limits::default();
    let of = |bytes: usize| {
        let mut wire = b"GET /".to_vec();
        wire.resize(4 + bytes, b'a');
        wire.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        wire
    };
    assert!(parse(&of(limits.target_bytes_max), &limits).unwrap().is_some());
    let long = of(limits.target_bytes_max + 1);
    assert_eq!(parse(&long, &limits), Err(ParseError::TargetTooLong));
    assert_eq!(parse(&long[..4 + limits.target_bytes_max + 1], &limits), Err(ParseError::TargetTooLong));
    assert_eq!(parse(&long[..4 + limits.target_bytes_max], &limits), Ok(None));
}

/// As a slow client sends it: looking again at every byte would make such a head cost the square of its length.
#[test]
fn an_unfinished_line_is_looked_at_when_it_has_doubled() {
    let mut progress = Progress::default();
    progress.line = 100;
    let line = [b'x'; 60_100];
    let mut looks = 0;
    for end in 100..line.len() {
        if progress.worth_looking(&line[..end], false) {
            progress.fell_short(&line[..end]);
            looks += 1;
        }
    }
    assert!(looks <= 18, "{looks} looks");
    let mut ended = line;
    ended[60_099] = b'\n';
    assert!(progress.worth_looking(&ended, false), "the end of the line is always looked at");
    assert!(progress.worth_looking(&ended, true), "and so is the end of what is allowed");
}

#[test]
fn a_head_in_single_bytes_is_the_same_head() {
    let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for _ in 0..50 {
        wire.extend_from_slice(b"X-Short: 1\r\n");
    }
    wire.extend_from_slice(b"X-Long: ");
    wire.resize(60_000, b'x');
    wire.extend_from_slice(b"\r\n\r\n");
    let (mut parser, mut index) = (RequestParser::default(), RequestIndex::default());
    for end in 0..wire.len() {
        assert_eq!(parser.parse(&wire[..end], &Limits::default(), &mut index), Ok(None));
        assert_eq!(parser.is_inside_head(), end >= 16);
    }
    let meta = parser.parse(&wire, &Limits::default(), &mut index).unwrap().unwrap();
    assert_eq!((meta.head_bytes, index.fields.len()), (wire.len(), 52));
    assert!(!parser.is_inside_head());
    // And the parser is ready for the next one.
    assert!(parser.parse(&wire, &Limits::default(), &mut index).unwrap().is_some());
    assert_eq!(index.fields.len(), 52);
}

#[test]
fn an_error_leaves_the_parser_ready() {
    let (mut parser, mut index) = (RequestParser::default(), RequestIndex::default());
    let limits = Limits::default();
    let wire = b"GET / HTTP/1.1\r\nContent-Length: 1\r\nHost: a\r\nB ad: 1\r\n\r\n";
    assert_eq!(parser.parse(&wire[..40], &limits, &mut index), Ok(None));
    assert_eq!(parser.parse(wire, &limits, &mut index), Err(ParseError::FieldName));
    let meta = parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &limits, &mut index).unwrap().unwrap();
    assert_eq!(meta.framing, BodyFraming::None);
}
