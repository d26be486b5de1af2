//! One request from its head to its end: the core's exchange decides, this does. Read [`leno_core::exchange`] beside it.
//!
//! The same code serves every pair of protocols: it knows sources and sinks, not HTTP/1 or the mesh transport.

use std::pin::pin;
use std::rc::Rc;

use leno_core::affinity::NewCookie;
use leno_core::backend::Place;
use leno_core::edit::Edits;
use leno_core::exchange::{Action, AppSaw, ConnectFailure, Ending, Exchange, Input};
use leno_core::grpc::{self, Status};
use leno_core::head::RequestHead;
use leno_core::http1::{BodyFraming, ResponseFor};
use leno_core::mux::{INTERIM_HEADS_MAX, Kind};
use leno_core::reason::Reason;
use leno_core::route::{Changed, Then};
use leno_core::snapshot::Snapshot;
use leno_core::time::Instant;

use crate::alarm::Alarm;
use crate::body::{
    Broken, Copy, Hop, Moved, PumpError, Request, RequestSink, ResponseSink, ResponseSource, Source, pump,
};
use crate::caller::{Caller, Remote, RequestId};
use crate::h1;
use crate::h2;
use crate::mux;
use crate::opaque;
use crate::outside::Refused;
use crate::worker::Worker;

mod again;
mod alarm;
mod answer;
mod change;
mod kept;
mod learn;
mod leave;
mod mirror;
mod rate;
mod reach;
mod record;
mod silence;
mod upload;
mod wait;

use kept::Kept;
use reach::{Upstream, connect, ready};
use record::{add, early};
use silence::is_event_stream;
use upload::{Upload, upload};

/// When what has no deadline is due.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// No changes.
static NO_EDITS: Edits = Edits::new();

/// Drives one request to its end and counts it.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a separate part of the caller's connection, borrowed apart"
)]
pub(crate) async fn drive<S: Source, K: ResponseSink>(
    worker: &Rc<Worker>,
    caller: &Caller,
    client: &Remote,
    request: &Request,
    edits: &mut Edits,
    source: &mut S,
    sink: &mut K,
    alarm: &mut Alarm,
) {
    let _under_way = worker.begin();
    let head = caller.head(request);
    let mut snapshot = worker.snapshot();
    let decide = |snapshot: &Snapshot| match request.kind {
        Kind::Tcp => snapshot.decide_connection(caller.entry(), head.authority),
        Kind::Http | Kind::Http2 => snapshot.decide(caller.entry(), &head),
    };
    let mut decision = match caller.turn_away(&head) {
        Some(then) => snapshot.turned_away(then),
        None => decide(&snapshot),
    };
    if decision.then == Then::NoSuchService
        && let Some(service) = learn::unheard(&snapshot, caller, head.authority)
    {
        snapshot = learn::learn(worker, caller, head.authority, service, alarm).await;
        decision = decide(&snapshot);
    }
    let leaving = match decision.then {
        Then::NoSuchService | Then::Direct(_) => {
            pin!(leave::leave(worker, &snapshot, caller, request.kind, &head, &decision)).await
        }
        _ => None,
    };
    if let Some(leaving) = &leaving {
        decision.then = leaving.then;
        leaving.edit(edits);
    }
    let now = worker.now();
    let request_id = caller.edit(edits, &head, client, &mut worker.rng());
    let mut unfit = None;
    let changed = decision.changed.then(|| {
        let id = request_id.bytes();
        let kind = request.kind;
        let changed =
            change::change(worker, &snapshot, caller, client, kind, &head, id, &mut decision, edits);
        unfit = change::why_not(&decision, &changed);
        changed
    });
    let mirrors = match &changed {
        Some(changed) if !changed.mirrors.is_empty() => mirror::chosen(worker, &changed.mirrors, request),
        _ => None,
    };
    let call = head.method == b"POST" && grpc::is_call(head.fields);
    let inherited = request.time_left.map(|left| now.after(left));
    let tries = snapshot.tries(&decision);
    let repeatable = tries.map_or_else(|| head.is_idempotent(), |tries| tries.repeats(&head));
    let mut drive = Drive {
        worker,
        caller,
        client,
        snapshot: &snapshot,
        head,
        request,
        edits,
        request_id,
        exchange: Exchange::new(decision, repeatable, inherited, now),
        alarm,
        call,
        sent: Moved::default(),
        received: Moved::default(),
        leaving: leaving.as_ref(),
        changed: changed.as_deref(),
        copy: mirrors.as_ref().map(|mirrors| &mirrors.body),
        why: leaving.as_ref().and_then(|leaving| leaving.why.clone()).or(unfit),
        kept: None,
        place: None,
        cookie: None,
    };
    if let Some(tries) = tries {
        drive.exchange.follow(tries, worker.rng().next_u64());
        drive.kept = Kept::of(worker, request, tries);
    }
    if call {
        drive.exchange.begin_call();
    }
    let mut upstream = None;
    while let Some(action) = drive.exchange.poll_action() {
        match action {
            Action::Pick { choice, budget } => {
                if let Some(waiting) = drive.pick(choice, budget) {
                    Box::pin(drive.wait_to_pick(waiting, source)).await;
                }
            }
            Action::Pause { budget } => Box::pin(drive.pause(budget, source)).await,
            Action::Dial => upstream = pin!(drive.dial(source)).await,
            Action::Send => match upstream.take() {
                // Pinned where they stand: an awaited future is moved first, and these are large.
                Some(upstream) => pin!(drive.send(upstream, source, sink)).await,
                None => drive.handle(Input::UpstreamEnded(early(Broken::CLOSED))),
            },
            Action::Reply(reason) => {
                pin!(drive.reply(reason, sink)).await;
                drive.exchange.ended(worker.now());
            }
            Action::Answer => {
                pin!(drive.answer(sink)).await;
                drive.exchange.ended(worker.now());
            }
            Action::Cut(reason) => {
                sink.cut(reason);
                drive.exchange.ended(worker.now());
            }
            // `send` relays; the machine asks for it only there.
            Action::Relay => drive.handle(Input::UpstreamEnded(early(Broken::CLOSED))),
            Action::Finish => break,
        }
    }
    if drive.exchange.record().reason == Some(Reason::DownstreamGone) {
        sink.cut(Reason::DownstreamGone);
    }
    if let Some(mirrors) = &mirrors {
        drive.mirror(mirrors);
    }
    drive.finish(client);
}

