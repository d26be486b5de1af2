//! The load generator of `cargo xtask bench`, and those of its upstreams that nginx cannot be. Not shipped.
//!
//! One thread, epoll, no allocation per request: it shares its core with the upstream, and must not be what limits a
//! measurement. Every answer is compared with what it must be: status, length and every byte of the body. The first
//! wrong one ends the run with an error.
//!
//! It is a child that is spoken to: it connects, warms up, prints `{"event":"ready"}` and waits for a line; then it
//! measures, prints its result as one line of JSON, and holds its connections until its standard input ends.
//!
//! | first word | |
//! |---|---|
//! | none | HTTP/1.1: [`run`] |
//! | `grpc` | unary calls over HTTP/2: [`grpc`] |
//! | `download`, `upload` | bytes without a protocol: [`tcp`] |
//! | `exchange` | a new connection for each short exchange |
//! | `tls` | a new connection with a handshake for each HTTP/1.1 request: [`tls`] |
//! | `grpc-upstream`, `tcp-upstream` | the far end of those; `--listen ADDRESS` |

mod answer;
mod connection;
mod flags;
mod grpc;
mod h2;
mod listen;
mod options;
mod result;
mod run;
mod tcp;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;

use self::flags::Flags;
use self::options::Options;
use self::run::Run;
use self::tcp::Order;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((word, rest)) if !word.starts_with("--") => one_of(word, rest),
        _ => http1(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leno-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one_of(word: &str, rest: &[String]) -> Result<(), String> {
    let address = || Flags::parse(rest, &["listen"])?.needed("listen");
    match word {
        "grpc" => {
            let mut client = grpc::client::Client::start(rest)?;
            let length = client.length;
            spoken_to(|| Ok(client.measure(length)?.json()))
        }
        "download" | "upload" => {
            let order = if word == "upload" { Order::Upload } else { Order::Download };
            let mut bulk = tcp::bulk::Bulk::start(order, rest)?;
            let length = bulk.length;
            spoken_to(|| Ok(bulk.measure(length)?.json()))
        }
        "exchange" => {
            let mut exchanges = tcp::exchange::Exchanges::start(rest)?;
            let length = exchanges.length;
            spoken_to(|| Ok(exchanges.measure(length)?.json()))
        }
        "tls" => {
            let mut handshakes = tls::Handshakes::start(rest)?;
            let length = handshakes.length;
            spoken_to(|| Ok(handshakes.measure(length)?.json()))
        }
        "grpc-upstream" => listen::serve::<grpc::upstream::Serving>(address()?),
        "tcp-upstream" => listen::serve::<tcp::upstream::Serving>(address()?),
        _ => Err(format!("there is no `{word}`")),
    }
}

fn http1(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let mut run = Run::start(&options)?;
    spoken_to(|| Ok(run.measure(options.seconds)?.json()))
}

/// Says that it is ready, measures when it is told to, says the result, and stays until its standard input ends.
fn spoken_to(measure: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
    say("{\"event\":\"ready\"}")?;
    let mut lines = std::io::stdin().lines();
    if lines.next().is_none() {
        return Err("nobody said go".into());
    }
    say(&measure()?)?;
    // Whoever measures may want to look at the proxy while all connections are still open.
    lines.for_each(drop);
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}
