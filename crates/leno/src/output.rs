//! How results are written: aligned tables for people, one JSON document for programs.

use std::io::Write as _;

use serde::Serialize;

use crate::failure::Failure;

/// What `-o` chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes `value` as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write the result as JSON: {error}")))?;
    line(&text)
}

/// Writes one line to stdout. A closed pipe (`leno status | head -1`) is not an error.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Rows under a heading, each column as wide as its widest cell; no trailing blanks.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|cell| cell.to_uppercase()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut written = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            written.push_str(cell);
            let blanks = width.saturating_sub(cell.chars().count()) + COLUMN_GAP;
            written.extend(std::iter::repeat_n(' ', blanks));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text.pop();
    text
}

/// An optional cell; `-` where there is nothing.
pub(crate) fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Blanks between two columns.
const COLUMN_GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["product-1".into(), "v1".into()], vec!["u".into(), "-".into()]];
        assert_eq!(table(&["instance", "version"], &rows), "INSTANCE   VERSION\nproduct-1  v1\nu          -");
    }

    #[test]
    fn a_heading_without_rows_is_a_table_too() {
        assert_eq!(table(&["a", "b"], &[]), "A  B");
    }
}
