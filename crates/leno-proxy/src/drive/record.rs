//! What is kept of a request that is over.

use leno_core::exchange::Ending;

use super::Drive;
use crate::body::{Broken, Moved};
use crate::caller::{Caller, Remote};

impl Drive<'_> {
    /// Counts and logs the request.
    pub(super) fn finish(&self, client: &Remote) {
        if self.worker.waiting.get() > 0 {
            self.worker.room.notify_waiters();
        }
        let record = self.exchange.record();
        self.learn_of_experiments(record);
        let pair = match self.caller {
            Caller::Inbound { source, .. } if self.leaving.is_some() => self.worker.outside_pair(source),
            Caller::Inbound { pair, .. } => *pair,
            _ if self.leaving.is_some() => self.worker.outside_pair(&self.worker.own_name),
            _ => self.worker.outbound_pair(self.snapshot, record.decision.list),
        };
        let (sent, received) = (self.sent.bytes.get(), self.received.bytes.get());
        self.worker.telemetry().count(pair, record, sent, received);
        if self.worker.log.is_on() {
            let entry = crate::access_log::Entry {
                caller: self.caller,
                own_name: &self.worker.own_name,
                peer: client.address,
                link: self.caller.link(client),
                kind: self.request.kind,
                head: &self.head,
                request_id: self.request_id.bytes(),
                record,
                snapshot: self.snapshot,
                request_bytes: sent,
                response_bytes: received,
                changed: self.changed,
                leaving: self.leaving.map(|leaving| leaving.rule.as_deref().unwrap_or("")),
                entrance: self.entrance.as_deref(),
                why: self.why.as_deref().filter(|_| record.reason.is_some()),
            };
            if !self.worker.log.write(entry.to_json()) {
                self.worker.telemetry().log_lines_dropped += 1;
            }
        }
    }
}

/// Counts what one conversation moved.
pub(super) fn add(total: &Moved, part: &Moved) {
    total.bytes.set(total.bytes.get() + part.bytes.get());
}

/// How an attempt ended that broke.
pub(super) const fn early(broken: Broken) -> Ending {
    Ending::Early { app_saw: broken.app_saw, reason: broken.reason }
}
