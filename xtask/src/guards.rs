//! `cargo xtask guards`: what a request costs, counted by `leno-guard`, beside what is recorded in
//! `bench/guards.json`. A count that has grown by more than 3 % fails; see docs/guards.md.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};

use crate::shell::{self, Findings};

/// What is typed.
pub(crate) struct Options {
    record: bool,
    /// Families to measure.
    only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { record: false, only: FAMILIES.iter().map(|name| (*name).to_owned()).collect() }
    }
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--record" => options.record = true,
                "--only" => {
                    let names = arguments.next().ok_or("--only takes names with commas between them")?;
                    options.only = names.split(',').map(str::to_owned).collect();
                }
                other => return Err(format!("`guards` has no option `{other}`")),
            }
        }
        match options.only.iter().find(|name| !FAMILIES.contains(&name.as_str())) {
            Some(unknown) => Err(format!("there are no counts of `{unknown}`; there are {FAMILIES:?}")),
            None => Ok(options),
        }
    }
}

/// Measures and compares, or records.
pub(crate) fn run(options: &Options) -> Findings {
    let mut findings = Findings::default();
    let all = measure(&options.only);
    let (mut measured, skips) = match all {
        Ok(all) => all,
        Err(error) => {
            findings.problem(error);
            return findings;
        }
    };
    let mut recorded = match Record::read() {
        Ok(recorded) => recorded,
        Err(error) => {
            findings.problem(error);
            return findings;
        }
    };
    if options.record {
        for (name, value) in &measured {
            recorded.values.insert(name.clone(), value.value);
        }
        match recorded.write() {
            Ok(()) => println!("recorded {} values in {RECORD}", measured.len()),
            Err(error) => findings.problem(error),
        }
        return findings;
    }
    // What depends on how threads take turns is measured again before it is called grown.
    let grown: Vec<String> = options
        .only
        .iter()
        .filter(|family| {
            measured.iter().any(|(name, value)| of(family, name) && recorded.has_grown(name, value.value))
        })
        .cloned()
        .collect();
    if !grown.is_empty() {
        println!("grown, so measured again: {}", grown.join(", "));
        match measure(&grown) {
            Ok((again, _)) => {
                for (name, again) in again {
                    measured.entry(name).and_modify(|first| {
                        if again.value < first.value {
                            *first = again.clone();
                        }
                    });
                }
            }
            Err(error) => findings.problem(error),
        }
    }
    for (name, measured) in &measured {
        recorded.judge(name, measured, &mut findings);
    }
    for name in recorded.values.keys() {
        let asked = options.only.iter().any(|family| of(family, name));
        let skipped = skips.iter().any(|(what, _)| name.starts_with(what.as_str()));
        if asked && !skipped && !measured.contains_key(name) {
            findings.problem(format!("{name} is in {RECORD} and nothing measures it"));
        }
    }
    findings.skipped.extend(skips.iter().map(|(what, why)| format!("guards::{what}: {why}")));
    findings
}

/// A value and what was said beside it.
#[derive(Clone)]
struct Measured {
    value: f64,
    remark: String,
}

type Skips = Vec<(String, String)>;

/// Builds what counts and what is counted, and runs each family. They count and do not time, so they may run at once.
fn measure(families: &[String]) -> Result<(BTreeMap<String, Measured>, Skips), String> {
    if !shell::succeeds(shell::cargo().args(["build", "--profile", "guard", "--package", "leno-guard"])) {
        return Err("leno-guard does not build".into());
    }
    if families.iter().any(|family| family == SYSTEM_CALLS)
        && !shell::succeeds(shell::cargo().args(["build", "--package", "leno"]))
    {
        return Err("leno does not build".into());
    }
    let guard = shell::target_dir().join("guard/leno-guard");
    let leno = shell::target_dir().join("debug/leno");
    let running: Vec<_> = families
        .iter()
        .map(|family| {
            let mut command = Command::new(&guard);
            command.arg(family.replace('_', "-"));
            if family == SYSTEM_CALLS {
                command.arg(&leno);
            }
            std::thread::spawn(move || shell::output(&mut command))
        })
        .collect();
    let (mut values, mut skips) = (BTreeMap::new(), Vec::new());
    for thread in running {
        let text = thread.join().map_err(|_| "a thread has panicked")??;
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("value"), Some(name), Some(value), remark) => {
                    let value = value.parse().map_err(|_| format!("leno-guard said `{line}`"))?;
                    let remark = remark.unwrap_or_default().to_owned();
                    values.insert(name.to_owned(), Measured { value, remark });
                }
                (Some("skip"), Some(what), Some(word), rest) => {
                    skips.push((what.to_owned(), format!("{word} {}", rest.unwrap_or_default())));
                }
                _ => return Err(format!("leno-guard said `{line}`")),
            }
        }
    }
    Ok((values, skips))
}

/// What is recorded.
struct Record {
    values: BTreeMap<String, f64>,
}

impl Record {
    fn path() -> PathBuf {
        shell::root().join(RECORD)
    }

