//! What the endpoints of one backend have in common: what is counted of them, and when they are compared.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;

use super::endpoint::{Endpoint, Outcome};
use super::limit::{Held, Ledger};
use super::outlier::{Count, Detector, LOOKS_APART, Lesson, News, step};
use super::shares::Shares;
use super::zones::Loads;
use crate::snapshot::BackendSpec;
use crate::spec::{Balance, Care, Ewma, Limits, Outliers};
use crate::time::{Duration, Instant};

/// How often a backend is looked over that looks for no outliers.
const LOOKED_AFTER: Duration = Duration::from_secs(2);

/// What the endpoints of a backend have in common. Made when the backend is, only where there is something to count.
#[derive(Debug)]
pub(super) struct Group {
    /// How outliers are found; `None` where nobody could be put out.
    pub(super) outliers: Option<Outliers>,
    /// How much of the service may be used at a time, and how much is; `None` where there is no limit.
    pub(super) bounds: Option<Bounds>,
    /// Requests under way on all endpoints together, from this worker, where that bounds each of them.
    pub(super) crowd: Option<Rc<Cell<u32>>>,
    /// How latencies are remembered; `None` where nobody goes by them.
    pub(super) ewma: Option<Ewma>,
    /// What is under way near and far, where near ones are preferred.
    pub(super) loads: Option<Rc<Loads>>,
    /// When the endpoints are compared next. A failure brings it forward.
    due: Cell<Instant>,
    /// When they were compared last, and when the current step of the window began.
    looked: Cell<Instant>,
    stepped: Cell<Option<Instant>>,
    /// Too few endpoints are in: those that are out are asked too.
    pub(super) panic: Cell<bool>,
}

/// How much of a service may be used, and how much is.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) limits: Limits,
    pub(super) ledger: Arc<Ledger>,
}

/// An endpoint was put out, or came back: facts for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// What happened to it.
    pub what: What,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was put out.
    Ejected {
        /// Why.
        by: Detector,
        /// What it did in the window.
        own: Count,
        /// What its peers did, together.
        peers: Count,
        /// For how long.
        wait: Duration,
    },
    /// It would have been put out, but as many as may be are out.
    Held(Detector),
    /// It works again.
    Returned,
}

impl Group {
    /// What is needed to look after `endpoints` endpoints; `None` when nothing is.
    pub(super) fn new(
        spec: &BackendSpec,
        care: &Care,
        endpoints: usize,
        before: Option<&Self>,
    ) -> Option<Rc<Self>> {
        let outliers = care.outliers.as_ref().filter(|spec| spec.ejected_max(endpoints) > 0).cloned();
        let ewma = (spec.balance == Balance::PeakEwma && endpoints > 1).then(|| care.ewma.clone());
        let bounds = spec.limited.as_ref().map(|limited| {
            let (limits, ledger) = (care.limits.clone(), limited.ledger.clone());
            Bounds { limits, ledger }
        });
        let hashes = matches!(spec.balance, Balance::RingHash | Balance::Maglev);
        let bound = care.affinity.as_ref().filter(|_| hashes).and_then(|affinity| affinity.bound_percent);
        let crowd = bound.map(|_| before.and_then(|before| before.crowd.clone()).unwrap_or_default());
        let loads = spec
            .zones
            .as_ref()
            .map(|zones| Loads::new(zones.levels.len(), before.and_then(|before| before.loads.as_ref())));
        let counts = ewma.is_some() || bounds.is_some() || crowd.is_some() || loads.is_some();
        (outliers.is_some() || counts).then(|| {
            Rc::new(Self {
                outliers,
                bounds,
                crowd,
                ewma,
                loads,
                due: Cell::default(),
                looked: Cell::default(),
                stepped: Cell::new(None),
                panic: Cell::new(false),
            })
        })
    }

    /// A request gives back what it held.
    #[cold]
    pub(super) fn leave(&self, held: Held, endpoint: &Endpoint) {
        if let Some(bounds) = &self.bounds {
            held.leave(&bounds.ledger, endpoint.counter());
        }
        if let Some(crowd) = self.crowd.as_ref().filter(|_| held.is_in_crowd()) {
            crowd.set(crowd.get().saturating_sub(1));
        }
        if let Some(loads) = self.loads.as_ref().filter(|_| held.is_on_level()) {
            loads.leave(endpoint);
        }
    }

