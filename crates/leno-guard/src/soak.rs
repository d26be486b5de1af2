//! The soak test: the real binary at saturation, with clients that leave, upstreams that reset, and another
//! configuration every second. It ends with a verdict: no wrong answer, memory flat, no descriptor left open.

mod client;
mod mesh;
mod script;
mod tally;
mod upstream;
mod wire;

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use leno_core::rng::Rng;
use tokio::task::LocalSet;

use self::client::Shared;
use self::mesh::Mesh;
use self::script::Bodies;
use self::tally::Tally;

/// What is typed.
pub(crate) struct Options {
    /// How long there is load.
    pub(crate) seconds: u64,
    /// Of clients and of what they ask for.
    pub(crate) seed: u64,
    /// Clients of the plain proxy, and as many of the pair.
    pub(crate) clients: u64,
}

/// Between two lines.
const REPORT: Duration = Duration::from_secs(10);
/// Between two versions of the mesh file.
const SWAP: Duration = Duration::from_secs(1);
/// How long the first right answer of each path may take.
const FIRST: Duration = Duration::from_secs(30);
/// How long descriptors may take to be closed once nobody asks any more: workers look at idle connections every 5 s.
const CLOSE: Duration = Duration::from_secs(30);
/// Memory may grow by this share from the first third of the samples to the last.
const GROWTH: f64 = 0.10;
/// Fewer samples say nothing about memory.
const SAMPLES_MIN: usize = 12;

/// A proxy must have held at least one generation for so many versions; most versions are several.
const FOLLOWED_ONE_IN: u64 = 4;

static STOP: AtomicBool = AtomicBool::new(false);

/// Memory and descriptors of one process over time.
#[derive(Default)]
struct Watched {
    resident: Vec<u64>,
    descriptors_first: usize,
    generation_first: Option<u64>,
}

/// Runs it; true when the verdict is good.
pub(crate) fn run(leno: &Path, options: &Options) -> Result<bool, String> {
    crate::load::raise_limit();
    let (upstreams, hang_up) = upstream::start(3)?;
    let [app, first, second] = upstreams[..] else { return Err("not enough upstreams".into()) };
    let mut mesh = Mesh::start(leno, app, [first, second])?;
    let tally: &'static Tally = Box::leak(Box::default());
    let paths = [("plain", mesh.plain), ("pair", mesh.pair)];
    for (name, entry) in paths {
        client::await_answer(name, entry, FIRST)?;
    }
    let mut watched: Vec<Watched> = Vec::new();
    for process in &mesh.processes {
        let generation_first = process.generation();
        watched.push(Watched {
            descriptors_first: process.descriptors(),
            generation_first,
            ..Watched::default()
        });
    }
    let Options { seconds, seed, clients } = *options;
    println!("soak: {seconds} s, {clients} clients for each of {} paths, seed {seed}", paths.len());
    let load = std::thread::spawn(move || clients_until_stopped(seed, clients, paths, tally));

    let begin = Instant::now();
    let (mut reported, mut swaps, mut before) = (begin, 0, 0);
    let mut ended = None;
    while begin.elapsed() < Duration::from_secs(seconds) && ended.is_none() {
        std::thread::sleep(SWAP);
        swaps += 1;
        mesh.write(swaps)?;
        ended = mesh.ended();
        if reported.elapsed() >= REPORT.min(Duration::from_secs(seconds) / 4) {
            let counts = tally.read();
            let rate = (counts.requests() - before) as f64 / reported.elapsed().as_secs_f64();
            (reported, before) = (Instant::now(), counts.requests());
            let mut line = format!("{:>5} s {:>9} requests {rate:>7.0}/s", begin.elapsed().as_secs(), before);
            for (process, watched) in mesh.processes.iter().zip(&mut watched) {
                let (resident, open) = (process.resident_kib(), process.descriptors());
                watched.resident.push(resident);
                line += &format!("  {} {resident} KiB {open} open", process.name);
            }
            println!("{line}  wrong {}", counts.wrong());
        }
    }
    STOP.store(true, Relaxed);
    load.join().map_err(|_| "the clients have panicked")?;
    hang_up.notify_waiters();

    let counts = tally.read();
    println!("\n{} requests, {swaps} configurations", counts.requests());
    for line in counts.lines() {
        println!("{line}");
    }
    let mut problems = Vec::new();
    problems.extend(ended);
    if counts.wrong() > 0 {
        problems.push(format!("{} requests came to what must not happen", counts.wrong()));
    }
    if counts.right == 0 {
        problems.push("no request was answered".to_owned());
    }
    for (process, watched) in mesh.processes.iter().zip(&watched) {
        problems.extend(memory(process.name, &watched.resident));
        let deadline = Instant::now() + CLOSE;
        while process.descriptors() > watched.descriptors_first && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
        }
        let (open, first) = (process.descriptors(), watched.descriptors_first);
        println!("{}: {open} descriptors open, {first} before the load", process.name);
        if open > first {
            problems.push(format!("{} has {open} descriptors open, {first} before the load", process.name));
        }
        if let (Some(first), Some(last)) = (watched.generation_first, process.generation()) {
            let followed = last.saturating_sub(first);
            println!("{}: {followed} new configurations held", process.name);
            // Else requests ran under one configuration, and the test shows less than it says.
            if followed < swaps / FOLLOWED_ONE_IN {
                problems.push(format!("{} held {followed} of {swaps} configurations", process.name));
            }
        }
        problems
            .extend(process.complaints().into_iter().map(|line| format!("{} logged {line}", process.name)));
    }
    for problem in &problems {
        println!("problem: {problem}");
    }
    println!("verdict: {}", if problems.is_empty() { "good" } else { "bad" });
    Ok(problems.is_empty())
}

