//! Virtual addresses: what a name of the mesh resolves to. An application connects to one, the connection is intercepted, and
//! its destination tells which service was meant, whatever is spoken on it.
//!
//! An address follows from the name alone (by a hash that must never change), so that every sidecar gives the same one before
//! and after a restart, without asking anybody. Only two names whose IPv4 addresses would be the same depend on their order:
//! the later one gets the next free address, and keeps it as long as the process lives. With 1,000 names that happens to about
//! 8 of them.
//!
//! The ranges are ones that nobody routes: 240.240.0.0/16 of what is reserved since 1989 (RFC 1112 §4), and 2001:2::/48, which
//! is for benchmarks of isolated networks (RFC 5180 §8).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::{Label, ServiceId};

/// The first 16 bits of every virtual IPv4 address.
pub const V4_PREFIX: [u8; 2] = [240, 240];
/// The first 48 bits of every virtual IPv6 address.
pub const V6_PREFIX: [u16; 3] = [0x2001, 2, 0];

/// The first number in the IPv4 range that a name can have. Below it is room for what people take by hand, and the range's own
/// address.
const V4_FIRST: u16 = 256;
/// The last one: 255.255 looks like a broadcast address.
const V4_LAST: u16 = 65_534;
/// Numbers of IPv6 addresses begin here, for the same reason as [`V4_FIRST`].
const V6_FIRST: u128 = 1 << 16;
/// Numbers of IPv6 addresses end before this one: 80 bits.
const V6_END: u128 = 1 << 80;

/// Names whose addresses are remembered although the world has lost them. Beyond it, those that were gone longest are forgotten;
/// what comes back gets its old address from the hash. Half of the IPv4 range, so that free addresses stay near.
pub const REMEMBERED_MAX: usize = 32_768;

/// The addresses of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vip {
    /// `None` when 65,279 names have one already.
    pub v4: Option<Ipv4Addr>,
    /// There is always one left of these.
    pub v6: Ipv6Addr,
}

/// The addresses given to names so far. There is one in a process, and one task that writes it: the one that builds snapshots.
#[derive(Clone, Debug, Default)]
pub struct Vips {
    /// By full name.
    names: BTreeMap<Arc<str>, Held>,
    v4: Taken,
    v6: BTreeSet<u128>,
    /// Worlds seen so far.
    round: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    v4: Option<u16>,
    v6: u128,
    /// The last world that had the name.
    seen: u64,
}

impl Vips {
    /// Nobody has an address yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new world begins: what is not asked for again until [`Vips::end_round`] is gone from the mesh.
    pub const fn begin_round(&mut self) {
        self.round += 1;
    }

    /// The addresses of a service; the same at every call.
    pub fn service(&mut self, id: &ServiceId) -> Vip {
        self.named(&alloc::format!("{}/{}", id.namespace, id.name))
    }

    /// The addresses of one instance of a service; the same at every call.
    pub fn instance(&mut self, id: &ServiceId, instance: &Label) -> Vip {
        // A label has no '/', so that no service can have this name.
        self.named(&alloc::format!("{}/{}/{instance}", id.namespace, id.name))
    }

    /// The world is complete. Forgets the names that were gone longest when there are more than [`REMEMBERED_MAX`].
    pub fn end_round(&mut self) {
        if self.names.len() <= REMEMBERED_MAX {
            return;
        }
        let mut gone: Vec<(u64, Arc<str>)> = self
            .names
            .iter()
            .filter(|(_, held)| held.seen != self.round)
            .map(|(name, held)| (held.seen, name.clone()))
            .collect();
        gone.sort();
        for (_, name) in gone.into_iter().take(self.names.len() - REMEMBERED_MAX) {
            if let Some(held) = self.names.remove(&name) {
                self.v6.remove(&held.v6);
                if let Some(v4) = held.v4 {
                    self.v4.set(v4, false);
                }
            }
        }
    }

