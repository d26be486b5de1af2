//! Counts what one request costs Leno. `cargo xtask guards` runs it and compares with what is recorded; see
//! docs/guards.md.
//!
//! Nothing that is shipped depends on this crate.

mod allocations;
mod allocator;
mod load;
mod proxies;
mod record;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut measured = record::Measured::default();
    let done = match words[..] {
        ["load"] => load::run(),
        ["allocations"] => allocations::measure(&mut measured),
        ["allocations", "--trace", case] => allocations::trace(case),
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
";
