//! A retry storm: a chain of services, each with its sidecar, of which the last one fails. Every application calls the next
//! one for each request and fails when that fails; every sidecar has a policy that tries failing answers again. What is
//! counted is how many requests the last one gets for each that a client sends.
//!
//! The exchanges and budgets are the real ones. Time is virtual and requests come one after the other: a storm is a matter of
//! numbers, not of who overtakes whom.

use std::sync::Arc;

use leno_core::backend::{Backends, Choice};
use leno_core::exchange::{
    Action, AppSaw, Ending, Exchange, Input, NoRetry, RETRIED_HEADER, Tries, is_spent,
};
use leno_core::head::{Field, FieldId, Fields, RequestHead, ResponseHead, Span};
use leno_core::name::ServiceId;
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{
    Balance, BudgetSpec, EndpointSpec, KnownService, Protocol, RetryOn, RetrySpec, ServiceSpec, StatusRange,
    Transport, TriesSpec, World,
};
use leno_core::time::{Duration, Instant};

/// A storm to come.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Services between the client and the one that fails, that one included.
    pub tiers: usize,
    /// Of a thousand attempts at the last one so many fail.
    pub fails_of_thousand: u64,
    /// Half of the failures are closed connections and not answers.
    pub closes: bool,
    /// All of them are refusals by the last sidecar, whose application has too much to do.
    pub sheds: bool,
    /// Requests that clients send.
    pub requests: u32,
    /// Between two of them.
    pub interval: Duration,
    /// Requests before it is counted: what was saved up is used up in them.
    pub before: u32,
    /// Attempts of each sidecar.
    pub attempts: u32,
    /// `None`: the default.
    pub budget: Option<BudgetSpec>,
    /// Sidecars tell their callers that a budget is used up.
    pub told: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Requests of clients that were counted.
    pub requests: u64,
    /// Of them, those that were answered well.
    pub answered: u64,
    /// Attempts at the last service.
    pub load: u64,
}

impl Damage {
    /// Attempts at the last service for each hundred requests of clients.
    pub const fn amplification_percent(&self) -> u64 {
        self.load * 100 / if self.requests == 0 { 1 } else { self.requests }
    }
}

/// What stands for a refusal before the application has seen the request.
const SHED: u16 = 1;

/// One service's sidecar, as far as its calls to the next one go.
struct Tier {
    backends: Backends,
    /// When its budget was last used up.
    spent: Option<Instant>,
}

struct Run<'a> {
    storm: &'a Storm,
    snapshot: Snapshot,
    tiers: Vec<Tier>,
    now: Instant,
    rng: Rng,
    counts: bool,
    damage: Damage,
}

/// Lets it happen.
///
/// # Errors
/// What an exchange did that it must not.
pub fn run(storm: &Storm, seed: u64) -> Result<Damage, String> {
    let snapshot = Snapshot::build(&world(storm), None);
    let tier = || {
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        Tier { backends, spent: None }
    };
    let tiers = (0..storm.tiers).map(|_| tier()).collect();
    let rng = Rng::new(seed);
    let mut run = Run {
        storm,
        tiers,
        now: Instant::ZERO.after(Duration::from_secs(1)),
        rng,
        counts: false,
        damage: Damage::default(),
        snapshot,
    };
    for at in 0..storm.before + storm.requests {
        run.counts = at >= storm.before;
        let (status, _) = run.call(0)?;
        run.damage.requests += u64::from(run.counts);
        run.damage.answered += u64::from(run.counts && status == 200);
        run.now = run.now.after(storm.interval);
    }
    Ok(run.damage)
}

