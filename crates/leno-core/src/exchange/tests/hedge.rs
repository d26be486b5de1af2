//! Two attempts at a time.

use alloc::sync::Arc;

use super::policy::answer;
use super::*;
use crate::spec::{HedgeAfter, HedgeSpec, RetryOn, RetrySpec, StatusRange, TriesSpec};

const MILLIS: Duration = Duration::from_millis(1);

fn tries(percent: u32) -> TriesSpec {
    let hedge = HedgeSpec { after: HedgeAfter::Time(MILLIS * 10), percent };
    let on =
        RetryOn { reset: true, statuses: vec![StatusRange { first: 503, last: 503 }], ..RetryOn::default() };
    let retry = RetrySpec { on, backoff: Duration::ZERO, ..RetrySpec::default() };
    TriesSpec { hedge: Some(hedge), retry: Some(retry), ..TriesSpec::default() }
}

fn scene(idempotent: bool, tries: &TriesSpec) -> Scene {
    let mut scene = Scene::new(3, idempotent, Some(MILLIS * 1_000));
    scene.exchange.follow(&Arc::new(Tries::from(tries)), 7);
    scene.exchange.body_is_whole();
    scene
}

impl Scene {
    fn heard(&mut self, lane: Lane, heard: Heard<'_>) -> Heed {
        self.exchange.heard(lane, heard, self.now)
    }

    fn answers(&mut self, lane: Lane, status: u16) -> Heed {
        let now = self.now;
        answer(status, &[], |head| self.exchange.heard(lane, Heard::Answer(head), now))
    }

    /// Another endpoint than those that were tried.
    fn other(&mut self) -> Option<Permit> {
        let (backend, tried) = (self.exchange.backend()?, self.exchange.planned_tried()?.to_vec());
        self.backends.pick(&self.snapshot, Choice::Backend(backend), &tried, self.now, &mut self.rng).ok()
    }

    /// Both attempts are under way and wait for their answers.
    fn race(&mut self) {
        assert_eq!(self.pick_again(), Some(Action::Dial));
        assert!(self.exchange.may_race().is_some());
        self.exchange.begin_race(Some(MILLIS * 10));
        assert_eq!(self.heard(Lane::First, Heard::Connected), Heed::GoOn);
        let due = self.exchange.poll_race().unwrap();
        assert_eq!(due, Instant::ZERO.after(MILLIS * 10));
        assert_eq!(self.exchange.race_rang(self.now), Rang::Nothing);
        self.now = due;
        assert_eq!(self.exchange.race_rang(due), Rang::Hedge);
        let permit = self.other().unwrap();
        self.exchange.hedge(permit, due);
        assert_eq!(self.heard(Lane::Second, Heard::Connected), Heed::GoOn);
        assert_eq!(self.in_flight(), 2);
        self.now = self.now.after(MILLIS);
    }

    fn response(&mut self) {
        assert_eq!(self.in_flight(), 1);
        assert_eq!(self.handle(Input::Response { status: 200 }), Some(Action::Relay));
        assert_eq!(self.handle(Input::UpstreamEnded(Ending::Complete)), Some(Action::Finish));
        assert_eq!(self.in_flight(), 0);
    }

    /// Of each attempt: whether it was begun beside another, was outrun, failed.
    fn attempts(&self) -> Vec<(bool, bool, Option<Reason>)> {
        self.exchange.record().attempts().map(|it| (it.hedge, it.outrun, it.failed)).collect()
    }

    fn hedged(&self) -> Option<Hedged> {
        self.exchange.record().hedged
    }
}

#[test]
fn whoever_answers_first_has_the_answer() {
    let mut scene_of = scene(true, &tries(5));
    scene_of.race();
    assert_eq!(scene_of.answers(Lane::Second, 200), Heed::Take);
    scene_of.response();
    assert_eq!(scene_of.hedged(), Some(Hedged::Won));
    assert_eq!(scene_of.attempts(), [(false, true, None), (true, false, None)]);
    assert_eq!(scene_of.exchange.record().retries(), 0);

    let mut scene_of = scene(true, &tries(5));
    scene_of.race();
    assert_eq!(scene_of.answers(Lane::First, 200), Heed::Take);
    scene_of.response();
    assert_eq!(scene_of.hedged(), Some(Hedged::Lost));
    // The one that was answered is the last one.
    assert_eq!(scene_of.attempts(), [(true, true, None), (false, false, None)]);
}

