//! YAML as a small tree that knows where everything stands.
//!
//! Leno reads the part of YAML that people use to write configuration: maps, lists, scalars and comments. What
//! makes a file hard to read or dangerous to load (anchors, aliases, merge keys, tags, keys that are no text,
//! several documents) is refused with its position. So there is nothing to expand and no alias bomb.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::diagnostic::{Problem, Problems};
use crate::source::{Source, Span};

/// Deepest nesting of lists and maps. The mesh file itself needs 8.
const DEPTH_MAX: usize = 32;

/// Most lists, maps, keys and scalars in a file: what a file of some 4,000 services needs.
const NODES_MAX: usize = 200_000;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where; of a list or map, its first line.
    pub(crate) span: Span,
    /// What.
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    /// A text or number; which of them depends on who reads it.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; no key occurs twice.
    Map(Vec<Entry>),
}

/// A scalar.
#[derive(Debug)]
pub(crate) struct Scalar {
    /// Its text, without quotes and with its escapes resolved.
    pub(crate) text: String,
    /// Written without quotes, so that it may be a number.
    pub(crate) plain: bool,
    /// Where in the source its first character stands, when its text stands in one line of the source as it is;
    /// then a part of it can be pointed at.
    at: Option<Span>,
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_span: Span,
    /// The value; where there is none, it stands where the key does.
    pub(crate) value: Node,
}

impl Node {
    /// What this is, for "expected …, found …".
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Nothing => "nothing".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
            Value::Scalar(scalar) if scalar.looks_like_number() => {
                format!("the number {}", short(&scalar.text))
            }
            Value::Scalar(scalar) if scalar.looks_like_truth() => short(&scalar.text),
            Value::Scalar(scalar) => format!("the text \"{}\"", short(&scalar.text)),
        }
    }

    /// The span of `length` characters of this scalar from its character `from`, or of all of it.
    pub(crate) fn part(&self, from: usize, length: usize) -> Span {
        match &self.value {
            Value::Scalar(Scalar { at: Some(at), .. }) => {
                Span { line: at.line, column: at.column + from as u32, length: length.max(1) as u32 }
            }
            _ => self.span,
        }
    }
}

impl Scalar {
    /// A number, for who reads it as YAML's core schema does.
    pub(crate) fn looks_like_number(&self) -> bool {
        self.plain && self.text.contains(|c: char| c.is_ascii_digit()) && self.text.parse::<f64>().is_ok()
    }

    /// True or false, for who reads it as YAML's core schema does.
    pub(crate) fn looks_like_truth(&self) -> bool {
        self.plain && matches!(&*self.text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
    }
}

/// A text as it is shown inside a message: one line, not endless.
pub(crate) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String =
        text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The one document of `source`. `None`: it cannot be read, and `problems` says why.
pub(crate) fn parse(source: &Source, problems: &mut Problems) -> Option<Node> {
    let mut tree = Tree { source, problems, open: Vec::new(), root: None, nodes: 0, place: Place::default() };
    for event in Parser::new_from_str(&source.text) {
        let result = match event {
            Ok((event, span)) => {
                tree.place.go_to(&source.text, span.start.index());
                tree.event(&event, source.span(span.start, span.end))
            }
            Err(error) => Err(broken(source, &error)),
        };
        if let Err(problem) = result {
            tree.problems.add(problem);
            return None;
        }
    }
    let empty = || {
        let span = Span { line: 1, column: 1, length: 1 };
        Problem::error(span, "the file is empty").hint("a mesh file begins with its name: `mesh: shop`")
    };
    match tree.root.take() {
        None | Some(Node { value: Value::Nothing, .. }) => {
            tree.problems.add(empty());
            None
        }
        root => root,
    }
}

/// A tree that grows event by event; no recursion, so that depth costs no stack.
struct Tree<'a> {
    source: &'a Source,
    problems: &'a mut Problems,
    /// The lists and maps that are not closed yet, the outermost first.
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    /// Where the current event begins.
    place: Place,
}

/// A place in the text that follows the events: counting characters anew for each of them would take a time that
/// grows with the square of a line's length.
#[derive(Default)]
struct Place {
    /// Characters before it.
    index: usize,
    /// Bytes before it.
    byte: usize,
}

impl Place {
    fn go_to(&mut self, text: &str, index: usize) {
        let (before, after) = text.split_at_checked(self.byte).unwrap_or((text, ""));
        if let Some(ahead) = index.checked_sub(self.index) {
            self.byte += after.chars().take(ahead).map(char::len_utf8).sum::<usize>();
        } else {
            self.byte -= before.chars().rev().take(self.index - index).map(char::len_utf8).sum::<usize>();
        }
        self.index = index;
    }
}

