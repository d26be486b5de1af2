//! Allocations of the workers per request, once everything has grown.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::allocator;
use crate::load::Load;
use crate::proxies::{Kind, Proxies};
use crate::record::Measured;

/// One kind of traffic.
struct Case {
    name: &'static str,
    kind: Kind,
    connections: usize,
    /// The command without its number of turns and what follows it.
    shape: &'static str,
    /// Bytes of an answer; of `calls`, calls at a time on each connection.
    rest: usize,
}

const CASES: &[Case] = &[
    Case { name: "plain_1", kind: Kind::Plain, connections: 1, shape: "sequence", rest: 128 },
    Case { name: "plain_64", kind: Kind::Plain, connections: 64, shape: "together", rest: 128 },
    Case { name: "plain_100k", kind: Kind::Plain, connections: 1, shape: "sequence", rest: 102_400 },
    Case { name: "pair_1", kind: Kind::Pair, connections: 1, shape: "sequence", rest: 128 },
    Case { name: "pair_64", kind: Kind::Pair, connections: 64, shape: "together", rest: 128 },
    Case { name: "pair_100k", kind: Kind::Pair, connections: 1, shape: "sequence", rest: 102_400 },
    Case { name: "grpc_1", kind: Kind::Grpc, connections: 1, shape: "calls", rest: 1 },
    Case { name: "grpc_8x8", kind: Kind::Grpc, connections: 8, shape: "calls", rest: 8 },
    Case { name: "grpc_pair_1", kind: Kind::GrpcPair, connections: 1, shape: "calls", rest: 1 },
    Case { name: "grpc_pair_8x8", kind: Kind::GrpcPair, connections: 8, shape: "calls", rest: 8 },
];

/// Requests before counting begins: buffers, pools and tables have grown then.
const WARM_UP: usize = 2_000;
/// Requests that are counted.
const COUNTED: usize = 5_000;
/// Requests that are traced: each allocation of them costs a backtrace.
const TRACED: usize = 500;
/// What a worker does after an answer was read is over by then.
const SETTLE: Duration = Duration::from_millis(100);

/// Counts every case.
pub(crate) fn measure(measured: &mut Measured) -> Result<(), String> {
    for case in CASES {
        let mut load = Load::start()?;
        let proxies = warm(case, &mut load)?;
        let before: Vec<_> = proxies.workers.iter().map(|id| allocator::of_thread(*id)).collect();
        let requests = load.order(&case.command(COUNTED))? as f64;
        std::thread::sleep(SETTLE);
        let after = proxies.workers.iter().map(|id| allocator::of_thread(*id));
        let each: Vec<f64> = after
            .zip(before)
            .map(|(after, before)| after.since(before).allocations as f64 / requests)
            .collect();
        let both: f64 = each.iter().sum();
        let shares: Vec<String> = each.iter().map(|share| format!("{share:.3}")).collect();
        measured.value(&format!("allocations.{}", case.name), both, &shares.join(" + "));
    }
    Ok(())
}

/// Prints where the allocations of the named case come from, most frequent first.
pub(crate) fn trace(name: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        format!("no case is called `{name}`; there are {}", names.join(", "))
    })?;
    let mut load = Load::start()?;
    let proxies = warm(case, &mut load)?;
    for (number, worker) in proxies.workers.iter().enumerate() {
        allocator::trace(*worker);
        let requests = load.order(&case.command(TRACED))?;
        std::thread::sleep(SETTLE);
        allocator::trace(0);
        let mut places: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        for (bytes, backtrace) in allocator::traces() {
            let place = places.entry(frames(&backtrace.to_string())).or_default();
            *place = (place.0 + 1, place.1 + bytes);
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        println!("== worker {} of {} ({name}, {requests} requests)", number + 1, proxies.workers.len());
        for (place, (count, bytes)) in places {
            let (each, size) = (count as f64 / requests as f64, bytes as u64 / count);
            println!("{each:.3} per request, {size} bytes each\n{place}");
        }
    }
    Ok(())
}

/// Starts the proxies and lets everything grow.
fn warm(case: &Case, load: &mut Load) -> Result<Proxies, String> {
    let proxies = Proxies::before(case.kind, load)?;
    load.order(&format!("{} {} {}", case.kind.open(), proxies.entry, case.connections))?;
    load.order(&case.command(WARM_UP))?;
    std::thread::sleep(SETTLE);
    Ok(proxies)
}

impl Case {
    fn command(&self, requests: usize) -> String {
        let at_a_time = self.connections * if self.shape == "calls" { self.rest } else { 1 };
        format!("{} {} {}", self.shape, requests.div_ceil(at_a_time), self.rest)
    }
}

/// The part of a backtrace that says something: from the first frame outside the standard library down to the task's
/// own, each with its place.
fn frames(backtrace: &str) -> String {
    let mut shown = Vec::new();
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((_, name)) = line.split_once(": ") else { continue };
        let at = lines.next_if(|next| next.starts_with("at ")).unwrap_or_default();
        // The inlined part of a frame has a short name; the path tells whose it is.
        if at.contains("/library/")
            || at.contains("leno-guard/")
            || name.starts_with("__rust")
            || at.is_empty()
        {
            continue;
        }
        if at.contains("/src/runtime/") || at.contains("/src/task/local.rs") {
            break;
        }
        let parts = at.rmatch_indices('/').nth(3).and_then(|(start, _)| at.get(start + 1..)).unwrap_or(at);
        shown.push(format!("    {name}  {parts}"));
        if shown.len() == FRAMES_MAX {
            break;
        }
    }
    shown.join("\n")
}

/// Frames that are shown of one place.
const FRAMES_MAX: usize = 7;
