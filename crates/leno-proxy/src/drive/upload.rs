//! The way up: a request's body, or a connection's bytes.

use std::pin::pin;
use std::task::Poll;

use leno_core::head::Fields;
use leno_core::reason::Reason;

use super::kept::{Kept, pump_kept};
use crate::body::{Broken, Moved, PumpError, RequestSink, Source, pump};

/// How the side of the request ended, as far as it concerns the response.
pub(super) enum Upload {
    /// All of a tunnel's bytes up have been sent; bytes down may go on.
    Done,
    /// The client went away.
    Gone,
    /// What the client sent is not what its head announced.
    Malformed,
    /// The upstream takes no more; it may still answer.
    Refused,
}

/// Sends the request's body, then watches for a client that goes away.
#[allow(clippy::too_many_arguments, reason = "each is a separate part of the exchange, borrowed apart")]
pub(super) async fn upload<S: Source, W: RequestSink>(
    source: &mut S,
    requests: &mut W,
    sent: &Moved,
    uploaded: &std::cell::Cell<bool>,
    kept: Option<&Kept>,
    no_body: bool,
    tunnel_offered: bool,
    eager: bool,
) -> Upload {
    let result = if no_body {
        // An offered upgrade leaves the request's direction open.
        let done =
            if tunnel_offered { requests.flush().await } else { requests.finish(Fields::default()).await };
        done.map_err(|_| PumpError::Sink)
    } else {
        // While the application takes nothing, nobody reads; a client that is cut off then has to be seen all the same.
        let mut cut_off = pin!(source.cut_off());
        let mut pumped = pin!(async {
            match kept {
                None => pump(source, requests, sent).await,
                Some(kept) => Box::pin(pump_kept(source, requests, sent, kept)).await,
            }
        });
        std::future::poll_fn(|cx| match pumped.as_mut().poll(cx) {
            Poll::Ready(pumped) => Poll::Ready(pumped),
            Poll::Pending => cut_off.as_mut().poll(cx).map(|()| Err(PumpError::Source(Broken::CLOSED))),
        })
        .await
    };
    match result {
        Ok(()) => {
            uploaded.set(true);
            if eager {
                return Upload::Done;
            }
            source.gone().await;
            Upload::Gone
        }
        Err(PumpError::Source(Broken { reason: Reason::RequestMalformed, .. })) => Upload::Malformed,
        Err(PumpError::Source(_)) => Upload::Gone,
        Err(PumpError::Sink) => Upload::Refused,
    }
}
