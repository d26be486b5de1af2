//! Where something goes, in the one form that rules compare.

use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::head::host_of;
use crate::name::LABEL_BYTES_MAX;
use crate::spec::HostMatch;

/// Longest host name (RFC 1035 §2.3.4, without the root's empty label).
const HOST_BYTES_MAX: usize = 253;

/// Where something goes, as far as is known. It has a name, an address, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What it calls the place.
    pub host: Option<HostName>,
    /// The address; never an IPv4 address in the form of IPv6.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A host's name as it is compared: lower case, 1 to 63 of `a-z 0-9 - _` between dots, and the last label is no number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why what a client wrote is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDestination {
    /// There is no host.
    Empty,
    /// The host is neither a DNS name nor an address in its usual form.
    Host,
    /// The port is not 1 to 65535.
    Port,
}

impl Destination {
    /// What `host[:port]` names; `default_port` where it has no port.
    pub fn of_authority(authority: &[u8], default_port: u16) -> Result<Self, NoDestination> {
        let host = host_of(authority);
        let port = match authority.get(host.len()..) {
            None | Some([]) => default_port,
            Some([b':', digits @ ..]) => port(digits)?,
            Some(_) => return Err(NoDestination::Host),
        };
        if port == 0 {
            return Err(NoDestination::Port);
        }
        let mut destination = Self { host: None, ip: None, port };
        match Host::parse(host)? {
            Host::Name(name) => destination.host = Some(name),
            Host::Address(ip) => destination.ip = Some(ip),
        }
        Ok(destination)
    }

    /// The place that a connection was made to, and the name that its client says (SNI, or the `Host` of a request
    /// without its port).
    pub fn of_address(address: SocketAddr, said: Option<&[u8]>) -> Result<Self, NoDestination> {
        let host = match said.map(Host::parse).transpose()? {
            Some(Host::Name(name)) => Some(name),
            // An address says nothing that the connection does not.
            Some(Host::Address(_)) | None => None,
        };
        Ok(Self { host, ip: Some(canonical(address.ip())), port: address.port() })
    }

    /// The same place at one of its name's addresses.
    pub fn at(&self, ip: IpAddr) -> Self {
        Self { host: self.host.clone(), ip: Some(canonical(ip)), port: self.port }
    }
}

impl HostName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when `wanted` names it.
    pub fn matches(&self, wanted: &HostMatch) -> bool {
        match wanted {
            HostMatch::Exact(name) => *name == self.0,
            HostMatch::Suffix(suffix) => self.0.len() > suffix.len() && self.0.ends_with(&**suffix),
        }
    }
}

/// A host as a client writes it.
enum Host {
    Name(HostName),
    Address(IpAddr),
}

impl Host {
    fn parse(text: &[u8]) -> Result<Self, NoDestination> {
        let text = core::str::from_utf8(text).map_err(|_| NoDestination::Host)?;
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or(NoDestination::Host)?;
            let ip: Ipv6Addr = inside.parse().map_err(|_| NoDestination::Host)?;
            return Ok(Self::Address(canonical(ip.into())));
        }
        // The dot at the end of an absolute name; a second one would be an empty label.
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NoDestination::Empty);
        }
        if name.len() > HOST_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(NoDestination::Host);
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            // The standard parser takes four decimal numbers without zeros in front and nothing else. Libraries that follow
            // inet_aton(3) take 127.1, 2130706433, 0x7f.1 and 0177.0.0.1 for addresses too: those have no place here.
            let ip: Ipv4Addr = text.parse().map_err(|_| NoDestination::Host)?;
            return Ok(Self::Address(ip.into()));
        }
        Ok(Self::Name(HostName(name.to_ascii_lowercase().into())))
    }
}

/// The address that `ip` is whatever it is written as: IPv4 in IPv6's form (RFC 4291 §2.5.5.2) is IPv4.
pub(super) const fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The IPv4 address that an IPv6 address leads to where the network translates: 64:ff9b::/96 (RFC 6052), and the old
/// forms of 6to4 (RFC 3056) and of compatible addresses (RFC 4291 §2.5.5.1).
pub(super) fn translated(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let last = |bits: u128| Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32)));
    let bits = v6.to_bits();
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => last(bits),
        [0x2002, ..] => last(bits >> 80),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => last(bits),
        _ => None,
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// True for a label that makes some libraries take the whole for an address (as the URL standard's "ends in a number").
fn is_number(label: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label.strip_prefix("0x").or(label.strip_prefix("0X")).is_some_and(hex)
}

/// 1 to 65535 in at most five digits.
fn port(digits: &[u8]) -> Result<u16, NoDestination> {
    let text = core::str::from_utf8(digits).map_err(|_| NoDestination::Port)?;
    if text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoDestination::Port);
    }
    text.parse().map_err(|_| NoDestination::Port)
}

/// `host:port`, the host by its name where it has one.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.ip) {
            (Some(host), _) => write!(f, "{}:{}", host.as_str(), self.port),
            (None, Some(ip)) => SocketAddr::new(ip, self.port).fmt(f),
            (None, None) => write!(f, ":{}", self.port),
        }
    }
}

impl fmt::Display for NoDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it names no host"),
            Self::Host => f.write_str("its host is neither a DNS name nor an IP address in its usual form"),
            Self::Port => f.write_str("its port is not a number from 1 to 65535"),
        }
    }
}

impl core::error::Error for NoDestination {}
