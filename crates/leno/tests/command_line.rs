//! The binary's commands that need no mesh: help, exit codes, check, completion, and what is said without a control
//! plane.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use common::{leno, run, stderr, stdout, write};
use serde_json::Value;

const COMMANDS: [&str; 10] =
    ["up", "proxy", "control", "status", "services", "instances", "check", "token", "completion", "demo"];

const GOOD: &str = "
mesh: shop
gateway:
  listen: 127.0.0.1:8080
  routes: [{path: /, to: product}]
services:
  product:
    run: leno demo product
";

#[test]
fn every_help_shows_an_example() {
    for command in COMMANDS {
        let output = run(leno().args([command, "--help"]));
        assert_eq!(output.status.code(), Some(0), "{command}");
        let text = stdout(&output);
        assert!(text.contains("Example") && text.contains("leno "), "{command}:\n{text}");
    }
    let text = stdout(&run(leno().arg("--help")));
    for command in COMMANDS {
        assert!(text.contains(&format!("  {command} ")), "{command} is not in:\n{text}");
    }
    assert!(!text.contains("hold"), "the wrapper is shown:\n{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let wrong: [&[&str]; 14] = [
        &[],
        &["nothing"],
        &["up", "--nothing"],
        &["up", "--restart-delay", "0"],
        &["up", "--state", "a", "--ephemeral"],
        &["check"],
        &["control"],
        &["control", "--state", "a", "--ephemeral"],
        &["proxy"],
        &["proxy", "--control", "127.0.0.1:1"],
        &["proxy", "--control", "127.0.0.1:1", "--service", "a"],
        &["token", "create"],
        &["token", "create", "--service", "a", "--ttl", "soon"],
        &["demo", "product", "--port", "70000"],
    ];
    for arguments in wrong {
        let output = run(leno().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_control_plane_every_question_fails_with_1_and_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let api = format!("http://127.0.0.1:{}", common::free_port());
    let questions: [&[&str]; 4] = [&["status"], &["services"], &["instances"], &["token", "list"]];
    for question in questions {
        let output = run(leno().args(question).args(["--api", &api]).current_dir(folder.path()));
        assert_eq!(output.status.code(), Some(1), "{question:?}");
        assert!(stderr(&output).contains(&api), "{question:?}: {}", stderr(&output));

        let output =
            run(leno().args(question).args(["--api", &api, "-o", "json"]).current_dir(folder.path()));
        assert_eq!(output.status.code(), Some(1), "{question:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(error["error"].as_str().unwrap().contains(&api), "{error}");
    }
}

#[test]
fn check_tells_what_is_wrong_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.yaml", GOOD);
    let output = run(leno().arg("check").arg(&good));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("fine (1 services, 1 instances, 1 gateways)"), "{}", stdout(&output));

    let bad = write(folder.path(), "bad.yaml", &GOOD.replace("listen:", "listen_:"));
    let output = run(leno().arg("check").arg(&bad));
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("unknown field \"listen_\"") && text.contains("bad.yaml:4:3"), "{text}");
    assert!(text.contains("did you mean \"listen\"?"), "{text}");

    let output = run(leno().args(["-o", "json", "check"]).arg(&bad));
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["valid"], false);
    assert_eq!((&told["diagnostics"][0]["line"], &told["diagnostics"][0]["column"]), (&4.into(), &3.into()));

    let output = run(leno().args(["check", "-o", "json"]).arg(&good));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["valid"], true);

    let output = run(leno().args(["check", "no-such-file.yaml"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no-such-file.yaml"), "{}", stderr(&output));
}

#[test]
fn the_schema_is_one() {
    let output = run(leno().args(["check", "--schema"]));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
}

#[test]
fn completion_scripts_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = stdout(&run(leno().args(["completion", shell])));
        for command in COMMANDS {
            assert!(text.contains(command), "{shell} does not know {command}");
        }
    }
    assert_eq!(run(leno().args(["completion", "csh"])).status.code(), Some(2));
}
