//! A worker's thread: its runtime, its listeners, and the orders that it takes.

use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::thread::JoinHandle;

use leno_core::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::listen::{Purpose, accept};
use crate::worker::{Order, Seat, Worker};

/// How often idle connections to upstreams are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Orders that may wait.
const ORDERS_MAX: usize = 16;

/// A running worker, as the main thread sees it.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts a worker with its share of the listeners. `ended` hears of it when the thread is over, also by a panic.
pub(crate) fn start(
    seat: Seat,
    number: usize,
    listeners: Vec<(Purpose, StdListener)>,
    ended: mpsc::UnboundedSender<usize>,
) -> std::io::Result<WorkerHandle> {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let (tell_built, built) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        // A local runtime never leaves its thread: its tasks are woken and run without an atomic queue in between.
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell_built.send(Err(error))),
        };
        let _ = tell_built.send(Ok(()));
        let _ended = Ended { number, tell: ended };
        runtime.block_on(run(seat, number as u64, listeners, inbox));
    })?;
    // The thread says either, or it has panicked.
    built.recv().unwrap_or_else(|_| Err(std::io::Error::other("a worker's thread could not start")))?;
    Ok(WorkerHandle { orders, thread })
}

/// Tells that a worker's thread is over, however it came to that.
struct Ended {
    number: usize,
    tell: mpsc::UnboundedSender<usize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more when the whole process stops.
        let _ = self.tell.send(self.number);
    }
}

async fn run(
    seat: Seat,
    number: u64,
    listeners: Vec<(Purpose, StdListener)>,
    mut inbox: mpsc::Receiver<Order>,
) {
    let worker = Worker::new(&seat, number);
    for (purpose, socket) in listeners {
        worker.spawn(move |worker| async move {
            if let Err(error) = accept(worker, socket, purpose).await {
                tracing::error!(%error, "a listener cannot be used");
            }
        });
    }
    let Seat { mut snapshot, mut tls, .. } = seat;
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            changed = snapshot.changed() => match changed {
                Ok(()) => {
                    let next = snapshot.borrow_and_update().clone();
                    worker.adopt(next);
                }
                Err(_) => return,
            },
            changed = tls.changed() => match changed {
                Ok(()) => {
                    let next = tls.borrow_and_update().clone();
                    worker.adopt_tls(next);
                }
                Err(_) => return,
            },
            order = inbox.recv() => match order {
                Some(Order::Stop) | None => return,
                Some(order) => obey(&worker, order),
            },
            _ = sweep.tick() => {
                worker.sweep();
            }
        }
    }
}

fn obey(worker: &Rc<Worker>, order: Order) {
    // Whoever gave the order may have stopped waiting for the answer.
    match order {
        Order::Scrape(answer) => {
            let mut telemetry = worker.telemetry().clone();
            telemetry.near = worker.backends().near();
            drop(answer.send(telemetry));
        }
        Order::Backends(answer) => drop(answer.send(worker.endpoints())),
        Order::Drain(answer) => {
            worker.start_drain();
            worker.spawn(move |worker| drained(worker, answer));
        }
        Order::Stop => {}
    }
}

/// Answers when no exchange is under way any more.
async fn drained(worker: Rc<Worker>, answer: oneshot::Sender<()>) {
    loop {
        let ended = worker.drain.notified();
        if worker.under_way() == 0 {
            break;
        }
        ended.await;
    }
    // One more turn, so that the last frames of the last exchanges leave.
    tokio::task::yield_now().await;
    tokio::time::sleep(LAST_FRAMES).await;
    let _ = answer.send(());
}

/// What the kernel and the peers get to take the last bytes of a drain.
const LAST_FRAMES: Duration = Duration::from_millis(20);
