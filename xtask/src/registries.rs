//! Libraries nobody here wrote that tests use as clients and servers, from the registries of Python and Node.
//!
//! They are put below the build's own folder, each version pinned, by the registries' ordinary clients. Without a network, or without
//! those clients, the tests that need one say `SKIPPED`.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// Installs what is missing. Returns a line for each kind that is missing afterwards.
pub(crate) fn provide() -> Vec<String> {
    let folder = shell::target_dir().join("apps");
    if let Err(error) = std::fs::create_dir_all(&folder) {
        return vec![format!("{}: {error}", folder.display())];
    }
    let python =
        python(&folder).map_err(|error| format!("no gRPC, WebSockets and SMTP by Python in tests: {error}"));
    let node = node(&folder).map_err(|error| format!("no WebSockets by Node in tests: {error}"));
    [python, node].into_iter().filter_map(Result::err).collect()
}

/// A virtual environment with [`PYTHON`].
fn python(folder: &Path) -> Result<(), String> {
    let environment = folder.join("venv");
    let wanted = PYTHON.join(" ");
    // Written last: an installation that was cut short does not have it.
    let complete = environment.join("complete");
    let python = environment.join("bin/python3");
    if python.is_file() && std::fs::read_to_string(&complete).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    println!("installing {wanted} into {}", environment.display());
    let system = shell::find_program("python3").ok_or("python3 is not installed")?;
    shell::output(Command::new(system).args(["-m", "venv"]).arg(&environment))?;
    shell::output(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON))?;
    std::fs::write(&complete, wanted).map_err(|error| format!("{}: {error}", complete.display()))
}

/// A folder of modules with [`NODE`].
fn node(folder: &Path) -> Result<(), String> {
    let wanted = NODE.join(" ");
    let modules = folder.join("node_modules");
    let complete = modules.join("complete");
    if std::fs::read_to_string(&complete).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    println!("installing {wanted} into {}", modules.display());
    let npm = shell::find_program("npm").ok_or("npm is not installed")?;
    let mut command = Command::new(npm);
    command.args([
        "install",
        "--no-save",
        "--no-package-lock",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    shell::output(command.arg("--prefix").arg(folder).args(NODE))?;
    std::fs::write(&complete, wanted).map_err(|error| format!("{}: {error}", complete.display()))
}

/// gRPC (the C core), WebSockets, an SMTP server.
const PYTHON: &[&str] = &["grpcio==1.85.3", "websockets==17.4", "aiosmtpd==1.4.6"];
/// WebSockets.
const NODE: &[&str] = &["ws@8.23.0"];
