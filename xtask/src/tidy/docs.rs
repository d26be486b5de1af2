//! Docs in step with the code: what exists is written down, and what is linked exists.

use std::collections::BTreeSet;

use super::text::{File, Layers, Tree, is_word, line_at, words};
use crate::shell::{self, Findings};

/// Checks every Markdown file, and that crates, commands and examples are in the docs.
pub(crate) fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.ending(".md") {
        links(file, tree, findings);
    }
    let architecture = tree.text("ARCHITECTURE.md");
    for name in folders("crates") {
        if !architecture.contains(&format!("`{name}`")) {
            findings.problem(format!("ARCHITECTURE.md does not say what crates/{name} is for"));
        }
    }
    manual(tree, findings);
    let readme = tree.text("README.md");
    for name in folders("examples") {
        if !readme.contains(&format!("examples/{name}")) {
            findings.problem(format!("README.md does not list examples/{name}"));
        }
    }
    for command in commands(tree) {
        let text = format!("leno {command}");
        let is_there = tree.ending(".md").any(|file| {
            (file.path == "README.md" || file.path.starts_with("docs/"))
                && words(&file.text, &text).next().is_some()
        });
        if !is_there {
            findings.problem(format!("neither README.md nor docs/ mentions `{text}`"));
        }
    }
}

/// Every metric, and every reason with its status, is in the manual.
fn manual(tree: &Tree, findings: &mut Findings) {
    let manual = tree.text(MANUAL);
    let crates: BTreeSet<String> = folders("crates").into_iter().map(|name| name.replace('-', "_")).collect();
    for file in
        tree.ending(".rs").filter(|file| file.path.starts_with("crates/") && !file.path.contains("test"))
    {
        for (at, _) in file.text.match_indices("\"leno_") {
            let name: String = file.text[at + 1..].chars().take_while(|&c| is_word(c)).collect();
            let ends = file.text[at + 1 + name.len()..].starts_with('"');
            if ends && !crates.contains(&name) && !manual.contains(&format!("`{name}`")) {
                let line = line_at(&file.text, at);
                findings.problem(format!("{}:{line}: {MANUAL} does not list the metric `{name}`", file.path));
            }
        }
    }
    for word in faults(tree.text(FAULTS)) {
        if !manual.contains(&format!("`{word}`")) {
            findings.problem(format!("{MANUAL} does not list the word `{word}`"));
        }
    }
    for (word, status) in reasons(tree.text(REASONS)) {
        if !manual.contains(&format!("| `{word}` | {status} |")) {
            findings.problem(format!("{MANUAL} does not list the reason `{word}` with status {status}"));
        }
    }
}

/// The words for what is wrong with a message: each stands behind its status.
fn faults(text: &str) -> Vec<&str> {
    text.match_indices(", \"")
        .chain(text.match_indices(",\n                \""))
        .filter_map(|(at, comma)| {
            let status = text[..at].trim_end().rsplit(['(', ' ', '\n']).next()?;
            let (word, _) = text[at + comma.len()..].split_once('"')?;
            (status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit())).then_some(word)
        })
        .collect()
}

/// The rows of the table of reasons: a word and a status.
fn reasons(text: &str) -> Vec<(&str, &str)> {
    text.match_indices('"')
        .filter_map(|(at, _)| {
            let (word, rest) = text[at + 1..].split_once('"')?;
            let rest = rest.strip_prefix(',')?.trim_start();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            (plain && digits == 3).then(|| (word, &rest[..digits]))
        })
        .collect()
}

/// The folders directly below `parent`.
fn folders(parent: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(shell::root().join(parent)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The names of the binary's commands: the variants of its enum that derives `Subcommand`.
fn commands(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in tree.ending(".rs").filter(|file| file.path.starts_with("crates/leno/src/")) {
        let code = Layers::of(&file.text).code;
        for at in words(&code, "Subcommand") {
            let derived = code[..at].rfind("#[").is_some_and(|start| code[start..].starts_with("#[derive("));
            let Some((_, rest)) = code[at..].split_once(" enum ").filter(|_| derived) else { continue };
            let Some((_, body)) = rest.split_once('{') else { continue };
            names.extend(variants(body));
        }
    }
    names
}

/// The variants at the first level of an enum's body, as clap writes them, without those it hides.
fn variants(body: &str) -> Vec<String> {
    let mut depth = 0_i32;
    let mut expects_name = true;
    let mut names = Vec::new();
    let mut word = String::new();
    // What stands in brackets before a variant's name.
    let mut attributes = String::new();
    for c in body.chars() {
        if depth == 0 && expects_name && is_word(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            let name = kebab(&std::mem::take(&mut word));
            if !attributes.contains("hide = true") {
                names.push(name);
            }
            expects_name = false;
        }
        attributes.push(c);
        match c {
            '(' | '{' | '[' => depth += 1,
            '}' if depth == 0 => break,
            ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                expects_name = true;
                attributes.clear();
            }
            _ => {}
        }
    }
    names
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Every link to a file of the project names one, and its anchor a heading there.
fn links(file: &File, tree: &Tree, findings: &mut Findings) {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (at, _) in file.text.match_indices("](") {
        let Some((target, _)) = file.text[at + 2..].split_once(')') else { continue };
        if target.contains("://") || target.starts_with("mailto:") || target.contains(char::is_whitespace) {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { file.path.clone() } else { join(folder, path) };
        let place = format!("{}:{}", file.path, line_at(&file.text, at));
        if !shell::root().join(&path).exists() {
            findings.problem(format!("{place}: link to `{target}`: there is no {path}"));
        } else if !anchor.is_empty()
            && path.ends_with(".md")
            && !headings(tree.text(&path)).any(|heading| heading == anchor)
        {
            findings.problem(format!("{place}: link to `{target}`: no such heading in {path}"));
        }
    }
}

fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors that a Markdown file's headings get.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|&c| is_word(c) || c == ' ' || c == '-')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
}

const MANUAL: &str = "docs/operations.md";
const FAULTS: &str = "crates/leno-core/src/http1/error.rs";
const REASONS: &str = "crates/leno-core/src/reason.rs";

#[cfg(test)]
mod tests {
    use super::{faults, headings, join, reasons, variants};

    #[test]
    fn reasons_are_read_from_their_table() {
        let text = "Self::A => (\"a_b\", 404, C, \"a b\"),\n (\n \"c\",\n 502,\n) => \"x\", 7";
        assert_eq!(reasons(text), [("a_b", "404"), ("c", "502")]);
        assert_eq!(faults("A => (400, \"a_b\", \"x\"), B => (\n 431,\n                \"c\","), ["a_b", "c"]);
    }

    #[test]
    fn commands_are_read_from_the_enum() {
        let body =
            " #[command(name = \"\")] Up(UpArgs), Proxy { file: A, b: B }, BigThing, } fn x() { Other }";
        assert_eq!(variants(body), ["up", "proxy", "big-thing"]);
    }

    #[test]
    fn links_are_resolved() {
        assert_eq!(join("docs", "../README.md"), "README.md");
        assert_eq!(join("docs/a", "./b.md"), "docs/a/b.md");
        let found: Vec<_> = headings("# A `b` c?\ntext\n## D-e").collect();
        assert_eq!(found, ["a-b-c", "d-e"]);
    }
}
