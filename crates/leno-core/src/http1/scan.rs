//! The byte level: character classes, field lines, and where to go on when a head came in pieces.

use alloc::vec::Vec;

use super::error::ParseError;
use super::limits::Limits;
use crate::head::{Field, FieldId, Span};

/// Why a scan stopped before it was through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Halt {
    /// The bytes so far are fine and more are needed.
    Short,
    /// They are not fine, whatever follows.
    Refused(ParseError),
}

impl From<ParseError> for Halt {
    fn from(error: ParseError) -> Self {
        Self::Refused(error)
    }
}

/// The outcome of scanning some bytes from left to right. What is refused, and why, depends only on the bytes up to
/// the offending one: so the verdict is the same however the bytes are split over calls.
pub(super) type Scan<T> = Result<T, Halt>;

/// True for a non-empty token (RFC 9110 §5.6.2): what a method and a field name are made of.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && token_end(text, 0) == text.len()
}

/// True for text that may be a field's value: no control character besides tab.
pub fn is_field_value(text: &[u8]) -> bool {
    // All words and, instead of what is left of the last one, a word that overlaps it; only where one of them has a suspect
    // is it asked whether that is a tab.
    let Some(last) = text.last_chunk() else { return value_end(text, 0) == text.len() };
    let (words, _) = text.as_chunks();
    let suspects = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        below(word, 0x20) | equal(word, 0x7f)
    };
    let any = words.iter().fold(suspects(last), |any, word| any | suspects(word));
    any == 0 || value_end(text, 0) == text.len()
}

/// True for text that may be a request target: visible ASCII without a fragment, not empty.
pub fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && target_end(text, 0) == text.len()
}

/// The first position at or after `from` that is no token character.
pub(super) fn token_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    // Names are short and of all lengths, so a branch for each byte would be guessed wrong at the end of each of them:
    // look at eight without one, and then ask where the first is that most names do not have.
    while let Some(word) = eight_at(buf, at) {
        let odd = odd_in_names(u64::from_le_bytes(*word));
        if odd == 0 {
            at += 8;
            continue;
        }
        at += odd.trailing_zeros() as usize / 8;
        if !TOKEN[usize::from(buf[at])] {
            return at;
        }
        at += 1;
    }
    run_end(buf, at, |byte| TOKEN[usize::from(byte)])
}

/// The first position at or after `from` that may not be in a request target.
pub(super) fn target_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = eight_at(buf, at) {
        let word = u64::from_le_bytes(*word);
        let stops = below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#') | word & HIGHS;
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    run_end(buf, at, |byte| (0x21..0x7f).contains(&byte) && byte != b'#')
}

/// The first position at or after `from` that may not be in a field value: a control character other than tab.
pub(super) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = eight_at(buf, at) {
        let word = u64::from_le_bytes(*word);
        let suspects = below(word, 0x20) | equal(word, 0x7f);
        if suspects == 0 {
            at += 8;
            continue;
        }
        at += suspects.trailing_zeros() as usize / 8;
        if buf[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    run_end(buf, at, |byte| byte >= 0x20 && byte != 0x7f || byte == b'\t')
}

fn run_end(buf: &[u8], from: usize, member: impl Fn(u8) -> bool) -> usize {
    let rest = buf.get(from..).unwrap_or(&[]);
    rest.iter().position(|byte| !member(*byte)).map_or(buf.len(), |at| from + at)
}

fn eight_at(buf: &[u8], at: usize) -> Option<&[u8; 8]> {
    buf.get(at..)?.first_chunk()
}

// Eight bytes in one word: the high bit of each byte for which the comparison holds. A borrow can set a wrong bit, but
// only above the lowest right one, and only the lowest is looked at.

const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & HIGHS
}

const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Each byte that is no letter, no digit and no hyphen, exactly.
const fn odd_in_names(word: u64) -> u64 {
    // Of numbers below 128 no sum is carried into the next byte.
    let low = word & !HIGHS;
    let any_case = low | (ONES * 0x20);
    let letter = at_least(any_case, b'a') & !at_least(any_case, b'z' + 1);
    let digit = at_least(low, b'0') & !at_least(low, b'9' + 1);
    let hyphen = !at_least(low ^ (ONES * b'-' as u64), 1);
    HIGHS & !((letter | digit | hyphen) & !word)
}

