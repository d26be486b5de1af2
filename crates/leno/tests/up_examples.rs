//! The other examples, as `leno up` runs them: each is a test. `tests/up.rs` has the shop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::mesh::{END_MAX, alone, listening, nothing_left};
use common::{Running, agent, family, free_port, leno, within};
use rustix::process::Signal;

/// For a whole test.
const TEST_MAX: Duration = Duration::from_secs(120);

/// A copy of an example, with its gateway and the port of an instance, if it has a fixed one, on free ports. `also`
/// is a file that names the port too.
fn copy(name: &str, port: Option<&str>, also: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // A server that gives up its rights, as nginx does when root starts it, has to read its files.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    copy_folder(&example, folder.path());
    let replace = |file: &str, old: &str, new: &str| {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file} has no {old}:\n{text}");
        fs::write(path, text.replace(old, new)).unwrap();
    };
    if let Some(port) = port {
        let free = free_port().to_string();
        for file in [Some("mesh.yaml"), also].into_iter().flatten() {
            replace(file, port, &free);
        }
    }
    replace("mesh.yaml", "127.0.0.1:8080", &format!("127.0.0.1:{}", free_port()));
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == ".leno" {
            continue;
        }
        if path.is_dir() {
            fs::create_dir_all(to.join(&name)).unwrap();
            copy_folder(&path, &to.join(&name));
        } else {
            fs::copy(path, to.join(name)).unwrap();
        }
    }
}

/// Runs the example in `folder`, does something with its gateway, and ends it.
fn with_mesh(folder: &Path, look: impl FnOnce(&str)) {
    let mut up = Running::start(leno().args(["up", "-o", "json"]).current_dir(folder));
    let ready = up.event("ready", Duration::from_secs(40));
    look(ready["gateways"][0].as_str().unwrap());
    let (processes, ports) = (family(up.pid()), listening(&family(up.pid())));
    up.signal(Signal::INT);
    assert_eq!(up.wait(END_MAX).code(), Some(0));
    nothing_left(&processes, &ports);
}

fn text(url: &str) -> String {
    agent().get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

#[test]
fn services_that_nobody_here_wrote_run_unchanged() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|place| place.join(name).is_file());
    for program in ["nginx", "python3"] {
        if !is_there(program) {
            let test = "up_examples::services_that_nobody_here_wrote_run_unchanged";
            // Not `eprintln!`: the test runner keeps that to itself when a test passes.
            writeln!(std::io::stderr(), "SKIPPED {test}: {program} is not installed").ok();
            return;
        }
    }
    let _alone = alone();
    within(TEST_MAX, || {
        let folder = copy("unchanged", Some("18080"), Some("nginx.conf"));
        with_mesh(folder.path(), |gateway| {
            let page = fs::read_to_string(folder.path().join("site/index.html")).unwrap();
            assert_eq!(text(&format!("{gateway}/")), page);
            let hello = fs::read_to_string(folder.path().join("public/files/hello.txt")).unwrap();
            assert_eq!(text(&format!("{gateway}/files/hello.txt")), hello);
        });
    });
}

#[test]
fn a_canary_is_chosen_by_its_header() {
    let _alone = alone();
    within(TEST_MAX, || {
        let folder = copy("canary", None, None);
        with_mesh(folder.path(), |gateway| {
            for _ in 0..20 {
                let url = format!("{gateway}/products/1");
                let mut answer = agent().get(url).header("x-canary", "1").call().unwrap();
                let answer: serde_json::Value = answer.body_mut().read_json().unwrap();
                assert_eq!(answer["served_by"]["version"], "v2", "{answer}");
            }
        });
    });
}
