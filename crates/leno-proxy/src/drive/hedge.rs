//! Two attempts at a time, for requests that take long and may be sent twice. Read [`leno_core::exchange`] about races beside
//! it. Nothing of this is done for a request that no policy gives a second attempt.
//!
//! Until the head of its answer an attempt here is a future of its own: it connects, sends the head and the body that is at
//! hand, and waits. Who has the answer goes on into the ordinary talk as one whose request is sent already; the other one is
//! dropped, which closes its connection or resets its stream.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use leno_core::affinity;
use leno_core::backend::{Choice, Chosen, Endpoint, Place};
use leno_core::edit::Edits;
use leno_core::exchange::{Heard, Hedged, Heed, Input, Lane, Rang};
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::http1::{BodyFraming, ResponseFor};
use leno_core::mux::{INTERIM_HEADS_MAX, Kind};
use leno_core::reason::Reason;
use leno_core::rng::Rng;
use leno_core::route::{BackendId, Speak};
use leno_core::spec::{Affinity, Protocol};
use leno_core::time::{Duration, Instant};

use super::reach::{Upstream, connect, ready};
use super::{Drive, NEVER};
use crate::body::{
    Arrived, Broken, Chunk, Hop, Request, RequestSink, ResponseSink, ResponseSource, Sink, Source,
};
use crate::caller::RequestId;
use crate::outside::Refused;
use crate::splice::{Carried, Passage};
use crate::telemetry::{PAIRS_MAX, bump};
use crate::worker::Worker;

/// The longest body of a request that may get a second attempt, in bytes: what every server takes, and answers, in one go. An
/// attempt is a thing of its own until its answer's head, and nobody reads the answer while more than that is sent.
const RACED_BODY_MAX: usize = 64 << 10;

impl<'a> Drive<'a> {
    /// Takes what there is of the body, so that two attempts can send it. One of a known length is waited for; of another one
    /// nobody knows whether its client waits for an answer first, so that it has to be here already.
    #[cold]
    pub(super) async fn read_ahead<S: Source>(&mut self, source: &mut S) {
        let request = self.request;
        if request.kind == Kind::Tcp || !request.upgrade.is_empty() || request.expect_continue {
            return;
        }
        let whole = match (request.framing, self.kept.take()) {
            (BodyFraming::None | BodyFraming::Length(0), _) => true,
            (_, None) => false,
            (BodyFraming::Length(bytes), kept) if bytes > RACED_BODY_MAX as u64 => {
                self.kept = kept;
                false
            }
            (framing, Some(kept)) => {
                let waits = matches!(framing, BodyFraming::Length(_));
                let filled = loop {
                    let (due, before) = (self.due(), kept.bytes());
                    tokio::select! {
                        biased;
                        filled = kept.fill(source, waits) => break filled.map_err(|broken| match broken.reason {
                            Reason::RequestMalformed => Input::RequestMalformed,
                            _ => Input::DownstreamGone,
                        }),
                        () = self.alarm.until(due) => {}
                    }
                    let now = self.worker.now();
                    if kept.bytes() > before {
                        self.exchange.progress(now);
                    }
                    if self.due() <= now {
                        break Err(Input::Timeout);
                    }
                };
                let short = kept.bytes() <= RACED_BODY_MAX;
                self.kept = Some(kept);
                let filled = filled.unwrap_or_else(|input| {
                    self.handle(input);
                    false
                });
                filled && short
            }
        };
        if whole {
            self.exchange.body_is_whole();
        }
    }