/// One request under way.
struct Drive<'a> {
    worker: &'a Rc<Worker>,
    caller: &'a Caller,
    client: &'a Remote,
    snapshot: &'a Snapshot,
    head: RequestHead<'a>,
    request: &'a Request,
    edits: &'a Edits,
    request_id: RequestId,
    exchange: Exchange,
    alarm: &'a mut Alarm,
    /// It is a call of gRPC.
    call: bool,
    /// The request's body on its way up.
    sent: Moved,
    /// The response's body on its way down.
    received: Moved,
    /// Where it goes, if that is out of the mesh.
    leaving: Option<&'a leave::Leave>,
    /// What rules make of it, if they change something.
    changed: Option<&'a Changed>,
    /// Where a copy of its body goes.
    copy: Option<&'a Rc<Copy>>,
    /// Why it is refused, in words, where there are more to say than the reason has.
    why: Option<String>,
    /// The request's body as far as it was sent, where it may have to be sent again.
    kept: Option<Box<Kept>>,
    /// The place of a connection that is this request's alone, where connections have a limit.
    place: Option<Box<Place>>,
    /// The cookie that the client gets so that it finds the same instance again.
    cookie: Option<Box<NewCookie>>,
}

/// What a conversation with an upstream left behind.
struct Conversed {
    /// The whole request was sent and the whole response received.
    complete: bool,
}

