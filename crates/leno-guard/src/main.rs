//! Counts what one request costs Leno. `cargo xtask guards` runs it and compares with what is recorded; see
//! docs/guards.md.
//!
//! Nothing that is shipped depends on this crate.

mod allocations;
mod allocator;
mod core_path;
mod instructions;
mod load;
mod memory;
mod proxies;
mod record;
mod soak;
mod system_calls;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut measured = record::Measured::default();
    let done = match words[..] {
        ["load"] => load::run(),
        ["allocations"] => allocations::measure(&mut measured),
        ["allocations", "--trace", case] => allocations::trace(case),
        ["system-calls", leno] => system_calls::measure(leno.as_ref(), &mut measured),
        ["memory"] => memory::measure(),
        ["memory", case] => memory::measure_one(case, &mut measured),
        ["instructions"] => instructions::measure(&mut measured),
        ["drive", case, requests] => match requests.parse() {
            Ok(requests) => instructions::drive(case, requests),
            Err(_) => Err(HELP.to_owned()),
        },
        ["soak", leno, seconds, seed, clients] => soak(leno, [seconds, seed, clients]),
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("leno-guard: {why}");
            ExitCode::FAILURE
        }
    }
}

fn soak(leno: &str, numbers: [&str; 3]) -> Result<(), String> {
    let [seconds, seed, clients] = numbers.map(str::parse);
    let (Ok(seconds), Ok(seed), Ok(clients)) = (seconds, seed, clients) else { return Err(HELP.to_owned()) };
    match soak::run(leno.as_ref(), &soak::Options { seconds, seed, clients })? {
        true => Ok(()),
        false => Err("the soak test has failed".to_owned()),
    }
}

const HELP: &str = "\
leno-guard COMMAND

  allocations [--trace CASE]   allocations per request; with --trace: where those of one case come from
  system-calls LENO            system calls per request of this binary, by strace
  memory                       bytes per idle connection, and what is left of a burst
  instructions                 instructions per request, by valgrind
  drive CASE REQUESTS          what `instructions` runs under valgrind
  soak LENO SECONDS SEED CLIENTS
                               this binary under bad load
";
