//! Ranges of addresses.

use core::fmt;
use core::net::IpAddr;

/// A range of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address; the bits beyond the prefix are 0.
    network: IpAddr,
    /// How many bits all of its addresses share.
    prefix: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// What is before the `/` is no address.
    Address,
    /// What is after it is no number of bits of such an address.
    Prefix,
    /// Bits beyond the prefix are set; this is the range that it lies in.
    HostBits(Cidr),
    /// An IPv4 range written as IPv6 (`::ffff:10.0.0.0/104`): it is compared as IPv4 and must be written so.
    Mapped,
}

impl Cidr {
    /// Parses `ADDRESS/BITS`, or an address alone, which is a range of one.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        if matches!(network, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(CidrError::Mapped);
        }
        let bits = bits(network);
        let prefix = match prefix {
            None => bits,
            // No sign, no space, no zero in front: one way to write each.
            Some(text) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(CidrError::Prefix);
            }
            Some(text) if text.len() > 1 && text.starts_with('0') => return Err(CidrError::Prefix),
            Some(text) => text.parse().ok().filter(|prefix| *prefix <= bits).ok_or(CidrError::Prefix)?,
        };
        let masked = Self { network: mask(network, prefix), prefix };
        if masked.network == network { Ok(masked) } else { Err(CidrError::HostBits(masked)) }
    }

    /// True when `ip` lies in it. An address of the other family never does.
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip) == bits(self.network) && mask(ip, self.prefix) == self.network
    }
}

const fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `ip` with everything beyond the first `prefix` bits set to 0.
fn mask(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & kept).into())
        }
    }
}

/// The form that [`Cidr::parse`] reads.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the part before the `/` is no IP address"),
            Self::Prefix => f.write_str("the part after the `/` is no number of bits of that address"),
            Self::HostBits(range) => write!(f, "it has bits set beyond its prefix; the range is {range}"),
            Self::Mapped => f.write_str("it is an IPv4 range in IPv6's form"),
        }
    }
}

impl core::error::Error for CidrError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_range_has_one_spelling() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.7/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Cidr::parse("10.0.0.7").unwrap().to_string(), "10.0.0.7/32");
        for text in ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/", "::/129"] {
            assert_eq!(Cidr::parse(text), Err(CidrError::Prefix), "{text}");
        }
        for text in ["10.0.0/8", "", "/8", "10.0.0.0.0/8", "localhost/8", "010.0.0.0/8"] {
            assert_eq!(Cidr::parse(text), Err(CidrError::Address), "{text}");
        }
        assert_eq!(Cidr::parse("10.1.2.3/8"), Err(CidrError::HostBits(Cidr::parse("10.0.0.0/8").unwrap())));
        assert_eq!(Cidr::parse("::ffff:10.0.0.0/104"), Err(CidrError::Mapped));
    }

    #[test]
    fn a_range_contains_what_shares_its_prefix() {
        let contains = |range: &str, ip: &str| Cidr::parse(range).unwrap().contains(ip.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.255.255"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(!contains("::/0", "10.0.0.1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::"));
        assert!(contains("192.0.2.1/32", "192.0.2.1") && !contains("192.0.2.1/32", "192.0.2.0"));
    }
}
