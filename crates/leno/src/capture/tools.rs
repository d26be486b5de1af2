//! `nft` and `ip`, the system's programs for what we change in a network namespace: run with a script on stdin, and what they
//! refuse said in words that help.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::failure::Failure;

/// Whether the system has IPv6.
pub(crate) fn ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Why traffic cannot be intercepted on this machine by this process; `None`: it can, as far as can be seen without trying.
pub(crate) fn cannot() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |tool: &&Tool| !std::env::split_paths(&path).any(|folder| folder.join(tool.name).is_file());
    [NFT, IP].iter().find(missing).map(Tool::missing)
}

/// Loads a script; all of it or nothing.
pub(crate) fn nft(script: &str) -> Result<(), Failure> {
    NFT.run(&["-f", "-"], script).map(drop)
}

/// What `nft` answers; `None` where there is no such table.
pub(crate) fn nft_show(arguments: &[&str]) -> Result<Option<String>, Failure> {
    let output = NFT.output(arguments, "")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    if said(&output).contains("No such file or directory") { Ok(None) } else { Err(NFT.refused(&output)) }
}

/// Does each line of `script`.
pub(crate) fn ip(script: &str) -> Result<(), Failure> {
    IP.run(&["-batch", "-"], script).map(drop)
}

/// What `ip` answers.
pub(crate) fn ip_show(arguments: &[&str]) -> Result<String, Failure> {
    let output = IP.run(arguments, "")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does what may be done already; whether it was to be done.
pub(crate) fn ip_try(arguments: &[&str]) -> Result<bool, Failure> {
    let output = IP.output(arguments, "")?;
    if !output.status.success() && not_permitted(&output) {
        return Err(IP.refused(&output));
    }
    Ok(output.status.success())
}

struct Tool {
    name: &'static str,
    package: &'static str,
}

const NFT: Tool = Tool { name: "nft", package: "nftables" };
const IP: Tool = Tool { name: "ip", package: "iproute2" };

impl Tool {
    fn missing(&self) -> String {
        format!("the program `{}` is not in PATH; install the package `{}`", self.name, self.package)
    }

    fn output(&self, arguments: &[&str], script: &str) -> Result<Output, Failure> {
        let ran = || -> io::Result<Output> {
            let mut command = Command::new(self.name);
            command.args(arguments).env("LC_ALL", "C");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read to the end says why on stderr.
                let _ = stdin.write_all(script.as_bytes());
            }
            child.wait_with_output()
        };
        ran().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::failed(self.missing()),
            _ => Failure::failed(format!("cannot run `{}`: {error}", self.name)),
        })
    }

    fn run(&self, arguments: &[&str], script: &str) -> Result<Output, Failure> {
        let output = self.output(arguments, script)?;
        if output.status.success() { Ok(output) } else { Err(self.refused(&output)) }
    }

    fn refused(&self, output: &Output) -> Failure {
        if not_permitted(output) {
            return Failure::failed(format!(
                "`{}` may not change this network namespace: it needs CAP_NET_ADMIN; run as root",
                self.name
            ));
        }
        let said = said(output);
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        let hint = if first.contains("Could not process rule") || first.contains("not supported") {
            "; the kernel may lack what the rule needs"
        } else {
            ""
        };
        Failure::failed(format!("`{}` failed: {first}{hint}", self.name))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn not_permitted(output: &Output) -> bool {
    let said = said(output);
    said.contains("Operation not permitted")
        || said.contains("Permission denied")
        || said.contains("must be root")
}
