//! Services that are learnt on demand: the first request for one waits for the control plane's answer.

use std::rc::Rc;
use std::sync::Arc;

use leno_core::name::ServiceId;
use leno_core::snapshot::{Lookup, Snapshot};
use leno_core::time::Duration;

use crate::alarm::Alarm;
use crate::caller::Caller;
use crate::worker::Worker;

/// How long a request for a service that this proxy has not heard of waits for the control plane's answer.
const ON_DEMAND_WAIT: Duration = Duration::from_secs(1);

/// The service that the request is for, if the control plane has not been asked about it yet.
pub(super) fn unheard(snapshot: &Snapshot, caller: &Caller, authority: &[u8]) -> Option<ServiceId> {
    let found = match caller {
        Caller::Forward => snapshot.look_up(authority),
        Caller::Dependency { service, .. }
        | Caller::Passage { service, .. }
        | Caller::Captured { service: Some(service), .. } => snapshot.look_up_service(service),
        Caller::Captured { service: None, .. }
        | Caller::Gateway(_)
        | Caller::Mirror { .. }
        | Caller::Inbound { .. } => Lookup::Known,
    };
    match found {
        Lookup::Unknown(service) => Some(service),
        Lookup::Known | Lookup::Absent => None,
    }
}

/// The snapshot to decide by, once it knows the service that the workload calls, or that there is none.
#[allow(clippy::redundant_allocation, reason = "see the worker's field")]
pub(super) async fn learn(
    worker: &Rc<Worker>,
    caller: &Caller,
    authority: &[u8],
    service: ServiceId,
    alarm: &mut Alarm,
) -> Rc<Arc<Snapshot>> {
    worker.demand(service);
    let deadline = worker.now().after(ON_DEMAND_WAIT);
    loop {
        tokio::select! {
            biased;
            () = worker.next_snapshot() => {}
            () = alarm.until(deadline) => return worker.snapshot(),
        }
        let snapshot = worker.snapshot();
        if unheard(&snapshot, caller, authority).is_none() {
            return snapshot;
        }
    }
}