impl Drive<'_> {
    fn handle(&mut self, input: Input) {
        self.exchange.handle(input, self.worker.now());
    }

    /// Connects to the endpoint that was picked, unless the time is over or the client goes away.
    async fn dial<S: Source>(&mut self, source: &mut S) -> Option<Upstream> {
        let endpoint = self.exchange.endpoint()?.clone();
        let backend = self.exchange.backend()?;
        let protocol = self.snapshot.protocol(backend);
        let how = self.how(&endpoint, protocol);
        let upgrading = !self.request.upgrade.is_empty();
        if let Some(connection) = ready(self.worker, &endpoint, how, upgrading) {
            self.handle(Input::Connected { reused: true });
            return Some(connection);
        }
        if self.exchange.is_short_of_time(self.worker.now()) && !reach::stands(self.worker, &endpoint) {
            self.handle(Input::Connecting);
            // Without a place there is no attempt any more.
            self.exchange.endpoint()?;
        }
        if self.needs_place(backend, how, &endpoint) {
            self.place = Box::pin(self.reserve(backend, source)).await.ok()?;
        }
        let within = self.exchange.connect_timeout();
        let mut connecting = pin!(connect(self.worker, &endpoint, how, protocol, upgrading, within));
        let mut gone = pin!(source.gone());
        let due = self.due();
        let input = tokio::select! {
            biased;
            connected = &mut connecting => match connected {
                Ok(mut upstream) if self.begin(&upstream, backend).is_ok() => {
                    self.settle(&mut upstream);
                    self.handle(Input::Connected { reused: false });
                    return Some(upstream);
                }
                Ok(_) => Input::ConnectFailed(ConnectFailure::Refused),
                Err(Refused { failure, why }) => {
                    self.why = (!why.is_empty()).then_some(why);
                    Input::ConnectFailed(failure)
                }
            },
            () = &mut gone => Input::DownstreamGone,
            () = self.alarm.until(due) => Input::Timeout,
        };
        self.place = None;
        self.handle(input);
        None
    }

    /// Sends the request, relays the response, and keeps the connection if it can be used again.
    async fn send<S: Source, K: ResponseSink>(&mut self, upstream: Upstream, source: &mut S, sink: &mut K) {
        let now = self.worker.now();
        let record = self.exchange.record();
        let hop = Hop {
            kind: self.request.kind,
            framing: self.request.framing,
            upgrade: &self.request.upgrade,
            expect_continue: self.request.expect_continue,
            te_trailers: self.request.te_trailers,
            time_left: self.exchange.attempt_deadline().map(|deadline| deadline.since(now)),
            attempt: record.attempts_made() as u32,
            route: self.snapshot.list_name(record.decision.list),
            request_id: self.request_id.bytes(),
            generation: self.snapshot.generation,
        };
        match upstream {
            Upstream::H1(mut connection) => {
                connection.begin(ResponseFor::request(self.head.method, !hop.upgrade.is_empty()));
                if let Err(broken) =
                    RequestSink::head(&mut connection.sink, &self.outgoing(), self.edits, &hop)
                {
                    return self.handle(Input::UpstreamEnded(early(broken)));
                }
                let key = self.exchange.endpoint().map(|endpoint| endpoint.key);
                let h1::client::Connection { source: responses, sink: requests, .. } = &mut *connection;
                let conversed = pin!(self.converse(source, sink, responses, requests)).await;
                if let Some(why) = responses.reader.refused.take() {
                    self.why = Some(why);
                }
                if let Some(key) = key.filter(|_| conversed.complete && responses.reusable()) {
                    let now = self.worker.now();
                    self.worker.h1_pools.borrow_mut().give(key, connection, now);
                }
            }
            Upstream::Mux(mut stream) => {
                let mux::stream::Stream { reader, writer } = &mut *stream;
                if let Err(broken) = RequestSink::head(writer, &self.outgoing(), self.edits, &hop) {
                    return self.handle(Input::UpstreamEnded(early(broken)));
                }
                reader.follow(writer);
                pin!(self.converse(source, sink, reader, writer)).await;
            }
            Upstream::H2(mut call) => {
                let h2::Call { reader, writer } = &mut *call;
                if let Err(broken) = RequestSink::head(writer, &self.outgoing(), self.edits, &hop) {
                    return self.handle(Input::UpstreamEnded(early(broken)));
                }
                reader.follow(writer);
                pin!(self.converse(source, sink, reader, writer)).await;
            }
            Upstream::Opaque(mut connection) => {
                let opaque::Connection { source: responses, sink: requests } = &mut *connection;
                pin!(self.converse(source, sink, responses, requests)).await;
            }
        }
    }

    async fn converse<S, K, R, W>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        responses: &mut R,
        requests: &mut W,
    ) -> Conversed
    where
        S: Source,
        K: ResponseSink,
        R: ResponseSource,
        W: RequestSink,
    {
        let broken_off = Conversed { complete: false };
        let (mut sent, received) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.received));
        if let Some(copy) = self.copy {
            copy.begin();
            sent.copy = Some(copy.clone());
        }
        let (sent, received) = (&sent, &received);
        let kept = self.kept.take();
        received.call.set(self.call);
        let mut uploading = true;
        let uploaded = std::cell::Cell::new(false);
        let tunnel_offered = !self.request.upgrade.is_empty();
        // A connection's bytes go up at once: nobody has to agree first.
        let eager = self.request.kind == Kind::Tcp;
        let no_body = !eager && matches!(self.request.framing, BodyFraming::None | BodyFraming::Tunnel);
        let conversed = 'talk: {
            let arrived = {
                let kept = kept.as_deref();
                let mut upload =
                    pin!(upload(source, requests, sent, &uploaded, kept, no_body, tunnel_offered, eager));
                // The response head; interim ones are passed on, so many as a peer may send over the transport.
                let mut interim = 0;
                let arrived = loop {
                    let due = self.due();
                    tokio::select! {
                        biased;
                        head = responses.head() => match head {
                            Ok(arrived) if arrived.interim => {
                                interim += 1;
                                if interim > INTERIM_HEADS_MAX {
                                    self.tell_taken(sent);
                                    let app_saw = AppSaw::Maybe;
                                    let reason = Reason::UpstreamMalformed;
                                    self.handle(Input::UpstreamEnded(Ending::Early { app_saw, reason }));
                                    break 'talk broken_off;
                                }
                                received.lately.set(true);
                                let passed = async {
                                    sink.head(&responses.view(), &NO_EDITS, BodyFraming::None, b"").await?;
                                    sink.flush().await
                                };
                                // What does not leave in time stays in the sink and goes before the next head.
                                tokio::select! {
                                    biased;
                                    passed = passed => if passed.is_err() {
                                        self.handle(Input::DownstreamGone);
                                        break 'talk broken_off;
                                    },
                                    () = self.alarm.until(due) => {
                                        self.tell_taken(sent);
                                        if self.timed_out(sent, received) {
                                            break 'talk broken_off;
                                        }
                                    }
                                }
                            }
                            Ok(arrived) => break arrived,
                            Err(broken) => {
                                self.tell_taken(sent);
                                self.handle(Input::UpstreamEnded(early(broken)));
                                break 'talk broken_off;
                            }
                        },
                        ended = &mut upload, if uploading => {
                            self.tell_taken(sent);
                            match ended {
                                Upload::Gone => self.handle(Input::DownstreamGone),
                                Upload::Malformed => self.handle(Input::RequestMalformed),
                                Upload::Refused | Upload::Done => {
                                    uploading = false;
                                    continue;
                                }
                            }
                            break 'talk broken_off;
                        }
                        () = self.alarm.until(due) => {
                            self.tell_taken(sent);
                            if self.timed_out(sent, received) {
                                break 'talk broken_off;
                            }
                        }
                    }
                };
                if self.exchange.tries().is_some() && self.withhold(&responses.view(), sent) {
                    let nothing_follows =
                        matches!(arrived.framing, BodyFraming::None | BodyFraming::Length(0));
                    break 'talk Conversed { complete: nothing_follows && uploaded.get() };
                }
                if self.exchange.judges_call()
                    && arrived.framing != BodyFraming::None
                    && Status::of(responses.view().fields).is_none()
                {
                    let held = self.hold(responses, upload.as_mut(), &mut uploading, sent);
                    if !Box::pin(held).await {
                        break 'talk broken_off;
                    }
                }
                self.handle(Input::Response { status: arrived.status });
                if self.call
                    && let Some(status) = Status::of(responses.view().fields)
                {
                    self.exchange.call_ended(status);
                }
                if self.exchange.poll_action() != Some(Action::Relay) {
                    break 'talk broken_off;
                }
                if let Some(kept) = kept {
                    kept.release();
                }
                if self.worker.draining() {
                    sink.close_after();
                }
                let framing = if eager { BodyFraming::Tunnel } else { arrived.framing };
                if eager {
                    self.exchange.begin_tunnel();
                } else if matches!(framing, BodyFraming::Chunked | BodyFraming::UntilClose)
                    && is_event_stream(&responses.view())
                {
                    self.exchange.allow_silence();
                }
                let own = if arrived.status >= 500 || self.call || self.cookie.is_some() {
                    self.answer_edits(arrived.status)
                } else {
                    None
                };
                let edits = self.with_changes(own);
                let edits = edits.as_deref().unwrap_or(&NO_EDITS);
                let relayed = sink.head(&responses.view(), edits, framing, responses.upgrade()).await;
                if let Err(broken) = relayed {
                    let input = match broken.reason {
                        Reason::UpstreamMalformed => Input::UpstreamEnded(early(broken)),
                        _ => Input::DownstreamGone,
                    };
                    self.handle(input);
                    break 'talk broken_off;
                }
                if eager || arrived.framing != BodyFraming::Tunnel {
                    let mut download = pin!(pump(responses, sink, received));
                    let mut downloading = true;
                    loop {
                        let due = self.due();
                        tokio::select! {
                            biased;
                            done = &mut download, if downloading => {
                                match done {
                                    Ok(()) if eager && uploading => {
                                        downloading = false;
                                        continue;
                                    }
                                    Ok(()) => {
                                        if let Some(status) = received.status.get() {
                                            self.exchange.call_ended(status);
                                        }
                                        self.handle(Input::UpstreamEnded(Ending::Complete));
                                    }
                                    Err(PumpError::Source(broken)) => {
                                        self.handle(Input::UpstreamEnded(early(broken)));
                                    }
                                    Err(PumpError::Sink) => self.handle(Input::DownstreamGone),
                                }
                                break 'talk Conversed { complete: done.is_ok() && uploaded.get() };
                            }
                            ended = &mut upload, if uploading => match ended {
                                Upload::Gone => {
                                    self.handle(Input::DownstreamGone);
                                    break 'talk broken_off;
                                }
                                Upload::Malformed => {
                                    self.handle(Input::RequestMalformed);
                                    break 'talk broken_off;
                                }
                                Upload::Done if !downloading => {
                                    self.handle(Input::UpstreamEnded(Ending::Complete));
                                    break 'talk broken_off;
                                }
                                Upload::Refused if eager => {
                                    self.handle(Input::UpstreamEnded(early(Broken::CLOSED)));
                                    break 'talk broken_off;
                                }
                                Upload::Refused | Upload::Done => uploading = false,
                            },
                            () = self.alarm.until(due), if !eager => if self.timed_out(sent, received) {
                                break 'talk broken_off;
                            }
                        }
                    }
                }
                arrived
            };
            debug_assert_eq!(arrived.framing, BodyFraming::Tunnel);
            source.begin_tunnel();
            requests.begin_tunnel();
            // A tunnel has no deadlines: both ends may be silent for days. Dead peers are the transport's concern.
            // One direction may end long before the other, but when one breaks the other is of no use: whoever is at its
            // end may be waiting for what will never come.
            let up = async {
                pump(source, requests, sent).await.map_err(|error| matches!(error, PumpError::Source(_)))
            };
            let down = async {
                sink.flush().await.map_err(|_| true)?;
                pump(responses, sink, received).await.map_err(|error| matches!(error, PumpError::Sink))
            };
            self.handle(match tokio::try_join!(up, down) {
                Ok(_) => Input::UpstreamEnded(Ending::Complete),
                Err(true) => Input::DownstreamGone,
                Err(false) => Input::UpstreamEnded(early(Broken::CLOSED)),
            });
            broken_off
        };
        self.kept = kept;
        add(&self.sent, sent);
        add(&self.received, received);
        conversed
    }
}
