//! Chunked bodies against a second, much simpler reader, and there and back again.

use leno_core::head::Fields;
use leno_core::http1::{BodyDecoder, BodyEncoder, BodyFraming, Limits, may_be_trailer};

/// Reads a chunked body that is whole in `data`: its payload, its trailer fields, the bytes behind it.
fn decode(data: &[u8]) -> Option<(Vec<u8>, BodyDecoder, usize)> {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, &Limits::default());
    let mut payload = Vec::new();
    let mut at = 0;
    loop {
        let decoded = decoder.decode(&data[at..]).ok()?;
        payload.extend_from_slice(&data[at..][decoded.payload]);
        at += decoded.consumed;
        if decoded.ended {
            return Some((payload, decoder, data.len() - at));
        }
        if at == data.len() {
            return None;
        }
    }
}

/// What we accept, httparse accepts, and with the same payload and trailers.
pub(crate) fn agrees_with_httparse(data: &[u8]) {
    let Some((payload, decoder, left_over)) = decode(data) else { return };
    let mut at = 0;
    let mut theirs = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&data[at..]) else {
            panic!("httparse refuses the chunk size at {at}");
        };
        at += line;
        let size = usize::try_from(size).expect("the chunk is in memory");
        if size == 0 {
            break;
        }
        theirs.extend_from_slice(&data[at..at + size]);
        at += size;
        assert_eq!(&data[at..at + 2], b"\r\n", "a chunk ends in CRLF");
        at += 2;
    }
    assert_eq!(payload, theirs, "both read the same payload");
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let Ok(httparse::Status::Complete((section, fields))) = httparse::parse_headers(&data[at..], &mut fields)
    else {
        panic!("httparse refuses the trailers");
    };
    assert_eq!(data.len() - at - section, left_over, "both find the same end");
    let ours: Vec<_> = decoder.trailers().iter().map(|(_, name, value)| (name, value)).collect();
    let theirs: Vec<_> = fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(ours, theirs, "both read the same trailers");
}

/// The payload of any accepted body, written in other chunks, is read back, with the trailers that are allowed.
pub(crate) fn comes_back(data: &[u8]) {
    let Some((payload, decoder, _)) = decode(data) else { return };
    for step in [1, 16, 4096] {
        let mut out = Vec::new();
        let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
        encoder.payload(&mut out, b"").expect("an empty piece writes nothing");
        for piece in payload.chunks(step) {
            encoder.payload(&mut out, piece).expect("chunks have no announced length");
        }
        encoder.finish(&mut out, decoder.trailers()).expect("chunks have no announced length");
        let (again, second, left_over) = decode(&out).expect("what we write we accept");
        assert_eq!((&again, left_over), (&payload, 0));
        let kept = |fields: Fields<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
            let allowed = fields.iter().filter(|(id, name, _)| may_be_trailer(*id, name));
            allowed.map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
        };
        assert_eq!(second.trailers().len(), kept(decoder.trailers()).len(), "forbidden trailers are dropped");
        assert_eq!(kept(second.trailers()), kept(decoder.trailers()));
    }

    let mut encoder = BodyEncoder::new(BodyFraming::Length(payload.len() as u64));
    let mut out = Vec::new();
    encoder.payload(&mut out, &payload).expect("as long as announced");
    encoder.payload(&mut out, b"x").expect_err("longer than announced");
    encoder.finish(&mut out, decoder.trailers()).expect("as long as announced");
    assert_eq!(out, payload);
}
