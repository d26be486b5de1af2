//! `leno check`: what is wrong with a mesh file, without running anything.

use std::path::PathBuf;
use std::process::ExitCode;

use leno_config::native;
use serde_json::json;

use crate::failure::{Failure, INVALID};
use crate::output::{self, Output};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    /// The mesh file.
    #[arg(required_unless_present = "schema", conflicts_with = "schema")]
    file: Option<PathBuf>,
    /// Print the JSON Schema of mesh files instead.
    #[arg(long)]
    schema: bool,
}

impl CheckArgs {
    /// Checks and tells; exit code 2 if the file cannot be used.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        let Some(file) = &self.file else {
            output::json(&native::json_schema())?;
            return Ok(ExitCode::SUCCESS);
        };
        match (native::load(file), output) {
            (Ok(mesh), Output::Text) => {
                for warning in &mesh.warnings {
                    eprintln!("{warning}");
                }
                let instances: usize = mesh.services.iter().map(|service| service.instances.len()).sum();
                output::line(&format!(
                    "{}: fine ({} services, {instances} instances, {} gateways)",
                    file.display(),
                    mesh.services.len(),
                    mesh.gateways.len()
                ))?;
                Ok(ExitCode::SUCCESS)
            }
            (Ok(mesh), Output::Json) => {
                output::json(&json!({ "valid": true, "diagnostics": mesh.warnings, "more": 0 }))?;
                Ok(ExitCode::SUCCESS)
            }
            (Err(diagnostics), Output::Text) => {
                eprint!("{diagnostics}");
                Err(Failure::Silent(INVALID))
            }
            (Err(wrong), Output::Json) => {
                output::json(&json!({
                    "valid": false, "diagnostics": wrong.diagnostics, "more": wrong.more,
                }))?;
                Err(Failure::Silent(INVALID))
            }
        }
    }
}
