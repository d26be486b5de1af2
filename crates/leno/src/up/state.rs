//! The state directory: made, locked, and in the case of a throw-away mesh removed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

use super::run_file::{LOCK, RUN_FILE, STATE_FOLDER};

/// A state directory that belongs to this process as long as the value lives.
pub(super) struct State {
    path: PathBuf,
    /// Removed at the end.
    ephemeral: bool,
    /// Holds the lock.
    lock: File,
}

/// Which directory, as typed.
pub(super) enum StateChoice<'a> {
    /// This one.
    Named(&'a Path),
    /// A new one, for this run only.
    Ephemeral,
    /// `.leno/MESH` beside the mesh file.
    Beside(&'a Path),
}

impl State {
    /// Makes and locks the directory of the mesh called `mesh`.
    pub(super) fn open(choice: &StateChoice<'_>, mesh: &str, seed: u64) -> Result<Self, Failure> {
        let path = match choice {
            StateChoice::Named(path) => path.to_path_buf(),
            StateChoice::Ephemeral => std::env::temp_dir().join(format!("leno-{mesh}-{seed:016x}")),
            StateChoice::Beside(file) => beside(file)?.join(mesh),
        };
        let cannot = |error: std::io::Error| {
            Failure::failed(format!(
                "the state directory {} cannot be used: {error}; `--state DIR` names another",
                path.display()
            ))
        };
        make(&path).map_err(cannot)?;
        make(&path.join(LOGS)).map_err(cannot)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed(format!(
                    "another `leno up` uses the state directory {}; stop it, or name another with `--state DIR`",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        // Absolute, because processes with other working folders are given paths below it.
        let path = fs::canonicalize(&path).map_err(cannot)?;
        Ok(Self { path, ephemeral: matches!(choice, StateChoice::Ephemeral), lock })
    }

    /// The directory, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control plane keeps what it knows.
    pub(super) fn control(&self) -> PathBuf {
        self.path.join("control")
    }

    /// Where the control plane puts the token for its API's writes.
    pub(super) fn token_file(&self) -> PathBuf {
        self.control().join("api-token")
    }

    /// Where output is kept.
    pub(super) fn logs(&self) -> PathBuf {
        self.path.join(LOGS)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // What cannot be removed is harmless: the lock tells everybody that nothing runs.
        fs::remove_file(self.path.join(RUN_FILE)).ok();
        if self.ephemeral {
            fs::remove_dir_all(&self.path).ok();
        }
        self.lock.unlock().ok();
    }
}

/// The folder for states beside a mesh file. Version control does not see it.
pub(super) fn beside(file: &Path) -> Result<PathBuf, Failure> {
    let folder = file.with_file_name(STATE_FOLDER);
    let cannot = |error| {
        let folder = folder.display();
        Failure::failed(format!(
            "the state directory {folder} cannot be used: {error}; `--state DIR` names another"
        ))
    };
    make(&folder).map_err(cannot)?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        fs::write(ignore, "*\n").map_err(cannot)?;
    }
    Ok(folder)
}

/// A private directory; one that exists is left as it is.
fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// In the state directory.
const LOGS: &str = "logs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.yaml");
        let first = State::open(&StateChoice::Beside(&file), "shop", 1).unwrap();
        let second = State::open(&StateChoice::Beside(&file), "shop", 2).map(drop).unwrap_err().to_string();
        assert!(second.starts_with("another `leno up` uses the state directory"), "{second}");
        drop(first);
        State::open(&StateChoice::Beside(&file), "shop", 3).map(drop).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(".leno/.gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn an_ephemeral_one_leaves_nothing() {
        let state = State::open(&StateChoice::Ephemeral, "shop", u64::from(std::process::id())).unwrap();
        let path = state.path().to_owned();
        assert!(path.join(LOGS).is_dir());
        drop(state);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = State::open(&StateChoice::Named(&path.join("state")), "shop", 1).map(drop).unwrap_err();
        assert!(error.to_string().contains("file/state cannot be used"), "{error}");
    }
}
