//! Two attempts at a time: when the first one takes long, a second one is begun at another endpoint, and the answer that
//! comes first is the answer. The other attempt is cancelled: it is neither a success nor a failure of its endpoint.
//!
//! The exchange has one attempt at any time, as without this; a race is that one and its *rival*. When either is out of
//! the race, what is left is an exchange with one attempt again, and everything else goes on as ever: the attempt that goes
//! on is always the last one of the record.
//!
//! The shell runs both, tells what it [hears](Exchange::heard) of each, and does what it is told to do with that one. It is
//! safe where a retry is: the request may have its effect twice, and all of it is there to be sent again.

use super::tries::Plan;
use super::{AppSaw, Attempt, ConnectFailure, Ending, Exchange, Input, State};
use crate::backend::{Endpoint, Outcome, Permit};
use crate::head::ResponseHead;
use crate::reason::Reason;
use crate::spec::HedgeSpec;
use crate::time::{Duration, Instant};
use alloc::rc::Rc;

/// Which of two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The one that was there before.
    First,
    /// The one beside it.
    Second,
}

/// What came of one of two attempts.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'h> {
    /// Its connection is there.
    Connected,
    /// There is none.
    ConnectFailed(ConnectFailure),
    /// The head of its answer, which is not an interim one.
    Answer(&'h ResponseHead<'h>),
    /// It is over without an answer.
    Ended {
        /// Whether the application may have seen some of it.
        app_saw: AppSaw,
        /// Why.
        reason: Reason,
    },
}

/// What is to be done with that attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// Nothing: it goes on.
    GoOn,
    /// It is given up. The other one goes on.
    Drop,
    /// Its answer is the one, and goes on as [`Input::Response`] would; the other one is given up.
    Take,
    /// The exchange has something else to do; nothing goes on.
    Over,
}

/// What a deadline has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rang {
    /// Nothing: something has moved.
    Nothing,
    /// It is time for a second attempt: [`Exchange::hedge`] or [`Exchange::not_hedged`].
    Hedge,
    /// This one is given up. The other one goes on.
    Drop(Lane),
    /// The exchange has something else to do; nothing goes on.
    Over,
}

/// What became of the second attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hedged {
    /// It was answered first, or alone.
    Won,
    /// The other one was.
    Lost,
    /// It failed, or the request was over before either was answered.
    Failed,
    /// It was not made: there were as many as there may be.
    Budget,
    /// It was not made: there is no other endpoint that can be trusted with it.
    NoEndpoint,
}

impl Hedged {
    /// The stable word for it, in the access log and the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Budget => "no_budget",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

/// What the exchange knows of a race.
#[derive(Debug)]
pub(super) struct Race {
    /// All of the request is there to be sent twice.
    whole: bool,
    /// When a second attempt is begun.
    at: Option<Instant>,
    rival: Option<Rival>,
}

impl Race {
    /// There is none.
    pub(super) const NONE: Self = Self { whole: false, at: None, rival: None };
}

/// The attempt beside the one that the exchange has.
#[derive(Debug)]
struct Rival {
    permit: Permit,
    connected: bool,
    connect_deadline: Option<Instant>,
    try_deadline: Option<Instant>,
}

impl Exchange {
    /// Nothing of the request's body is still to come: it could be sent twice at a time.
    #[cold]
    pub fn body_is_whole(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.race.whole = true;
        }
    }

    /// The policy by which the attempt that was just picked may get another one beside it. Where there is one, the shell runs
    /// a race, though it may be one of a single attempt.
    #[inline]
    pub fn may_race(&self) -> Option<HedgeSpec> {
        // Nearly every request has no plan.
        self.plan.as_ref().filter(|plan| plan.race.whole).and_then(|plan| self.race_by(plan))
    }

    #[cold]
    fn race_by(&self, plan: &Plan) -> Option<HedgeSpec> {
        let fits = self.state == State::Dialing && self.idempotent && self.record.attempts_made() == 1;
        plan.tries.hedge.filter(|_| fits && self.replayable)
    }

    /// Begins a race: the attempt has so long before it gets another one beside it; `None`: it gets none.
    pub fn begin_race(&mut self, delay: Option<Duration>) {
        let started = self.record.last_started();
        if let (Some(plan), Some(started)) = (&mut self.plan, started) {
            plan.race.at = delay.map(|delay| started.after(delay));
        }
    }

    /// When a second attempt is begun, if one is.
    pub fn hedge_at(&self) -> Option<Instant> {
        self.plan.as_ref()?.race.at
    }

    /// When [`Exchange::race_rang`] is due.
    pub fn poll_race(&self) -> Option<Instant> {
        let race = &self.plan.as_ref()?.race;
        let rival = race.rival.as_ref();
        let own = self.poll_timeout().map(|(at, _)| at);
        let times =
            [own, race.at, rival.and_then(|it| it.connect_deadline), rival.and_then(|it| it.try_deadline)];
        times.into_iter().flatten().min()
    }

