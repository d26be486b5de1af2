//! The measurements of one run, in their order.

use std::time::{Duration, Instant};

use super::candidate::{Candidate, Group, Running, Setup, Stage};
use super::crosscheck;
use super::generator::{Generator, Load};
use super::options::Options;
use super::process::Used;
use super::protocol::Unit;
use super::scenario::{By, Case, Scenario};
use super::template::Configuration;
use super::upstream::Upstream;

/// One measurement.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) load: Load,
    /// Of the candidate's processes.
    pub(super) cpu: Used,
    pub(super) memory: Memory,
    /// Connections to the upstream, and between two sidecars, that were opened or closed meanwhile: with pools that
    /// are kept, next to none.
    pub(super) churn: u64,
}

/// Resident bytes of each process of a candidate.
#[derive(Clone, Default)]
pub(super) struct Memory {
    /// Before the load came.
    pub(super) before: Vec<(String, u64)>,
    /// With all connections open, idle ones too.
    pub(super) open: Vec<(String, u64)>,
    /// After the measurement.
    pub(super) after: Vec<(String, u64)>,
    /// Some time after all connections were closed.
    pub(super) gone: Vec<(String, u64)>,
}

/// All measurements of one candidate in one setup and case.
pub(super) struct Cell {
    pub(super) scenario: &'static str,
    pub(super) candidate: Candidate,
    pub(super) setup: String,
    pub(super) case: String,
    pub(super) samples: Vec<Sample>,
}

/// What a run has found so far.
pub(super) struct Session<'a> {
    options: &'a Options,
    stage: &'a Stage<'a>,
    pub(super) cells: Vec<Cell>,
    /// Candidate and reason.
    pub(super) failures: Vec<(String, String)>,
    pub(super) configurations: Vec<Configuration>,
    /// For the estimate: what is planned, what is over.
    planned: Duration,
    done: Duration,
    begin: Instant,
}

/// A candidate in a setup; running unless each measurement has its own.
struct Seat {
    candidate: Candidate,
    setup: Setup,
    running: Option<Running>,
    failed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(options: &'a Options, stage: &'a Stage<'a>) -> Self {
        Self {
            options,
            stage,
            cells: Vec::new(),
            failures: Vec::new(),
            configurations: Vec::new(),
            planned: Duration::ZERO,
            done: Duration::ZERO,
            begin: Instant::now(),
        }
    }

    /// Adds up how long all of it will take.
    pub(super) fn plan(&mut self, scenarios: &[Scenario], candidates: &[Candidate]) {
        for scenario in scenarios {
            for round in 0..=self.rounds(scenario) {
                for case in &scenario.cases {
                    let seats = candidates.iter().filter(|candidate| scenario.has(candidate, case)).count();
                    let seats = u32::try_from(seats * scenario.setups.len()).unwrap_or(u32::MAX);
                    self.planned += self.expected(scenario, case, round) * seats;
                }
            }
        }
        println!("this takes about {} minutes", self.planned.as_secs().div_ceil(60));
    }

