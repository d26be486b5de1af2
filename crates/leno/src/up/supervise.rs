//! Which process to start, restart, ask to end and kill, and when. Pure: facts and the time go in, actions come
//! out; nothing here starts a process or reads a clock.
//!
//! ```text
//!             after all of      ready (its own word, or
//!             `after` are up    the registry's)
//!   Waiting ──────────────▶ Starting ───────────▶ Up
//!                             ▲   │ exited         │ exited
//!                             │   ▼                ▼
//!                             └─ Backoff ◀─────────┘      delay doubles, forgotten after STABLE_AFTER
//!
//!   any of them, when the mesh stops:  Stopping ──▶ (deadline) Killed ──▶ Stopped
//! ```
//!
//! While the mesh starts, a member that exits [`START_EXITS_MAX`] times, that cannot be started at all, or a start
//! that takes longer than its deadline ends everything: a mesh that comes up broken helps nobody. Once the mesh
//! has been ready, nothing ends it but its operator, and whatever exits is started again for ever.
//!
//! Stopping goes by [`Rank`], highest first, each rank together, so that nothing loses what it still needs:
//! gateways (no new requests), sidecars (those under way), service commands, the control plane.
//!
//! Call order: [`Supervisor::handle`] with every fact, or [`Supervisor::handle_timeout`] when the time of
//! [`Supervisor::poll_timeout`] has come; after each, [`Supervisor::poll_action`] until it is empty.

use std::collections::VecDeque;
use std::time::Duration;

use leno_core::time::Instant;

/// Decides for all members of one mesh.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// Fixed; a member is known by its place here.
    members: Vec<Member>,
    timing: Timing,
    phase: Phase,
    /// Decided and not yet polled. Bounded: a handful per member and fact.
    actions: VecDeque<Action>,
}

/// A member's place in the list that the supervisor was made with.
pub(super) type MemberId = usize;

/// What has to be known about a member.
#[derive(Clone, Debug)]
pub(super) struct MemberSpec {
    /// When it is stopped.
    pub(super) rank: Rank,
    /// It is started once all of these have been ready.
    pub(super) after: Vec<MemberId>,
}

/// In which order members are stopped: the last one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Stops last: the others deregister with it.
    Control,
    /// A service command.
    App,
    /// Stops before its service command, so that requests under way are still answered.
    Sidecar,
    /// Stops first.
    Gateway,
}

/// The waits that are chosen by the caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// From the start to every member ready.
    pub(super) start_max: Duration,
    /// Before the first restart of a member.
    pub(super) restart_first: Duration,
    /// Between asking a member to end and killing it.
    pub(super) stop_max: Duration,
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The member can do its work.
    Ready(MemberId),
    /// The member's process has ended; or it was to be started, and what that needs is missing for now.
    Exited(MemberId),
    /// The member cannot be started, and trying again would not help.
    CannotStart(MemberId),
    /// The operator wants the mesh to end.
    Stop,
    /// The operator does not want to wait for it.
    StopNow,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start it.
    Launch(MemberId),
    /// Ask it to end.
    Terminate(MemberId),
    /// Make it end.
    Kill(MemberId),
    /// Tell: it has exited and will be started again after this.
    Restarting(MemberId, Duration),
    /// Tell: it is ready again.
    Recovered(MemberId),
    /// Tell: every member is ready, for the first time.
    Ready,
    /// Tell: the start has failed; everything is being stopped.
    GaveUp(GaveUp),
    /// Every member has ended.
    Stopped,
}

/// Why a start has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// This member exited too often.
    Exits(MemberId),
    /// This member cannot be started.
    CannotStart(MemberId),
    /// The deadline has passed without these.
    Deadline(Vec<MemberId>),
}

/// How a member is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Waits for others to be ready.
    Waiting,
    /// Started, not ready.
    Starting,
    /// Ready.
    Up,
    /// Exited, to be started again.
    Down,
    /// Asked to end.
    Stopping,
    /// Ended.
    Stopped,
}

