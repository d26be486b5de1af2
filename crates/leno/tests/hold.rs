//! The wrapper that keeps service commands from outliving their supervisor.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Running, alive, children, family, leno, run, until, within};
use rustix::process::Signal;

/// A shell with a child of its own; neither ends by itself.
const FAMILY: &str = "sleep 1000 & echo started; wait";
/// The same, deaf to polite requests.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & echo started; wait; sleep 1000";

fn hold(script: &str) -> (Running, Vec<u32>) {
    let mut command = leno();
    command.args(["hold", "--", "sh", "-c", script]).stdin(Stdio::piped());
    let held = Running::start(&mut command);
    held.find(Duration::from_secs(20), |line| (line == "started").then_some(()));
    until("the family", Duration::from_secs(5), || family(held.pid()).len() == 3);
    let family = family(held.pid());
    (held, family)
}

#[test]
fn everything_ends_when_stdin_does() {
    within(Duration::from_secs(60), || {
        for script in [FAMILY, STUBBORN] {
            let (mut held, family) = hold(script);
            drop(held.child.stdin.take());
            held.wait(Duration::from_secs(10));
            until("the family's end", Duration::from_secs(2), || !family.iter().any(|pid| alive(*pid)));
        }
    });
}

#[test]
fn a_supervisor_that_is_killed_takes_the_command_with_it() {
    within(Duration::from_secs(60), || {
        // The shell plays the supervisor: it holds the other end of the wrapper's stdin.
        let binary = env!("CARGO_BIN_EXE_leno");
        let script = format!("sleep 1000 | {binary} hold -- sh -c 'sleep 1000 & echo started; wait'");
        let shell = Running::start(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()));
        shell.find(Duration::from_secs(20), |line| (line == "started").then_some(()));
        let all = family(shell.pid());
        let writer = children(shell.pid()).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        });
        rustix::process::kill_process(common::pid(writer.unwrap()), Signal::KILL).unwrap();
        let held: Vec<u32> = all.into_iter().filter(|pid| *pid != shell.pid()).collect();
        // It does not lead a process group here, so it ends the command alone and not this test's processes.
        until("the command's end", Duration::from_secs(10), || {
            !held.iter().any(|pid| {
                alive(*pid)
                    && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| matches!(name.trim(), "leno" | "sh"))
            })
        });
    });
}

#[test]
fn it_exits_as_the_command_does() {
    within(Duration::from_secs(60), || {
        let held = |words: &[&str]| {
            let mut command = leno();
            command.args(["hold", "--"]).args(words).stdin(Stdio::piped());
            run(&mut command)
        };
        assert_eq!(held(&["sh", "-c", "exit 7"]).status.code(), Some(7));
        assert_eq!(held(&["sh", "-c", "kill -KILL $$"]).status.code(), Some(137));
        let missing = held(&["no-such-command"]);
        assert_eq!(missing.status.code(), Some(127));
        assert!(common::stderr(&missing).contains("no-such-command"));
        assert_eq!(held(&["/etc/passwd"]).status.code(), Some(126));
    });
}

#[test]
fn sigterm_reaches_the_command_which_may_take_its_time() {
    within(Duration::from_secs(60), || {
        let mut command = leno();
        let script = "trap 'sleep 0.3; echo bye; exit 5' TERM; echo started; while :; do sleep 0.05; done";
        command.args(["hold", "--", "sh", "-c", script]).stdin(Stdio::piped());
        let mut held = Running::start(&mut command);
        held.find(Duration::from_secs(20), |line| (line == "started").then_some(()));
        rustix::process::kill_process_group(common::pid(held.pid()), Signal::TERM).unwrap();
        held.find(Duration::from_secs(5), |line| (line == "bye").then_some(()));
        assert_eq!(held.wait(Duration::from_secs(5)).code(), Some(5));
    });
}
