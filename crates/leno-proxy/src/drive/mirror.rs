//! Copies of requests, for whoever else is to get them. A copy leaves when the exchange that it is of is over, as a request of
//! its own that nobody waits for: whatever becomes of it changes nothing for the client.
//!
//! The body is copied on its way up, so that a copy is made only of a request whose body has gone by whole and is not too
//! long; upgrades and tunnels are never copied.

use std::pin::pin;
use std::rc::Rc;

use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{Fields, RequestIndex, ResponseHead, Span};
use leno_core::http1::BodyFraming;
use leno_core::mux::Kind;
use leno_core::reason::Reason;
use leno_core::spec::Mirror;
use leno_core::time::Duration;

use super::{Drive, drive};
use crate::alarm::Alarm;
use crate::body::{Broken, Chunk, Copy, Held, Request, ResponseSink, Sink, Source};
use crate::caller::{Caller, Remote};
use crate::h2::push_field;
use crate::telemetry::bump;
use crate::worker::Worker;

/// How long a copy may take: nobody waits for it, and it holds memory.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);
/// Copies of one worker that are under way at a time; further ones are not made.
const MIRRORS_UNDER_WAY_MAX: usize = 256;
/// What a copy has beside the headers of its original.
const MIRROR_HEADER: &[u8] = b"leno-mirror";

/// Copies that a request is to have.
pub(super) struct Mirrors {
    targets: Vec<Mirror>,
    pub(super) body: Rc<Copy>,
}

/// Throws the dice for each mirror; `None`: this request is not copied.
#[cold]
pub(super) fn chosen(worker: &Worker, mirrors: &[Mirror], request: &Request) -> Option<Mirrors> {
    if request.kind == Kind::Tcp || !request.upgrade.is_empty() || request.framing == BodyFraming::Tunnel {
        return None;
    }
    let mut rng = worker.rng();
    let all = u64::from(Mirror::ALL_PPM);
    let targets: Vec<Mirror> =
        mirrors.iter().filter(|mirror| rng.below(all) < u64::from(mirror.share_ppm)).cloned().collect();
    (!targets.is_empty()).then(|| Mirrors { targets, body: Rc::new(Copy::new(worker.copied_bytes.clone())) })
}

impl Drive<'_> {
    /// Sends the copies of this request, which is over.
    #[cold]
    pub(super) fn mirror(&self, mirrors: &Mirrors) {
        let has_body = self.request.framing != BodyFraming::None;
        let body = match mirrors.body.taken() {
            Err(()) => return bump(&mut self.worker.telemetry().limits, "mirror_body"),
            Ok(None) if has_body => return,
            Ok(body) => Rc::new(body.unwrap_or_default()),
        };
        for target in &mirrors.targets {
            let under_way = &self.worker.mirrors_under_way;
            if under_way.get() >= MIRRORS_UNDER_WAY_MAX || self.worker.draining() {
                bump(&mut self.worker.telemetry().limits, "mirrors");
                return;
            }
            under_way.set(under_way.get() + 1);
            let request = self.copied(has_body.then_some(body.bytes.len()));
            let caller = Caller::Mirror { target: (target.service.clone(), target.version.clone()) };
            let (body, client) = (body.clone(), *self.client);
            self.worker.spawn(move |worker| send(worker, caller, client, request, body));
        }
    }

    /// The head as it was sent, with a word that it is a copy.
    fn copied(&self, body: Option<usize>) -> Request {
        let head = self.outgoing();
        let mut bytes = Vec::with_capacity(1024);
        let mut put = |text: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(text);
            Span::new(start, bytes.len())
        };
        let mut index = RequestIndex {
            method: put(head.method),
            authority: put(head.authority),
            path: put(head.path),
            fields: Vec::new(),
        };
        for (name, value) in self.edits.applied(head.fields) {
            push_field(&mut bytes, &mut index.fields, name, value);
        }
        push_field(&mut bytes, &mut index.fields, MIRROR_HEADER, b"1");
        Request {
            bytes,
            index,
            framing: body.map_or(BodyFraming::None, |length| BodyFraming::Length(length as u64)),
            te_trailers: self.request.te_trailers,
            time_left: Some(MIRROR_TIMEOUT),
            kind: self.request.kind,
            ..Request::default()
        }
    }
}

async fn send(worker: Rc<Worker>, caller: Caller, client: Remote, request: Request, body: Rc<Held>) {
    let (mut source, mut sink, mut edits) = (Copied { body, taken: false }, Nobody, Edits::default());
    let mut alarm = Alarm::new(worker.clock);
    pin!(drive(&worker, &caller, &client, &request, &mut edits, &mut source, &mut sink, &mut alarm)).await;
    worker.mirrors_under_way.set(worker.mirrors_under_way.get().saturating_sub(1));
}

/// A body that is there already.
struct Copied {
    body: Rc<Held>,
    taken: bool,
}

impl Source for Copied {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        Ok(if self.taken || self.body.bytes.is_empty() { Chunk::End } else { Chunk::Data(&self.body.bytes) })
    }

    fn consume(&mut self) {
        self.taken = true;
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    fn trailers(&self) -> Fields<'_> {
        Fields::default()
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }
}

/// A client that takes everything and looks at nothing.
struct Nobody;

impl Sink for Nobody {
    async fn write(&mut self, _payload: &[u8]) -> Result<(), Broken> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    async fn finish(&mut self, _trailers: Fields<'_>) -> Result<(), Broken> {
        Ok(())
    }
}

impl ResponseSink for Nobody {
    async fn head(
        &mut self,
        _head: &ResponseHead<'_>,
        _edits: &Edits,
        _framing: BodyFraming,
        _upgrade: &[u8],
    ) -> Result<(), Broken> {
        Ok(())
    }

    fn refuse(&mut self, _reason: Reason, _app_saw: AppSaw) -> bool {
        true
    }

    fn cut(&mut self, _reason: Reason) {}
}
