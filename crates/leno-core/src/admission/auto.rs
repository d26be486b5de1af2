//! A limit that nobody has to know: how many requests an application works on at a time without having them wait inside.
//!
//! By Little's law an application that answers `x` requests a second, each of which it works on for `r` seconds, has `x · r` of
//! them at work. What is let in on top only waits in there, where nobody can order, refuse or count it. So the limit is the number
//! at work times [`GAIN`], to be found from three means over a window: how many were inside, how many left, how long each was in.
//! What is not known is how much of the latter is work: [`Auto::base`].
//!
//! It is not the shortest time ever seen, which one cheap request or one noisy window would set for good, nor is it measured by
//! keeping everybody out for a while, as Envoy does once a minute to its users' regret. It is settled by what a smaller limit does:
//!
//! - The number of answers stays the same: what was kept out had only waited. The base is not more than what was seen.
//! - The answers become fewer in proportion: all who were inside were at work, and the base is what it takes now.
//!
//! So every cut is an experiment. When latencies rise because the work has become more, the first cut finds that nothing is won by
//! it and takes it back, within a few windows and without a spiral down; when they rise because of a line, it was right. Where the
//! limit is reached for long, it is lowered by a little now and then ([`PROBE_EVERY`]), which costs a fifth of the work for one
//! window at the worst and nothing when there was a line.
//!
//! While it is not reached the limit stays as it is: it begins as high as it may be, and comes down by evidence alone, so that a
//! service that has enough of everything is never refused anything.

use crate::time::{Duration, Instant};

/// The limit is so many times what was found to be at work. The rest is what the windows' noise is drowned in: a line in the
/// application as long as half of what it works on, which costs half of the usual time and no answer.
const GAIN: f64 = 1.5;
/// Shortest time over which anything is judged.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// With times that differ much, the mean of few says little: a window waits for more, but not for longer than this.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// A window that has not seen enough after this begins again: what was so long ago is not the present.
const WINDOW_FORGOTTEN: Duration = Duration::from_secs(10);
/// Fewer answers say nothing.
const SAMPLES_MIN: u32 = 10;
/// A mean is good enough when it is within this share of itself, by one standard error.
const GOOD_ENOUGH: f64 = 0.1;
/// The furthest that the limit moves at a time.
const STEP_DOWN: f64 = 0.5;
const STEP_UP: f64 = 1.5;
/// When everything takes so many times as long as it should, it is looked at more often, and cut more deeply.
const ALARM: f64 = 3.0;
const ALARM_MIN: Duration = Duration::from_millis(20);
const STEP_DOWN_ALARMED: f64 = 0.25;
/// While the limit is not reached, latencies have to be so much above what they may be before it is cut.
const DOUBT: f64 = 0.9;
/// What a faster window is believed by.
const TRUST: f64 = 0.5;
/// Windows at the limit between two probes: some seconds.
const PROBE_EVERY: u32 = 40;
/// What is let in during a probe, of what is thought to be at work.
const PROBE: f64 = 0.7;
/// For how many errors of the mean they are, and for how many windows in a row.
const SURE: f64 = 3.0;
const DOUBTS: u32 = 2;
/// So many are left in all the same: with fewer inside nothing melts down, and chance has too much to say.
const DOUBT_LEAVES: f64 = 10.0;
/// What is about as many inside, and what is fewer.
const FEWER: f64 = 0.85;
/// Answers that a probe waits for, so that its verdict is not chance, and how long at the most.
const PROBE_WEIGHT: f64 = 100.0;
const PROBE_MAX: Duration = Duration::from_secs(2);
/// Windows until the next probe where one has found a line.
const PROBE_AGAIN: u32 = 3;
/// What is so much less than was thought is news.
const PROBE_NEWS: f64 = 0.85;
/// More answers than this are not remembered at a time.
const WEIGHT_MAX: f64 = 400.0;
/// Windows after which what an application could do once is forgotten.
const BEST_FORGOTTEN: u32 = 10;

/// Finds the limit of one application.
#[derive(Debug)]
pub struct Auto {
    min: u32,
    max: u32,
    limit: u32,
    /// How long a request is worked on, in microseconds; 0: not known yet.
    base: f64,
    window: Window,
    /// What the application did with more inside.
    best: Option<Mark>,
    /// The limit is lowered to see what happens: what was before.
    probing: Option<Mark>,
    /// Windows at the limit since the last probe.
    quiet: u32,
    /// Windows in a row in which the limit was not reached and yet everything took too long.
    doubts: u32,
}

