//! Before the application beside: a request is let in, waits, or is refused. Nothing of this is on the way of a request to a
//! service that declares no concurrency.

use std::pin::pin;

use leno_core::admission::{Class, PRIORITY_HEADER, Standing};
use leno_core::exchange::Input;
use leno_core::mux::Kind;
use leno_core::time::{Duration, Instant};

use super::Drive;
use crate::body::Source;
use crate::door::{Answer, Place};

/// How a request came in.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// What it is worth.
    pub(crate) class: Class,
    /// How long it waited.
    pub(crate) waited: Duration,
    /// Its place, if it was let in.
    place: Option<Place>,
}

impl Drive<'_> {
    /// Asks for a place at the application. What comes back is until when it has to be waited for.
    #[cold]
    pub(super) fn enter(&mut self) -> Option<Instant> {
        // Bytes that are no requests have no class, and no end that anybody could wait for.
        if self.request.kind == Kind::Tcp {
            self.handle(Input::Admitted);
            return None;
        }
        let class = Class::of_header(self.head.fields.get_named(PRIORITY_HEADER.as_bytes()));
        let now = self.worker.now();
        let answer = self.worker.door.enter(class, self.exchange.deadline(), now, self.worker.clock);
        let (place, until, input) = match answer {
            Answer::Admitted(place) => (place, None, Some(Input::Admitted)),
            Answer::Waiting(place, until) => (Some(place), Some(until), None),
            Answer::Shed => (None, None, Some(Input::Shed)),
        };
        self.entrance = Some(Box::new(Entrance { class, waited: Duration::ZERO, place }));
        if let Some(input) = input {
            self.handle(input);
        }
        until
    }

    /// Waits for a place, as long as the gate, the request's deadline and the client's patience allow.
    pub(super) async fn wait_to_enter<S: Source>(&mut self, until: Instant, source: &mut S) {
        let came = self.worker.now();
        let due = self.due();
        let Some(entrance) = self.entrance.as_deref_mut() else { return };
        let Some(place) = &entrance.place else { return };
        let woken = {
            let mut gone = pin!(source.gone());
            tokio::select! {
                biased;
                () = &mut gone => Err(Input::DownstreamGone),
                standing = place.turn() => Ok(standing),
                () = self.alarm.until(due.min(until)) => {
                    let now = self.worker.now();
                    if now >= due && due < until { Err(Input::Timeout) } else { Ok(place.give_up(now)) }
                }
            }
        };
        entrance.waited = self.worker.now().since(came);
        let input = match woken {
            Ok(Standing::Admitted) => Input::Admitted,
            Ok(Standing::Shed | Standing::Waiting) => Input::Shed,
            Err(input) => input,
        };
        if !matches!(input, Input::Admitted) {
            entrance.place = None;
        }
        self.handle(input);
    }

    /// The head of the answer is there.
    #[cold]
    pub(super) fn headed(&self) {
        if let Some(place) = self.entrance.as_ref().and_then(|entrance| entrance.place.as_ref()) {
            place.headed(self.worker.now());
        }
    }

    /// The exchange is over: the place is the next one's.
    #[cold]
    pub(super) fn leave_place(&mut self) {
        let record = self.exchange.record();
        let answered = record.reason.is_none() && record.status < 500;
        let Some(entrance) = self.entrance.as_deref_mut() else { return };
        if let Some(mut place) = entrance.place.take()
            && answered
        {
            place.answered();
        }
    }
}