    /// Every candidate in turn, in every round. A candidate that fails takes no further part.
    pub(super) fn run(&mut self, scenario: &Scenario, candidates: &[Candidate]) -> Result<(), String> {
        let upstream = Upstream::start(self.stage, scenario.protocol, scenario.wide)?;
        self.keep(&upstream.configurations);
        let mut seats = Vec::new();
        for setup in &scenario.setups {
            for candidate in candidates {
                if scenario.cases.iter().any(|case| scenario.has(candidate, case)) {
                    seats.push(self.seat(scenario, candidate, setup, &upstream));
                }
            }
        }
        for round in 0..=self.rounds(scenario) {
            for case in &scenario.cases {
                let length = self.length(case, round);
                for turn in 0..seats.len() {
                    // Another one starts each round, so that nobody always runs after the same neighbour.
                    let at = (turn + usize::try_from(round).unwrap_or(0)) % seats.len();
                    let seat = &mut seats[at];
                    if !scenario.has(&seat.candidate, case) {
                        continue;
                    }
                    self.done += self.expected(scenario, case, round);
                    if length == 0 || seat.failed {
                        continue;
                    }
                    match self.one(seat, case, &upstream, length) {
                        Ok(sample) if round > 0 => self.record(scenario, seat, case, round, sample),
                        Ok(_) => {}
                        Err(error) => {
                            seat.failed = true;
                            let place = format!("{}, {} {}", scenario.name, case.name, seat.setup.name);
                            self.fail(&seat.candidate.name, &format!("{}: {error}", place.trim()));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn seat(
        &mut self,
        scenario: &Scenario,
        candidate: &Candidate,
        setup: &Setup,
        upstream: &Upstream,
    ) -> Seat {
        let mut seat =
            Seat { candidate: candidate.clone(), setup: setup.clone(), running: None, failed: false };
        let certificates = self.stage.certificates;
        let started = Running::start(candidate, setup, upstream, self.stage)
            .and_then(|running| running.refuses_strangers(certificates).map(|()| running));
        match started {
            Ok(running) => {
                self.keep(&running.configurations);
                seat.running = Some(running).filter(|_| !scenario.fresh);
            }
            Err(error) => {
                seat.failed = true;
                let place = format!("{} {}", scenario.name, setup.name);
                self.fail(&candidate.name, &format!("{}: {error}", place.trim()));
            }
        }
        seat
    }

    fn one(&self, seat: &Seat, case: &Case, upstream: &Upstream, length: u64) -> Result<Sample, String> {
        let fresh;
        let running = match &seat.running {
            Some(running) => running,
            None => {
                fresh = Running::start(&seat.candidate, &seat.setup, upstream, self.stage)?;
                &fresh
            }
        };
        let core = self.stage.cores.load;
        let mut memory = Memory { before: running.memory()?, ..Memory::default() };
        if case.by != By::LenoLoad {
            let before = running.cpu()?;
            let load = crosscheck::run(core, running.entry, case, seat.setup.protocol, length)?;
            let cpu = running.cpu()?.since(before);
            memory.after = running.memory()?;
            return Ok(Sample { load, cpu, memory, churn: 0 });
        }
        let mut generator = Generator::start(self.stage, running.entry, case, &seat.setup, upstream, length)?;
        memory.open = running.memory()?;
        let churn = churn_of(running, upstream)?;
        let before = running.cpu()?;
        let load = generator.measure(length)?;
        let cpu = running.cpu()?.since(before);
        memory.after = running.memory()?;
        let churn = churn_of(running, upstream)?.saturating_sub(churn);
        drop(generator);
        if case.idle > 0 {
            std::thread::sleep(GONE);
            memory.gone = running.memory()?;
        }
        Ok(Sample { load, cpu, memory, churn })
    }

    fn record(&mut self, scenario: &Scenario, seat: &Seat, case: &Case, round: u64, sample: Sample) {
        let rest = self.planned.saturating_sub(self.done).as_secs().div_ceil(60);
        println!(
            "[{:>3} min, about {rest} left] {} round {round}, {:<26} {:<20} {:<17} {}",
            self.begin.elapsed().as_secs() / 60,
            scenario.name,
            case.name,
            seat.candidate.name,
            seat.setup.name,
            sample.line(seat.candidate.group, scenario.unit),
        );
        let same = |cell: &&mut Cell| {
            cell.scenario == scenario.name
                && cell.candidate.name == seat.candidate.name
                && cell.setup == seat.setup.name
                && cell.case == case.name
        };
        match self.cells.iter_mut().find(same) {
            Some(cell) => cell.samples.push(sample),
            None => self.cells.push(Cell {
                scenario: scenario.name,
                candidate: seat.candidate.clone(),
                setup: seat.setup.name.clone(),
                case: case.name.clone(),
                samples: vec![sample],
            }),
        }
    }

    fn fail(&mut self, name: &str, reason: &str) {
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        println!("FAILED {name}: {reason}");
        self.failures.push((name.to_owned(), reason));
    }

    fn keep(&mut self, configurations: &[Configuration]) {
        for configuration in configurations {
            if !self.configurations.iter().any(|kept| kept.name == configuration.name) {
                self.configurations.push(configuration.clone());
            }
        }
    }

    fn rounds(&self, scenario: &Scenario) -> u64 {
        (self.options.rounds * scenario.rounds_percent).div_ceil(100)
    }

    /// Of one measurement in ms; 0: not measured in this round. Round 0 warms up pools, allocators, branch predictors.
    fn length(&self, case: &Case, round: u64) -> u64 {
        match round {
            0 if !self.options.warm_round => 0,
            0 => 500,
            _ => self.options.seconds * 10 * case.length_percent,
        }
    }

    /// One measurement with all around it.
    fn expected(&self, scenario: &Scenario, case: &Case, round: u64) -> Duration {
        let length = self.length(case, round);
        if length == 0 {
            return Duration::ZERO;
        }
        let idle = if case.idle > 0 { GONE + Duration::from_secs(2) } else { Duration::ZERO };
        // Of the processes, and of connections to many endpoints.
        let start = if scenario.fresh { 600 } else { 100 } + if scenario.wide { 1_500 } else { 0 };
        Duration::from_millis(length + case.warm_milliseconds + start) + idle
    }
}

impl Sample {
    pub(super) fn cpu_us(&self) -> f64 {
        per_request(self.cpu.user + self.cpu.system, self.load.requests)
    }

    pub(super) fn user_us(&self) -> f64 {
        per_request(self.cpu.user, self.load.requests)
    }

    pub(super) fn system_us(&self) -> f64 {
        per_request(self.cpu.system, self.load.requests)
    }

    pub(super) fn rate(&self) -> f64 {
        as_float(self.load.requests) / self.load.duration.as_secs_f64()
    }

    /// For the eye, while it runs.
    fn line(&self, group: Group, unit: Unit) -> String {
        let cpu = if group == Group::Direct { 0.0 } else { self.cpu_us() };
        let [p50, _, p99, ..] = self.load.latencies;
        let (digits, rate) = (unit.digits(), unit.shown(self.rate()));
        let units = (unit.cpu(), unit.rate());
        format!("{cpu:>7.digits$} {} {rate:>8.0} {}, p50 {p50:.0} p99 {p99:.0} us", units.0, units.1)
    }
}

/// Connections that the upstream accepted, and those between the sidecars that were closed a short while ago.
fn churn_of(running: &Running, upstream: &Upstream) -> Result<u64, String> {
    let accepted = upstream.accepted()?;
    let Some(mesh) = running.mesh else { return Ok(accepted) };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    // Address and port in hexadecimal; state 06 is TIME_WAIT.
    let port = format!(":{:04X}", mesh.port());
    let closed = table
        .lines()
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().take(4).collect();
            matches!(fields[..], [_, local, remote, "06"] if local.ends_with(&port) || remote.ends_with(&port))
        })
        .count();
    Ok(accepted + closed as u64)
}

fn per_request(time: Duration, requests: u64) -> f64 {
    time.as_secs_f64() * 1e6 / as_float(requests)
}

#[allow(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^52")]
pub(super) fn as_float(number: u64) -> f64 {
    number as f64
}

/// How long memory may take to come back.
const GONE: Duration = Duration::from_secs(8);
