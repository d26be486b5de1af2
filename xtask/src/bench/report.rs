//! What is written down: results.json, table.md, plots, and the configurations used.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::candidate::Candidate;
use super::generator::PERCENTILES;
use super::measure::{Cell, Sample, as_float};
use super::options::Options;
use super::scenario::Scenario;
use super::template::Configuration;
use super::{plot, table};

/// Everything that one run found.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) scenarios: &'a [Scenario],
    pub(super) candidates: &'a [Candidate],
    pub(super) cells: &'a [Cell],
    /// Candidate and reason.
    pub(super) failures: &'a [(String, String)],
    pub(super) skipped: &'a [(String, String)],
    pub(super) configurations: &'a [Configuration],
    /// Name and version.
    pub(super) versions: &'a [(String, String)],
}

/// A median with the least and the greatest value.
#[derive(Clone, Copy)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Cell {
    /// Over all samples. Never of nothing: a cell holds at least one.
    pub(super) fn of(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        let mut values: Vec<f64> = self.samples.iter().map(value).collect();
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
        let spread = |value: &dyn Fn(&Sample) -> f64| {
            let spread = self.of(value);
            json!({"median": spread.median, "min": spread.min, "max": spread.max})
        };
        let latencies: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), spread(&|sample| sample.load.latencies[at])))
            .collect();
        json!({
            "scenario": self.scenario, "case": self.case, "setup": self.setup, "candidate": self.candidate.name,
            "between": self.candidate.between,
            "cpu_us_per_request": spread(&Sample::cpu_us), "user_us_per_request": spread(&Sample::user_us),
            "system_us_per_request": spread(&Sample::system_us), "requests_per_second": spread(&Sample::rate),
            "latency": latencies, "rounds": self.samples.iter().map(sample).collect::<Vec<_>>(),
        })
    }
}

fn sample(sample: &Sample) -> Value {
    let memory = |processes: &[(String, u64)]| -> Vec<Value> {
        processes.iter().map(|(name, bytes)| json!({"process": name, "rss_bytes": bytes})).collect()
    };
    let latencies: serde_json::Map<String, Value> = PERCENTILES
        .iter()
        .zip(sample.load.latencies)
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "requests": sample.load.requests, "seconds": sample.load.duration.as_secs_f64(),
        "user_us": sample.cpu.user.as_micros() as u64, "system_us": sample.cpu.system.as_micros() as u64,
        "latency": latencies, "wait_p99_us": sample.load.wait_p99, "connections_churned": sample.churn,
        "memory_before": memory(&sample.memory.before), "memory_open": memory(&sample.memory.open),
        "memory_after": memory(&sample.memory.after), "memory_gone": memory(&sample.memory.gone),
    })
}

/// Resident bytes of all processes of a candidate.
pub(super) fn sum(processes: &[(String, u64)]) -> f64 {
    as_float(processes.iter().map(|(_, bytes)| bytes).sum())
}

impl Report<'_> {
    /// Writes all of it into a new folder named by today's date.
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
        for Configuration { name, text } in self.configurations {
            write(&configurations.join(name), &portable(text))?;
        }
        let pairs = |pairs: &[(String, String)]| -> Value {
            pairs
                .iter()
                .map(|(name, value)| (name.clone(), json!(portable(value))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let list = |pairs: &[(String, String)]| -> Value {
            pairs.iter().map(|(name, why)| json!({"candidate": name, "reason": portable(why)})).collect()
        };
        let units: serde_json::Map<String, Value> = self
            .scenarios
            .iter()
            .map(|scenario| (scenario.name.to_owned(), json!(scenario.unit.word())))
            .collect();
        let json = json!({
            "date": date, "units": units, "seconds": self.options.seconds, "rounds": self.options.rounds,
            "versions": pairs(self.versions), "failed": list(self.failures), "skipped": list(self.skipped),
        });
        let cells: Vec<Value> = self.cells.iter().map(Cell::json).collect();
        write(&folder.join("results.json"), &one_line_each(&json, &cells))?;
        write(&folder.join("table.md"), &portable(&self.table()))?;
        for (name, text) in plot::all(self) {
            write(&folder.join(name), &text)?;
        }
        Ok(folder)
    }

    /// As Markdown.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "# Benchmarks, {}\n\nMedians of {} interleaved rounds of {} s; behind CPU times the least and the greatest. Load \
             and upstream on one core, all proxies on another. docs/performance.md says how to read this.\n",
            today(),
            self.options.rounds,
            self.options.seconds,
        );
        for scenario in self.scenarios {
            text.push_str(&table::of(self, scenario));
        }
        text.push_str("\n## Who took part\n\n");
        for (name, reason) in self.failures {
            text.push_str(&format!("- **failed**: {name}: {reason}\n"));
        }
        for (name, reason) in self.skipped {
            text.push_str(&format!("- skipped: {name}: {reason}\n"));
        }
        for (name, version) in self.versions {
            text.push_str(&format!("- {name}: {version}\n"));
        }
        text
    }

    /// The cell of a candidate in a setup and case.
    pub(super) fn cell(&self, scenario: &str, candidate: &str, setup: &str, case: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.scenario == scenario
                && cell.candidate.name == candidate
                && cell.setup == setup
                && cell.case == case
        })
    }
}

/// An object with a list `cells`, one line per cell: a record of thousands of measurements that can still be read.
fn one_line_each(head: &Value, cells: &[Value]) -> String {
    let head = format!("{head:#}");
    let head = head.strip_suffix("\n}").unwrap_or(&head);
    let lines: Vec<String> = cells.iter().map(Value::to_string).collect();
    format!("{head},\n  \"cells\": [\n{}\n  ]\n}}\n", lines.join(",\n"))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::one_line_each;

    #[test]
    fn results_are_json() {
        let text = one_line_each(&json!({"a": {"b": {}}}), &[json!({"c": 1}), json!({"c": 2})]);
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, json!({"a": {"b": {}}, "cells": [{"c": 1}, {"c": 2}]}));
        assert!(text.contains("\n{\"c\":1},\n{\"c\":2}\n"), "{text}");
    }
}