    /// When the first or second attempt of a race that begins now has to have an answer, to be told to the next hop.
    pub fn race_deadline(&self, attempt: u32, now: Instant) -> Option<Instant> {
        if attempt == 1 {
            return self.attempt_deadline();
        }
        let own =
            self.plan.as_ref().and_then(|plan| plan.tries.try_timeout).map(|timeout| now.after(timeout));
        [self.deadline, own].into_iter().flatten().min()
    }

    /// The endpoint of the attempt beside.
    pub fn rival(&self) -> Option<&Rc<Endpoint>> {
        Some(self.plan.as_ref()?.race.rival.as_ref()?.permit.endpoint())
    }

    /// A second attempt is begun.
    pub fn hedge(&mut self, permit: Permit, now: Instant) {
        let Some(plan) = &mut self.plan else { return };
        plan.race.at = None;
        let (endpoint, chosen) = (permit.endpoint().clone(), permit.chosen());
        plan.tried.push(endpoint.key);
        let attempt =
            Attempt { endpoint, chosen, started: now, status: 0, failed: None, hedge: true, outrun: false };
        if self.record.begin(attempt) {
            let after = |time: Option<Duration>| time.map(|time| now.after(time));
            plan.race.rival = Some(Rival {
                permit,
                connected: false,
                connect_deadline: after(plan.tries.connect_timeout),
                try_deadline: after(plan.tries.try_timeout),
            });
        }
    }

    /// No second attempt is made.
    pub fn not_hedged(&mut self, why: Hedged) {
        self.record.hedged = Some(why);
        if let Some(plan) = &mut self.plan {
            plan.race.at = None;
        }
    }

    /// Tells what came of one of the attempts. Which one it is matters while there are two.
    pub fn heard(&mut self, lane: Lane, heard: Heard<'_>, now: Instant) -> Heed {
        let Some(plan) = &mut self.plan else { return self.heard_alone(heard, now) };
        let Some(rival) = &mut plan.race.rival else { return self.heard_alone(heard, now) };
        match heard {
            Heard::Connected => {
                match lane {
                    Lane::First => return self.heard_alone(heard, now),
                    Lane::Second => (rival.connected, rival.connect_deadline) = (true, None),
                }
                Heed::GoOn
            }
            Heard::ConnectFailed(why) => {
                let costs = !matches!(why, ConnectFailure::Overload | ConnectFailure::Limit);
                let outcome = costs.then_some(Outcome::Unreachable);
                self.give_up(lane, why.reason(), 0, outcome, AppSaw::Nothing, now);
                Heed::Drop
            }
            Heard::Ended { app_saw, reason } => {
                let outcome = match app_saw {
                    AppSaw::Nothing => match reason {
                        Reason::ConnectFailed => Some(Outcome::Unreachable),
                        Reason::ServiceOverloaded => Some(Outcome::Shed),
                        _ => None,
                    },
                    AppSaw::Maybe => Some(Outcome::NoAnswer),
                };
                self.give_up(lane, reason, 0, outcome, app_saw, now);
                Heed::Drop
            }
            Heard::Answer(head) if plan.tries.retries(head, self.call) => {
                let outcome = Outcome::Answered(head.status);
                self.give_up(lane, Reason::AnswerRetried, head.status, Some(outcome), AppSaw::Maybe, now);
                Heed::Drop
            }
            Heard::Answer(_) => {
                self.settle(lane, now);
                Heed::Take
            }
        }
    }

    /// The same for the only one.
    fn heard_alone(&mut self, heard: Heard<'_>, now: Instant) -> Heed {
        let input = match heard {
            Heard::Connected => {
                self.handle(Input::Connected { reused: false }, now);
                // What it asks for, to send, is under way.
                self.action = None;
                return Heed::GoOn;
            }
            Heard::Answer(_) => {
                self.end_race();
                return Heed::Take;
            }
            Heard::ConnectFailed(why) => Input::ConnectFailed(why),
            Heard::Ended { app_saw, reason } => Input::UpstreamEnded(Ending::Early { app_saw, reason }),
        };
        self.lost_alone();
        self.handle(input, now);
        Heed::Over
    }

