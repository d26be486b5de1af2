//! How a command ends when it does not end well: one sentence, and which of the two exit codes.

use std::fmt;
use std::process::ExitCode;

use crate::output::Output;

/// Exit code of a command that could not do what was asked.
pub(crate) const FAILED: u8 = 1;
/// Exit code of wrong usage or invalid input; clap uses the same.
pub(crate) const INVALID: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried and did not work.
    Failed(String),
    /// What was asked makes no sense; nothing was tried.
    Invalid(String),
    /// Everything to say has been said; only the exit code is left.
    Silent(u8),
}

impl Failure {
    /// Something that was tried and did not work.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// Something that makes no sense to try.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => FAILED,
            Self::Invalid(_) => INVALID,
            Self::Silent(code) => *code,
        })
    }

    /// Says it on stderr.
    pub(crate) fn report(&self, output: Output) {
        let (Self::Failed(message) | Self::Invalid(message)) = self else { return };
        match output {
            Output::Text => eprintln!("error: {message}"),
            Output::Json => eprintln!("{}", serde_json::json!({ "error": message })),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Invalid(message) => f.write_str(message),
            Self::Silent(code) => write!(f, "exit code {code}"),
        }
    }
}

/// The innermost cause of an error: what the operating system said, without the layers that passed it on.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