impl Run<'_> {
    /// One call by the sidecar of `tier` to what is below it. Returns the status, and whether the answer says that it was
    /// tried again below.
    fn call(&mut self, tier: usize) -> Result<(u16, bool), String> {
        let head = RequestHead { method: b"GET", authority: b"next", path: b"/", fields: Fields::default() };
        let decision = self.snapshot.decide(Entry::Forward, &head);
        let tries: Arc<Tries> = self.snapshot.tries(&decision).ok_or("no policy")?.clone();
        let now = self.now;
        let mut exchange = Exchange::new(decision, tries.repeats(&head), None, now);
        exchange.follow(&tries, self.rng.next_u64());
        let mut last = (0, false);
        while let Some(action) = exchange.poll_action() {
            let input = match action {
                Action::Pick { choice: Choice::Backend(backend), budget: true }
                    if !self.allows(tier, backend) =>
                {
                    Input::OverBudget
                }
                Action::Pick { choice, .. } => {
                    let tried = exchange.planned_tried().unwrap_or(&[]).to_vec();
                    let first = tried.is_empty();
                    let backends = &mut self.tiers[tier].backends;
                    let mut pick =
                        |avoid: &[u64]| backends.pick(&self.snapshot, choice, avoid, now, &mut self.rng);
                    let permit = pick(&tried).or_else(|_| pick(&[])).map_err(|why| format!("{why:?}"))?;
                    if first {
                        self.tiers[tier].backends.request_started(&self.snapshot, permit.backend(), now);
                    }
                    Input::Picked(permit)
                }
                // A storm is told by numbers: waits make no difference to them.
                Action::Pause { budget } => match budget {
                    Some(backend) if !self.allows(tier, backend) => Input::OverBudget,
                    _ => Input::Timeout,
                },
                Action::Dial => Input::Connected { reused: true },
                Action::Send => {
                    let (status, deeper) = self.serve(tier + 1)?;
                    last = (status, deeper);
                    match status {
                        SHED => Input::UpstreamEnded(Ending::Early {
                            app_saw: AppSaw::Nothing,
                            reason: Reason::ServiceOverloaded,
                        }),
                        0 => Input::UpstreamEnded(Ending::Early {
                            app_saw: AppSaw::Maybe,
                            reason: Reason::UpstreamClosed,
                        }),
                        status if self.wants_another(&mut exchange, tier, status, deeper) => {
                            Input::Withheld { status }
                        }
                        status => Input::Response { status },
                    }
                }
                Action::Admit => Input::Admitted,
                Action::Answer => return Err("no rule here answers by itself".into()),
                Action::Relay => Input::UpstreamEnded(Ending::Complete),
                Action::Reply(_) | Action::Cut(_) => {
                    exchange.ended(now);
                    continue;
                }
                Action::Finish => break,
            };
            exchange.handle(input, now);
        }
        let record = exchange.record();
        if record.attempts_made() > self.storm.attempts as usize {
            return Err(format!("{} attempts", record.attempts_made()));
        }
        if last.1 && record.no_retry != Some(NoRetry::Deeper) && last.0 != 200 && record.status == last.0 {
            let others = [NoRetry::Attempts, NoRetry::Budget];
            if !record.no_retry.is_some_and(|why| others.contains(&why)) {
                return Err(format!("tried again on top of others: {record:?}"));
            }
        }
        Ok((record.status, last.1))
    }

    fn wants_another(&mut self, exchange: &mut Exchange, tier: usize, status: u16, deeper: bool) -> bool {
        let field =
            Field { name: Span::new(0, RETRIED_HEADER.len()), value: Span::new(0, 1), id: FieldId::Other };
        let list = if deeper { std::slice::from_ref(&field) } else { &[] };
        let head = ResponseHead { status, reason: b"", fields: Fields::new(RETRIED_HEADER, list) };
        if !exchange.wants_another(&head, self.now) {
            if exchange.record().no_retry == Some(NoRetry::Deeper) {
                self.tiers[tier].spent = Some(self.now);
            }
            return false;
        }
        let allowed = exchange.backend().is_some_and(|backend| self.allows(tier, backend));
        if !allowed {
            exchange.denied(status);
        }
        allowed
    }

    fn allows(&mut self, tier: usize, backend: leno_core::route::BackendId) -> bool {
        let allowed = self.tiers[tier].backends.try_retry(&self.snapshot, backend, self.now);
        if !allowed {
            self.tiers[tier].spent = Some(self.now);
        }
        allowed
    }

    /// A request arrives at the service number `at`, the first being 1. Status 0: the connection is closed.
    fn serve(&mut self, at: usize) -> Result<(u16, bool), String> {
        if at == self.storm.tiers {
            self.damage.load += u64::from(self.counts);
            let fails = self.rng.below(1_000) < self.storm.fails_of_thousand;
            let closes = self.storm.closes && self.rng.one_in(2);
            return Ok((
                if !fails {
                    200
                } else if self.storm.sheds {
                    SHED
                } else if closes {
                    0
                } else {
                    503
                },
                false,
            ));
        }
        let (status, _) = self.call(at)?;
        // What an application makes of a failure: one of its own. Its sidecar says what it knows.
        let fails = status != 200;
        let told = fails && self.storm.told && is_spent(self.tiers[at].spent, self.now);
        Ok((if fails { 500 } else { 200 }, told))
    }
}

/// The next service, as every sidecar of the chain sees it.
fn world(storm: &Storm) -> World {
    let id = ServiceId::parse("next").unwrap_or_else(|_| unreachable!("a constant"));
    let endpoint = |at: u8| EndpointSpec {
        name: format!("next-{at}").into(),
        address: ([127, 0, 0, at], 1).into(),
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: leno_core::spec::Tags::NONE,
    };
    let tries = TriesSpec {
        retry: Some(RetrySpec {
            attempts: storm.attempts,
            on: RetryOn {
                reset: true,
                statuses: vec![StatusRange { first: 500, last: 599 }],
                ..RetryOn::default()
            },
            ..RetrySpec::default()
        }),
        budget: storm.budget,
        ..TriesSpec::default()
    };
    let spec = ServiceSpec {
        id: id.clone(),
        protocol: Protocol::Http1,
        balance: Balance::default(),
        care: None,
        rules: Vec::new(),
        calls: Vec::new(),
        health: None,
        timeout: None,
        tries: Some(Arc::new(tries)),
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    let endpoints = (1..=3).map(endpoint).collect();
    let mut world = World::default();
    world.services.insert(id, KnownService { spec, endpoints });
    world
}
