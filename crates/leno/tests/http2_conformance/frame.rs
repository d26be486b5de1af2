//! HTTP/2 frames as bytes: written as they are told, also where that is wrong, and read without judging.

/// What a client sends before anything else (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of the head before every payload.
pub(crate) const HEAD_BYTES: usize = 9;
/// The frame size and the windows that hold until somebody says otherwise (section 6.5.2).
pub(crate) const FRAME_BYTES: usize = 16_384;
pub(crate) const WINDOW: usize = 65_535;

/// Types of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    /// One that nobody has defined.
    pub(crate) const UNKNOWN: u8 = 0x5a;
}

/// Flags of frames.
pub(crate) const NONE: u8 = 0;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;
/// A request without a body.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Error codes (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL: u32 = 1;
    pub(crate) const FLOW_CONTROL: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

    /// The name in the specification.
    pub(crate) fn name(code: u32) -> String {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(code as usize).map_or_else(|| format!("code {code}"), |name| (*name).to_owned())
    }
}

/// Settings (section 6.5.2, and RFC 8441 for the last).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Any frame; the length is that of `payload`.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block)
}

pub(crate) fn continuation(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, block)
}

/// The five bytes about priority; `weight` is one less than what it means.
pub(crate) fn dependency(on: u32, exclusive: bool, weight: u8) -> Vec<u8> {
    let mut bytes = (on | u32::from(exclusive) << 31).to_be_bytes().to_vec();
    bytes.push(weight);
    bytes
}

pub(crate) fn priority(stream: u32, on: u32, exclusive: bool, weight: u8) -> Vec<u8> {
    frame(kind::PRIORITY, NONE, stream, &dependency(on, exclusive, weight))
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, NONE, stream, &code.to_be_bytes())
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let values = values.iter().flat_map(|(name, value)| {
        let mut bytes = name.to_be_bytes().to_vec();
        bytes.extend(value.to_be_bytes());
        bytes
    });
    frame(kind::SETTINGS, NONE, 0, &values.collect::<Vec<u8>>())
}

pub(crate) fn push_promise(stream: u32, promised: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::PUSH_PROMISE, END_HEADERS, stream, &[&promised.to_be_bytes()[..], block].concat())
}

pub(crate) fn ping(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::PING, flags, 0, payload)
}

pub(crate) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, NONE, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, NONE, stream, &increment.to_be_bytes())
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Takes one frame off the front of what was read.
    pub(crate) fn take(read: &mut Vec<u8>) -> Option<Self> {
        let head: [u8; HEAD_BYTES] = read.get(..HEAD_BYTES)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = read.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec();
        read.drain(..HEAD_BYTES + length);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Self { kind: head[3], flags: head[4], stream, payload })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }

    /// The last message of its stream.
    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(END_STREAM)
    }

    /// The 32 bits at `at`.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        self.number(if self.kind == kind::GOAWAY { 4 } else { 0 })
    }

    /// The header block of a HEADERS frame without its padding and priority.
    pub(crate) fn block(&self) -> &[u8] {
        let mut block = &self.payload[..];
        if self.has(PADDED)
            && let Some((padding, rest)) = block.split_first()
        {
            block = &rest[..rest.len().saturating_sub(*padding as usize)];
        }
        if self.has(PRIORITY) { block.get(5..).unwrap_or_default() } else { block }
    }

    /// In a few words.
    pub(crate) fn words(&self) -> String {
        let (stream, end) = (self.stream, if self.ends_stream() { ", the last" } else { "" });
        match self.kind {
            kind::DATA => {
                // Where a proxy says what is wrong, it says it here.
                let text: String = String::from_utf8_lossy(&self.payload).chars().take(120).collect();
                let text =
                    if text.starts_with("xxx") { String::new() } else { format!(" ({})", text.trim()) };
                format!("DATA of {} bytes on {stream}{text}{end}", self.payload.len())
            }
            kind::HEADERS => {
                let status = super::hpack::status(self.block());
                format!("HEADERS on {stream} with status {status:?}{end}")
            }
            kind::RST_STREAM => format!("RST_STREAM of {stream}: {}", code::name(self.code())),
            kind::GOAWAY => {
                let why = String::from_utf8_lossy(self.payload.get(8..).unwrap_or_default()).into_owned();
                format!("GOAWAY: {} {why}", code::name(self.code()))
            }
            kind::SETTINGS => format!("SETTINGS with flags {:#x}", self.flags),
            kind::PING => format!("PING with flags {:#x}", self.flags),
            kind::WINDOW_UPDATE => format!("WINDOW_UPDATE on {stream}"),
            other => format!("a frame of type {other:#x} on {stream}"),
        }
    }
}
