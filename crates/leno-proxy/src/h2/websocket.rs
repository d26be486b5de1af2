//! WebSocket over HTTP/2 (RFC 8441) towards a world that sees HTTP/1's form (RFC 6455): the key that a client of HTTP/1
//! would have sent, and the answer to it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use leno_core::rng::Rng;

/// The protocol's name.
pub(super) const NAME: &[u8] = b"websocket";
/// The fields of HTTP/1's handshake that HTTP/2's does not have.
pub(super) const KEY: &[u8] = b"sec-websocket-key";
pub(super) const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Bytes of a key in base64.
pub(super) const KEY_BYTES: usize = 24;
/// Bytes of an answer in base64.
const ACCEPT_BYTES: usize = 28;

/// A new key. It only has to differ from others: its purpose is that no cache answers it.
pub(super) fn key(rng: &mut Rng) -> [u8; KEY_BYTES] {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
    random[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
    let mut key = [b'='; KEY_BYTES];
    base64(&random, &mut key);
    key
}

/// The answer that proves that `key` was understood (RFC 6455 §4.2.2).
pub(super) fn accept(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let hashed = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    let mut accept = [b'='; ACCEPT_BYTES];
    base64(hashed.as_ref(), &mut accept);
    accept
}

/// Writes `bytes` in base64; what is left of `out` stays as it is.
fn base64(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (group, place) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, digit) in place.iter_mut().enumerate().take(group.len() + 1) {
            *digit = DIGITS[(number >> (18 - 6 * at)) as usize & 63];
        }
    }
}

#[cfg(test)]
mod tests {
    use leno_core::rng::Rng;

    use super::{accept, base64, key};

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_of_every_length() {
        for (text, coded) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            let mut out = vec![b'='; coded.len()];
            base64(text.as_bytes(), &mut out);
            assert_eq!(out, coded.as_bytes());
        }
    }

    #[test]
    fn a_key_has_sixteen_bytes() {
        let key = key(&mut Rng::new(1));
        assert!(key.ends_with(b"==") && !key[..22].contains(&b'='), "{key:?}");
    }
}
