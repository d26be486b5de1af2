use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::rng::Rng;
use crate::spec::{Concurrency, ConcurrencyLimit, QUEUE_WAIT};
use crate::time::{Duration, Instant};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn gate(limit: u32) -> Gate {
    Gate::new(&Concurrency::new(ConcurrencyLimit::Fixed(limit)), at(0))
}

fn admitted(gate: &mut Gate, class: Class, now: u64) -> Ticket {
    match gate.enter(class, None, at(now)) {
        Entered::Admitted(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

fn waiting(gate: &mut Gate, class: Class, now: u64) -> Ticket {
    match gate.enter(class, None, at(now)) {
        Entered::Waiting(ticket, _) => ticket,
        other => panic!("{other:?}"),
    }
}

fn rung(gate: &mut Gate) -> Vec<Ticket> {
    core::iter::from_fn(|| gate.ring()).collect()
}

#[test]
fn a_word_is_a_class() {
    for class in Class::ALL {
        assert_eq!(Class::parse(class.word().as_bytes()), Some(class));
        assert_eq!(Class::ALL[class.rank()], class);
    }
    assert_eq!(Class::parse(b"LOW"), Some(Class::Low));
    assert_eq!(Class::parse(b"urgent"), None);
    assert_eq!(Class::of_header(None), Class::Normal);
    assert_eq!(Class::of_header(Some(b"urgent")), Class::Normal);
}

#[test]
fn as_many_enter_as_there_are_places_and_the_others_wait_for_a_time() {
    let mut gate = gate(2);
    let (first, _) = (admitted(&mut gate, Class::Normal, 0), admitted(&mut gate, Class::Normal, 0));
    let Entered::Waiting(third, until) = gate.enter(Class::Normal, None, at(1)) else { panic!() };
    assert_eq!(until, at(1).after(QUEUE_WAIT));
    assert_eq!((gate.taken(), gate.waiting()), (2, 1));
    gate.leave(first, Left::Answered, at(5));
    assert_eq!(rung(&mut gate), [third]);
    assert_eq!((gate.standing(third), gate.taken(), gate.waiting()), (Standing::Admitted, 2, 0));
    assert_eq!(gate.counts().waited, Duration::from_millis(4));
    // Whoever left is not known any more, and leaves once.
    gate.leave(first, Left::Answered, at(6));
    assert_eq!((gate.standing(first), gate.taken()), (Standing::Shed, 2));
}

#[test]
fn whoever_has_waited_long_enough_is_shed() {
    let mut gate = gate(1);
    let _inside = admitted(&mut gate, Class::Normal, 0);
    let waits = waiting(&mut gate, Class::Normal, 0);
    assert_eq!(gate.give_up(waits, at(100)), Standing::Shed);
    assert_eq!(gate.waiting(), 0);
    gate.leave(waits, Left::Otherwise, at(100));
    assert_eq!((gate.taken(), gate.counts().shed), (1, [0, 0, 1, 0]));
    // One whose own clock is late is told when it would be its turn.
    let late = waiting(&mut gate, Class::Normal, 200);
    let inside = Ticket::clone(&_inside);
    gate.leave(inside, Left::Answered, at(400));
    assert_eq!((rung(&mut gate), gate.standing(late)), (vec![late], Standing::Shed));
    assert_eq!(gate.taken(), 0);
}

#[test]
fn nobody_waits_beyond_its_deadline_or_where_there_is_no_line() {
    let mut gate = gate(1);
    let _inside = admitted(&mut gate, Class::Normal, 0);
    assert!(
        matches!(gate.enter(Class::Normal, Some(at(30)), at(10)), Entered::Waiting(_, until) if until == at(30))
    );
    assert_eq!(gate.enter(Class::Normal, Some(at(10)), at(10)), Entered::Shed);
    let spec = Concurrency { queue: Duration::ZERO, ..Concurrency::new(ConcurrencyLimit::Fixed(1)) };
    gate.configure(&spec, at(20));
    assert_eq!(gate.enter(Class::Critical, None, at(20)), Entered::Shed);
}

#[test]
fn the_highest_class_is_next_and_among_equals_the_first() {
    let mut gate = gate(1);
    let mut inside = admitted(&mut gate, Class::Low, 0);
    let order = [Class::Low, Class::Normal, Class::Critical, Class::Normal, Class::High];
    let tickets: Vec<Ticket> = order.iter().map(|class| waiting(&mut gate, *class, 1)).collect();
    let mut served = Vec::new();
    for _ in 0..5 {
        gate.leave(inside, Left::Answered, at(2));
        inside = gate.ring().unwrap();
        served.push(tickets.iter().position(|ticket| *ticket == inside).unwrap());
    }
    assert_eq!(served, [2, 4, 1, 3, 0]);
}

#[test]
fn where_the_line_does_not_empty_the_last_is_next_and_waits_less() {
    let mut gate = gate(1);
    let inside = admitted(&mut gate, Class::Normal, 0);
    let first = waiting(&mut gate, Class::Normal, 1);
    let _second = waiting(&mut gate, Class::Normal, 90);
    let Entered::Waiting(third, until) = gate.enter(Class::Normal, None, at(101)) else { panic!() };
    assert_eq!(until, at(101).after(QUEUE_WAIT / CONGESTED_PART));
    gate.give_up(first, at(101));
    gate.leave(first, Left::Otherwise, at(101));
    gate.leave(inside, Left::Answered, at(110));
    assert_eq!(gate.ring(), Some(third));
}

#[test]
fn a_line_that_is_full_makes_room_for_a_higher_class_alone() {
    let mut gate = gate(1);
    let _inside = admitted(&mut gate, Class::Normal, 0);
    let first = waiting(&mut gate, Class::Low, 0);
    (1..WAITING_MAX).for_each(|_| {
        waiting(&mut gate, Class::Normal, 0);
    });
    assert_eq!(gate.enter(Class::Low, None, at(0)), Entered::Shed);
    waiting(&mut gate, Class::Normal, 0);
    assert_eq!((gate.ring(), gate.standing(first)), (Some(first), Standing::Shed));
    assert_eq!(gate.enter(Class::Normal, None, at(0)), Entered::Shed);
    waiting(&mut gate, Class::Critical, 0);
    assert_eq!(gate.waiting(), WAITING_MAX);
}

#[test]
fn a_stream_holds_no_place() {
    let mut gate = gate(1);
    let spec = Concurrency { queue: STREAM_AFTER, ..Concurrency::new(ConcurrencyLimit::Fixed(1)) };
    gate.configure(&spec, at(0));
    let stream = admitted(&mut gate, Class::Normal, 0);
    gate.headed(stream, at(10));
    let waits = waiting(&mut gate, Class::Normal, 950);
    let next = waiting(&mut gate, Class::Normal, 1_060);
    assert_eq!((gate.ring(), gate.standing(waits), gate.taken()), (Some(waits), Standing::Admitted, 1));
    gate.leave(stream, Left::Answered, at(1_070));
    assert_eq!((gate.taken(), gate.standing(next)), (1, Standing::Waiting));
}

/// A limit that was found to be much too high: what is inside leaves, and nobody enters meanwhile but who is critical.
#[test]
fn a_cut_of_the_limit_is_not_at_the_cost_of_who_is_critical() {
    let auto = |max| Concurrency::new(ConcurrencyLimit::Auto { min: 1, max });
    let mut gate = Gate::new(&auto(3), at(0));
    let inside: Vec<Ticket> = (0..3).map(|_| admitted(&mut gate, Class::Low, 0)).collect();
    gate.configure(&auto(1), at(0));
    let low = waiting(&mut gate, Class::Low, 0);
    let critical = waiting(&mut gate, Class::Critical, 0);
    gate.leave(inside[0], Left::Answered, at(1));
    assert_eq!((rung(&mut gate), gate.taken()), (vec![critical], 3));
    gate.leave(inside[1], Left::Answered, at(2));
    assert_eq!((rung(&mut gate), gate.taken()), (vec![], 2), "the others wait until there are few enough");
    gate.leave(inside[2], Left::Answered, at(3));
    gate.leave(critical, Left::Answered, at(4));
    assert_eq!((rung(&mut gate), gate.taken()), (vec![low], 1));
    // One that somebody has set is kept to by all.
    gate.configure(&Concurrency::new(ConcurrencyLimit::Fixed(3)), at(5));
    let more: Vec<Ticket> = (0..2).map(|_| admitted(&mut gate, Class::Low, 5)).collect();
    gate.configure(&Concurrency::new(ConcurrencyLimit::Fixed(1)), at(5));
    waiting(&mut gate, Class::Critical, 5);
    gate.leave(more[0], Left::Answered, at(6));
    assert_eq!((rung(&mut gate), gate.taken()), (vec![], 2));
}

#[test]
fn more_places_are_handed_out_at_once() {
    let mut gate = gate(1);
    let _inside = admitted(&mut gate, Class::Normal, 0);
    let both = [waiting(&mut gate, Class::Normal, 0), waiting(&mut gate, Class::Normal, 0)];
    gate.configure(&Concurrency::new(ConcurrencyLimit::Fixed(3)), at(1));
    assert_eq!(rung(&mut gate).len(), 2);
    assert!(both.iter().all(|ticket| gate.standing(*ticket) == Standing::Admitted));
    // With fewer, those who are inside stay.
    gate.configure(&Concurrency::new(ConcurrencyLimit::Fixed(1)), at(2));
    assert_eq!(gate.taken(), 3);
    assert!(matches!(gate.enter(Class::Normal, None, at(2)), Entered::Waiting(..)));
}

/// Whatever comes and goes in whatever order: the limit holds exactly, nobody of a lower class is let in while somebody of a
/// higher one waits, nobody is refused while somebody of a lower class is let in, nobody waits longer than it may, and there is
/// no place free while somebody waits.
#[test]
fn any_order_of_events_keeps_the_promises() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let limit = 1 + rng.below(4) as u32;
        let mut gate = gate(limit);
        let (mut inside, mut line): (Vec<Ticket>, Vec<(Ticket, Class, Instant)>) = Default::default();
        let mut now = at(0);
        for step in 0..400 {
            now = now.after(Duration::from_micros(rng.below(8_000)));
            let class = Class::ALL[rng.below(4) as usize];
            let best_before =
                line.iter().filter(|(_, _, until)| now < *until).map(|(_, class, _)| *class).min();
            match rng.below(3) {
                0 => match gate.enter(class, None, now) {
                    Entered::Admitted(ticket) => {
                        assert_eq!(best_before, None, "seed {seed} step {step}: passed by");
                        inside.push(ticket);
                    }
                    Entered::Waiting(ticket, until) => {
                        assert_eq!(gate.taken(), limit);
                        assert!(until <= now.after(QUEUE_WAIT));
                        line.push((ticket, class, until));
                    }
                    Entered::Shed => panic!("seed {seed} step {step}: the line is not full"),
                },
                1 if !inside.is_empty() => {
                    let at = rng.below(inside.len() as u64) as usize;
                    gate.leave(inside.swap_remove(at), Left::Answered, now);
                }
                _ if !line.is_empty() => {
                    // Its time is over, or its client goes away.
                    let at = rng.below(line.len() as u64) as usize;
                    let (ticket, _, until) = line[at];
                    if now >= until {
                        assert_eq!(gate.give_up(ticket, now), Standing::Shed);
                    }
                    if rng.one_in(2) || now >= until {
                        gate.leave(ticket, Left::Otherwise, now);
                        line.swap_remove(at);
                    }
                }
                _ => {}
            }
            while let Some(ticket) = gate.ring() {
                let Some(found) = line.iter().position(|(it, ..)| *it == ticket) else { continue };
                let (_, class, until) = line.swap_remove(found);
                if gate.standing(ticket) == Standing::Admitted {
                    assert!(now < until, "seed {seed} step {step}: too late");
                    let better = line.iter().any(|(_, other, until)| *other < class && now < *until);
                    assert!(!better, "seed {seed} step {step}: a higher class waits");
                    inside.push(ticket);
                } else {
                    assert!(now >= until, "seed {seed} step {step}: refused too early");
                    gate.leave(ticket, Left::Otherwise, now);
                }
            }
            assert_eq!(gate.taken() as usize, inside.len());
            assert!(gate.taken() <= limit, "seed {seed} step {step}");
            assert_eq!(gate.waiting(), line.len());
            assert!(line.is_empty() || gate.taken() == limit, "seed {seed} step {step}: a place is free");
        }
    }
}

#[test]
fn a_limit_is_come_down_to_also_where_all_are_critical() {
    let auto = |max| Concurrency::new(ConcurrencyLimit::Auto { min: 1, max });
    let mut gate = Gate::new(&auto(20), at(0));
    let mut inside: Vec<Ticket> = (0..20).map(|_| admitted(&mut gate, Class::Critical, 0)).collect();
    gate.configure(&auto(4), at(0));
    for now in 1..60 {
        waiting(&mut gate, Class::Critical, now);
        gate.leave(inside.remove(0), Left::Answered, at(now));
        inside.extend(rung(&mut gate).into_iter().filter(|it| gate.standing(*it) == Standing::Admitted));
    }
    assert!(gate.taken() <= 4, "{}", gate.taken());
}
