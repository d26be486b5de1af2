use super::*;

const TIMING: Timing = Timing {
    start_max: Duration::from_secs(30),
    restart_first: Duration::from_millis(500),
    stop_max: Duration::from_secs(5),
};
const CONTROL: MemberId = 0;
const SIDECAR: MemberId = 1;
const APP: MemberId = 2;
const GATEWAY: MemberId = 3;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn shop() -> Supervisor {
    let spec = |rank, after: &[MemberId]| MemberSpec { rank, after: after.to_vec() };
    let members = vec![
        spec(Rank::Control, &[]),
        spec(Rank::Sidecar, &[CONTROL]),
        spec(Rank::App, &[CONTROL]),
        spec(Rank::Gateway, &[SIDECAR, APP]),
    ];
    Supervisor::new(members, TIMING, at(0))
}

fn actions(supervisor: &mut Supervisor) -> Vec<Action> {
    std::iter::from_fn(|| supervisor.poll_action()).collect()
}

fn give(supervisor: &mut Supervisor, input: Input, now: Instant) -> Vec<Action> {
    supervisor.handle(input, now);
    actions(supervisor)
}

fn wait(supervisor: &mut Supervisor, now: Instant) -> Vec<Action> {
    supervisor.handle_timeout(now);
    actions(supervisor)
}

fn running() -> Supervisor {
    let mut supervisor = shop();
    for id in [CONTROL, SIDECAR, APP, GATEWAY] {
        supervisor.handle(Input::Ready(id), at(100));
    }
    assert_eq!(actions(&mut supervisor).last(), Some(&Action::Ready));
    supervisor
}

#[test]
fn each_member_starts_when_those_before_it_are_ready() {
    let mut shop = shop();
    assert_eq!(actions(&mut shop), [Action::Launch(CONTROL)]);
    assert_eq!(give(&mut shop, Input::Ready(CONTROL), at(1)), [Action::Launch(SIDECAR), Action::Launch(APP)]);
    assert_eq!(give(&mut shop, Input::Ready(APP), at(2)), []);
    assert_eq!(give(&mut shop, Input::Ready(SIDECAR), at(3)), [Action::Launch(GATEWAY)]);
    assert_eq!(give(&mut shop, Input::Ready(GATEWAY), at(4)), [Action::Ready]);
    assert_eq!(shop.poll_timeout(), None);
}

#[test]
fn a_member_that_exits_is_restarted_with_a_growing_delay() {
    let mut shop = running();
    let mut now = 1_000;
    for delay in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let delay_time = Duration::from_millis(delay);
        assert_eq!(give(&mut shop, Input::Exited(APP), at(now)), [Action::Restarting(APP, delay_time)]);
        assert_eq!(shop.condition(APP), Condition::Down);
        assert_eq!(shop.poll_timeout().map(|(when, _)| when), Some(at(now + delay)));
        assert_eq!(wait(&mut shop, at(now + delay - 1)), []);
        now += delay;
        assert_eq!(wait(&mut shop, at(now)), [Action::Launch(APP)]);
    }
    assert_eq!(shop.restarts(APP), 8);
}

#[test]
fn a_member_that_ran_well_is_restarted_quickly_again() {
    let mut shop = running();
    give(&mut shop, Input::Exited(APP), at(1_000));
    wait(&mut shop, at(1_500));
    give(&mut shop, Input::Ready(APP), at(1_600));
    let first = Duration::from_millis(500);
    assert_eq!(give(&mut shop, Input::Exited(APP), at(11_500)), [Action::Restarting(APP, first)]);
}

#[test]
fn a_restarted_member_is_not_announced_as_a_ready_mesh() {
    let mut shop = running();
    give(&mut shop, Input::Exited(CONTROL), at(1_000));
    assert_eq!(wait(&mut shop, at(1_500)), [Action::Launch(CONTROL)]);
    assert_eq!(give(&mut shop, Input::Ready(CONTROL), at(1_600)), [Action::Recovered(CONTROL)]);
    assert_eq!(give(&mut shop, Input::Ready(CONTROL), at(1_700)), []);
    assert_eq!(shop.condition(CONTROL), Condition::Up);
}

#[test]
fn three_exits_end_a_start() {
    let mut shop = shop();
    shop.handle(Input::Ready(CONTROL), at(1));
    for now in [10, 600] {
        shop.handle(Input::Exited(APP), at(now));
        shop.handle_timeout(at(now + 1_000));
    }
    actions(&mut shop);
    assert_eq!(
        give(&mut shop, Input::Exited(APP), at(2_000)),
        [Action::GaveUp(GaveUp::Exits(APP)), Action::Terminate(SIDECAR)]
    );
    assert_eq!(give(&mut shop, Input::Exited(SIDECAR), at(2_100)), [Action::Terminate(CONTROL)]);
    assert_eq!(give(&mut shop, Input::Exited(CONTROL), at(2_200)), [Action::Stopped]);
    assert_eq!(shop.poll_timeout(), None);
}

#[test]
fn a_member_that_cannot_start_ends_a_start_at_once() {
    let mut shop = shop();
    actions(&mut shop);
    assert_eq!(
        give(&mut shop, Input::CannotStart(CONTROL), at(5)),
        [Action::GaveUp(GaveUp::CannotStart(CONTROL)), Action::Stopped]
    );
}

#[test]
fn a_running_mesh_survives_a_member_that_cannot_start() {
    let mut shop = running();
    shop.handle(Input::Exited(APP), at(1_000));
    shop.handle_timeout(at(1_500));
    actions(&mut shop);
    let second = Duration::from_secs(1);
    assert_eq!(give(&mut shop, Input::CannotStart(APP), at(1_500)), [Action::Restarting(APP, second)]);
}

