//! The text of one file: read within limits, checked to be text, and found again by line.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::diagnostic::{Diagnostics, Problem, Problems};

/// Largest file that is read, in bytes. A mesh of a thousand services takes some 300 KiB.
pub(crate) const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A file's text with its lines.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file, as the caller named it.
    pub(crate) name: String,
    /// Its text, without a byte order mark.
    pub(crate) text: String,
    /// Bytes of each line, without its line break.
    lines: Vec<Range<usize>>,
}

/// A place in a source: a run of characters on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Counted from 1.
    pub(crate) line: u32,
    /// In characters, counted from 1.
    pub(crate) column: u32,
    /// In characters, at least 1.
    pub(crate) length: u32,
}

impl Source {
    /// Reads the file at `path`. A file over [`FILE_BYTES_MAX`] is refused before it is read.
    pub(crate) fn read(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let whole = |message: String, hint: Option<&str>| {
            Diagnostics::whole_file(&name, message, hint.map(str::to_owned))
        };
        let cannot_read = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => whole(
                "there is no such file".into(),
                Some("check the path; a mesh file is often called mesh.yaml"),
            ),
            std::io::ErrorKind::PermissionDenied => whole("no permission to read this file".into(), None),
            _ => whole(format!("cannot be read: {error}"), None),
        };
        let metadata = std::fs::metadata(path).map_err(cannot_read)?;
        if metadata.is_dir() {
            return Err(whole(
                "this is a directory, not a file".into(),
                Some("name the mesh file in it, such as mesh.yaml"),
            ));
        }
        if metadata.len() > FILE_BYTES_MAX as u64 {
            return Err(Self::too_large(&name, metadata.len()));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        // The length of a pipe or device is not known beforehand, and a file may grow.
        let mut limited = File::open(path).map_err(cannot_read)?.take(FILE_BYTES_MAX as u64 + 1);
        limited.read_to_end(&mut bytes).map_err(cannot_read)?;
        Self::from_bytes(&name, bytes)
    }

    /// Checks that `bytes` are text.
    pub(crate) fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Self::too_large(name, bytes.len() as u64));
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(Diagnostics::whole_file(
                name,
                "the file is UTF-16".into(),
                Some("save it as UTF-8".into()),
            ));
        }
        let (text, wrong) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let byte = error.as_bytes().get(at).copied().unwrap_or_default();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some((at, byte)))
            }
        };
        // What comes before the wrong byte is valid, so the offset is the same in the lossy text.
        let source = Self::new(name, text);
        match wrong {
            None => source.checked(),
            Some((at, byte)) => Err(source.refuse(
                Problem::error(source.span_at(at), format!("byte 0x{byte:02x} is not UTF-8"))
                    .hint("save the file as UTF-8"),
            )),
        }
    }

    /// Like [`Source::from_bytes`], for what is text already.
    pub(crate) fn from_text(name: &str, text: &str) -> Result<Self, Diagnostics> {
        if text.len() > FILE_BYTES_MAX {
            return Err(Self::too_large(name, text.len() as u64));
        }
        Self::new(name, text.to_owned()).checked()
    }

    /// The text of a line, counted from 1; empty when there is no such line.
    pub(crate) fn line(&self, number: u32) -> &str {
        let range = (number as usize).checked_sub(1).and_then(|index| self.lines.get(index));
        range.and_then(|range| self.text.get(range.clone())).unwrap_or("")
    }

    /// How many lines there are; at least 1.
    pub(crate) fn line_count(&self) -> u32 {
        self.lines.len() as u32
    }

    /// The character that begins at byte `at`.
    pub(crate) fn span_at(&self, at: usize) -> Span {
        let index = self.lines.partition_point(|line| line.start <= at).saturating_sub(1);
        let start = self.lines.get(index).map_or(0, |line| line.start);
        let column = self.text.get(start..at).map_or(0, |text| text.chars().count());
        Span { line: index as u32 + 1, column: column as u32 + 1, length: 1 }
    }

    /// Diagnostics with this one problem.
    pub(crate) fn refuse(&self, problem: Problem) -> Diagnostics {
        let mut problems = Problems::default();
        problems.add(problem);
        match problems.finish(self) {
            Err(diagnostics) => diagnostics,
            Ok(diagnostics) => Diagnostics { diagnostics, more: 0 },
        }
    }

    fn new(name: &str, mut text: String) -> Self {
        // Some editors begin a UTF-8 file with a byte order mark; it says nothing.
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        let mut lines = Vec::new();
        let (mut start, mut rest) = (0, text.as_bytes());
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            lines.push(start..start + at);
            let width = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
            start += at + width;
            rest = &rest[at + width..];
        }
        lines.push(start..text.len());
        Self { name: name.to_owned(), text, lines }
    }

    /// Refuses control characters: YAML forbids them, and a terminal would obey them.
    fn checked(self) -> Result<Self, Diagnostics> {
        let forbidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
        let Some((at, c)) = self.text.char_indices().find(|(_, c)| forbidden(*c)) else {
            return Ok(self);
        };
        let what = if c == '\0' {
            "a NUL byte".to_owned()
        } else {
            format!("a control character (U+{:04X})", u32::from(c))
        };
        Err(self.refuse(
            Problem::error(self.span_at(at), format!("the file has {what}"))
                .hint("remove it; inside a quoted text it can be written as an escape"),
        ))
    }

    fn too_large(name: &str, bytes: u64) -> Diagnostics {
        let (size, limit) = (bytes.div_ceil(1024 * 1024), FILE_BYTES_MAX / (1024 * 1024));
        Diagnostics::whole_file(
            name,
            format!("the file has {size} MiB; a mesh file has at most {limit} MiB"),
            Some("is this the right file?".into()),
        )
    }
}