    /// Runs the attempt that was picked, gives it another one beside it when it takes long, and relays the answer that comes
    /// first. False when nothing was done: the attempt is made as any other.
    #[cold]
    pub(super) async fn race<S: Source, K: ResponseSink>(&mut self, source: &mut S, sink: &mut K) -> bool {
        let begun = self.worker.now();
        let Some(spec) = self.exchange.may_race() else { return false };
        let (Some(endpoint), Some(backend)) = (self.exchange.endpoint().cloned(), self.exchange.backend())
        else {
            return false;
        };
        if self.exchange.is_short_of_time(begun) {
            return false;
        }
        let Some(first) = self.runner(&endpoint, backend, 1) else { return false };
        let delay = self.worker.backends().hedge_delay(self.snapshot, backend, &spec);
        self.exchange.begin_race(delay);
        let mut runners = [Some(first), None];
        let won = loop {
            let due = self.exchange.poll_race().unwrap_or(NEVER);
            let told = {
                let mut gone = pin!(source.gone());
                tokio::select! {
                    biased;
                    told = next(&mut runners) => told,
                    () = &mut gone => {
                        self.exchange.leave_race(Reason::DownstreamGone);
                        self.handle(Input::DownstreamGone);
                        break None;
                    }
                    () = self.alarm.until(due) => Told::Rang,
                }
            };
            let now = self.worker.now();
            let (lane, heed, racer) = match told {
                Told::Rang => match self.exchange.race_rang(now) {
                    Rang::Nothing => continue,
                    Rang::Hedge => {
                        runners[1] = self.second(backend, now);
                        continue;
                    }
                    Rang::Drop(lane) => (lane, Heed::Drop, None),
                    Rang::Over => break None,
                },
                Told::Connected(lane) => (lane, self.exchange.heard(lane, Heard::Connected, now), None),
                Told::Done(lane, Ok(racer)) => {
                    let heed = self.exchange.heard(lane, Heard::Answer(&racer.upstream.view()), now);
                    (lane, heed, Some(racer))
                }
                Told::Done(lane, Err(Failed::Connect(Refused { failure, why }))) => {
                    self.why = (!why.is_empty()).then_some(why);
                    (lane, self.exchange.heard(lane, Heard::ConnectFailed(failure), now), None)
                }
                Told::Done(lane, Err(Failed::Ended(Broken { app_saw, reason }, why))) => {
                    self.why = why;
                    (lane, self.exchange.heard(lane, Heard::Ended { app_saw, reason }, now), None)
                }
            };
            match heed {
                Heed::GoOn => {}
                Heed::Drop => runners[usize::from(lane == Lane::Second)] = None,
                Heed::Over => break None,
                Heed::Take => break racer,
            }
        };
        // Whoever is left is given up now, and not when the answer has been relayed.
        drop(runners);
        self.count_hedge(backend);
        if let Some(racer) = won {
            let took = self.worker.now().since(begun);
            self.worker.backends().hedge_learns(self.snapshot, backend, took);
            self.why = None;
            self.relay(racer, source, sink).await;
        }
        true
    }

    /// Relays an answer whose head is here.
    async fn relay<S: Source, K: ResponseSink>(&mut self, mut racer: Racer, source: &mut S, sink: &mut K) {
        let key = self.exchange.endpoint().map(|endpoint| endpoint.key);
        let mut answer = Answer { upstream: &mut racer.upstream, arrived: Some(racer.arrived) };
        let mut sent = Sent { whole: racer.whole };
        let conversed = pin!(self.converse(source, sink, &mut answer, &mut sent)).await;
        if let Upstream::H1(mut connection) = racer.upstream {
            if let Some(why) = connection.source.reader.refused.take() {
                self.why = Some(why);
            }
            if let Some(key) = key.filter(|_| conversed.complete && connection.source.reusable()) {
                let now = self.worker.now();
                self.worker.h1_pools.borrow_mut().give(key, connection, now);
            }
        }
    }

