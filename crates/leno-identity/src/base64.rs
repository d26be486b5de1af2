//! Base64 (RFC 4648). With the URL alphabet and no padding (§5) it is how pins and secrets stand in a token: strict, so
//! that one value has one text; padding, other alphabets and stray trailing bits are refused. With the standard
//! alphabet (§4) it is only written, for PEM files; rustls reads those.

pub(crate) fn encode(bytes: &[u8]) -> String {
    encode_with(bytes, URL_ALPHABET)
}

/// One block of a PEM file (RFC 7468 §2).
pub(crate) fn pem_block(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(PEM_LINE_BYTES) {
        text.push_str(&encode_with(line, STANDARD_ALPHABET));
        for _ in 0..(3 - line.len() % 3) % 3 {
            text.push('=');
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// 64 characters a line.
const PEM_LINE_BYTES: usize = 48;

fn encode_with(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        // n bytes need n + 1 digits of 6 bits
        for digit in 0..=group.len() {
            text.push(char::from(alphabet[((bits >> (18 - 6 * digit)) & 63) as usize]));
        }
    }
    text
}

/// `None` for anything that [`encode`] would not have written.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let digit = match group.get(at) {
                Some(byte) => URL_ALPHABET.iter().position(|known| known == byte)? as u32,
                None => 0,
            };
            bits = (bits << 6) | digit;
        }
        let kept = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        let decoded = bits.to_be_bytes();
        if decoded[1 + kept..].iter().any(|left_over| *left_over != 0) {
            return None;
        }
        bytes.extend_from_slice(&decoded[1..=kept]);
    }
    Some(bytes)
}

const STANDARD_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648 §10, without their padding.
    #[test]
    fn reads_and_writes_the_rfcs_vectors() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn refuses_what_it_would_not_have_written() {
        for text in ["Z", "Zg==", "Zh", "Zm9=", "Zm+v", "Zm/v", "Zm9vY", "Zm 9"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
