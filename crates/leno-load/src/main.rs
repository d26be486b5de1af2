//! The load generator of `cargo xtask bench`. Not shipped.
//!
//! One thread, epoll, no allocation per request: it shares its core with the upstream, and must not be what limits a
//! measurement. Every answer is compared with what it must be: status, length and every byte of the body. The first
//! wrong one ends the run with an error.
//!
//! It is a child that is spoken to: it connects, warms up, prints `{"event":"ready"}` and waits for a line; then it
//! measures, prints its result as one line of JSON, and holds its connections until its standard input ends.

mod answer;
mod connection;
mod options;
mod result;
mod run;

use std::io::Write as _;
use std::process::ExitCode;

use self::options::Options;
use self::run::Run;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::parse(&arguments).and_then(|options| serve(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leno-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), String> {
    let mut run = Run::start(options)?;
    say("{\"event\":\"ready\"}")?;
    let mut lines = std::io::stdin().lines();
    if lines.next().is_none() {
        return Err("nobody said go".into());
    }
    let measured = run.measure(options.seconds)?;
    say(&measured.json())?;
    // Whoever measures may want to look at the proxy while all connections are still open.
    lines.for_each(drop);
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}
