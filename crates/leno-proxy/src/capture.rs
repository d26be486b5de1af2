//! The listeners for what was intercepted: bound where the application lives, which may be another network namespace.

use std::io;
use std::net::SocketAddr;

use crate::app::ProxyError;
use crate::config::{Bound, CaptureConfig, Workload};
use crate::dns::Sockets;
use crate::listen::{Listener, Purpose, bind as bind_here};
use crate::netns::{APP_V4, Namespace};

/// The namespace in which the application lives, when that is not ours.
pub(crate) fn namespace(config: &CaptureConfig) -> Result<Option<Namespace>, ProxyError> {
    let Some(path) = &config.app_namespace else { return Ok(None) };
    Namespace::open(path).map(Some).map_err(ProxyError::Namespace)
}

/// The same workload; its application, if it lives in a namespace of its own, at the address that stands for that.
pub(crate) fn placed(workload: &Workload, namespace: Option<&Namespace>) -> Workload {
    let mut placed = workload.clone();
    if let (Workload::Sidecar { app, .. }, Some(_)) = (&mut placed, namespace) {
        app.set_ip(APP_V4.into());
    }
    placed
}

/// Binds what intercepted connections go to, once for each worker.
pub(crate) fn bind(
    config: &CaptureConfig,
    namespace: Option<&Namespace>,
    workers: usize,
) -> Result<Vec<Listener>, ProxyError> {
    let outbound = config.outbound.iter().map(|address| ("capture", Purpose::Captured, *address));
    let inbound = config.inbound.iter();
    let inbound = inbound.map(|address| ("inbound capture", Purpose::CapturedInbound(config.mode), *address));
    let bind = |(what, purpose, address)| {
        let place = if matches!(purpose, Purpose::Captured) { namespace } else { None };
        bind_one(place, what, purpose, address, workers)
    };
    outbound.chain(inbound).map(bind).collect()
}

/// Binds one address there, once for each worker.
pub(crate) fn bind_one(
    place: Option<&Namespace>,
    what: &'static str,
    purpose: Purpose,
    address: SocketAddr,
    workers: usize,
) -> Result<Listener, ProxyError> {
    inside(place, move || bind_here(purpose, address, workers))
        .map_err(|error| ProxyError::Bind(what, address, error))
}

/// Binds the workload's resolver at each of `addresses`.
pub(crate) fn bind_dns<'a>(
    addresses: impl Iterator<Item = &'a SocketAddr>,
    namespace: Option<&Namespace>,
) -> Result<Vec<Sockets>, ProxyError> {
    let bind = |address: &SocketAddr| {
        inside(namespace, || Sockets::bind(*address))
            .map_err(|error| ProxyError::Bind("DNS", *address, error))
    };
    addresses.map(bind).collect()
}

/// What is taken, for the admin address.
pub(crate) fn to_json(bound: &Bound, mark: Option<u32>) -> String {
    let list = |addresses: &[SocketAddr]| {
        let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        quoted.join(",")
    };
    let (outbound, inbound, dns) = (list(&bound.captured), list(&bound.captured_inbound), list(&bound.dns));
    let mark = mark.map_or_else(|| "null".to_owned(), |mark| mark.to_string());
    format!("{{\"outbound\":[{outbound}],\"inbound\":[{inbound}],\"dns\":[{dns}],\"mark\":{mark}}}")
}

fn inside<T: Send>(place: Option<&Namespace>, does: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match place {
        Some(namespace) => namespace.run(does),
        None => does(),
    }
}
