//! Connections to HTTP/1 servers: made, used for one request at a time, and kept for the next.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use leno_core::backend::Place;
use leno_core::http1::ResponseFor;
use leno_core::reason::Reason;
use leno_core::time::{Duration, Instant};

use super::{Reader, Response, ResponseReader, Writer};
use crate::io::Stream;
use crate::worker::Worker;

/// Idle connections kept per endpoint and worker. Fewer than a burst uses at a time means connecting anew in every burst.
const IDLE_MAX: usize = 1024;
/// How long a connection may be idle before it is closed instead of used. The poller tells us of those that the
/// server closed (Node after 5 s, gunicorn after 2 s, nginx after 75 s); this bounds what is kept for nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) source: ResponseReader,
    pub(crate) sink: Writer,
    /// Its place, where connections have a limit.
    pub(crate) place: Option<Box<Place>>,
}

impl Connection {
    /// Connects. The caller bounds the wait.
    pub(crate) async fn dial(worker: &Worker, address: SocketAddr) -> io::Result<Self> {
        let stream = worker.dialer.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(worker, Rc::new(Stream::Plain(stream))))
    }

    /// A connection that was made.
    pub(crate) fn over(worker: &Worker, stream: Rc<Stream>) -> Self {
        let reader =
            Reader::new(stream.clone(), worker.stock.clone(), &worker.limits, Reason::UpstreamMalformed);
        Self {
            source: ResponseReader::new(reader, worker.limits),
            sink: Writer::new(stream, worker.stock.clone()),
            place: None,
        }
    }

    /// Prepares for a request.
    pub(crate) fn begin(&mut self, answers: ResponseFor) {
        self.source.begin(answers);
    }
}

/// Idle connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    /// By endpoint; the one used last is used next, so that the others grow old and go.
    idle: BTreeMap<u64, Vec<(Box<Connection>, Instant)>>,
    /// What idle connections do not need.
    #[allow(
        clippy::vec_box,
        reason = "they move between here and connections, which have room for a pointer only"
    )]
    responses: Vec<Box<Response>>,
}

/// Memory for responses that a worker keeps; with more requests at a time than this, some is made anew.
const RESPONSES_MAX: usize = 512;
/// The largest head that is kept memory for, in bytes.
const HEAD_BYTES_KEPT: usize = 4 * 1024;

impl Pools {
    /// A connection to use, if one is left that is alive.
    pub(crate) fn take(&mut self, endpoint: u64, now: Instant) -> Option<Box<Connection>> {
        let idle = self.idle.get_mut(&endpoint)?;
        while let Some((mut connection, since)) = idle.pop() {
            if now.since(since) < IDLE_TIMEOUT && !connection.source.reader.is_stale() {
                connection.source.response = self.responses.pop();
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last response was complete.
    pub(crate) fn give(&mut self, endpoint: u64, mut connection: Box<Connection>, now: Instant) {
        let response = connection.source.response.take();
        self.responses.extend(response.filter(|it| it.bytes.capacity() <= HEAD_BYTES_KEPT));
        self.responses.truncate(RESPONSES_MAX);
        let idle = self.idle.entry(endpoint).or_default();
        if idle.len() < IDLE_MAX {
            idle.push((connection, now));
        }
    }

    /// Closes one idle connection to these endpoints, the one that has been so for longest on the first that has any.
    #[cold]
    pub(crate) fn evict(&mut self, endpoints: impl Iterator<Item = u64>) -> bool {
        for endpoint in endpoints {
            if let Some(idle) = self.idle.get_mut(&endpoint).filter(|idle| !idle.is_empty()) {
                idle.remove(0);
                return true;
            }
        }
        false
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|(connection, since)| {
                now.since(*since) < IDLE_TIMEOUT && !connection.source.reader.is_stale()
            });
            !idle.is_empty()
        });
        // After a burst the memory goes back within some sweeps.
        self.responses.truncate(self.responses.len() / 2);
    }

    /// Forgets endpoints that are not in `keys`, which is sorted.
    pub(crate) fn keep_only(&mut self, keys: &[u64]) {
        self.idle.retain(|key, _| keys.binary_search(key).is_ok());
    }
}
