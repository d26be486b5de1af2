//! Answers that are made here: those that rules have, and those that say why there is no other.

use std::fmt::Write;

use leno_core::edit::Edits;
use leno_core::grpc::{self, Status};
use leno_core::head::{Fields, ResponseHead};
use leno_core::http1::BodyFraming;
use leno_core::mux::Kind;
use leno_core::reason::{Reason, phrase};
use leno_core::route::Made;
use leno_core::spec::{Abort, Answer};
use leno_core::time::Duration;

use super::Drive;
use crate::body::ResponseSink;

/// How long a client may take to accept an answer made here.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// After how long a client that was refused for want of a place may ask again, and by how much that differs.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_SPREAD: Duration = Duration::from_secs(2);

impl Drive<'_> {
    /// Answers the client here, or tells a peer why there is no answer.
    pub(super) async fn reply<K: ResponseSink>(&mut self, reason: Reason, sink: &mut K) {
        // A sidecar whose request does not leave through this gateway gets the reason whole; and one too many is answered, not
        // refused: what is only refused may be tried elsewhere.
        let whole = self.leaving.is_some() || reason == Reason::RateLimited;
        let tell = whole && self.request.kind != Kind::Tcp;
        if !tell && sink.refuse(reason, self.exchange.app_saw()) {
            return;
        }
        let record = self.exchange.record();
        let mut body = format!("leno: {}: {}", reason.word(), reason.sentence());
        if let Some(why) = &self.why {
            let _ = write!(body, ": {why}");
        }
        let service = self.snapshot.list_name(record.decision.list);
        let tried: Vec<&str> = record.attempts().map(|attempt| &*attempt.endpoint.spec.name).collect();
        // Writing to a String cannot fail.
        let _ = match (service, tried.is_empty()) {
            ("", _) => writeln!(body),
            (service, true) => writeln!(body, " ({service})"),
            (service, false) => writeln!(body, " ({service}; tried {})", tried.join(", ")),
        };
        let mut edits = self.changed.map_or_else(Edits::default, |changed| changed.response.clone());
        edits.add(b"leno-reason", reason.word().as_bytes());
        edits.remove_all(b"x-request-id");
        edits.add(b"x-request-id", self.request_id.bytes());
        edits.remove_all(b"content-type");
        let mut status = record.status;
        if self.call {
            // The whole answer is a head, in gRPC's terms.
            status = 200;
            edits.add(b"content-type", grpc::CONTENT_TYPE);
            edits.add(b"grpc-status", Status::of_reason(reason).text().as_bytes());
            edits.set_with(b"grpc-message", |out| grpc::write_message(out, body.trim_end()));
        } else {
            edits.add(b"content-type", b"text/plain; charset=utf-8");
        }
        if reason == Reason::ServiceOverloaded {
            self.ask_to_wait(&mut edits);
        }
        if reason == Reason::RateLimited
            && self.call
            && let Some(wait) = self.changed.and_then(|changed| changed.charge.wait)
        {
            edits.set(b"grpc-retry-pushback-ms", wait.as_millis().max(1).to_string().as_bytes());
        }
        if reason == Reason::HttpsOnly
            && let Some(url) = self.caller.https_url(&self.head)
        {
            edits.add(b"location", &url);
        }
        self.say(status, &edits, body.as_bytes(), sink).await;
    }

    /// Says when it may be worth to ask again: not at once, and not all at the same time.
    fn ask_to_wait(&self, edits: &mut Edits) {
        let extra = self.worker.rng().below(ASK_AGAIN_SPREAD.as_millis() as u64 + 1);
        let millis = ASK_AGAIN.as_millis() as u64 + extra;
        if self.call {
            edits.set(b"grpc-retry-pushback-ms", millis.to_string().as_bytes());
        } else {
            edits.set(b"retry-after", millis.div_ceil(1_000).to_string().as_bytes());
        }
    }

    /// Gives the client the answer that the rule has.
    pub(super) async fn answer<K: ResponseSink>(&mut self, sink: &mut K) {
        let Some((changed, answer)) = self.changed.and_then(|it| Some((it, it.answer.as_deref()?))) else {
            return sink.cut(Reason::NoRoute);
        };
        let mut edits = changed.response.clone();
        edits.set(b"x-request-id", self.request_id.bytes());
        if changed.made == Made::Fault {
            edits.set(b"leno-reason", Reason::Fault.word().as_bytes());
        }
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
        let kind = changed.made.word().unwrap_or_else(|| answer.word());
        self.worker.telemetry().count_answer(list, rule.unwrap_or(""), kind);
        if self.call {
            // The whole answer is a head, in gRPC's terms.
            edits.set(b"content-type", grpc::CONTENT_TYPE);
            let broken = changed.injected.abort.filter(|_| changed.made == Made::Fault);
            let code = broken.map_or_else(|| Status::of_http(answer.status()), Abort::code);
            edits.set(b"grpc-status", code.text().as_bytes());
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
