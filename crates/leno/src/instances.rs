//! `leno instances`: who answers.

use std::process::ExitCode;

use leno_wire::api::{HealthState, InstanceView, TransportKind};
use serde_json::Value;

use crate::client::{self, ApiArgs};
use crate::failure::Failure;
use crate::output::{self, Output};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct InstancesArgs {
    /// Only those of this service: NAME, or NAMESPACE/NAME.
    service: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

impl InstancesArgs {
    /// Asks and shows.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        let api = self.api.resolve()?;
        let answer = client::block_on(api.list("instances"))?;
        let answer = client::only(answer, "service", self.service.as_deref())?;
        match output {
            Output::Json => output::json(&answer)?,
            Output::Text => {
                let instances: Vec<InstanceView> = client::known(Value::Array(answer))?;
                let rows: Vec<Vec<String>> = instances.iter().map(row).collect();
                let heading =
                    ["instance", "service", "version", "weight", "health", "address", "over", "why"];
                output::line(&output::table(&heading, &rows))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(instance: &InstanceView) -> Vec<String> {
    let over = match instance.transport {
        TransportKind::Mesh => "mtls",
        TransportKind::Plain => "plain",
    };
    vec![
        instance.name.clone(),
        instance.service.clone(),
        output::cell(instance.version.as_ref()),
        instance.weight.to_string(),
        health(instance.health).to_owned(),
        instance.address.clone(),
        over.to_owned(),
        instance.reason.clone().unwrap_or_default(),
    ]
}

/// The word for a health.
pub(crate) const fn health(state: HealthState) -> &'static str {
    match state {
        HealthState::Healthy => "healthy",
        HealthState::Unhealthy => "unhealthy",
        HealthState::Expired => "expired",
    }
}
