//! Bytes that a connection costs while nothing happens on it, and what is left when many have gone. Bytes asked of the
//! allocator, not resident pages: those depend on what the C library gives back, and are only printed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::allocator;
use crate::load::{Load, raise_limit};
use crate::proxies::{Kind, PEERS, Proxies};
use crate::record::Measured;

/// Idle clients, and as many idle connections to upstreams.
const IDLE: usize = 1_000;
/// Connections of the burst.
const BURST: usize = 10_000;
/// Of these, so many have a request under way at a time.
const WAVE: usize = 1_000;
/// Descriptors of the process besides those.
const SPARE: usize = 500;
/// Connections before the burst: what it is compared with.
const ORDINARY: usize = 64;
/// How long memory may take to come to rest: longer than the workers' sweeps of idle connections are apart.
const SETTLE: Duration = Duration::from_secs(20);
/// It is at rest when it has not changed for so long, which is longer than a sweep's interval.
const REST: Duration = Duration::from_secs(6);

/// Measures everything, each case in a process of its own: what one leaves behind is not the next one's. All at once,
/// because most of the time is spent waiting.
pub(crate) fn measure() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let run = |case: &&str| {
        Command::new(&own)
            .args(["memory", case])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{case} does not start: {error}"))
    };
    let cases = ["plain_idle", "tls_idle", "burst_leaves"];
    let running = cases.iter().map(run).collect::<Result<Vec<_>, _>>()?;
    let done: Vec<_> = running.into_iter().map(std::process::Child::wait_with_output).collect();
    for (case, done) in cases.iter().zip(done) {
        let done = done.map_err(|error| error.to_string())?;
        print!("{}", String::from_utf8_lossy(&done.stdout));
        if !done.status.success() {
            return Err(format!("{case}: {}", done.status));
        }
    }
    Ok(())
}

/// Measures one case in this process.
pub(crate) fn measure_one(case: &str, measured: &mut Measured) -> Result<(), String> {
    raise_limit();
    match case {
        "plain_idle" => plain(measured),
        "tls_idle" => peers(measured),
        "burst_leaves" => burst(measured),
        _ => Err(format!("no case is called `{case}`")),
    }
}

/// Clients that have made a request each, and the connections to upstreams that these took.
fn plain(measured: &mut Measured) -> Result<(), String> {
    let mut load = Load::start()?;
    let proxies = Proxies::start(Kind::Plain, &load.upstreams)?;
    // The first time tables grow and the worker's stock fills up; both stay, and are not the price of a connection.
    idle(&mut load, &proxies, IDLE)?;
    part(&mut load)?;
    let before = Memory::at_rest();
    idle(&mut load, &proxies, IDLE)?;
    let grown = Memory::at_rest().since(&before);
    let each = grown.rust as f64 / IDLE as f64;
    measured.value("memory.plain_idle", each, &grown.remark(IDLE));
    Ok(())
}

/// Connections with TLS between two proxies, each of which has carried a request.
fn peers(measured: &mut Measured) -> Result<(), String> {
    let mut load = Load::start()?;
    let proxies = Proxies::start(Kind::ManyPeers, load.upstreams.get(..1).unwrap_or(&[]))?;
    load.order(&format!("open {} 1", proxies.entry))?;
    load.order("sequence 1 128")?;
    let (before, each) = (Memory::at_rest(), live(&proxies));
    load.order(&format!("sequence {} 128", PEERS - 1))?;
    let grown = Memory::at_rest().since(&before);
    let after = live(&proxies);
    let made = PEERS - 1;
    for ((name, before), after) in ["memory.tls_accepted", "memory.tls_dialed"].iter().zip(each).zip(after) {
        measured.value(
            name,
            (after - before) as f64 / made as f64,
            &format!("both ends: {}", grown.remark(made)),
        );
    }
    Ok(())
}

/// What is left when many connections have come and gone.
fn burst(measured: &mut Measured) -> Result<(), String> {
    let mut load = Load::start()?;
    let proxies = Proxies::start(Kind::Plain, &load.upstreams)?;
    let room = usize::try_from(raise_limit()).unwrap_or(usize::MAX).saturating_sub(WAVE + SPARE);
    let connections = BURST.min(room / WAVE * WAVE);
    if connections < BURST {
        let why = format!("{BURST} connections need {} descriptors (ulimit -n)", BURST + WAVE + SPARE);
        measured.skip("memory.burst_leaves", &why);
        return Ok(());
    }
    idle(&mut load, &proxies, ORDINARY)?;
    part(&mut load)?;
    let before = Memory::at_rest();
    load.order(&format!("open {} {connections}", proxies.entry))?;
    load.order(&format!("waves 1 128 {WAVE}"))?;
    let most = Memory::now();
    part(&mut load)?;
    let after = Memory::at_rest();
    let remark = format!(
        "more than {} KiB before; {} KiB with {connections} connections; resident {} KiB, {} KiB, {} KiB",
        before.rust / 1024,
        most.rust / 1024,
        before.resident / 1024,
        most.resident / 1024,
        after.resident / 1024
    );
    measured.value("memory.burst_leaves", (after.rust - before.rust) as f64, &remark);
    Ok(())
}

/// Leaves so many idle clients, and as many idle connections to the upstreams.
fn idle(load: &mut Load, proxies: &Proxies, connections: usize) -> Result<(), String> {
    load.order(&format!("open {} {connections}", proxies.entry))?;
    load.order("together 2 128").map(drop)
}

/// Everybody leaves.
fn part(load: &mut Load) -> Result<(), String> {
    load.order("close")?;
    load.order("hang-up").map(drop)
}

/// Live bytes of each worker.
fn live(proxies: &Proxies) -> Vec<i64> {
    proxies.workers.iter().map(|id| allocator::of_thread(*id).live()).collect()
}

/// Bytes in use by this process: its proxies and nothing else.
#[derive(Clone, Copy)]
struct Memory {
    /// Asked of Rust's allocator.
    rust: i64,
    /// As the C library counts: with C code and overhead.
    libc: i64,
    /// In pages.
    resident: i64,
}

impl Memory {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: i64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self { rust: allocator::of_process().live(), libc: allocator::of_libc(), resident: kib * 1024 }
    }

    /// When nothing has changed for a while, or it has taken too long.
    fn at_rest() -> Self {
        let deadline = Instant::now() + SETTLE;
        let (mut seen, mut since) = (Self::now(), Instant::now());
        while since.elapsed() < REST && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::now();
            if (now.rust - seen.rust).abs() > STILL {
                (seen, since) = (now, Instant::now());
            }
        }
        Self::now()
    }

    const fn since(&self, before: &Self) -> Self {
        Self {
            rust: self.rust - before.rust,
            libc: self.libc - before.libc,
            resident: self.resident - before.resident,
        }
    }

    fn remark(&self, connections: usize) -> String {
        let each = |bytes: i64| bytes / connections as i64;
        format!(
            "each: {} asked for, {} with C code and overhead, {} resident",
            each(self.rust),
            each(self.libc),
            each(self.resident)
        )
    }
}

/// Changes of so many bytes are the measuring itself.
const STILL: i64 = 4_096;
