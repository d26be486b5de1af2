//! Endpoints that are put out and come back, told to people: a line in the log with the evidence, and a counter.

use std::sync::Arc;

use leno_core::backend::{Detector, Event, What};

use crate::telemetry::{PAIRS_MAX, bump};
use crate::worker::Worker;

/// Tells what happened to endpoints since the last time.
#[cold]
pub(crate) fn tell(worker: &Worker, events: Vec<Event>) {
    for Event { backend, endpoint, what } in events {
        let (event, detector) = match what {
            What::Ejected { by: by @ Detector::Probation, wait, .. } => {
                tracing::warn!(
                    service = &*backend,
                    endpoint = &*endpoint,
                    seconds = wait.as_secs_f64(),
                    "an endpoint is put out again: it failed on probation"
                );
                ("ejected", by.word())
            }
            What::Ejected { by, own, peers, wait } => {
                tracing::warn!(
                    service = &*backend,
                    endpoint = &*endpoint,
                    detector = by.word(),
                    failed = own.failures,
                    of = own.requests,
                    peers_failed = peers.failures,
                    peers_of = peers.requests,
                    seconds = wait.as_secs_f64(),
                    "an endpoint is put out: it is worse than its peers"
                );
                ("ejected", by.word())
            }
            What::Held(by) => ("held", by.word()),
            What::Returned => {
                tracing::info!(
                    service = &*backend,
                    endpoint = &*endpoint,
                    "an endpoint that was put out is back"
                );
                ("returned", "")
            }
        };
        count(worker, backend, event, detector);
    }
}

fn count(worker: &Worker, backend: Arc<str>, event: &'static str, detector: &'static str) {
    let outliers = &mut worker.telemetry().outliers;
    let key = (backend, event, detector);
    // Backends come and go; their names must not add up for ever.
    if outliers.len() < PAIRS_MAX || outliers.contains_key(&key) {
        bump(outliers, key);
    }
}
