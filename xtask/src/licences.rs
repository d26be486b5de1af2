//! What every dependency allows us to do, read from `cargo tree`, and versions that are there twice.
//!
//! `deny.toml` says the same to `cargo deny`, which is run too where it is installed: it also reads licence files
//! and knows of advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::shell::{self, Findings};

/// Checks licences and duplicates.
pub(crate) fn check() -> Findings {
    let mut findings = Findings::default();
    let packages = match used_packages() {
        Ok(packages) => packages,
        Err(error) => {
            findings.problem(error);
            return findings;
        }
    };
    for package in &packages {
        if let Err(reason) = allowed(&package.licence) {
            findings.problem(format!(
                "{} {}: licence `{}`: {reason}; take another crate, or argue for the licence in xtask/src/licences.rs and deny.toml",
                package.name, package.version, package.licence
            ));
        }
    }
    duplicates(&packages, &mut findings);
    same_as_deny_toml(&mut findings);
    cargo_deny(&mut findings);
    println!("{} packages", packages.len());
    findings
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// An SPDX expression; empty: none was given.
    licence: String,
}

/// What is really compiled for this machine, tests included. `cargo metadata` would also list packages that only
/// another platform or a feature that is off would need.
fn used_packages() -> Result<BTreeSet<Package>, String> {
    let mut command = shell::cargo();
    command.args([
        "tree",
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]);
    let text = shell::output(&mut command)?;
    let packages: BTreeSet<Package> = text
        .lines()
        .filter_map(|line| {
            let (package, licence) = line.split_once('|')?;
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            // A repeated subtree is marked with `(*)`.
            let licence = licence.trim_end_matches("(*)").trim();
            Some(Package { name: name.into(), version: version.into(), licence: licence.into() })
        })
        .collect();
    if packages.is_empty() { Err("cargo tree lists nothing".into()) } else { Ok(packages) }
}

fn duplicates(packages: &BTreeSet<Package>, findings: &mut Findings) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (name, versions) in &versions {
        let list = versions.iter().copied().collect::<Vec<_>>().join(" and ");
        match DUPLICATES.iter().find(|(known, _)| known == name) {
            Some((_, reason)) => println!("{name} is there as {list}: {reason}"),
            None => findings.problem(format!(
                "{name} is there as {list}; unify them, or give the reason in xtask/src/licences.rs"
            )),
        }
    }
    for (name, _) in DUPLICATES {
        if !versions.contains_key(name) {
            findings
                .problem(format!("{name} is no longer there twice: take it out of xtask/src/licences.rs"));
        }
    }
}

/// The two lists must be one policy.
fn same_as_deny_toml(findings: &mut Findings) {
    let text = std::fs::read_to_string(shell::root().join("deny.toml")).unwrap_or_default();
    let list =
        text.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let theirs: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    let ours: BTreeSet<&str> = ALLOWED.iter().copied().collect();
    if theirs != ours {
        findings.problem(format!("deny.toml allows {theirs:?}, xtask/src/licences.rs allows {ours:?}"));
    }
}

fn cargo_deny(findings: &mut Findings) {
    if shell::find_program("cargo-deny").is_none() {
        findings
            .skipped
            .push("cargo deny: not installed (cargo install cargo-deny); the checks above are ours".into());
        return;
    }
    let mut checks = vec!["licenses", "bans", "sources"];
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    if home.join("advisory-dbs").is_dir() {
        checks.push("advisories");
    } else {
        findings.skipped.push("cargo deny check advisories: no advisory database on this machine".into());
    }
    let mut command = shell::cargo();
    command.args(["deny", "--offline", "--log-level", "error", "check"]).args(checks);
    if !shell::succeeds(&mut command) {
        findings.problem("cargo deny found something: see above");
    }
}

/// Whether an SPDX expression leaves a choice that is allowed.
fn allowed(expression: &str) -> Result<(), String> {
    if expression.is_empty() {
        return Err("none is named".into());
    }
    // `/` is how old manifests write OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>();
    words.reverse();
    let good = any(&mut words)?;
    match (words.pop(), good) {
        (Some(word), _) => Err(format!("`{word}` is unexpected there")),
        (None, true) => Ok(()),
        (None, false) => Err("is not on the list".into()),
    }
}

/// `a OR b`; words are taken from the end.
fn any(words: &mut Vec<&str>) -> Result<bool, String> {
    let mut good = all(words)?;
    while words.last() == Some(&"OR") {
        words.pop();
        good |= all(words)?;
    }
    Ok(good)
}

/// `a AND b`
fn all(words: &mut Vec<&str>) -> Result<bool, String> {
    let mut good = one(words)?;
    while words.last() == Some(&"AND") {
        words.pop();
        good &= one(words)?;
    }
    Ok(good)
}

/// A licence, with its exception if it has one, or an expression in brackets.
fn one(words: &mut Vec<&str>) -> Result<bool, String> {
    match words.pop() {
        Some("(") => {
            let good = any(words)?;
            if words.pop() == Some(")") { Ok(good) } else { Err("a bracket is not closed".into()) }
        }
        Some(name) if !matches!(name, ")" | "OR" | "AND" | "WITH") => {
            if words.last() == Some(&"WITH") {
                words.pop();
                let exception = words.pop().unwrap_or_default();
                let whole = format!("{name} WITH {exception}");
                // An exception only gives more rights.
                return Ok(ALLOWED.contains(&name) || ALLOWED.contains(&whole.as_str()));
            }
            Ok(ALLOWED.contains(&name))
        }
        Some(word) => Err(format!("`{word}` is unexpected there")),
        None => Err("the expression ends too early".into()),
    }
}

/// Licences that ask for no more than a notice. Nothing with copyleft: Leno is one binary that people pass on.
const ALLOWED: &[&str] = &["Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

/// Crates that are there in two versions, and why that is borne.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "tonic 0.14 has not followed pem 4 and ureq 3 yet; a few KiB"),
    ("syn", "only while building: half of the derive macros have not moved to version 3 yet"),
    ("untrusted", "aws-lc-rs and rustls-webpki ask for different ones; 300 lines without dependencies"),
];

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-2.0) AND ISC",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert_eq!(allowed(good), Ok(()), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT OR", "MIT ISC", "AND", "MPL-2.0"] {
            assert!(allowed(bad).is_err(), "{bad}");
        }
        assert_eq!(allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"), Ok(()));
    }
}
