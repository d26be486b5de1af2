//! A proxy under a control plane: the agent keeps the channels up to date.

use std::net::SocketAddr;

use leno_core::snapshot::LocalApp;
use leno_core::spec::Tags;

use super::{Feed, Identity, SourceError};
use crate::agent::{self, AgentConfig};
use crate::clock::seed;
use crate::config::Workload;
use crate::dial::Dialer;

/// Salt of the agent's seed, so that its waits differ from the workers' choices.
const AGENT_SALT: u64 = 0xa6e7;

/// Joins the control plane at `address`; `mesh` is where peers reach this sidecar, `dialer` how connections are made.
pub(crate) fn open(
    address: &str,
    token: &str,
    workload: &Workload,
    mesh: Option<SocketAddr>,
    dialer: Dialer,
    own: &Tags,
) -> Result<(Feed, Identity), SourceError> {
    let config = AgentConfig {
        control: address.to_owned(),
        token: token.to_owned(),
        workload: workload.clone(),
        mesh_advertise: mesh,
        dialer,
        own: own.clone(),
    };
    let handle = agent::start(config, seed(AGENT_SALT))
        .map_err(|error| SourceError::Control(format!("the join token cannot be used: {error}")))?;
    let own = match workload {
        Workload::Sidecar { service, instance, app, .. } => Identity {
            name: service.to_string().into(),
            app: Some(LocalApp {
                service: service.clone(),
                instance: instance.as_str().into(),
                address: *app,
            }),
            gateway: false,
        },
        Workload::Gateway { name } => Identity { name: name.as_str().into(), app: None, gateway: true },
    };
    let feed = Feed {
        world: handle.world.clone(),
        credential: handle.credential.clone(),
        control: Some(handle),
        _keep: None,
    };
    Ok((feed, own))
}
