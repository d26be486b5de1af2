//! Parse, encode, parse: the same message comes out, without what belonged to one hop.

use leno_core::edit::Edits;
use leno_core::head::{FieldId, Fields, RequestIndex, ResponseIndex};
use leno_core::http1::{
    BodyFraming, Limits, RequestMeta, RequestOptions, ResponseFor, ResponseMeta, ResponseOptions, Version,
    encode_request_head, encode_response_head, end_to_end, framing_for, parse_request, parse_response,
};

/// A request head.
pub(crate) fn request(data: &[u8]) {
    let mut index = RequestIndex::default();
    let Ok(Some(meta)) = parse_request(data, &Limits::default(), &mut index) else { return };
    // A request without a host is not forwarded before somebody has given it one.
    if index.authority.of(data).is_empty() {
        return;
    }
    let once = encoded_request(data, &index, &meta);
    let mut again = RequestIndex::default();
    let second = parse_request(&once, &ROOMY, &mut again)
        .unwrap_or_else(|error| panic!("what we write we accept: {error}: {}", once.escape_ascii()))
        .expect("it is complete");
    assert_eq!(second.head_bytes, once.len(), "nothing is behind it");
    let (before, after) = (index.view(data), again.view(&once));
    assert_eq!(
        (before.method, before.authority, before.path),
        (after.method, after.authority, after.path),
        "the same request"
    );
    let expected = RequestMeta {
        head_bytes: second.head_bytes,
        version: Version::Http11,
        absolute_form: false,
        // An upgrade keeps the connection by taking it.
        keep_alive: meta.keep_alive || meta.upgrade,
        ..meta
    };
    assert_eq!(second, expected, "the same facts");
    let chunked = meta.framing == BodyFraming::Chunked;
    assert_eq!(crossing(before.fields, chunked), crossing(after.fields, chunked), "the same fields");
    for id in [FieldId::Host, FieldId::ContentLength, FieldId::TransferEncoding, FieldId::Connection] {
        assert!(after.fields.iter().filter(|field| field.0 == id).count() <= 1, "{id:?} is written once");
    }
    assert_eq!(encoded_request(&once, &again, &second), once, "a second pass changes nothing");
}

/// A response head.
pub(crate) fn response(data: &[u8], answers: ResponseFor) {
    let mut index = ResponseIndex::default();
    let Ok(Some(meta)) = parse_response(data, &Limits::default(), answers, &mut index) else { return };
    for version in [Version::Http10, Version::Http11] {
        let (once, framing) = encoded_response(data, &index, &meta, version, answers);
        if once.is_empty() {
            assert!(meta.interim && version == Version::Http10, "only a 1xx to HTTP/1.0 is left out");
            continue;
        }
        assert_eq!(framing, framing_for(version, meta.framing));
        let mut again = ResponseIndex::default();
        let second = parse_response(&once, &ROOMY, answers, &mut again)
            .unwrap_or_else(|error| panic!("what we write we accept: {error}: {}", once.escape_ascii()))
            .expect("it is complete");
        assert_eq!(second.head_bytes, once.len(), "nothing is behind it");
        let (before, after) = (index.view(data), again.view(&once));
        assert_eq!((before.status, before.reason), (after.status, after.reason), "the same response");
        assert_eq!(second.framing, framing, "it is framed as was told");
        assert_eq!(second.interim, meta.interim);
        let chunked = framing == BodyFraming::Chunked;
        assert_eq!(crossing(before.fields, chunked), crossing(after.fields, chunked), "the same fields");
        if framing == BodyFraming::None
            && (answers.head || before.status == 304)
            && before.status >= 200
            && before.status != 204
        {
            let length = |fields: Fields<'_>| fields.get(FieldId::ContentLength).map(<[u8]>::to_vec);
            assert_eq!(length(before.fields), length(after.fields), "the length of what is not sent is kept");
        }
        let (twice, _) = encoded_response(&once, &again, &second, version, answers);
        assert_eq!(
            twice.escape_ascii().to_string(),
            once.escape_ascii().to_string(),
            "a second pass changes nothing"
        );
    }
}

fn encoded_request(data: &[u8], index: &RequestIndex, meta: &RequestMeta) -> Vec<u8> {
    let mut out = Vec::new();
    let options = RequestOptions {
        framing: meta.framing,
        keep_alive: meta.keep_alive,
        upgrade: meta.upgrade,
        expect_continue: meta.expect_continue,
        te_trailers: meta.te_trailers,
    };
    encode_request_head(&mut out, &index.view(data), &Edits::default(), &options);
    out
}

fn encoded_response(
    data: &[u8],
    index: &ResponseIndex,
    meta: &ResponseMeta,
    version: Version,
    answers: ResponseFor,
) -> (Vec<u8>, BodyFraming) {
    let mut out = Vec::new();
    let options = ResponseOptions { framing: meta.framing, version, keep_alive: meta.keep_alive, answers };
    let framing = encode_response_head(&mut out, &index.view(data), &Edits::default(), &options);
    (out, framing)
}

/// The fields that must cross unchanged and in order.
fn crossing(fields: Fields<'_>, chunked: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    end_to_end(fields)
        .filter(|(id, ..)| match id {
            FieldId::Host | FieldId::ContentLength | FieldId::Expect => false,
            FieldId::Trailer => chunked,
            _ => true,
        })
        .map(|(_, name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// The default limits with room for what we write ourselves.
const ROOMY: Limits = Limits {
    head_bytes_max: 80 * 1024,
    fields_max: 110,
    method_bytes_max: 32,
    target_bytes_max: 16 * 1024,
    chunk_line_bytes_max: 256,
    chunk_extension_bytes_max: 16 * 1024,
    trailer_bytes_max: 8 * 1024,
};
