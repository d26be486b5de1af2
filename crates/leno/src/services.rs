//! `leno services`: what there is to call.

use std::process::ExitCode;

use leno_wire::api::{ServiceView, Source};
use serde_json::Value;

use crate::client::{self, ApiArgs};
use crate::failure::Failure;
use crate::output::{self, Output};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct ServicesArgs {
    /// Only this one: NAME, or NAMESPACE/NAME.
    service: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

impl ServicesArgs {
    /// Asks and shows.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        let api = self.api.resolve()?;
        let answer = client::block_on(api.list("services"))?;
        let answer = client::only(answer, "name", self.service.as_deref())?;
        match output {
            Output::Json => output::json(&answer)?,
            Output::Text => {
                let services: Vec<ServiceView> = client::known(Value::Array(answer))?;
                let rows: Vec<Vec<String>> = services.iter().map(row).collect();
                output::line(&output::table(&["service", "healthy", "versions", "calls", "from"], &rows))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(service: &ServiceView) -> Vec<String> {
    let source = match service.source {
        Source::File => "file",
        Source::Api => "api",
    };
    vec![
        service.name.clone(),
        format!("{}/{}", service.healthy, service.instances),
        listed(&service.versions),
        listed(&service.declaration.calls),
        source.to_owned(),
    ]
}

fn listed(names: &[String]) -> String {
    output::cell(Some(names.join(",")).filter(|text| !text.is_empty()))
}
