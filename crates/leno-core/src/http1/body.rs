//! Bodies on the way in.

use alloc::vec::Vec;
use core::ops::Range;

use super::error::ParseError;
use super::facts::{BodyFraming, LENGTH_MAX};
use super::limits::Limits;
use super::scan::{Halt, Progress, field_section};
use crate::head::{Field, Fields};

/// Finds the payload in the bytes after a head. It keeps counters, not bytes, besides the trailer section.
///
/// ```text
///   Length ──────────────────────────────────────────────> Ended
///   Chunked: Line ──size──> Data ──all──> DataEnd ──CRLF──> Line
///              └──size 0──> Trailers ──empty line────────> Ended
///   UntilClose, Tunnel: Rest ──end_of_input──────────────> Ended
/// ```
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    /// Where in the body the next byte belongs.
    state: State,
    limits: Limits,
    /// Chunk extensions of this body so far, in bytes.
    extension_bytes: usize,
    /// The trailer section as far as it has come.
    trailer_bytes: Vec<u8>,
    /// Where to go on in it.
    trailer_progress: Progress,
    /// Its fields.
    trailer_fields: Vec<Field>,
}

/// See the diagram at [`BodyDecoder`].
#[derive(Clone, Copy, Debug)]
enum State {
    /// This many bytes are left.
    Length(u64),
    /// In a chunk's size line.
    Line(ChunkLine),
    /// This many bytes of a chunk are left.
    Data(u64),
    /// Behind a chunk's data; true after its CR.
    DataEnd(bool),
    Trailers,
    /// All bytes are payload until the connection ends; true when that end is all right at any time.
    Rest,
    Ended,
    Failed(ParseError),
}

/// A chunk's size line so far.
#[derive(Clone, Copy, Debug, Default)]
struct ChunkLine {
    size: u64,
    digits: u8,
    /// Bytes of the line so far.
    bytes: usize,
    part: LinePart,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LinePart {
    #[default]
    Size,
    Extension,
    /// Behind the CR.
    LineFeed,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are done with; the caller goes on behind them. 0 only when all of the input is used up
    /// or the body has ended.
    pub consumed: usize,
    /// The part of the input that is payload, inside `..consumed`; empty when only framing was read.
    pub payload: Range<usize>,
    /// The body has ended: bytes behind `consumed` belong to the next message.
    pub ended: bool,
}

impl BodyDecoder {
    /// A decoder for a body that is framed like this.
    pub fn new(framing: BodyFraming, limits: &Limits) -> Self {
        Self {
            state: State::of(framing),
            limits: *limits,
            extension_bytes: 0,
            trailer_bytes: Vec::new(),
            trailer_progress: Progress::default(),
            trailer_fields: Vec::new(),
        }
    }

    /// Makes it ready for the next body and keeps the memory.
    pub fn reset(&mut self, framing: BodyFraming) {
        self.state = State::of(framing);
        self.extension_bytes = 0;
        self.trailer_bytes.clear();
        self.trailer_progress = Progress::default();
        self.trailer_fields.clear();
    }

    /// Reads from `input` up to and including the first run of payload. Call it again with what is behind
    /// [`Decoded::consumed`] until that is empty or the body has ended; a body without a byte ends at the first call, with
    /// any input.
    ///
    /// # Errors
    /// The reason for which the body is refused; the same one at every later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, ParseError> {
        let mut at = 0;
        let mut payload = 0..0;
        loop {
            match self.state {
                State::Length(left) => {
                    payload = take(input, at, left);
                    at = payload.end;
                    self.state = match left - payload.len() as u64 {
                        0 => State::Ended,
                        left => State::Length(left),
                    };
                    return Ok(Decoded { consumed: at, payload, ended: self.is_ended() });
                }
                State::Rest => {
                    return Ok(Decoded { consumed: input.len(), payload: at..input.len(), ended: false });
                }
                State::Ended => return Ok(Decoded { consumed: at, payload, ended: true }),
                State::Failed(error) => return Err(error),
                _ if at == input.len() => return Ok(Decoded { consumed: at, payload, ended: false }),
                State::Data(left) => {
                    // One run of payload per call.
                    if !payload.is_empty() {
                        return Ok(Decoded { consumed: at, payload, ended: false });
                    }
                    payload = take(input, at, left);
                    at = payload.end;
                    self.state = match left - payload.len() as u64 {
                        0 => State::DataEnd(false),
                        left => State::Data(left),
                    };
                }
                State::DataEnd(after_cr) => {
                    if input[at] != if after_cr { b'\n' } else { b'\r' } {
                        return self.fail(ParseError::ChunkEnd, payload);
                    }
                    at += 1;
                    self.state =
                        if after_cr { State::Line(ChunkLine::default()) } else { State::DataEnd(true) };
                }
                State::Line(mut line) => match self.chunk_line(&mut line, input, at) {
                    Ok(next) => at = next,
                    Err(error) => return self.fail(error, payload),
                },
                State::Trailers => match self.trailer_section(&input[at..]) {
                    Ok(read) => at += read,
                    Err(error) => return self.fail(error, payload),
                },
            }
        }
    }

    /// Tells that the connection has ended, and with it a body that lasts until then.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] when the body was announced to be longer; what it was refused for before.
    pub fn end_of_input(&mut self) -> Result<(), ParseError> {
        match self.state {
            State::Ended => Ok(()),
            State::Length(0) | State::Rest => {
                self.state = State::Ended;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(ParseError::Truncated);
                Err(ParseError::Truncated)
            }
        }
    }

