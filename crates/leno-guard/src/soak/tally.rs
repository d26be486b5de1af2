//! What happened to the requests, by kind.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Examples of each forbidden kind that are shown.
const EXAMPLES_MAX: usize = 5;

/// Counts that all clients share.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Clone, Default)]
pub(super) struct Counts {
    /// Whole and right.
    pub(super) right: u64,
    /// What clients did not wait for.
    pub(super) aborted: u64,
    /// Failures of requests that were to fail.
    pub(super) allowed: BTreeMap<String, u64>,
    /// What must not happen.
    pub(super) forbidden: BTreeMap<String, u64>,
    examples: Vec<String>,
}

impl Tally {
    pub(super) fn right(&self) {
        self.change(|counts| counts.right += 1);
    }

    pub(super) fn aborted(&self) {
        self.change(|counts| counts.aborted += 1);
    }

    pub(super) fn allowed(&self, kind: &str) {
        self.change(|counts| *counts.allowed.entry(kind.to_owned()).or_default() += 1);
    }

    /// `example` says what it was, for whoever looks for the reason.
    pub(super) fn forbidden(&self, kind: &str, example: impl FnOnce() -> String) {
        self.change(|counts| {
            let count = counts.forbidden.entry(kind.to_owned()).or_default();
            *count += 1;
            if *count <= EXAMPLES_MAX as u64 {
                counts.examples.push(format!("{kind}: {}", example()));
            }
        });
    }

    pub(super) fn read(&self) -> Counts {
        self.0.lock().map(|counts| counts.clone()).unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        if let Ok(mut counts) = self.0.lock() {
            change(&mut counts);
        }
    }
}

impl Counts {
    pub(super) fn requests(&self) -> u64 {
        self.right + self.aborted + sum(&self.allowed) + self.wrong()
    }

    pub(super) fn wrong(&self) -> u64 {
        sum(&self.forbidden)
    }

    /// The kinds, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("right: {}", self.right), format!("given up by the client: {}", self.aborted)];
        lines.extend(self.allowed.iter().map(|(kind, count)| format!("meant to fail, {kind}: {count}")));
        lines.extend(self.forbidden.iter().map(|(kind, count)| format!("FORBIDDEN {kind}: {count}")));
        lines.extend(self.examples.iter().map(|example| format!("  {example}")));
        lines
    }
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}
