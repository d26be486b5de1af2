//! Bodies: limits, ends, and reuse.

use alloc::vec::Vec;

use crate::head::{Field, FieldId, Fields, Span};
use crate::http1::*;

fn chunked() -> BodyDecoder {
    BodyDecoder::new(BodyFraming::Chunked, &Limits::default())
}

/// All payload and what came after it.
fn decode_all(decoder: &mut BodyDecoder, wire: &[u8]) -> Result<(Vec<u8>, usize), ParseError> {
    let mut payload = Vec::new();
    let mut at = 0;
    loop {
        let decoded = decoder.decode(&wire[at..])?;
        payload.extend_from_slice(&wire[at..][decoded.payload]);
        at += decoded.consumed;
        if decoded.ended || at == wire.len() {
            return Ok((payload, at));
        }
    }
}

#[test]
fn a_length_ends_where_it_says() {
    let mut decoder = BodyDecoder::new(BodyFraming::Length(5), &Limits::default());
    assert_eq!(decoder.decode(b"hel"), Ok(Decoded { consumed: 3, payload: 0..3, ended: false }));
    assert_eq!(decoder.decode(b""), Ok(Decoded { consumed: 0, payload: 0..0, ended: false }));
    assert_eq!(decoder.decode(b"loGET"), Ok(Decoded { consumed: 2, payload: 0..2, ended: true }));
    assert_eq!(decoder.decode(b"GET"), Ok(Decoded { consumed: 0, payload: 0..0, ended: true }));
    assert_eq!(decoder.end_of_input(), Ok(()));
}

#[test]
fn a_body_without_a_byte_ends_at_once() {
    for framing in [BodyFraming::None, BodyFraming::Length(0)] {
        let mut decoder = BodyDecoder::new(framing, &Limits::default());
        assert!(decoder.is_ended());
        assert_eq!(decoder.decode(b"GET"), Ok(Decoded { consumed: 0, payload: 0..0, ended: true }));
        assert_eq!(decoder.end_of_input(), Ok(()));
    }
}

#[test]
fn an_early_end_is_an_error_besides_where_it_is_the_end() {
    for (framing, end) in [
        (BodyFraming::Length(9), Err(ParseError::Truncated)),
        (BodyFraming::Chunked, Err(ParseError::Truncated)),
        (BodyFraming::UntilClose, Ok(())),
        (BodyFraming::Tunnel, Ok(())),
    ] {
        let mut decoder = BodyDecoder::new(framing, &Limits::default());
        let decoded = decoder.decode(b"5\r\nhello").unwrap();
        assert!(!decoded.ended && !decoded.payload.is_empty());
        assert_eq!(decoder.end_of_input(), end);
        assert_eq!(decoder.end_of_input(), end);
        assert_eq!(decoder.is_ended(), end.is_ok());
    }
    let mut decoder = chunked();
    decoder.decode(b"0\r\nX-A: 1\r\n").unwrap();
    assert_eq!(decoder.end_of_input(), Err(ParseError::Truncated));
}

#[test]
fn payload_before_an_error_is_given_out_and_the_error_stays() {
    let mut decoder = chunked();
    let wire = b"5\r\nhelloX";
    let decoded = decoder.decode(wire).unwrap();
    assert_eq!((&wire[decoded.payload], decoded.consumed), (&b"hello"[..], 8));
    assert_eq!(decoder.decode(b"X"), Err(ParseError::ChunkEnd));
    assert_eq!(decoder.decode(b"\r\n0\r\n\r\n"), Err(ParseError::ChunkEnd));
    assert_eq!(decoder.end_of_input(), Err(ParseError::ChunkEnd));
}

#[test]
fn extensions_are_limited_for_all_chunks_together() {
    let mut wire = Vec::new();
    for _ in 0..100 {
        wire.extend_from_slice(b"1;");
        wire.resize(wire.len() + 200, b'e');
        wire.extend_from_slice(b"\r\nx\r\n");
    }
    assert_eq!(decode_all(&mut chunked(), &wire), Err(ParseError::ChunkExtensionsTooLong));
    // Half of it is fine, and the next body has the whole allowance again.
    let mut decoder = chunked();
    for _ in 0..3 {
        assert!(decode_all(&mut decoder, &wire[..wire.len() / 2]).is_ok());
        decoder.reset(BodyFraming::Chunked);
    }
}

