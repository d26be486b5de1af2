//! Starts of `leno up` that cannot work: one sentence that names the trouble, the right exit code, nothing left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use common::mesh::shop;
use common::{leno, run, stderr, stdout, within, write};
use serde_json::Value;

/// For a whole test.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Runs `leno up` in `folder`, which it must leave; its exit code and what it said.
fn up(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(leno().arg("up").args(arguments).current_dir(folder));
    (output.status.code().unwrap(), stderr(&output))
}

/// Names of what is in a folder.
fn content(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn no_file_is_named_and_none_is_there() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        let (code, said) = up(folder.path(), &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("mesh.yaml") && said.contains("examples/shop/mesh.yaml"), "{said}");
        assert!(content(folder.path()).is_empty());
    });
}

#[test]
fn a_bad_file_starts_and_writes_nothing() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        shop(folder.path(), |text| text.replace("    run: leno demo cart", "    run_: leno demo cart"));
        let (code, said) = up(folder.path(), &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("unknown field \"run_\"") && said.contains("did you mean \"run\"?"), "{said}");
        assert_eq!(content(folder.path()), ["mesh.yaml"]);

        let output = run(leno().args(["up", "-o", "json"]).current_dir(folder.path()));
        assert_eq!(output.status.code(), Some(2));
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(told["diagnostics"][0]["message"].as_str().unwrap().contains("run_"), "{told}");
    });
}

#[test]
fn a_taken_port_is_named() {
    within(TEST_MAX, || {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let file = shop(folder.path(), |text| text);
        let text = fs::read_to_string(&file).unwrap();
        let listen = text.lines().find(|line| line.trim_start().starts_with("listen:")).unwrap().to_owned();
        fs::write(&file, text.replace(&listen, &format!("  listen: {address}"))).unwrap();
        let (code, said) = up(folder.path(), &["--ephemeral"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{address} (gateway `gateway`) is taken")), "{said}");

        let one = format!(
            "mesh: one\nservices:\n  a:\n    instances: [{{run: leno demo product, port: {}}}]\n",
            taken.local_addr().unwrap().port()
        );
        fs::write(&file, one).unwrap();
        let (code, said) = up(folder.path(), &["--ephemeral"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{address} (instance `a-1`) is taken")), "{said}");
        assert_eq!(content(folder.path()), ["mesh.yaml"]);
    });
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        for (run, said_as) in [
            (
                "no-such-command --port {port}",
                "instance `cart-1`: its command `no-such-command` does not exist in PATH",
            ),
            ("./cart.sh", "instance `cart-1`: its command `./cart.sh` does not exist"),
            ("./mesh.yaml", "instance `cart-1`: its command `./mesh.yaml` is not an executable file"),
        ] {
            shop(folder.path(), |text| text.replace("run: leno demo cart", &format!("run: \"{run}\"")));
            let (code, said) = up(folder.path(), &["--ephemeral"]);
            assert_eq!(code, 1, "{said}");
            assert!(said.contains(said_as), "{said}");
        }
        shop(folder.path(), |text| text);
        let (code, said) = up(folder.path(), &["--ephemeral", "--", "no-such-command"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the command `no-such-command` does not exist in PATH"), "{said}");
    });
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        shop(folder.path(), |text| text);
        write(folder.path(), "file", "");
        let (code, said) = up(folder.path(), &["--state", "file/state"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the state directory file/state cannot be used"), "{said}");
        write(folder.path(), ".leno", "");
        let (code, said) = up(folder.path(), &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(".leno cannot be used"), "{said}");
    });
}

#[test]
fn a_command_that_exits_at_once_ends_the_start() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        shop(folder.path(), |text| {
            text.replace("run: leno demo product", "run: [sh, -c, 'echo no shelf left >&2; exit 4']")
        });
        let (code, said) = up(folder.path(), &["--ephemeral", "--restart-delay", "0.1"]);
        assert_eq!(code, 1, "{said}");
        let error = said.split("error: ").nth(1).unwrap();
        assert!(error.contains("product-") && error.contains("exited with status 4"), "{said}");
        assert!(error.contains("| no shelf left"), "{said}");
    });
}

#[test]
fn a_service_that_never_listens_is_reported_at_the_deadline() {
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        shop(folder.path(), |text| {
            text.replace("run: leno demo cart", "run: [sh, -c, 'echo thinking; exec sleep 1000']")
        });
        let began = Instant::now();
        let (code, said) = up(folder.path(), &["--ephemeral", "--start-timeout", "6"]);
        assert_eq!(code, 1, "{said}");
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        let error = said.split("error: ").nth(1).unwrap();
        assert!(error.contains("shop is not ready after 6 s"), "{said}");
        assert!(error.contains("cart-1 is not healthy"), "{said}");
        assert!(error.contains("user-1 waits for cart-1"), "{said}");
        assert!(error.contains("| thinking"), "{said}");
    });
}
