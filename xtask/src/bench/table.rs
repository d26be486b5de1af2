//! One table per scenario.

use super::candidate::Group;
use super::generator::PERCENTILES;
use super::measure::{Cell, Sample, as_float};
use super::protocol::Unit;
use super::report::{Report, sum};
use super::scenario::{Case, Scenario};

/// As Markdown; empty when nothing was measured.
pub(super) fn of(report: &Report<'_>, scenario: &Scenario) -> String {
    let rows: Vec<Row<'_>> = rows(report, scenario);
    if rows.is_empty() {
        return String::new();
    }
    let mut columns: Vec<Column> = vec![
        ("case", |_, row| row.case.name.clone()),
        ("setup", |_, row| row.cell.setup.clone()),
        ("candidate", |_, row| row.cell.candidate.name.clone()),
        ("between", |_, row| row.cell.candidate.between.to_owned()),
        (scenario.unit.cpu(), |_, row| match row.cell.candidate.group {
            Group::Direct => "-".to_owned(),
            _ => {
                let (cpu, digits) = (row.cell.of(Sample::cpu_us), row.scenario.unit.digits());
                format!("{:.digits$} ({:.digits$}..{:.digits$})", cpu.median, cpu.min, cpu.max)
            }
        }),
        ("user + system", |_, row| match row.cell.candidate.group {
            Group::Direct => "-".to_owned(),
            _ => {
                let (user, system) = (row.cell.of(Sample::user_us), row.cell.of(Sample::system_us));
                let digits = row.scenario.unit.digits();
                format!("{:.digits$} + {:.digits$}", user.median, system.median)
            }
        }),
        ("Leno / this", |report, row| {
            let leno = leno(report, row).map(|leno| leno.of(Sample::cpu_us).median);
            ratio(leno, row.cell.of(Sample::cpu_us).median)
        }),
    ];
    if scenario.setups.len() > 1 {
        columns.push(("to its first setup", |report, row| {
            let first = &row.scenario.setups[0].name;
            let name = &row.cell.candidate.name;
            let first = report.cell(row.scenario.name, name, first, &row.case.name);
            let first = first.map_or(0.0, |first| first.of(Sample::cpu_us).median);
            ratio(Some(row.cell.of(Sample::cpu_us).median), first)
        }));
    }
    if scenario.unit == Unit::Connection {
        columns.push(("per CPU second", |_, row| match row.cell.candidate.group {
            Group::Direct => "-".to_owned(),
            _ => format!("{:.0}", 1e6 / row.cell.of(Sample::cpu_us).median),
        }));
    }
    columns.push((scenario.unit.rate(), |_, row| {
        format!("{:.0}", row.scenario.unit.shown(row.cell.of(Sample::rate).median))
    }));
    columns.extend(LATENCIES);
    if scenario.cases.iter().any(|case| case.rate.is_some()) {
        columns.extend(ADDED);
    }
    if scenario.cases.iter().any(|case| case.idle > 0) {
        columns.extend(IDLE);
    }
    columns.extend(MEMORY);
    columns.push(("churn", |_, row| {
        let share =
            row.cell.of(|sample| as_float(sample.churn) * 100.0 / as_float(sample.load.requests)).median;
        if row.case.close || share < 0.1 { String::new() } else { format!("{share:.1} %") }
    }));
    let mut text = format!("\n## {} ({})\n\n", scenario.title, scenario.name);
    let table: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|(_, value)| value(report, row)).collect()).collect();
    // A column that says nothing is left out.
    let kept: Vec<usize> = (0..columns.len())
        .filter(|&at| table.iter().any(|row| !matches!(row[at].as_str(), "" | "-")))
        .collect();
    let line = |values: Vec<&str>| format!("| {} |\n", values.join(" | "));
    text.push_str(&line(kept.iter().map(|&at| columns[at].0).collect()));
    text.push_str(&line(vec!["---"; kept.len()]));
    for row in &table {
        text.push_str(&line(kept.iter().map(|&at| row[at].as_str()).collect()));
    }
    text
}

/// A line of a table.
struct Row<'a> {
    scenario: &'a Scenario,
    case: &'a Case,
    cell: &'a Cell,
}

