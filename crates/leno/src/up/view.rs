//! What the operator sees of a running mesh: lines, JSON events, or on a terminal lines above a live table.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::output::Output;

/// Where and how it is told.
pub(super) struct View {
    mode: Mode,
    /// A command that was given has stdout for itself.
    stderr: bool,
    /// Height of the table that stands at the bottom of the terminal.
    drawn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One JSON object per line.
    Json,
    /// Lines.
    Plain,
    /// Lines, and a table below them that is drawn anew.
    Live,
}

impl View {
    /// Chooses by `-o`, by whether stdout is a terminal, and by whether somebody else writes there too.
    pub(super) fn new(output: Output, with_command: bool, logging: bool) -> Self {
        let alone = !with_command && !logging;
        let mode = match output {
            Output::Json => Mode::Json,
            Output::Text if alone && std::io::stdout().is_terminal() => Mode::Live,
            Output::Text => Mode::Plain,
        };
        Self { mode, stderr: with_command, drawn: 0 }
    }

    /// Tells something: the object to programs, the text to people.
    pub(super) fn tell(&mut self, event: &Value, text: &str) {
        match self.mode {
            Mode::Json => self.write(&format!("{event}\n")),
            Mode::Plain => self.write(&format!("{text}\n")),
            Mode::Live => {
                let erase = self.erase();
                self.write(&format!("{erase}{text}\n"));
            }
        }
    }

    /// True when somebody looks at a table.
    pub(super) fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    /// Draws the table anew.
    pub(super) fn draw(&mut self, table: &str) {
        if self.mode == Mode::Live {
            let erase = self.erase();
            self.drawn = table.lines().count() + 1;
            self.write(&format!("{erase}{WRAP_OFF}\n{table}\n{WRAP_ON}"));
        }
    }

    /// Takes the table away.
    pub(super) fn close(&mut self) {
        if self.mode == Mode::Live {
            let erase = self.erase();
            self.write(&erase);
        }
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// A reader that went away does not stop a mesh.
    fn write(&self, text: &str) {
        if self.stderr {
            std::io::stderr().write_all(text.as_bytes()).ok();
        } else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
        }
    }
}

/// A line longer than the terminal is wide would break the count of lines; it is cut instead.
const WRAP_OFF: &str = "\x1b[?7l";
/// As it was.
const WRAP_ON: &str = "\x1b[?7h";
