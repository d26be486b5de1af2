//! The flags of `leno proxy` about capture.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use leno_proxy::config::{
    CAPTURE_DNS_PORT_DEFAULT, CAPTURE_INBOUND_PORT_DEFAULT, CAPTURE_MARK_DEFAULT,
    CAPTURE_OUTBOUND_PORT_DEFAULT,
};
use leno_proxy::{CaptureConfig, CaptureMode};

use super::tools;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct CaptureFlags {
    /// Take what `leno capture install` diverts, with the usual ports: 15011 outbound, 15006 inbound, 15053 DNS; and mark own
    /// connections with 0x1e40.
    #[arg(long)]
    capture: bool,
    /// Where the workload's intercepted connections arrive; once for each address family.
    #[arg(long, value_name = "ADDR")]
    capture_outbound: Vec<SocketAddr>,
    /// Where intercepted connections to the application arrive; once for each address family.
    #[arg(long, value_name = "ADDR")]
    capture_inbound: Vec<SocketAddr>,
    /// Where the workload's questions for names arrive; once for each address family.
    #[arg(long, value_name = "ADDR")]
    capture_dns: Vec<SocketAddr>,
    /// How connections to the application were diverted [default: redirect].
    #[arg(long, value_enum, value_name = "MODE")]
    capture_mode: Option<Mode>,
    /// The network namespace in which the application lives: a link such as /proc/PID/ns/net.
    #[arg(long, value_name = "PATH")]
    app_namespace: Option<PathBuf>,
    /// The mark of this proxy's own connections, which capture lets through.
    #[arg(long, value_name = "N", value_parser = mark)]
    mark: Option<u32>,
}

/// How a connection is diverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// By replacing its destination.
    #[default]
    Redirect,
    /// By routing: nothing in it is changed.
    Tproxy,
}

impl From<Mode> for CaptureMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Redirect => Self::Redirect,
            Mode::Tproxy => Self::Tproxy,
        }
    }
}

impl CaptureFlags {
    /// What was typed wins, then what `--capture` stands for.
    pub(crate) fn resolve(self) -> CaptureConfig {
        let usual = |typed: Vec<SocketAddr>, v4: Ipv4Addr, v6: Ipv6Addr, port: u16| {
            if !typed.is_empty() || !self.capture {
                return typed;
            }
            let mut both = vec![SocketAddr::from((v4, port))];
            both.extend(tools::ipv6().then_some(SocketAddr::from((v6, port))));
            both
        };
        let (local4, local6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let (any4, any6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        CaptureConfig {
            outbound: usual(self.capture_outbound, local4, local6, CAPTURE_OUTBOUND_PORT_DEFAULT),
            inbound: usual(self.capture_inbound, any4, any6, CAPTURE_INBOUND_PORT_DEFAULT),
            dns: usual(self.capture_dns, local4, local6, CAPTURE_DNS_PORT_DEFAULT),
            mode: self.capture_mode.unwrap_or_default().into(),
            app_namespace: self.app_namespace,
            mark: self.mark.or_else(|| self.capture.then_some(CAPTURE_MARK_DEFAULT)),
        }
    }
}

/// A number in tens or, after `0x`, in sixteens; not 0, which is no mark.
pub(crate) fn mark(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16));
    number
        .ok()
        .filter(|mark| *mark != 0)
        .ok_or_else(|| format!("`{text}` is no mark, such as 7744 or 0x1e40"))
}
