//! What must hold for any bytes at the start of a connection. Called by the tests and by the fuzzer.
#![allow(dead_code, reason = "each user has its own part")]

use leno_core::client_hello::Reader;
use leno_core::proxy_protocol::{Ends, V2_BYTES_MAX, Version, encode, parse};

/// A PROXY header: decided within its limit, the same in pieces, and written back the same.
pub fn proxy_protocol(bytes: &[u8]) {
    let verdict = parse(bytes);
    for end in 0..bytes.len().min(200) {
        match parse(&bytes[..end]) {
            Ok(None) => {}
            early => assert_eq!(early, verdict, "{end} bytes say another thing than all of them"),
        }
    }
    let header = match verdict {
        Err(_) => return,
        Ok(None) => {
            assert!(bytes.len() < V2_BYTES_MAX, "undecided after {} bytes", bytes.len());
            return;
        }
        Ok(Some(header)) => header,
    };
    assert!(header.bytes <= bytes.len() && header.bytes <= V2_BYTES_MAX);
    if let Some(client) = header.client {
        for version in [Version::V1, Version::V2] {
            let mut written = Vec::new();
            encode(version, &client, &mut written);
            let again = parse(&written).expect("it is valid").expect("it is whole");
            assert_eq!(again.bytes, written.len());
            // Ends of two families come back as what they are.
            let Ends { source, destination } = again.client.expect("it names the client");
            assert_eq!((source, destination), (client.source, client.destination));
        }
    }
}

/// A TLS client's hello: the same in one piece, byte by byte, and cut anywhere; names are names.
pub fn client_hello(bytes: &[u8]) {
    let verdict = Reader::default().take(bytes);
    let mut reader = Reader::default();
    let mut bytewise = Ok(None);
    for byte in bytes {
        bytewise = reader.take(&[*byte]);
        if bytewise != Ok(None) {
            break;
        }
    }
    assert_eq!(bytewise, verdict);
    let mut reader = Reader::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let cut = match reader.take(first) {
        Ok(None) => reader.take(second),
        early => early,
    };
    assert_eq!(cut, verdict);
    if let Ok(Some(hello)) = verdict {
        if let Some(name) = hello.server_name {
            assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'));
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)),
                "{name}"
            );
        }
    }
}
