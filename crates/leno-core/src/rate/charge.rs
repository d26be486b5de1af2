//! One request at all limits that concern it, and what its sender is told about them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use super::{Answer, Rate, Sender};
use crate::edit::Edits;
use crate::head::RequestHead;
use crate::time::{Duration, Instant};

/// What the limits said to one request.
#[derive(Clone, Debug, Default)]
pub struct Charge {
    /// Each that was asked, in order; nobody is asked after the one that refuses.
    pub limits: Vec<Charged>,
    /// Until a refused request would pass.
    pub wait: Option<Duration>,
}

/// What one limit said.
#[derive(Clone, Debug)]
pub struct Charged {
    /// What it is called.
    pub label: Arc<str>,
    /// What it said.
    pub verdict: Verdict,
}

/// What a limit says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Passes,
    /// It is one too many.
    Refused,
    /// It would be one too many.
    WouldRefuse,
}

impl Charge {
    /// Counts a request at each of `rates`. When one refuses it, none has counted it. What its sender is told goes into `told`,
    /// as fields for the answer's head.
    pub fn of(
        rates: &[Rate],
        head: &RequestHead<'_>,
        sender: &Sender<'_>,
        now: Instant,
        told: &mut Edits,
    ) -> Self {
        let mut limits = Vec::with_capacity(rates.len());
        let mut answers: Vec<(&Rate, Answer)> = Vec::with_capacity(rates.len());
        let mut taken = Vec::with_capacity(rates.len());
        let mut asked = Vec::with_capacity(rates.len());
        for rate in rates.iter().filter(|rate| rate.counts(sender)) {
            asked.push(rate);
            let (answer, place) = rate.take(head, sender, now);
            let verdict = match (answer.passes, rate.spec.dry_run) {
                (true, _) => {
                    taken.push((rate, place));
                    Verdict::Passes
                }
                (false, false) => Verdict::Refused,
                (false, true) => Verdict::WouldRefuse,
            };
            limits.push(Charged { label: rate.label.clone(), verdict });
            // A limit that refuses nothing has nothing to say to anybody.
            if !rate.spec.dry_run {
                answers.push((rate, answer));
            }
            if verdict == Verdict::Refused {
                taken.iter().for_each(|(rate, place)| rate.give_back(*place));
                break;
            }
        }
        let refused = matches!(limits.last(), Some(Charged { verdict: Verdict::Refused, .. }));
        for (rate, said) in asked.into_iter().zip(&limits) {
            let tally = &rate.tally;
            match said.verdict {
                // Refused by another one: this one has not counted it.
                Verdict::Passes if refused => continue,
                Verdict::Passes => &tally.allowed,
                Verdict::Refused => &tally.refused,
                Verdict::WouldRefuse => &tally.would_refuse,
            }
            .fetch_add(1, Ordering::Relaxed);
        }
        tell(&answers, told);
        let wait =
            answers.last().filter(|(_, answer)| refused && !answer.passes).map(|(_, answer)| answer.wait);
        Self { limits, wait }
    }

    /// The limit that refused.
    pub fn refused_by(&self) -> Option<&str> {
        let last = self.limits.last().filter(|last| last.verdict == Verdict::Refused)?;
        Some(&last.label)
    }

    /// Those that would have.
    pub fn dry_runs(&self) -> impl Iterator<Item = &str> {
        let would = self.limits.iter().filter(|limit| limit.verdict == Verdict::WouldRefuse);
        would.map(|limit| &*limit.label)
    }
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10 about each limit, and `Retry-After` (RFC 9110 §10.2.3) when one
/// refuses. They go behind what a service says itself: each field is a list.
fn tell(answers: &[(&Rate, Answer)], told: &mut Edits) {
    if answers.is_empty() {
        return;
    }
    let list = |told: &mut Edits, name: &[u8], write: &dyn Fn(&mut Text<'_>, &Rate, &Answer)| {
        told.add_with(name, |out| {
            for (at, (rate, answer)) in answers.iter().enumerate() {
                let mut text = Text(out);
                // Writing to a vector cannot fail.
                let _ = write!(text, "{}\"{}\"", if at == 0 { "" } else { ", " }, rate.spec.name);
                write(&mut text, rate, answer);
            }
        });
    };
    list(told, b"ratelimit-policy", &|text, rate, _| {
        let _ = write!(text, ";q={}", rate.spec.requests);
        // The draft counts windows in whole seconds; one of another length is better not said than said wrong.
        if rate.spec.per.subsec_nanos() == 0 {
            let _ = write!(text, ";w={}", rate.spec.per.as_secs());
        }
    });
    list(told, b"ratelimit", &|text, _, answer| {
        let left = if answer.passes { answer.left } else { 0 };
        let _ = write!(text, ";r={left};t={}", whole_seconds(answer.reset));
    });
    if let Some((_, refused)) = answers.last().filter(|(_, answer)| !answer.passes) {
        told.set_with(b"retry-after", |out| {
            let _ = write!(Text(out), "{}", whole_seconds(refused.wait).max(1));
        });
    }
}

/// Rounded up: a client that comes back then passes.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Text into bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
