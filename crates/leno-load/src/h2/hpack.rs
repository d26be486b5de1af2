//! Header compression, RFC 7541: only reading. What is sent is a handful of blocks written by hand.

use std::collections::VecDeque;

use super::huffman;

/// The fields of one block, in their order.
#[derive(Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(usize, usize)>,
}

/// One end's table of what the other has sent.
#[derive(Default)]
pub(super) struct Decoder {
    /// Youngest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    table_bytes: usize,
    text: Vec<u8>,
}

impl Fields {
    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, &(name, end))| (&self.bytes[start..name], &self.bytes[name..end]))
    }

    /// The first value of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((name, self.bytes.len()));
    }
}

impl Decoder {
    /// Reads one whole block.
    pub(super) fn decode(&mut self, mut block: &[u8], fields: &mut Fields) -> Result<(), String> {
        fields.clear();
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = number(&mut block, 7)?;
                    let (name, value) = self.entry(index)?;
                    fields.push(name, value);
                }
                0x40.. => {
                    self.literal(&mut block, 6, fields)?;
                    self.remember(fields);
                }
                // A new size of the table: nobody here tells the other to change it.
                0x20.. => {
                    if number(&mut block, 5)? != TABLE_BYTES_MAX {
                        return Err("another size of the header table".into());
                    }
                }
                _ => self.literal(&mut block, 4, fields)?,
            }
        }
        Ok(())
    }

    fn literal(&mut self, block: &mut &[u8], bits: u32, fields: &mut Fields) -> Result<(), String> {
        let index = number(block, bits)?;
        self.text.clear();
        if index == 0 {
            string(block, &mut self.text)?;
        } else {
            let mut text = std::mem::take(&mut self.text);
            text.extend_from_slice(self.entry(index)?.0);
            self.text = text;
        }
        let name = self.text.len();
        string(block, &mut self.text)?;
        fields.push(&self.text[..name], &self.text[name..]);
        Ok(())
    }

    /// Takes the last field into the table.
    fn remember(&mut self, fields: &Fields) {
        let Some((name, value)) = fields.iter().last() else { return };
        let cost = |name: &[u8], value: &[u8]| name.len() + value.len() + ENTRY_BYTES;
        self.table_bytes += cost(name, value);
        self.table.push_front((name.to_vec(), value.to_vec()));
        while self.table_bytes > TABLE_BYTES_MAX {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.table_bytes -= cost(&name, &value);
        }
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), String> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|at| STATIC.get(at)) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let found = index.checked_sub(STATIC.len() + 1).and_then(|at| self.table.get(at));
        found
            .map(|(name, value)| (&name[..], &value[..]))
            .ok_or_else(|| format!("there is no header field {index}"))
    }
}

/// An integer in the last `bits` of a byte, and more bytes behind when it does not fit.
fn number(block: &mut &[u8], bits: u32) -> Result<usize, String> {
    let mut next = || {
        let (&first, rest) = block.split_first().ok_or("a header block ends too early")?;
        *block = rest;
        Ok::<_, String>(usize::from(first))
    };
    let mask = (1 << bits) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number in a header block is too large".into())
}

fn string(block: &mut &[u8], into: &mut Vec<u8>) -> Result<(), String> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or("a header block ends too early")?;
    *block = rest;
    if coded {
        return huffman::decode(bytes, into);
    }
    into.extend_from_slice(bytes);
    Ok(())
}

/// What a table holds where nobody says otherwise.
const TABLE_BYTES_MAX: usize = 4_096;
/// What an entry counts beside its text.
const ENTRY_BYTES: usize = 32;
/// RFC 7541, appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::{Decoder, Fields};

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, String> {
        let mut fields = Fields::default();
        decoder.decode(block, &mut fields)?;
        let line = |(name, value): (&[u8], &[u8])| {
            format!("{}={};", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        Ok(fields.iter().map(line).collect())
    }

    #[test]
    fn the_examples_of_the_standard() {
        // C.4: three requests on one connection, strings compressed, fields remembered.
        let mut decoder = Decoder::default();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let said = ":method=GET;:scheme=http;:path=/;:authority=www.example.com;";
        assert_eq!(read(&mut decoder, first).unwrap(), said);
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(read(&mut decoder, second).unwrap(), format!("{said}cache-control=no-cache;"));
        let third =
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        assert_eq!(
            read(&mut decoder, third).unwrap(),
            ":method=GET;:scheme=https;:path=/index.html;:authority=www.example.com;custom-key=custom-value;"
        );
        // 57 + 53 + 54 bytes.
        assert_eq!((decoder.table.len(), decoder.table_bytes), (3, 164));
    }

    #[test]
    fn the_table_forgets_the_oldest() {
        let mut decoder = Decoder::default();
        for number in 0..40_u8 {
            // A name of one byte and a value of 100: 133 bytes in the table each.
            let mut block = vec![0x40, 1, b'a', 100, number];
            block.resize(104, b'x');
            read(&mut decoder, &block).unwrap();
        }
        assert_eq!(decoder.table.len(), 30);
        assert!(read(&mut decoder, &[0x80 | (61 + 30)]).unwrap().starts_with("a=\u{a}xx"));
        assert!(read(&mut decoder, &[0x80 | (61 + 31)]).is_err());
    }

    #[test]
    fn blocks_that_are_cut_are_refused() {
        let block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        for cut in 4..block.len() {
            assert!(read(&mut Decoder::default(), &block[..cut]).is_err(), "cut at {cut}");
        }
    }
}