#[test]
fn only_what_may_have_two_effects_and_is_there_whole_is_hedged() {
    let races = |scene: &mut Scene| {
        assert_eq!(scene.pick_again(), Some(Action::Dial));
        scene.exchange.may_race().is_some()
    };
    assert!(races(&mut scene(true, &tries(5))));
    assert!(!races(&mut scene(false, &tries(5))));
    assert!(!races(&mut scene(true, &tries(0))), "switched off");
    let mut gone = scene(true, &tries(5));
    gone.exchange.handle(Input::BodyTaken, gone.now);
    assert!(!races(&mut gone));
    let mut coming = Scene::new(3, true, None);
    coming.exchange.follow(&Arc::new(Tries::from(&tries(5))), 7);
    assert!(!races(&mut coming), "nobody has said that the body is whole");
    // A retry is no first attempt.
    let mut again = scene(true, &tries(5));
    assert!(races(&mut again));
    again.handle(Input::ConnectFailed(ConnectFailure::Refused));
    assert!(!races(&mut again));
}

#[test]
fn an_attempt_that_fails_leaves_the_race_to_the_other_one() {
    let gone = Heard::Ended { app_saw: AppSaw::Maybe, reason: Reason::UpstreamClosed };
    for lane in [Lane::First, Lane::Second] {
        let other = if lane == Lane::First { Lane::Second } else { Lane::First };
        let mut scene_of = scene(true, &tries(5));
        scene_of.race();
        assert_eq!(scene_of.heard(lane, gone), Heed::Drop);
        assert_eq!(scene_of.in_flight(), 1);
        assert_eq!(scene_of.answers(other, 200), Heed::Take);
        scene_of.response();
        let hedge = lane == Lane::Second;
        assert_eq!(
            scene_of.attempts(),
            [(hedge, false, Some(Reason::UpstreamClosed)), (!hedge, false, None)]
        );
        assert_eq!(scene_of.hedged(), Some(if hedge { Hedged::Failed } else { Hedged::Won }));
        // And when that one fails too, there is a third attempt, as after any other failure.
        let mut scene_of = scene(true, &tries(5));
        scene_of.race();
        assert_eq!(scene_of.answers(lane, 503), Heed::Drop);
        assert_eq!(scene_of.heard(other, gone), Heed::Over);
        assert_eq!(scene_of.pick_again(), Some(Action::Dial));
        assert!(scene_of.exchange.may_race().is_none());
        assert_eq!(scene_of.hedged(), Some(Hedged::Failed));
        let mut tried = scene_of.tried();
        tried.sort_unstable();
        assert_eq!(tried, ["product-0", "product-1", "product-2"]);
    }
}

/// The last answer goes to the client, however bad it is, unless there is another attempt.
#[test]
fn the_last_answer_is_judged_as_any_other() {
    let mut scene_of = scene(true, &tries(5));
    scene_of.race();
    assert_eq!(scene_of.answers(Lane::First, 503), Heed::Drop);
    assert_eq!(scene_of.answers(Lane::Second, 503), Heed::Take);
    let now = scene_of.now;
    assert!(answer(503, &[], |head| scene_of.exchange.wants_another(head, now)));
    assert!(scene_of.handle(Input::Withheld { status: 503 }).is_some());
    assert_eq!(scene_of.exchange.record().attempts().filter(|it| it.status == 503).count(), 2);
}

#[test]
fn the_deadline_ends_both() {
    let mut scene_of = scene(true, &tries(5));
    scene_of.race();
    scene_of.now = Instant::ZERO.after(MILLIS * 1_000);
    assert_eq!(scene_of.exchange.poll_race(), Some(scene_of.now));
    assert_eq!(scene_of.exchange.race_rang(scene_of.now), Rang::Over);
    assert_eq!(scene_of.exchange.poll_action(), Some(Action::Reply(Reason::RequestTimeout)));
    assert_eq!(scene_of.in_flight(), 0);
    assert_eq!(scene_of.exchange.app_saw(), AppSaw::Maybe);
}

/// An endpoint that was outrun has neither failed nor shown that it works.
#[test]
fn who_was_outrun_is_not_blamed() {
    for _ in 0..20 {
        let mut scene_of = scene(true, &tries(5));
        scene_of.race();
        assert_eq!(scene_of.answers(Lane::Second, 200), Heed::Take);
        scene_of.response();
        let now = scene_of.now;
        let mut endpoints = scene_of.backends.iter().flat_map(|backend| backend.endpoints());
        assert!(endpoints.all(|endpoint| !endpoint.cooling(now)));
    }
}

#[test]
fn a_rule_can_do_without() {
    let service = tries(5);
    let rule = |hedge| TriesSpec { hedge, ..TriesSpec::default() }.within(Some(&service));
    assert!(Tries::from(&rule(None)).hedges());
    assert!(!Tries::from(&rule(Some(HedgeSpec::NONE))).hedges());
    // Without retries a body is kept for the second attempt all the same.
    let alone = TriesSpec { hedge: service.hedge, ..TriesSpec::default() };
    assert!(alone.concerns_requests());
    assert_eq!(Tries::from(&alone).body_bytes_max(), 64 << 10);
}

