//! One timer per connection instead of one per wait. Most deadlines never pass: moving a deadline that lies later
//! than the timer costs nothing, the timer finds out when it rings.

use std::pin::Pin;

use leno_core::time::Instant;
use tokio::time::{Sleep, sleep_until};

use crate::clock::Clock;

/// A timer that is armed at the first wait and moved only when a deadline comes nearer.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the timer rings.
    armed: Option<Instant>,
}

impl Alarm {
    /// An alarm without a timer yet.
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, sleep: None, armed: None }
    }

    /// Waits until `deadline`. Cancel-safe.
    pub(crate) async fn until(&mut self, deadline: Instant) {
        loop {
            if self.armed.is_none_or(|armed| armed > deadline) {
                let at = self.clock.to_tokio(deadline);
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(sleep_until(at))),
                }
                self.armed = Some(deadline);
            }
            if let Some(sleep) = &mut self.sleep {
                sleep.as_mut().await;
            }
            self.armed = None;
            if self.clock.now() >= deadline {
                return;
            }
        }
    }
}
