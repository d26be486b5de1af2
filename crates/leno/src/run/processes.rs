//! Processes as /proc shows them: who descends from whom, who lives in which network namespace, who is still the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be taken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Its number.
    pub(super) pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub(super) start: u64,
}

impl Known {
    /// The process that has this number now.
    pub(super) fn now(pid: u32) -> Option<Self> {
        let Stat { start, .. } = Stat::of(pid)?;
        Some(Self { pid, start })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended)
    }

    /// Kills it, unless it is gone.
    pub(super) fn kill(self) {
        if self.is_alive() {
            signal(self.pid, Signal::KILL);
        }
    }
}

/// What is taken from `/proc/PID/stat`.
struct Stat {
    parent: u32,
    start: u64,
    /// Nothing but its exit status is left.
    ended: bool,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a program's name in parentheses, which may have anything in it.
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let ended = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        // It is the 22nd of all, and the third is the one after the name.
        let start = fields.nth(STARTTIME_AFTER_PARENT)?.parse().ok()?;
        Some(Self { parent, start, ended })
    }
}

/// Every process that descends from `ancestor`, as far as its parents were not taken over by somebody else.
pub(super) fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all() {
        if let Some(stat) = Stat::of(pid).filter(|stat| !stat.ended) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor];
    while let Some(parent) = next.pop() {
        next.extend(children.remove(&parent).into_iter().flatten().filter(|child| found.insert(*child)));
    }
    found
}

/// The children of `parent` of which nothing but an exit status is left.
pub(super) fn ended_children(parent: u32) -> Vec<u32> {
    all().filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.ended && stat.parent == parent)).collect()
}

/// Every process in the network namespace with this number.
pub(super) fn members(namespace: u64) -> BTreeSet<u32> {
    let link = format!("net:[{namespace}]");
    let is_there =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it.as_os_str() == &*link);
    all().filter(is_there).collect()
}

/// Asks every process that `left` finds to end, waits, and then makes them. How many there were.
pub(super) fn end_all(left: impl Fn() -> BTreeSet<u32>, grace: Duration) -> usize {
    let asked = left();
    for pid in &asked {
        signal(*pid, Signal::TERM);
    }
    let mut waited = Duration::ZERO;
    while waited < grace && !left().is_empty() {
        std::thread::sleep(PACE);
        waited += PACE;
    }
    // Whoever forks meanwhile is found in the next round.
    for _ in 0..ROUNDS_MAX {
        let rest = left();
        if rest.is_empty() {
            break;
        }
        for pid in rest {
            signal(pid, Signal::KILL);
        }
        std::thread::sleep(PACE);
    }
    asked.len()
}

/// Sends a signal; a process that is gone has ended as wanted.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Fields between a process's parent and the time of its start.
const STARTTIME_AFTER_PARENT: usize = 17;
/// Between two looks at processes that were told to end.
const PACE: Duration = Duration::from_millis(10);
/// So often the rest is killed. More than one round is rare, more than some is a program that forks faster than we kill.
const ROUNDS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Known::now(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Known { start: own.start + 1, ..own }.is_alive());
        let mut child = Command::new("true").spawn().unwrap();
        let known = Known::now(child.id()).unwrap();
        child.wait().unwrap();
        assert!(!known.is_alive());
    }

    #[test]
    fn a_whole_family_is_found_and_ended() {
        // The outer shell ends only when the inner ones do.
        let mut shell =
            Command::new("sh").args(["-c", "sh -c 'sleep 100 & sleep 100' ; true"]).spawn().unwrap();
        let family = || descendants(shell.id());
        while family().len() < 3 {
            std::thread::sleep(PACE);
        }
        end_all(family, Duration::from_secs(5));
        shell.wait().unwrap();
    }
}
