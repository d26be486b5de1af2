//! What a proxy does for a service's endpoints beside choosing one: it puts out those that fail, and bounds what it uses.
//!
//! Nothing here has to be written: [`Care::default`] is what holds for a service of which nothing is said.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Concurrency;
use super::Locality;
use super::rate::RateSpec;
use crate::name::ServiceId;
use crate::time::Duration;

/// How a proxy looks after the endpoints of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Care {
    /// When an endpoint is put out because its answers are worse than its peers'; `None`: never.
    pub outliers: Option<Outliers>,
    /// How much of the service a proxy uses at a time.
    pub limits: Limits,
    /// Endpoints that are compared for one request, where the policy compares them.
    pub choices: u32,
    /// How latencies are remembered, where the policy goes by them.
    pub ewma: Ewma,
    /// What keeps a client at an endpoint, where the policy hashes.
    pub affinity: Option<Arc<Affinity>>,
    /// How an endpoint that comes gets its share; `None`: at once.
    pub slow_start: Option<SlowStart>,
    /// The service that takes the requests when no endpoint can: none is there, healthy, reachable and in.
    pub backup: Option<ServiceId>,
    /// What is made of where endpoints are; `None`: as [`Locality::new`] says.
    pub locality: Option<Arc<Locality>>,
    /// How many requests each instance works on at a time, by the word of its own sidecar; `None`: all that come.
    pub concurrency: Option<Concurrency>,
    /// How many requests it takes in a time: counted where they arrive, in front of each instance.
    pub rates: Vec<Arc<RateSpec>>,
}

/// What a request's key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The first one that the request has; without any, it is balanced by least request. At least one.
    pub keys: Vec<KeySpec>,
    /// No endpoint has more requests under way than this share of the mean, in percent of it; what is over goes to the
    /// next endpoint. `None`: however many there are. At least 100.
    pub bound_percent: Option<u32>,
}

/// One source of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySpec {
    /// A header, by its name in lower case.
    Header(Arc<str>),
    /// A cookie, which the client gets if it has none.
    Cookie(CookieSpec),
    /// The client's address.
    Source,
    /// A parameter of the query.
    Query(Arc<str>),
}

/// A cookie that keeps a client at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieSpec {
    /// Its name: a token.
    pub name: Arc<str>,
    /// Where the client sends it.
    pub path: Arc<str>,
    /// How long it does; `None`: until it forgets its session.
    pub ttl: Option<Duration>,
}

/// How an endpoint that comes gets its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// Until it has its full share; the share grows evenly.
    pub duration: Duration,
    /// What it begins with, in percent of its share.
    pub from_percent: u32,
}

/// What an endpoint begins with (Envoy's and Istio's minimum).
pub const SLOW_START_FROM: u32 = 10;

/// Of how many endpoints the best is taken: of two nearly as good as of all, and without everybody choosing the same.
pub const CHOICES: u32 = 2;

/// How latencies are remembered: a slow answer counts at once, and is forgotten within [`Self::decay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ewma {
    /// In this time the past loses two thirds of its weight.
    pub decay: Duration,
    /// What an endpoint is taken for that has not answered yet; `None`: it is as fast as the one that it is compared with.
    pub default_rtt: Option<Duration>,
}

impl Ewma {
    /// The defaults.
    pub const fn new() -> Self {
        // Linkerd's decay. Its first guess of 30 ms keeps new endpoints without work where answers take 1 ms.
        Self { decay: Duration::from_secs(10), default_rtt: None }
    }
}

impl Default for Ewma {
    fn default() -> Self {
        Self::new()
    }
}

/// How much of a service one proxy uses at a time. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way.
    pub requests: Option<u32>,
    /// Requests under way on each endpoint.
    pub endpoint_requests: Option<u32>,
    /// Connections for TCP and HTTP/1.1, idle ones included. Requests between sidecars need none of their own.
    pub connections: Option<u32>,
    /// Requests that wait for a place; more are refused at once. 0: nobody waits.
    pub pending: Option<u32>,
    /// How long each of them waits.
    pub pending_timeout: Option<Duration>,
    /// Retries under way.
    pub retries: Option<u32>,
}

