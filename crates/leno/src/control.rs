//! `leno control`: the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use leno_control::{Bound, ControlConfig, StateDir};
use leno_core::name::TrustDomain;
use serde_json::json;

use crate::failure::Failure;

/// What was typed.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["state", "ephemeral"])))]
pub(crate) struct ControlArgs {
    /// Where everything it knows is kept.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep nothing over a restart.
    #[arg(long)]
    ephemeral: bool,
    /// Declare the services and gateways of this mesh file; followed when it changes.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where proxies dial [default: 127.0.0.1:15010].
    #[arg(long, value_name = "ADDR")]
    mesh_listen: Option<SocketAddr>,
    /// Where the JSON API is served; plain HTTP, so keep it on loopback [default: 127.0.0.1:15014].
    #[arg(long, value_name = "ADDR")]
    api_listen: Option<SocketAddr>,
    /// What certificates vouch for [default: the mesh file's, else leno.mesh].
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    trust_domain: Option<TrustDomain>,
    /// How long an instance stays in the registry without a sign of life [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    lease: Option<u64>,
    /// End when stdin does.
    #[arg(long, hide = true)]
    die_with_parent: bool,
}

impl ControlArgs {
    /// Runs the control plane until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.die_with_parent {
            crate::parent::exit_at_stdin_eof();
        }
        let state = match self.state {
            Some(path) => StateDir::Path(path),
            None => StateDir::Ephemeral,
        };
        let mut config = ControlConfig::new(state);
        config.file = self.file;
        config.trust_domain = self.trust_domain;
        config.mesh_listen = self.mesh_listen.unwrap_or(config.mesh_listen);
        config.api_listen = self.api_listen.unwrap_or(config.api_listen);
        config.lease = self.lease.map_or(config.lease, Duration::from_secs);
        let ephemeral = config.state == StateDir::Ephemeral;
        leno_control::run(config, |bound| tell_ready(bound, ephemeral))
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// One JSON line for whoever started us. Without a state directory it is the only place for the API's token.
fn tell_ready(bound: &Bound, ephemeral: bool) {
    let mut ready = json!({
        "event": "ready",
        "mesh": bound.mesh.to_string(),
        "api": bound.api.to_string(),
        "trust_domain": bound.trust_domain.as_str(),
    });
    if let (true, Some(fields)) = (ephemeral, ready.as_object_mut()) {
        fields.insert("api_token".to_owned(), bound.api_token.clone().into());
    }
    crate::output::line(&ready.to_string()).ok();
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}
