//! A shell that sends only what is new or what it is told can go on: nothing may be forgotten.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::pair::{Pair, Seen, request, response};
use crate::edit::Edits;
use crate::head::Fields;
use crate::mux::{Limits, Meta, Mux, SendError, StreamId};
use crate::rng::Rng;

/// What one end still has to send on a stream.
struct Left {
    head: bool,
    data: Vec<u8>,
    trailers: bool,
}

#[test]
fn who_waits_is_told() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut limits = || Limits {
            stream_window: (16 << 10) + rng.below(10_000) as u32,
            connection_window: (64 << 10) + rng.below(10_000) as u32,
            output_bytes_max: (4 << 10) + rng.below(30_000) as u32,
            ..Limits::default()
        };
        let mut pair = Pair::with(limits(), limits());
        let mut left: [BTreeMap<StreamId, Left>; 2] = Default::default();
        let (mut opened, mut answered) = (0, 0);
        let goal = 40;
        let (buf, index) = request("POST", "a", "/", &[]);
        for round in 0.. {
            assert!(round < 20_000, "seed {seed}: {} and {} wait for ever", left[0].len(), left[1].len());
            while opened < goal && pair.dialer.mux.can_open() {
                let view = index.view(&buf);
                let id =
                    pair.dialer.mux.open(&Meta::default(), &view, &Edits::new(), false).expect("can open");
                opened += 1;
                let more = Left { head: false, data: body(&mut rng), trailers: rng.one_in(2) };
                go_on(&mut pair.dialer.mux, id, more, &mut left[0]);
            }
            for (number, seen) in pair.acceptor.take_seen() {
                if let Seen::Request { .. } = seen {
                    let id = pair.acceptor.id(number);
                    let more = Left { head: true, data: body(&mut rng), trailers: rng.one_in(2) };
                    go_on(&mut pair.acceptor.mux, id, more, &mut left[1]);
                    answered += 1;
                }
            }
            for (mux, left) in [&mut pair.dialer.mux, &mut pair.acceptor.mux].into_iter().zip(&mut left) {
                while let Some(id) = mux.next_writable() {
                    let more = left.remove(&id).expect("only who waits is told");
                    go_on(mux, id, more, left);
                }
            }
            let open = pair.dialer.mux.streams_open() + pair.acceptor.mux.streams_open();
            if answered == goal && open == 0 {
                break;
            }
            pair.send();
            pair.now = pair.now.after(pair.delay);
            pair.deliver();
        }
        assert!(left.iter().all(BTreeMap::is_empty));
        let ends = pair.dialer.take_seen().into_iter();
        let ends =
            ends.filter(|(_, seen)| matches!(seen, Seen::End | Seen::Trailers(_) | Seen::Data(_, true)));
        assert_eq!(ends.count(), goal, "seed {seed}: every answer ends");
    }
}

fn body(rng: &mut Rng) -> Vec<u8> {
    let length = if rng.one_in(3) { rng.below(60_000) } else { rng.below(500) };
    vec![1; length as usize]
}

/// Sends what fits and keeps the rest.
fn go_on(mux: &mut Mux, id: StreamId, mut more: Left, left: &mut BTreeMap<StreamId, Left>) {
    if more.head {
        let (buf, index) = response(200, &[]);
        match mux.respond(id, &Meta::default(), &index.view(&buf), &Edits::new(), false) {
            Err(SendError::Full) => {
                left.insert(id, more);
                return;
            }
            other => other.expect("responds"),
        }
        more.head = false;
    }
    let taken = mux.send_data(id, &more.data, false).expect("sends");
    more.data.drain(..taken);
    if !more.data.is_empty() {
        left.insert(id, more);
        return;
    }
    if !more.trailers {
        mux.send_end(id).expect("ends");
        return;
    }
    if mux.send_trailers(id, &Fields::default()).is_err() {
        left.insert(id, more);
    }
}
