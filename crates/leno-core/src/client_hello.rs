//! The first message of a TLS client, read without answering it: which server it wants (SNI) and which protocols it
//! offers (ALPN). It may come in any number of pieces, spread over several records, and be longer than one record.
//!
//! [`Reader`] takes each byte once and keeps the message only: work and memory grow with what was received, and both are
//! bounded by [`MESSAGE_BYTES_MAX`] and [`RECORDS_MAX`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The longest message, in bytes. Post-quantum key shares make some KiB, tickets and encrypted hellos some more; rustls and
/// the larger servers stop at 64 KiB.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// So many records may carry it: far more than any client sends, few enough that tiny ones cost nothing.
pub const RECORDS_MAX: usize = 512;
/// What the records with the message have at most, in bytes: a caller that keeps what it read never keeps more than this and
/// its last read.
pub const STREAM_BYTES_MAX: usize = MESSAGE_BYTES_MAX + RECORDS_MAX * RECORD_HEAD_BYTES;
/// The longest host name (RFC 1035 §2.3.4), in bytes.
const NAME_BYTES_MAX: usize = 253;
/// Protocols that are looked at; the rest of a longer list is skipped.
const PROTOCOLS_MAX: usize = 16;
const RECORD_HEAD_BYTES: usize = 5;
/// RFC 8446 §5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;
const MESSAGE_HEAD_BYTES: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a client says first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that it wants, in lower case and without a dot at the end.
    pub server_name: Option<String>,
    /// The protocols that it offers, most wanted first.
    pub protocols: Vec<Vec<u8>>,
}

/// Why bytes are no client's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A record of another kind, or of no version of TLS.
    NoHandshake,
    /// A record without content, or one that is longer than a record may be.
    RecordLength,
    /// Another message comes first.
    NoClientHello,
    /// The message or the number of its records is over the limit.
    TooLarge,
    /// A part of the message is longer or shorter than it says.
    Malformed,
    /// A host name that is none, or more than one.
    ServerName,
}

/// Takes the bytes of a connection until the message is complete.
#[derive(Debug, Default)]
pub struct Reader {
    /// The head of the current record, as far as it is there.
    head: [u8; RECORD_HEAD_BYTES],
    head_bytes: usize,
    /// Content of the current record that is still to come.
    record_left: usize,
    records: usize,
    /// What was in the records so far.
    message: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes; the message once it is complete, `None` while more is needed. What follows the message is not
    /// looked at. Not to be called again after either of the two.
    ///
    /// # Errors
    /// It is no such message and cannot become one.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<Option<ClientHello>, Invalid> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.record_left == 0 {
                self.take_head(*first)?;
                bytes = rest;
                continue;
            }
            let (content, rest) = bytes.split_at(bytes.len().min(self.record_left));
            self.record_left -= content.len();
            self.message.extend_from_slice(content);
            bytes = rest;
            if let Some(message) = self.complete()? {
                return read(message).map(Some);
            }
        }
        Ok(None)
    }

    /// One byte of a record's head.
    fn take_head(&mut self, byte: u8) -> Result<(), Invalid> {
        // Each is judged when it comes: who speaks something else is told at once.
        match self.head_bytes {
            0 if byte != HANDSHAKE => return Err(Invalid::NoHandshake),
            1 if byte != 3 => return Err(Invalid::NoHandshake),
            _ => {}
        }
        if let Some(place) = self.head.get_mut(self.head_bytes) {
            *place = byte;
        }
        self.head_bytes += 1;
        if self.head_bytes == RECORD_HEAD_BYTES {
            self.head_bytes = 0;
            self.records += 1;
            self.record_left = usize::from(u16::from_be_bytes([self.head[3], self.head[4]]));
            if self.record_left == 0 || self.record_left > RECORD_BYTES_MAX {
                return Err(Invalid::RecordLength);
            }
            if self.records > RECORDS_MAX {
                return Err(Invalid::TooLarge);
            }
        }
        Ok(())
    }

    /// The content of the message, when all of it is there.
    fn complete(&self) -> Result<Option<&[u8]>, Invalid> {
        if self.message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Invalid::NoClientHello);
        }
        let Some((head, content)) = self.message.split_first_chunk::<MESSAGE_HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        if length > MESSAGE_BYTES_MAX - MESSAGE_HEAD_BYTES {
            return Err(Invalid::TooLarge);
        }
        Ok(content.get(..length))
    }
}

/// Reads the content of the message (RFC 8446 §4.1.2).
fn read(content: &[u8]) -> Result<ClientHello, Invalid> {
    let mut fields = Fields(content);
    let _version_and_random = fields.bytes(2 + 32)?;
    let _session = fields.vector(1)?;
    let _ciphers = fields.vector(2)?;
    let _compressions = fields.vector(1)?;
    let mut hello = ClientHello::default();
    // The oldest clients have no extensions at all.
    if fields.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Fields(fields.vector(2)?);
    fields.end()?;
    let (mut name_seen, mut protocols_seen) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let extension = Fields(extensions.vector(2)?);
        match kind {
            SERVER_NAME if name_seen => return Err(Invalid::ServerName),
            SERVER_NAME => {
                name_seen = true;
                hello.server_name = server_name(extension)?;
            }
            ALPN if protocols_seen => return Err(Invalid::Malformed),
            ALPN => {
                protocols_seen = true;
                hello.protocols = protocols(extension)?;
            }
            _ => {}
        }
    }
    Ok(hello)
}

/// The one host name of the list (RFC 6066 §3).
fn server_name(mut extension: Fields<'_>) -> Result<Option<String>, Invalid> {
    let mut list = Fields(extension.vector(2)?);
    extension.end()?;
    let mut name = None;
    while !list.0.is_empty() {
        let kind = list.bytes(1)?;
        let text = list.vector(2)?;
        if kind == [0] {
            if name.is_some() {
                return Err(Invalid::ServerName);
            }
            name = Some(host(text)?);
        }
    }
    Ok(name)
}

fn host(text: &[u8]) -> Result<String, Invalid> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.len() > NAME_BYTES_MAX || !text.split(|byte| *byte == b'.').all(label) {
        return Err(Invalid::ServerName);
    }
    // Only ASCII got here.
    Ok(text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

/// RFC 7301 §3.1.
fn protocols(mut extension: Fields<'_>) -> Result<Vec<Vec<u8>>, Invalid> {
    let mut list = Fields(extension.vector(2)?);
    extension.end()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector(1)?;
        if protocols.len() < PROTOCOLS_MAX {
            protocols.push(protocol.to_vec());
        }
    }
    Ok(protocols)
}

/// What is left of a part of the message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Invalid> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Invalid::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u16, Invalid> {
        let bytes = self.bytes(2)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    /// A part with its length, of so many bytes, in front.
    fn vector(&mut self, length_bytes: usize) -> Result<&'a [u8], Invalid> {
        let length =
            self.bytes(length_bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.bytes(length)
    }

    const fn end(&self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid::Malformed) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHandshake => "what the client says is not TLS",
            Self::RecordLength => "a TLS record is empty or too long",
            Self::NoClientHello => "the TLS client does not begin with its hello",
            Self::TooLarge => "the TLS client's hello is larger than 64 KiB or in more than 512 records",
            Self::Malformed => "the TLS client's hello is malformed",
            Self::ServerName => "the server's name in the TLS client's hello is no host name",
        })
    }
}

impl core::error::Error for Invalid {}

#[cfg(test)]
mod tests;
