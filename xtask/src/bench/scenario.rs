//! What is measured: scenarios, each a list of cases for a list of candidates in one or more setups.

use super::candidate::{Candidate, Group, Setup};
use super::protocol::{Protocol, Unit};
use super::upstream::Body;

/// A question, and one table of the report.
pub(super) struct Scenario {
    /// As in `--scenario`.
    pub(super) name: &'static str,
    /// Over its table.
    pub(super) title: &'static str,
    pub(super) setups: Vec<Setup>,
    pub(super) protocol: Protocol,
    pub(super) unit: Unit,
    pub(super) cases: Vec<Case>,
    /// Each measurement has processes of its own: what an earlier one left behind in memory would count.
    pub(super) fresh: bool,
    /// Answered by the upstream on all of 127.0.0.0/8.
    pub(super) wide: bool,
    /// The share of the usual number of rounds, in percent.
    pub(super) rounds_percent: u64,
    /// Who takes part.
    takes_part: fn(&Candidate) -> bool,
}

/// One kind of load.
#[derive(Clone)]
pub(super) struct Case {
    /// In tables.
    pub(super) name: String,
    pub(super) connections: u32,
    /// Calls at a time on each connection: gRPC only.
    pub(super) streams: u32,
    pub(super) body: Body,
    pub(super) upload_bytes: usize,
    /// A new connection for each request.
    pub(super) close: bool,
    /// What is done with bytes: TCP only.
    pub(super) transfer: Transfer,
    /// TLS handshakes are resumed ones.
    pub(super) resume: bool,
    /// Open loop: requests per second.
    pub(super) rate: Option<u32>,
    /// Silent connections beside.
    pub(super) idle: usize,
    pub(super) spread: Spread,
    pub(super) warm_milliseconds: u64,
    /// Of the usual length of a measurement, in percent.
    pub(super) length_percent: u64,
    /// Who makes the load.
    pub(super) by: By,
    /// Not for pairs.
    one_only: bool,
}

/// What is done with plain bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    Download,
    Upload,
    /// 128 bytes there and back on a connection of their own.
    Exchange,
}

/// Which paths are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// The body's own.
    None,
    /// Each rule's in turn.
    Rules,
    /// The last rule's.
    LastRule,
}

/// The load generator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    LenoLoad,
    Wrk,
    H2load,
}

impl Scenario {
    fn new(
        name: &'static str,
        title: &'static str,
        takes_part: fn(&Candidate) -> bool,
        cases: Vec<Case>,
    ) -> Self {
        Self {
            name,
            title,
            setups: vec![Setup::default()],
            protocol: Protocol::Http1,
            unit: Unit::Request,
            cases,
            fresh: false,
            wide: false,
            rounds_percent: 100,
            takes_part,
        }
    }

    /// The same for another protocol.
    fn speaking(mut self, protocol: Protocol, unit: Unit) -> Self {
        self.setups = vec![Setup { protocol, ..Setup::default() }];
        Self { protocol, unit, ..self }
    }

    /// Whether this candidate takes part in this case.
    pub(super) fn has(&self, candidate: &Candidate, case: &Case) -> bool {
        candidate.speaks(self.protocol)
            && (self.takes_part)(candidate)
            && !(case.one_only && candidate.group == Group::Pair)
    }
}

impl Case {
    /// 128-byte answers, kept connections, closed loop.
    pub(super) fn usual(connections: u32) -> Self {
        let name = match connections {
            1 => "1 connection".to_owned(),
            n => format!("{n} connections"),
        };
        Self {
            name,
            connections,
            streams: 1,
            body: Body::Bytes128,
            upload_bytes: 0,
            close: false,
            transfer: Transfer::Download,
            resume: false,
            rate: None,
            idle: 0,
            spread: Spread::None,
            warm_milliseconds: 200,
            length_percent: 100,
            by: By::LenoLoad,
            one_only: false,
        }
    }
}

