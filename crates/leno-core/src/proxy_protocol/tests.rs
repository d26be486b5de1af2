use alloc::vec::Vec;

use super::*;
use crate::rng::Rng;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A version 2 header with these parts.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, content].concat()
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xd9, 0x03, 0x01, 0xbb];

#[test]
fn lines_of_version_1() {
    let four = Some(ends("192.0.2.1:55555", "198.51.100.7:443"));
    let six = Some(ends("[2001:db8::1]:1", "[2001:db8::2]:65535"));
    let mapped = Some(ends("192.0.2.1:1", "192.0.2.2:2"));
    let good: &[(&str, Option<Ends>)] = &[
        ("PROXY TCP4 192.0.2.1 198.51.100.7 55555 443\r\n", four),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", six),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", mapped),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 0 0\r\n", Some(ends("192.0.2.1:0", "198.51.100.7:0"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 what ever 1\r\n", None),
    ];
    for (line, client) in good {
        let header = Header { bytes: line.len(), client: *client };
        assert_eq!(parse(line.as_bytes()), Ok(Some(header)), "{line:?}");
        let more = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more), Ok(Some(header)), "{line:?} and more");
        for end in 0..line.len() {
            assert_eq!(parse(&line.as_bytes()[..end]), Ok(None), "{line:?} cut at {end}");
        }
    }
}

#[test]
fn lines_that_are_refused() {
    let bad = [
        ("PROXY TCP4 192.0.2.1 198.51.100.7 55555 443\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 55555\r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 55555 443 \r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 55555 443 1\r\n", Invalid::Line),
        ("PROXY TCP4  192.0.2.1 198.51.100.7 55555 443\r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 055 443\r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 +5 443\r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n", Invalid::Line),
        ("PROXY TCP4 192.0.2.256 198.51.100.7 5 443\r\n", Invalid::Line),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", Invalid::Line),
        ("PROXY TCP6 192.0.2.1 198.51.100.7 5 443\r\n", Invalid::Line),
        ("PROXY UDP4 192.0.2.1 198.51.100.7 5 443\r\n", Invalid::Line),
        ("PROXY \r\n", Invalid::Line),
        ("PROXY\tTCP4 192.0.2.1 198.51.100.7 5 443\r\n", Invalid::NoHeader),
        ("proxy TCP4 192.0.2.1 198.51.100.7 5 443\r\n", Invalid::NoHeader),
        ("GET / HTTP/1.1\r\n", Invalid::NoHeader),
        ("P", Invalid::NoHeader),
        ("\r\n\r\nGET", Invalid::NoHeader),
        ("\x16\x03\x01", Invalid::NoHeader),
    ];
    for (line, error) in bad.iter().filter(|(line, _)| *line != "P") {
        assert_eq!(parse(line.as_bytes()), Err(*error), "{line:?}");
    }
    assert_eq!(parse(b"P"), Ok(None));
    let endless = [b"PROXY UNKNOWN ".to_vec(), alloc::vec![b'a'; 200]].concat();
    assert_eq!(parse(&endless), Err(Invalid::LineTooLong));
    assert_eq!(parse(&endless[..V1_BYTES_MAX - 1]), Ok(None));
    assert_eq!(parse(&endless[..V1_BYTES_MAX]), Err(Invalid::LineTooLong));
}

#[test]
fn headers_of_version_2() {
    let six =
        [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 10], &[0xff, 0xff, 10, 0, 0, 1], &[0, 1, 0, 2]]
            .concat();
    let tlvs = [&FOUR[..], &[0x01, 0, 2, b'h', b'2', 0x03, 0, 4, 1, 2, 3, 4]].concat();
    let good: &[(Vec<u8>, Option<Ends>)] = &[
        (v2(0x21, 0x11, &FOUR), Some(ends("192.0.2.1:55555", "198.51.100.7:443"))),
        (v2(0x21, 0x11, &tlvs), Some(ends("192.0.2.1:55555", "198.51.100.7:443"))),
        (v2(0x21, 0x21, &six), Some(ends("[2001:db8::1]:1", "10.0.0.1:2"))),
        (v2(0x21, 0x31, &[7; 216]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, &[9; 30]), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &FOUR), None),
        (v2(0x20, 0x11, &[]), None),
        (v2(0x20, 0x77, &[1, 2, 3]), None),
        (v2(0x21, 0x00, &alloc::vec![0; V2_BYTES_MAX - 16]), None),
    ];
    for (bytes, client) in good {
        let header = Header { bytes: bytes.len(), client: *client };
        assert_eq!(parse(bytes), Ok(Some(header)), "{bytes:?}");
        assert_eq!(parse(&[&bytes[..], b"more"].concat()), Ok(Some(header)));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{bytes:?} cut at {end}");
        }
    }
    let bad = [
        (v2(0x22, 0x11, &FOUR), Invalid::Command),
        (v2(0x11, 0x11, &FOUR), Invalid::Command),
        (v2(0x21, 0x12, &FOUR), Invalid::Family),
        (v2(0x21, 0x41, &FOUR), Invalid::Family),
        (v2(0x21, 0x11, &FOUR[..11]), Invalid::TooShort),
        (v2(0x21, 0x21, &[0; 35]), Invalid::TooShort),
        (v2(0x21, 0x00, &alloc::vec![0; V2_BYTES_MAX - 15]), Invalid::TooLong),
    ];
    for (bytes, error) in bad {
        assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn what_is_written_is_read() {
    let cases = [
        ("192.0.2.1:1", "192.0.2.2:65535", "192.0.2.1:1", "192.0.2.2:65535"),
        ("[2001:db8::1]:1", "[::1]:2", "[2001:db8::1]:1", "[::1]:2"),
        ("[::ffff:192.0.2.1]:1", "10.0.0.1:2", "192.0.2.1:1", "10.0.0.1:2"),
        ("192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.1:1", "[2001:db8::1]:2"),
    ];
    for (source, destination, read_source, read_destination) in cases {
        for version in [Version::V1, Version::V2] {
            let mut bytes = Vec::new();
            encode(version, &ends(source, destination), &mut bytes);
            let client = Some(ends(read_source, read_destination));
            assert_eq!(
                parse(&bytes),
                Ok(Some(Header { bytes: bytes.len(), client })),
                "{source} {version:?}"
            );
            assert!(version == Version::V2 || bytes.len() <= V1_BYTES_MAX);
        }
    }
}

#[test]
fn any_bytes_are_decided_within_the_limits() {
    let mut rng = Rng::new(11);
    for _ in 0..20_000 {
        let mut bytes = if rng.below(2) == 0 {
            v2(0x21, 0x11, &FOUR)
        } else {
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec()
        };
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        match parse(&bytes) {
            Ok(Some(header)) => assert!(header.bytes <= bytes.len()),
            // Then a header of the greatest length is one, or no header.
            Ok(None) => {
                bytes.resize(V2_BYTES_MAX, 0);
                assert_ne!(parse(&bytes), Ok(None), "{bytes:?}");
            }
            Err(error) => assert_eq!(parse(&bytes), Err(error)),
        }
    }
}
