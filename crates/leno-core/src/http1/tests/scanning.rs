//! The byte level against its definition, and the tables.

use alloc::vec::Vec;
use std::collections::BTreeSet;

use crate::head::FieldId;
use crate::http1::scan::{target_end, token_end, value_end};
use crate::http1::*;

/// Every byte at every place of a word, behind every run of good bytes: what eight bytes at a time say is what one at a
/// time say.
#[test]
fn eight_bytes_at_a_time_see_what_one_sees() {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let target = |b: u8| b.is_ascii_graphic() && b != b'#';
    let value = |b: u8| b == b'\t' || b >= b' ' && b != 0x7f;
    for byte in 0..=255_u8 {
        for neighbour in [b'a', b'z', b'0', b'!', b'~'] {
            for at in 0..20 {
                let mut text = [neighbour; 20];
                text[at] = byte;
                let stop = |member: bool| if member { text.len() } else { at };
                assert_eq!(token_end(&text, 0), stop(token(byte)), "token {byte:#x} at {at}");
                assert_eq!(target_end(&text, 0), stop(target(byte)), "target {byte:#x} at {at}");
                assert_eq!(value_end(&text, 0), stop(value(byte)), "value {byte:#x} at {at}");
            }
        }
    }
}

/// A stop byte is found behind bytes that a borrow could make look like one.
#[test]
fn the_first_of_two_stops_is_found() {
    for first in [0_u8, 9, 10, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0xff] {
        for second in [0_u8, 1, 9, 0x1f, 0x20, 0x21, 0x7e, 0x7f, 0x80] {
            let text = [b'a', first, second, b'a', first, second, b'a', b'a', b'a'];
            let value = text.iter().position(|b| *b < b' ' && *b != b'\t' || *b == 0x7f);
            assert_eq!(value_end(&text, 0), value.unwrap_or(text.len()), "{first:#x} {second:#x}");
            let target = text.iter().position(|b| !b.is_ascii_graphic());
            assert_eq!(target_end(&text, 0), target.unwrap_or(text.len()), "{first:#x} {second:#x}");
        }
    }
}

#[test]
fn a_start_behind_the_end_finds_nothing() {
    assert_eq!(token_end(b"ab", 7), 2);
    assert_eq!(value_end(b"ab", 7), 2);
}

#[test]
fn known_fields_have_an_id_in_any_case() {
    let known = [
        ("Host", FieldId::Host),
        ("DATE", FieldId::Date),
        ("tE", FieldId::Te),
        ("Expect", FieldId::Expect),
        ("Upgrade", FieldId::Upgrade),
        ("Trailer", FieldId::Trailer),
        ("Connection", FieldId::Connection),
        ("Keep-Alive", FieldId::KeepAlive),
        ("X-Request-ID", FieldId::RequestId),
        ("Content-Length", FieldId::ContentLength),
        ("Proxy-Connection", FieldId::ProxyConnection),
        ("Transfer-Encoding", FieldId::TransferEncoding),
        ("Proxy-Authenticate", FieldId::ProxyAuthenticate),
        ("Proxy-Authorization", FieldId::ProxyAuthorization),
    ];
    for (name, id) in known {
        assert_eq!(FieldId::of(name.as_bytes()), id);
        assert_eq!(FieldId::of(name.to_ascii_uppercase().as_bytes()), id);
        let mut other = name.as_bytes().to_vec();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(FieldId::of(&other), FieldId::Other);
    }
    let others: [&[u8]; 6] =
        [b"", b"x", b"Accept", b"User-Agent", b"cache-control", b"x-a-name-that-is-very-long"];
    for other in others {
        assert_eq!(FieldId::of(other), FieldId::Other);
    }
}

#[test]
fn errors_have_words_of_their_own_and_statuses_of_clients() {
    let words: BTreeSet<&str> = ParseError::ALL.iter().map(|error| error.reason()).collect();
    assert_eq!(words.len(), ParseError::ALL.len());
    let statuses: Vec<u16> = ParseError::ALL.iter().map(|error| error.status()).collect();
    assert!(statuses.iter().all(|status| [400, 414, 417, 421, 431, 501, 505].contains(status)));
    assert!(
        words
            .iter()
            .all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    );
}

#[test]
fn content_lengths() {
    for (text, length) in [("0", 0), ("00", 0), ("17", 17), ("9223372036854775807", i64::MAX as u64)] {
        assert_eq!(content_length(text.as_bytes()), Ok(length));
    }
    for text in
        ["", "-1", "+1", " 1", "1 ", "1,1", "1.0", "0x1", "9223372036854775808", "99999999999999999999999"]
    {
        assert_eq!(content_length(text.as_bytes()), Err(ParseError::ContentLengthInvalid), "{text}");
    }
}
