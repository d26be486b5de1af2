//! One timer per connection instead of one per wait. Most deadlines never pass: moving a deadline that lies later
//! than the timer costs nothing, the timer finds out when it rings.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use leno_core::time::Instant;
use tokio::task::coop::unconstrained;
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
            // A turn that has moved so much that its budget is used up asks the timer all the same. Else the timer would
            // neither note whom to wake nor say that it rang.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::{Context, Poll};
    use std::time::Duration as StdDuration;

    use leno_core::time::Duration;
    use tokio::task::coop;

    use super::{Alarm, Clock};

    fn use_up_the_budget(cx: &mut Context<'_>) {
        while coop::has_budget_remaining() {
            if let Poll::Ready(progress) = coop::poll_proceed(cx) {
                progress.made_progress();
            }
        }
    }

    /// Asks an alarm in turns, some of which have used up their budget before.
    async fn rings_when(mut is_busy: impl FnMut(usize) -> bool + Send + 'static) {
        let clock = Clock::start();
        let deadline = clock.now().after(Duration::from_millis(50));
        let mut alarm = Alarm::new(clock);
        let mut turn = 0;
        let task = tokio::spawn(poll_fn(move |cx| {
            if is_busy(turn) {
                use_up_the_budget(cx);
            }
            turn += 1;
            alarm.poll_until(cx, deadline)
        }));
        let rung = tokio::time::timeout(StdDuration::from_secs(3), task).await;
        assert!(rung.is_ok(), "the alarm did not ring");
    }

    #[tokio::test]
    async fn rings_when_it_is_first_asked_at_the_end_of_a_busy_turn() {
        rings_when(|turn| turn == 0).await;
    }

    #[tokio::test]
    async fn rings_although_every_turn_is_busy() {
        rings_when(|_| true).await;
    }
}