/// What happened since a window began.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// When it begins: after a change those that are inside have to leave first.
    since: Instant,
    /// Up to when it is counted.
    last: Instant,
    /// Requests inside, times microseconds.
    area: f64,
    /// How long all places were taken.
    full: Duration,
    /// Somebody found no place.
    hit: bool,
    /// Requests that left.
    left: u32,
    /// Of them, those that were answered: how many, how long they were in, in microseconds, and the squares of it.
    answered: u32,
    sum: f64,
    squares: f64,
}

/// What an application did in one window.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Requests inside, on average.
    inside: f64,
    /// Requests that left in a microsecond.
    rate: f64,
    /// How long each was in, in microseconds.
    took: f64,
    /// What that is worth: so many answers, as if they came by chance alone.
    weight: f64,
    /// Windows since.
    age: u32,
}

/// What was kept out by a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// What had only waited.
    Line,
    /// What was worked on.
    Work,
}

impl Mark {
    /// Both together, as one.
    fn and(self, other: Self) -> Self {
        let weight = self.weight + other.weight;
        let mean = |a: f64, b: f64| (a * self.weight + b * other.weight) / weight;
        Self {
            inside: mean(self.inside, other.inside),
            rate: mean(self.rate, other.rate),
            took: mean(self.took, other.took),
            // What is long ago loses its weight.
            weight: weight.min(WEIGHT_MAX),
            age: 0,
        }
    }
}

impl Auto {
    pub(super) const fn new((min, max): (u32, u32), now: Instant) -> Self {
        Self {
            min,
            max,
            limit: max,
            base: 0.0,
            window: Window::new(now),
            best: None,
            probing: None,
            quiet: 0,
            doubts: 0,
        }
    }

    pub(super) fn bound(&mut self, (min, max): (u32, u32)) {
        // What was found out is still true; what was only the bound is the new one.
        let free = self.limit == self.max;
        (self.min, self.max) = (min, max);
        self.limit = if free { max } else { self.limit.clamp(min, max) };
    }

    /// How many may be inside.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// How long the application is thought to work on a request; zero: it is not known yet.
    pub fn base(&self) -> Duration {
        Duration::from_micros(self.base as u64)
    }

    /// So many were inside until now.
    pub(super) fn pass(&mut self, inside: u32, now: Instant) {
        let window = &mut self.window;
        if now <= window.last {
            return;
        }
        let passed = now.since(window.last);
        window.last = now;
        window.area += f64::from(inside) * micros(passed);
        if inside >= self.limit {
            window.full += passed;
        }
    }

    /// Somebody found no place.
    pub(super) const fn was_full(&mut self) {
        self.window.hit = true;
    }

    /// Somebody left, after so long inside if that says anything.
    pub(super) fn left(&mut self, took: Option<Duration>) {
        let window = &mut self.window;
        // It is told of the present up to which it counts.
        if window.last <= window.since {
            return;
        }
        window.left += 1;
        if let Some(took) = took {
            let took = micros(took);
            window.answered += 1;
            window.sum += took;
            window.squares += took * took;
        }
    }

    /// Judges the window if it has seen enough.
    pub(super) fn look(&mut self, now: Instant) {
        let window = &self.window;
        let length = now.since(window.since);
        if length < ALARM_MIN || (length < WINDOW_MIN && !self.is_alarming()) {
            return;
        }
        if window.answered < SAMPLES_MIN {
            if length >= WINDOW_FORGOTTEN {
                self.window = Window::new(now);
            }
            return;
        }
        let answered = f64::from(window.answered);
        let took = window.sum / answered;
        let variance = (window.squares / answered - took * took).max(0.0);
        // Whole microseconds will do.
        let error = ((variance / answered) as u64).isqrt() as f64;
        let waits_for_more = error > took * GOOD_ENOUGH && length < WINDOW_MAX && !self.is_alarming();
        // Twice through the application, but not through a line in it that the limit is there to prevent.
        let through = if self.base > 0.0 { took.min(2.0 * self.base) } else { took };
        if waits_for_more || micros(length) < (2.0 * through).min(micros(WINDOW_FORGOTTEN)) {
            return;
        }
        let mark = Mark {
            inside: window.area / micros(length),
            rate: f64::from(window.left) / micros(length),
            took,
            weight: f64::from(window.left) / (variance / (took * took)).max(1.0),
            age: 0,
        };
        if self.probing.is_some() && mark.weight < PROBE_WEIGHT && length < PROBE_MAX {
            return;
        }
        let (full, hit) = (window.full * 2 >= length, window.hit);
        let before = self.limit;
        self.judge(mark, error, full, hit);
        let since = if self.limit == before { now } else { now.after(Duration::from_micros(through as u64)) };
        self.window = Window::new(since);
    }

