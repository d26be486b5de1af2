//! The output of one process: kept in a bounded file, its last lines also in memory to be shown when it fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

/// One process's output.
pub(super) struct LogFile {
    path: PathBuf,
    /// Unset after an error: output that cannot be kept must not stop the process that writes it.
    file: Option<File>,
    /// In `file`.
    bytes: u64,
    /// The newest lines, at most [`TAIL_LINES`].
    tail: VecDeque<String>,
}

impl LogFile {
    /// Begins a new file at `path`; what was there stays as `path.1`.
    pub(super) fn create(path: PathBuf) -> Self {
        let mut log = Self { path, file: None, bytes: 0, tail: VecDeque::new() };
        log.rotate();
        log
    }

    /// A new process writes from now on: what the last one said no longer explains anything.
    pub(super) fn begin(&mut self) {
        self.tail.clear();
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) {
        if self.bytes > FILE_BYTES_MAX {
            self.rotate();
        }
        self.bytes += line.len() as u64 + 1;
        if let Some(file) = &mut self.file
            && file.write_all(format!("{line}\n").as_bytes()).is_err()
        {
            self.file = None;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    /// The newest lines.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old).ok();
        self.file = File::create(&self.path).ok();
        self.bytes = 0;
    }
}

/// A file that is larger is put aside and a new one begun: with the old one, twice this is kept of each process.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Shown when a process fails: enough for an error with its cause, few enough to be read.
const TAIL_LINES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::create(path.clone());
        let line = "x".repeat(1 << 16);
        for _ in 0..200 {
            log.line(&line);
        }
        log.line("the end");
        let kept: u64 =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * FILE_BYTES_MAX + (1 << 18), "{kept}");
        assert!(fs::read_to_string(path).unwrap().ends_with("the end\n"));
        assert_eq!(log.tail().len(), TAIL_LINES);
        assert_eq!(log.tail().last().map(String::as_str), Some("the end"));
    }
}
