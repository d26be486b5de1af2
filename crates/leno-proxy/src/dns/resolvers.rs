//! The system's resolvers, as /etc/resolv.conf names them (resolv.conf(5)), or as the operator does. The file is looked at again
//! when it may have changed: laptops move, and containers are connected late.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Where the C library looks.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Resolvers used; the C library takes 3, an operator may name some more.
const SERVERS_MAX: usize = 8;
/// Search domains used (glibc since 2.26 takes any number; six was the limit before).
const SEARCH_MAX: usize = 16;
/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A larger file is not one.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How long a resolver may take when the file does not say. The C library waits 5 s; it is our client, and should hear of a dead
/// resolver from us.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// How often each is asked when the file does not say (the same in the C library).
const ATTEMPTS: u32 = 2;
/// How long a question may take over all resolvers when the file does not say: less than the C library's 5 s.
pub(crate) const DEADLINE: Duration = Duration::from_millis(4500);
/// And at most, whatever the file says.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// A resolver that did not answer is asked after the others for so long.
pub(crate) const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order in which they are asked.
    pub(crate) servers: Vec<SocketAddr>,
    /// How long each may take.
    pub(crate) timeout: Duration,
    /// How often each is asked.
    pub(crate) attempts: u32,
    /// How long all of it may take.
    pub(crate) deadline: Duration,
    /// What is appended to bare names; lower case, label by label.
    pub(crate) search: Vec<Vec<String>>,
}

/// The plan, kept up to date.
#[derive(Debug)]
pub(crate) struct Resolvers {
    path: PathBuf,
    /// What the operator said; empty: what the file says.
    fixed: Vec<SocketAddr>,
    /// Our own listeners: asking them would be asking ourselves.
    own: Vec<SocketAddr>,
    plan: Plan,
    /// What the file looked like when it was read.
    seen: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
}

impl Resolvers {
    /// Reads the file for the first time.
    pub(crate) fn new(path: &Path, fixed: Vec<SocketAddr>, own: Vec<SocketAddr>) -> Self {
        let plan = Plan::parse("");
        let mut resolvers = Self { path: path.to_owned(), fixed, own, plan, seen: None, looked: None };
        resolvers.read();
        resolvers
    }

    /// The plan as it is now. `changed` is true when it was read anew.
    pub(crate) fn current(&mut self, now: Instant) -> (&Plan, bool) {
        let mut changed = false;
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            if appearance(&self.path) != self.seen {
                self.read();
                changed = true;
            }
        }
        (&self.plan, changed)
    }

    fn read(&mut self) {
        self.seen = appearance(&self.path);
        let small = self.seen.is_some_and(|(_, bytes)| bytes <= FILE_BYTES_MAX);
        let text = if small { fs::read_to_string(&self.path).unwrap_or_default() } else { String::new() };
        let mut plan = Plan::parse(&text);
        if !self.fixed.is_empty() {
            plan.servers.clone_from(&self.fixed);
        }
        let own = &self.own;
        plan.servers.retain(|server| !own.iter().any(|own| same(*own, *server)));
        plan.servers.truncate(SERVERS_MAX);
        if plan.servers.is_empty() {
            tracing::warn!(
                path = %self.path.display(),
                "no resolver is left that is not this proxy itself: only names of the mesh are resolved; give --dns-upstream"
            );
        }
        self.plan = plan;
    }
}

impl Plan {
    /// What a resolv.conf says. What it says wrongly is passed over, as the C library does.
    fn parse(text: &str) -> Self {
        let mut plan = Self {
            servers: Vec::new(),
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            deadline: DEADLINE,
            search: Vec::new(),
        };
        let mut timeout_said = false;
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if plan.servers.len() < SERVERS_MAX => {
                    plan.servers
                        .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()).map(port_53));
                }
                // The last line of either holds.
                Some("search" | "domain") => {
                    plan.search = words.filter_map(labels).take(SEARCH_MAX).collect();
                }
                Some("options") => {
                    for word in words {
                        match word.split_once(':') {
                            // The bounds are the C library's.
                            Some(("timeout", seconds)) => {
                                if let Ok(seconds) = seconds.parse::<u64>() {
                                    plan.timeout = Duration::from_secs(seconds.clamp(1, 30));
                                    timeout_said = true;
                                }
                            }
                            Some(("attempts", times)) => {
                                if let Ok(times) = times.parse::<u32>() {
                                    plan.attempts = times.clamp(1, 5);
                                }
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if plan.servers.is_empty() {
            plan.servers.push(port_53(Ipv4Addr::LOCALHOST.into()));
        }
        if timeout_said {
            plan.deadline = (plan.timeout * plan.attempts).clamp(DEADLINE, DEADLINE_MAX);
        }
        plan
    }
}

/// Tells whether the file may have changed.
fn appearance(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn port_53(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 53)
}

/// A listener on every address is reached at each of this machine's; those of loopback are sure to be.
fn same(own: SocketAddr, server: SocketAddr) -> bool {
    own.port() == server.port()
        && (own.ip() == server.ip() || (own.ip().is_unspecified() && server.ip().is_loopback()))
}

fn labels(domain: &str) -> Option<Vec<String>> {
    let domain = domain.trim_matches('.').to_ascii_lowercase();
    let labels: Vec<String> = domain.split('.').map(str::to_owned).collect();
    labels.iter().all(|label| !label.is_empty()).then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_people_write_it() {
        let plan = Plan::parse(
            "# made by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # second\nnameserver nonsense\n\
             domain old.example\nsearch Corp.Example. lab.example ..\noptions ndots:5 timeout:2 attempts:9 rotate\n",
        );
        let servers: Vec<String> = plan.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(plan.search, [["corp", "example"], ["lab", "example"]]);
        assert_eq!((plan.timeout, plan.attempts), (Duration::from_secs(2), 5));
        assert_eq!(plan.deadline, Duration::from_secs(10));
    }

    #[test]
    fn an_empty_file_means_this_machine() {
        let plan = Plan::parse("options timeout:x\n");
        assert_eq!(plan.servers, [port_53(Ipv4Addr::LOCALHOST.into())]);
        assert_eq!((plan.timeout, plan.deadline), (TIMEOUT, DEADLINE));
    }

    #[test]
    fn the_file_is_read_again_and_never_leads_to_ourselves() {
        let folder = std::env::temp_dir().join(format!("leno-resolv-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.1\nnameserver 192.0.2.9\n").unwrap();
        let own = vec!["127.0.0.1:53".parse().unwrap()];
        let mut resolvers = Resolvers::new(&path, vec![], own);
        let start = Instant::now();
        assert_eq!(resolvers.current(start).0.servers, ["192.0.2.9:53".parse().unwrap()]);
        fs::write(&path, "nameserver 192.0.2.10\n").unwrap();
        assert_eq!(resolvers.current(start).0.servers, ["192.0.2.9:53".parse().unwrap()]);
        let (plan, changed) = resolvers.current(start + LOOK_EVERY);
        assert_eq!(plan.servers, ["192.0.2.10:53".parse().unwrap()]);
        assert!(changed);
        fs::remove_dir_all(&folder).unwrap();
        let (plan, _) = resolvers.current(start + LOOK_EVERY * 2);
        assert!(plan.servers.is_empty(), "the default is ourselves");
    }
}
