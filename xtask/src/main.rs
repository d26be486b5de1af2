//! The project's own chores: everything a developer or CI runs that is not the product.
//!
//! `cargo xtask help` lists the commands. Plain std and `serde_json` only, so that it compiles in seconds on a fresh
//! clone; whatever else is needed is an ordinary program that is called by name.

mod bench;
mod fuzz;
mod guards;
mod licences;
mod packages;
mod registries;
mod shell;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

/// Exit code for a chore that ran and found something wrong.
const FAILED: u8 = 1;
/// Exit code for a command line that could not be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "test" => test::Options::parse(rest).map(|options| test::run(&options)),
        "tidy" => no_options(rest).map(|()| report(&tidy::check())),
        "licences" => no_options(rest).map(|()| report(&licences::check())),
        "bench" => bench::Options::parse(rest).map(|options| match bench::run(&options) {
            Ok(good) => good,
            Err(error) => {
                eprintln!("bench: {error}");
                false
            }
        }),
        "guards" => guards::Options::parse(rest).map(|options| report(&guards::run(&options))),
        "soak" => soak::Options::parse(rest).map(|options| soak::run(&options)),
        "fuzz" => fuzz::Options::parse(rest).map(|options| fuzz::run(&options)),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(true)
        }
        other => Err(format!("no chore is called `{other}`")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(usage) => {
            eprintln!("cargo xtask: {usage}\n\n{HELP}");
            ExitCode::from(USAGE)
        }
    }
}

fn no_options(rest: &[String]) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => Err(format!("unexpected argument `{extra}`")),
    }
}

/// Prints what a check found; true when it found nothing.
fn report(found: &shell::Findings) -> bool {
    found.print();
    found.problems.is_empty()
}

const HELP: &str = "\
cargo xtask COMMAND

  test [--fast | --slow]   everything that must hold: format, lints, docs, tidy, licences, all tests
                             --fast  unit tests only, no lints and no docs
                             --slow  also the tests that are ignored by default
  tidy                     the rules of style that a program can check
  licences                 what every dependency allows us to do, and versions that are there twice
  bench [--quick] [--scenario A,B,..] [--only A,B,..] [--leno PATH] [--seconds N] [--rounds N]
        [--connections A,B,..] [--external NAME=SCRIPT] [--external-pair NAME=SCRIPT]
                           what a request costs, beside nginx, HAProxy and Envoy; results under bench/results/,
                           how to read them in docs/performance.md
  guards [--record] [--only A,B,..]
                           what a request costs, counted, beside bench/guards.json; --record changes it
  soak [--minutes N] [--seconds N] [--seed N] [--clients N] [--leno PATH]
                           the binary under bad load for half an hour: nothing wrong, memory flat, nothing left open
  fuzz [--minutes N] [--target NAME]
                           the fuzz targets of docs/fuzzing.md, N minutes each (default 1)
";
