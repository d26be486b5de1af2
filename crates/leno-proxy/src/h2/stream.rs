//! A client's stream, as the driver's source of a request and sink of its response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode, header};
use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{FieldId, Fields, ResponseHead};
use leno_core::http1::BodyFraming;
use leno_core::reason::Reason;

use super::receiving::Receiving;
use super::sending::{Outlet, Sending};
use super::server::Visitor;
use super::{Piece, broken_below, code_of, websocket};
use crate::body::{Broken, Chunk, ResponseSink, Sink, Source};
use crate::worker::Worker;

/// A stream that a client has opened, besides its head.
#[derive(Debug)]
pub(super) struct NewStream {
    pub(super) visitor: Rc<Visitor>,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Piece>,
    /// The key that was made up for a WebSocket.
    pub(super) websocket: Option<[u8; websocket::KEY_BYTES]>,
}

/// The sending half of a stream: the writer sends by it, the reader sees by it when the client gives up.
#[derive(Debug, Default)]
pub(super) struct Half(RefCell<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    /// Before the final head.
    Respond(SendResponse<Piece>),
    /// After it.
    Body(SendStream<Piece>),
}

impl Half {
    /// Begins with a new stream.
    pub(super) fn begin(&self, respond: SendResponse<Piece>) {
        *self.0.borrow_mut() = State::Respond(respond);
    }

    /// Lets go of the stream.
    pub(super) fn end(&self) {
        *self.0.borrow_mut() = State::None;
    }

    fn reset(&self, code: h2::Reason) {
        match &mut *self.0.borrow_mut() {
            State::Respond(respond) => respond.send_reset(code),
            State::Body(stream) => stream.send_reset(code),
            State::None => {}
        }
    }

    /// Waits until the client gives up.
    async fn gone(&self) {
        poll_fn(|cx| {
            let reset = match &mut *self.0.borrow_mut() {
                State::Respond(respond) => respond.poll_reset(cx),
                State::Body(stream) => stream.poll_reset(cx),
                State::None => return Poll::Ready(()),
            };
            reset.map(drop)
        })
        .await;
    }

    fn inform(&self, head: Response<()>) -> Result<(), h2::Error> {
        match &mut *self.0.borrow_mut() {
            State::Respond(respond) => respond.send_informational(head),
            // One that comes late is only advice.
            State::Body(_) | State::None => Ok(()),
        }
    }

    fn respond(&self, head: Response<()>, end: bool) -> Result<(), Broken> {
        let state = &mut *self.0.borrow_mut();
        let State::Respond(respond) = state else { return Err(Broken::CLOSED) };
        let stream = respond.send_response(head, end).map_err(|error| broken_below(&error))?;
        *state = State::Body(stream);
        Ok(())
    }
}

impl Outlet for Half {
    fn with<T>(&self, act: impl FnOnce(&mut SendStream<Piece>) -> T) -> Option<T> {
        match &mut *self.0.borrow_mut() {
            State::Body(stream) => Some(act(stream)),
            State::None | State::Respond(_) => None,
        }
    }
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Reader {
    body: Receiving,
    half: Rc<Half>,
}

impl Reader {
    pub(super) const fn new(body: RecvStream, half: Rc<Half>) -> Self {
        Self { body: Receiving::new(body), half }
    }
}

impl Source for Reader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        self.body.peek().map_err(|error| broken_below(&error))
    }

    fn consume(&mut self) {
        self.body.consume();
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| self.body.poll(cx)).await.map_err(|error| broken_below(&error))
    }

    fn trailers(&self) -> Fields<'_> {
        self.body.trailers()
    }

    async fn gone(&mut self) {
        self.half.gone().await;
    }

    fn cut_off(&self) -> impl Future<Output = ()> + use<> {
        let half = self.half.clone();
        async move { half.gone().await }
    }
}

/// The writing half.
#[derive(Debug)]
pub(super) struct Writer {
    worker: Rc<Worker>,
    sending: Sending<Rc<Half>>,
    /// The request was HEAD.
    head: bool,
    websocket: Option<[u8; websocket::KEY_BYTES]>,
}

impl Writer {
    pub(super) fn new(
        worker: &Rc<Worker>,
        half: Rc<Half>,
        method: &[u8],
        websocket: Option<[u8; websocket::KEY_BYTES]>,
    ) -> Self {
        Self {
            worker: worker.clone(),
            sending: Sending::new(worker.clone(), half),
            head: method == b"HEAD",
            websocket,
        }
    }

    /// The status that HTTP/2 has for an accepted WebSocket, which HTTP/1 says by 101.
    fn switched(&self, head: &ResponseHead<'_>) -> Result<u16, Broken> {
        let malformed = Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed };
        let key = self.websocket.as_ref().ok_or(malformed)?;
        let accept = head.fields.get_named(websocket::ACCEPT).unwrap_or(&[]);
        if accept == websocket::accept(key) { Ok(200) } else { Err(malformed) }
    }
}

impl Sink for Writer {
    async fn write(&mut self, payload: &[u8]) -> Result<(), Broken> {
        self.sending.write(payload).await.map_err(|_| Broken::CLOSED)
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        // The connection's task was woken by whoever wrote, and runs after this one.
        self.sending.flush().map_err(|_| Broken::CLOSED)
    }

    async fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Broken> {
        self.sending.finish(trailers).map_err(|_| Broken::CLOSED)
    }
}

impl ResponseSink for Writer {
    async fn head(
        &mut self,
        head: &ResponseHead<'_>,
        edits: &Edits,
        framing: BodyFraming,
        _upgrade: &[u8],
    ) -> Result<(), Broken> {
        let interim = (100..200).contains(&head.status) && head.status != 101;
        let status = match head.status {
            101 => self.switched(head)?,
            // Whoever asked for a WebSocket would take it for one.
            200..300 if self.websocket.is_some() => {
                return Err(Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed });
            }
            status => status,
        };
        let end = !interim && matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        let mut heads = self.worker.h2_heads.borrow_mut();
        let mut map = heads.map();
        match framing {
            BodyFraming::Length(bytes) => heads.add_number(&mut map, header::CONTENT_LENGTH, bytes),
            // What a body would have that is not sent.
            BodyFraming::None if self.head || status == 304 => {
                if let Some(length) = head.fields.get(FieldId::ContentLength) {
                    heads.add(&mut map, b"content-length", length);
                }
            }
            _ => {}
        }
        let tunnel = head.status == 101;
        let skip = |name: &[u8]| tunnel && name.eq_ignore_ascii_case(websocket::ACCEPT);
        heads.add_all(&mut map, head.fields, edits, skip);
        drop(heads);
        let mut response = Response::new(());
        *response.headers_mut() = map;
        let malformed = |_| Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed };
        *response.status_mut() = StatusCode::from_u16(status).map_err(malformed)?;
        if interim {
            let half = self.sending.outlet();
            return half.inform(response).map_err(|error| broken_below(&error));
        }
        self.sending.outlet().respond(response, end)?;
        self.sending.ended = end;
        Ok(())
    }

    fn refuse(&mut self, _reason: Reason, _app_saw: AppSaw) -> bool {
        false
    }

    fn cut(&mut self, reason: Reason) {
        self.sending.outlet().reset(code_of(reason));
    }
}
