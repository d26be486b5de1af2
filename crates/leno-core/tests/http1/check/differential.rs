//! Against httparse, a parser that others wrote and that is laxer than ours: whatever we accept, it accepts, and it
//! reads the same.

use leno_core::head::{Fields, RequestIndex, ResponseIndex};
use leno_core::http1::{Limits, ResponseFor, Version, parse_request, parse_response};

/// What we accept as a request head.
pub(crate) fn request(data: &[u8]) {
    let mut index = RequestIndex::default();
    let Ok(Some(meta)) = parse_request(data, &Limits::default(), &mut index) else { return };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut theirs = httparse::Request::new(&mut fields);
    let status = theirs.parse(data);
    assert_eq!(status, Ok(httparse::Status::Complete(meta.head_bytes)), "both find the same end");
    let ours = index.view(data);
    assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method));
    assert_eq!(theirs.version, Some(minor(meta.version)));
    let target = theirs.path.expect("it is complete").as_bytes();
    if meta.connect {
        assert_eq!((target, ours.path), (ours.authority, &b""[..]));
    } else if meta.absolute_form {
        let tail = if target.ends_with(ours.authority) && ours.path == b"/" { &b""[..] } else { ours.path };
        let expected = [b"http://", ours.authority, tail].concat();
        assert!(target.eq_ignore_ascii_case(&expected), "both read the same target");
        assert!(target.ends_with(&[ours.authority, tail].concat()), "in the same case");
    } else {
        assert_eq!(target, ours.path);
        let host = theirs.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
        assert_eq!(host.map_or(&b""[..], |field| field.value), ours.authority);
    }
    same_fields(ours.fields, theirs.headers);
}

/// What we accept as a response head.
pub(crate) fn response(data: &[u8]) {
    let mut index = ResponseIndex::default();
    let answers = ResponseFor { upgrade: true, ..ResponseFor::default() };
    let Ok(Some(meta)) = parse_response(data, &Limits::default(), answers, &mut index) else { return };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut theirs = httparse::Response::new(&mut fields);
    let status = theirs.parse(data);
    assert_eq!(status, Ok(httparse::Status::Complete(meta.head_bytes)), "both find the same end");
    let ours = index.view(data);
    assert_eq!(theirs.code, Some(ours.status));
    assert_eq!(theirs.version, Some(minor(meta.version)));
    // httparse gives an empty reason out instead of one with obs-text.
    if ours.reason.is_ascii() {
        assert_eq!(theirs.reason.map(str::as_bytes), Some(ours.reason));
    }
    same_fields(ours.fields, theirs.headers);
}

fn same_fields(ours: Fields<'_>, theirs: &[httparse::Header<'_>]) {
    let ours: Vec<_> = ours.iter().map(|(_, name, value)| (name, value)).collect();
    let theirs: Vec<_> = theirs.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(ours, theirs, "both read the same fields");
}

const fn minor(version: Version) -> u8 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    }
}

/// As many as our default limit lets pass.
const FIELDS_MAX: usize = 100;