    /// How many names have addresses.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True before the first name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn named(&mut self, name: &str) -> Vip {
        if let Some(held) = self.names.get_mut(name) {
            held.seen = self.round;
            return held.vip();
        }
        let hash = fnv1a(name.as_bytes());
        let held = Held { v4: self.free_v4(hash), v6: self.free_v6(hash), seen: self.round };
        self.names.insert(name.into(), held);
        if let Some(v4) = held.v4 {
            self.v4.set(v4, true);
        }
        self.v6.insert(held.v6);
        held.vip()
    }

    /// The first free number at or after the one that the hash says, going round once.
    fn free_v4(&self, hash: u128) -> Option<u16> {
        const NUMBERS: u64 = (V4_LAST - V4_FIRST) as u64 + 1;
        let wanted = mixed(hash) % NUMBERS;
        (0..NUMBERS).map(|step| V4_FIRST + ((wanted + step) % NUMBERS) as u16).find(|at| !self.v4.has(*at))
    }

    fn free_v6(&self, hash: u128) -> u128 {
        let mut wanted = hash % V6_END;
        // At most one step for each name there is.
        while wanted < V6_FIRST || self.v6.contains(&wanted) {
            wanted = if wanted < V6_FIRST { wanted + V6_FIRST } else { (wanted + 1) % V6_END };
        }
        wanted
    }
}

/// Numbers in use: one bit each, so that a search among many is short.
#[derive(Clone, Debug, Default)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, number: u16) -> bool {
        self.0.get(usize::from(number / 64)).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn set(&mut self, number: u16, taken: bool) {
        let at = usize::from(number / 64);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            let bit = 1 << (number % 64);
            *word = if taken { *word | bit } else { *word & !bit };
        }
    }
}

impl Held {
    fn vip(&self) -> Vip {
        let [a, b] = V4_PREFIX;
        let v4 = self.v4.map(u16::to_be_bytes).map(|[c, d]| Ipv4Addr::new(a, b, c, d));
        let prefix = V6_PREFIX.iter().fold(0_u128, |bits, part| bits << 16 | u128::from(*part));
        Vip { v4, v6: Ipv6Addr::from(prefix << 80 | self.v6) }
    }
}

impl Vip {
    /// Both addresses, or the only one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(self.v6)])
    }
}

/// True for an address of the virtual ranges, whether or not somebody has it: a connection to one is for the mesh or for nobody.
pub fn is_virtual(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets()[..2] == V4_PREFIX,
        IpAddr::V6(address) => address.segments()[..3] == V6_PREFIX,
    }
}

/// The address that a name for reverse look-up stands for, such as `1.2.240.240.in-addr.arpa` or 32 nibbles below `ip6.arpa`;
/// labels in lower case. `None` for one that is shorter, or no such name.
pub fn of_reverse_name(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [bytes @ .., "in-addr", "arpa"] => {
            let mut octets = [0; 4];
            if bytes.len() != octets.len() {
                return None;
            }
            for (octet, text) in octets.iter_mut().zip(bytes.iter().rev()) {
                *octet = text.parse().ok()?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        [nibbles @ .., "ip6", "arpa"] => {
            if nibbles.len() != 32 {
                return None;
            }
            let mut bits = 0_u128;
            for text in nibbles.iter().rev() {
                let nibble = u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 1)?;
                bits = bits << 4 | u128::from(nibble);
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

/// The names that zones of virtual addresses have for reverse look-up.
pub fn reverse_zones() -> [String; 2] {
    let [a, b] = V4_PREFIX;
    let mut v6 = String::new();
    for part in V6_PREFIX.iter().rev() {
        for shift in [0, 4, 8, 12] {
            v6.push_str(&alloc::format!("{:x}.", part >> shift & 15));
        }
    }
    [alloc::format!("{b}.{a}.in-addr.arpa"), v6 + "ip6.arpa"]
}

/// FNV-1a with 128 bits. It must never change: addresses that applications remember follow from it.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// 64 bits of a hash in which every bit has a part: names that end alike would share the low ones' pattern.
const fn mixed(hash: u128) -> u64 {
    let mut z = (hash >> 64) as u64 ^ hash as u64;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