/// The high bit of each byte, all below 128, that is `limit` or more; what the other bits are says nothing.
const fn at_least(low: u64, limit: u8) -> u64 {
    low + ONES * (0x80 - limit) as u64
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The CRLF that must stand at `at`; the position after it.
pub(super) fn line_end(buf: &[u8], at: usize, otherwise: ParseError) -> Scan<usize> {
    match buf.get(at..).unwrap_or(&[]) {
        [b'\r', b'\n', ..] => Ok(at + 2),
        [b'\r'] | [] => Err(Halt::Short),
        [b'\r' | b'\n', ..] => Err(ParseError::LineEnd.into()),
        _ => Err(otherwise.into()),
    }
}

/// Where to go on in a head (or trailer section) of which only a part has come. Lines that are complete are never
/// looked at again; the unfinished one is looked at again only when it has doubled, so that a peer that sends single
/// bytes costs linear time and not quadratic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Where the first line begins that is not complete.
    pub(super) line: usize,
    /// The bytes before this one have been searched for the end of that line.
    searched: usize,
    /// With this many bytes the unfinished line is worth another look.
    due: usize,
}

impl Progress {
    /// True when a look at `visible` can bring something new; `full` when no further byte will be allowed.
    pub(super) fn worth_looking(&mut self, visible: &[u8], full: bool) -> bool {
        if visible.len() >= self.due || full {
            return true;
        }
        let new = visible.get(self.searched..).unwrap_or(&[]);
        self.searched = visible.len();
        memchr::memchr(b'\n', new).is_some()
    }

    /// Notes that the line at `self.line` is not complete in `visible`.
    pub(super) fn fell_short(&mut self, visible: &[u8]) {
        self.searched = visible.len();
        self.due = self.line + (visible.len() - self.line).saturating_mul(2).max(1);
    }
}

/// Reads the field lines from `progress.line` on, pushing each and showing it to `note`; the position after the
/// empty line. One function on purpose: handing each line over from another one costs a third of the time.
pub(super) fn field_section(
    buf: &[u8],
    limits: &Limits,
    progress: &mut Progress,
    fields: &mut Vec<Field>,
    mut note: impl FnMut(FieldId, Span) -> Result<(), ParseError>,
) -> Scan<usize> {
    loop {
        let line = progress.line;
        let name_end = token_end(buf, line);
        let first = buf.get(line);
        if fields.len() >= limits.fields_max && first.is_some_and(|byte| *byte != b'\r') {
            return Err(ParseError::TooManyFields.into());
        }
        if buf.get(name_end) != Some(&b':') || name_end == line {
            return no_field(buf, line, name_end);
        }
        let mut start = name_end + 1;
        while matches!(buf.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let stop = value_end(buf, start);
        if !matches!(buf.get(stop..), Some([b'\r', b'\n', ..])) {
            return line_end(buf, stop, ParseError::FieldValue);
        }
        let mut end = stop;
        while end > start && matches!(buf[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let id = FieldId::of(&buf[line..name_end]);
        let value = Span::new(start, end);
        if id != FieldId::Other {
            note(id, value)?;
        }
        fields.push(Field { name: Span::new(line, name_end), value, id });
        progress.line = stop + 2;
    }
}

/// What a line is that has no name and colon: the empty line at the end of the section, behind which we are then, or
/// not complete, or wrong.
#[cold]
fn no_field(buf: &[u8], line: usize, name_end: usize) -> Scan<usize> {
    match buf.get(name_end) {
        None => Err(Halt::Short),
        Some(b'\r' | b'\n') if name_end == line => line_end(buf, line, ParseError::LineEnd),
        Some(b' ' | b'\t') if name_end == line => Err(ParseError::LineFolding.into()),
        Some(_) => Err(ParseError::FieldName.into()),
    }
}

/// Token characters.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
            | b'^' | b'_' | b'`' | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z');
        byte += 1;
    }
    table
};
