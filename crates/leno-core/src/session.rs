//! The control stream, both ends, without the wire: which names a proxy asked for, what it holds, what it must be
//! told next, what it acknowledged or refused.
//!
//! ```text
//!   proxy (Client)                                      control plane (Server)
//!     want(name) -> Request{subscribe}          ------>   receive -> index.subscribe, look at the name
//!     receive(Response) -> changes, answer      <------   poll(index) -> Response{resources, removed, nonce}
//!     Request{answer: nonce, rejected}          ------>   receive -> acknowledged; the next response may go
//! ```
//!
//! One response per kind is under way at a time. What changes meanwhile is not queued but looked up when the answer
//! has come, so a slow proxy costs no memory and skips what is already outdated.
//!
//! A stream that breaks loses nothing: the next one begins with the versions that the proxy holds, and the control
//! plane sends the differences, among them the removal of what is gone. Nothing is removed from a proxy because a
//! stream broke.

mod client;
mod server;

pub use client::{Changes, Client};
pub use server::{Received, Refusal, Server};

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::index::{Kind, Version};
use crate::name::ServiceId;
use crate::time::Duration;

/// Most names that one stream subscribes to. A proxy subscribes to what its workload calls; this is far more than
/// any calls and bounds what one peer can make the control plane keep (some 1 MB).
pub const SUBSCRIPTIONS_MAX: usize = 4096;

/// Content that one response carries before the rest waits for the next one, in bytes. One resource alone may be
/// larger. Keeps one large subscription from holding up everything else.
pub const RESPONSE_BYTES_TARGET: usize = 1 << 20;

/// How long a proxy may take to answer a response. A snapshot is built in milliseconds; a peer that reads nothing
/// for so long is broken, and a new stream resumes where it stopped.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Longest reason of a refusal that is kept, in bytes: shown by `leno status`.
pub const REASON_BYTES_MAX: usize = 512;

/// What a proxy sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which resources it is about.
    pub kind: Kind,
    /// Names to be told about from now on.
    pub subscribe: Vec<ServiceId>,
    /// Names of no more interest.
    pub unsubscribe: Vec<ServiceId>,
    /// In the first request of a kind on a stream: what is already held.
    pub held: BTreeMap<ServiceId, Version>,
    /// The answer to a response.
    pub answer: Option<Answer>,
}

/// A proxy's answer to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the response.
    pub nonce: u64,
    /// Resources that were refused, with reasons; the others were accepted.
    pub rejected: Vec<(ServiceId, String)>,
    /// Every offered resource was refused, with this reason. Leno's proxies name single ones instead.
    pub rejects_all: Option<String>,
}

/// What the control plane sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<T> {
    /// Which resources it is about.
    pub kind: Kind,
    /// To be given back in the answer.
    pub nonce: u64,
    /// The state of the mesh that this is a part of.
    pub generation: u64,
    /// New and changed ones.
    pub resources: Vec<Offer<T>>,
    /// Names that do not exist.
    pub removed: Vec<ServiceId>,
}

/// One resource in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<T> {
    /// Its name.
    pub id: ServiceId,
    /// Tells its content from any other.
    pub version: Version,
    /// Its content.
    pub content: T,
}

/// The place of `kind` in an array with one element per kind.
const fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Endpoints => 0,
        Kind::Service => 1,
        Kind::Gateway => 2,
        Kind::Egress => 3,
    }
}

#[cfg(test)]
mod tests;