/// All of them, in the order of the report.
pub(super) fn all(connections: &[u32]) -> Vec<Scenario> {
    let keepalive = connections.iter().map(|&count| Case::usual(count)).collect();
    let size = |body: Body, connections: u32, one_only| Case {
        name: format!("{}, {connections} connections", body.name())
            .replace(" 1 connections", " 1 connection"),
        body,
        one_only,
        ..Case::usual(connections)
    };
    let sizes = vec![
        size(Body::KiB10, 64, false),
        size(Body::KiB100, 1, true),
        size(Body::KiB100, 8, true),
        size(Body::KiB100, 64, false),
        size(Body::KiB100, 512, true),
        size(Body::MiB1, 64, false),
    ];
    let upload = Case { upload_bytes: 16 << 10, name: "16 KiB, 64 connections".into(), ..Case::usual(64) };
    let connect = Case { close: true, name: "64 at a time".into(), ..Case::usual(64) };
    let rate = |rate: u32, name: &str| Case {
        name: name.to_owned(),
        rate: Some(rate),
        // A percentile of 99.9 needs thousands of answers.
        length_percent: 200,
        warm_milliseconds: 500,
        ..Case::usual(32)
    };
    let rules = |spread, name: &str| Case { spread, name: name.to_owned(), ..Case::usual(64) };
    let endpoints = Case { warm_milliseconds: 500, ..Case::usual(64) };
    let idle = Case { idle: 10_000, name: "10,000 idle, 64 busy".into(), ..Case::usual(64) };
    let grpc = |connections: u32, streams: u32| Case {
        name: format!("{connections} x {streams}"),
        streams,
        ..Case::usual(connections)
    };
    let bulk = |transfer, name: &str, connections: u32| Case {
        name: format!("{name}, {connections} connections").replace(" 1 connections", " 1 connection"),
        transfer,
        ..Case::usual(connections)
    };
    let bulk = vec![
        bulk(Transfer::Download, "download", 1),
        bulk(Transfer::Download, "download", 8),
        bulk(Transfer::Upload, "upload", 1),
        bulk(Transfer::Upload, "upload", 8),
    ];
    let exchange =
        Case { transfer: Transfer::Exchange, close: true, name: "64 at a time".into(), ..Case::usual(64) };
    let handshake = |resume, name: &str| Case {
        resume,
        close: true,
        name: format!("{name}, 16 at a time"),
        ..Case::usual(16)
    };
    let by = |by, name: &str| Case { by, name: name.to_owned(), ..Case::usual(64) };

    let mut all = vec![
        Scenario::new("keepalive", "128-byte answers over kept connections", |_| true, keepalive),
        Scenario::new(
            "latency",
            "At a fixed rate over 32 connections",
            |_| true,
            vec![rate(1_000, "1,000/s"), rate(5_000, "5,000/s")],
        ),
        Scenario::new(
            "sizes",
            "Larger answers over kept connections",
            |c| main_ones(c) && c.name != "direct",
            sizes,
        ),
        Scenario::new("upload", "Uploads over kept connections", |c| c.group != Group::Direct, vec![upload]),
        Scenario::new(
            "connect",
            "A new connection for each request",
            |c| c.group != Group::Direct,
            vec![connect],
        ),
        Scenario::new(
            "rules",
            "Many rules, 64 connections",
            |c| c.group == Group::One,
            vec![rules(Spread::Rules, "all rules in turn"), rules(Spread::LastRule, "the last rule")],
        ),
        Scenario::new(
            "endpoints",
            "Many endpoints",
            |c| c.group == Group::One && c.name != "nginx",
            vec![endpoints],
        ),
        Scenario::new(
            "idle",
            "Idle connections",
            |c| c.group == Group::One || c.name == "leno-pair",
            vec![idle],
        ),
        Scenario::new(
            "memory",
            "Memory after 512 connections",
            |c| c.group != Group::Direct,
            vec![Case::usual(512)],
        ),
        Scenario::new(
            "workers",
            "Workers, both cores shared with the load",
            |c| c.name == "leno",
            vec![Case::usual(64)],
        ),
        Scenario::new(
            "crosscheck",
            "The same by other load generators",
            |c| c.group != Group::Pair,
            vec![by(By::LenoLoad, "leno-load"), by(By::Wrk, "wrk"), by(By::H2load, "h2load")],
        ),
        Scenario::new(
            "grpc",
            "Unary gRPC calls of 128 bytes, connections x streams",
            |_| true,
            vec![grpc(64, 1), grpc(8, 8), grpc(1, 64)],
        )
        .speaking(Protocol::Grpc, Unit::Request),
        Scenario::new("tcp", "Bulk without a protocol", |_| true, bulk)
            .speaking(Protocol::Tcp, Unit::Kilobyte),
        Scenario::new(
            "exchange",
            "A new TCP connection for each exchange of 128 bytes",
            |c| c.group != Group::Direct,
            vec![exchange],
        )
        .speaking(Protocol::Tcp, Unit::Connection),
        Scenario::new(
            "handshake",
            "A new TLS connection for each request",
            |_| true,
            vec![handshake(false, "full handshake"), handshake(true, "resumed")],
        )
        .speaking(Protocol::Https, Unit::Connection),
        Scenario::new(
            "grpc-crosscheck",
            "Unary gRPC calls by another load generator",
            |c| c.group != Group::Pair,
            vec![
                Case { by: By::LenoLoad, name: "8 x 8, leno-load".into(), ..grpc(8, 8) },
                Case { by: By::H2load, name: "8 x 8, h2load".into(), ..grpc(8, 8) },
            ],
        )
        .speaking(Protocol::Grpc, Unit::Request),
    ];
    for scenario in &mut all {
        let named = |name: &str| Setup { name: name.to_owned(), ..Setup::default() };
        match scenario.name {
            "rules" => {
                scenario.setups = [(10, "10 rules"), (1_000, "1,000 rules"), (10_000, "10,000 rules")]
                    .map(|(rules, name)| Setup { rules, ..named(name) })
                    .to_vec();
            }
            "endpoints" => {
                scenario.wide = true;
                // Connections to 10,000 endpoints of each candidate are more than one upstream may open.
                scenario.fresh = true;
                scenario.rounds_percent = 60;
                scenario.setups = [(1, "1 endpoint"), (100, "100 endpoints"), (10_000, "10,000 endpoints")]
                    .map(|(endpoints, name)| Setup { endpoints, connections: 12_000, ..named(name) })
                    .to_vec();
            }
            "workers" => {
                scenario.setups = [(1, "1 worker"), (2, "2 workers")]
                    .map(|(workers, name)| Setup { workers, both_cores: true, ..named(name) })
                    .to_vec();
            }
            "idle" => {
                scenario.setups = vec![Setup { connections: 12_000, ..Setup::default() }];
                scenario.fresh = true;
                scenario.rounds_percent = 60;
            }
            "memory" => {
                scenario.fresh = true;
                scenario.rounds_percent = 60;
            }
            "crosscheck" | "grpc-crosscheck" => scenario.rounds_percent = 60,
            _ => {}
        }
    }
    all
}

/// Without the pairs that are always the slower ones of their make.
fn main_ones(candidate: &Candidate) -> bool {
    !matches!(candidate.name.as_str(), "nginx-h1-pair" | "haproxy-h1-pair" | "envoy-h1-pair")
}