/// All clients, in this thread, until the end of the load.
fn clients_until_stopped(
    seed: u64,
    clients: u64,
    paths: [(&'static str, std::net::SocketAddr); 2],
    tally: &'static Tally,
) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    LocalSet::new().block_on(&runtime, async move {
        let bodies = Rc::new(Bodies::new());
        // Drawn, not counted up: neighbouring seeds would give clients the same nonces.
        let mut seeds = Rng::new(seed);
        let mut tasks = Vec::new();
        for (name, entry) in paths {
            let shared = Rc::new(Shared { name, entry, stop: &STOP, tally, bodies: bodies.clone() });
            for _ in 0..clients {
                let rng = Rng::new(seeds.next_u64());
                tasks.push(tokio::task::spawn_local(client::run(shared.clone(), rng)));
            }
        }
        for task in tasks {
            if let Err(error) = task.await {
                tally.forbidden("a client's panic", || error.to_string());
            }
        }
    });
}

/// What is wrong with a process's memory over time; the first tenth of the samples is warming up.
fn memory(name: &str, resident: &[u64]) -> Option<String> {
    let steady = resident.get(resident.len() / 10..).unwrap_or(&[]);
    if steady.len() < SAMPLES_MIN {
        println!("{name}: too few samples for a verdict on memory: {resident:?} KiB");
        return None;
    }
    let third = steady.len() / 3;
    let median = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    let (first, last) = (
        median(steady.get(..third).unwrap_or(&[])),
        median(steady.get(steady.len() - third..).unwrap_or(&[])),
    );
    println!("{name}: median {first} KiB in the first third, {last} KiB in the last");
    (last as f64 > first as f64 * (1.0 + GROWTH))
        .then(|| format!("{name} has grown from {first} KiB in the first third to {last} KiB in the last"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_that_grows_is_a_problem() {
        let flat: Vec<u64> = (0..60).map(|at| 10_000 + at % 7).collect();
        let growing: Vec<u64> = (0..60).map(|at| 10_000 + 100 * at).collect();
        assert_eq!(super::memory("flat", &flat), None);
        assert!(super::memory("growing", &growing).is_some());
    }
}
