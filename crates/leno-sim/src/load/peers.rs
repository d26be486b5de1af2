//! Callers that decide as Envoy and Linkerd document their defaults. Neither retries, neither puts anybody out unless
//! told to; what they cost per request is not modelled.
//!
//! - Envoy: `ROUND_ROBIN`; 1,024 requests under way per cluster, more are answered 503; no outlier detection.
//! - Linkerd: the lesser of two by peak EWMA (decay 10 s, first guess 30 ms) times requests under way; no failure
//!   accrual. It chooses among endpoints to which a connection stands, so that one that refuses connections fails nobody;
//!   it is tried again after half a second.
//! - Envoy's zone-aware routing ([`ZoneAware`]), which has to be configured: requests stay in the zone as far as its share of the
//!   instances is not less than its share of the callers; the rest goes to zones that have a larger one.

use std::collections::BTreeMap;

use leno_core::rng::Rng;
use leno_core::time::{Duration, Instant};

use super::{Back, Caller, Step};

/// Envoy's `max_requests`.
const ENVOY_REQUESTS_MAX: usize = 1024;

/// Envoy with its defaults.
#[derive(Default)]
pub struct Envoy {
    hosts: Vec<usize>,
    next: usize,
    running: BTreeMap<usize, usize>,
}

impl Envoy {
    /// One that begins its round somewhere.
    pub fn new(seed: u64) -> Self {
        Self { next: seed as usize % 1000, ..Self::default() }
    }
}

impl Caller for Envoy {
    fn told(&mut self, hosts: &[usize], _now: Instant) {
        self.hosts = hosts.to_vec();
    }

    fn arrives(&mut self, number: usize, _deadline: Instant, _now: Instant, _rng: &mut Rng) -> Step {
        if self.running.len() >= ENVOY_REQUESTS_MAX || self.hosts.is_empty() {
            return Step::Over(false);
        }
        self.next = (self.next + 1) % self.hosts.len();
        let host = self.hosts[self.next];
        self.running.insert(number, host);
        Step::Dial(host)
    }

    fn back(&mut self, number: usize, back: Back, _now: Instant, _rng: &mut Rng) -> Step {
        let Some(host) = self.running.get(&number).copied() else { return Step::Over(false) };
        match back {
            Back::Connected => Step::Send(host),
            Back::Answer(status) => {
                self.running.remove(&number);
                Step::Over(status < 500)
            }
            Back::Refused | Back::Broke | Back::Shed | Back::TimedOut => {
                self.running.remove(&number);
                Step::Over(false)
            }
        }
    }
}

/// Linkerd's decay.
const LINKERD_DECAY: Duration = Duration::from_secs(10);
/// What Linkerd takes for the latency of an endpoint that has not answered yet.
const LINKERD_DEFAULT_RTT: f64 = 0.030;

/// Linkerd with its defaults.
#[derive(Default)]
pub struct Linkerd {
    hosts: Vec<usize>,
    /// Seconds, when that was, and requests under way.
    known: BTreeMap<usize, (f64, Instant, u32)>,
    running: BTreeMap<usize, (usize, Instant)>,
    /// Endpoints to which there is no connection, and when one is tried again.
    down: BTreeMap<usize, Instant>,
}

/// The longest pause between two attempts to connect.
const LINKERD_RECONNECT: Duration = Duration::from_millis(500);

impl Linkerd {
    fn choose(&mut self, number: usize, now: Instant, rng: &mut Rng) -> Step {
        self.down.retain(|_, until| now < *until);
        let ready: Vec<usize> = self.hosts.iter().copied().filter(|it| !self.down.contains_key(it)).collect();
        let count = ready.len() as u64;
        if count == 0 {
            return Step::Over(false);
        }
        let first = rng.below(count) as usize;
        let second = (first + 1 + rng.below(count.saturating_sub(1)) as usize) % count as usize;
        let (a, b) = (ready[first], ready[second]);
        let host = if self.cost(b, now) < self.cost(a, now) { b } else { a };
        if let Some((_, _, in_flight)) = self.known.get_mut(&host) {
            *in_flight += 1;
        }
        self.running.insert(number, (host, now));
        Step::Dial(host)
    }

    fn cost(&self, host: usize, now: Instant) -> f64 {
        let (rtt, at, in_flight) = self.known.get(&host).copied().unwrap_or_default();
        let decayed = rtt * (-now.since(at).as_secs_f64() / LINKERD_DECAY.as_secs_f64()).exp();
        decayed * f64::from(in_flight + 1)
    }

