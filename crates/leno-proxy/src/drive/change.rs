//! Requests that rules change, and those that rules answer. Nothing of this is done for any other.

use std::rc::Rc;

use leno_core::edit::Edits;
use leno_core::grpc::{self, Status};
use leno_core::head::{Fields, RequestHead, ResponseHead};
use leno_core::http1::BodyFraming;
use leno_core::reason::{Reason, phrase};
use leno_core::route::{Changed, Decision, Facts, Then};
use leno_core::snapshot::Snapshot;
use leno_core::spec::{Answer, Scheme};

use super::{Drive, REPLY_TIMEOUT};
use crate::body::ResponseSink;
use crate::caller::{Caller, Remote};
use crate::worker::Worker;

/// What the rules of `decision` make of a request; their changes of its headers go into `edits`, behind those of this hop.
/// A request that cannot be sent as they want it is refused.
#[cold]
#[allow(clippy::too_many_arguments, reason = "each is a part of the request that is known at this moment")]
pub(super) fn change(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    client: &Remote,
    head: &RequestHead<'_>,
    request_id: &[u8],
    decision: &mut Decision,
    edits: &mut Edits,
) -> Box<Changed> {
    // This hop has found out what the client speaks, or what a proxy in front says that it does.
    let said = edits.added().find(|(name, _)| *name == b"x-forwarded-proto").map(|(_, scheme)| scheme);
    let facts = Facts {
        client: client.ip(),
        scheme: if said == Some(b"https") { Scheme::Https } else { Scheme::Http },
        source: &worker.own_name,
        service: snapshot.list_name(decision.list),
        request_id,
    };
    match snapshot.change(caller.entry(), head, &facts, edits) {
        Ok(changed) => Box::new(changed),
        Err(_) => {
            decision.then = Then::Refused(Reason::RequestMalformed);
            Box::default()
        }
    }
}

/// Why a request is refused that cannot be sent as the rules want it.
pub(super) const UNFIT: &str = "what a rule makes of its path is longer than a path can be";

impl Drive<'_> {
    /// The head that is sent.
    pub(super) fn outgoing(&self) -> RequestHead<'_> {
        match self.changed {
            None => self.head,
            Some(changed) => changed.head(&self.head),
        }
    }

    /// Gives the client the answer that the rule has.
    pub(super) async fn answer<K: ResponseSink>(&mut self, sink: &mut K) {
        let Some((changed, answer)) = self.changed.and_then(|it| Some((it, it.answer.as_deref()?))) else {
            return sink.cut(Reason::NoRoute);
        };
        let mut edits = changed.response.clone();
        edits.set(b"x-request-id", self.request_id.bytes());
        let mut body: &[u8] = b"";
        match answer {
            Answer::Redirect(_) => edits.add(b"location", &changed.location),
            Answer::Direct(direct) => {
                body = direct.body.as_bytes();
                let typed = edits.added().any(|(name, _)| name.eq_ignore_ascii_case(b"content-type"));
                if !body.is_empty() && !typed && !self.call {
                    edits.add(b"content-type", b"text/plain; charset=utf-8");
                }
            }
        }
        let (list, rule) = self.snapshot.rule_name(&self.exchange.record().decision);
        self.worker.telemetry().count_answer(list, rule.unwrap_or(""), answer.word());
        if self.call {
            // The whole answer is a head, in gRPC's terms.
            edits.set(b"content-type", grpc::CONTENT_TYPE);
            edits.set(b"grpc-status", Status::of_http(answer.status()).text().as_bytes());
            edits.set_with(b"grpc-message", |out| grpc::write_message(out, &String::from_utf8_lossy(body)));
            return self.say(200, &edits, b"", sink).await;
        }
        self.say(answer.status(), &edits, body, sink).await;
    }

    /// Answers the client here, with a body unless the request or status allows none.
    pub(super) async fn say<K: ResponseSink>(
        &mut self,
        status: u16,
        edits: &Edits,
        body: &[u8],
        sink: &mut K,
    ) {
        let head = ResponseHead { status, reason: phrase(status), fields: Fields::default() };
        let wants_body = !self.call && self.head.method != b"HEAD" && !matches!(status, 204 | 304);
        let framing = if wants_body { BodyFraming::Length(body.len() as u64) } else { BodyFraming::None };
        if self.worker.draining() || !matches!(self.request.framing, BodyFraming::None) {
            // What is left of the request's body will not be read.
            sink.close_after();
        }
        let deadline = self.worker.now().after(REPLY_TIMEOUT);
        let answered = async {
            sink.head(&head, edits, framing, b"").await?;
            if wants_body {
                sink.write(body).await?;
            }
            sink.finish(Fields::default()).await
        };
        let done = tokio::select! {
            biased;
            done = answered => done.is_ok(),
            () = self.alarm.until(deadline) => false,
        };
        if !done {
            sink.cut(Reason::DownstreamGone);
        } else if wants_body {
            self.received.bytes.set(body.len() as u64);
        }
    }
}
