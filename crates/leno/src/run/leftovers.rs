//! What a run tells the next one about itself, so that whatever it could not clean up is found.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capture::place;
use crate::failure::Failure;

use super::processes::{Known, end_all, members};

/// One run, in a file named after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Unique.
    pub(super) name: String,
    /// `leno run` itself.
    pub(super) run: Known,
    /// The number of its network namespace, if it has one.
    pub(super) namespace: Option<u64>,
    /// Its sidecar and the process that holds its command.
    pub(super) processes: Vec<Known>,
    /// What it runs, for people.
    pub(super) command: Vec<String>,
}

/// The file of a run; removed with this value.
pub(super) struct Noted(pub(super) PathBuf);

impl Entry {
    /// Writes it, whole; the file.
    pub(super) fn write(&self) -> Result<PathBuf, Failure> {
        let folder = folder();
        let path = folder.join(format!("{}.json", self.name));
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let new = path.with_extension("new");
            fs::write(&new, serde_json::to_vec_pretty(self)?)?;
            fs::rename(new, &path)
        };
        write().map_err(|error: std::io::Error| {
            Failure::failed(format!("cannot write {}: {error}", path.display()))
        })?;
        Ok(path)
    }

    /// Ends everything of it. How many processes there were.
    fn end(&self) -> usize {
        let mut ended = self.processes.iter().filter(|process| process.is_alive()).count();
        self.processes.iter().for_each(|process| process.kill());
        if let Some(namespace) = self.namespace {
            // The number may be another namespace's by now: the name in it is ours.
            let ours = || {
                let mut found = members(namespace);
                let one = found.first().copied();
                if !one.is_some_and(|pid| self.is_in(pid)) {
                    found.clear();
                }
                found
            };
            ended += end_all(ours, GRACE);
        }
        ended
    }

    fn is_in(&self, pid: u32) -> bool {
        place::name_of(Path::new(&format!("/proc/{pid}/ns/net"))).as_ref() == Some(&self.name)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // One that stays is looked at by the next run.
        fs::remove_file(&self.0).ok();
    }
}

/// What was cleaned up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Cleaned {
    /// Runs that had not cleaned up after themselves.
    pub(super) runs: usize,
    /// Their processes.
    pub(super) processes: usize,
}

/// Ends what runs left that are over.
pub(super) fn clean() -> Cleaned {
    let mut cleaned = Cleaned::default();
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten().take(RUNS_MAX);
    for path in entries.map(|entry| entry.path()) {
        let entry = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
        match entry {
            Some(entry) if entry.run.is_alive() => {}
            Some(entry) => {
                cleaned.runs += 1;
                cleaned.processes += entry.end();
                fs::remove_file(&path).ok();
            }
            // Half written by somebody who was killed, or by somebody who is about to finish.
            None if old(&path) => {
                fs::remove_file(&path).ok();
            }
            None => {}
        }
    }
    cleaned
}

fn old(path: &Path) -> bool {
    let modified = path.metadata().and_then(|data| data.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > HALF_WRITTEN_MAX))
}

/// Where runs are noted: gone after a restart of the machine, as they are.
fn folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/leno/run");
    }
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = user.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("leno-{}", rustix::process::geteuid().as_raw()))
    });
    user.join("leno").join("run")
}

/// Between asking and killing what a dead run left.
const GRACE: Duration = Duration::from_millis(500);
/// Files looked at in one place.
const RUNS_MAX: usize = 10_000;
/// A file is written in a moment.
const HALF_WRITTEN_MAX: Duration = Duration::from_secs(60);
