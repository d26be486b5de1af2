//! What the operator sees of a running mesh: lines, JSON events, or on a terminal lines above a live table.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use serde_json::Value;

use crate::output::Output;

/// Where and how it is told.
pub(super) struct View {
    mode: Mode,
    /// To the thread that writes: a reader who stops reading must not stop the supervisor.
    texts: Option<SyncSender<String>>,
    /// Tells when everything is written.
    written: Receiver<()>,
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
        let (texts, to_write) = mpsc::sync_channel(TEXTS_MAX);
        let (tell_written, written) = mpsc::channel();
        // A command that was given has stdout for itself.
        let writer = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            write_all(&to_write, with_command);
            tell_written.send(()).ok();
        });
        Self { mode, texts: writer.ok().map(|_| texts), written, drawn: 0 }
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

    /// Waits until everything is written, a while.
    pub(super) fn finish(mut self) {
        if self.texts.take().is_some() {
            self.written.recv_timeout(WRITE_MAX).ok();
        }
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// What does not fit is lost: nobody has read for long.
    fn write(&self, text: &str) {
        if let Some(texts) = &self.texts {
            texts.try_send(text.to_owned()).ok();
        }
    }
}

/// Writes until there will be no more. A reader that went away does not stop a mesh.
fn write_all(texts: &Receiver<String>, stderr: bool) {
    for text in texts {
        if stderr {
            std::io::stderr().write_all(text.as_bytes()).ok();
        } else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
        }
    }
}

/// Texts that wait for a slow reader.
const TEXTS_MAX: usize = 1000;
/// For a slow reader at the end.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// A line longer than the terminal is wide would break the count of lines; it is cut instead.
const WRAP_OFF: &str = "\x1b[?7l";
/// As it was.
const WRAP_ON: &str = "\x1b[?7h";
