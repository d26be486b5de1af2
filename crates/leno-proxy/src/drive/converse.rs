//! The talk with an upstream: the request goes up, the answer comes down.

use std::pin::pin;

use leno_core::exchange::{Action, AppSaw, Ending, Input};
use leno_core::grpc::Status;
use leno_core::http1::{BodyFraming, ResponseFor};
use leno_core::mux::{INTERIM_HEADS_MAX, Kind};
use leno_core::reason::Reason;

use super::reach::Upstream;
use super::record::{add, early};
use super::silence::is_event_stream;
use super::upload::{Upload, upload};
use super::{Drive, NO_EDITS};
use crate::body::{Broken, Hop, PumpError, RequestSink, ResponseSink, ResponseSource, Source, pump};
use crate::h1;
use crate::h2;
use crate::mux;
use crate::opaque;

/// What a conversation with an upstream left behind.
pub(super) struct Conversed {
    /// The whole request was sent and the whole response received.
    pub(super) complete: bool,
}

impl Drive<'_> {
    /// Sends the request, relays the response, and keeps the connection if it can be used again.
    pub(super) async fn send<S: Source, K: ResponseSink>(
        &mut self,
        upstream: Upstream,
        source: &mut S,
        sink: &mut K,
    ) {
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

    pub(super) async fn converse<S, K, R, W>(
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
        let (mut sent, mut received) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.received));
        received.pace = self.changed.and_then(|changed| changed.injected.slow);
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
                if self.entrance.is_some() {
                    self.headed();
                }
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
