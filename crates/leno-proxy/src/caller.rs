//! Where a request comes from, and what this hop makes of its head.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::detect::Port;
use leno_core::edit::Edits;
use leno_core::gateway::https_url;
use leno_core::head::{FieldId, RequestHead};
use leno_core::name::{Label, ServiceId};
use leno_core::rng::Rng;
use leno_core::route::{Link, Then};
use leno_core::snapshot::Entry;

use crate::body::Request;
use crate::gateway::Gate;
use crate::telemetry::PairId;

/// Where a request came from.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// The workload beside, through its forward proxy.
    Forward,
    /// The workload beside, through the local port of a dependency.
    Dependency {
        /// The service.
        service: ServiceId,
        /// Its name, as the authority of the request.
        authority: Arc<str>,
    },
    /// The workload beside, through a connection that was intercepted.
    Captured {
        /// The service that its destination stands for.
        service: Option<ServiceId>,
        /// The address that the workload connected to.
        destination: SocketAddr,
    },
    /// Outside, through a gateway that serves HTTP.
    Gateway(Gate),
    /// Outside, through a gateway that passes connections on.
    Passage {
        /// The service that takes them.
        service: ServiceId,
        /// The name that the client asked for, as far as it is known.
        authority: Arc<str>,
    },
    /// Nobody: it is a copy of a request.
    Mirror {
        /// The service and version that get it.
        target: (ServiceId, Option<Label>),
    },
    /// A peer, for the application beside.
    Inbound {
        /// The peer's service.
        source: Arc<str>,
        /// Its counters.
        pair: PairId,
    },
}

impl Caller {
    pub(crate) const fn entry(&self) -> Entry<'_> {
        match self {
            Self::Forward => Entry::Forward,
            Self::Dependency { service, .. } | Self::Passage { service, .. } => Entry::Dependency(service),
            // The address may be one instance's; and what it stands for is decided for each request anew.
            Self::Captured { destination, .. } => Entry::Address(*destination),
            Self::Gateway(_) => Entry::Gateway,
            Self::Inbound { .. } => Entry::Inbound,
            Self::Mirror { target } => Entry::Mirror(target),
        }
    }

    /// What rules may ask of the connection.
    pub(crate) fn link<'a>(&'a self, client: &Remote) -> Link<'a> {
        let (port, server_name) = match self {
            Self::Gateway(gate) => gate.entered_by(),
            Self::Captured { destination, .. } => (Some(destination.port()), None),
            _ => (None, None),
        };
        // Behind an address of both families IPv4 clients look like IPv6.
        Link { client: Some(client.address.ip().to_canonical()), port, server_name }
    }

    /// What a connection of this caller leads to, as far as its protocol may depend on it; `None` where that is fixed.
    pub(crate) fn port(&self) -> Option<Port> {
        match self {
            Self::Dependency { service, .. } | Self::Captured { service: Some(service), .. } => {
                Some(Port::Service(service.clone()))
            }
            Self::Captured { service: None, destination } => Some(Port::Address(*destination)),
            Self::Forward
            | Self::Gateway(_)
            | Self::Passage { .. }
            | Self::Mirror { .. }
            | Self::Inbound { .. } => None,
        }
    }

    /// The authority of a connection that says none itself.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Dependency { authority, .. } | Self::Passage { authority, .. } => authority.to_string(),
            Self::Captured { destination, .. } => destination.to_string(),
            Self::Forward | Self::Gateway(_) | Self::Mirror { .. } | Self::Inbound { .. } => String::new(),
        }
    }

    /// The head that decisions and the next hop see.
    pub(crate) fn head<'a>(&'a self, request: &'a Request) -> RequestHead<'a> {
        let mut head = request.head();
        if let Self::Dependency { authority, .. } = self {
            head.authority = authority.as_bytes();
        }
        head
    }

    /// What becomes of a request that the listener does not let in; `None`: the rules decide.
    pub(crate) fn turn_away(&self, head: &RequestHead<'_>) -> Option<Then> {
        match self {
            Self::Gateway(gate) => gate.turn_away(head),
            _ => None,
        }
    }

    /// Where a request is sent that has to come over HTTPS.
    pub(crate) fn https_url(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Gateway(gate) => https_url(head, gate.redirect()?),
            _ => None,
        }
    }

    /// What this hop adds to a request. Returns the request's id.
    pub(crate) fn edit(
        &self,
        edits: &mut Edits,
        head: &RequestHead<'_>,
        client: &Remote,
        rng: &mut Rng,
    ) -> RequestId {
        let id = match head.fields.get(FieldId::RequestId) {
            Some(given) if !given.is_empty() && given.len() <= RequestId::BYTES_MAX => {
                RequestId::given(given)
            }
            _ => {
                let id = RequestId::new(rng);
                edits.set(b"x-request-id", id.bytes());
                id
            }
        };
        if let Self::Gateway(gate) = self {
            gate.edit(edits, head, client);
        }
        id
    }
}