    /// Begins the second attempt, if there may be one and there is somebody else to ask.
    fn second(&mut self, backend: BackendId, now: Instant) -> Option<Runner<'a>> {
        let permit = {
            let mut backends = self.worker.backends();
            if !backends.may_hedge(self.snapshot, backend) {
                self.exchange.not_hedged(Hedged::Budget);
                return None;
            }
            let tried = self.exchange.planned_tried().unwrap_or(&[]);
            let (head, source) = (&self.head, self.client.address.ip());
            // A client that has no cookie yet gets the one of its first attempt.
            let key =
                |affinity: &Affinity, rng: &mut Rng| affinity::key(affinity, head, source, &mut None, rng);
            let choice = Choice::Backend(backend);
            let picked = backends.pick_by(self.snapshot, choice, tried, now, &mut self.worker.rng(), key);
            // Who is suspected, or of another service, is no faster.
            picked.ok().filter(|permit| matches!(permit.chosen(), Chosen::Balanced | Chosen::Affinity))
        };
        let runner = permit.and_then(|permit| {
            let attempt = self.exchange.record().attempts_made() as u32 + 1;
            Some((self.runner(permit.endpoint(), backend, attempt)?, permit))
        });
        let Some((runner, permit)) = runner else {
            self.exchange.not_hedged(Hedged::NoEndpoint);
            return None;
        };
        if !self.worker.backends().take_hedge(self.snapshot, backend) {
            self.exchange.not_hedged(Hedged::Budget);
            return None;
        }
        self.exchange.hedge(permit, now);
        Some(runner)
    }

    /// An attempt that has not begun; `None` where its connection would have to be waited for.
    fn runner(&self, endpoint: &Rc<Endpoint>, backend: BackendId, attempt: u32) -> Option<Runner<'a>> {
        let protocol = self.snapshot.protocol(backend);
        let how = self.how(endpoint, protocol);
        let place = match self.needs_place(backend, how, endpoint) {
            true => self.free_place(backend)?,
            false => None,
        };
        let connected = Rc::new(Cell::new(false));
        let run = Run {
            worker: self.worker,
            head: self.outgoing(),
            edits: self.edits,
            request: self.request,
            request_id: self.request_id,
            route: self.snapshot.list_name(self.exchange.record().decision.list),
            generation: self.snapshot.generation,
            endpoint: endpoint.clone(),
            how,
            protocol,
            within: self.exchange.connect_timeout(),
            attempt,
            deadline: self.exchange.race_deadline(attempt, self.worker.now()),
            body: self.kept.as_ref().map(|kept| kept.whole()),
            place,
            connected: connected.clone(),
        };
        Some(Runner { run: Box::pin(run.run()), done: None, connected, told: false })
    }

    /// Counts what became of a second attempt.
    fn count_hedge(&self, backend: BackendId) {
        let Some(hedged) = self.exchange.record().hedged else { return };
        if hedged == Hedged::Won {
            self.worker.backends().hedge_won(self.snapshot, backend);
        }
        let telemetry = &mut self.worker.telemetry().hedges;
        let service = self.snapshot.backend(backend).map_or("", |backend| &backend.name);
        let key = (service.into(), hedged.word());
        if telemetry.len() < PAIRS_MAX || telemetry.contains_key(&key) {
            bump(telemetry, key);
        }
    }
}

/// One of two attempts.
struct Runner<'a> {
    run: Pin<Box<dyn Future<Output = Result<Racer, Failed>> + 'a>>,
    done: Option<Result<Racer, Failed>>,
    connected: Rc<Cell<bool>>,
    /// Somebody knows that it is connected.
    told: bool,
}

/// What came of the attempts.
enum Told {
    Connected(Lane),
    Done(Lane, Result<Racer, Failed>),
    Rang,
}

/// Why there is no answer.
enum Failed {
    Connect(Refused),
    /// And in words, where there are more to say.
    Ended(Broken, Option<String>),
}

/// Waits until something comes of one of the attempts. Cancel-safe.
async fn next(runners: &mut [Option<Runner<'_>>; 2]) -> Told {
    poll_fn(|cx| {
        for (lane, runner) in [Lane::First, Lane::Second].into_iter().zip(&mut *runners) {
            let Some(runner) = runner else { continue };
            if runner.done.is_none()
                && let Poll::Ready(done) = runner.run.as_mut().poll(cx)
            {
                runner.done = Some(done);
            }
            if runner.connected.get() && !std::mem::replace(&mut runner.told, true) {
                return Poll::Ready(Told::Connected(lane));
            }
            if let Some(done) = runner.done.take() {
                // It is not asked again: who is done is taken or dropped.
                return Poll::Ready(Told::Done(lane, done));
            }
        }
        Poll::Pending
    })
    .await
}

/// All that an attempt needs.
struct Run<'a> {
    worker: &'a Rc<Worker>,
    head: RequestHead<'a>,
    edits: &'a Edits,
    request: &'a Request,
    request_id: RequestId,
    route: &'a str,
    generation: u64,
    endpoint: Rc<Endpoint>,
    how: Speak,
    protocol: Protocol,
    within: Duration,
    attempt: u32,
    deadline: Option<Instant>,
    body: Option<Rc<Vec<u8>>>,
    place: Option<Box<Place>>,
    connected: Rc<Cell<bool>>,
}

