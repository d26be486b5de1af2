//! What leaves the mesh: whether it may is decided by [`leno_core::egress`]; here its name is looked up when that is
//! needed, and the addresses are found that it goes to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use leno_core::edit::Edits;
use leno_core::egress::{Destination, Verdict, is_own_machine};
use leno_core::head::{RequestHead, host_of};
use leno_core::mux::Kind;
use leno_core::name::ServiceId;
use leno_core::reason::Reason;
use leno_core::route::{Decision, Then};
use leno_core::snapshot::Snapshot;

use crate::caller::Caller;
use crate::names::{self, NoAddress};
use crate::telemetry::bump;
use crate::worker::Worker;

/// Where something goes that leaves the mesh, or why it does not.
#[derive(Debug)]
pub(super) struct Leave {
    /// What the exchange does.
    pub(super) then: Then,
    /// Where to, in the order in which to try.
    pub(super) addresses: Vec<SocketAddr>,
    /// Why it is refused, in words.
    pub(super) why: Option<String>,
    /// The rule that let it out.
    pub(super) rule: Option<Arc<str>>,
    /// What the gateway that it passes is told, or is not to pass on.
    hint: Hint,
}

/// What one Leno tells the other about something that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// Nothing: it does not pass a gateway.
    None,
    /// The port, which a request's authority may not have.
    Port(u16),
    /// It was for us.
    Taken,
}

/// The header with the port, between a sidecar and the gateway that what leaves passes; no one else ever sees it.
const PORT_HEADER: &[u8] = b"leno-egress-port";

/// Decides about what is for no service of the mesh: a decision for [`Then::NoSuchService`] or [`Then::Direct`].
/// `None` when it is not about to leave after all.
pub(super) async fn leave(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    kind: Kind,
    head: &RequestHead<'_>,
    decision: &Decision,
) -> Option<Leave> {
    let own = worker.own_service()?;
    let destination = match (caller, decision.then) {
        (Caller::Forward, Then::NoSuchService) => {
            Destination::of_authority(head.authority, if kind == Kind::Tcp { 0 } else { HTTP_PORT })
        }
        (Caller::Captured { service: None, destination }, Then::Direct(_)) => {
            Destination::of_address(*destination, said(head.authority, *destination))
        }
        // What sidecars send to the gateway that everything passes. Nothing else comes to a gateway in this way.
        (Caller::Inbound { .. }, Then::NoSuchService) if snapshot.is_egress_gateway(&own) => {
            let told = head
                .fields
                .get_named(PORT_HEADER)
                .and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
            match told.filter(|_| kind != Kind::Tcp) {
                Some(port) => Destination::of_authority(host_of(head.authority), port),
                None => {
                    Destination::of_authority(head.authority, if kind == Kind::Tcp { 0 } else { HTTP_PORT })
                }
            }
        }
        _ => return None,
    };
    let source = match caller {
        Caller::Inbound { source, .. } => ServiceId::parse(source).ok()?,
        _ => own,
    };
    let mut leave = match destination {
        Ok(destination) if snapshot.is_of_mesh(&destination) => Leave::refused(Reason::NoSuchService, None),
        Ok(destination) => decide(worker, snapshot, caller, &source, &destination).await,
        Err(error) => Leave::denied(format!("{}: {error}", text(head.authority))),
    };
    if matches!(caller, Caller::Inbound { .. }) {
        leave.hint = Hint::Taken;
    }
    Some(leave)
}

/// The port of `http://host/`.
const HTTP_PORT: u16 = 80;

/// The name that a captured client says: the host of a request, or of a TLS connection. A connection that says none has its
/// own address as its authority.
fn said(authority: &[u8], destination: SocketAddr) -> Option<&[u8]> {
    let host = host_of(authority);
    let silent = host.is_empty() || authority == destination.to_string().as_bytes();
    (!silent).then_some(host)
}

