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

const HELP: &str = "\
leno-guard COMMAND

  allocations [--trace CASE]   allocations per request; with --trace: where those of one case come from
  system-calls LENO            system calls per request of this binary, by strace
  memory                       bytes per idle connection, and what is left of a burst
  instructions                 instructions per request, by valgrind
  drive CASE REQUESTS          what `instructions` runs under valgrind
";
