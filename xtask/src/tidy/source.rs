//! Rules about Rust source and manifests.

use super::text::{File, Layers, Tree, is_word, line_at, words};
use crate::shell::Findings;

/// Checks every Rust file and every manifest.
pub(crate) fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.ending(".rs") {
        let layers = Layers::of(&file.text);
        length(file, findings);
        names(file, &layers.code, findings);
        unsafe_code(file, &layers.code, findings);
        reasons(file, &layers.code, findings);
        purity(file, &layers.code, findings);
        unfinished(file, &layers.comments, findings);
    }
    for file in tree.files.iter().filter(|file| !file.path.ends_with(".rs")) {
        unfinished(file, &file.text, findings);
    }
    for file in tree.ending("Cargo.toml") {
        manifest(file, findings);
    }
    for (path, _) in LONG_FILES {
        let lines = tree.text(path).lines().count();
        if lines <= LINES_MAX {
            findings.problem(format!(
                "{path} has {lines} lines: take it out of LONG_FILES in xtask/src/tidy/source.rs"
            ));
        }
    }
    if !tree.text("crates/leno-core/src/lib.rs").contains("#![no_std]") {
        findings
            .problem("crates/leno-core/src/lib.rs is not `#![no_std]`: then the core could open a socket");
    }
}

fn length(file: &File, findings: &mut Findings) {
    let lines = file.text.lines().count();
    if lines > LINES_MAX && !LONG_FILES.iter().any(|(path, _)| *path == file.path) {
        findings.problem(format!(
            "{}: {lines} lines, more than {LINES_MAX}: split it where its second idea starts, or give the reason in xtask/src/tidy/source.rs",
            file.path
        ));
    }
}

/// A type or a module with one of these words has not been given a name yet.
fn names(file: &File, code: &str, findings: &mut Findings) {
    for keyword in ["struct", "enum", "trait", "type", "mod", "union"] {
        for at in words(code, keyword) {
            let rest = code[at + keyword.len()..].trim_start();
            let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
            if let Some(word) = name_parts(&name).find(|part| BANNED_WORDS.contains(&part.as_str())) {
                findings.problem(format!(
                    "{}:{}: `{name}` is called a {word}: find the noun for what it is",
                    file.path,
                    line_at(code, at)
                ));
            }
        }
    }
}

/// The words of a name, in lower case and without a plural's s.
fn name_parts(name: &str) -> impl Iterator<Item = String> {
    let mut parts: Vec<String> = Vec::new();
    for c in name.chars() {
        if c == '_' {
            parts.push(String::new());
            continue;
        }
        match parts.last_mut() {
            Some(part) if !c.is_uppercase() => part.push(c),
            _ => parts.push(c.to_lowercase().collect()),
        }
    }
    parts.into_iter().map(|part| part.strip_suffix('s').map(str::to_owned).unwrap_or(part))
}

fn unsafe_code(file: &File, code: &str, findings: &mut Findings) {
    if UNSAFE_PLACES.iter().any(|(place, _)| file.path.starts_with(place)) {
        return;
    }
    for at in words(code, concat!("un", "safe")) {
        findings.problem(format!(
            "{}:{}: the only shipped code without the compiler's guard lives in {}",
            file.path,
            line_at(code, at),
            UNSAFE_PLACES[0].0
        ));
    }
}

/// An exception without its reason is a rule nobody remembers.
fn reasons(file: &File, code: &str, findings: &mut Findings) {
    for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
        for (at, _) in code.match_indices(opening) {
            let attribute = code[at..].split_once(")]").map_or(&code[at..], |(attribute, _)| attribute);
            if !attribute.contains("reason") {
                findings.problem(format!("{}:{}: give it a `reason = \"..\"`", file.path, line_at(code, at)));
            }
        }
    }
    for (at, _) in code.match_indices("#[ignore]") {
        findings.problem(format!("{}:{}: `#[ignore = \"why\"]`", file.path, line_at(code, at)));
    }
}

/// The core's crate has no std to reach for; only its tests may ask for it.
fn purity(file: &File, code: &str, findings: &mut Findings) {
    if !file.path.starts_with("crates/leno-core/src/") {
        return;
    }
    for at in words(code, "extern crate std") {
        if !code[..at].trim_end().ends_with("#[cfg(test)]") {
            findings.problem(format!("{}:{}: std only under `#[cfg(test)]`", file.path, line_at(code, at)));
        }
    }
    let tests = file.path.ends_with("tests.rs") || file.path.contains("/tests/");
    let end = if tests { 0 } else { code.find("#[cfg(test)]\nmod ").unwrap_or(code.len()) };
    for at in words(&code[..end], "std::").chain(words(&code[..end], "async")) {
        findings.problem(format!(
            "{}:{}: the core knows neither std nor async",
            file.path,
            line_at(code, at)
        ));
    }
}

