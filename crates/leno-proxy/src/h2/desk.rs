//! Tasks that serve one stream after another, of any connection. What a request needs, a task, a timer and memory for its
//! head, is made once and not for each.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use leno_core::edit::Edits;

use super::stream::{Half, NewStream, Reader, Writer};
use crate::alarm::Alarm;
use crate::body::Request;
use crate::drive::drive;
use crate::worker::Worker;

/// A task and its memory.
#[derive(Debug, Default)]
pub(super) struct Desk {
    request: RefCell<Request>,
    half: Rc<Half>,
    next: RefCell<Option<NewStream>>,
    waker: RefCell<Option<Waker>>,
    /// It is to go home.
    closed: Cell<bool>,
}

/// Desks of one worker without a stream to serve.
#[derive(Debug, Default)]
pub(crate) struct Desks(Vec<Rc<Desk>>);

/// Desks that wait at most. Each has some KiB; with more requests at a time than this, tasks come and go.
const DESKS_MAX: usize = 256;
/// The largest memory for a head that is kept for the next request, in bytes.
const HEAD_BYTES_KEPT: usize = 4 * 1024;

impl Desks {
    /// Sends half of those home that have nothing to do: after a burst the memory goes back within some calls.
    pub(crate) fn sweep(&mut self) {
        let stay = self.0.len() / 2;
        for desk in self.0.drain(..self.0.len() - stay) {
            desk.closed.set(true);
            desk.wake();
        }
    }
}

impl Desk {
    /// An idle desk, or a new one.
    pub(super) fn free(worker: &Worker) -> Rc<Self> {
        worker.h2_desks.borrow_mut().0.pop().unwrap_or_default()
    }

    /// Gives back one that was not needed after all.
    pub(super) fn give_back(self: Rc<Self>, worker: &Worker) {
        // One that has no task yet is not worth keeping.
        if self.waker.borrow().is_some() {
            worker.h2_desks.borrow_mut().0.push(self);
        }
    }

    /// Where the next stream's head goes.
    pub(super) const fn request(&self) -> &RefCell<Request> {
        &self.request
    }

    /// Has a stream served whose head is in its place.
    pub(super) fn serve(self: Rc<Self>, worker: &Rc<Worker>, new: NewStream) {
        *self.next.borrow_mut() = Some(new);
        if self.waker.borrow().is_none() {
            worker.spawn(move |worker| self.work(worker));
        } else {
            self.wake();
        }
    }

    async fn work(self: Rc<Self>, worker: Rc<Worker>) {
        let mut alarm = Alarm::new(worker.clock);
        let mut edits = Edits::default();
        while let Some(new) = self.next().await {
            let request = self.request.take();
            let NewStream { visitor, body, respond, websocket } = new;
            self.half.begin(respond);
            let mut reader = Reader::new(body, self.half.clone());
            let mut writer = Writer::new(&worker, self.half.clone(), request.head().method, websocket);
            edits.clear();
            let (caller, remote) = (&visitor.caller, &visitor.remote);
            pin!(drive(&worker, caller, remote, &request, &mut edits, &mut reader, &mut writer, &mut alarm))
                .await;
            drop(reader);
            drop(writer);
            // What is not over yet is given up.
            self.half.end();
            drop(visitor);
            // A head that was unusually large is not worth keeping.
            if request.bytes.capacity() <= HEAD_BYTES_KEPT {
                *self.request.borrow_mut() = request;
            }
            let mut desks = worker.h2_desks.borrow_mut();
            if desks.0.len() >= DESKS_MAX {
                return;
            }
            desks.0.push(self.clone());
        }
    }

    /// Waits for a stream; `None` when the desk is to go.
    async fn next(&self) -> Option<NewStream> {
        std::future::poll_fn(|cx| {
            match &mut *self.waker.borrow_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                unknown => *unknown = Some(cx.waker().clone()),
            }
            if let Some(next) = self.next.take() {
                return Poll::Ready(Some(next));
            }
            if self.closed.get() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
