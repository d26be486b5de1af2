//! `leno capture`: intercepts the traffic of the network namespace that this command runs in, for a proxy in it.

pub(crate) mod flags;
pub(crate) mod place;
pub(crate) mod rules;
pub(crate) mod tools;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use leno_core::spec::Cidr;
use leno_proxy::CaptureMode;
use leno_proxy::config::{
    ADMIN_PORT_DEFAULT, CAPTURE_DNS_PORT_DEFAULT, CAPTURE_INBOUND_PORT_DEFAULT, CAPTURE_MARK_DEFAULT,
    CAPTURE_OUTBOUND_PORT_DEFAULT, MESH_PORT_DEFAULT,
};
use serde_json::{Value, json};

use crate::client::{self, Api};
use crate::failure::Failure;
use crate::output::{self, Output};

use self::flags::{Mode, mark};
use self::rules::{Dns, FAMILIES, Inbound, Own, Rules, TABLE, TPROXY_MARK, TPROXY_TABLE};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct CaptureArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Divert connections to the proxy that runs here (`leno proxy --capture`); replaces what was installed before.
    #[command(after_help = "Examples:
  leno capture install                                     what programs here send, but not what reaches them
  leno capture install --inbound-port 8080                 also what comes for the application
  leno capture install --exclude-uid 33 --exclude-port 25")]
    Install(Box<InstallArgs>),
    /// Divert nothing any more.
    #[command(after_help = "Example:
  leno capture remove")]
    Remove,
    /// Show what is installed.
    #[command(after_help = "Example:
  leno capture show -o json")]
    Show,
}

#[derive(clap::Args, Debug)]
struct InstallArgs {
    /// Divert connections to these ports of the application: a number, or `all`; may be given several times.
    #[arg(long, value_name = "PORT", value_parser = port_or_all)]
    inbound_port: Vec<PortOrAll>,
    /// With `--inbound-port all`: not those to this port; may be given several times. 15008, the mesh port, and 15020, the
    /// admin port, are always left alone.
    #[arg(long, value_name = "PORT")]
    exclude_inbound_port: Vec<u16>,
    /// How connections to the application are diverted.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: Mode,
    /// Which questions for names are diverted.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    dns: WhichDns,
    /// Leave processes of this user alone; may be given several times.
    #[arg(long, value_name = "UID")]
    exclude_uid: Vec<u32>,
    /// Leave connections to this port alone; may be given several times.
    #[arg(long, value_name = "PORT")]
    exclude_port: Vec<u16>,
    /// Leave connections to these addresses alone; may be given several times.
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    exclude_cidr: Vec<Cidr>,
    /// The mark of the proxy's own connections.
    #[arg(long, value_name = "N", default_value_t = CAPTURE_MARK_DEFAULT, value_parser = mark)]
    mark: u32,
    /// The port at which the proxy takes the workload's connections.
    #[arg(long, value_name = "PORT", default_value_t = CAPTURE_OUTBOUND_PORT_DEFAULT)]
    outbound_to: u16,
    /// The port at which it takes connections to the application.
    #[arg(long, value_name = "PORT", default_value_t = CAPTURE_INBOUND_PORT_DEFAULT)]
    inbound_to: u16,
    /// The port at which it answers questions for names.
    #[arg(long, value_name = "PORT", default_value_t = CAPTURE_DNS_PORT_DEFAULT)]
    dns_to: u16,
    /// The proxy's admin address, which is asked whether it is ready.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT_DEFAULT)))]
    admin: SocketAddr,
    /// Install without asking the proxy.
    #[arg(long)]
    force: bool,
}

/// Which questions for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum WhichDns {
    /// Those to the servers in /etc/resolv.conf.
    #[default]
    Resolvers,
    /// All of them. Not where a caching resolver of the system asks others: it would be diverted too.
    All,
    /// None.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortOrAll {
    Port(u16),
    All,
}

