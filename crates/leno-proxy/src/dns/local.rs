//! Who may ask: programs beside us, and nobody who reaches us over a network. A sidecar that answered everybody would be a tool
//! for attacks with forged senders.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses remembered; a machine has few, and strangers are not worth more.
const REMEMBERED_MAX: usize = 64;
/// How long it is believed that an address is, or is not, this machine's.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// The addresses of this network namespace, found out as they are met.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Mutex<BTreeMap<IpAddr, (bool, Instant)>>);

impl Neighbours {
    /// True when `source` is an address of this network namespace.
    pub(crate) fn has(&self, source: SocketAddr) -> bool {
        let ip = source.ip().to_canonical();
        if ip.is_loopback() {
            return true;
        }
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((local, until)) = known.get(&ip)
            && now < *until
        {
            return *local;
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let local = is_own(SocketAddr::new(ip, 9), source);
        known.insert(ip, (local, now + REMEMBERED_FOR));
        local
    }
}

/// To an address of its own a host speaks from that address; to any other one from the address of an interface. Connecting a
/// datagram socket sends nothing, it only asks the kernel which one that is.
fn is_own(address: SocketAddr, source: SocketAddr) -> bool {
    let address = match (address, source) {
        // A link-local address means nothing without its interface.
        (SocketAddr::V6(mut address), SocketAddr::V6(source)) => {
            address.set_scope_id(source.scope_id());
            SocketAddr::V6(address)
        }
        (address, _) => address,
    };
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let own = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.local_addr()
    };
    own().is_ok_and(|own: SocketAddr| own.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::Neighbours;

    #[test]
    fn addresses_of_others_are_not_ours() {
        let neighbours = Neighbours::default();
        for (address, local) in [
            ("127.0.0.1:5", true),
            ("127.9.9.9:5", true),
            ("[::1]:5", true),
            ("[::ffff:127.0.0.1]:5", true),
            // Reserved for documentation: nobody's.
            ("192.0.2.1:5", false),
            ("198.51.100.7:5", false),
            ("[2001:db8::1]:5", false),
        ] {
            for _ in 0..2 {
                assert_eq!(neighbours.has(address.parse().unwrap()), local, "{address}");
            }
        }
    }
}
