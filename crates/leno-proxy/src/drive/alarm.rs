//! When the exchange wants to be woken, and what it is told about bodies then.

use leno_core::exchange::Input;
use leno_core::time::Instant;

use super::{Drive, NEVER};
use crate::body::Moved;

impl Drive<'_> {
    /// When the next deadline is.
    pub(super) fn due(&self) -> Instant {
        self.exchange.poll_timeout().map_or(NEVER, |(at, _)| at)
    }

    /// The alarm rang. True when that ends the attempt; false when something has moved since the deadline was set.
    pub(super) fn timed_out(&mut self, sent: &Moved, received: &Moved) -> bool {
        let now = self.worker.now();
        if sent.lately.take() | received.lately.take() {
            self.exchange.progress(now);
        }
        match self.exchange.poll_timeout() {
            Some((due, _)) if due > now => false,
            None => false,
            Some(_) => {
                self.exchange.handle(Input::Timeout, now);
                true
            }
        }
    }

    pub(super) fn tell_taken(&mut self, sent: &Moved) {
        if sent.taken.get() {
            self.handle(Input::BodyTaken);
        }
    }
}
