use std::vec::Vec;

use super::{
    BLOCK_BYTES_MAX, CONTINUATIONS_MAX, EMPTIES, Fault, Flood, Guard, HEADER_BYTES, PINGS, PREFACE,
    PRIORITIES, RESETS, Role, SENT_BYTES_PER_WINDOW_UPDATE, SETTING_BYTES, SETTINGS, Stop, WINDOW_UPDATES,
};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut out = Vec::from(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// What a connection begins with.
fn beginning(role: Role) -> Vec<u8> {
    let preface: &[u8] = if role == Role::Server { PREFACE } else { &[] };
    [preface, &frame(4, 0, 0, &[])].concat()
}

/// A guard after the beginning, which counts for nothing.
fn begun(role: Role) -> Guard {
    let mut guard = Guard::new(role, Instant::ZERO);
    guard.receive(&beginning(role), Instant::ZERO).unwrap();
    guard.settings.give_back(1);
    guard
}

fn server() -> Guard {
    begun(Role::Server)
}

/// The fault alone.
fn receive(guard: &mut Guard, bytes: &[u8], now: Instant) -> Result<(), Fault> {
    guard.receive(bytes, now).map_err(|stop| stop.fault)
}

#[test]
fn each_kind_has_a_burst_and_a_rate() {
    let rows: [(Flood, Vec<u8>, (u32, u32)); 6] = [
        (Flood::Reset, frame(3, 0, 1, &[0; 4]), RESETS),
        (Flood::Ping, frame(6, 0, 0, &[0; 8]), PINGS),
        (Flood::Settings, frame(4, 0, 0, &[]), SETTINGS),
        (Flood::Priority, frame(2, 0, 1, &[0; 5]), PRIORITIES),
        (Flood::WindowUpdate, frame(8, 0, 0, &[0, 0, 0, 1]), WINDOW_UPDATES),
        (Flood::Empty, frame(0, 0, 1, &[]), EMPTIES),
    ];
    for (flood, bytes, (burst, rate)) in rows {
        let mut guard = server();
        for at in 0..burst {
            assert_eq!(receive(&mut guard, &bytes, Instant::ZERO), Ok(()), "{flood} number {at}");
        }
        assert_eq!(receive(&mut guard.clone(), &bytes, Instant::ZERO), Err(Fault::Flood(flood)));
        let later = Instant::ZERO.after(Duration::from_secs(1));
        for at in 0..rate {
            assert_eq!(guard.receive(&bytes, later), Ok(()), "{flood} number {at} a second later");
        }
        assert_eq!(receive(&mut guard, &bytes, later), Err(Fault::Flood(flood)));
    }
}

#[test]
fn what_carries_something_or_answers_is_not_counted() {
    let rows = [
        frame(0, 1, 1, &[]),
        frame(0, 0, 1, b"x"),
        frame(1, 4, 1, &[0x82]),
        frame(4, 1, 0, &[]),
        frame(6, 1, 0, &[0; 8]),
    ];
    for bytes in rows {
        let mut guard = server();
        for _ in 0..20_000 {
            assert_eq!(guard.receive(&bytes, Instant::ZERO), Ok(()), "{bytes:?}");
        }
    }
}

#[test]
fn a_header_block_has_limits_of_its_own() {
    let mut guard = server();
    guard.receive(&frame(1, 0, 1, &[0x82]), Instant::ZERO).unwrap();
    for _ in 0..CONTINUATIONS_MAX {
        guard.receive(&frame(9, 0, 1, &[]), Instant::ZERO).unwrap();
    }
    let more = frame(9, 0, 1, &[]);
    assert_eq!(receive(&mut guard, &more, Instant::ZERO), Err(Fault::Flood(Flood::Continuation)));
    let mut guard = server();
    let half = std::vec![0; BLOCK_BYTES_MAX / 2];
    guard.receive(&frame(1, 0, 1, &half), Instant::ZERO).unwrap();
    guard.receive(&frame(9, 0, 1, &half), Instant::ZERO).unwrap();
    let more = frame(9, 0, 1, b"x");
    let flood = receive(&mut guard.clone(), &more, Instant::ZERO);
    assert_eq!(flood, Err(Fault::Flood(Flood::HeaderBytes)));
    // The next block begins at nothing.
    guard.receive(&frame(9, 4, 1, b""), Instant::ZERO).unwrap();
    assert_eq!(guard.receive(&frame(1, 4, 3, &half), Instant::ZERO), Ok(()));
}

#[test]
fn what_we_send_allows_window_updates() {
    let mut guard = server();
    for _ in 0..5 * WINDOW_UPDATES.0 {
        guard.sent(SENT_BYTES_PER_WINDOW_UPDATE);
        assert_eq!(guard.receive(&frame(8, 0, 0, &[0, 0, 0, 64]), Instant::ZERO), Ok(()));
    }
}

#[test]
fn a_server_may_cut_off_what_we_opened() {
    let mut guard = begun(Role::Client);
    for _ in 0..5 * RESETS.0 {
        assert_eq!(guard.receive(&frame(3, 0, 1, &[0; 4]), Instant::ZERO), Ok(()));
    }
}

#[test]
fn a_goaway_names_the_last_stream_and_settings_settle() {
    let mut guard = Guard::new(Role::Client, Instant::ZERO);
    assert!(!guard.is_settled());
    assert_eq!(guard.unfinished(), Some(Instant::ZERO));
    guard.receive(&frame(4, 0, 0, &[]), Instant::ZERO).unwrap();
    assert!(guard.is_settled());
    assert_eq!(guard.unfinished(), None);
    assert_eq!(guard.goaway(), None);
    let goaway = |last: u32| frame(7, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"bye"].concat());
    guard.receive(&goaway(0x7fff_ffff), Instant::ZERO).unwrap();
    assert_eq!(guard.goaway(), Some(0x7fff_ffff));
    guard.receive(&goaway(0x8000_0007), Instant::ZERO).unwrap();
    assert_eq!(guard.goaway(), Some(7));
    guard.receive(&goaway(9), Instant::ZERO).unwrap();
    assert_eq!(guard.goaway(), Some(7));
}

