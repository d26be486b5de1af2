//! As much of HPACK (RFC 7541) as the cases need: blocks of literals without the dynamic table, and reading a status.

/// A field as a literal without indexing, its name and value spelt out and not compressed.
pub(crate) fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x00];
    string(&mut bytes, name.as_bytes());
    string(&mut bytes, value);
    bytes
}

/// The same, entered into the dynamic table.
pub(crate) fn entered(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = literal(name, value);
    bytes[0] = 0x40;
    bytes
}

/// A header block of literals.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value.as_bytes())).collect()
}

/// What an integer is on the wire: `prefix` bits of the first byte, whose other bits are `first` (section 5.1).
pub(crate) fn integer(first: u8, prefix: u32, mut value: usize) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    value -= most;
    while value >= 128 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A dynamic table size update (section 6.3).
pub(crate) fn table_size(bytes: usize) -> Vec<u8> {
    integer(0x20, 5, bytes)
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(integer(0x00, 7, text.len()));
    bytes.extend(text);
}

/// The status of a response's block, which comes first in it; none when it stands in the dynamic table.
pub(crate) fn status(block: &[u8]) -> Option<u16> {
    /// Statuses in the static table from index 8 on (appendix A).
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Size updates may stand before it.
    let mut block = block;
    while let Some((first, rest)) = block.split_first()
        && first & 0xe0 == 0x20
    {
        let mut rest = rest;
        if first & 0x1f == 0x1f {
            let more = rest.iter().position(|byte| byte & 0x80 == 0)?;
            rest = &rest[more + 1..];
        }
        block = rest;
    }
    let (&first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        return STATIC.get(usize::from(first & 0x7f).checked_sub(8)?).copied();
    }
    let name = if first & 0x40 != 0 { first & 0x3f } else { first & 0x0f };
    if !(8..=14).contains(&name) {
        return None;
    }
    let (&length, value) = rest.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    digits(value)?.parse().ok()
}

/// Three digits of Huffman's code: 0, 1 and 2 have five bits, the others six (appendix B).
fn digits(coded: &[u8]) -> Option<String> {
    let bits: Vec<u8> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0_u8, |number, bit| number << 1 | bit);
    let (mut text, mut at) = (String::new(), 0);
    while text.len() < 3 {
        let five = number(bits.get(at..at + 5)?);
        let (digit, used) = match five {
            0..=2 => (five, 5),
            _ => (number(bits.get(at..at + 6)?).checked_sub(0x19 - 3)?, 6),
        };
        text.push(char::from_digit(u32::from(digit), 10)?);
        at += used;
    }
    Some(text)
}

#[test]
fn a_status_is_read_in_every_form() {
    assert_eq!(status(&[0x88]), Some(200));
    assert_eq!(status(&[0x8d]), Some(404));
    // After a size update of two bytes.
    assert_eq!(status(&[0x3f, 0x01, 0x88]), Some(200));
    assert_eq!(status(b"\x08\x03503"), Some(503));
    // "302", RFC 7541, section C.6.1, and "307", section C.6.2.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
    assert_eq!(status(&[0xbe]), None);
}

#[test]
fn integers_are_those_of_the_specification() {
    // RFC 7541, sections C.1.1 and C.1.2.
    assert_eq!(integer(0, 5, 10), [10]);
    assert_eq!(integer(0, 5, 1337), [31, 154, 10]);
    assert_eq!(table_size(4096), [0x3f, 0xe1, 0x1f]);
}
