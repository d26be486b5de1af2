//! Leno: a service mesh in one binary. One file per command; each resolves what was typed against the world and
//! then does it.

mod args;
mod capture;
mod check;
mod client;
mod completion;
mod control;
mod demo;
mod failure;
mod hold;
mod instances;
mod logging;
mod output;
mod parent;
mod proxy;
mod run;
mod services;
mod status;
mod tags;
mod token;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let output = cli.output;
    match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            failure.report(output);
            failure.code()
        }
    }
}
