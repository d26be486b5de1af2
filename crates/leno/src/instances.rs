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
                let mut rows: Vec<Vec<String>> = instances.iter().map(row).collect();
                let mut heading =
                    vec!["instance", "service", "version", "weight", "health", "address", "over", "why"];
                // Most meshes have neither.
                let labels = |it: &InstanceView| {
                    let labels = it.labels.iter().map(|(key, value)| format!("{key}={value}"));
                    Some(labels.collect::<Vec<_>>().join(",")).filter(|labels| !labels.is_empty())
                };
                add(&mut heading, "labels", &mut rows, instances.iter().map(labels));
                add(&mut heading, "zone", &mut rows, instances.iter().map(|it| it.zone.clone()));
                output::line(&output::table(&heading, &rows))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Adds a column behind the version if anybody has something in it.
fn add(
    heading: &mut Vec<&'static str>,
    name: &'static str,
    rows: &mut [Vec<String>],
    cells: impl Iterator<Item = Option<String>>,
) {
    let cells: Vec<Option<String>> = cells.collect();
    if cells.iter().any(Option::is_some) {
        heading.insert(3, name);
        rows.iter_mut().zip(&cells).for_each(|(row, cell)| row.insert(3, output::cell(cell.as_ref())));
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
