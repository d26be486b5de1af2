//! Which crate may see which: `leno` -> {proxy, control} -> {config, wire, identity} -> core.

use serde_json::Value;

use crate::shell::{self, Findings};

/// Checks the arrows of every member.
pub(crate) fn check(findings: &mut Findings) {
    match shell::metadata(&["--no-deps"]) {
        Ok(metadata) => check_metadata(&metadata, findings),
        Err(error) => findings.problem(error),
    }
}

fn check_metadata(metadata: &Value, findings: &mut Findings) {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may_see)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            findings.problem(format!("{name} has no place in the arrows: xtask/src/tidy/arrows.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().map_or(&[][..], Vec::as_slice) {
            let to = dependency["name"].as_str().unwrap_or_default();
            let own = ARROWS.iter().any(|(from, _)| *from == to);
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let allowed = may_see.contains(&to) || (for_tests && to == SIMULATOR);
            if own && !allowed {
                findings.problem(format!(
                    "{name} -> {to}: arrows point down (ARCHITECTURE.md); {name} may see {may_see:?}"
                ));
            }
            if name == "leno-core" && !for_tests && !own && !CORE_MAY_USE.contains(&to) {
                findings.problem(format!("leno-core -> {to}: the core uses only {CORE_MAY_USE:?}"));
            }
        }
    }
}

/// Who may see whom among our own crates, in tests too.
const ARROWS: &[(&str, &[&str])] = &[
    ("leno", &["leno-core", "leno-config", "leno-wire", "leno-identity", "leno-proxy", "leno-control"]),
    ("leno-proxy", &["leno-core", "leno-config", "leno-wire", "leno-identity"]),
    ("leno-control", &["leno-core", "leno-config", "leno-wire", "leno-identity"]),
    ("leno-config", &["leno-core"]),
    ("leno-wire", &["leno-core"]),
    ("leno-identity", &["leno-core"]),
    ("leno-core", &[]),
    (SIMULATOR, &["leno-core", "leno-config", "leno-wire", "leno-identity"]),
    // It measures what is shipped, and nothing that is shipped, nor any test, may see it.
    ("leno-guard", &["leno-core", "leno-config", "leno-proxy"]),
    ("leno-load", &[]),
    ("xtask", &[]),
];
/// For tests only: nothing that is shipped depends on it.
const SIMULATOR: &str = "leno-sim";
/// Pure, `no_std` crates.
const CORE_MAY_USE: &[&str] = &["memchr", "httparse", "regex", "regex-syntax"];

#[cfg(test)]
mod tests {
    use super::check_metadata;
    use crate::shell::Findings;

    #[test]
    fn shells_never_see_each_other() {
        let package = |name: &str, dependency: &str, kind: Option<&str>| serde_json::json!({"name": name, "dependencies": [{"name": dependency, "kind": kind}]});
        let metadata = serde_json::json!({"packages": [
            package("leno", "leno-proxy", None),
            package("leno-proxy", "leno-control", Some("dev")),
            package("leno-core", "tokio", None),
            package("leno-core", "leno-sim", Some("dev")),
            package("leno-control", "leno-sim", None),
            package("stray", "serde", None),
        ]});
        let mut findings = Findings::default();
        check_metadata(&metadata, &mut findings);
        let starts: Vec<_> =
            findings.problems.iter().map(|problem| problem.split(':').next().unwrap_or_default()).collect();
        let wanted = [
            "leno-proxy -> leno-control",
            "leno-core -> tokio",
            "leno-control -> leno-sim",
            "stray has no place in the arrows",
        ];
        assert_eq!(starts, wanted);
    }
}