impl Run<'_> {
    /// Up to the head of the answer.
    async fn run(mut self) -> Result<Racer, Failed> {
        let mut upstream = match ready(self.worker, &self.endpoint, self.how, false) {
            Some(upstream) => upstream,
            None => connect(self.worker, &self.endpoint, self.how, self.protocol, false, self.within)
                .await
                .map_err(Failed::Connect)?,
        };
        self.connected.set(true);
        let now = self.worker.now();
        let hop = Hop {
            kind: self.request.kind,
            framing: self.request.framing,
            upgrade: b"",
            expect_continue: false,
            te_trailers: self.request.te_trailers,
            time_left: self.deadline.map(|deadline| deadline.since(now)),
            attempt: self.attempt,
            route: self.route,
            request_id: self.request_id.bytes(),
            generation: self.generation,
        };
        let (head, edits, body) = (&self.head, self.edits, self.body.as_deref().map(Vec::as_slice));
        let asked = match &mut upstream {
            Upstream::H1(connection) => {
                if let Some(place) = self.place.take() {
                    connection.place = Some(place);
                }
                connection.begin(ResponseFor::request(head.method, false));
                match RequestSink::head(&mut connection.sink, head, edits, &hop) {
                    Ok(()) => ask(&mut connection.source, &mut connection.sink, body).await,
                    Err(broken) => Err(broken),
                }
            }
            Upstream::Mux(stream) => match RequestSink::head(&mut stream.writer, head, edits, &hop) {
                Ok(()) => {
                    stream.reader.follow(&stream.writer);
                    ask(&mut stream.reader, &mut stream.writer, body).await
                }
                Err(broken) => Err(broken),
            },
            Upstream::H2(call) => match RequestSink::head(&mut call.writer, head, edits, &hop) {
                Ok(()) => {
                    call.reader.follow(&mut call.writer);
                    ask(&mut call.reader, &mut call.writer, body).await
                }
                Err(broken) => Err(broken),
            },
            Upstream::Opaque(_) => Err(Broken::CLOSED),
        };
        match asked {
            Ok((arrived, whole)) => Ok(Racer { upstream, arrived, whole }),
            Err(broken) => {
                let why = match &mut upstream {
                    Upstream::H1(connection) => connection.source.reader.refused.take(),
                    _ => None,
                };
                Err(Failed::Ended(broken, why))
            }
        }
    }
}

/// Sends a body that is at hand and waits for the head of the answer; whether all was sent before it. Interim heads are
/// advice, and dropped.
async fn ask(
    responses: &mut impl ResponseSource,
    requests: &mut impl RequestSink,
    body: Option<&[u8]>,
) -> Result<(Arrived, bool), Broken> {
    let mut sending = pin!(async {
        if let Some(body) = body {
            requests.write(body).await?;
        }
        requests.finish(Fields::default()).await
    });
    let (mut over, mut whole, mut interim) = (false, false, 0);
    loop {
        tokio::select! {
            biased;
            sent = &mut sending, if !over => {
                // A server that takes no more of it may still answer.
                (over, whole) = (true, sent.is_ok());
            }
            head = responses.head() => match head? {
                arrived if arrived.interim => {
                    interim += 1;
                    if interim > INTERIM_HEADS_MAX {
                        return Err(Broken { app_saw: leno_core::exchange::AppSaw::Maybe, reason: Reason::UpstreamMalformed });
                    }
                }
                arrived => {
                    if !over {
                        whole = rest(sending.as_mut(), responses).await;
                    }
                    return Ok((arrived, whole));
                }
            },
        }
    }
}

/// How long what is left of a body may take once its answer's body has begun: whoever answers without having read it may never do.
const REST_TIME_MAX: Duration = Duration::from_secs(1);