/// Whatever happens in whatever order: places are given back, there is one second attempt at most, and exactly the last
/// attempt of the record is the one that was answered.
#[test]
fn any_order_of_events_ends_well() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut spec = tries(5);
        if rng.one_in(2) {
            spec.try_timeout = Some(MILLIS * 30);
        }
        let mut scene = scene(true, &spec);
        let mut answered = false;
        for _ in 0..200 {
            match scene.exchange.action {
                Some(Action::Pick { .. } | Action::Pause { .. }) | None => {
                    if scene.exchange.action.is_none() {
                        break;
                    }
                    if scene.pick_again() == Some(Action::Dial) {
                        if scene.exchange.may_race().is_some() {
                            answered |= run_race(&mut scene, &mut rng, seed);
                        } else {
                            scene.heard(Lane::First, Heard::Connected);
                            answered |= scene.answers(Lane::First, 200) == Heed::Take;
                        }
                        if answered {
                            scene.response();
                        }
                    }
                }
                Some(Action::Reply(_)) => {
                    scene.exchange.poll_action();
                    scene.exchange.ended(scene.now);
                }
                Some(_) => {
                    scene.exchange.poll_action();
                }
            }
        }
        assert_eq!(scene.exchange.state, State::Done, "seed {seed}");
        assert_eq!(scene.in_flight(), 0, "seed {seed}");
        let attempts = scene.attempts();
        assert!(attempts.iter().filter(|it| it.0).count() <= 1, "seed {seed}: {attempts:?}");
        let (last, before) = attempts.split_last().unwrap();
        assert!(before.iter().all(|it| it.1 ^ it.2.is_some()), "seed {seed}: {attempts:?}");
        assert_eq!(!last.1 && last.2.is_none(), answered, "seed {seed}: {attempts:?}");
        let hedges = attempts.iter().any(|it| it.0);
        assert_eq!(
            hedges,
            matches!(scene.hedged(), Some(Hedged::Won | Hedged::Lost | Hedged::Failed)),
            "seed {seed}"
        );
        assert_eq!(scene.hedged() == Some(Hedged::Won), answered && last.0, "seed {seed}: {attempts:?}");
    }
}

/// True when an answer goes on.
fn run_race(scene: &mut Scene, rng: &mut Rng, seed: u64) -> bool {
    scene.exchange.begin_race((!rng.one_in(5)).then_some(MILLIS * 10));
    let mut lanes = [Some(false), None];
    for _ in 0..100 {
        assert_eq!(scene.in_flight() as usize, lanes.iter().flatten().count(), "seed {seed}");
        scene.now = scene.now.after(MILLIS * rng.below(8) as u32);
        if rng.one_in(40) {
            scene.exchange.leave_race(Reason::DownstreamGone);
            scene.exchange.handle(Input::DownstreamGone, scene.now);
            return false;
        }
        if scene.exchange.poll_race().is_some_and(|at| at <= scene.now) {
            match scene.exchange.race_rang(scene.now) {
                Rang::Nothing => panic!("seed {seed}: it was due"),
                Rang::Hedge if rng.one_in(4) => scene.exchange.not_hedged(Hedged::Budget),
                Rang::Hedge => {
                    let permit = scene.other().unwrap();
                    scene.exchange.hedge(permit, scene.now);
                    lanes[1] = Some(false);
                }
                Rang::Drop(lane) => lanes[usize::from(lane == Lane::Second)] = None,
                Rang::Over => return false,
            }
            continue;
        }
        let at = rng.below(2) as usize;
        let Some(connected) = lanes[at] else { continue };
        let lane = if at == 0 { Lane::First } else { Lane::Second };
        let app_saw = if rng.one_in(2) { AppSaw::Maybe } else { AppSaw::Nothing };
        let heed = match (connected, rng.below(8)) {
            (false, 0) => scene.heard(lane, Heard::ConnectFailed(ConnectFailure::Refused)),
            (false, _) => {
                lanes[at] = Some(true);
                scene.heard(lane, Heard::Connected)
            }
            (true, 0) => scene.heard(lane, Heard::Ended { app_saw, reason: Reason::UpstreamClosed }),
            (true, 1) => scene.answers(lane, 200),
            (true, 2) if lanes.iter().flatten().count() == 2 => scene.answers(lane, 503),
            (true, _) => continue,
        };
        match heed {
            Heed::GoOn => {}
            Heed::Drop => lanes[at] = None,
            Heed::Take => return true,
            Heed::Over => return false,
        }
    }
    // Nobody answers any more.
    scene.exchange.leave_race(Reason::RequestTimeout);
    scene.exchange.handle(Input::DownstreamGone, scene.now);
    false
}
