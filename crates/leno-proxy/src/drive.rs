//! One request from its head to its end: the core's exchange decides, this does. Read [`leno_core::exchange`] beside it.
//!
//! The same code serves every pair of protocols: it knows sources and sinks, not HTTP/1 or the mesh transport.

use std::pin::pin;
use std::rc::Rc;

use leno_core::affinity::NewCookie;
use leno_core::backend::Place;
use leno_core::edit::Edits;
use leno_core::exchange::{Action, ConnectFailure, Exchange, Input};
use leno_core::grpc;
use leno_core::head::RequestHead;
use leno_core::mux::Kind;
use leno_core::reason::Reason;
use leno_core::route::{Changed, Then};
use leno_core::snapshot::Snapshot;
use leno_core::time::Instant;

use crate::alarm::Alarm;
use crate::body::{Broken, Copy, Moved, Request, ResponseSink, Source};
use crate::caller::{Caller, Remote, RequestId};
use crate::outside::Refused;
use crate::worker::Worker;

mod admit;
mod again;
mod alarm;
mod answer;
mod change;
mod converse;
mod fault;
mod hedge;
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

pub(crate) use admit::Entrance;
use kept::Kept;
use reach::{Upstream, connect, ready};
use record::early;

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
    let link = caller.link(client);
    let decide = |snapshot: &Snapshot| match request.kind {
        Kind::Tcp => snapshot.decide_connection(caller.entry(), head.authority, link),
        Kind::Http | Kind::Http2 => snapshot.decide_on(caller.entry(), &head, link),
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
        entrance: None,
        cookie: None,
    };
    if let Some(tries) = tries {
        drive.exchange.follow(tries, worker.rng().next_u64());
        drive.kept = Kept::of(worker, request, tries);
    }
    if call {
        drive.exchange.begin_call();
    }
    if changed.as_ref().is_some_and(|changed| changed.injected.is_something()) {
        Box::pin(drive.inject(source)).await;
    }
    if repeatable && tries.is_some_and(|tries| tries.hedges()) && drive.exchange.is_open() {
        Box::pin(drive.read_ahead(source)).await;
    }
    let mut upstream = None;
    while let Some(action) = drive.exchange.poll_action() {
        match action {
            Action::Pick { choice, budget } => {
                if let Some(waiting) = drive.pick(choice, budget) {
                    Box::pin(drive.wait_to_pick(waiting, source)).await;
                }
            }
            Action::Admit => {
                if let Some(until) = drive.enter() {
                    Box::pin(drive.wait_to_enter(until, source)).await;
                }
            }
            Action::Pause { budget } => Box::pin(drive.pause(budget, source)).await,
            Action::Dial => {
                if drive.exchange.may_race().is_none() || !Box::pin(drive.race(source, sink)).await {
                    upstream = pin!(drive.dial(source)).await;
                }
            }
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
    if drive.entrance.is_some() {
        drive.leave_place();
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
    /// How it was let in, where that is limited.
    entrance: Option<Box<Entrance>>,
    /// The cookie that the client gets so that it finds the same instance again.
    cookie: Option<Box<NewCookie>>,
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
}
