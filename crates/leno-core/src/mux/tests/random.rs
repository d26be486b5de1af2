//! Random operations at two ends over a wire with random pieces, against a model of what each stream carried.
//! A failure prints its seed and step.

use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::pair::{put_fields, request, response};
use crate::edit::Edits;
use crate::head::Fields;
use crate::mux::{AppSaw, Code, Event, HeadIndex, Limits, Meta, Mux, OpenError, Role, SendError, StreamId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

const SEEDS: u64 = 40;
const STEPS: usize = 1500;

#[test]
fn random_operations_agree_with_the_model() {
    let mut finished = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        finished += world.completed;
    }
    assert!(finished > 1_500, "only {finished} streams were completed");
}

/// What one direction of a stream carried.
#[derive(Debug, Default)]
struct Direction {
    head: Option<String>,
    sent: Vec<u8>,
    ended: bool,
    got_head: bool,
    got: Vec<u8>,
    got_end: bool,
}

/// A stream as the test knows it.
#[derive(Debug, Default)]
struct Model {
    /// Ids at both ends.
    ids: [Option<StreamId>; 2],
    /// `[0]` is what the dialer sends.
    ways: [Direction; 2],
    /// Who reset it.
    reset: [bool; 2],
    /// Bytes received and not released, by receiver.
    held: [usize; 2],
}