    /// [`Exchange::poll_race`] has passed.
    pub fn race_rang(&mut self, now: Instant) -> Rang {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let Some(plan) = &self.plan else { return Rang::Nothing };
        let rival = plan.race.rival.as_ref();
        let saw = |connected: bool| if connected { AppSaw::Maybe } else { AppSaw::Nothing };
        let late = rival.and_then(|rival| match () {
            () if is_due(rival.connect_deadline) => {
                Some((Reason::ConnectTimeout, Outcome::Unreachable, AppSaw::Nothing))
            }
            () if is_due(rival.try_deadline) => {
                Some((Reason::TryTimeout, Outcome::NoAnswer, saw(rival.connected)))
            }
            () => None,
        });
        let (racing, hedge) = (rival.is_some(), is_due(plan.race.at));
        if let Some((_, reason)) = self.poll_timeout().filter(|(at, _)| *at <= now) {
            let outcome = match reason {
                Reason::ConnectTimeout if racing => Outcome::Unreachable,
                Reason::TryTimeout if racing => Outcome::NoAnswer,
                _ => {
                    self.leave_race(reason);
                    self.handle(Input::Timeout, now);
                    return Rang::Over;
                }
            };
            self.give_up(Lane::First, reason, 0, Some(outcome), saw(self.state == State::Waiting), now);
            return Rang::Drop(Lane::First);
        }
        if let Some((reason, outcome, app_saw)) = late {
            self.give_up(Lane::Second, reason, 0, Some(outcome), app_saw, now);
            return Rang::Drop(Lane::Second);
        }
        if hedge { Rang::Hedge } else { Rang::Nothing }
    }

    /// Both are given up: the client is gone, or the time is over. What that means for the request is told by
    /// [`Exchange::handle`].
    pub fn leave_race(&mut self, reason: Reason) {
        self.lost_alone();
        let Some(rival) = self.plan.as_mut().and_then(|plan| plan.race.rival.take()) else { return };
        self.saw(if rival.connected { AppSaw::Maybe } else { AppSaw::Nothing });
        self.record.hedged = Some(Hedged::Failed);
        if let Some(attempt) = self.record.last() {
            attempt.failed = Some(reason);
        }
        self.record.swap_first_two();
    }

    /// One of two is out: the other one is what the exchange has.
    fn give_up(
        &mut self,
        lane: Lane,
        reason: Reason,
        status: u16,
        outcome: Option<Outcome>,
        app_saw: AppSaw,
        now: Instant,
    ) {
        let Some(rival) = self.plan.as_mut().and_then(|plan| plan.race.rival.take()) else { return };
        self.saw(app_saw);
        let at = usize::from(lane == Lane::Second);
        let mut started = now;
        if let Some(attempt) = self.record.at(at) {
            (attempt.failed, attempt.status) = (Some(reason), status);
            started = attempt.started;
        }
        let permit = match lane {
            Lane::First => self.permit.as_ref(),
            Lane::Second => Some(&rival.permit),
        };
        if let (Some(permit), Some(outcome)) = (permit, outcome) {
            permit.report_since(outcome, || started, now);
        }
        match lane {
            Lane::First => {
                self.record.hedged = Some(Hedged::Won);
                self.promote(rival);
            }
            Lane::Second => {
                self.record.hedged = Some(Hedged::Failed);
                self.record.swap_first_two();
            }
        }
    }

    /// One of two has the answer.
    fn settle(&mut self, lane: Lane, now: Instant) {
        let Some(rival) = self.plan.as_mut().and_then(|plan| plan.race.rival.take()) else { return };
        match lane {
            Lane::First => {
                self.saw(if rival.connected { AppSaw::Maybe } else { AppSaw::Nothing });
                self.record.hedged = Some(Hedged::Lost);
                if let Some(attempt) = self.record.at(1) {
                    attempt.outrun = true;
                }
                self.record.swap_first_two();
            }
            Lane::Second => {
                let waited = self.state == State::Waiting;
                self.saw(if waited { AppSaw::Maybe } else { AppSaw::Nothing });
                self.record.hedged = Some(Hedged::Won);
                let mut started = now;
                if let Some(attempt) = self.record.at(0) {
                    attempt.outrun = true;
                    started = attempt.started;
                }
                if let Some(permit) = self.permit.as_ref().filter(|_| waited) {
                    // It takes at least so long.
                    permit.report_since(Outcome::Outrun, || started, now);
                }
                self.promote(rival);
            }
        }
    }

    /// The rival is the exchange's attempt from now on.
    fn promote(&mut self, rival: Rival) {
        self.permit = Some(rival.permit);
        self.connect_deadline = rival.connect_deadline;
        self.state = if rival.connected { State::Waiting } else { State::Dialing };
        self.action = None;
        if let Some(plan) = &mut self.plan {
            plan.try_deadline = rival.try_deadline;
        }
    }

    /// There is no other attempt beside from here on.
    fn end_race(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.race.at = None;
        }
    }

    /// The only attempt failed. If it was the second one, that was no use.
    fn lost_alone(&mut self) {
        self.end_race();
        if self.record.last().is_some_and(|attempt| attempt.hedge) && self.record.hedged == Some(Hedged::Won)
        {
            self.record.hedged = Some(Hedged::Failed);
        }
    }

    const fn saw(&mut self, app_saw: AppSaw) {
        if matches!(app_saw, AppSaw::Maybe) {
            self.app_saw = AppSaw::Maybe;
        }
    }
}
