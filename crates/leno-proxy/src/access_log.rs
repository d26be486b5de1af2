//! One JSON line per request, written by a thread of its own so that a slow disk never holds up a worker: when the
//! queue is full, lines are dropped and counted.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::config::AccessLog;

/// Lines waiting to be written; some 8 MiB at 500 bytes each.
const QUEUE_LINES_MAX: usize = 16 * 1024;

/// The workers' end of the log.
#[derive(Clone, Debug, Default)]
pub struct Log(Option<SyncSender<String>>);

impl Log {
    /// True when lines are wanted at all.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a line (without its end); false when it was dropped.
    pub fn write(&self, line: String) -> bool {
        match &self.0 {
            Some(queue) => match queue.try_send(line) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            },
            None => true,
        }
    }
}

/// Opens the log and starts its writer. The writer ends when every [`Log`] has been dropped.
pub fn open(target: &AccessLog) -> io::Result<(Log, Option<JoinHandle<()>>)> {
    let sink: Box<dyn Write + Send> = match target {
        AccessLog::Off => return Ok((Log(None), None)),
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || write(&lines, sink))?;
    Ok((Log(Some(queue)), Some(writer)))
}

fn write(lines: &Receiver<String>, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::new(sink);
    while let Ok(mut line) = lines.recv() {
        loop {
            line.push('\n');
            // A full disk loses lines, never requests; it is said once per failed write at most by the flush below.
            let _ = sink.write_all(line.as_bytes());
            match lines.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        if let Err(error) = sink.flush() {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

/// Appends `text` as a JSON string.
pub fn json_string(out: &mut String, text: &[u8]) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                use std::fmt::Write;
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