struct World {
    rng: Rng,
    seed: u64,
    step: usize,
    now: Instant,
    ends: [Mux; 2],
    index: HeadIndex,
    /// Bytes on the way to each end.
    wire: [VecDeque<u8>; 2],
    inbox: [Vec<u8>; 2],
    streams: BTreeMap<u32, Model>,
    drained: bool,
    completed: usize,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("seed {} step {}", self.seed, self.step);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut limits = || Limits {
            streams_max: 128 + rng.below(30) as u32,
            stream_window: (16 << 10) + rng.below(40_000) as u32,
            connection_window: (64 << 10) + rng.below(100_000) as u32,
            output_bytes_max: 8_000 + rng.below(60_000) as u32,
            ..Limits::default()
        };
        let ends = [
            Mux::new(Role::Dialer, limits(), Instant::ZERO),
            Mux::new(Role::Acceptor, limits(), Instant::ZERO),
        ];
        Self {
            rng,
            seed,
            step: 0,
            now: Instant::ZERO,
            ends,
            index: HeadIndex::default(),
            wire: Default::default(),
            inbox: Default::default(),
            streams: BTreeMap::new(),
            drained: false,
            completed: 0,
        }
    }

    fn step(&mut self) {
        self.step += 1;
        self.now = self.now.after(Duration::from_millis(self.rng.below(3)));
        match self.rng.below(100) {
            0..10 => self.open(),
            10..24 => self.respond(),
            24..45 => self.send(),
            45..50 => self.end(),
            50..52 => self.reset(),
            52..65 => self.release(),
            65..66 if self.step > STEPS * 9 / 10 => {
                self.ends[1].drain(self.now);
                self.drained = true;
            }
            66..70 => self.tick(),
            _ => self.carry(),
        }
        for end in &self.ends {
            end.check_invariants();
        }
    }

    fn pick(&mut self) -> Option<u32> {
        // Mostly one of the last streams, which are alive.
        let many = if self.rng.one_in(20) { self.streams.len() } else { self.streams.len().min(40) };
        let back = self.rng.below(many as u64) as usize;
        self.streams.keys().rev().nth(back).copied()
    }

    fn open(&mut self) {
        let path = format!("/{}", self.rng.next_u64());
        let (buf, index) = request("POST", "product", &path, &[("a", "b")]);
        let end = self.rng.one_in(3);
        match self.ends[0].open(&Meta::default(), &index.view(&buf), &Edits::default(), end) {
            Ok(id) => {
                let mut model = Model { ids: [Some(id), None], ..Model::default() };
                model.ways[0].head = Some(path);
                model.ways[0].ended = end;
                assert!(self.streams.insert(id.number(), model).is_none(), "a number was used twice");
            }
            Err(OpenError::Head(bad)) => panic!("a good head was refused: {bad}"),
            Err(_) => {}
        }
    }

    fn respond(&mut self) {
        let Some(number) = self.pick() else { return };
        let model = self.streams.get_mut(&number).expect("picked");
        let Some(id) = model.ids[1] else { return };
        let status = if self.rng.one_in(4) { 103 } else { 200 + self.rng.below(3) as u16 };
        let (buf, index) = response(status, &[("server", "x")]);
        let end = self.rng.one_in(4);
        let answer = self.ends[1].respond(id, &Meta::default(), &index.view(&buf), &Edits::default(), end);
        let dead = model.reset[0] || model.reset[1] || model.ways[1].ended;
        match answer {
            Ok(()) if status == 103 => assert!(!model.reset[1] && model.ways[1].head.is_none()),
            Ok(()) => {
                assert!(!model.reset[1] && model.ways[1].head.is_none());
                model.ways[1].head = Some(format!("{status}"));
                model.ways[1].ended = end;
            }
            Err(SendError::State) => assert!(model.ways[1].head.is_some()),
            Err(SendError::Gone) => assert!(dead),
            Err(SendError::Full) => {}
            Err(SendError::Head(bad)) => panic!("a good head was refused: {bad}"),
        }
    }

    fn send(&mut self) {
        // Now and then who wants to write is asked first, as a shell does.
        let side = self.rng.below(2) as usize;
        let waiting = self.ends[side].next_writable().map(StreamId::number);
        let Some(number) = waiting.or_else(|| self.pick()) else { return };
        let model = self.streams.get_mut(&number).expect("known");
        let Some(id) = model.ids[side] else { return };
        let length = if self.rng.one_in(3) { self.rng.below(40_000) } else { self.rng.below(200) };
        let first = model.ways[side].sent.len();
        let data: Vec<u8> = (0..length as usize).map(|i| body_byte(number, side, first + i)).collect();
        let end = self.rng.one_in(8);
        let way = &mut model.ways[side];
        match self.ends[side].send_data(id, &data, end) {
            Ok(taken) => {
                assert!(way.head.is_some() && !way.ended);
                way.sent.extend_from_slice(&data[..taken]);
                way.ended = end && taken == data.len();
            }
            Err(SendError::State) => assert!(way.head.is_none() || way.ended),
            Err(SendError::Gone) => assert!(way.ended || model.reset[0] || model.reset[1]),
            Err(other) => panic!("{other}"),
        }
    }

    fn end(&mut self) {
        let Some(number) = self.pick() else { return };
        let side = self.rng.below(2) as usize;
        let trailers = self.rng.one_in(2);
        self.end_of(number, side, trailers);
    }

    fn end_of(&mut self, number: u32, side: usize, trailers: bool) {
        let model = self.streams.get_mut(&number).expect("known");
        let Some(id) = model.ids[side] else { return };
        let way = &mut model.ways[side];
        let mut buf = Vec::new();
        let fields = put_fields(&mut buf, &[("x", "y")]);
        let done = if trailers {
            self.ends[side].send_trailers(id, &Fields::new(&buf, &fields))
        } else {
            self.ends[side].send_end(id)
        };
        match done {
            Ok(()) => {
                assert!(way.head.is_some() && !way.ended);
                way.ended = true;
            }
            Err(SendError::Full) => assert!(trailers),
            Err(SendError::State) => assert!(way.head.is_none() || way.ended),
            Err(SendError::Gone) => assert!(way.ended || model.reset[0] || model.reset[1]),
            Err(SendError::Head(bad)) => panic!("good trailers were refused: {bad}"),
        }
    }

    fn reset(&mut self) {
        let Some(number) = self.pick() else { return };
        let side = self.rng.below(2) as usize;
        let model = self.streams.get_mut(&number).expect("picked");
        let Some(id) = model.ids[side].filter(|id| self.ends[side].is_open(*id)) else { return };
        self.ends[side].reset(id, Code::Cancel, AppSaw::Maybe);
        model.reset[side] = true;
        model.held[side] = 0;
    }

    fn release(&mut self) {
        let Some(number) = self.pick() else { return };
        let side = self.rng.below(2) as usize;
        let held = self.streams[&number].held[side];
        let bytes = if self.rng.one_in(2) { held } else { self.rng.below(held as u64 + 1) as usize };
        self.release_of(number, side, bytes);
    }

    fn release_of(&mut self, number: u32, side: usize, bytes: usize) {
        let model = self.streams.get_mut(&number).expect("known");
        let Some(id) = model.ids[side] else { return };
        self.ends[side].release(id, bytes);
        model.held[side] -= bytes;
    }

    fn tick(&mut self) {
        if self.rng.one_in(20) {
            self.now = self.now.after(Duration::from_secs(11));
        }
        for side in 0..2 {
            // Nobody carries bytes while time jumps, so a PING may go unanswered only if one was out before.
            if self.ends[side].poll_timeout().is_some_and(|(_, why)| why == crate::mux::Timeout::Ping) {
                self.ends[side].handle_timeout(self.now).expect("a ping is sent");
            }
        }
    }

    /// Moves some bytes one way.
    fn carry(&mut self) {
        let from = self.rng.below(2) as usize;
        let out = self.ends[from].output();
        let taken =
            if self.rng.one_in(3) { self.rng.below(out.len() as u64 + 1) as usize } else { out.len() };
        self.wire[1 - from].extend(&out[..taken]);
        self.ends[from].output_sent(taken);
        let to = 1 - from;
        let there = self.wire[to].len();
        let some = if self.rng.one_in(3) { self.rng.below(there as u64 + 1) as usize } else { there };
        self.deliver(to, some);
    }

    fn deliver(&mut self, to: usize, bytes: usize) {
        let mut input = core::mem::take(&mut self.inbox[to]);
        input.extend(self.wire[to].drain(..bytes));
        let mut at = 0;
        loop {
            let (used, event) = self.ends[to]
                .receive(self.now, &input[at..], &mut self.index)
                .expect("honest ends do not break rules");
            at += used;
            match event {
                Some(event) => on_event(&mut self.streams, &self.index, to, &event),
                None => break,
            }
        }
        self.inbox[to] = input.split_off(at);
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the world does not come to rest");
            let numbers: Vec<u32> = self.streams.keys().copied().collect();
            for number in numbers {
                for side in 0..2 {
                    let held = self.streams[&number].held[side];
                    self.release_of(number, side, held);
                    if self.streams[&number].ids[side].is_some_and(|id| self.ends[side].is_open(id)) {
                        if side == 1 && self.streams[&number].ways[1].head.is_none() {
                            let id = self.streams[&number].ids[1].expect("checked");
                            let (buf, index) = response(200, &[]);
                            let view = index.view(&buf);
                            let sent =
                                self.ends[1].respond(id, &Meta::default(), &view, &Edits::default(), false);
                            if sent.is_ok() {
                                self.streams.get_mut(&number).expect("known").ways[1].head =
                                    Some("200".into());
                            }
                        }
                        self.end_of(number, side, false);
                    }
                }
            }
            for side in 0..2 {
                while self.ends[side].next_writable().is_some() {}
            }
            let mut moved = false;
            for from in 0..2 {
                let out = self.ends[from].output().to_vec();
                moved |= !out.is_empty();
                self.ends[from].output_sent(out.len());
                self.wire[1 - from].extend(out);
                let all = self.wire[1 - from].len();
                self.deliver(1 - from, all);
            }
            if !moved {
                break;
            }
        }
        assert_eq!([self.ends[0].streams_open(), self.ends[1].streams_open()], [0, 0], "streams are left");
        for (number, model) in &self.streams {
            if model.reset == [false, false] {
                for way in &model.ways {
                    assert!(way.got_head && way.got_end, "stream {number} did not arrive whole");
                    assert!(way.got == way.sent, "stream {number} lost bytes");
                }
                self.completed += 1;
            }
        }
        if self.drained {
            assert!(self.ends[0].is_finished() && self.ends[1].is_finished(), "drained ends are finished");
        }
    }
}

