//! Names of places outside the mesh: looked up with the system's resolver (so that its files and its servers count as they
//! do for every program), again and again while somebody needs them. The last good answer stays when the DNS fails.
//!
//! [`follow`] stands between the world that a proxy is told of and the snapshots that are built from it: what is known by
//! name goes in, endpoints with addresses come out. [`Lookups`] is for single requests that leave the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use leno_core::external::{self, ADDRESSES_MAX, Addresses};
use leno_core::spec::World;
use leno_core::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How often names are looked up.
const PACE: Pace = Pace {
    refresh: Duration::from_secs(30),
    retry: Duration::from_secs(5),
    first_wait: Duration::from_secs(2),
};
/// How long one look-up may take: what resolvers allow for one server, twice.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Names that are kept up to date; those of a world beyond it have no addresses.
const NAMES_MAX: usize = 1024;
/// Look-ups under way at a time: each needs a thread of the runtime's.
const LOOKUPS_MAX: usize = 16;

/// The world with addresses for its names, first now and then whenever either changes.
pub(crate) async fn follow(world: watch::Receiver<Arc<World>>) -> watch::Receiver<Arc<World>> {
    follow_by(world, PACE, look_up).await
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long an answer is used before it is asked for again. The system's resolver does not tell the time that a server
    /// allows; 30 s follows a failover soon and is 2 questions a minute.
    refresh: Duration,
    /// How long after a failure the next attempt is made.
    retry: Duration,
    /// How long a new world waits for addresses of names that are new in it.
    first_wait: Duration,
}

async fn follow_by<F>(
    mut world: watch::Receiver<Arc<World>>,
    pace: Pace,
    look_up: impl Fn(Arc<str>) -> F + Clone + 'static + Send,
) -> watch::Receiver<Arc<World>>
where
    F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    let (answers, mut answered) = mpsc::channel(LOOKUPS_MAX);
    let mut names = Names { pace, known: BTreeMap::new(), under_way: 0 };
    let mut current = world.borrow_and_update().clone();
    names.want(external::names(&current));
    let ask = move |names: &mut Names| {
        for name in names.take_due(Instant::now()) {
            let (look_up, answers) = (look_up.clone(), answers.clone());
            tokio::spawn(async move {
                let found = tokio::time::timeout(LOOKUP_TIMEOUT, look_up(name.clone())).await;
                let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                // Nobody listens any more when the proxy stops.
                let _ = answers.send((name, found)).await;
            });
        }
    };
    ask(&mut names);
    let patience = Instant::now() + pace.first_wait;
    while names.is_waiting() {
        tokio::select! {
            Some((name, found)) = answered.recv() => drop(names.learn(&name, found, Instant::now())),
            () = sleep_until(patience) => break,
        }
        ask(&mut names);
    }
    let (sender, receiver) = watch::channel(names.applied_to(&current));
    tokio::spawn(async move {
        let mut source_ended = false;
        // Set while something is to be published; it waits for what is new in it.
        let mut patience = None;
        loop {
            if let Some(until) = patience
                && (!names.is_waiting() || Instant::now() >= until)
            {
                patience = None;
                if sender.send(names.applied_to(&current)).is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = world.changed(), if !source_ended => match changed {
                    Ok(()) => {
                        current = world.borrow_and_update().clone();
                        names.want(external::names(&current));
                        patience = Some(Instant::now() + pace.first_wait);
                    }
                    // Without a source the last world serves on, and its names may still move.
                    Err(_) => source_ended = true,
                },
                Some((name, found)) = answered.recv() => {
                    if names.learn(&name, found, Instant::now()) {
                        patience.get_or_insert_with(Instant::now);
                    }
                }
                () = sleep_until(names.next_due().min(patience.unwrap_or_else(far_away))) => {}
                () = sender.closed() => return,
            }
            ask(&mut names);
        }
    });
    receiver
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(24 * 60 * 60)
}

/// What is known of names.
#[derive(Debug)]
struct Names {
    pace: Pace,
    known: BTreeMap<Arc<str>, Known>,
    /// Look-ups under way.
    under_way: usize,
}

#[derive(Debug)]
struct Known {
    /// The last good answer; empty: there was none yet.
    addresses: Vec<IpAddr>,
    /// When to ask again; `None` while that is under way.
    due: Option<Instant>,
    /// Something was heard of it, good or bad.
    heard: bool,
    failing: bool,
}

impl Names {
    /// Follows exactly these names.
    fn want(&mut self, names: BTreeSet<Arc<str>>) {
        self.known.retain(|name, _| names.contains(name));
        if names.len() > NAMES_MAX {
            tracing::warn!(
                names = names.len(),
                most = NAMES_MAX,
                "too many names of services outside the mesh"
            );
        }
        for name in names.into_iter().take(NAMES_MAX) {
            self.known.entry(name).or_insert_with(|| Known {
                addresses: Vec::new(),
                due: Some(Instant::now()),
                heard: false,
                failing: false,
            });
        }
    }