#[test]
fn a_size_line_may_be_as_long_as_the_limit() {
    let of = |bytes: usize| {
        let mut wire = b"1;".to_vec();
        wire.resize(bytes - 2, b'e');
        wire.extend_from_slice(b"\r\nx\r\n0\r\n\r\n");
        wire
    };
    let max = Limits::default().chunk_line_bytes_max;
    assert_eq!(decode_all(&mut chunked(), &of(max)).unwrap().0, b"x");
    assert_eq!(decode_all(&mut chunked(), &of(max + 1)), Err(ParseError::ChunkLineTooLong));
}

#[test]
fn a_trailer_section_may_be_as_long_as_the_limit() {
    let of = |bytes: usize| {
        let mut wire = b"0\r\nX-A: ".to_vec();
        wire.resize(3 + bytes - 4, b'x');
        wire.extend_from_slice(b"\r\n\r\n");
        wire
    };
    let max = Limits::default().trailer_bytes_max;
    for step in [1, 7, 100_000] {
        let feed = |wire: &[u8]| {
            let mut decoder = chunked();
            wire.chunks(step).try_for_each(|piece| decode_all(&mut decoder, piece).map(|_| ()))?;
            Ok((decoder.is_ended(), decoder.trailers().len()))
        };
        assert_eq!(feed(&of(max)), Ok((true, 1)));
        assert_eq!(feed(&of(max + 1)), Err(ParseError::TrailersTooLarge));
        // Pipelined bytes do not count.
        let mut behind = of(20);
        behind.resize(40_000, b'G');
        assert_eq!(decode_all(&mut chunked(), &behind).unwrap().1, 23);
    }
}

#[test]
fn a_decoder_is_used_again() {
    let mut decoder = chunked();
    assert_eq!(decode_all(&mut decoder, b"0;e\r\nX-A: 1\r\n\r\n").unwrap(), (Vec::new(), 15));
    assert_eq!(decoder.trailers().get_named(b"x-a"), Some(&b"1"[..]));
    decoder.reset(BodyFraming::Chunked);
    assert!(decoder.trailers().is_empty());
    assert_eq!(decode_all(&mut decoder, b"1\r\nx\r\n0\r\nX-B: 2\r\n\r\n").unwrap().0, b"x");
    assert_eq!(decoder.trailers().len(), 1);
    assert_eq!(decoder.trailers().get_named(b"x-b"), Some(&b"2"[..]));
    decoder.reset(BodyFraming::Length(1));
    assert!(!decoder.is_ended());
}

#[test]
fn chunk_headers_are_hexadecimal() {
    for (bytes, text) in
        [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (65_536, "10000"), (u64::MAX, "ffffffffffffffff")]
    {
        let mut out = Vec::new();
        encode_chunk_header(&mut out, bytes);
        assert_eq!(out, [text.as_bytes(), b"\r\n"].concat());
    }
}

#[test]
fn no_more_and_no_less_is_written_than_announced() {
    let mut out = Vec::new();
    let mut encoder = BodyEncoder::new(BodyFraming::Length(5));
    encoder.payload(&mut out, b"hel").unwrap();
    assert_eq!(encoder.payload(&mut out, b"loo"), Err(BodyLengthError::TooLong));
    assert_eq!(encoder.finish(&mut out, Fields::default()), Err(BodyLengthError::TooShort(2)));
    encoder.payload(&mut out, b"lo").unwrap();
    assert_eq!(encoder.finish(&mut out, Fields::default()), Ok(()));
    assert_eq!(out, b"hello");
    assert_eq!(BodyEncoder::new(BodyFraming::None).payload(&mut out, b"x"), Err(BodyLengthError::TooLong));
    assert_eq!(out, b"hello");
}

#[test]
fn forbidden_trailers_are_left_out() {
    let buf = b"x-sum:1 content-length:2 Set-Cookie:3 HOST:4 grpc-status:0 Authorization:5 ";
    let mut fields = Vec::new();
    let mut start = 0;
    while start < buf.len() {
        let colon = start + memchr::memchr(b':', &buf[start..]).unwrap();
        let end = start + memchr::memchr(b' ', &buf[start..]).unwrap();
        let id = FieldId::of(&buf[start..colon]);
        fields.push(Field { name: Span::new(start, colon), value: Span::new(colon + 1, end), id });
        start = end + 1;
    }
    let mut out = Vec::new();
    encode_last_chunk(&mut out, Fields::new(buf, &fields));
    assert_eq!(out, b"0\r\nx-sum: 1\r\ngrpc-status: 0\r\n\r\n");
}
