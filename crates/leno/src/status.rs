//! `leno status`: how the mesh is, in a page.

use std::process::ExitCode;
use std::time::Duration;

use leno_wire::api::{ProxyKind, ProxyView, Status};
use serde_json::Value;

use crate::client::{self, ApiArgs};
use crate::failure::Failure;
use crate::output::{self, Output};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,
}

impl StatusArgs {
    /// Asks and shows.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        let api = self.api.resolve()?;
        let answer: Value = client::block_on(api.get("/v1/status"))?;
        match output {
            Output::Json => output::json(&answer)?,
            Output::Text => output::line(&page(&client::known(answer)?))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn page(status: &Status) -> String {
    let Status { mesh, version, generation, uptime_ms, counts, file, proxies } = status;
    let up = up_for(Duration::from_millis(*uptime_ms));
    let mut page = format!(
        "{mesh}: leno {version}, up {up}, generation {generation}\n\
         {} services, {} of {} instances healthy, {} gateways, {} of {} proxies connected\n",
        counts.services, counts.healthy, counts.instances, counts.gateways, counts.connected, counts.proxies
    );
    if let Some(file) = file {
        page.push_str(&format!("from {}\n", file.path));
        if let Some(problem) = &file.problem {
            page.push_str(&format!("the newest version of the file is not in force: {problem}\n"));
        }
    }
    if proxies.is_empty() {
        return page.trim_end().to_owned();
    }
    page.push('\n');
    let mut rows: Vec<Vec<String>> = proxies.iter().map(row).collect();
    let mut heading = vec!["proxy", "kind", "service", "connected", "generation", "current"];
    if proxies.iter().any(|proxy| proxy.zone.is_some()) {
        heading.insert(3, "zone");
        let zones = proxies.iter().map(|proxy| output::cell(proxy.zone.as_ref()));
        rows.iter_mut().zip(zones).for_each(|(row, zone)| row.insert(3, zone));
    }
    page.push_str(&output::table(&heading, &rows));
    for proxy in proxies {
        for rejection in &proxy.rejected {
            page.push_str(&format!("\n{} refuses {}: {}", proxy.name, rejection.resource, rejection.reason));
        }
    }
    page
}

fn row(proxy: &ProxyView) -> Vec<String> {
    let kind = match proxy.kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Gateway => "gateway",
    };
    vec![
        proxy.name.clone(),
        kind.to_owned(),
        proxy.service.clone(),
        yes(proxy.connected),
        proxy.generation_acknowledged.to_string(),
        yes(proxy.up_to_date),
    ]
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// The two largest units: `2d 3h`, `5m 1s`, `7s`.
fn up_for(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        let shown = [7, 61, 3_600, 90_061].map(|seconds| up_for(Duration::from_secs(seconds)));
        assert_eq!(shown, ["7s", "1m 1s", "1h 0m", "1d 1h"]);
    }
}
