//! Medians, their spread, and what is written down.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Options;
use super::candidate::{self, Kind};
use super::load::Load;

/// One measurement.
pub(super) struct Run {
    /// User and system time of the proxies.
    pub(super) cpu: Duration,
    /// After the measurement.
    pub(super) rss_bytes: u64,
    pub(super) load: Load,
}

impl Run {
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / as_float(self.load.requests)
    }

    fn rate(&self) -> f64 {
        as_float(self.load.requests) / self.load.duration.as_secs_f64()
    }

    /// For the eye, while it runs.
    pub(super) fn line(&self) -> String {
        format!("{:>6.1} us/request  {:>7.0} requests/s", self.cpu_us(), self.rate())
    }

    fn json(&self) -> Value {
        json!({
            "cpu_us_per_request": self.cpu_us(), "requests": self.load.requests, "requests_per_second": self.rate(),
            "p50_us": micros(self.load.p50), "p99_us": micros(self.load.p99), "rss_bytes": self.rss_bytes,
        })
    }
}

/// All measurements of one candidate with one number of connections.
pub(super) struct Cell {
    kind: Kind,
    connections: u32,
    runs: Vec<Run>,
}

impl Cell {
    /// Adds a measurement to its cell.
    pub(super) fn record(cells: &mut Vec<Self>, kind: Kind, connections: u32, run: Run) {
        match cells.iter_mut().find(|cell| cell.kind == kind && cell.connections == connections) {
            Some(cell) => cell.runs.push(run),
            None => cells.push(Self { kind, connections, runs: vec![run] }),
        }
    }

    fn of(&self, value: impl Fn(&Run) -> f64) -> Spread {
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }

    fn json(&self) -> Value {
        let spread = |value: fn(&Run) -> f64| {
            let spread = self.of(value);
            json!({"median": spread.median, "min": spread.min, "max": spread.max})
        };
        json!({
            "candidate": self.kind.name(), "scenario": self.kind.scenario(), "connections": self.connections,
            "cpu_us_per_request": spread(Run::cpu_us), "requests_per_second": spread(Run::rate),
            "p50_us": spread(|run| micros(run.load.p50)), "p99_us": spread(|run| micros(run.load.p99)),
            "rss_bytes": spread(|run| as_float(run.rss_bytes)),
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
        })
    }
}

/// A median with the least and the greatest value. Never of nothing: a cell holds at least one run.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// Everything that one run found.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) cells: &'a [Cell],
    /// Candidate and reason.
    pub(super) failures: &'a [(String, String)],
    /// File and text, as used.
    pub(super) configurations: &'a [(String, String)],
    /// Name and version.
    pub(super) versions: &'a [(String, String)],
}

impl Report<'_> {
    /// Writes results.json, table.md and the configurations into a new folder named by today's date.
    pub(super) fn write(&self, results: &Path) -> Result<PathBuf, String> {
        let date = today();
        let names = std::iter::once(date.clone()).chain((2..1_000).map(|n| format!("{date}-{n}")));
        let folder = names
            .map(|name| results.join(name))
            .find(|folder| !folder.exists())
            .ok_or("too many results today")?;
        let configurations = folder.join("configurations");
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        std::fs::create_dir_all(&configurations)
            .map_err(|error| format!("{}: {error}", configurations.display()))?;
        for (name, text) in self.configurations {
            write(&configurations.join(name), &portable(text))?;
        }
        let pairs = |pairs: &[(String, String)]| -> Value {
            pairs
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let json = json!({
            "date": date, "seconds": self.options.seconds, "rounds": self.options.rounds,
            "versions": pairs(self.versions), "failed": pairs(self.failures),
            "cells": self.sorted().into_iter().map(Cell::json).collect::<Vec<_>>(),
        });
        write(&folder.join("results.json"), &format!("{json:#}\n"))?;
        write(&folder.join("table.md"), &self.table())?;
        Ok(folder)
    }

    /// As Markdown.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "# Single hop, {}\n\nHTTP/1.1, kept connections, 128-byte answers. Medians of {} interleaved rounds of {} s, \
             the spread (greatest minus least) in % of the median behind CPU. Load and upstream on one core, all proxies \
             on another. CPU is user and system time of the proxy processes over the requests; latencies are wrk's, a \
             closed loop at saturation; memory is resident, of all processes of the candidate.\n\n\
             | connections | candidate | between client and upstream | CPU us/request | requests/s | p50 us | p99 us | MiB |\n\
             |---|---|---|---|---|---|---|---|\n",
            today(),
            self.options.rounds,
            self.options.seconds,
        );
        for cell in self.sorted() {
            let cpu = cell.of(Run::cpu_us);
            let shown = if cell.kind == Kind::Direct {
                "-".to_owned()
            } else {
                format!("{:.1} ±{:.0} %", cpu.median, (cpu.max - cpu.min) * 100.0 / cpu.median)
            };
            text.push_str(&format!(
                "| {} | {} | {} | {shown} | {:.0} | {:.0} | {:.0} | {:.1} |\n",
                cell.connections,
                cell.kind.name(),
                cell.kind.scenario(),
                cell.of(Run::rate).median,
                cell.of(|run| micros(run.load.p50)).median,
                cell.of(|run| micros(run.load.p99)).median,
                cell.of(|run| as_float(run.rss_bytes)).median / 1_048_576.0,
            ));
        }
        text.push('\n');
        for (name, reason) in self.failures {
            text.push_str(&format!("- failed: {name}: {reason}\n"));
        }
        for (name, version) in self.versions {
            text.push_str(&format!("- {name}: {version}\n"));
        }
        text
    }

    /// By connections, then as in [`candidate::ALL`].
    fn sorted(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.cells.iter().collect();
        let place = |kind: Kind| candidate::ALL.iter().position(|&other| other == kind);
        cells.sort_by_key(|cell| (cell.connections, place(cell.kind)));
        cells
    }
}

/// Without where this machine keeps its build.
fn portable(text: &str) -> String {
    text.replace(&*crate::shell::target_dir().to_string_lossy(), "target")
}

/// Of UTC, as 2026-11-20.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days since 0000-03-01, in eras of 400 years: the civil calendar without a table.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[allow(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^52")]
fn as_float(number: u64) -> f64 {
    number as f64
}
