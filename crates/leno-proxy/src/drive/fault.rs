//! Requests that rules break on purpose. The core throws the dice ([`leno_core::fault`]); this waits, answers and cuts.

use std::pin::pin;

use leno_core::exchange::{Input, Record};
use leno_core::fault::Injected;
use leno_core::grpc::Status;
use leno_core::reason::{Culprit, Reason};
use leno_core::route::Changed;
use leno_core::time::Duration;

use super::Drive;
use crate::body::Source;
use crate::clock::unix_now;
use crate::telemetry::bump;
use crate::worker::Worker;

/// Requests of one worker that are delayed at a time; further ones are not delayed: nobody's experiment may use up the memory.
const DELAYED_MAX: usize = 1024;

/// Throws the dice for a request with experiments on its way, and prepares the answer that it may get.
pub(super) fn throw(worker: &Worker, changed: &mut Changed) {
    let now = unix_now();
    let mut all = Injected::NOTHING;
    let mut aborted_by = None;
    for (by, experiment) in &changed.experiments {
        let injected = experiment.throw(now, &mut worker.rng());
        for word in injected.words() {
            worker.telemetry().count_fault(&experiment.list, &experiment.rule, word);
        }
        aborted_by = aborted_by.or(injected.abort.map(|_| *by));
        all = all.and(injected);
    }
    if all.delay.is_some() && worker.delayed.get() >= DELAYED_MAX {
        bump(&mut worker.telemetry().limits, "delayed");
        all.delay = None;
    }
    changed.injected = all;
    match all.abort.zip(aborted_by) {
        _ if all.reset => changed.mirrors.clear(),
        Some((abort, by)) => changed.abort(abort, by),
        None => {}
    }
}

impl Drive<'_> {
    /// Does to the request what was thrown, as far as that comes before anything else.
    #[cold]
    pub(super) async fn inject<S: Source>(&mut self, source: &mut S) {
        let Some(Injected { delay, abort, reset, slow: _ }) = self.changed.map(|changed| changed.injected)
        else {
            return;
        };
        if let Some(abort) = abort.filter(|_| self.call) {
            self.exchange.call_ended(abort.code());
        }
        let waited = match delay {
            Some(delay) => self.delay(delay, source).await,
            None => true,
        };
        if waited && reset {
            self.exchange.break_off(Reason::Fault);
        }
    }

    /// Waits; false when the request was over before that.
    async fn delay<S: Source>(&mut self, delay: Duration, source: &mut S) -> bool {
        let _delayed = Delayed::begin(self.worker);
        let until = self.worker.now().after(delay);
        let due = self.exchange.deadline().unwrap_or(super::NEVER);
        let mut gone = pin!(source.gone());
        tokio::select! {
            biased;
            () = &mut gone => self.handle(Input::DownstreamGone),
            () = self.alarm.until(until.min(due)) => {
                if until < due {
                    return true;
                }
                self.exchange.is_late();
            }
        }
        false
    }

    /// Tells the experiments on the way of a request, which is over, what became of it without them.
    pub(super) fn learn_of_experiments(&self, record: &Record) {
        let Some(changed) = self.changed.filter(|it| !it.experiments.is_empty()) else { return };
        let clients = record.reason.is_some_and(|reason| reason.culprit() == Culprit::Downstream);
        if changed.injected.is_something() || clients {
            return;
        }
        let status = record.grpc.map_or(record.status, Status::as_http);
        let failed = record.reason.is_some() || status >= 500;
        for (_, experiment) in &changed.experiments {
            if experiment.learn(failed, self.worker.now()) {
                let (list, rule) = (&*experiment.list, &*experiment.rule);
                tracing::warn!(list, rule, "too many requests fail by themselves: no more faults on purpose");
                self.worker.telemetry().count_fault(&experiment.list, &experiment.rule, "stopped");
            }
        }
    }
}

/// A request that is delayed.
struct Delayed<'w>(&'w Worker);

impl<'w> Delayed<'w> {
    fn begin(worker: &'w Worker) -> Self {
        worker.delayed.set(worker.delayed.get() + 1);
        Self(worker)
    }
}

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        self.0.delayed.set(self.0.delayed.get().saturating_sub(1));
    }
}
