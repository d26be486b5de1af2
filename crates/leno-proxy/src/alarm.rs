//! One timer per connection instead of one per wait. Most deadlines never pass: moving a deadline that lies later
//! than the timer costs nothing, the timer finds out when it rings.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

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
    /// Whom it wakes then.
    waker: Option<Waker>,
}

impl Alarm {
    /// An alarm without a timer yet.
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, sleep: None, armed: None, waker: None }
    }

    /// Waits until `deadline`. Cancel-safe.
    pub(crate) async fn until(&mut self, deadline: Instant) {
        poll_fn(|cx| self.poll_until(cx, deadline)).await;
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            let at = || self.clock.to_tokio(deadline);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at())));
            if self.armed.is_none_or(|armed| armed > deadline) {
                sleep.as_mut().reset(at());
                self.armed = Some(deadline);
                self.waker = None;
            } else if !sleep.is_elapsed() && self.waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                // It is armed and knows whom to wake: nothing to do, as nearly always.
                return Poll::Pending;
            }
            if sleep.as_mut().poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.armed = None;
            if self.clock.now() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}