    /// Everything takes so much longer than it should that there is no time for a longer look.
    fn is_alarming(&self) -> bool {
        let window = &self.window;
        let answered = f64::from(window.answered);
        let took = window.sum / answered.max(1.0);
        let variance = window.squares / answered.max(1.0) - took * took;
        // Three errors of the mean are less than a third of it.
        self.base > 0.0 && took > ALARM * self.base && variance * 81.0 < took * took * answered
    }

    /// Finds the next limit. `error` is one standard error of the time inside.
    fn judge(&mut self, mark: Mark, error: f64, full: bool, hit: bool) {
        if let Some(before) = self.probing.take() {
            let was = self.base;
            let found = self.settle(before, mark, full);
            // Where the line was longer than was thought, there may be more of it.
            let more = found == Some(Found::Line) && self.base < was * PROBE_NEWS;
            self.quiet = if more { PROBE_EVERY - PROBE_AGAIN } else { 0 };
            self.best = None;
            return self.move_to(before.inside * (GAIN * self.base / before.took).clamp(STEP_DOWN, STEP_UP));
        }
        self.best = Some(match self.best {
            Some(best) if mark.inside < best.inside * FEWER && best.age < BEST_FORGOTTEN => {
                match self.settle(best, mark, full) {
                    Some(_) => mark,
                    None => Mark { age: best.age + 1, ..best },
                }
            }
            Some(best) if mark.inside < best.inside / FEWER && best.age < BEST_FORGOTTEN => best.and(mark),
            _ => mark,
        });
        if self.base == 0.0 {
            self.base = mark.took;
        } else if mark.took + error < self.base {
            self.base += (mark.took + error - self.base) * TRUST;
        }
        let may = |errors: f64| GAIN * self.base / (mark.took - errors * error).max(1.0);
        let doubtful = !full && may(SURE) < DOUBT;
        let alarming = may(SURE) < GAIN / ALARM;
        self.doubts = match (doubtful, alarming) {
            (true, true) => DOUBTS,
            (true, false) => self.doubts + 1,
            (false, _) => 0,
        };
        let step_down = if alarming { STEP_DOWN_ALARMED } else { STEP_DOWN };
        if full {
            self.quiet += 1;
            if self.quiet >= PROBE_EVERY {
                self.probing = self.best;
                return self.move_to(mark.inside * (self.base / mark.took).min(1.0) * PROBE);
            }
            self.move_to(mark.inside * may(1.0).clamp(step_down, STEP_UP));
        } else if hit && may(1.0) > 1.0 {
            self.move_to(f64::from(self.limit) * may(1.0).min(STEP_UP));
        } else if self.doubts >= DOUBTS {
            self.doubts = 0;
            self.move_to((mark.inside * may(SURE).max(step_down)).max(DOUBT_LEAVES));
        }
    }

    /// Fewer were let in than `before`: what has that changed? `None`: chance could have done it.
    fn settle(&mut self, before: Mark, now: Mark, full: bool) -> Option<Found> {
        let cut = 1.0 - now.inside / before.inside;
        // Two standard errors of the difference of two rates.
        if !full || cut <= 0.0 || cut * cut < 4.0 * (1.0 / before.weight + 1.0 / now.weight) {
            return None;
        }
        // 0: as many answers as before; 1: fewer in proportion.
        let fewer = (1.0 - now.rate / before.rate) / cut;
        if fewer < 0.5 {
            self.base = self.base.min(now.took);
            return Some(Found::Line);
        }
        self.base = now.took;
        Some(Found::Work)
    }

    fn move_to(&mut self, limit: f64) {
        // A part of a place is one; more than there can be is cut off.
        let whole = limit as u32;
        let rounded = if f64::from(whole) < limit { whole.saturating_add(1) } else { whole };
        self.limit = rounded.clamp(self.min, self.max);
    }
}

impl Window {
    const fn new(since: Instant) -> Self {
        Self {
            since,
            last: since,
            area: 0.0,
            full: Duration::ZERO,
            hit: false,
            left: 0,
            answered: 0,
            sum: 0.0,
            squares: 0.0,
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
