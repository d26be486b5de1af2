//! Where a request comes from, and what this hop makes of its head.

use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::edit::Edits;
use leno_core::head::{FieldId, RequestHead};
use leno_core::name::ServiceId;
use leno_core::rng::Rng;
use leno_core::snapshot::Entry;

use crate::body::Request;
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
    /// Outside, through a gateway.
    Gateway,
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
            Self::Dependency { service, .. } => Entry::Dependency(service),
            Self::Gateway => Entry::Gateway,
            Self::Inbound { .. } => Entry::Inbound,
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

    /// What this hop adds to a request. Returns the request's id.
    pub(crate) fn edit(
        &self,
        edits: &mut Edits,
        head: &RequestHead<'_>,
        peer: SocketAddr,
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
        if matches!(self, Self::Gateway) {
            // Several lines are one list (RFC 9110 §5.3).
            let mut chain = Vec::new();
            for (_, name, value) in head.fields.iter() {
                if name.eq_ignore_ascii_case(b"x-forwarded-for") && !value.is_empty() {
                    chain.extend_from_slice(value);
                    chain.extend_from_slice(b", ");
                }
            }
            chain.extend_from_slice(peer.ip().to_string().as_bytes());
            edits.set(b"x-forwarded-for", &chain);
            edits.set(b"x-forwarded-proto", b"http");
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
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let random = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
        // Version 4, variant 1 (RFC 9562 §5.4).
        let value = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let mut bytes = [0; Self::BYTES_MAX];
        let mut at = 0;
        for digit in 0..32 {
            if matches!(digit, 8 | 12 | 16 | 20) {
                bytes[at] = b'-';
                at += 1;
            }
            bytes[at] = DIGITS[(value >> (124 - 4 * digit)) as usize & 15];
            at += 1;
        }
        Self { bytes, length: at }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
