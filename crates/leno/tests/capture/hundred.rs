//! A hundred runs, half of them killed: nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{leno, run, until};
use crate::machine::{Machine, processes_with};

/// Network namespaces in which there is a process, as far as can be seen.
fn namespaces() -> BTreeSet<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

/// What this machine has of devices, rules and named namespaces.
fn inventory(machine: &Machine) -> String {
    machine.shell("ip -o link show; nft list ruleset; ip rule; ip -6 rule; ip netns list; ls /run/leno/run 2>/dev/null || true")
}

#[test]
fn a_hundred_runs_leave_nothing() {
    let Some(machine) = Machine::new("a_hundred_runs_leave_nothing") else { return };
    // What other tests killed is not ours to find afterwards.
    run(leno().args(["run", "--clean"]));
    let mesh = machine.mesh();
    let own = |text: String| -> String {
        text.lines().filter(|line| !line.contains(".json") || line.contains("hundred")).collect()
    };
    let (before, ours) = (own(inventory(&machine)), processes_with("hundred").len());
    let known = namespaces();
    for round in 0..100_u32 {
        let name = format!("hundred-{round}");
        // They end by themselves, or are killed at a moment from before the sidecar starts to long after it is ready.
        let script = "(setsid sleep 86397 &) ; true";
        let mut running = machine.start(
            mesh.run(&["--service", "caller", "--instance", &name], &["sh", "-c", script, "hundred"])
                .stderr(std::process::Stdio::null()),
        );
        if round % 2 == 0 {
            assert_eq!(running.wait(Duration::from_secs(30)).code(), Some(0), "round {round}");
        } else {
            std::thread::sleep(Duration::from_millis(u64::from(round * 7 % 400)));
            rustix::process::kill_process(crate::common::pid(running.pid()), Signal::KILL).ok();
            running.wait(Duration::from_secs(30));
        }
    }
    until("the end of the last one", Duration::from_secs(20), || processes_with("hundred").len() <= ours);
    assert_eq!(processes_with("86397"), Vec::<u32>::new(), "processes of the programs");
    run(Command::new(env!("CARGO_BIN_EXE_leno")).args(["run", "--clean"]));
    assert_eq!(own(inventory(&machine)), before);
    // Other tests of this binary have namespaces too, but none of them has a process of ours.
    let left: Vec<String> = namespaces().difference(&known).cloned().collect();
    let members = |namespace: &String| {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let lines = entries
            .filter(|entry| {
                fs::read_link(entry.path().join("ns/net"))
                    .is_ok_and(|link| link.to_string_lossy() == *namespace)
            })
            .map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
        lines.filter(|line| line.contains("hundred")).count()
    };
    assert_eq!(left.iter().map(members).sum::<usize>(), 0, "{left:?}");
}
