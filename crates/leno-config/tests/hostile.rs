//! Files that nobody writes by accident: huge, deep, many, cut and scrambled. Each ends quickly, with diagnostics
//! and without a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leno_config::{Diagnostics, native};
use leno_core::rng::Rng;

/// Longer than any of these files takes in an unoptimized build on a busy machine, and far shorter than what they
/// would take if a limit were missing.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_file_of_100_mb_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::File::create(&path).unwrap().set_len(100 * 1024 * 1024).unwrap();
    let diagnostics = native::load(&path).unwrap_err();
    assert_eq!(message(&diagnostics), "the file has 100 MiB; a mesh file has at most 4 MiB");
    assert_eq!((diagnostics.diagnostics[0].line, diagnostics.diagnostics[0].column), (0, 0));
    let text = "#".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(
        message(&native::parse("m", &text).unwrap_err()),
        "the file has 5 MiB; a mesh file has at most 4 MiB"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(message(&native::load(folder.path()).unwrap_err()), "this is a directory, not a file");
    let missing = native::load(&folder.path().join("mesh.yaml")).unwrap_err();
    assert_eq!(message(&missing), "there is no such file");
    let below = folder.path().join("file");
    fs::write(&below, "mesh: m").unwrap();
    assert!(message(&native::load(&below.join("mesh.yaml")).unwrap_err()).starts_with("cannot be read"));
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    if Path::new("/dev/zero").exists() {
        let diagnostics = native::load(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(message(&diagnostics), "the file has 5 MiB; a mesh file has at most 4 MiB");
    }
}

#[test]
fn an_alias_bomb_has_one_diagnostic_with_its_position() {
    let mut text = "mesh: bomb\nservices:\n  a: &a {env: {X: y}}\n".to_owned();
    for level in 0..40 {
        let _ = writeln!(text, "  b{level}: &b{level} [*a, *a, *a, *a, *a, *a, *a, *a, *a]");
    }
    let diagnostics = native::parse("bomb.yaml", &text).unwrap_err();
    assert_eq!((diagnostics.diagnostics.len(), diagnostics.more), (1, 0));
    let only = &diagnostics.diagnostics[0];
    assert_eq!((only.line, only.column), (3, 6));
}

#[test]
fn of_many_diagnostics_the_first_fifty_are_shown() {
    let mut text = "mesh: m\nservices:\n".to_owned();
    for number in 0..2000 {
        let _ = writeln!(text, "  s{number}: {{prot: 1}}");
    }
    let diagnostics = native::parse("many.yaml", &text).unwrap_err();
    assert_eq!((diagnostics.diagnostics.len(), diagnostics.more), (50, 1950));
    let lines: Vec<u32> = diagnostics.diagnostics.iter().map(|diagnostic| diagnostic.line).collect();
    assert_eq!(lines, (3..53).collect::<Vec<u32>>());
    assert!(diagnostics.to_string().ends_with("\nand 1950 more\n"));
}

#[test]
fn large_files_take_a_bounded_time() {
    // Far below the largest file, so that this test is quick, and enough to show a time that grows with the square of the size.
    let size = 128 * 1024;
    let fill = |piece: &str| piece.repeat(size / piece.len());
    let mut routes = "mesh: m\nservices:\n  web:\n    run: ./web\n    routes:\n".to_owned();
    for number in 0..300 {
        let hosts: Vec<String> = (0..60).map(|host| format!("h{host}.r{number}.example.com")).collect();
        let _ = writeln!(routes, "      - {{host: [{}], to: web}}", hosts.join(", "));
    }
    let mut unknown = "mesh: m\nservices:\n".to_owned();
    for number in 0..500 {
        let _ = writeln!(unknown, "  service-{number}: {{calls: [servise-{number}x]}}");
    }
    let chain: String = (0..2000).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "  s{number}: {{start_after: s{}}}", (number + 1) % 2000);
        text
    });
    let replicas: String = (0..2000).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "  s{number}: {{run: ./s, replicas: 100}}");
        text
    });
    let big_env = format!(
        "mesh: m\nservices: {{web: {{run: ./web, replicas: 100, env: {{A: '{}'}}}}}}",
        "x".repeat(8 * size)
    );
    let files = [
        ("brackets", fill("[")),
        ("braces", fill("{")),
        ("flow", format!("[{}", fill("a,"))),
        ("flow maps", format!("{{a: [{}", fill("{a: b},"))),
        (
            "one line",
            format!(
                "{{mesh: m, services: {{{}}}}}",
                (0..2000).map(|n| format!("s{n}: {{run: ./s}},")).collect::<String>()
            ),
        ),
        (
            "wide one line",
            format!(
                "{{mesh: m, services: {{{}}}}}",
                (0..2000).map(|n| format!("s{n}: {{run: \"é\"}},")).collect::<String>()
            ),
        ),
        ("dashes", fill("- ")),
        ("question marks", fill("? ")),
        ("entries", fill("a: b\n")),
        ("empty lines", fill("\n")),
        ("spaces", fill(" ")),
        ("comments", fill("# x\n")),
        ("quote", format!("\"{}", fill("x"))),
        ("quote lines", format!("\"{}", fill("x\n"))),
        ("plain lines", fill("x\n")),
        ("block", format!("a: |\n{}", fill("  x\n"))),
        ("anchors", fill("&a ")),
        ("tags", fill("!a ")),
        ("documents", fill("---\n")),
        ("colons", fill(":")),
        ("keys", fill("a:\n")),
        ("long key", fill("a")),
        ("covered routes", routes),
        ("unknown services", unknown),
        ("long cycle", format!("mesh: m\nservices:\n{chain}")),
        ("many replicas", format!("mesh: m\nservices:\n{replicas}")),
        ("large environment", big_env),
    ];
    for (name, text) in files {
        let start = Instant::now();
        let result = native::parse("large.yaml", &text);
        let took = start.elapsed();
        assert!(took < PATIENCE, "{name} took {took:?}");
        if name != "one line" && name != "wide one line" && name != "covered routes" {
            let shown = result.map(|_| ()).unwrap_err().to_string();
            assert!(shown.len() < 100_000, "{name} has {} bytes of diagnostics", shown.len());
        }
    }
}