/// A list or map that is not closed yet.
enum Open {
    List(Span, Vec<Node>),
    /// With the key that waits for its value.
    Map(Span, Vec<Entry>, Option<(String, Span)>),
}

impl Tree<'_> {
    /// Takes the next event. An error ends the reading: what follows would only repeat it.
    fn event(&mut self, event: &Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Problem::error(span, "a second document begins here; a mesh file is one document")
                    .hint("remove this `---`, or put what follows into a file of its own"))
            }
            Event::Alias(_) => Err(no_anchor(span, "an alias (`*name`)")),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if *anchor > 0 =>
            {
                Err(no_anchor(Span { length: 1, ..span }, "an anchor (`&name`)"))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(self.tag(span)),
            Event::Scalar(text, style, ..) => self.scalar(text, *style, span),
            Event::SequenceStart(..) => self.open(Open::List(span, Vec::new())),
            Event::MappingStart(..) => self.open(Open::Map(span, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> Result<(), Problem> {
        let plain = style == ScalarStyle::Plain;
        if let Some(Open::Map(_, _, key @ None)) = self.open.last_mut() {
            *key = Some((text.to_owned(), span));
            return self.count(span);
        }
        if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return self.value(Node { span, value: Value::Nothing });
        }
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let start = Span { column: span.column + u32::from(quoted), ..span };
        let written = self.source.text.get(self.place.byte + usize::from(quoted)..).unwrap_or("");
        let as_written = (plain || quoted) && written.starts_with(text) && !text.contains('\n');
        let scalar = Scalar { text: text.to_owned(), plain, at: as_written.then_some(start) };
        self.value(Node { span, value: Value::Scalar(scalar) })
    }

    fn open(&mut self, open: Open) -> Result<(), Problem> {
        let (Open::List(span, _) | Open::Map(span, ..)) = &open;
        if let Some(Open::Map(_, _, None)) = self.open.last() {
            return Err(Problem::error(*span, "a key is a text, not a list or map"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Problem::error(
                *span,
                format!("lists and maps are nested more than {DEPTH_MAX} deep"),
            ));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Problem> {
        match self.open.pop() {
            Some(Open::List(span, list)) => {
                self.value(Node { span: self.source.until(span, end), value: Value::List(list) })
            }
            Some(Open::Map(span, entries, _)) => {
                let entries = self.unique(entries);
                self.value(Node { span: self.source.until(span, end), value: Value::Map(entries) })
            }
            None => Ok(()),
        }
    }

    /// A tag, shown as it is written.
    fn tag(&self, span: Span) -> Problem {
        let written =
            self.source.text.get(self.place.byte..).unwrap_or("").split_whitespace().next().unwrap_or("!");
        let length = written.chars().count() as u32;
        Problem::error(
            Span { length, ..span },
            format!("a tag such as `{}` is not supported", short(written)),
        )
        .hint("remove the tag; Leno knows the type that each field has")
    }

    fn value(&mut self, mut node: Node) -> Result<(), Problem> {
        self.count(node.span)?;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, list)) => list.push(node),
            Some(Open::Map(_, entries, key)) => {
                if let Some((key, key_span)) = key.take() {
                    if matches!(node.value, Value::Nothing) {
                        node.span = key_span;
                    }
                    entries.push(Entry { key, key_span, value: node });
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, span: Span) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Problem::error(span, format!("the file has more than {NODES_MAX} values")));
        }
        Ok(())
    }

    /// The entries without a key that was there before, each reported.
    fn unique(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut first: BTreeMap<String, Span> = BTreeMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.key == "<<" {
                self.problems.add(no_anchor(entry.key_span, "a merge key (`<<`)"));
            } else if let Some(before) = first.get(&entry.key) {
                let message = format!("\"{}\" is given twice", short(&entry.key));
                self.problems.add(
                    Problem::error(entry.key_span, message)
                        .related(*before, "first given here")
                        .hint("keep one of the two"),
                );
            } else {
                first.insert(entry.key.clone(), entry.key_span);
                kept.push(entry);
            }
        }
        kept
    }
}

impl Source {
    /// The span of a pair of markers; what runs over several lines ends with its first line.
    fn span(&self, start: Marker, end: Marker) -> Span {
        // What is missing at the very end stands, for the scanner, on the line after the last one.
        let line = (start.line() as u32).min(self.line_count());
        let span = Span { line, column: start.col() as u32 + 1, length: 1 };
        if end.line() == start.line() {
            Span { length: end.col().saturating_sub(start.col()).max(1) as u32, ..span }
        } else {
            self.until(span, Span { line: end.line() as u32, column: 1, length: 1 })
        }
    }

