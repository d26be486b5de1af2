//! `cargo xtask soak`: the real binary under bad load for half an hour; see docs/guards.md.

use std::path::PathBuf;
use std::process::Command;

use crate::shell;

/// What is typed.
pub(crate) struct Options {
    seconds: u64,
    seed: u64,
    clients: u64,
    /// The binary; without it one is built as it is released.
    leno: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { seconds: 30 * 60, seed: 1, clients: 64, leno: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{argument} takes a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("`{value}` is no number"));
            match argument.as_str() {
                "--minutes" => options.seconds = number()? * 60,
                "--seconds" => options.seconds = number()?,
                "--seed" => options.seed = number()?,
                "--clients" => options.clients = number()?,
                "--leno" => options.leno = Some(value.into()),
                other => return Err(format!("`soak` has no option `{other}`")),
            }
        }
        Ok(options)
    }
}

/// Runs it; true when the verdict is good.
pub(crate) fn run(options: &Options) -> bool {
    if !shell::succeeds(shell::cargo().args(["build", "--profile", "guard", "--package", "leno-guard"])) {
        return false;
    }
    let leno = match &options.leno {
        Some(path) => path.clone(),
        None => {
            if !shell::succeeds(shell::cargo().args(["build", "--release", "--package", "leno"])) {
                return false;
            }
            shell::target_dir().join("release/leno")
        }
    };
    let numbers = [options.seconds, options.seed, options.clients].map(|number| number.to_string());
    let mut soak = Command::new(shell::target_dir().join("guard/leno-guard"));
    shell::succeeds(soak.arg("soak").arg(leno).args(numbers))
}