fn body_byte(number: u32, side: usize, at: usize) -> u8 {
    (number as usize ^ (at >> 8).wrapping_mul(31) ^ at ^ (side << 7)) as u8
}

fn on_event(streams: &mut BTreeMap<u32, Model>, index: &HeadIndex, to: usize, event: &Event<'_>) {
    let from = 1 - to;
    match event {
        Event::Request { stream, payload, end, .. } => {
            let model = streams.get_mut(&stream.number()).expect("was opened");
            let path = index.request.view(payload).path;
            assert_eq!(model.ways[0].head.as_deref().map(str::as_bytes), Some(path));
            assert!(to == 1 && model.ids[1].replace(*stream).is_none());
            model.ways[0].got_head = true;
            model.ways[0].got_end = *end;
        }
        Event::Response { stream, end, .. } => {
            let model = streams.get_mut(&stream.number()).expect("was opened");
            assert!(to == 0 && !model.ways[1].got_head && !model.reset[0]);
            if index.response.status != 103 {
                assert_eq!(model.ways[1].head, Some(format!("{}", index.response.status)));
                model.ways[1].got_head = true;
                model.ways[1].got_end = *end;
            }
        }
        Event::Data { stream, data, end } => {
            let model = streams.get_mut(&stream.number()).expect("was opened");
            assert!(!model.reset[to], "data after our reset");
            model.held[to] += data.len();
            let way = &mut model.ways[from];
            assert!(way.got_head && !way.got_end && !data.is_empty());
            let first = way.got.len();
            way.got.extend_from_slice(data);
            assert_eq!(way.sent.get(first..way.got.len()), Some(*data), "other bytes than were sent");
            if *end {
                on_end(model, from);
            }
        }
        Event::Trailers { stream, payload } => {
            let fields = Fields::new(payload, &index.trailers);
            assert_eq!(fields.get_named(b"X"), Some(&b"y"[..]));
            on_end(streams.get_mut(&stream.number()).expect("was opened"), from);
        }
        Event::End { stream } => on_end(streams.get_mut(&stream.number()).expect("was opened"), from),
        Event::Reset { stream, .. } => {
            let model = streams.get_mut(&stream.number()).expect("was opened");
            assert!(model.reset[from], "a reset that nobody sent");
            model.held[to] = 0;
        }
        Event::Draining | Event::Pong { .. } => {}
        Event::Broken { error, .. } | Event::BadRequest { error, .. } => panic!("{error}"),
    }
}

