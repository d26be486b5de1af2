//! The PROXY protocol, versions 1 and 2: what a load balancer says before the first byte of its client, so that the
//! address of the client is known behind it. Read and written; nothing is believed here. Who may send such a header is
//! the listener's decision: a forged one would let anybody be anybody.
//!
//! A version 1 header is one line of at most 107 bytes. A version 2 header is 16 bytes and what they announce, addresses
//! first and then extensions (TLVs), which are skipped.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// The longest line of version 1, its end included (by its specification).
pub const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is read. The addresses take 216 bytes at most; extensions are some hundred (the
/// ones of the large clouds have less than 100, a client's certificate name at most some KiB).
pub const V2_BYTES_MAX: usize = 4096;
/// How many bytes of a header have to be there before it can be told how long it is; also the shortest header.
const V2_FIXED_BYTES: usize = 16;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A header that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub bytes: usize,
    /// What it says of the client; `None`: the load balancer speaks for itself (a health check), or knows nothing that
    /// Leno could use.
    pub client: Option<Ends>,
}

/// Both ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client connected to.
    pub destination: SocketAddr,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// They begin like neither version.
    NoHeader,
    /// A line that is longer than version 1 allows.
    LineTooLong,
    /// A line that is not as version 1 wants it.
    Line,
    /// A version or command of the binary form that does not exist.
    Command,
    /// Addresses of a kind that does not exist, or that is none of TCP.
    Family,
    /// Shorter than its own addresses.
    TooShort,
    /// Longer than [`V2_BYTES_MAX`].
    TooLong,
}

impl Version {
    /// The word in a mesh file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Reads a header at the start of `bytes`; `None`: it may become one, more is needed. Never asks for more than
/// [`V2_BYTES_MAX`].
///
/// # Errors
/// What begins there is no header and cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(Invalid::NoHeader)
    }
}

/// Writes the header for a client's connection. Ends of two families are both written as IPv6.
pub fn encode(version: Version, ends: &Ends, out: &mut Vec<u8>) {
    let (source, destination) = (ends.source, ends.destination);
    let (source_ip, destination_ip) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (a @ IpAddr::V4(_), b @ IpAddr::V4(_)) => (a, b),
        (a, b) => (IpAddr::V6(mapped(a)), IpAddr::V6(mapped(b))),
    };
    match version {
        Version::V1 => {
            let family = if source_ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            let line = alloc::format!("PROXY {family} {source_ip} {destination_ip} {from} {to}\r\n");
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 => {
            out.extend_from_slice(V2_SIGNATURE);
            out.push(0x21);
            let (family, length) = if source_ip.is_ipv4() { (0x11, 12_u16) } else { (0x21, 36) };
            out.push(family);
            out.extend_from_slice(&length.to_be_bytes());
            for ip in [source_ip, destination_ip] {
                match ip {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}

/// True when `bytes` begin with `signature`, or end before they could differ from it.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let line = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < V1_BYTES_MAX { Ok(None) } else { Err(Invalid::LineTooLong) };
    };
    let text = line.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Invalid::Line)?;
    let text = core::str::from_utf8(text).map_err(|_| Invalid::Line)?;
    let mut words = text.split(' ');
    let (_proxy, family) = (words.next(), words.next());
    let client = match family {
        // Whatever else stands there has to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(v1_ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(v1_ends::<Ipv6Addr>(words)?),
        _ => return Err(Invalid::Line),
    };
    Ok(Some(Header { bytes: end + 1, client }))
}

fn v1_ends<'a, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'a str>) -> Result<Ends, Invalid> {
    let mut ip = || words.next()?.parse::<A>().ok().map(Into::into);
    let (source, destination): (Option<IpAddr>, Option<IpAddr>) = (ip(), ip());
    let mut port = || v1_port(words.next()?);
    let (from, to) = (port(), port());
    match (source, destination, from, to, words.next()) {
        (Some(source), Some(destination), Some(from), Some(to), None) => Ok(Ends {
            source: SocketAddr::new(source.to_canonical(), from),
            destination: SocketAddr::new(destination.to_canonical(), to),
        }),
        _ => Err(Invalid::Line),
    }
}

/// Decimal digits without a sign and without a zero in front.
fn v1_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    if digits && plain { text.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        // What cannot be read yet may be wrong already.
        return match bytes.get(12) {
            Some(command) if !matches!(command, 0x20 | 0x21) => Err(Invalid::Command),
            _ => Ok(None),
        };
    };
    let local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Invalid::Command),
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if V2_FIXED_BYTES + length > V2_BYTES_MAX {
        return Err(Invalid::TooLong);
    }
    let family = fixed[13];
    // Unspecified, TCP over IPv4, TCP over IPv6, a stream over a Unix socket. Of UDP nothing comes over TCP.
    let needed = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // A balancer that speaks for itself may say anything here.
        _ if local => 0,
        _ => return Err(Invalid::Family),
    };
    if length < needed && !local {
        return Err(Invalid::TooShort);
    }
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let client = match family {
        _ if local => None,
        0x11 => v2_ends::<4>(content),
        0x21 => v2_ends::<16>(content),
        _ => None,
    };
    Ok(Some(Header { bytes: V2_FIXED_BYTES + length, client }))
}

fn v2_ends<const N: usize>(content: &[u8]) -> Option<Ends> {
    let (source, rest) = content.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (ports, _extensions) = rest.split_first_chunk::<4>()?;
    let port = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Some(Ends {
        source: SocketAddr::new(ip(source)?, port(ports[0], ports[1])),
        destination: SocketAddr::new(ip(destination)?, port(ports[2], ports[3])),
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_canonical()),
    }
}

const fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "there is no PROXY header",
            Self::LineTooLong => "the PROXY line has no end within 107 bytes",
            Self::Line => "the PROXY line is not as version 1 wants it",
            Self::Command => "the PROXY header has a version or command that does not exist",
            Self::Family => "the PROXY header has addresses that are none of TCP",
            Self::TooShort => "the PROXY header is shorter than its addresses",
            Self::TooLong => "the PROXY header is longer than 4096 bytes",
        })
    }
}

impl core::error::Error for Invalid {}

#[cfg(test)]
mod tests;