/// Sends what is left of a body whose answer has begun: there are servers that say at once how they will answer, and then wait for
/// the rest. False when not all of it was sent.
async fn rest(
    mut sending: Pin<&mut impl Future<Output = Result<(), Broken>>>,
    responses: &mut impl ResponseSource,
) -> bool {
    loop {
        match responses.peek() {
            Ok(Chunk::Empty) => {}
            Ok(Chunk::Data(_)) => {
                return tokio::time::timeout(REST_TIME_MAX, sending).await.is_ok_and(|sent| sent.is_ok());
            }
            Ok(Chunk::End) | Err(_) => return false,
        }
        tokio::select! {
            biased;
            sent = &mut sending => return sent.is_ok(),
            waited = responses.wait() => if waited.is_err() {
                return false;
            }
        }
    }
}

/// An attempt whose answer has begun.
struct Racer {
    upstream: Upstream,
    arrived: Arrived,
    /// All of the request was sent.
    whole: bool,
}

/// Does the same with whatever the upstream speaks.
macro_rules! reader {
    ($upstream:expr, $reader:ident => $act:expr) => {
        match $upstream {
            Upstream::H1(connection) => {
                let $reader = &mut connection.source;
                $act
            }
            Upstream::Mux(stream) => {
                let $reader = &mut stream.reader;
                $act
            }
            Upstream::H2(call) => {
                let $reader = &mut call.reader;
                $act
            }
            Upstream::Opaque(connection) => {
                let $reader = &mut connection.source;
                $act
            }
        }
    };
}

impl Upstream {
    /// The head that arrived last.
    fn view(&self) -> ResponseHead<'_> {
        match self {
            Self::H1(connection) => connection.source.view(),
            Self::Mux(stream) => stream.reader.view(),
            Self::H2(call) => call.reader.view(),
            Self::Opaque(connection) => connection.source.view(),
        }
    }
}

/// An answer whose head has been looked at, for those who have not.
struct Answer<'u> {
    upstream: &'u mut Upstream,
    arrived: Option<Arrived>,
}

impl Source for Answer<'_> {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        reader!(&mut *self.upstream, reader => reader.peek())
    }

    fn consume(&mut self) {
        reader!(&mut *self.upstream, reader => reader.consume());
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        reader!(&mut *self.upstream, reader => reader.wait().await)
    }

    fn trailers(&self) -> Fields<'_> {
        match &*self.upstream {
            Upstream::H1(connection) => connection.source.trailers(),
            Upstream::Mux(stream) => stream.reader.trailers(),
            Upstream::H2(call) => call.reader.trailers(),
            Upstream::Opaque(connection) => connection.source.trailers(),
        }
    }

    fn passage(&self) -> Option<Passage> {
        match &*self.upstream {
            Upstream::H1(connection) => connection.source.passage(),
            _ => None,
        }
    }

    fn passed(&mut self, carried: Carried) {
        reader!(&mut *self.upstream, reader => reader.passed(carried));
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }
}

impl ResponseSource for Answer<'_> {
    async fn head(&mut self) -> Result<Arrived, Broken> {
        match self.arrived.take() {
            Some(arrived) => Ok(arrived),
            None => reader!(&mut *self.upstream, reader => reader.head().await),
        }
    }

    fn view(&self) -> ResponseHead<'_> {
        self.upstream.view()
    }

    fn upgrade(&self) -> &[u8] {
        b""
    }
}

/// Where a request goes that was sent already: what is said of it is counted and copied, and goes no further.
struct Sent {
    whole: bool,
}

impl Sink for Sent {
    async fn write(&mut self, _payload: &[u8]) -> Result<(), Broken> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    async fn finish(&mut self, _trailers: Fields<'_>) -> Result<(), Broken> {
        // The connection of one that was not sent whole is not used again.
        if self.whole { Ok(()) } else { Err(Broken::CLOSED) }
    }
}

impl RequestSink for Sent {
    fn head(&mut self, _head: &RequestHead<'_>, _edits: &Edits, _hop: &Hop<'_>) -> Result<(), Broken> {
        Ok(())
    }
}