#[derive(Debug)]
struct Member {
    spec: MemberSpec,
    state: State,
    /// Set by the first `Ready`, never taken back.
    was_ready: bool,
    /// At the last launch.
    launched: Instant,
    /// Exits in a row, each soon after its launch; what the backoff grows with.
    failures: u32,
    /// Exits since the beginning: what the table shows, and what ends a start.
    exits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Starting,
    Up,
    Backoff { until: Instant },
    Stopping { kill_at: Instant },
    Killed,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not every member has been ready.
    Starting { deadline: Instant },
    /// All of them have been, at the same time.
    Running,
    /// Members of this rank are ending; those above have ended.
    Stopping { rank: Rank },
    /// Nothing is left.
    Stopped,
}

impl Supervisor {
    /// Begins to start `members` now.
    pub(super) fn new(members: Vec<MemberSpec>, timing: Timing, now: Instant) -> Self {
        let member = |spec| Member {
            spec,
            state: State::Waiting,
            was_ready: false,
            launched: now,
            failures: 0,
            exits: 0,
        };
        let mut supervisor = Self {
            members: members.into_iter().map(member).collect(),
            timing,
            phase: Phase::Starting { deadline: now.after(timing.start_max) },
            actions: VecDeque::new(),
        };
        supervisor.launch_waiting(now);
        supervisor
    }

