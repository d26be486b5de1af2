//! What can be typed. Each command's arguments live beside the command; here they meet.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::logging::{self, Level};
use crate::output::Output;

/// Leno: a service mesh in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "leno",
    version,
    max_term_width = 100,
    after_help = "Example:
  leno up                     a complete mesh on this machine, from ./mesh.yaml or the example shop
  leno status                 how it is (from another terminal)"
)]
pub(crate) struct Cli {
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// How much is logged on stderr [default: info for proxy and control, else warn].
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log: Option<Level>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a complete mesh on this machine: control plane, sidecars, services, gateway.
    #[command(after_help = "Examples:
  leno up                                        ./mesh.yaml, else the example shop; Ctrl-C stops all of it
  leno up mesh.yaml --ephemeral -- pytest -q     run a command against the mesh, exit as it does")]
    Up(crate::up::UpArgs),
    /// Run one proxy: a sidecar or a gateway.
    #[command(after_help = "Examples:
  leno proxy --file mesh.yaml --role gateway
        a gateway straight from a file, without a control plane
  LENO_TOKEN=$(leno token create --service product) \\
  leno proxy --control 127.0.0.1:15010 --service product --instance product-9 --app 127.0.0.1:8080
        a sidecar that joins a mesh")]
    Proxy(Box<crate::proxy::ProxyArgs>),
    /// Run the control plane: registry, certificate authority, configuration server.
    #[command(after_help = "Example:
  leno control --state ./state --file mesh.yaml")]
    Control(crate::control::ControlArgs),
    /// Run a program beside a sidecar of its own, all of its connections intercepted.
    #[command(after_help = "Examples:
  leno run --service product --port 8080 -- ./product      the program listens on 8080 and knows nothing of Leno
  leno run --service user -- curl http://product/          what user sees of product
  leno run --clean                                         end what runs that were killed have left")]
    Run(Box<crate::run::RunArgs>),
    /// Intercept the connections of this network namespace for the proxy in it.
    #[command(after_help = "Examples:
  leno capture install --inbound-port 8080
  leno capture show
  leno capture remove")]
    Capture(crate::capture::CaptureArgs),
    /// Show how the mesh is.
    #[command(after_help = "Examples:
  leno status
  leno status --api http://127.0.0.1:15014 -o json")]
    Status(crate::status::StatusArgs),
    /// List the services.
    #[command(after_help = "Examples:
  leno services
  leno services product -o json")]
    Services(crate::services::ServicesArgs),
    /// List the instances of all services, or of one.
    #[command(after_help = "Examples:
  leno instances
  leno instances product -o json")]
    Instances(crate::instances::InstancesArgs),
    /// Check a mesh file without running anything.
    #[command(after_help = "Examples:
  leno check mesh.yaml
  leno check --schema > mesh.schema.json         for editors that complete YAML")]
    Check(crate::check::CheckArgs),
    /// Make, list and revoke the tokens with which proxies join the mesh.
    #[command(after_help = "Example:
  leno token create --service product --uses 3 --ttl 1h")]
    Token(crate::token::TokenArgs),
    /// Write a completion script for a shell.
    #[command(after_help = "Example:
  source <(leno completion bash)")]
    Completion(crate::completion::CompletionArgs),
    /// Run one of the example shop's services: ordinary HTTP services that know nothing of Leno.
    #[command(after_help = "Example:
  leno demo product --port 8081 --version v2
  curl http://127.0.0.1:8081/products/1")]
    Demo(crate::demo::DemoArgs),
    /// Run a command that ends when this process's stdin does.
    #[command(hide = true)]
    Hold(crate::hold::HoldArgs),
    /// Run a command and end whatever it leaves; end all of it with another process.
    #[command(hide = true)]
    Warden(crate::run::warden::WardenArgs),
    /// Become a command that ends with its parent.
    #[command(hide = true)]
    Launch(crate::run::warden::LaunchArgs),
}

impl Cli {
    /// Does what was typed.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let output = self.output;
        let daemon = matches!(self.command, Command::Proxy(_) | Command::Control(_));
        logging::start(self.log.unwrap_or(if daemon { Level::Info } else { Level::Warn }));
        match self.command {
            Command::Up(args) => args.run(output, self.log),
            Command::Proxy(args) => args.run(output),
            Command::Control(args) => args.run(),
            Command::Status(args) => args.run(output),
            Command::Services(args) => args.run(output),
            Command::Instances(args) => args.run(output),
            Command::Check(args) => args.run(output),
            Command::Token(args) => args.run(output),
            Command::Completion(args) => args.run(),
            Command::Demo(args) => args.run(),
            Command::Hold(args) => args.run(),
            Command::Run(args) => args.run(output, self.log),
            Command::Capture(args) => args.run(output),
            Command::Warden(args) => args.run(),
            Command::Launch(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let commands = Cli::command();
        for command in commands.get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains("Example") && help.contains("leno "),
                "{} has no example",
                command.get_name()
            );
        }
    }
}
