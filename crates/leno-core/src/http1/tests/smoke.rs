//! One message through every part.

use alloc::vec::Vec;

use crate::edit::Edits;
use crate::head::{Fields, RequestIndex, ResponseIndex};
use crate::http1::*;

#[test]
fn a_request_goes_through() {
    let wire = b"POST /a?b=c HTTP/1.1\r\nhost: product:80\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Kept: \t2 \r\n\r\n5;x=y\r\nhello\r\n0\r\nx-sum: 7\r\n\r\nGET";
    let limits = Limits::default();
    let mut index = RequestIndex::default();
    let meta = parse_request(wire, &limits, &mut index).unwrap().unwrap();
    assert_eq!(meta.framing, BodyFraming::Chunked);
    let head = index.view(wire);
    assert_eq!((head.method, head.authority, head.path), (&b"POST"[..], &b"product:80"[..], &b"/a?b=c"[..]));

    let mut out = Vec::new();
    let options = RequestOptions {
        framing: meta.framing,
        keep_alive: true,
        upgrade: false,
        expect_continue: false,
        te_trailers: false,
    };
    let mut edits = Edits::default();
    edits.add(b"x-new", b"3");
    encode_request_head(&mut out, &head, &edits, &options);
    let mut decoder = BodyDecoder::new(meta.framing, &limits);
    let body = &wire[meta.head_bytes..];
    let decoded = decoder.decode(body).unwrap();
    assert!(decoded.ended);
    assert_eq!(&body[decoded.consumed..], b"GET");
    let mut encoder = BodyEncoder::new(meta.framing);
    encoder.payload(&mut out, &body[decoded.payload]).unwrap();
    encoder.finish(&mut out, decoder.trailers()).unwrap();
    assert_eq!(
        core::str::from_utf8(&out).unwrap(),
        "POST /a?b=c HTTP/1.1\r\nHost: product:80\r\nX-Kept: 2\r\nx-new: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"
    );
}

#[test]
fn a_response_goes_through() {
    let wire = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nKeep-Alive: timeout=5\r\n\r\nabc";
    let mut index = ResponseIndex::default();
    let meta = parse_response(wire, &Limits::default(), ResponseFor::default(), &mut index).unwrap().unwrap();
    assert_eq!((meta.framing, meta.keep_alive, meta.interim), (BodyFraming::Length(3), true, false));
    let mut out = Vec::new();
    let options = ResponseOptions {
        framing: meta.framing,
        version: Version::Http11,
        keep_alive: false,
        answers: ResponseFor::default(),
    };
    let framing = encode_response_head(&mut out, &index.view(wire), &Edits::default(), &options);
    let mut encoder = BodyEncoder::new(framing);
    encoder.payload(&mut out, b"abc").unwrap();
    encoder.finish(&mut out, Fields::default()).unwrap();
    assert_eq!(
        core::str::from_utf8(&out).unwrap(),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    );
}