    /// Takes a fact. One about a member that does not exist, or that no longer matters, changes nothing.
    pub(super) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Ready(id) => self.ready(id, now),
            Input::Exited(id) => self.exited(id, now),
            Input::CannotStart(id) => match self.phase {
                Phase::Starting { .. } => {
                    self.ended(id);
                    self.give_up(GaveUp::CannotStart(id), now);
                }
                _ => self.exited(id, now),
            },
            Input::Stop => self.stop(now),
            Input::StopNow => {
                self.stop(now);
                for id in 0..self.members.len() {
                    self.kill(id);
                }
            }
        }
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Starting { deadline } = self.phase
            && now >= deadline
        {
            let missing = (0..self.members.len()).filter(|&id| !self.is(id, State::Up)).collect();
            self.give_up(GaveUp::Deadline(missing), now);
        }
        for id in 0..self.members.len() {
            match self.members[id].state {
                State::Backoff { until } if now >= until => self.launch(id, now),
                State::Stopping { kill_at } if now >= kill_at => self.kill(id),
                _ => {}
            }
        }
    }

    /// The next action.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] has to be called, and why then.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let start = match self.phase {
            Phase::Starting { deadline } => Some((deadline, "the start takes too long")),
            _ => None,
        };
        let members = self.members.iter().filter_map(|member| match member.state {
            State::Backoff { until } => Some((until, "a member is started again")),
            State::Stopping { kill_at } => Some((kill_at, "a member does not end")),
            _ => None,
        });
        members.chain(start).min_by_key(|(at, _)| *at)
    }

    /// How a member is shown.
    pub(super) fn condition(&self, id: MemberId) -> Condition {
        match self.members.get(id).map(|member| member.state) {
            Some(State::Waiting) => Condition::Waiting,
            Some(State::Starting) => Condition::Starting,
            Some(State::Up) => Condition::Up,
            Some(State::Backoff { .. }) => Condition::Down,
            Some(State::Stopping { .. } | State::Killed) => Condition::Stopping,
            Some(State::Stopped) | None => Condition::Stopped,
        }
    }

    /// True once the end has begun.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped)
    }

    /// How often a member has exited by itself.
    pub(super) fn restarts(&self, id: MemberId) -> u32 {
        self.members.get(id).map_or(0, |member| member.exits)
    }

    fn ready(&mut self, id: MemberId, now: Instant) {
        if !self.is(id, State::Starting) {
            return;
        }
        self.members[id].state = State::Up;
        self.members[id].was_ready = true;
        if !matches!(self.phase, Phase::Starting { .. }) {
            self.actions.push_back(Action::Recovered(id));
            return;
        }
        self.launch_waiting(now);
        if self.members.iter().all(|member| member.state == State::Up) {
            self.phase = Phase::Running;
            self.actions.push_back(Action::Ready);
        }
    }

    fn exited(&mut self, id: MemberId, now: Instant) {
        if self.is_stopping() {
            // Asked or not: its turn would only come later.
            self.ended(id);
            self.stop_next(now);
            return;
        }
        let Some(member) = self.members.get_mut(id) else { return };
        if !matches!(member.state, State::Starting | State::Up) {
            return;
        }
        if now.since(member.launched) >= STABLE_AFTER {
            member.failures = 0;
        }
        member.failures = member.failures.saturating_add(1);
        member.exits = member.exits.saturating_add(1);
        if matches!(self.phase, Phase::Starting { .. }) && member.exits >= START_EXITS_MAX {
            self.ended(id);
            self.give_up(GaveUp::Exits(id), now);
            return;
        }
        let delay = backoff(self.timing.restart_first, member.failures);
        member.state = State::Backoff { until: now.after(delay) };
        self.actions.push_back(Action::Restarting(id, delay));
    }

    fn launch_waiting(&mut self, now: Instant) {
        for id in 0..self.members.len() {
            let was_ready = |after: &MemberId| self.members.get(*after).is_some_and(|m| m.was_ready);
            if self.is(id, State::Waiting) && self.members[id].spec.after.iter().all(was_ready) {
                self.launch(id, now);
            }
        }
    }

    fn launch(&mut self, id: MemberId, now: Instant) {
        self.members[id].state = State::Starting;
        self.members[id].launched = now;
        self.actions.push_back(Action::Launch(id));
    }

    fn give_up(&mut self, why: GaveUp, now: Instant) {
        self.actions.push_back(Action::GaveUp(why));
        self.stop(now);
    }

    fn stop(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped) {
            return;
        }
        self.phase = Phase::Stopping { rank: Rank::Gateway };
        for id in 0..self.members.len() {
            if matches!(self.members[id].state, State::Waiting | State::Backoff { .. }) {
                self.ended(id);
            }
        }
        self.stop_next(now);
    }

    /// Asks the highest rank that still has members to end.
    fn stop_next(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Stopping { .. }) {
            return;
        }
        let left = self.members.iter().filter(|member| member.state != State::Stopped);
        let Some(rank) = left.map(|member| member.spec.rank).max() else {
            self.phase = Phase::Stopped;
            self.actions.push_back(Action::Stopped);
            return;
        };
        self.phase = Phase::Stopping { rank };
        let kill_at = now.after(self.timing.stop_max);
        for (id, member) in self.members.iter_mut().enumerate() {
            if member.spec.rank == rank && matches!(member.state, State::Starting | State::Up) {
                member.state = State::Stopping { kill_at };
                self.actions.push_back(Action::Terminate(id));
            }
        }
    }

    fn kill(&mut self, id: MemberId) {
        if !matches!(self.members[id].state, State::Stopped | State::Killed) {
            self.members[id].state = State::Killed;
            self.actions.push_back(Action::Kill(id));
        }
    }

    fn ended(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(id) {
            member.state = State::Stopped;
        }
    }

    fn is(&self, id: MemberId, state: State) -> bool {
        self.members.get(id).is_some_and(|member| member.state == state)
    }
}

/// Before the restart after `failures` exits in a row: `first`, doubled each time, up to [`RESTART_MAX`].
fn backoff(first: Duration, failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(doubled).min(RESTART_MAX.max(first))
}

/// Before the first restart, unless `--restart-delay` says otherwise.
pub(super) const RESTART_FIRST: Duration = Duration::from_millis(500);
/// Before any restart: a command that stays broken costs next to nothing, one that was repaired is back soon.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// A member that ran this long was well; its next restart is as quick as a first one.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Exits of one member that end a start.
pub(super) const START_EXITS_MAX: u32 = 3;

#[cfg(test)]
mod tests;