#[test]
fn a_connection_begins_with_settings() {
    for role in [Role::Server, Role::Client] {
        let preface: &[u8] = if role == Role::Server { PREFACE } else { &[] };
        for first in [frame(6, 0, 0, &[0; 8]), frame(4, 1, 0, &[]), frame(1, 5, 1, &[0x82])] {
            let mut guard = Guard::new(role, Instant::ZERO);
            let stop = guard.receive(&[preface, &first].concat(), Instant::ZERO);
            assert_eq!(stop, Err(Stop { fault: Fault::NoSettings, before: preface.len() }), "{first:?}");
        }
    }
}

#[test]
fn lengths_are_those_of_their_kinds() {
    // PRIORITY, RST_STREAM, SETTINGS, its ACK, PING, GOAWAY, WINDOW_UPDATE.
    let rows: [(u8, u8, &[usize], &[usize]); 7] = [
        (2, 0, &[5], &[0, 4, 6]),
        (3, 0, &[4], &[0, 3, 5]),
        (4, 0, &[0, 6, 36], &[1, 5, 7]),
        (4, 1, &[0], &[1, 6]),
        (6, 0, &[8], &[0, 7, 9]),
        (7, 0, &[8, 100], &[0, 7]),
        (8, 0, &[4], &[0, 3, 5]),
    ];
    for (kind, flags, good, bad) in rows {
        for length in good {
            let bytes = frame(kind, flags, 0, &std::vec![0; *length]);
            assert_eq!(server().receive(&bytes, Instant::ZERO), Ok(()), "{kind} of {length}");
        }
        for length in bad {
            let before = frame(6, 1, 0, &[0; 8]);
            let bytes = [&before[..], &frame(kind, flags, 0, &std::vec![0; *length])].concat();
            let stop = Stop { fault: Fault::Length, before: before.len() };
            assert_eq!(server().receive(&bytes, Instant::ZERO), Err(stop), "{kind} of {length}");
        }
    }
}

