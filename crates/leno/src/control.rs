//! `leno control`: the control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use leno_control::{ControlConfig, StateDir};
use leno_core::name::TrustDomain;

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
    /// Where proxies dial.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 15010)))]
    mesh_listen: SocketAddr,
    /// Where the JSON API is served; plain HTTP, so keep it on loopback.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 15014)))]
    api_listen: SocketAddr,
    /// What certificates vouch for [default: the mesh file's, else leno.mesh].
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// How long an instance stays in the registry without a sign of life.
    #[arg(long, value_name = "SECONDS")]
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
        let trust_domain = self.trust_domain.as_deref().map(TrustDomain::parse).transpose();
        let trust_domain =
            trust_domain.map_err(|error| Failure::invalid(format!("--trust-domain: {error}")))?;
        let config = ControlConfig {
            // clap has seen to it that one of the two is there.
            state: self.state.map_or(StateDir::Ephemeral, StateDir::Path),
            file: self.file,
            trust_domain,
            mesh_listen: self.mesh_listen,
            api_listen: self.api_listen,
            api_token: std::env::var("LENO_API_TOKEN").ok(),
            lease: self.lease.map_or(LEASE_DEFAULT, Duration::from_secs),
        };
        let ready = |bound: &leno_control::Bound| {
            let line = serde_json::json!({
                "event": "ready",
                "mesh": bound.mesh.to_string(),
                "api": bound.api.to_string(),
            });
            // A closed stdout: nobody waits for the line.
            let _ = crate::output::line(&line.to_string());
        };
        match leno_control::run(config, ready) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }
}

/// How long an instance stays in the registry without a sign of life: three missed heartbeats.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