/// Its head, and what stands in it.
type Column = (&'static str, fn(&Report<'_>, &Row<'_>) -> String);

const LATENCIES: [Column; 4] = [
    ("p50 us", |_, row| latency(row, 0)),
    ("p90", |_, row| latency(row, 1)),
    ("p99", |_, row| latency(row, 2)),
    ("p99.9", |_, row| latency(row, 3)),
];

/// To what the same load has without any proxy.
const ADDED: [Column; 3] = [
    ("added p50", |report, row| added(report, row, 0)),
    ("added p99", |report, row| added(report, row, 2)),
    ("added p99.9", |report, row| added(report, row, 3)),
];

const IDLE: [Column; 2] = [
    ("KiB per idle connection", |_, row| {
        let all = as_float(row.case.idle as u64 + u64::from(row.case.connections));
        let each = |sample: &Sample| (sum(&sample.memory.open) - sum(&sample.memory.before)) / all / 1024.0;
        format!("{:.1}", row.cell.of(each).median)
    }),
    ("MiB after they have gone", |_, row| mib(row, |sample| sum(&sample.memory.gone))),
];

const MEMORY: [Column; 2] = [
    ("MiB at start", |_, row| {
        if row.scenario.fresh { mib(row, |sample| sum(&sample.memory.before)) } else { String::new() }
    }),
    ("MiB after", |_, row| {
        let total = mib(row, |sample| sum(&sample.memory.after));
        let processes = row.cell.samples.first().map_or(0, |sample| sample.memory.after.len());
        if processes < 2 {
            return if processes == 0 { String::new() } else { total };
        }
        let each: Vec<String> = (0..processes)
            .map(|at| mib(row, |sample| sample.memory.after.get(at).map_or(0.0, |(_, rss)| as_float(*rss))))
            .collect();
        format!("{total} = {}", each.join(" + "))
    }),
];

/// By case, then setup, then group and candidate.
fn rows<'a>(report: &'a Report<'_>, scenario: &'a Scenario) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for case in &scenario.cases {
        for candidate in report.candidates {
            for setup in &scenario.setups {
                if let Some(cell) = report.cell(scenario.name, &candidate.name, &setup.name, &case.name) {
                    rows.push(Row { scenario, case, cell });
                }
            }
        }
    }
    rows
}

/// Leno in the same place.
fn leno<'a>(report: &'a Report<'_>, row: &Row<'_>) -> Option<&'a Cell> {
    let name = match row.cell.candidate.group {
        Group::Direct => return None,
        Group::One => "leno",
        Group::Pair => "leno-pair",
    };
    let other = row.cell.candidate.name != name;
    report.cell(row.scenario.name, name, &row.cell.setup, &row.case.name).filter(|_| other)
}

fn ratio(of: Option<f64>, to: f64) -> String {
    match of {
        Some(of) if to > 0.0 => format!("{:.2}", of / to),
        _ => String::new(),
    }
}

fn latency(row: &Row<'_>, at: usize) -> String {
    let value = row.cell.of(|sample| sample.load.latencies[at]).median;
    if value > 0.0 { format!("{value:.0}") } else { String::new() }
}

fn added(report: &Report<'_>, row: &Row<'_>, at: usize) -> String {
    added_us(report, row.scenario.name, row.cell, at).map_or(String::new(), |us| format!("{us:+.0}"))
}

/// The median that a candidate adds to the direct way's, at one of [`PERCENTILES`].
pub(super) fn added_us(report: &Report<'_>, scenario: &str, cell: &Cell, at: usize) -> Option<f64> {
    debug_assert!(at < PERCENTILES.len());
    let direct = report.cell(scenario, "direct", &cell.setup, &cell.case)?;
    let median = |cell: &Cell| cell.of(|sample| sample.load.latencies[at]).median;
    (cell.candidate.group != Group::Direct).then(|| median(cell) - median(direct))
}

fn mib(row: &Row<'_>, value: impl Fn(&Sample) -> f64) -> String {
    format!("{:.1}", row.cell.of(value).median / 1_048_576.0)
}