/// Requests that wait for a place, where a limit is set and nothing else is said: a burst's worth.
pub const PENDING_MAX: u32 = 128;
/// How long each waits. Whoever has waited longer than most answers take is better told.
pub const PENDING_TIMEOUT: Duration = Duration::from_secs(1);

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        requests: None,
        endpoint_requests: None,
        connections: None,
        pending: None,
        pending_timeout: None,
        retries: None,
    };

    /// True when there is one.
    pub fn is_some(&self) -> bool {
        [self.requests, self.endpoint_requests, self.connections, self.retries].iter().any(Option::is_some)
    }
}

impl Care {
    /// What holds where nothing is said. Outlier detection is on: in the simulator it has never put out a healthy
    /// endpoint (docs/resilience.md), and without it one failing instance of ten costs every tenth request for as long
    /// as it is there.
    pub const fn new() -> Self {
        Self {
            outliers: Some(Outliers::new()),
            limits: Limits::NONE,
            choices: CHOICES,
            ewma: Ewma::new(),
            affinity: None,
            slow_start: None,
            backup: None,
            locality: None,
            concurrency: None,
            rates: Vec::new(),
        }
    }
}

impl Default for Care {
    fn default() -> Self {
        Self::new()
    }
}

/// When an endpoint is put out. Whatever detector finds it, it is put out only when it is worse than its peers: when
/// all of a service's endpoints fail alike, it is the service or its callers, and fewer endpoints would make it worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outliers {
    /// So many answers of 500 and above in a row.
    pub errors: Option<u32>,
    /// So many answers of 502, 503 or 504 in a row.
    pub gateway_errors: Option<u32>,
    /// So many requests in a row without an answer: no connection, a reset, a time-out.
    pub local_failures: Option<u32>,
    /// A success rate in [`Self::window`] that chance does not explain if it is like its peers.
    pub success_rate: bool,
    /// In [`Self::window`], this share of its requests failed, in percent, and a smaller one of its peers'.
    pub failure_percent: Option<u32>,
    /// In [`Self::window`], its answers took on average so many times as long as its peers'.
    pub latency: Option<u32>,
    /// Requests in [`Self::window`] before a rate or a latency is looked at.
    pub requests_min: u32,
    /// How far back rates and latencies look.
    pub window: Duration,
    /// How long it is out the first time. Doubles each time, up to [`Self::ejection_max`].
    pub ejection: Duration,
    /// The longest that it is out.
    pub ejection_max: Duration,
    /// At most this share of the endpoints is out, in percent; at least one of three or more.
    pub ejected_percent: u32,
    /// When less than this share of the endpoints takes requests, in percent, those put out take them too.
    pub panic_percent: u32,
    /// When its time is over, it gets one request at a time until so many in a row went well.
    pub probation: u32,
}

impl Default for Outliers {
    fn default() -> Self {
        Self::new()
    }
}

impl Outliers {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            // Envoy's and Istio's number.
            errors: Some(5),
            gateway_errors: None,
            local_failures: Some(5),
            success_rate: true,
            // Envoy's threshold, which it does not enforce.
            failure_percent: Some(85),
            latency: None,
            requests_min: 20,
            // Envoy's interval, Linkerd's window.
            window: Duration::from_secs(10),
            // Envoy waits 30 s, because what comes back gets its full share at once. Behind a probation of one request
            // at a time a short first wait costs a request or two.
            ejection: Duration::from_secs(5),
            ejection_max: Duration::from_secs(300),
            // Envoy's and Istio's share.
            ejected_percent: 10,
            // Envoy's threshold.
            panic_percent: 50,
            probation: 3,
        }
    }

    /// How many of `endpoints` may be out at a time.
    ///
    /// One of three or more, however small the share is: a limit that lets nobody be put out is no limit but an off
    /// switch, and most services have fewer than ten instances. Of two endpoints none, unless the share says so: the
    /// other one would have to take twice its load.
    pub const fn ejected_max(&self, endpoints: usize) -> usize {
        let share = endpoints * self.ejected_percent as usize / 100;
        if share == 0 && endpoints >= 3 && self.ejected_percent > 0 { 1 } else { share }
    }
}
