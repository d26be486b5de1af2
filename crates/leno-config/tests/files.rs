//! Mesh files as test data.
//!
//! `tests/bad/NAME.yaml` has exactly the diagnostics of `tests/bad/NAME.expect`; `tests/good/NAME.yaml` and every
//! example parse without a warning. After a change that is meant to change diagnostics, run with `LENO_BLESS=1`
//! to rewrite the expectations, and read the difference.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

use leno_config::native::{self, MeshFile};

#[test]
fn bad_files_have_the_expected_diagnostics() {
    let bless = std::env::var_os("LENO_BLESS").is_some();
    let mut failures = Vec::new();
    let files = yaml_files("tests/bad");
    assert!(files.len() >= 50, "only {} bad files", files.len());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let found = shown(&file, &name);
        let expected_file = file.with_extension("expect");
        if bless {
            fs::write(&expected_file, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if found != expected {
            failures.push(format!("{name}: expected\n{expected}\nfound\n{found}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn good_files_and_examples_have_none() {
    let mut files = yaml_files("tests/good");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for folder in fs::read_dir(&examples).unwrap() {
        let file = folder.unwrap().path().join("mesh.yaml");
        assert!(file.is_file(), "{} has no mesh.yaml", file.display());
        files.push(file);
    }
    for file in files {
        match native::load(&file) {
            Ok(mesh) => assert_eq!(mesh.warnings, [], "{}", file.display()),
            Err(diagnostics) => panic!("{}\n{diagnostics}", file.display()),
        }
    }
}

/// What a file's diagnostics look like; its warnings when it can be used.
fn shown(file: &Path, name: &str) -> String {
    let bytes = fs::read(file).unwrap();
    // Named by its own name, so that the expectation does not depend on where the tests run.
    let result = match String::from_utf8(bytes) {
        Ok(text) => native::parse(name, &text),
        Err(_) => native::load(file),
    };
    let text = match result {
        Ok(MeshFile { warnings, .. }) => {
            assert!(!warnings.is_empty(), "{name} is a good file");
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
        Err(diagnostics) => diagnostics.to_string(),
    };
    text.replace(&file.display().to_string(), name)
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn diagnostics_as_json() {
    let text = "mesh: m\nservices:\n  web: {run: ./web}\n  web: {}\n";
    let diagnostics = native::parse("m.yaml", text).unwrap_err();
    let excerpt = |text: &str| serde_json::json!({"text": text, "start": 2, "length": 3});
    assert_eq!(
        serde_json::to_value(&diagnostics).unwrap(),
        serde_json::json!({"more": 0, "diagnostics": [{
            "severity": "error",
            "file": "m.yaml",
            "line": 4,
            "column": 3,
            "message": "\"web\" is given twice",
            "excerpt": excerpt("  web: {}"),
            "related": {"line": 3, "column": 3, "label": "first given here", "excerpt": excerpt("  web: {run: ./web}")},
            "hint": "keep one of the two",
        }]})
    );
}
