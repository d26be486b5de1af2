//! Which traffic is intercepted, as rules for `nft`. Nothing is installed here.
//!
//! The rules replace the destination of a connection's first packet; the kernel's connection tracking does it for the rest and
//! remembers what the destination was. All of them are in one table, which is replaced whole in one transaction: nobody ever
//! runs into half of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use leno_core::spec::Cidr;
use leno_proxy::CaptureMode;
use leno_proxy::netns::{APP_V4, APP_V6};

/// What is intercepted in one network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The workload's own connections go to this port; `None`: they are left alone.
    pub(crate) outbound: Option<u16>,
    /// The workload's questions for names.
    pub(crate) dns: Option<Dns>,
    /// Connections to the application from elsewhere.
    pub(crate) inbound: Option<Inbound>,
    /// Which traffic stays within the namespace and is nobody's concern.
    pub(crate) own: Own,
    /// Sockets with this mark are the proxy's.
    pub(crate) mark: Option<u32>,
    /// Processes of these users are left alone.
    pub(crate) exclude_uids: BTreeSet<u32>,
    /// Connections to these ports are left alone.
    pub(crate) exclude_ports: BTreeSet<u16>,
    /// Connections to these addresses are left alone.
    pub(crate) exclude_cidrs: Vec<Cidr>,
    /// False where the system has no IPv6: rules for it could not be loaded.
    pub(crate) ipv6: bool,
}

/// Questions for names.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    /// They go to this port, by UDP and TCP.
    pub(crate) to: u16,
    /// Those to these servers; `None`: to any.
    pub(crate) servers: Option<BTreeSet<IpAddr>>,
}

/// Connections to the application.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    /// They go to this port.
    pub(crate) to: u16,
    /// Those to these ports; `None`: to any.
    pub(crate) ports: Option<BTreeSet<u16>>,
    /// But not those to these.
    pub(crate) exclude_ports: BTreeSet<u16>,
    /// How.
    pub(crate) mode: CaptureMode,
}

/// Which traffic stays within the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// What leaves by the loopback interface: on a machine or in a pod, where everything else has another one.
    Loopback,
    /// What goes to an address of the namespace's own: where there is no other interface, in a namespace that `leno run` made.
    /// Whatever nobody serves is refused at once there, instead of going nowhere.
    Addresses,
}

impl Rules {
    /// Those of a namespace in which there is one application and nothing else.
    pub(crate) fn of_one_application(outbound: u16, dns: Option<u16>, ipv6: bool) -> Self {
        Self {
            outbound: Some(outbound),
            dns: dns.map(|to| Dns { to, servers: None }),
            inbound: None,
            own: Own::Addresses,
            mark: None,
            exclude_uids: BTreeSet::new(),
            exclude_ports: BTreeSet::new(),
            exclude_cidrs: Vec::new(),
            ipv6,
        }
    }

    /// The whole table as a script for `nft -f`, which replaces one that is there already.
    pub(crate) fn script(&self) -> String {
        let family = self.family();
        let mut text = Self::removal(family);
        let _ = writeln!(text, "table {family} {TABLE} {{");
        if self.outbound.is_some() || self.dns.is_some() {
            self.output(&mut text);
        }
        if self.own == Own::Addresses {
            self.refusal(&mut text);
        }
        if let Some(inbound) = &self.inbound {
            self.prerouting(&mut text, inbound);
        }
        text.push_str("}\n");
        text
    }

    /// A script that removes the table, and does nothing where there is none: what is added first can be deleted.
    pub(crate) fn removal(family: &str) -> String {
        format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
    }

