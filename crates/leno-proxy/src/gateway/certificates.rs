//! Certificates of a gateway's listeners: read at start, and again when their files change or the configuration names
//! others. What was read is swapped in whole; connections that stand keep what they were made with. Files that cannot be
//! used change nothing but the log.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use leno_core::spec::{GatewaySpec, ListenerSpec, Serve, TerminationSpec, World};
use leno_identity::ingress::{IngressError, Termination};
use tokio::sync::watch;

use super::HTTP_PROTOCOLS;
use crate::clock::unix_now;

/// How often files are looked at. They are read when two looks in a row find them changed and the same: a certificate and
/// its key are two files, and nobody can write both at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What each listener speaks TLS with, by its name.
pub(crate) type Terminations = BTreeMap<Arc<str>, Arc<Termination>>;

/// Reads the certificates of the world's gateway and follows its files.
///
/// # Errors
/// Files that cannot be used: a gateway does not start with a listener that cannot serve anybody.
pub(crate) fn follow(
    mut world: watch::Receiver<Arc<World>>,
) -> Result<watch::Receiver<Arc<Terminations>>, IngressError> {
    let gateway = world.borrow_and_update().gateway.clone();
    let mut known = BTreeMap::new();
    for listener in wanted(gateway.as_ref()) {
        let Some(spec) = listener.termination() else { continue };
        let stamps = stamps(spec);
        let termination = read(listener, spec)?;
        known.insert(
            listener.name.clone(),
            Known { listener: listener.clone(), stamps, seen: None, termination },
        );
    }
    let (sender, receiver) = watch::channel(Arc::new(terminations(&known)));
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let mut refused = Refused::new();
        while !sender.is_closed() {
            tokio::select! {
                _ = looks.tick() => {}
                changed = world.changed() => if changed.is_err() {
                    // Without a source the last configuration serves on, and its files are still followed.
                    looks.tick().await;
                },
            }
            let gateway = world.borrow_and_update().gateway.clone();
            if look(gateway.as_ref(), &mut known, &mut refused) {
                sender.send_replace(Arc::new(terminations(&known)));
            }
        }
    });
    Ok(receiver)
}

/// A listener whose files have been read.
#[derive(Debug)]
struct Known {
    listener: Arc<ListenerSpec>,
    /// The files when they were last tried.
    stamps: Vec<Stamp>,
    /// How they looked the last time, if they have changed since.
    seen: Option<Vec<Stamp>>,
    /// The last that could be used.
    termination: Arc<Termination>,
}

/// How a file can be told from the one that was there before; `None`: it is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Listeners that came later with files that cannot be used, and how these looked: what is wrong is said once.
type Refused = BTreeMap<Arc<str>, Vec<Stamp>>;

fn wanted(gateway: Option<&GatewaySpec>) -> impl Iterator<Item = &Arc<ListenerSpec>> {
    gateway
        .into_iter()
        .flat_map(|gateway| &gateway.listeners)
        .filter(|listener| listener.termination().is_some())
}

fn terminations(known: &BTreeMap<Arc<str>, Known>) -> Terminations {
    known.iter().map(|(name, known)| (name.clone(), known.termination.clone())).collect()
}

/// Reads what has changed; true when there is something new.
fn look(gateway: Option<&GatewaySpec>, known: &mut BTreeMap<Arc<str>, Known>, refused: &mut Refused) -> bool {
    let mut changed = false;
    // Without a gateway in the world the control plane is being asked for it again: what there was serves on.
    if gateway.is_some() {
        let before = known.len();
        known.retain(|name, _| wanted(gateway).any(|listener| listener.name == *name));
        changed |= known.len() != before;
    }
    for listener in wanted(gateway) {
        let Some(spec) = listener.termination() else { continue };
        let now = stamps(spec);
        let Some(old) = known.get_mut(&listener.name) else {
            if refused.get(&listener.name) == Some(&now) {
                continue;
            }
            refused.remove(&listener.name);
            match read(listener, spec) {
                Ok(termination) => {
                    let fresh = Known { listener: listener.clone(), stamps: now, seen: None, termination };
                    known.insert(listener.name.clone(), fresh);
                    changed = true;
                }
                Err(error) => {
                    tracing::error!(listener = &*listener.name, %error, "a listener cannot speak TLS");
                    refused.insert(listener.name.clone(), now);
                }
            }
            continue;
        };
        if same(&old.listener, listener) {
            if old.stamps == now {
                old.seen = None;
                continue;
            }
            if old.seen.as_ref() != Some(&now) {
                old.seen = Some(now);
                continue;
            }
        }
        (old.listener, old.stamps, old.seen) = (listener.clone(), now, None);
        match read(listener, spec) {
            Ok(termination) => {
                tracing::info!(
                    listener = &*listener.name,
                    "certificates were read again; new connections use them"
                );
                old.termination = termination;
                changed = true;
            }
            Err(error) => {
                tracing::error!(listener = &*listener.name, %error, "changed certificates cannot be used; the ones before stay in use");
            }
        }
    }
    changed
}

/// True when two versions of a listener speak TLS with the same files in the same way.
fn same(old: &ListenerSpec, new: &ListenerSpec) -> bool {
    old.termination() == new.termination() && hosts(old) == hosts(new)
}

fn hosts(listener: &ListenerSpec) -> &[leno_core::spec::HostMatch] {
    match &listener.serve {
        Serve::Http(http) => &http.hosts,
        _ => &[],
    }
}

fn read(listener: &ListenerSpec, spec: &TerminationSpec) -> Result<Arc<Termination>, IngressError> {
    let http = matches!(listener.serve, Serve::Http(_));
    let alpn = if http { HTTP_PROTOCOLS } else { &[] };
    let termination = Termination::read(spec, hosts(listener), alpn, unix_now())?;
    for warning in &termination.warnings {
        tracing::warn!(listener = &*listener.name, "{warning}");
    }
    Ok(Arc::new(termination))
}

fn stamps(spec: &TerminationSpec) -> Vec<Stamp> {
    let pairs = spec.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    let files = pairs.chain(spec.clients.iter().map(|clients| &clients.authorities));
    let stamp = |file: &String| {
        let found = fs::metadata(file).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.map(stamp).collect()
}