#[test]
fn the_deadline_names_who_is_not_ready() {
    let mut shop = shop();
    shop.handle(Input::Ready(CONTROL), at(1));
    shop.handle(Input::Ready(SIDECAR), at(2));
    actions(&mut shop);
    assert_eq!(wait(&mut shop, at(29_999)), []);
    assert_eq!(
        wait(&mut shop, at(30_000)),
        [Action::GaveUp(GaveUp::Deadline(vec![APP, GATEWAY])), Action::Terminate(SIDECAR)]
    );
}

#[test]
fn stopping_goes_from_the_gateway_to_the_control_plane() {
    let mut shop = running();
    assert_eq!(give(&mut shop, Input::Stop, at(1_000)), [Action::Terminate(GATEWAY)]);
    assert_eq!(give(&mut shop, Input::Exited(GATEWAY), at(1_001)), [Action::Terminate(SIDECAR)]);
    assert_eq!(give(&mut shop, Input::Exited(SIDECAR), at(1_002)), [Action::Terminate(APP)]);
    assert_eq!(give(&mut shop, Input::Exited(APP), at(1_003)), [Action::Terminate(CONTROL)]);
    assert_eq!(give(&mut shop, Input::Exited(CONTROL), at(1_004)), [Action::Stopped]);
    assert_eq!(give(&mut shop, Input::Stop, at(1_005)), []);
}

#[test]
fn one_that_does_not_end_is_killed_and_the_others_wait_for_it() {
    let mut shop = running();
    shop.handle(Input::Stop, at(1_000));
    actions(&mut shop);
    assert_eq!(wait(&mut shop, at(5_999)), []);
    assert_eq!(wait(&mut shop, at(6_000)), [Action::Kill(GATEWAY)]);
    assert_eq!(wait(&mut shop, at(7_000)), []);
    assert_eq!(give(&mut shop, Input::Exited(GATEWAY), at(7_000)), [Action::Terminate(SIDECAR)]);
}

#[test]
fn a_second_interrupt_kills_everything_that_is_left() {
    let mut shop = running();
    shop.handle(Input::Stop, at(1_000));
    actions(&mut shop);
    let mut killed = give(&mut shop, Input::StopNow, at(1_100));
    killed.sort_by_key(|action| format!("{action:?}"));
    assert_eq!(killed, [CONTROL, SIDECAR, APP, GATEWAY].map(Action::Kill));
    for id in [CONTROL, SIDECAR, APP] {
        assert_eq!(give(&mut shop, Input::Exited(id), at(1_200)), []);
    }
    assert_eq!(give(&mut shop, Input::Exited(GATEWAY), at(1_200)), [Action::Stopped]);
}

#[test]
fn one_that_exits_before_its_turn_to_stop_stays_down() {
    let mut shop = running();
    shop.handle(Input::Stop, at(1_000));
    actions(&mut shop);
    assert_eq!(give(&mut shop, Input::Exited(APP), at(1_100)), []);
    assert_eq!(wait(&mut shop, at(2_000)), []);
    assert_eq!(shop.condition(APP), Condition::Stopped);
}

#[test]
fn stopping_forgets_what_waits_for_its_restart() {
    let mut shop = running();
    shop.handle(Input::Exited(APP), at(1_000));
    shop.handle(Input::Stop, at(1_100));
    actions(&mut shop);
    assert_eq!(wait(&mut shop, at(1_500)), []);
    assert_eq!(shop.condition(APP), Condition::Stopped);
}

/// Random facts at random times never make it stuck: once stopped and every process gone, it says so, and it
/// never starts anything after it was told to stop.
#[test]
fn whatever_happens_it_stops() {
    for seed in 0..500 {
        let mut rng = leno_core::rng::Rng::new(seed);
        let mut shop = shop();
        assert_eq!(actions(&mut shop), [Action::Launch(CONTROL)]);
        let mut alive = [true, false, false, false];
        let mut now = 0;
        let mut stopping = false;
        for step in 0..200 {
            now += rng.below(700);
            let id = rng.below(4) as usize;
            let input = match rng.below(if step > 100 { 6 } else { 5 }) {
                0 | 1 if alive[id] => Some(Input::Ready(id)),
                2 if alive[id] => Some(Input::Exited(id)),
                3 if alive[id] && rng.one_in(10) => Some(Input::CannotStart(id)),
                5 => Some(Input::Stop),
                _ => None,
            };
            match input {
                Some(input) => shop.handle(input, at(now)),
                None => shop.handle_timeout(at(now)),
            }
            stopping |= input == Some(Input::Stop);
            if let Some(Input::Exited(id) | Input::CannotStart(id)) = input {
                alive[id] = false;
            }
            while let Some(action) = shop.poll_action() {
                match action {
                    Action::Launch(id) => {
                        assert!(!stopping, "seed {seed} step {step}: launched after stop");
                        assert!(!alive[id], "seed {seed} step {step}: launched twice");
                        alive[id] = true;
                    }
                    Action::GaveUp(_) => stopping = true,
                    _ => {}
                }
            }
        }
        shop.handle(Input::Stop, at(now));
        let mut stopped = shop.phase == Phase::Stopped;
        // Those that were asked before and are still there.
        for (id, alive) in alive.into_iter().enumerate() {
            if alive && shop.condition(id) == Condition::Stopping {
                shop.handle(Input::Exited(id), at(now));
            }
        }
        for _ in 0..20 {
            while let Some(action) = shop.poll_action() {
                match action {
                    Action::Terminate(id) | Action::Kill(id) => shop.handle(Input::Exited(id), at(now)),
                    Action::Stopped => stopped = true,
                    _ => {}
                }
            }
            now += 5_000;
            shop.handle_timeout(at(now));
        }
        assert!(stopped, "seed {seed}: never stopped: {shop:?}");
    }
}