impl CaptureArgs {
    /// Does it.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        match &self.command {
            Command::Install(args) => args.run(output)?,
            Command::Remove => remove(output)?,
            Command::Show => show(output)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl InstallArgs {
    fn run(&self, output: Output) -> Result<(), Failure> {
        if !self.force {
            client::block_on(self.ask_proxy())?;
        }
        let rules = self.rules()?;
        let tproxy = rules.inbound.as_ref().is_some_and(|inbound| inbound.mode == CaptureMode::Tproxy);
        // The routing comes first: a packet that is diverted and not routed is lost.
        routing(tproxy, rules.ipv6)?;
        if let Err(failure) = tools::nft(&rules.script()) {
            routing(false, rules.ipv6).ok();
            return Err(failure);
        }
        match output {
            Output::Json => output::json(&json!({ "installed": true, "ipv6": rules.ipv6 })),
            Output::Text => {
                let ipv6 = if rules.ipv6 { "" } else { "; IPv4 only, this system has no IPv6" };
                output::line(&format!("installed{ipv6}; `leno capture remove` takes it away"))
            }
        }
    }

    /// Refuses unless the proxy is ready and takes what would be diverted: without it, everything here would be cut off.
    async fn ask_proxy(&self) -> Result<(), Failure> {
        let hint = "start it with `leno proxy --capture`, or give --admin; --force installs all the same";
        let api = Api::new(format!("http://{}", self.admin), None);
        let known: Value = api.get("/config").await.map_err(|error| {
            Failure::failed(format!("no proxy that is ready answers at {}: {error}; {hint}", self.admin))
        })?;
        let capture = &known["capture"];
        if known["ready"] != Value::Bool(true) {
            return Err(Failure::failed(format!("the proxy at {} is not ready; {hint}", self.admin)));
        }
        let takes = |what: &str, port: u16| {
            let addresses = capture[what].as_array().into_iter().flatten().filter_map(Value::as_str);
            let mut ports = addresses.filter_map(|address| address.parse::<SocketAddr>().ok());
            if ports.any(|address| address.port() == port) {
                return Ok(());
            }
            Err(Failure::failed(format!(
                "the proxy at {} takes no {what} connections on port {port}; {hint}",
                self.admin
            )))
        };
        takes("outbound", self.outbound_to)?;
        if !self.inbound_port.is_empty() {
            takes("inbound", self.inbound_to)?;
        }
        if self.dns != WhichDns::None {
            takes("dns", self.dns_to)?;
        }
        if capture["mark"].as_u64() != Some(self.mark.into()) && self.exclude_uid.is_empty() {
            return Err(Failure::failed(format!(
                "the proxy at {} does not mark its connections with {:#x}, so they would be diverted to itself; {hint}",
                self.admin, self.mark
            )));
        }
        Ok(())
    }

    fn rules(&self) -> Result<Rules, Failure> {
        let dns = match self.dns {
            WhichDns::None => None,
            WhichDns::All => Some(Dns { to: self.dns_to, servers: None }),
            WhichDns::Resolvers => Some(Dns { to: self.dns_to, servers: Some(resolvers()) }),
        };
        let all = self.inbound_port.contains(&PortOrAll::All);
        let ports: BTreeSet<u16> = self
            .inbound_port
            .iter()
            .filter_map(|port| match port {
                PortOrAll::Port(port) => Some(*port),
                PortOrAll::All => None,
            })
            .collect();
        let mut exclude_ports: BTreeSet<u16> = self.exclude_inbound_port.iter().copied().collect();
        exclude_ports.extend([MESH_PORT_DEFAULT, self.admin.port()]);
        let inbound = Inbound {
            to: self.inbound_to,
            ports: (!all).then_some(ports),
            exclude_ports,
            mode: self.mode.into(),
        };
        if self.mode == Mode::Tproxy && self.inbound_port.is_empty() {
            return Err(Failure::invalid("--mode tproxy is about inbound connections: give --inbound-port"));
        }
        Ok(Rules {
            outbound: Some(self.outbound_to),
            dns,
            inbound: (!self.inbound_port.is_empty()).then_some(inbound),
            own: Own::Loopback,
            mark: Some(self.mark),
            exclude_uids: self.exclude_uid.iter().copied().collect(),
            exclude_ports: self.exclude_port.iter().copied().collect(),
            exclude_cidrs: self.exclude_cidr.clone(),
            ipv6: tools::ipv6(),
        })
    }
}

fn remove(output: Output) -> Result<(), Failure> {
    let mut was_there = false;
    for family in FAMILIES {
        if tools::nft_show(&["list", "table", family, TABLE])?.is_some() {
            was_there = true;
            tools::nft(&Rules::removal(family))?;
        }
    }
    was_there |= routing(false, tools::ipv6())?;
    match output {
        Output::Json => output::json(&json!({ "removed": was_there })),
        Output::Text => output::line(if was_there { "removed" } else { "nothing was installed" }),
    }
}

fn show(output: Output) -> Result<(), Failure> {
    let mut tables = Vec::new();
    for family in FAMILIES {
        let mut arguments = vec!["list", "table", family, TABLE];
        if output == Output::Json {
            arguments.insert(0, "-j");
        }
        tables.extend(tools::nft_show(&arguments)?);
    }
    let routed = routed()?;
    match output {
        Output::Json => {
            let tables: Vec<Value> =
                tables.iter().map(|table| serde_json::from_str(table).unwrap_or(Value::Null)).collect();
            output::json(
                &json!({ "installed": !tables.is_empty(), "tables": tables, "routing_rules": routed }),
            )
        }
        Output::Text if tables.is_empty() && routed.is_empty() => output::line("nothing is installed here"),
        Output::Text => {
            let text = tables.into_iter().chain(routed).collect::<Vec<_>>().join("\n");
            output::line(text.trim_end())
        }
    }
}

/// The routing that TPROXY needs, or none of it: packets with its mark are local, whatever their destination. Whether there was
/// some before.
fn routing(wanted: bool, ipv6: bool) -> Result<bool, Failure> {
    let mut was_there = false;
    let (mark, table) = (format!("{TPROXY_MARK:#x}"), TPROXY_TABLE.to_string());
    for family in if ipv6 { &["-4", "-6"][..] } else { &["-4"] } {
        // Rules are not unique: whoever installed twice without removing left two.
        for _ in 0..RULES_MAX {
            if !tools::ip_try(&[family, "rule", "del", "fwmark", &mark, "lookup", &table])? {
                break;
            }
            was_there = true;
        }
        // An empty table and one that was never there look the same.
        tools::ip_try(&[family, "route", "flush", "table", &table])?;
        if wanted {
            let everything = if *family == "-4" { "0.0.0.0/0" } else { "::/0" };
            tools::ip_show(&[family, "route", "add", "local", everything, "dev", "lo", "table", &table])?;
            tools::ip_show(&[family, "rule", "add", "fwmark", &mark, "lookup", &table])?;
        }
    }
    Ok(was_there)
}

/// The routing rules that TPROXY needs, as far as they are there.
fn routed() -> Result<Vec<String>, Failure> {
    let mut rules = Vec::new();
    let mark = format!("{TPROXY_MARK:#x}");
    for family in if tools::ipv6() { &["-4", "-6"][..] } else { &["-4"] } {
        let shown = tools::ip_show(&[family, "rule", "show"])?;
        rules.extend(shown.lines().filter(|rule| rule.contains(&mark)).map(|rule| rule.trim().to_owned()));
    }
    Ok(rules)
}

/// The servers of the system's resolver; where none is named, it is the one on this machine (resolv.conf(5)).
fn resolvers() -> BTreeSet<IpAddr> {
    let text = std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    let servers: BTreeSet<IpAddr> = servers.take(RESOLVERS_MAX).collect();
    if servers.is_empty() { [IpAddr::from([127, 0, 0, 1])].into() } else { servers }
}

fn cidr(text: &str) -> Result<Cidr, String> {
    Cidr::parse(text).map_err(|error| error.to_string())
}

fn port_or_all(text: &str) -> Result<PortOrAll, String> {
    if text == "all" {
        return Ok(PortOrAll::All);
    }
    match text.parse() {
        Ok(port) if port != 0 => Ok(PortOrAll::Port(port)),
        _ => Err("a port, or `all`".to_owned()),
    }
}

/// More rules than this were not made by us.
const RULES_MAX: usize = 16;
/// More servers than the system's resolver itself looks at.
const RESOLVERS_MAX: usize = 16;
