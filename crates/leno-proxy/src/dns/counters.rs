//! What is counted about questions. They are answered by the main thread, so these are not the workers' counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{family, line};

/// Each question is counted once, by how it was answered; the others are events beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// By the mesh: a name of ours, also one that is not there.
    Mesh,
    /// By a resolver, now.
    Forwarded,
    /// By a resolver, before.
    Cached,
    /// By a resolver, longer ago than it wanted, because none answers now.
    Stale,
    /// Not at all, by policy: not from here, or not a kind of question that is answered.
    Refused,
    /// That nobody could say.
    Failed,
    /// It could not be read.
    Malformed,
    /// It was our own, come back.
    Loop,
    /// Beside: what came to a resolver's port and was not its answer.
    Foreign,
    /// Beside: too many questions waited for resolvers.
    QueriesMax,
    /// Beside: too many questions were under way to resolvers.
    FlightsMax,
    /// Beside: too many clients' connections.
    ConnectionsMax,
    /// Beside: too many services were asked for, so that this one was not.
    AsksMax,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; Count::AsksMax as usize + 1]);

const KINDS: [(Count, &str); 8] = [
    (Count::Mesh, "mesh"),
    (Count::Forwarded, "forwarded"),
    (Count::Cached, "cached"),
    (Count::Stale, "stale"),
    (Count::Refused, "refused"),
    (Count::Failed, "failed"),
    (Count::Malformed, "malformed"),
    (Count::Loop, "loop"),
];
const LIMITS: [(Count, &str); 4] = [
    (Count::QueriesMax, "dns_queries"),
    (Count::FlightsMax, "dns_flights"),
    (Count::ConnectionsMax, "dns_connections"),
    (Count::AsksMax, "dns_asks"),
];

impl Counters {
    /// Adds one.
    pub(crate) fn bump(&self, count: Count) {
        if let Some(counter) = self.0.get(count as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it happened.
    pub(crate) fn get(&self, count: Count) -> u64 {
        self.0.get(count as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Adds the limits that were hit to the workers'.
    pub(crate) fn add_limits(&self, limits: &mut BTreeMap<&'static str, u64>) {
        for (count, name) in LIMITS {
            let hits = self.get(count);
            if hits > 0 {
                *limits.entry(name).or_default() += hits;
            }
        }
    }

    /// Prometheus' text format.
    pub(crate) fn render(&self, out: &mut String) {
        let name = "leno_dns_queries_total";
        family(out, name, "counter", "Questions about names, by how they were answered.");
        for (count, kind) in KINDS {
            line(out, name, &format!("kind=\"{kind}\""), self.get(count));
        }
        let name = "leno_dns_foreign_answers_total";
        family(out, name, "counter", "What came as a resolver's answer and was none to a question of ours.");
        line(out, name, "", self.get(Count::Foreign));
    }
}
