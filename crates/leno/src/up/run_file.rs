//! What a running `leno up` leaves in its state directory, so that `leno status` and the like find it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// `STATE/run.json`. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    /// The mesh's name.
    pub(crate) mesh: String,
    /// The supervisor.
    pub(crate) pid: u32,
    /// `http://IP:PORT` of the control plane's JSON API.
    pub(crate) api: String,
    /// Where the control plane's proxies dial, `IP:PORT`.
    pub(crate) control: String,
    /// The file that holds the token for the API's writes.
    pub(crate) token_file: PathBuf,
    /// `http://IP:PORT` of each gateway; `https`, `tls` or `tcp` where its first listener speaks that.
    pub(crate) gateways: Vec<String>,
    /// Every process of the mesh.
    pub(crate) processes: Vec<ProcessEntry>,
}

/// One process of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessEntry {
    /// Unique among them.
    pub(crate) name: String,
    /// `control`, `sidecar`, `service` or `gateway`.
    pub(crate) kind: String,
    /// The leader of its process group; unset while it is down. For a service: the wrapper around its command.
    pub(crate) pid: Option<u32>,
    /// `http://IP:PORT` of a proxy's admin server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<String>,
}

impl RunFile {
    /// What runs with its state in `state`, if something does.
    pub(crate) fn read(state: &Path) -> Option<Self> {
        // The supervisor holds the lock for as long as it lives, however it ends; the file may outlive it.
        let lock = File::open(state.join(LOCK)).ok()?;
        if lock.try_lock_shared().is_ok() {
            return None;
        }
        serde_json::from_slice(&fs::read(state.join(RUN_FILE)).ok()?).ok()
    }

    /// The mesh that runs here: its state is beside ./mesh.yaml or the example.
    ///
    /// # Errors
    /// Several run: one has to be named.
    pub(crate) fn find() -> Result<Option<Self>, Failure> {
        let folders = super::DEFAULT_FILES.iter().map(|file| Path::new(file).with_file_name(STATE_FOLDER));
        let mut running: Vec<(PathBuf, Self)> = folders
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().take(STATES_MAX))
            .filter_map(|entry| Some((entry.path(), Self::read(&entry.path())?)))
            .collect();
        if running.len() > 1 {
            let states: Vec<String> =
                running.iter().map(|(state, _)| format!("--state {}", state.display())).collect();
            return Err(Failure::invalid(format!(
                "several meshes run here; name one: {}",
                states.join(", ")
            )));
        }
        Ok(running.pop().map(|(_, run)| run))
    }

    /// Replaces `STATE/run.json` whole, so that nobody reads half of it.
    pub(super) fn write(&self, state: &Path) -> std::io::Result<()> {
        let new = state.join("run.json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, state.join(RUN_FILE))
    }
}

/// Where states are, beside the mesh file: one folder per mesh in it.
pub(super) const STATE_FOLDER: &str = ".leno";
/// In the state directory.
pub(super) const RUN_FILE: &str = "run.json";
/// In the state directory; locked by the supervisor while it lives.
pub(super) const LOCK: &str = "lock";
/// Folders looked at in one place.
const STATES_MAX: usize = 100;