fn on_end(model: &mut Model, from: usize) {
    let way = &mut model.ways[from];
    assert!(way.ended && way.got == way.sent && !way.got_end, "an end too early or twice");
    way.got_end = true;
}

#[test]
fn a_table_of_ten_thousand_streams_finds_each() {
    let mut mux = Mux::new(Role::Dialer, Limits::default(), Instant::ZERO);
    mux.peer.streams_max = 20_000;
    let (buf, index) = request("GET", "a", "/", &[]);
    let mut live: VecDeque<StreamId> = VecDeque::new();
    let mut rng = Rng::new(1);
    for round in 0..40_000 {
        let opened = mux.open(&Meta::default(), &index.view(&buf), &Edits::default(), true).expect("opens");
        live.push_back(opened);
        if round >= 10_000 {
            let at = rng.below(live.len() as u64) as usize;
            let victim = live.swap_remove_back(at).expect("in range");
            mux.reset(victim, Code::Cancel, AppSaw::Maybe);
        }
        let all = mux.output().len();
        mux.output_sent(all);
        if round % 5000 == 0 {
            mux.check_invariants();
        }
    }
    assert_eq!(mux.streams_open(), 10_000);
    assert!(live.iter().all(|id| mux.table.find(id.number()) == Some(*id)));
    assert!(live.iter().all(|id| id.slot() <= 10_000));
}
