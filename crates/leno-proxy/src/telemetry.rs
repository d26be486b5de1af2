//! Counters of one worker: plain numbers, no atomics, summed when somebody scrapes. Label values are bounded: names
//! come from the configuration and from verified certificates, and their number has a limit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use leno_core::exchange::Record;
use leno_core::grpc::Status;
use leno_core::reason::Reason;
use leno_core::spec::Near;

/// Pairs of source and destination that one proxy keeps apart; further ones are counted as `other`.
pub(crate) const PAIRS_MAX: usize = 2_000;
/// Rules that answer by themselves which one proxy keeps apart; further ones are counted as `other`.
const ANSWERS_MAX: usize = 2_000;
/// Upper bounds of the duration histogram's buckets, in seconds: from what one hop costs to what users give up at.
pub(crate) const DURATION_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Which way a request went through this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From the mesh to the application beside.
    Inbound,
    /// From the application, or through the gateway, into the mesh.
    Outbound,
}

impl Direction {
    const fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Index of a [`Pair`] in one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairId(usize);

/// Counters of one worker, or the sum over several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telemetry {
    index: BTreeMap<(Direction, Arc<str>, Arc<str>), usize>,
    pairs: Vec<Pair>,
    /// Connections open now, by listener.
    pub(crate) connections: BTreeMap<&'static str, i64>,
    /// Connections accepted, by listener.
    pub(crate) accepted: BTreeMap<&'static str, u64>,
    /// Connections to upstreams made, by transport.
    pub(crate) dialed: BTreeMap<&'static str, u64>,
    /// Handshakes refused, by who refused and why.
    pub(crate) tls_refused: BTreeMap<(&'static str, String), u64>,
    /// Requests refused before they were routed, by reason.
    pub(crate) malformed: BTreeMap<&'static str, u64>,
    /// Times that a limit was hit, by its name.
    pub(crate) limits: BTreeMap<&'static str, u64>,
    /// Attempts that failed and were not followed by another one, by why not.
    pub(crate) no_retry: BTreeMap<&'static str, u64>,
    /// Connections on which something else was spoken than is declared, by service, what is declared and what was spoken.
    pub(crate) mismatches: BTreeMap<(Arc<str>, &'static str, &'static str), u64>,
    /// Answers that rules have given by themselves, by list, rule and kind.
    answers: BTreeMap<(Arc<str>, Arc<str>, &'static str), u64>,
    /// Requests that were broken on purpose, by list, rule and kind.
    faults: BTreeMap<(Arc<str>, Arc<str>, &'static str), u64>,
    /// Requests refused because of a limit of their service, by backend and limit.
    pub(crate) service_limits: BTreeMap<(Arc<str>, &'static str), u64>,
    /// Second attempts beside slow ones, and those that were not made, by backend and what became of them.
    pub(crate) hedges: BTreeMap<(Arc<str>, &'static str), u64>,
    /// Endpoints put out, kept although they should be, and taken back: by backend, what and why.
    pub(crate) outliers: BTreeMap<(Arc<str>, &'static str, &'static str), u64>,
    /// Attempts by how near the endpoint was, where that is known, in the order of [`Near::ALL`].
    pub(crate) near: [u64; Near::ALL.len()],
    /// Access log lines that were dropped because the log could not keep up.
    pub(crate) log_lines_dropped: u64,
}

/// What is counted for one source and destination.
#[derive(Clone, Debug, Default)]
struct Pair {
    /// Requests by status and reason.
    requests: Vec<(u16, Option<Reason>, u64)>,
    /// How many took at most each bound; the last: longer.
    durations: [u64; DURATION_BOUNDS.len() + 1],
    seconds: f64,
    request_bytes: u64,
    response_bytes: u64,
    /// Attempts after the first that were begun because one had failed.
    retries: u64,
    /// Calls of gRPC by status.
    calls: [u64; Status::LAST as usize + 1],
}

impl Telemetry {
    /// The counters for requests from `source` to `destination`.
    pub(crate) fn pair(&mut self, direction: Direction, source: &Arc<str>, destination: &Arc<str>) -> PairId {
        let mut key = (direction, source.clone(), destination.clone());
        if !self.index.contains_key(&key) && self.pairs.len() >= PAIRS_MAX {
            key = (direction, "other".into(), "other".into());
        }
        let next = self.pairs.len();
        let at = *self.index.entry(key).or_insert(next);
        if at == next {
            self.pairs.push(Pair::default());
        }
        PairId(at)
    }

    /// Counts a request that is over.
    pub(crate) fn count(&mut self, pair: PairId, record: &Record, request_bytes: u64, response_bytes: u64) {
        if let Some(why) = record.no_retry {
            bump(&mut self.no_retry, why.word());
        }
        let Some(pair) = self.pairs.get_mut(pair.0) else { return };
        let key = (record.status, record.reason);
        match pair.requests.iter_mut().find(|row| (row.0, row.1) == key) {
            Some(row) => row.2 += 1,
            // At most 900 statuses times the reasons: bounded by the types.
            None => pair.requests.push((key.0, key.1, 1)),
        }
        let seconds = record.took().as_secs_f64();
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = pair.durations.get_mut(bucket) {
            *count += 1;
        }
        pair.seconds += seconds;
        pair.request_bytes += request_bytes;
        pair.response_bytes += response_bytes;
        if let Some(count) = record.grpc.and_then(|status| pair.calls.get_mut(usize::from(status.0))) {
            *count += 1;
        }
        pair.retries += record.retries() as u64;
    }

    /// Counts an answer that a rule has given by itself.
    pub(crate) fn count_answer(&mut self, list: &str, rule: &str, kind: &'static str) {
        count_rule(&mut self.answers, list.into(), rule.into(), kind);
    }

    /// Counts what was done to a request on purpose.
    pub(crate) fn count_fault(&mut self, list: &Arc<str>, rule: &Arc<str>, kind: &'static str) {
        count_rule(&mut self.faults, list.clone(), rule.clone(), kind);
    }

    /// Adds another worker's counters to these.
    pub(crate) fn add(&mut self, other: &Self) {
        for ((direction, source, destination), at) in &other.index {
            let PairId(mine) = self.pair(*direction, source, destination);
            let (Some(mine), Some(theirs)) = (self.pairs.get_mut(mine), other.pairs.get(*at)) else {
                continue;
            };
            for (status, reason, count) in &theirs.requests {
                match mine.requests.iter_mut().find(|row| (row.0, row.1) == (*status, *reason)) {
                    Some(row) => row.2 += count,
                    None => mine.requests.push((*status, *reason, *count)),
                }
            }
            for (mine, theirs) in mine.durations.iter_mut().zip(theirs.durations) {
                *mine += theirs;
            }
            mine.seconds += theirs.seconds;
            mine.request_bytes += theirs.request_bytes;
            mine.response_bytes += theirs.response_bytes;
            mine.retries += theirs.retries;
            for (mine, theirs) in mine.calls.iter_mut().zip(theirs.calls) {
                *mine += theirs;
            }
        }
        sum(&mut self.connections, &other.connections);
        sum(&mut self.accepted, &other.accepted);
        sum(&mut self.dialed, &other.dialed);
        sum(&mut self.tls_refused, &other.tls_refused);
        sum(&mut self.malformed, &other.malformed);
        sum(&mut self.limits, &other.limits);
        sum(&mut self.no_retry, &other.no_retry);
        sum(&mut self.mismatches, &other.mismatches);
        sum(&mut self.answers, &other.answers);
        sum(&mut self.faults, &other.faults);
        sum(&mut self.outliers, &other.outliers);
        sum(&mut self.hedges, &other.hedges);
        sum(&mut self.service_limits, &other.service_limits);
        self.near.iter_mut().zip(other.near).for_each(|(mine, theirs)| *mine += theirs);
        self.log_lines_dropped += other.log_lines_dropped;
    }

    /// Prometheus' text format, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        let mut out = String::with_capacity(4096);
        let pairs: Vec<(String, &Pair)> = self
            .index
            .iter()
            .filter_map(|((direction, source, destination), at)| {
                let labels = format!(
                    "direction=\"{}\",source=\"{}\",destination=\"{}\"",
                    direction.word(),
                    escaped(source),
                    escaped(destination)
                );
                Some((labels, self.pairs.get(*at)?))
            })
            .collect();
        family(&mut out, "leno_requests_total", "counter", "Requests that are over.");
        for (labels, pair) in &pairs {
            for (status, reason, count) in &pair.requests {
                let reason = reason.map_or("", Reason::word);
                line(
                    &mut out,
                    "leno_requests_total",
                    &format!("{labels},status=\"{status}\",reason=\"{reason}\""),
                    count,
                );
            }
        }
        family(&mut out, "leno_grpc_requests_total", "counter", "Calls of gRPC that are over.");
        for (labels, pair) in &pairs {
            for (code, count) in pair.calls.iter().enumerate().filter(|(_, count)| **count > 0) {
                let word = Status(code as u8).word();
                let labels = format!("{labels},grpc_status=\"{word}\"");
                line(&mut out, "leno_grpc_requests_total", &labels, count);
            }
        }
        let name = "leno_request_duration_seconds";
        family(&mut out, name, "histogram", "From the whole request head to the end of the response.");
        for (labels, pair) in &pairs {
            let mut total = 0;
            for (at, count) in pair.durations.iter().enumerate() {
                total += count;
                let bound = DURATION_BOUNDS.get(at).map_or("+Inf".to_owned(), f64::to_string);
                line(&mut out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total);
            }
            line(&mut out, &format!("{name}_sum"), labels, pair.seconds);
            line(&mut out, &format!("{name}_count"), labels, total);
        }
        type Value = fn(&Pair) -> u64;
        let counters: [(&str, &str, Value); 3] = [
            ("leno_request_bytes_total", "Request body bytes.", |pair| pair.request_bytes),
            ("leno_response_bytes_total", "Response body bytes.", |pair| pair.response_bytes),
            ("leno_retries_total", "Attempts after the first.", |pair| pair.retries),
        ];
        for (name, help, value) in counters {
            family(&mut out, name, "counter", help);
            for (labels, pair) in &pairs {
                line(&mut out, name, labels, value(pair));
            }
        }
        simple(&mut out, "leno_connections", "gauge", "Connections open now.", "listener", &self.connections);
        simple(
            &mut out,
            "leno_connections_accepted_total",
            "counter",
            "Connections accepted.",
            "listener",
            &self.accepted,
        );
        simple(
            &mut out,
            "leno_connections_dialed_total",
            "counter",
            "Connections made to upstreams.",
            "transport",
            &self.dialed,
        );
        family(&mut out, "leno_tls_refused_total", "counter", "Handshakes refused, by who refused and why.");
        for ((by, reason), count) in &self.tls_refused {
            line(&mut out, "leno_tls_refused_total", &format!("by=\"{by}\",reason=\"{reason}\""), count);
        }
        let malformed = "Requests refused before they were routed.";
        simple(&mut out, "leno_requests_refused_total", "counter", malformed, "reason", &self.malformed);
        simple(&mut out, "leno_limit_hits_total", "counter", "Times a limit was hit.", "limit", &self.limits);
        let why = "Attempts that failed and were not followed by another one.";
        simple(&mut out, "leno_retries_not_made_total", "counter", why, "why", &self.no_retry);
        let name = "leno_protocol_mismatches_total";
        family(&mut out, name, "counter", "Connections on which something else was spoken than is declared.");
        for ((service, declared, observed), count) in &self.mismatches {
            let service = escaped(service);
            let labels = format!("service=\"{service}\",declared=\"{declared}\",observed=\"{observed}\"");
            line(&mut out, name, &labels, count);
        }
        let name = "leno_rule_answers_total";
        family(&mut out, name, "counter", "Answers that rules have given by themselves.");
        for ((list, rule, kind), count) in &self.answers {
            let (list, rule) = (escaped(list), escaped(rule));
            line(&mut out, name, &format!("list=\"{list}\",rule=\"{rule}\",kind=\"{kind}\""), count);
        }
        let name = "leno_faults_total";
        family(
            &mut out,
            name,
            "counter",
            "What was done to requests on purpose, and experiments that stopped.",
        );
        for ((list, rule, kind), count) in &self.faults {
            let (list, rule) = (escaped(list), escaped(rule));
            line(&mut out, name, &format!("list=\"{list}\",rule=\"{rule}\",kind=\"{kind}\""), count);
        }
        let name = "leno_service_limit_hits_total";
        family(&mut out, name, "counter", "Requests refused because of a limit of their service.");
        for ((backend, limit), count) in &self.service_limits {
            let backend = escaped(backend);
            line(&mut out, name, &format!("service=\"{backend}\",limit=\"{limit}\""), count);
        }
        let name = "leno_hedges_total";
        family(&mut out, name, "counter", "Second attempts beside slow ones, and those that were not made.");
        for ((backend, outcome), count) in &self.hedges {
            let backend = escaped(backend);
            line(&mut out, name, &format!("service=\"{backend}\",outcome=\"{outcome}\""), count);
        }
        let name = "leno_outlier_events_total";
        family(&mut out, name, "counter", "Endpoints put out because they fail, and taken back.");
        for ((backend, event, detector), count) in &self.outliers {
            let backend = escaped(backend);
            let labels = format!("service=\"{backend}\",event=\"{event}\",detector=\"{detector}\"");
            line(&mut out, name, &labels, count);
        }
        let name = "leno_zone_attempts_total";
        family(&mut out, name, "counter", "Attempts by how near the instance is, where that is known.");
        for (near, count) in Near::ALL.iter().zip(self.near) {
            line(&mut out, name, &format!("relation=\"{}\"", near.word()), count);
        }
        family(
            &mut out,
            "leno_access_log_dropped_total",
            "counter",
            "Access log lines that were dropped because the log could not keep up.",
        );
        line(&mut out, "leno_access_log_dropped_total", "", self.log_lines_dropped);
        out
    }
}

/// Adds one to a counter of a map.
pub(crate) fn bump<K: Ord>(map: &mut BTreeMap<K, u64>, key: K) {
    *map.entry(key).or_default() += 1;
}

/// Counts something that a rule did, for so many rules.
fn count_rule(
    map: &mut BTreeMap<(Arc<str>, Arc<str>, &'static str), u64>,
    list: Arc<str>,
    rule: Arc<str>,
    kind: &'static str,
) {
    let mut key = (list, rule, kind);
    if !map.contains_key(&key) && map.len() >= ANSWERS_MAX {
        key = ("other".into(), "other".into(), kind);
    }
    bump(map, key);
}

fn sum<K: Ord + Clone, N: Copy + Default + std::ops::AddAssign>(
    mine: &mut BTreeMap<K, N>,
    theirs: &BTreeMap<K, N>,
) {
    for (key, count) in theirs {
        *mine.entry(key.clone()).or_default() += *count;
    }
}

fn simple(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: &BTreeMap<&'static str, impl std::fmt::Display>,
) {
    family(out, name, kind, help);
    for (key, value) in values {
        line(out, name, &format!("{label}=\"{key}\""), value);
    }
}

/// The two lines before a family's samples.
pub(crate) fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample.
pub(crate) fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
