//! Frames on a socket that never blocks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use super::hpack::{Decoder, Fields};
use super::{DATA, HEADERS, RST_STREAM};

/// A connection. What it receives goes to a [`Side`], which may send meanwhile; [`Wire::flush`] writes all of it at once.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) sending: Sending,
    /// The bytes of a frame that is not whole yet.
    rest: Vec<u8>,
    /// Of the client's greeting, what a server still expects.
    greeting: &'static [u8],
    decoder: Decoder,
    fields: Fields,
    /// Bytes of bodies that the other end has not been given back yet.
    eaten: u32,
}

/// What is to be sent.
pub(crate) struct Sending {
    bytes: Vec<u8>,
    sent: usize,
    /// What the other end still takes on this connection.
    window: i64,
}

/// What a client or a server does with what comes.
pub(crate) trait Side {
    /// A head, or trailers.
    fn head(&mut self, out: &mut Sending, stream: u32, fields: &Fields, end: bool) -> Result<(), String>;
    /// A piece of a body.
    fn data(&mut self, out: &mut Sending, stream: u32, bytes: &[u8], end: bool) -> Result<(), String>;
    /// The other end gives up a stream.
    fn reset(&mut self, stream: u32, code: u32) -> Result<(), String>;
    /// The other end takes more than before.
    fn credit(&mut self, out: &mut Sending) -> Result<(), String>;
}

/// What a read found.
#[derive(PartialEq, Eq)]
pub(crate) enum Progress {
    Open,
    Closed,
}

impl Wire {
    /// A client greets first.
    pub(crate) fn client(stream: TcpStream) -> Self {
        let mut wire = Self::new(stream, b"");
        wire.sending.bytes.splice(0..0, GREETING.iter().copied());
        wire
    }

    pub(crate) fn server(stream: TcpStream) -> Self {
        Self::new(stream, GREETING)
    }

    fn new(stream: TcpStream, greeting: &'static [u8]) -> Self {
        let mut sending = Sending { bytes: Vec::new(), sent: 0, window: WINDOW };
        // Any number of streams at once, each with room for more than any body here; and a connection that never stops.
        let mut settings = Vec::new();
        for (id, value) in [(3_u16, 1_000_u32), (4, STREAM_WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        sending.frame(SETTINGS, 0, 0, &settings);
        sending.frame(WINDOW_UPDATE, 0, 0, &CREDIT.to_be_bytes());
        Self {
            stream,
            sending,
            rest: Vec::new(),
            greeting,
            decoder: Decoder::default(),
            fields: Fields::default(),
            eaten: 0,
        }
    }

    /// Reads all that is there.
    #[inline]
    pub(crate) fn receive(&mut self, buffer: &mut [u8], side: &mut impl Side) -> Result<Progress, String> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(Progress::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receive: {error}")),
            };
            self.take(&buffer[..count], side)?;
            // With edges, only a read that did not fill the buffer says that the socket is empty.
            if count < buffer.len() {
                return Ok(Progress::Open);
            }
        }
    }

    /// Writes what goes.
    #[inline]
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let Sending { bytes, sent, .. } = &mut self.sending;
        while *sent < bytes.len() {
            match self.stream.write(&bytes[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        bytes.clear();
        *sent = 0;
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], side: &mut impl Side) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = self.frames(bytes, side)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(bytes);
            let used = self.frames(&whole, side)?;
            whole.drain(..used);
            self.rest = whole;
        }
        if self.eaten > CREDIT / 2 {
            self.sending.frame(WINDOW_UPDATE, 0, 0, &self.eaten.to_be_bytes());
            self.eaten = 0;
        }
        Ok(())
    }

    /// Takes whole frames; how many bytes those were.
    fn frames(&mut self, bytes: &[u8], side: &mut impl Side) -> Result<usize, String> {
        let mut at = 0;
        if !self.greeting.is_empty() {
            let common = self.greeting.len().min(bytes.len());
            if bytes[..common] != self.greeting[..common] {
                return Err("a client that does not speak HTTP/2".into());
            }
            self.greeting = &self.greeting[common..];
            at = common;
        }
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            if length > FRAME_BYTES_MAX {
                return Err(format!("a frame of {length} bytes"));
            }
            let Some(payload) = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + length) else { break };
            self.frame(head[3], head[4], stream, payload, side)?;
            at += HEAD_BYTES + length;
        }
        Ok(at)
    }

    #[inline]
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        side: &mut impl Side,
    ) -> Result<(), String> {
        let end = flags & END_STREAM != 0;
        let number =
            |at: usize| payload.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        match kind {
            DATA => {
                self.eaten += u32::try_from(payload.len()).unwrap_or(0);
                side.data(&mut self.sending, stream, unpadded(payload, flags)?, end)
            }
            HEADERS if flags & END_HEADERS == 0 => Err("a head in several frames".into()),
            HEADERS => {
                let block = unpadded(payload, flags)?;
                let skip = if flags & PRIORITY == 0 { 0 } else { 5 };
                let block = block.get(skip..).ok_or("a head without its priority")?;
                self.decoder.decode(block, &mut self.fields)?;
                side.head(&mut self.sending, stream, &self.fields, end)
            }
            RST_STREAM => side.reset(stream, number(0)),
            SETTINGS if flags & ACK != 0 => Ok(()),
            SETTINGS => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match u16::from_be_bytes([setting[0], setting[1]]) {
                        // The blocks that are sent need some 200 bytes of table; a window, room for one message.
                        1 | 4 if value < 1_000 => {
                            return Err(format!("a header table or a window of {value} bytes"));
                        }
                        _ => {}
                    }
                }
                self.sending.frame(SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            PING if flags & ACK == 0 => {
                self.sending.frame(PING, ACK, 0, payload);
                Ok(())
            }
            GOAWAY => Err(format!("the peer says GOAWAY, code {}", number(4))),
            WINDOW_UPDATE if stream == 0 => {
                self.sending.window += i64::from(number(0));
                side.credit(&mut self.sending)
            }
            // Windows of single streams are larger than any body here.
            _ => Ok(()),
        }
    }
}

impl Sending {
    /// Adds a frame.
    #[inline]
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frame_of(kind, flags, stream, &[payload]);
    }

    /// Adds a frame made of parts.
    #[inline]
    pub(crate) fn frame_of(&mut self, kind: u8, flags: u8, stream: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        self.bytes.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Takes this much of what the other end still takes; false when it does not.
    #[inline]
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let left = self.window - i64::try_from(bytes).unwrap_or(i64::MAX);
        if left >= 0 {
            self.window = left;
        }
        left >= 0
    }
}

fn unpadded(payload: &[u8], flags: u8) -> Result<&[u8], String> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or("a padded frame without a length")?;
    let end = rest.len().checked_sub(usize::from(padding)).ok_or("more padding than frame")?;
    Ok(&rest[..end])
}

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// What nobody may exceed who was not told otherwise.
const FRAME_BYTES_MAX: usize = 16_384;
/// What a connection takes where nobody says otherwise.
const WINDOW: i64 = 65_535;
/// What ours takes more, and is given back when half of it is used.
const CREDIT: u32 = 1 << 30;
/// Of each stream; more than any message here.
const STREAM_WINDOW: u32 = 1 << 20;
