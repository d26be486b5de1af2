//! A proxy under a control plane.

use std::net::SocketAddr;

use leno_core::snapshot::LocalApp;

use super::{Feed, Identity, SourceError};
use crate::agent::{self, AgentConfig};
use crate::clock::seed;
use crate::config::Workload;

/// Joins the control plane at `address`; `mesh` is where peers reach this sidecar.
pub(crate) fn open(
    address: &str,
    token: &str,
    workload: &Workload,
    mesh: Option<SocketAddr>,
) -> Result<(Feed, Identity), SourceError> {
    let config = AgentConfig {
        control: address.to_owned(),
        token: token.to_owned(),
        workload: workload.clone(),
        mesh_advertise: mesh,
    };
    let control =
        agent::start(config, seed(SALT)).map_err(|error| SourceError::Control(error.to_string()))?;
    let own = match workload {
        Workload::Sidecar { service, instance, app, .. } => {
            let instance = instance.as_str().into();
            let app = LocalApp { service: service.clone(), instance, address: *app };
            Identity { name: service.to_string().into(), app: Some(app), gateway: false }
        }
        Workload::Gateway { name } => Identity { name: name.as_str().into(), app: None, gateway: true },
    };
    let (world, credential) = (control.world.clone(), control.credential.clone());
    Ok((Feed { world, credential, control: Some(control), _keep: None }, own))
}

/// Tells the agent's chance from the workers', which are numbered from 0.
const SALT: u64 = u64::MAX;
