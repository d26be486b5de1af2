//! What is measured, and how long.

use std::path::PathBuf;

use super::candidate::{self, Candidate, Group};
use super::scenario;

/// One run.
pub(crate) struct Options {
    /// Length of one measurement.
    pub(super) seconds: u64,
    /// Measurements of each.
    pub(super) rounds: u64,
    /// A round before that is not recorded.
    pub(super) warm_round: bool,
    /// Numbers of connections of the scenario `keepalive`.
    pub(super) connections: Vec<u32>,
    /// Names of scenarios and of candidates; empty: all.
    scenarios: Vec<String>,
    only: Vec<String>,
    /// A binary to measure instead of building one.
    pub(super) leno: Option<PathBuf>,
    /// Candidates of the user's.
    external: Vec<Candidate>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            seconds: 2,
            rounds: 5,
            warm_round: true,
            connections: vec![1, 8, 64, 512],
            scenarios: Vec::new(),
            only: Vec::new(),
            leno: None,
            external: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            if name == "--quick" {
                options.seconds = 1;
                options.rounds = 1;
                options.warm_round = false;
                continue;
            }
            let value =
                rest.next().ok_or_else(|| format!("`{name}` needs a value, or is no option of `bench`"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|&n| n > 0)
                    .ok_or_else(|| format!("{name}: `{value}` is no number above 0"))
            };
            let list = || value.split(',').map(str::to_owned).collect();
            match name.as_str() {
                "--seconds" => options.seconds = number()?,
                "--rounds" => options.rounds = number()?,
                "--connections" => {
                    options.connections = value
                        .split(',')
                        .map(|part| part.parse().map_err(|_| format!("{name}: `{part}` is no number")))
                        .collect::<Result<_, _>>()?;
                }
                "--scenario" => options.scenarios = list(),
                "--only" => options.only = list(),
                "--leno" => options.leno = Some(PathBuf::from(value)),
                "--external" => options.external.push(external(value, Group::One)?),
                "--external-pair" => options.external.push(external(value, Group::Pair)?),
                other => return Err(format!("`bench` has no option `{other}`")),
            }
        }
        let candidates: Vec<String> = options.all_candidates().into_iter().map(|c| c.name).collect();
        known("candidate", &options.only, &candidates)?;
        let scenarios: Vec<String> = scenario::all(&[]).iter().map(|s| s.name.to_owned()).collect();
        known("scenario", &options.scenarios, &scenarios)?;
        Ok(options)
    }

    /// Ours and the user's.
    pub(super) fn all_candidates(&self) -> Vec<Candidate> {
        candidate::all().into_iter().chain(self.external.iter().cloned()).collect()
    }

    pub(super) fn takes(&self, candidate: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == candidate)
    }

    pub(super) fn takes_scenario(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| name == scenario)
    }
}

/// `NAME=SCRIPT`.
fn external(value: &str, group: Group) -> Result<Candidate, String> {
    let wrong = |why: &str| format!("`{value}`: {why}");
    let (name, script) = value.split_once('=').ok_or_else(|| wrong("not NAME=SCRIPT"))?;
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || candidate::all().iter().any(|candidate| candidate.name == name) {
        return Err(wrong("not a new name of letters, digits and `-`"));
    }
    let script = std::path::absolute(script).map_err(|error| wrong(&error.to_string()))?;
    if !script.is_file() {
        return Err(wrong("no such file"));
    }
    Ok(Candidate::external(name, group, script))
}

fn known(what: &str, wanted: &[String], all: &[String]) -> Result<(), String> {
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(name) => Err(format!("no {what} is called `{name}`; there are {}", all.join(", "))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_known_or_refused() {
        assert!(parse("--only leno,haproxy-h2-pair --scenario keepalive,idle --quick").is_ok());
        for (line, said) in [
            ("--only lenno", "no candidate is called `lenno`"),
            ("--scenario x", "no scenario is called `x`"),
            ("--rounds 0", "no number above 0"),
            ("--external nginx=/bin/sh", "not a new name"),
            ("--external mine=/no/such/file", "no such file"),
            ("--what 1", "no option `--what`"),
        ] {
            let error = parse(line).err().unwrap_or_default();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
