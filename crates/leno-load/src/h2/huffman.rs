//! The code of RFC 7541, appendix B. It is canonical, so the lengths say all of it.

/// Decodes a string onto the end of `into`.
pub(super) fn decode(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), String> {
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let Some(step) = STEPS.get(length) else { return Err("a code of more than 30 bits".into()) };
            if let Some(at) = code.checked_sub(step.first).filter(|at| *at < step.count) {
                let symbol = SYMBOLS[step.start + at as usize];
                into.push(u8::try_from(symbol).map_err(|_| "the code's end within a string")?);
                (code, length) = (0, 0);
            }
        }
    }
    // What is left over are fewer than eight ones.
    if length < 8 && code == (1 << length) - 1 { Ok(()) } else { Err("padding that is none".into()) }
}

/// All codes of one length.
#[derive(Clone, Copy)]
struct Step {
    /// The least of them.
    first: u32,
    count: u32,
    /// Where their symbols begin.
    start: usize,
}

const STEPS: [Step; 31] = steps();
/// By length, then by value.
const SYMBOLS: [u16; 257] = symbols();

const fn steps() -> [Step; 31] {
    let mut steps = [Step { first: 0, count: 0, start: 0 }; 31];
    let (mut length, mut code, mut start) = (1, 0, 0);
    while length <= 30 {
        code <<= 1;
        let (mut symbol, mut count) = (0, 0);
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        steps[length] = Step { first: code, count, start };
        code += count;
        start += count as usize;
        length += 1;
    }
    steps
}

const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut length, mut at) = (1, 0);
    while length <= 30 {
        let mut symbol = 0_u16;
        while (symbol as usize) < LENGTHS.len() {
            if LENGTHS[symbol as usize] == length {
                symbols[at] = symbol;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

/// Bits of the code of each byte, and of the end.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::decode;

    fn text(bytes: &[u8]) -> Result<String, String> {
        let mut text = Vec::new();
        decode(bytes, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn the_examples_of_the_standard() {
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(text(&host).unwrap(), "www.example.com");
        assert_eq!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), "no-cache");
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
            0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(text(&date).unwrap(), "Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn wrong_padding_is_refused() {
        assert!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbe]).is_err());
        assert!(text(&[0xff, 0xff]).is_err());
        assert!(text(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
