//! What is wrong with a file, where, and what to do: shown as a compiler would, and as JSON for tools.

use std::fmt;

use serde::Serialize;

use crate::source::{Source, Span};

/// More than this many diagnostics help nobody; the rest is only counted.
pub const DIAGNOSTICS_MAX: usize = 50;

/// Longest piece of a source line that a diagnostic shows, in characters.
const EXCERPT_CHARS_MAX: usize = 120;

/// Everything that is wrong with a file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// At most [`DIAGNOSTICS_MAX`], sorted by position.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub more: usize,
}

/// One thing that is wrong, or suspicious, at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// The file, as it was named by the caller.
    pub file: String,
    /// Counted from 1; 0: the file as a whole.
    pub line: u32,
    /// In characters, counted from 1; 0: the file as a whole.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// The source line with the offending part marked; `None`: the file as a whole.
    pub excerpt: Option<Excerpt>,
    /// Another place that explains this one, such as the first of two duplicates.
    pub related: Option<Related>,
    /// What to do.
    pub hint: Option<String>,
}

/// Whether a file can be used in spite of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it hardly says what was meant.
    Warning,
}

/// A piece of a source line with a part of it marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, or the part of a long one around the mark; control characters are shown as spaces.
    pub text: String,
    /// First marked character, counted from 0 in `text`.
    pub start: u32,
    /// How many characters are marked, at least 1.
    pub length: u32,
}

/// A second place, with what it has to do with the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// What is there, such as "first given here".
    pub label: String,
    /// The line.
    pub excerpt: Excerpt,
}

impl Diagnostics {
    /// One diagnostic about a file as a whole: it cannot be read.
    pub(crate) fn whole_file(file: &str, message: String, hint: Option<String>) -> Self {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            message,
            excerpt: None,
            related: None,
            hint,
        };
        Self { diagnostics: vec![diagnostic], more: 0 }
    }
}

/// As a compiler shows them, separated by blank lines.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more\n", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// ```text
/// error: unknown field "port_"
///   --> mesh.yaml:12:7
///    |
/// 12 |       port_: 9001
///    |       ^^^^^
///    = help: did you mean "port"?
/// ```
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity, self.message)?;
        let last_line = self.line.max(self.related.as_ref().map_or(0, |related| related.line));
        let gutter = last_line.to_string().len();
        write!(f, "{:gutter$}--> {}", "", self.file)?;
        if let Some(excerpt) = &self.excerpt {
            writeln!(f, ":{}:{}", self.line, self.column)?;
            writeln!(f, "{:gutter$} |", "")?;
            match &self.related {
                Some(related) if related.excerpt.text == excerpt.text && related.line == self.line => {
                    related.write_beside(f, excerpt, gutter)?;
                }
                Some(related) if related.line <= self.line => {
                    related.excerpt.write(f, gutter, related.line, '-', &related.label)?;
                    if related.line + 1 < self.line {
                        writeln!(f, "{:.<gutter$}...", "")?;
                    }
                    excerpt.write(f, gutter, self.line, '^', "")?;
                }
                Some(related) => {
                    excerpt.write(f, gutter, self.line, '^', "")?;
                    if self.line + 1 < related.line {
                        writeln!(f, "{:.<gutter$}...", "")?;
                    }
                    related.excerpt.write(f, gutter, related.line, '-', &related.label)?;
                }
                None => excerpt.write(f, gutter, self.line, '^', "")?,
            }
        } else {
            f.write_str("\n")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "{:gutter$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

impl Excerpt {
    /// The part of the source line around `span`.
    fn new(source: &Source, span: Span) -> Self {
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let line: Vec<char> = source.line(span.line).chars().map(shown).collect();
        let start = (span.column.max(1) as usize - 1).min(line.len());
        let end = (start + span.length as usize).min(line.len());
        if line.len() <= EXCERPT_CHARS_MAX {
            return Self::marked(line.iter().collect(), start, end);
        }
        let from = start.saturating_sub(EXCERPT_CHARS_MAX / 3);
        let to = (from + EXCERPT_CHARS_MAX).min(line.len());
        let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
        let text: String =
            before.chars().chain(line[from..to].iter().copied()).chain(after.chars()).collect();
        let shift = |at: usize| at.min(to) - from + before.chars().count();
        Self::marked(text, shift(start), shift(end))
    }

    fn marked(text: String, start: usize, end: usize) -> Self {
        Self { text, start: start as u32, length: end.saturating_sub(start).max(1) as u32 }
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        gutter: usize,
        line: u32,
        mark: char,
        label: &str,
    ) -> fmt::Result {
        write_source(f, gutter, line, &self.text)?;
        let marks = mark.to_string().repeat(self.length as usize);
        let space = if label.is_empty() { "" } else { " " };
        writeln!(f, "{:gutter$} | {:2$}{marks}{space}{label}", "", "", self.start as usize)
    }
}

impl Related {
    /// Writes both marks under one copy of the line that they share.
    fn write_beside(&self, f: &mut fmt::Formatter<'_>, main: &Excerpt, gutter: usize) -> fmt::Result {
        write_source(f, gutter, self.line, &main.text)?;
        let (own, main_end) = (&self.excerpt, main.start + main.length);
        let mark = |at: u32| match at {
            _ if (main.start..main_end).contains(&at) => '^',
            _ if (own.start..own.start + own.length).contains(&at) => '-',
            _ => ' ',
        };
        let marks: String = (0..main_end.max(own.start + own.length)).map(mark).collect();
        writeln!(f, "{:gutter$} | {marks}", "")?;
        writeln!(f, "{:gutter$} | {:2$}{3}", "", "", own.start as usize, self.label)
    }
}

fn write_source(f: &mut fmt::Formatter<'_>, gutter: usize, line: u32, text: &str) -> fmt::Result {
    let text = text.trim_end();
    writeln!(f, "{line:>gutter$} |{}{text}", if text.is_empty() { "" } else { " " })
}

/// Something wrong, before it is shown: a position instead of text.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    severity: Severity,
    span: Span,
    message: String,
    related: Option<(Span, String)>,
    hint: Option<String>,
}

