//! Names that could be services of which the control plane has not told us: it is asked, at a bounded rate, and whoever wants to
//! know waits a short while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leno_core::name::ServiceId;
use leno_core::snapshot::{Lookup, Snapshot};
use tokio::sync::watch;

use super::counters::{Count, Counters};
use crate::agent::AgentHandle;

/// How long a question waits for the control plane: it answers within milliseconds, and most names are not services anyway.
pub(crate) const ASK_WAIT: Duration = Duration::from_millis(300);
/// After no answer it is not waited for again for so long.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// Names of that kind remembered.
const SILENT_MAX: usize = 1024;
/// Each new name makes a new snapshot, even of one that is no service: an application that looks up one foreign name after the
/// other (a crawler) must not keep all workers busy with that. So many can be asked for at once,
const ASKS_MAX: u32 = 64;
/// and one more in each of these intervals.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Asks the control plane about services.
#[derive(Debug)]
pub(crate) struct Asking {
    control: AgentHandle,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Until when it is not worth waiting.
    silent: BTreeMap<ServiceId, Instant>,
    asks_left: u32,
    refilled: Instant,
}

impl Asking {
    pub(crate) fn new(
        control: AgentHandle,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        counters: Arc<Counters>,
    ) -> Self {
        let state = State { silent: BTreeMap::new(), asks_left: ASKS_MAX, refilled: Instant::now() };
        Self { control, snapshot, counters, state: Mutex::new(state) }
    }

    /// Waits until it is known whether `service` is there; false when that is not found out.
    pub(crate) async fn ask(&self, service: &ServiceId) -> bool {
        if !self.may_ask(service) {
            return false;
        }
        let mut snapshot = self.snapshot.clone();
        let known =
            |snapshot: &Arc<Snapshot>| !matches!(snapshot.look_up_service(service), Lookup::Unknown(_));
        let heard = self.control.subscribe(service.clone())
            && tokio::time::timeout(ASK_WAIT, snapshot.wait_for(known))
                .await
                .is_ok_and(|known| known.is_ok());
        if !heard {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.silent.len() >= SILENT_MAX {
                state.silent.clear();
            }
            state.silent.insert(service.clone(), Instant::now() + SILENT_FOR);
        }
        heard
    }

    fn may_ask(&self, service: &ServiceId) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.silent.get(service) {
            if now < *until {
                return false;
            }
            state.silent.remove(service);
        }
        let passed = now.saturating_duration_since(state.refilled).as_nanos() / ASK_INTERVAL.as_nanos();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            state.asks_left = state.asks_left.saturating_add(more).min(ASKS_MAX);
            state.refilled = now;
        }
        let Some(left) = state.asks_left.checked_sub(1) else {
            self.counters.bump(Count::AsksMax);
            return false;
        };
        state.asks_left = left;
        true
    }
}