fn unfinished(file: &File, text: &str, findings: &mut Findings) {
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")] {
        for at in words(text, mark) {
            findings.problem(format!(
                "{}:{}: {mark}: finish it, or open an issue and say what is missing",
                file.path,
                line_at(text, at)
            ));
        }
    }
}

/// Versions are chosen in the one table of the workspace; so are lints.
fn manifest(file: &File, findings: &mut Findings) {
    let is_member = file.path.starts_with("crates/") || file.path.starts_with("xtask/");
    if !is_member {
        return;
    }
    if !file.text.contains("[lints]\nworkspace = true") {
        findings.problem(format!("{}: `[lints]` `workspace = true` is missing", file.path));
    }
    let mut in_dependencies = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies
            && line.contains('=')
            && !line.trim_start().starts_with('#')
            && !line.contains("workspace = true")
        {
            findings.problem(format!(
                "{}:{}: choose the version in the root's table and write `workspace = true` here",
                file.path,
                number + 1
            ));
        }
    }
}

/// A longer file usually holds two ideas.
const LINES_MAX: usize = 600;
/// Longer files, and why each is one idea.
const LONG_FILES: &[(&str, &str)] = &[];
/// In lower case and singular.
const BANNED_WORDS: &[&str] = &["manager", "helper", "util", "context", "inner"];
/// Starts of paths, and why code without the compiler's guard is there.
const UNSAFE_PLACES: &[(&str, &str)] = &[
    ("crates/leno-proxy/src/sys", "system calls that no safe crate offers"),
    ("crates/leno-core/tests/http1_allocations.rs", "an allocator that counts: the trait is an unsafe one"),
    ("crates/leno-core/tests/mux_allocations.rs", "the same"),
    ("crates/leno-guard/src/allocator.rs", "the same; nothing that is shipped depends on it"),
];

#[cfg(test)]
mod tests {
    use super::super::text::{File, Tree};
    use super::check;
    use crate::shell::Findings;

    /// What the rules say about one file, without what they say about the rest of the project.
    fn problems(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(&Tree { files: vec![File { path: path.into(), text: text.into() }] }, &mut findings);
        findings.problems.retain(|problem| problem.starts_with(path) && !problem.contains("take it out of"));
        findings.problems
    }

    #[test]
    fn each_rule_notices() {
        let long = "\n".repeat(601);
        for (path, text, said) in [
            ("a.rs", long.as_str(), "601 lines"),
            ("a.rs", "pub struct PoolManager;", "a.rs:1: `PoolManager` is called a manager"),
            ("a.rs", "\nmod utils;", "a.rs:2: `utils` is called a util"),
            ("a.rs", "fn a() { unsafe { b() } }", "only shipped code"),
            ("a.rs", "#[allow(dead_code)]\nfn a() {}", "reason"),
            ("a.rs", "#[ignore]\nfn a() {}", "why"),
            ("a.rs", concat!("// TO", "DO later"), "finish it"),
            ("crates/leno-core/src/a.rs", "use std::time::Instant;", "neither std nor async"),
            ("crates/leno-core/src/a.rs", "extern crate std;", "only under"),
            ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n[dependencies]\nx = \"1\"", "root's table"),
            ("crates/a/Cargo.toml", "[dependencies]\n", "`[lints]`"),
        ] {
            let found = problems(path, text);
            assert!(found.iter().any(|problem| problem.contains(said)), "{text:?}: {found:?}");
        }
    }

    #[test]
    fn good_code_is_left_alone() {
        let text = "#[allow(dead_code, reason = \"shown in docs\")]\n#[ignore = \"slow\"]\nfn a(c: &mut Context<'_>) {}\n\
                    // an unsafe peer\nconst S: &str = \"unsafe\"; struct Tools; struct Innermost;\n";
        assert_eq!(problems("crates/leno-proxy/src/a.rs", text), Vec::<String>::new());
        let core = "use core::fmt;\n#[cfg(test)]\nmod tests { use std::vec; }\n";
        assert_eq!(problems("crates/leno-core/src/a.rs", core), Vec::<String>::new());
    }
}