    /// True when the whole body has been read.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended | State::Length(0))
    }

    /// Payload bytes that are known to come in one run: what is left of an announced length or of a chunk, and any number
    /// where only the end of the connection ends the body.
    pub fn expected(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            State::Rest => u64::MAX,
            _ => 0,
        }
    }

    /// The trailer fields of a chunked body that has ended; else none. Fields that are not allowed there are still in
    /// it: the encoder leaves them out.
    pub fn trailers(&self) -> Fields<'_> {
        match self.state {
            State::Ended => Fields::new(&self.trailer_bytes, &self.trailer_fields),
            _ => Fields::default(),
        }
    }

    /// Payload in front of the error is still given out: an error must not depend on how the bytes were split.
    fn fail(&mut self, error: ParseError, payload: Range<usize>) -> Result<Decoded, ParseError> {
        self.state = State::Failed(error);
        if payload.is_empty() {
            Err(error)
        } else {
            Ok(Decoded { consumed: payload.end, payload, ended: false })
        }
    }

    /// Reads on in a chunk's size line; the position after what was read.
    fn chunk_line(&mut self, line: &mut ChunkLine, input: &[u8], from: usize) -> Result<usize, ParseError> {
        for (at, byte) in input.iter().enumerate().skip(from) {
            line.bytes += 1;
            if line.bytes > self.limits.chunk_line_bytes_max {
                return Err(ParseError::ChunkLineTooLong);
            }
            match (line.part, byte) {
                (LinePart::LineFeed, b'\n') => {
                    self.state = if line.size == 0 { State::Trailers } else { State::Data(line.size) };
                    return Ok(at + 1);
                }
                (LinePart::LineFeed, _) | (_, b'\n') => return Err(ParseError::LineEnd),
                (LinePart::Size, b';') if line.digits > 0 => line.part = LinePart::Extension,
                (LinePart::Size, b'\r') if line.digits > 0 => line.part = LinePart::LineFeed,
                (LinePart::Size, digit) => line.push(*digit)?,
                (LinePart::Extension, b'\r') => line.part = LinePart::LineFeed,
                (LinePart::Extension, byte) if *byte >= b' ' && *byte != 0x7f || *byte == b'\t' => {
                    self.extension_bytes += 1;
                    if self.extension_bytes > self.limits.chunk_extension_bytes_max {
                        return Err(ParseError::ChunkExtensionsTooLong);
                    }
                }
                (LinePart::Extension, _) => return Err(ParseError::ChunkSize),
            }
        }
        self.state = State::Line(*line);
        Ok(input.len())
    }

    /// Reads on in the trailer section; how many bytes.
    fn trailer_section(&mut self, input: &[u8]) -> Result<usize, ParseError> {
        // Nearly every body: no trailers, and nothing to keep.
        if self.trailer_bytes.is_empty() && input.starts_with(b"\r\n") {
            self.state = State::Ended;
            return Ok(2);
        }
        let before = self.trailer_bytes.len();
        let room = self.limits.trailer_bytes_max.saturating_sub(before);
        self.trailer_bytes.extend_from_slice(&input[..input.len().min(room)]);
        let full = input.len() >= room;
        if !self.trailer_progress.worth_looking(&self.trailer_bytes, full) {
            return Ok(input.len());
        }
        let scanned = field_section(
            &self.trailer_bytes,
            &self.limits,
            &mut self.trailer_progress,
            &mut self.trailer_fields,
            |_, _| Ok(()),
        );
        match scanned {
            Ok(end) => {
                self.state = State::Ended;
                Ok(end - before)
            }
            Err(Halt::Short) if !full => {
                self.trailer_progress.fell_short(&self.trailer_bytes);
                Ok(input.len())
            }
            Err(Halt::Short) => Err(ParseError::TrailersTooLarge),
            Err(Halt::Refused(error)) => Err(error),
        }
    }
}

impl State {
    const fn of(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::Ended,
            BodyFraming::Length(bytes) => Self::Length(bytes),
            BodyFraming::Chunked => {
                Self::Line(ChunkLine { size: 0, digits: 0, bytes: 0, part: LinePart::Size })
            }
            BodyFraming::UntilClose | BodyFraming::Tunnel => Self::Rest,
        }
    }
}

impl ChunkLine {
    /// Adds a digit to the size.
    fn push(&mut self, digit: u8) -> Result<(), ParseError> {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(ParseError::ChunkSize),
        };
        self.digits += 1;
        // The second test comes first in effect: a sixteenth digit can only follow fifteen that are small enough.
        if self.digits > CHUNK_DIGITS_MAX || self.size > LENGTH_MAX >> 4 {
            return Err(ParseError::ChunkSize);
        }
        self.size = self.size << 4 | u64::from(value);
        Ok(())
    }
}

/// As many hexadecimal digits as 64 bits have, leading zeros included.
const CHUNK_DIGITS_MAX: u8 = 16;

/// At most `left` bytes of `input` from `at` on.
fn take(input: &[u8], at: usize, left: u64) -> Range<usize> {
    let here = input.len() - at;
    at..at + usize::try_from(left).map_or(here, |left| left.min(here))
}