/// A request's id: the one that came, or a new one in the form of a random UUID.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl RequestId {
    /// A longer id is replaced.
    const BYTES_MAX: usize = 64;

    fn given(id: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        let length = id.len().min(Self::BYTES_MAX);
        bytes[..length].copy_from_slice(&id[..length]);
        Self { bytes, length }
    }

    fn new(rng: &mut Rng) -> Self {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
        random[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
        // Version 4, variant 1 (RFC 9562 §5.4).
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        let mut bytes = [b'-'; Self::BYTES_MAX];
        for (place, byte) in UUID_PLACES.into_iter().zip(random) {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            bytes[place] = DIGITS[usize::from(byte >> 4)];
            bytes[place + 1] = DIGITS[usize::from(byte & 15)];
        }
        Self { bytes, length: 36 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where the two digits of each byte stand in the text of a UUID; between the groups there is a dash.
const UUID_PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The other end of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Where it connected to, as far as anybody asked.
    pub(crate) destination: Option<SocketAddr>,
    ip: [u8; Self::IP_BYTES_MAX],
    ip_length: usize,
}

impl Remote {
    /// The longest text of an address: IPv6 with a dotted IPv4 part.
    const IP_BYTES_MAX: usize = 45;

    /// Writes the address out once for all requests of the connection.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut ip = [0; Self::IP_BYTES_MAX];
        let mut rest = &mut ip[..];
        // It fits by the definition of the length.
        let _ = write!(rest, "{}", address.ip());
        let ip_length = Self::IP_BYTES_MAX - rest.len();
        Self { address, destination: None, ip, ip_length }
    }

    /// The same with the address that it connected to.
    pub(crate) const fn with_destination(self, destination: SocketAddr) -> Self {
        Self { destination: Some(destination), ..self }
    }

    pub(crate) fn ip(&self) -> &[u8] {
        &self.ip[..self.ip_length]
    }
}

#[cfg(test)]
mod tests {
    use super::{Remote, RequestId, Rng};

    #[test]
    fn a_new_id_is_a_random_uuid() {
        let id = RequestId::new(&mut Rng::new(7));
        let text = std::str::from_utf8(id.bytes()).unwrap();
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert!(text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{text}");
        assert_eq!(text.as_bytes()[14], b'4', "{text}");
        assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
    }

    #[test]
    fn an_address_is_written_as_text() {
        for ip in ["127.0.0.1", "::1", "::ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"] {
            let client = Remote::new(std::net::SocketAddr::new(ip.parse().unwrap(), 1));
            assert_eq!(client.ip(), ip.as_bytes());
        }
    }

    #[test]
    fn rules_see_a_client_of_ipv4_as_one() {
        for (ip, expected) in [("::ffff:10.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1")] {
            let client = Remote::new(std::net::SocketAddr::new(ip.parse().unwrap(), 1));
            assert_eq!(super::Caller::Forward.link(&client).client, expected.parse().ok());
        }
    }
}