    /// Names to look up now, which are under way from then on.
    fn take_due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let room = LOOKUPS_MAX.saturating_sub(self.under_way);
        let due = self.known.iter_mut().filter(|(_, known)| known.due.is_some_and(|due| due <= now));
        let taken: Vec<Arc<str>> = due
            .take(room)
            .map(|(name, known)| {
                known.due = None;
                name.clone()
            })
            .collect();
        self.under_way += taken.len();
        taken
    }

    /// Takes an answer in; true when it changes where somebody goes.
    fn learn(&mut self, name: &Arc<str>, found: io::Result<Vec<IpAddr>>, now: Instant) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        // It may have been given up meanwhile.
        let Some(known) = self.known.get_mut(name) else { return false };
        known.heard = true;
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                if known.failing {
                    tracing::info!(%name, "the name has addresses again");
                }
                (known.failing, known.due) = (false, Some(now + self.pace.refresh));
                let changed = known.addresses != addresses;
                known.addresses = addresses;
                changed
            }
            failed => {
                if !known.failing {
                    let error =
                        failed.err().map_or_else(|| "it has no address".to_owned(), |it| it.to_string());
                    let kept = known.addresses.len();
                    tracing::warn!(%name, error, kept, "a name outside the mesh cannot be looked up; what was known of it stays");
                }
                (known.failing, known.due) = (true, Some(now + self.pace.retry));
                false
            }
        }
    }

    /// True while nothing was heard of some name.
    fn is_waiting(&self) -> bool {
        self.known.values().any(|known| !known.heard)
    }

    /// When to look next, if there is room then.
    fn next_due(&self) -> Instant {
        let due = self.known.values().filter_map(|known| known.due).min();
        due.filter(|_| self.under_way < LOOKUPS_MAX).unwrap_or_else(far_away)
    }

    fn applied_to(&self, world: &Arc<World>) -> Arc<World> {
        if world.services.values().all(|service| service.spec.external.is_none()) {
            return world.clone();
        }
        let addresses: Addresses =
            self.known.iter().map(|(name, known)| (name.clone(), known.addresses.clone())).collect();
        Arc::new(external::resolve(world, &addresses))
    }
}

/// What one worker remembers of names that single requests went to.
#[derive(Debug)]
pub(crate) struct Lookups {
    known: BTreeMap<Arc<str>, (Vec<IpAddr>, Instant)>,
    /// Look-ups that may begin.
    room: Arc<Semaphore>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { known: BTreeMap::new(), room: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// The resolver says so, or says nothing in time.
    Unknown,
    /// Too many others are being looked up.
    Busy,
}

/// The addresses of a name for one request; from memory if they were found lately.
pub(crate) async fn find(
    lookups: &std::cell::RefCell<Lookups>,
    name: &str,
) -> Result<Vec<IpAddr>, NoAddress> {
    let now = Instant::now();
    if let Some((addresses, until)) = lookups.borrow().known.get(name)
        && *until > now
    {
        return if addresses.is_empty() { Err(NoAddress::Unknown) } else { Ok(addresses.clone()) };
    }
    let room = lookups.borrow().room.clone();
    let name: Arc<str> = name.into();
    let (found, until) = {
        let _one = room.try_acquire().map_err(|_| NoAddress::Busy)?;
        match tokio::time::timeout(LOOKUP_TIMEOUT, look_up(name.clone())).await {
            Ok(Ok(found)) => (found, Instant::now() + PACE.refresh),
            Ok(Err(_)) | Err(_) => (Vec::new(), Instant::now() + PACE.retry),
        }
    };
    let known = &mut lookups.borrow_mut().known;
    if known.len() >= NAMES_MAX {
        known.retain(|_, (_, until)| *until > now);
    }
    if known.len() >= NAMES_MAX {
        known.clear();
    }
    known.insert(name, (found.clone(), until));
    if found.is_empty() { Err(NoAddress::Unknown) } else { Ok(found) }
}

/// Asks the system.
async fn look_up(name: Arc<str>) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((&*name, 0)).await?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found.map(|address| address.ip().to_canonical()) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    // In the order of the answer, without families that this machine has no way to: each of their addresses would cost
    // an attempt. When there is no way to any, an attempt says so best.
    let reachable: Vec<IpAddr> = addresses.iter().copied().filter(|ip| has_way_to(*ip)).collect();
    Ok(if reachable.is_empty() { addresses } else { reachable })
}

/// True when the kernel has a route. Connecting a datagram socket sends nothing.
fn has_way_to(ip: IpAddr) -> bool {
    let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    // The port is of no importance, but 0 is refused.
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect((ip, 443)).is_ok())
}

#[cfg(test)]
mod tests;