async fn decide(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    source: &ServiceId,
    destination: &Destination,
) -> Leave {
    let port = destination.port;
    let inbound = matches!(caller, Caller::Inbound { .. });
    // A name is looked up once at most: for the rules if they ask for addresses, else for the way.
    let mut found: Option<Vec<IpAddr>> = None;
    let first = snapshot.may_leave(source, destination);
    if let Some(then) =
        snapshot.egress_via(source).filter(|_| !inbound && !matches!(first, Verdict::Denied(_)))
    {
        // The gateway looks names up, and decides once more.
        let rule = match first {
            Verdict::Allowed { rule, .. } => rule.cloned(),
            _ => None,
        };
        return Leave { then, addresses: Vec::new(), why: None, rule, hint: Hint::Port(port) };
    }
    let (allowed, rule) = match first {
        Verdict::Denied(why) => return Leave::denied(format!("{destination}: {why}")),
        Verdict::Allowed { rule, by_name } => {
            let ips = match (&destination.host, destination.ip) {
                // The client's own choice of an address, which no rule about names let out.
                (_, Some(ip)) if !by_name => vec![ip],
                (Some(host), _) => match look_up(worker, host.as_str(), &mut found).await {
                    Ok(ips) => prefer(ips, destination.ip),
                    Err(leave) => return leave,
                },
                (None, Some(ip)) => vec![ip],
                (None, None) => Vec::new(),
            };
            (ips, rule.cloned())
        }
        Verdict::AddressNeeded => {
            let Some(host) = &destination.host else { return Leave::denied(destination.to_string()) };
            let ips = match look_up(worker, host.as_str(), &mut found).await {
                Ok(ips) => prefer(ips, destination.ip),
                Err(leave) => return leave,
            };
            let (mut allowed, mut by, mut denied) = (Vec::new(), None, None);
            for ip in ips {
                match snapshot.may_leave(source, &destination.at(ip)) {
                    Verdict::Allowed { rule, .. } => {
                        allowed.push(ip);
                        by = by.or(rule.cloned());
                    }
                    Verdict::Denied(why) => {
                        denied.get_or_insert_with(|| format!("{destination} at {ip}: {why}"));
                    }
                    Verdict::AddressNeeded => {}
                }
            }
            if let (true, Some(why)) = (allowed.is_empty(), denied) {
                return Leave::denied(why);
            }
            (allowed, by)
        }
    };
    let mut addresses: Vec<SocketAddr> = allowed.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.iter().any(|address| is_ourselves(worker, *address)) {
        return Leave::denied(format!("{destination} is this proxy itself"));
    }
    if inbound {
        addresses.retain(|address| !is_own_machine(address.ip()));
        if addresses.is_empty() {
            return Leave::denied(format!("{destination} is the gateway's own machine"));
        }
    }
    match addresses.first() {
        Some(first) => Leave { then: Then::Direct(*first), addresses, why: None, rule, hint: Hint::None },
        None => Leave::refused(Reason::NameNotResolved, Some(destination.to_string())),
    }
}

async fn look_up(
    worker: &Rc<Worker>,
    host: &str,
    found: &mut Option<Vec<IpAddr>>,
) -> Result<Vec<IpAddr>, Leave> {
    if let Some(found) = found {
        return Ok(found.clone());
    }
    match names::find(&worker.lookups, host).await {
        Ok(ips) => Ok(found.insert(ips).clone()),
        Err(NoAddress::Unknown) => Err(Leave::refused(Reason::NameNotResolved, Some(host.to_owned()))),
        Err(NoAddress::Busy) => {
            bump(&mut worker.telemetry().limits, "lookups");
            Err(Leave::refused(Reason::Overload, Some("too many names are being looked up".to_owned())))
        }
    }
}

/// The address that the client had dialed comes first, if it is one of the name's.
fn prefer(mut ips: Vec<IpAddr>, wanted: Option<IpAddr>) -> Vec<IpAddr> {
    if let Some(at) = wanted.and_then(|wanted| ips.iter().position(|ip| *ip == wanted)) {
        ips.swap(0, at);
    }
    ips
}

/// True when a listener of this proxy is there that would take what arrives for something that leaves, and send it to
/// itself again.
fn is_ourselves(worker: &Worker, address: SocketAddr) -> bool {
    worker.own_addresses.iter().any(|own| {
        let every = own.ip().is_unspecified();
        own.port() == address.port() && (own.ip() == address.ip() || (every && is_local(address.ip())))
    })
}

/// True for an address of this machine: only those can be bound.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// What a client wrote, fit for an answer.
fn text(authority: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 100;
    let shown = authority.get(..SHOWN_BYTES_MAX).unwrap_or(authority);
    String::from_utf8_lossy(shown).chars().filter(|c| !c.is_control()).collect()
}

impl Leave {
    /// What this hop makes of the request's head.
    pub(super) fn edit(&self, edits: &mut Edits) {
        match self.hint {
            Hint::Port(port) => edits.set(PORT_HEADER, port.to_string().as_bytes()),
            // A client's own header of that name says nothing.
            Hint::Taken | Hint::None => edits.remove(PORT_HEADER),
        }
    }

    fn refused(reason: Reason, why: Option<String>) -> Self {
        Self { then: Then::Refused(reason), addresses: Vec::new(), why, rule: None, hint: Hint::None }
    }

    fn denied(why: String) -> Self {
        Self::refused(Reason::EgressDenied, Some(why))
    }
}

#[cfg(test)]
mod tests;
