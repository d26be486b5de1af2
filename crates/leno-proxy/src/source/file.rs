//! A proxy straight from a mesh file, with no control plane: Leno as a plain reverse proxy, one sidecar of a pair, a
//! benchmark.

use std::sync::Arc;
use std::time::Duration;

use leno_config::native::{InstanceEntry, MeshFile, Role, ServiceEntry};
use leno_core::name::ServiceId;
use leno_core::peer::SpiffeId;
use leno_core::snapshot::LocalApp;
use leno_core::spec::{EndpointSpec, KnownService, Tags, Transport, World};
use leno_identity::credential::Credential;
use leno_identity::files;
use tokio::sync::watch;

use super::{Feed, Identity, Listens, SourceError};
use crate::clock::unix_now;
use crate::config::IdentitySource;

/// How often certificates are looked at again: files may have been replaced, self-made ones are renewed.
const CREDENTIAL_INTERVAL: Duration = Duration::from_secs(600);

/// Senders of channels that never change.
pub(crate) struct Keep {
    _world: watch::Sender<Arc<World>>,
}

/// Builds the feed for `role`.
pub(crate) fn open(
    mesh: &MeshFile,
    role: &str,
    identity: &IdentitySource,
    typed: &Tags,
) -> Result<(Feed, Identity, Listens), SourceError> {
    let found = mesh.role(role).ok_or_else(|| SourceError::NoSuchRole(role.to_owned(), mesh.role_names()))?;
    let mut world =
        World { generation: 1, egress: mesh.egress.clone(), own: typed.clone(), ..World::default() };
    for entry in &mesh.services {
        let endpoints = endpoints(mesh, entry);
        world.services.insert(entry.spec.id.clone(), KnownService { spec: entry.spec.clone(), endpoints });
    }
    let (who, own, listens, service) = match found {
        Role::Gateway(gateway) => {
            world.gateway = Some(gateway.clone());
            let name: Arc<str> = gateway.id.name.as_str().into();
            ("gateway", Identity { name, app: None, gateway: true }, Listens::default(), gateway.id.clone())
        }
        Role::Instance(service, instance) => {
            let app = instance.app.ok_or_else(|| {
                SourceError::Incomplete(format!(
                    "instance \"{}\" has no address: without a control plane its `port` or `address` must be in the file",
                    instance.name
                ))
            })?;
            let Tags { zone, labels } = &instance.tags;
            world.own.zone = typed.zone.clone().or_else(|| zone.clone());
            let labels = if typed.labels.is_empty() { labels } else { &typed.labels };
            world.own.labels = labels.with_version(instance.version.as_ref());
            let local = LocalApp {
                service: service.spec.id.clone(),
                instance: instance.name.as_str().into(),
                address: app,
            };
            let own = Identity { name: service.spec.id.to_string().into(), app: Some(local), gateway: false };
            ("instance", own, listens(instance), service.spec.id.clone())
        }
    };
    let needs_identity = listens.mesh.is_some()
        || world.egress.via.is_some()
        || world
            .services
            .values()
            .flat_map(|service| &service.endpoints)
            .any(|endpoint| matches!(endpoint.transport, Transport::Mesh(_)) && endpoint.healthy);
    let credential = load(mesh, &service, identity)?;
    if needs_identity && credential.is_none() {
        return Err(SourceError::Identity(format!(
            "{who} \"{role}\" speaks to sidecars and needs an identity: give --identity DIR, or --cert, --key and --roots"
        )));
    }
    let (credentials, credential) = watch::channel(credential);
    let (keep, world) = watch::channel(Arc::new(world));
    tokio::spawn(renew(mesh.clone(), service, identity.clone(), credentials));
    let feed = Feed { world, credential, control: None, _keep: Some(Keep { _world: keep }) };
    Ok((feed, own, listens))
}

/// An instance with a mesh address is reached through its sidecar, any other as it is.
fn endpoints(mesh: &MeshFile, entry: &ServiceEntry) -> Vec<EndpointSpec> {
    let instances = entry.instances.iter().filter_map(|instance| {
        let id = || SpiffeId { trust_domain: mesh.trust_domain.clone(), service: entry.spec.id.clone() };
        let (address, transport) = match (instance.mesh, instance.app) {
            (Some(mesh), _) => (mesh, Transport::Mesh(id())),
            (None, Some(app)) => (app, Transport::Plain),
            (None, None) => return None,
        };
        Some(EndpointSpec {
            name: instance.name.as_str().into(),
            address,
            transport,
            version: instance.version.clone(),
            weight: instance.weight,
            healthy: true,
            tags: instance.tags.clone(),
        })
    });
    instances.chain(entry.endpoints.iter().cloned()).collect()
}

fn listens(instance: &InstanceEntry) -> Listens {
    Listens {
        mesh: instance.mesh,
        forward: instance.proxy,
        admin: instance.admin,
        outbound: instance.outbound.clone(),
    }
}

fn load(
    mesh: &MeshFile,
    service: &ServiceId,
    identity: &IdentitySource,
) -> Result<Option<Arc<Credential>>, SourceError> {
    let wrap = |error: files::FileError| SourceError::Identity(error.to_string());
    let now = unix_now();
    Ok(match identity {
        IdentitySource::None => None,
        IdentitySource::SelfMade(dir) => {
            Some(Arc::new(files::self_made(dir, &mesh.trust_domain, service, now).map_err(wrap)?))
        }
        IdentitySource::Files { cert, key, roots } => {
            Some(Arc::new(files::credential(cert, key, roots, now).map_err(wrap)?))
        }
    })
}

/// Looks for newer certificates now and then; keeps the old ones when there are none.
async fn renew(
    mesh: MeshFile,
    service: ServiceId,
    identity: IdentitySource,
    credentials: watch::Sender<Option<Arc<Credential>>>,
) {
    if matches!(identity, IdentitySource::None) {
        return credentials.closed().await;
    }
    loop {
        tokio::time::sleep(CREDENTIAL_INTERVAL).await;
        match load(&mesh, &service, &identity) {
            Ok(credential) => {
                if credentials.send(credential).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "certificates could not be read again; the old ones stay in use")
            }
        }
    }
}