#[test]
fn windows_have_31_bits() {
    let setting = |name: u16, value: u32| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let most = setting(4, (1 << 31) - 1);
    assert_eq!(server().receive(&frame(4, 0, 0, &most), Instant::ZERO), Ok(()));
    // The same number is in order for what is no window.
    assert_eq!(server().receive(&frame(4, 0, 0, &setting(6, u32::MAX)), Instant::ZERO), Ok(()));
    let bytes = frame(4, 0, 0, &[most, setting(4, 1 << 31)].concat());
    let stop = Stop { fault: Fault::Window, before: HEADER_BYTES + SETTING_BYTES };
    assert_eq!(server().receive(&bytes, Instant::ZERO), Err(stop));
}

#[test]
fn a_header_block_is_to_be_finished() {
    let mut guard = server();
    let at = |second| Instant::ZERO.after(Duration::from_secs(second));
    guard.receive(&frame(1, 1, 1, &[0x82]), at(1)).unwrap();
    guard.receive(&frame(9, 0, 1, &[0x86]), at(2)).unwrap();
    assert_eq!(guard.unfinished(), Some(at(1)));
    guard.receive(&frame(9, 4, 1, &[0x84]), at(3)).unwrap();
    assert_eq!(guard.unfinished(), None);
    guard.receive(&frame(1, 5, 3, &[0x82]), at(4)).unwrap();
    assert_eq!(guard.unfinished(), None);
}

/// Whole frames and parts of them, of every kind, in pieces of every size: the verdict, and after how many bytes it comes, are
/// those of one byte at a time.
#[test]
fn arbitrary_splits_count_the_same() {
    for seed in 0..300_u64 {
        let mut rng = Rng::new(seed);
        let role = if seed.is_multiple_of(2) { Role::Server } else { Role::Client };
        let mut bytes = beginning(role);
        let favourite = rng.next_u64() as u8 % 12;
        for _ in 0..1500 {
            let kind = if rng.next_u64().is_multiple_of(4) { rng.next_u64() as u8 % 12 } else { favourite };
            let possible = match kind {
                2 => 5,
                3 | 8 => 4,
                4 => [0, 6, 60][rng.next_u64() as usize % 3],
                6 | 7 => 8,
                _ => [0, 0, 1, 4, 8, 300][rng.next_u64() as usize % 6],
            };
            // Now and then one that is wrong, where there is one.
            let length = if rng.next_u64().is_multiple_of(1000) { 7 } else { possible };
            let flags = if kind == 4 { 0 } else { [0, 1, 4][rng.next_u64() as usize % 3] };
            bytes.extend(frame(kind, flags, 1, &std::vec![0; length]));
        }
        let verdict = |mut next: std::boxed::Box<dyn FnMut() -> usize>| {
            let mut guard = Guard::new(role, Instant::ZERO);
            let mut at = 0;
            while at < bytes.len() {
                let end = (at + next().max(1)).min(bytes.len());
                if let Err(stop) = guard.receive(&bytes[at..end], Instant::ZERO) {
                    assert!(at + stop.before < end);
                    return (Some(stop.fault), guard.is_settled(), guard.goaway());
                }
                at = end;
            }
            (None, guard.is_settled(), guard.goaway())
        };
        let whole = verdict(std::boxed::Box::new(|| usize::MAX / 2));
        let single = verdict(std::boxed::Box::new(|| 1));
        assert_eq!(whole, single, "seed {seed}");
        for round in 0..4 {
            let mut sizes = Rng::new(seed * 10 + round);
            let split = verdict(std::boxed::Box::new(move || sizes.next_u64() as usize % 50));
            assert_eq!(whole, split, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn any_bytes_at_all_are_taken() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut guard = Guard::new(Role::Server, Instant::ZERO);
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..rng.next_u64() % 64).map(|_| rng.next_u64() as u8).collect();
            if guard.receive(&bytes, Instant::ZERO).is_err() {
                break;
            }
        }
    }
}
