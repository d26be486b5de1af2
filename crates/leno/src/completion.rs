//! `leno completion`: a script that teaches a shell Leno's commands.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Known,
}

/// The shells whose scripts are kept working.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Known {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl CompletionArgs {
    /// Writes the script to stdout.
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "leno", &mut script);
        crate::output::line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