    /// From the beginning of `start` to the end of `end`, or of the line.
    fn until(&self, start: Span, end: Span) -> Span {
        // At most as many nodes as may be nested are open at the end of a line, so this reads no line too often.
        let line_end = || self.line(start.line).trim_end().chars().count() as u32 + 1;
        let end = if end.line == start.line { end.column + end.length } else { line_end() };
        Span { length: end.saturating_sub(start.column).max(1), ..start }
    }
}

fn no_anchor(span: Span, what: &str) -> Problem {
    Problem::error(span, format!("{what} is not supported in a mesh file"))
        .hint("write the value out where it is needed; `run`, `dir` and `env` of a service hold for all its instances")
}

/// What the scanner says, in words that help.
fn broken(source: &Source, error: &ScanError) -> Problem {
    let mut span = source.span(*error.marker(), *error.marker());
    let info = error.info();
    // At the end of the file: point at the last line that has something.
    if source.line(span.line).trim().is_empty() {
        let above = (1..span.line).rev().find(|line| !source.line(*line).trim().is_empty());
        if let Some(line) = above {
            let end = source.line(line).trim_end().chars().count() as u32;
            span = Span { line, column: end.max(1), length: 1 };
        }
    }
    let line = source.line(span.line);
    let indent: &str = &line[..line.len() - line.trim_start().len()];
    if let Some(at) = indent.find('\t') {
        let tab = Span { column: at as u32 + 1, length: 1, ..span };
        return Problem::error(tab, "broken YAML: a tab in the indentation").hint("indent with spaces");
    }
    if info.contains("mapping values are not allowed") {
        return colon(source, span);
    }
    let (what, hint) = EXPLAINED
        .iter()
        .find(|(known, _, _)| info.contains(known))
        .map_or((info, None), |(_, what, hint)| (*what, Some((*hint).to_owned())));
    Problem::error(span, format!("broken YAML: {what}")).maybe_hint(hint)
}

/// A colon that makes a key where none can be: one of three slips.
fn colon(source: &Source, span: Span) -> Problem {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let line = source.line(span.line);
    let before: String = line.chars().take(span.column as usize - 1).collect();
    let above = (1..span.line).rev().find(|line| !source.line(*line).trim().is_empty());
    if before.contains(": ") || before.contains('{') {
        return Problem::error(span, "broken YAML: a second `: ` in one line")
            .hint("put a text that has `: ` in it into quotes");
    }
    match above {
        Some(above) if indent(source.line(above)) >= indent(line) && !source.line(above).contains(':') => {
            let text = source.line(above);
            let (column, length) = (indent(text) as u32 + 1, text.trim().chars().count() as u32);
            Problem::error(Span { line: above, column, length }, "broken YAML: a line without its `:`")
                .hint("write `key: value`, with a space after the colon")
        }
        _ => {
            let span =
                Span { column: indent(line) as u32 + 1, length: line.trim().chars().count() as u32, ..span };
            Problem::error(
                span,
                "broken YAML: this line is deeper than the one above, which has its value already",
            )
            .hint("line up keys that belong together")
        }
    }
}

/// What the scanner says, what that means, and what to do.
const EXPLAINED: &[(&str, &str, &str)] = &[
    ("tab", "a tab where only spaces are allowed", "indent with spaces"),
    ("simple key expect", "a line without its `:`", "write `key: value`, with a space after the colon"),
    ("simple key", "a key that is not where one can be", "line up keys that belong together"),
    (
        "did not find expected key",
        "this line does not fit the ones above it",
        "line up keys that belong together; each list item begins with `- `",
    ),
    (
        "block sequence entries are not allowed",
        "a list item (`- `) where no list can be",
        "begin the list on a line of its own",
    ),
    ("unexpected end of stream", "a quote is opened and never closed", "close the quote"),
    (
        "unknown anchor",
        "an alias (`*name`) without its anchor",
        "put a text that begins with `*` into quotes",
    ),
    (
        "unknown escape character",
        "a backslash before a character that is no escape",
        "use single quotes: 'a\\b'",
    ),
    (
        "did not find expected node content",
        "a value is missing, or a list or map ends too early",
        "check the brackets, braces and commas",
    ),
    (
        "invalid indentation",
        "this line's indentation fits no line above",
        "line up keys that belong together",
    ),
    ("recursion limit", "lists and maps are nested too deep", "flatten the file"),
    ("unexpected character", "a text cannot begin with this character", "put the text into quotes"),
    (
        "expected ',' or ']'",
        "a list that begins with `[` is not closed with `]`",
        "check the brackets and commas",
    ),
    (
        "expected ',' or '}'",
        "a map that begins with `{` is not closed with `}`",
        "check the braces and commas",
    ),
];
