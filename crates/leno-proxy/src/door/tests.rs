use std::sync::atomic::{AtomicU32, Ordering};

use leno_core::snapshot::Snapshot;

use super::*;

fn door(limit: u32, queue: Duration) -> Arc<Door> {
    let door = Arc::<Door>::default();
    let spec = Concurrency { queue, ..Concurrency::new(ConcurrencyLimit::Fixed(limit)) };
    door.follow(&snapshot(2, Some(spec)), Instant::ZERO);
    door
}

fn snapshot(generation: u64, concurrency: Option<Concurrency>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    (snapshot.generation, snapshot.concurrency) = (generation, concurrency);
    snapshot
}

/// Threads that enter, wait, work and leave as fast as they can: never more inside than there are places, everybody gets one,
/// and at the end none is taken.
#[test]
fn the_limit_holds_over_threads_and_everybody_is_woken() {
    const LIMIT: u32 = 3;
    let door = door(LIMIT, Duration::from_secs(60));
    let (inside, most, served) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let clock = Clock::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for _ in 0..300 {
                    let place = match door.enter(Class::Normal, None, clock.now(), clock) {
                        Answer::Admitted(place) => place.unwrap(),
                        Answer::Waiting(place, _) => {
                            let turn =
                                async { tokio::time::timeout(Duration::from_secs(30), place.turn()).await };
                            assert_eq!(runtime.block_on(turn).unwrap(), Standing::Admitted);
                            place
                        }
                        Answer::Shed => panic!("nobody has to be refused"),
                    };
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((served.into_inner(), most.into_inner()), (8 * 300, LIMIT));
    let view = door.view().unwrap();
    assert_eq!((view.taken, view.waiting), (0, 0));
}

#[test]
fn without_a_declaration_everybody_passes_and_those_who_wait_are_let_in() {
    let door = door(1, Duration::from_secs(60));
    let clock = Clock::start();
    let Answer::Admitted(Some(inside)) = door.enter(Class::Normal, None, clock.now(), clock) else {
        panic!()
    };
    let Answer::Waiting(waits, _) = door.enter(Class::Normal, None, clock.now(), clock) else { panic!() };
    // A worker that is late with what was before changes nothing.
    door.follow(&snapshot(1, None), clock.now());
    assert_eq!((door.view().unwrap().waiting, door.view().unwrap().taken), (1, 1));
    door.follow(&snapshot(3, None), clock.now());
    assert_eq!(waits.give_up(clock.now()), Standing::Admitted);
    assert!(matches!(door.enter(Class::Low, None, clock.now(), clock), Answer::Admitted(Some(_))));
    assert!(door.view().is_none());
    let mut json = String::new();
    door.write_json(&mut json);
    assert_eq!(json, "null");
    drop(inside);
}