    fn read() -> Result<Self, String> {
        let path = Self::path();
        if !path.exists() {
            return Ok(Self { values: BTreeMap::new() });
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{RECORD}: {error}"))?;
        let values: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| format!("{RECORD}: {error}"))?;
        let number = |(name, value): (String, Value)| {
            let number = value.as_f64().ok_or_else(|| format!("{RECORD}: {name} is no number"))?;
            Ok((name, number))
        };
        Ok(Self { values: values.into_iter().map(number).collect::<Result<_, String>>()? })
    }

    fn write(&self) -> Result<(), String> {
        // Digits that change from run to run would only make noise in the history.
        let rounded =
            |value: f64| if value >= 100.0 { value.round() } else { (value * 100.0).round() / 100.0 };
        let values: Map<String, Value> =
            self.values.iter().map(|(name, value)| (name.clone(), rounded(*value).into())).collect();
        let text = serde_json::to_string_pretty(&values).map_err(|error| error.to_string())?;
        std::fs::write(Self::path(), text + "\n").map_err(|error| format!("{RECORD}: {error}"))
    }

    fn has_grown(&self, name: &str, value: f64) -> bool {
        let tolerance =
            LOOSE.iter().find(|(of, _)| *of == name).map_or(TOLERANCE, |(_, tolerance)| *tolerance);
        self.values.get(name).is_some_and(|recorded| value > recorded * (1.0 + tolerance) + SLACK)
    }

    /// Says a value beside the record, and whether that is a problem.
    fn judge(&self, name: &str, measured: &Measured, findings: &mut Findings) {
        let Measured { value, remark } = measured;
        let target = TARGETS.iter().find(|(of, _)| *of == name).map(|(_, target)| *target);
        let target = target.map_or(String::new(), |target| {
            let verdict = if *value <= target + SLACK { "met" } else { "missed" };
            format!("  target {target}: {verdict}")
        });
        let Some(recorded) = self.values.get(name) else {
            findings
                .problem(format!("{name} is {value:.2} and has no record: `cargo xtask guards --record`"));
            return;
        };
        println!("{name:<34} {value:>10.2}  recorded {recorded:>10.2}{target}  ({remark})");
        if self.has_grown(name, *value) {
            findings.problem(format!(
                "{name} has grown from {recorded:.2} to {value:.2} ({remark}). If that is meant: `cargo xtask guards --record`, and say why in the commit"
            ));
        } else if *value < recorded * (1.0 - TOLERANCE) - SLACK {
            println!(
                "hint: {name} has shrunk from {recorded:.2} to {value:.2}; keep it with `cargo xtask guards --record`"
            );
        }
    }
}

/// Whether a value belongs to a family.
fn of(family: &str, name: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.starts_with('.'))
}

/// Where the record is, from the root.
const RECORD: &str = "bench/guards.json";
/// Kinds of counts; each is a command of `leno-guard`.
const FAMILIES: &[&str] = &["allocations", SYSTEM_CALLS, "instructions", "memory"];
const SYSTEM_CALLS: &str = "system_calls";
/// A count may grow by this share before it fails.
const TOLERANCE: f64 = 0.03;
/// Counts that may grow by more: how many streams share one turn of the transport, and so one buffer, depends on how
/// threads take turns. Ten runs lay within 20 % of each other.
const LOOSE: &[(&str, f64)] = &[
    ("allocations.pair_64", 0.5),
    ("allocations.pair_100k", 0.3),
    ("allocations.grpc_8x8", 0.3),
    ("allocations.grpc_pair_8x8", 0.5),
    ("system_calls.grpc_8x8", 0.3),
    ("system_calls.grpc_pair_8x8", 0.3),
    // How much one call moves depends on how far the other end is.
    ("system_calls.bulk", 0.5),
    ("system_calls.bulk_pair", 0.5),
];
/// And by this much, which is one event in a hundred requests: a record of nothing has no share to grow by.
const SLACK: f64 = 0.01;
/// What the project wants; shown beside the values, not enforced.
const TARGETS: &[(&str, f64)] = &[
    ("allocations.plain_1", 0.0),
    ("allocations.plain_64", 0.0),
    ("allocations.plain_100k", 0.0),
    ("system_calls.plain_64", 5.0),
    ("system_calls.plain_64_saturated", 4.2),
    ("memory.plain_idle", 2_048.0),
    ("memory.tls_accepted", 12_288.0),
    ("memory.tls_dialed", 12_288.0),
    // A fifth of the 10 MiB that an idle proxy may have resident.
    ("memory.burst_leaves", 2_097_152.0),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Measured, Record};
    use crate::shell::Findings;

    #[test]
    fn growth_fails_and_shrinking_does_not() {
        let record =
            Record { values: BTreeMap::from([("a.x".to_owned(), 100.0), ("a.none".to_owned(), 0.0)]) };
        let problems = |name: &str, value: f64| {
            let mut findings = Findings::default();
            record.judge(name, &Measured { value, remark: String::new() }, &mut findings);
            findings.problems.len()
        };
        assert_eq!((problems("a.x", 103.0), problems("a.x", 103.1), problems("a.x", 50.0)), (0, 1, 0));
        assert_eq!((problems("a.none", 0.002), problems("a.none", 1.0)), (0, 1));
        assert_eq!(problems("a.new", 1.0), 1);
    }
}