    fn over(&mut self, number: usize, now: Instant, good: bool) -> Step {
        if let Some((host, started)) = self.running.remove(&number)
            && let Some((rtt, at, in_flight)) = self.known.get_mut(&host)
        {
            let took = now.since(started).as_secs_f64();
            let keep = (-now.since(*at).as_secs_f64() / LINKERD_DECAY.as_secs_f64()).exp();
            *rtt = if took > *rtt { took } else { *rtt * keep + took * (1.0 - keep) };
            *at = now;
            *in_flight -= 1;
        }
        Step::Over(good)
    }
}

impl Caller for Linkerd {
    fn told(&mut self, hosts: &[usize], now: Instant) {
        self.hosts = hosts.to_vec();
        for host in hosts {
            self.known.entry(*host).or_insert((LINKERD_DEFAULT_RTT, now, 0));
        }
    }

    fn arrives(&mut self, number: usize, _deadline: Instant, now: Instant, rng: &mut Rng) -> Step {
        self.choose(number, now, rng)
    }

    fn back(&mut self, number: usize, back: Back, now: Instant, rng: &mut Rng) -> Step {
        let Some((host, _)) = self.running.get(&number).copied() else { return Step::Over(false) };
        match back {
            Back::Connected => Step::Send(host),
            Back::Answer(status) => self.over(number, now, status < 500),
            Back::Refused => {
                self.down.insert(host, now.after(LINKERD_RECONNECT));
                if let Some((_, _, in_flight)) = self.known.get_mut(&host) {
                    *in_flight -= 1;
                }
                self.running.remove(&number);
                self.choose(number, now, rng)
            }
            Back::Broke | Back::Shed | Back::TimedOut => self.over(number, now, false),
        }
    }
}

/// Envoy with zone-aware routing, which knows all callers and instances and goes by their numbers.
pub struct ZoneAware {
    inner: Envoy,
    /// Where it is, where the hosts are, and how many callers each zone has.
    own: usize,
    zones: Vec<usize>,
    callers: Vec<usize>,
}

impl ZoneAware {
    /// One of the callers in `own`.
    pub fn new(seed: u64, own: usize, hosts: &[usize], callers: &[usize]) -> Self {
        Self { inner: Envoy::new(seed), own, zones: hosts.to_vec(), callers: callers.to_vec() }
    }

    /// The zone that the next request goes to.
    fn zone(&self, told: &[usize], rng: &mut Rng) -> usize {
        let zones = self.zones.iter().max().map_or(0, |last| last + 1);
        let share = |all: &[usize], zone: usize| {
            let there = all.iter().filter(|it| **it == zone).count();
            there as f64 / all.len().max(1) as f64
        };
        let hosts: Vec<usize> = told.iter().map(|host| self.zones[*host]).collect();
        let (callers, upstream) = (share(&self.callers, self.own), share(&hosts, self.own));
        let draw = |rng: &mut Rng| rng.below(1 << 20) as f64 / f64::from(1 << 20);
        if upstream >= callers || draw(rng) < upstream / callers {
            return self.own;
        }
        let spare = |zone: usize| (share(&hosts, zone) - share(&self.callers, zone)).max(0.0);
        let mut ticket = draw(rng) * (0..zones).map(spare).sum::<f64>();
        for zone in 0..zones {
            ticket -= spare(zone);
            if ticket < 0.0 {
                return zone;
            }
        }
        self.own
    }
}

impl Caller for ZoneAware {
    fn told(&mut self, hosts: &[usize], now: Instant) {
        self.inner.told(hosts, now);
    }

    fn arrives(&mut self, number: usize, _deadline: Instant, _now: Instant, rng: &mut Rng) -> Step {
        let zone = self.zone(&self.inner.hosts, rng);
        let there: Vec<usize> =
            self.inner.hosts.iter().copied().filter(|host| self.zones[*host] == zone).collect();
        if self.inner.running.len() >= ENVOY_REQUESTS_MAX || there.is_empty() {
            return Step::Over(false);
        }
        self.inner.next += 1;
        let host = there[self.inner.next % there.len()];
        self.inner.running.insert(number, host);
        Step::Dial(host)
    }

    fn back(&mut self, number: usize, back: Back, now: Instant, rng: &mut Rng) -> Step {
        self.inner.back(number, back, now, rng)
    }
}