impl Problem {
    /// An error at `span`.
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span, message: message.into(), related: None, hint: None }
    }

    /// A warning at `span`.
    pub(crate) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do, when somebody knows.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Shows another place.
    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }

    fn show(self, source: &Source) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            file: source.name.clone(),
            line: self.span.line,
            column: self.span.column,
            message: self.message,
            excerpt: Some(Excerpt::new(source, self.span)),
            related: self.related.map(|(span, label)| Related {
                line: span.line,
                column: span.column,
                label,
                excerpt: Excerpt::new(source, span),
            }),
            hint: self.hint,
        }
    }
}

/// Searches for what was meant, in one file. Some more than are shown, because errors are not found in the order
/// of the file.
const HINTS_SEARCHED_MAX: usize = 2 * DIAGNOSTICS_MAX;

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Errors and warnings beyond what is kept.
    more: usize,
}

/// Problems kept while reading: more than are shown, so that the first ones of the file win even though they
/// are not found in the order of the file; few enough that a hostile file costs little memory.
const PROBLEMS_KEPT_MAX: usize = 20 * DIAGNOSTICS_MAX;

impl Problems {
    /// Keeps `problem`, or only counts it when there are too many.
    pub(crate) fn add(&mut self, problem: Problem) {
        let list = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() < PROBLEMS_KEPT_MAX {
            list.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// True while a hint that takes a search is worth it: so many errors are never all shown.
    pub(crate) const fn want_hints(&self) -> bool {
        self.errors.len() < HINTS_SEARCHED_MAX
    }

    /// How many errors there are so far: a decoder compares it to see whether a part was fine.
    pub(crate) const fn errors(&self) -> usize {
        self.errors.len() + self.more
    }

    /// The warnings of a file without an error; else everything.
    pub(crate) fn finish(self, source: &Source) -> Result<Vec<Diagnostic>, Diagnostics> {
        let failed = !self.errors.is_empty();
        let mut problems = self.errors;
        problems.extend(self.warnings);
        problems.sort_by_key(|problem| (problem.span.line, problem.span.column));
        let more = self.more + problems.len().saturating_sub(DIAGNOSTICS_MAX);
        // Errors come first when not everything fits: a warning must not push one out.
        if problems.len() > DIAGNOSTICS_MAX {
            problems.sort_by_key(|problem| problem.severity == Severity::Warning);
            problems.truncate(DIAGNOSTICS_MAX);
            problems.sort_by_key(|problem| (problem.span.line, problem.span.column));
        }
        let diagnostics = problems.into_iter().map(|problem| problem.show(source)).collect();
        if failed { Err(Diagnostics { diagnostics, more }) } else { Ok(diagnostics) }
    }
}