    /// True when it is time to compare the endpoints.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due.get()
    }

    /// One of the endpoints had this outcome.
    pub(super) fn learn(&self, endpoint: &Endpoint, outcome: Outcome, took: Duration, now: Instant) {
        let live = &*endpoint.live;
        if let Some(loads) = &self.loads {
            loads.learn(endpoint.level, outcome, took);
        }
        if let Some(ewma) = &self.ewma {
            live.hear(outcome, took, ewma, now);
        }
        let (Some(spec), Some(tally)) = (&self.outliers, live.tally.get()) else { return };
        let lesson = match outcome {
            Outcome::Reached => return tally.learn_latency(took),
            // Too much to do is no fault; it is heard of as a latency.
            Outcome::Shed => return,
            // Neither good nor bad.
            Outcome::Outrun => return,
            Outcome::Answered(status @ 500..) | Outcome::Ended(status @ 500..) => Lesson::Error(status),
            Outcome::Answered(_) | Outcome::Ended(_) => Lesson::Good,
            Outcome::Unreachable | Outcome::NoAnswer => Lesson::NoAnswer,
            Outcome::Cut => Lesson::Cut,
        };
        if matches!(outcome, Outcome::Answered(_)) {
            tally.learn_latency(took);
        }
        tally.learn(lesson);
        if lesson != Lesson::Good {
            self.due.set(self.due.get().min(self.looked.get().after(LOOKS_APART)));
        }
        if live.judged.get() && live.out_until.get().is_some_and(|until| now >= until) {
            live.tried(lesson == Lesson::Good, spec, now);
            self.due.set(now);
        }
    }

    /// Compares the endpoints, puts out who is worse than the others, and says what changed.
    pub(super) fn look(
        &self,
        endpoints: &[Rc<Endpoint>],
        shares: &Shares,
        now: Instant,
        mut tell: impl FnMut(&Endpoint, What),
    ) {
        let (looked, length) = (self.looked.get(), self.outliers.as_ref().map_or(LOOKED_AFTER, step));
        self.looked.set(now);
        self.due.set(now.after(length));
        if let Some(ewma) = &self.ewma {
            endpoints.iter().for_each(|endpoint| endpoint.live.fade(looked, ewma, now));
        }
        let Some(spec) = &self.outliers else { return };
        let stepped = self.stepped.get().unwrap_or(now);
        let steps = now.since(stepped).as_nanos() / length.as_nanos().max(1);
        self.stepped.set(Some(stepped.after(length.saturating_mul(steps.min(u128::from(u32::MAX)) as u32))));

        let members = || shares.members().filter_map(|at| endpoints.get(at));
        let (mut all, mut out, mut judged, mut sum) = (0_usize, 0, 0, Count::default());
        for endpoint in members() {
            let live = &endpoint.live;
            let Some(tally) = live.tally.get() else { continue };
            tally.step(steps.min(u128::from(u8::MAX)) as usize);
            all += 1;
            match (live.out_until.get(), live.judged.get()) {
                (Some(until), is_judged) => {
                    judged += usize::from(is_judged);
                    out += usize::from(now < until);
                }
                (None, _) => sum = sum.plus(tally.recent()),
            }
            match tally.news.take() {
                Some(News::Returned) => tell(endpoint, What::Returned),
                Some(News::Relapsed(wait)) => {
                    let (own, peers) = (Count::default(), Count::default());
                    tell(endpoint, What::Ejected { by: Detector::Probation, own, peers, wait });
                }
                None => {}
            }
        }
        // The worst first: there may not be room for all.
        let verdict = |endpoint: &Endpoint, sum: Count| {
            let live = &endpoint.live;
            let tally = live.tally.get().filter(|_| live.out_until.get().is_none())?;
            let own = tally.recent();
            let peers = sum.less(own);
            Some((tally.verdict(own, peers, spec)?, own, peers))
        };
        loop {
            let found = members().filter_map(|endpoint| Some((endpoint, verdict(endpoint, sum)?)));
            let worst = found.max_by(|(_, (_, a, _)), (_, (_, b, _))| a.compare(*b));
            let Some((endpoint, (by, own, peers))) = worst else { break };
            if judged >= spec.ejected_max(all) {
                tell(endpoint, What::Held(by));
                break;
            }
            let wait = endpoint.live.eject(spec, now);
            tell(endpoint, What::Ejected { by, own, peers, wait });
            // The others are no longer compared with it.
            sum = sum.less(own);
            (judged, out) = (judged + 1, out + 1);
        }
        self.panic.set((all - out) * 100 < all * spec.panic_percent as usize);
    }
}
