//! Seeded simulation of Leno's pure parts, for tests only.
//!
//! The machines are the real ones from `leno-core`; what is simulated is everything around them: time, the network,
//! applications that die, hang, answer late or in part, clients that leave, operators that change the configuration
//! under way. Everything follows from one seed, so a failure is replayed by that number: the tests print it, and
//! `LENO_SIM_SEED=n cargo test -p leno-sim` runs only it.
//!
//! - [`scenario`]: what a seed makes: services, the lives of their instances, requests, changes.
//! - [`mesh`]: runs a scenario; a shell like `leno-proxy`'s, with facts made up instead of sockets.
//! - [`model`]: what must happen, written down a second time and much smaller, one request at a time.
//! - [`wire`]: requests over real pairs of the mesh transport's machine ([`link`]), whose connections are cut anywhere.
//! - [`storm`]: a chain of services of which the last one fails, and how much more it gets for that.
//! - [`load`]: a service under load, balanced by the real backends and by models of other proxies.
//! - [`agenda`]: virtual time.

pub mod agenda;
pub mod link;
pub mod load;
pub mod mesh;
pub mod model;
pub mod scenario;
pub mod storm;
pub mod wire;

/// The seeds to run: one from the environment when it names one, else `0..count`.
pub fn seeds(count: u64) -> core::ops::Range<u64> {
    match std::env::var("LENO_SIM_SEED").ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

/// Runs `scenario` for each seed, on every core, and reports the first that fails by its number.
///
/// # Panics
/// When one fails.
pub fn run_each(count: u64, scenario: impl Fn(u64) -> Result<(), String> + Sync) {
    let seeds = seeds(count);
    let threads = std::thread::available_parallelism().map_or(1, core::num::NonZero::get) as u64;
    let failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (seeds, scenario) = (seeds.clone(), &scenario);
                scope.spawn(move || {
                    seeds
                        .filter(|seed| seed % threads == thread)
                        .find_map(|seed| scenario(seed).err().map(|error| (seed, error)))
                })
            })
            .collect();
        running.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    if let Some((seed, error)) = failures.into_iter().min() {
        fail(seed, &error);
    }
}

#[allow(clippy::panic, reason = "this is how a test says that it failed")]
fn fail(seed: u64, error: &str) -> ! {
    panic!("{error}\nreplay with LENO_SIM_SEED={seed}")
}