/// Cuts, swaps, repeats and scrambles good and bad files: whatever comes out, there is no panic, and diagnostics
/// point into the file.
#[test]
fn mutated_files_never_panic() {
    let files: Vec<String> = ["tests/good", "tests/bad"].iter().flat_map(|folder| texts(folder)).collect();
    let mut rng = Rng::new(0x6c65_6e6f);
    for step in 0..4000 {
        let base = &files[rng.below(files.len() as u64) as usize];
        let mut text: Vec<char> = base.chars().collect();
        for _ in 0..=rng.below(4) {
            mutate(&mut text, &files, &mut rng);
        }
        let text: String = text.into_iter().collect();
        let outcome = std::panic::catch_unwind(|| native::parse("mutated.yaml", &text));
        let Ok(outcome) = outcome else { panic!("step {step} panics on:\n{text}") };
        let diagnostics = outcome.map_or_else(|diagnostics| diagnostics.diagnostics, |mesh| mesh.warnings);
        let lines = text.split(['\n', '\r']).count() as u32;
        for diagnostic in &diagnostics {
            assert!(diagnostic.line <= lines.max(1), "step {step}: {diagnostic}\n{text}");
            let _ = diagnostic.to_string();
        }
    }
}

fn mutate(text: &mut Vec<char>, files: &[String], rng: &mut Rng) {
    const PIECES: &[&str] = &[
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\t",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "'",
        "#",
        "&a ",
        "*a",
        "!!str ",
        "|",
        ">",
        "? ",
        "%",
        "@",
        "`",
        "\\",
        "---\n",
        "...\n",
        "<<: ",
        "~",
        "null",
        "0",
        "-1",
        "99999999999999999999",
        "é",
        "日本",
        "\u{85}",
        "\u{2028}",
        "\r",
        "\0",
        "{port}",
        "🦀",
    ];
    let at = rng.below(text.len() as u64 + 1) as usize;
    let length = (rng.below(20) as usize).min(text.len() - at);
    match rng.below(6) {
        0 => {
            text.drain(at..at + length);
        }
        1 => {
            let piece = PIECES[rng.below(PIECES.len() as u64) as usize];
            text.splice(at..at, piece.chars());
        }
        2 => {
            let piece: Vec<char> = text[at..at + length].to_vec();
            text.splice(at..at, piece);
        }
        3 => text.truncate(at),
        4 => {
            let other: Vec<char> = files[rng.below(files.len() as u64) as usize].chars().collect();
            let from = rng.below(other.len() as u64 + 1) as usize;
            let to = (from + rng.below(60) as usize).min(other.len());
            text.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            if let Some(c) = text.get_mut(at) {
                *c = char::from_u32(rng.below(0x250) as u32).unwrap_or(' ');
            }
        }
    }
}

fn texts(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let yaml = paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    // A file of deep nesting makes thousands of uninteresting mutations.
    yaml.filter_map(|path| fs::read_to_string(path).ok()).filter(|text| text.len() < 10_000).collect()
}

fn message(diagnostics: &Diagnostics) -> &str {
    &diagnostics.diagnostics[0].message
}

/// A list that many use is written out for each of them; not so often that a small file fills the memory.
#[test]
fn a_bomb_of_lists_is_refused_before_it_is_written_out() {
    let mut text = "mesh: m\nservices: {web: {run: ./web}}\nroute_lists:\n  b:\n".to_owned();
    (0..15_000).for_each(|n| text.push_str(&format!("    - {{path: /{n}, to: web}}\n")));
    text.push_str("  a:\n");
    (0..15_000).for_each(|n| text.push_str(&format!("    - {{host: h{n}, use: b}}\n")));
    let found = native::parse("bomb.yaml", &text).unwrap_err().to_string();
    assert!(found.contains("this list has 15000 routes"), "{found}");
}