    const fn family(&self) -> &'static str {
        if self.ipv6 { "inet" } else { "ip" }
    }

    /// What the workload sends.
    fn output(&self, text: &mut String) {
        text.push_str("\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n");
        let mut rule = |rule: String| {
            let _ = writeln!(text, "\t\t{rule}");
        };
        if let Some(mark) = self.mark {
            rule(format!("meta mark {mark:#x} return"));
        }
        if !self.exclude_uids.is_empty() {
            rule(format!("meta skuid {} return", set(&self.exclude_uids)));
        }
        // Before what stays within: the system's own resolver usually listens on loopback.
        for to in self.dns_matches() {
            let port = self.dns.as_ref().map_or(0, |dns| dns.to);
            rule(format!("{to}udp dport 53 redirect to :{port}"));
            rule(format!("{to}tcp dport 53 redirect to :{port}"));
        }
        for own in self.own() {
            rule(format!("{own} return"));
        }
        if let Some(port) = self.outbound {
            if !self.exclude_ports.is_empty() {
                rule(format!("tcp dport {} return", set(&self.exclude_ports)));
            }
            for cidr in self.exclude_cidrs.iter().filter(|cidr| self.ipv6 || cidr.is_ipv4()) {
                rule(format!("{} {cidr} return", destination(cidr.is_ipv4())));
            }
            rule(format!("meta l4proto tcp redirect to :{port}"));
        }
        if self.own == Own::Addresses {
            // Nobody listens there, so that the sender is told at once: QUIC, for one, then falls back to TCP.
            rule(format!("meta l4proto udp redirect to :{DISCARD_PORT}"));
        }
        text.push_str("\t}\n");
    }

    /// What is neither TCP nor UDP has nowhere to go in a namespace of one application.
    fn refusal(&self, text: &mut String) {
        text.push_str("\tchain refuse {\n\t\ttype filter hook output priority 0; policy accept;\n");
        for own in self.own() {
            let _ = writeln!(text, "\t\t{own} accept");
        }
        text.push_str("\t\tmeta l4proto != { tcp, udp } reject\n\t}\n");
    }

    /// What comes from elsewhere.
    fn prerouting(&self, text: &mut String, inbound: &Inbound) {
        let kind = match inbound.mode {
            CaptureMode::Redirect => "nat hook prerouting priority -100",
            CaptureMode::Tproxy => "filter hook prerouting priority -150",
        };
        let _ = writeln!(text, "\tchain prerouting {{\n\t\ttype {kind}; policy accept;");
        let mut rule = |rule: String| {
            let _ = writeln!(text, "\t\t{rule}");
        };
        rule("iifname \"lo\" return".to_owned());
        if !inbound.exclude_ports.is_empty() {
            rule(format!("tcp dport {} return", set(&inbound.exclude_ports)));
        }
        let ports = inbound.ports.as_ref().map(|ports| format!("tcp dport {}", set(ports)));
        let ports = ports.unwrap_or_else(|| "meta l4proto tcp".to_owned());
        match inbound.mode {
            CaptureMode::Redirect => rule(format!("{ports} redirect to :{}", inbound.to)),
            CaptureMode::Tproxy => {
                // Of connections that stand already, the socket is found without another decision.
                rule(format!("{ports} socket transparent 1 meta mark set {TPROXY_MARK:#x} accept"));
                rule(format!("{ports} tproxy to :{} meta mark set {TPROXY_MARK:#x} accept", inbound.to));
            }
        }
        text.push_str("\t}\n");
    }

    /// What a question's destination must be, with a blank at the end.
    fn dns_matches(&self) -> Vec<String> {
        match &self.dns {
            None => Vec::new(),
            Some(Dns { servers: None, .. }) => vec![String::new()],
            Some(Dns { servers: Some(servers), .. }) => {
                let known = servers.iter().filter(|server| self.ipv6 || server.is_ipv4());
                known.map(|server| format!("{} {server} ", destination(server.is_ipv4()))).collect()
            }
        }
    }

    fn own(&self) -> Vec<String> {
        match self.own {
            Own::Loopback => vec!["oifname \"lo\"".to_owned()],
            Own::Addresses => {
                let mut own = vec![format!("ip daddr {{ 127.0.0.0/8, {APP_V4} }}")];
                if self.ipv6 {
                    own.push(format!("ip6 daddr {{ ::1, {APP_V6} }}"));
                }
                own
            }
        }
    }
}

const fn destination(ipv4: bool) -> &'static str {
    if ipv4 { "ip daddr" } else { "ip6 daddr" }
}

fn set<T: std::fmt::Display>(values: &BTreeSet<T>) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", values.join(", "))
}

/// The table's name.
pub(crate) const TABLE: &str = "leno";
/// Both kinds of table that are ever made.
pub(crate) const FAMILIES: [&str; 2] = ["inet", "ip"];
/// The mark of packets that TPROXY diverted, by which the routing rule knows them.
pub(crate) const TPROXY_MARK: u32 = 0x1e41;
/// The routing table in which everything is local, for them.
pub(crate) const TPROXY_TABLE: u32 = 0x1e41;
/// A port for services that are long gone (RFC 863).
const DISCARD_PORT: u16 = 9;

#[cfg(test)]
mod tests;
