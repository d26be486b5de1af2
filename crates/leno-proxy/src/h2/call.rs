//! A stream to a server, as the driver's sink of a request and source of its response.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::client::ResponseFuture;
use http::{HeaderMap, Method, Request, Response, header};
use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::grpc;
use leno_core::head::{FieldId, Fields, RequestHead, ResponseHead};
use leno_core::http1::{BodyFraming, content_length};
use leno_core::reason::Reason;

use super::client::{Conn, Place};
use super::head::{self, push_field, read_fields};
use super::receiving::Receiving;
use super::sending::{Own, Sending};
use super::{Piece, broken_above, websocket};
use crate::body::{Arrived, Broken, Chunk, Hop, RequestSink, ResponseSource, Sink, Source};
use crate::worker::Worker;

/// Both halves; whatever is not over when they are dropped is given up.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The writing half.
#[derive(Debug)]
pub(crate) struct Writer {
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    sending: Sending<Own>,
    /// What the head that was sent left for the reader.
    opened: Option<Opened>,
}

/// A stream that was opened.
#[derive(Debug)]
struct Opened {
    response: ResponseFuture,
    place: Place,
    /// The answer to its key that the client of a WebSocket awaits.
    websocket: Option<[u8; 28]>,
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    worker: Rc<Worker>,
    state: State,
    place: Option<Place>,
    websocket: Option<[u8; 28]>,
    head: head::Response,
}

#[derive(Debug)]
enum State {
    None,
    /// Before the final head.
    Head(ResponseFuture),
    /// After it.
    Body(Receiving),
}

impl Call {
    /// A stream that will be opened by the head that is sent.
    pub(super) fn dial(worker: &Rc<Worker>, conn: Rc<Conn>) -> Self {
        let reader = Reader {
            worker: worker.clone(),
            state: State::None,
            place: None,
            websocket: None,
            head: worker.h2_heads.borrow_mut().response(),
        };
        let sending = Sending::new(worker.clone(), Own::default());
        Self { reader, writer: Writer { worker: worker.clone(), conn, sending, opened: None } }
    }
}

impl Reader {
    /// Tells the reader about the stream that its writer has opened.
    pub(crate) fn follow(&mut self, writer: &mut Writer) {
        if let Some(Opened { response, place, websocket }) = writer.opened.take() {
            self.state = State::Head(response);
            self.place = Some(place);
            self.websocket = websocket;
        }
    }

    fn broken(&self, error: &h2::Error) -> Broken {
        broken_above(error, self.place.as_ref().is_some_and(Place::is_unseen))
    }

    /// Takes a head in. What belongs to HTTP/1 only cannot be there.
    fn take(&mut self, status: u16, map: HeaderMap, ended: bool) -> Result<Arrived, Broken> {
        let malformed = Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed };
        let head::Response { index, bytes } = &mut self.head;
        bytes.clear();
        index.fields.clear();
        // So that a line never begins where an empty run of lines would end.
        bytes.extend_from_slice(b"\r\n");
        let limits = &self.worker.limits;
        let read = read_fields(&map, limits, bytes, &mut index.fields);
        self.worker.h2_heads.borrow_mut().give(map);
        read.map_err(|_| malformed)?;
        let interim = (100..200).contains(&status);
        if status == 101 {
            return Err(malformed);
        }
        if let Some(accept) = self.websocket.filter(|_| (200..300).contains(&status)) {
            // What HTTP/2 says by 200 is 101 to everybody else.
            index.status = 101;
            push_field(bytes, &mut index.fields, b"upgrade", websocket::NAME);
            push_field(bytes, &mut index.fields, websocket::ACCEPT, &accept);
            return Ok(Arrived { status: 101, framing: BodyFraming::Tunnel, interim: false });
        }
        index.status = status;
        let length = self.view().fields.get(FieldId::ContentLength).map(content_length);
        let framing = match length {
            _ if ended || interim || matches!(status, 204 | 304) => BodyFraming::None,
            Some(Ok(length)) => BodyFraming::Length(length),
            Some(Err(_)) => return Err(malformed),
            None => BodyFraming::Chunked,
        };
        Ok(Arrived { status, framing, interim })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.worker.h2_heads.borrow_mut().give_response(head);
    }
}

impl Source for Reader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        let unseen = self.place.as_ref().is_some_and(Place::is_unseen);
        match &mut self.state {
            State::Body(body) => body.peek().map_err(|error| broken_above(&error, unseen)),
            State::None | State::Head(_) => Err(Broken::CLOSED),
        }
    }

    fn consume(&mut self) {
        if let State::Body(body) = &mut self.state {
            body.consume();
        }
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        let State::Body(body) = &mut self.state else { return Err(Broken::CLOSED) };
        let waited = poll_fn(|cx| body.poll(cx)).await;
        waited.map_err(|error| self.broken(&error))
    }

    fn trailers(&self) -> Fields<'_> {
        match &self.state {
            State::Body(body) => body.trailers(),
            State::None | State::Head(_) => Fields::default(),
        }
    }

    async fn gone(&mut self) {
        // Only of a request does somebody ask this.
        std::future::pending().await
    }
}

impl ResponseSource for Reader {
    async fn head(&mut self) -> Result<Arrived, Broken> {
        enum Came {
            Interim(Response<()>),
            Final(Response<h2::RecvStream>),
        }
        let State::Head(response) = &mut self.state else { return Err(Broken::CLOSED) };
        let came = poll_fn(|cx| {
            if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                return Poll::Ready(interim.map(Came::Interim));
            }
            std::pin::Pin::new(&mut *response).poll(cx).map(|it| it.map(Came::Final))
        })
        .await;
        match came.map_err(|error| self.broken(&error))? {
            Came::Interim(head) => {
                let (parts, ()) = head.into_parts();
                self.take(parts.status.as_u16(), parts.headers, false)
            }
            Came::Final(head) => {
                let (parts, body) = head.into_parts();
                let ended = body.is_end_stream();
                self.state = State::Body(Receiving::new(body));
                self.take(parts.status.as_u16(), parts.headers, ended)
            }
        }
    }

    fn view(&self) -> ResponseHead<'_> {
        self.head.index.view(&self.head.bytes)
    }

    fn upgrade(&self) -> &[u8] {
        self.view().fields.get(FieldId::Upgrade).unwrap_or(&[])
    }
}

impl Writer {
    /// The request in the crate's terms.
    fn request(
        &self,
        head: &RequestHead<'_>,
        edits: &Edits,
        hop: &Hop<'_>,
        socket: bool,
    ) -> Option<Request<()>> {
        let mut heads = self.worker.h2_heads.borrow_mut();
        let uri = heads.target(self.conn.scheme(), head.authority, head.path)?;
        let mut map = heads.map();
        if let BodyFraming::Length(bytes) = hop.framing {
            heads.add_number(&mut map, header::CONTENT_LENGTH, bytes);
        }
        // A call's deadline goes on as what is left of it, whoever has set it.
        let left = hop.time_left.filter(|_| grpc::is_call(head.fields));
        let skip = |name: &[u8]| {
            left.is_some() && name.eq_ignore_ascii_case(b"grpc-timeout")
                || socket && name.eq_ignore_ascii_case(websocket::KEY)
        };
        heads.add_all(&mut map, head.fields, edits, skip);
        if let Some(left) = left {
            heads.add_with(&mut map, b"grpc-timeout", |out| grpc::write_timeout(out, left));
        }
        if hop.te_trailers {
            heads.add(&mut map, b"te", b"trailers");
        }
        if hop.expect_continue {
            heads.add(&mut map, b"expect", b"100-continue");
        }
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.headers_mut() = map;
        *request.method_mut() =
            if socket { Method::CONNECT } else { Method::from_bytes(head.method).ok()? };
        if socket {
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        }
        Some(request)
    }
}

impl Sink for Writer {
    async fn write(&mut self, payload: &[u8]) -> Result<(), Broken> {
        self.sending.write(payload).await.map_err(|_| Broken::CLOSED)
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        self.sending.flush().map_err(|_| Broken::CLOSED)
    }

    async fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Broken> {
        self.sending.finish(trailers).map_err(|_| Broken::CLOSED)
    }
}

impl RequestSink for Writer {
    fn head(&mut self, head: &RequestHead<'_>, edits: &Edits, hop: &Hop<'_>) -> Result<(), Broken> {
        let nothing = |reason| Broken { app_saw: AppSaw::Nothing, reason };
        // Another offer than this one is not passed on, as RFC 9110 §7.8 allows: HTTP/2 has no other.
        let socket = hop.upgrade.eq_ignore_ascii_case(websocket::NAME);
        if socket && !self.conn.takes_sockets() {
            return Err(nothing(Reason::Unsupported));
        }
        let request = self.request(head, edits, hop, socket).ok_or(nothing(Reason::RequestMalformed))?;
        let end = !socket && matches!(hop.framing, BodyFraming::None | BodyFraming::Length(0));
        let (response, stream, place) = self.conn.open(request, end).ok_or(nothing(Reason::Overload))?;
        *self.sending.outlet().0.borrow_mut() = Some(stream);
        self.sending.ended = end;
        let key = head.fields.get_named(websocket::KEY).unwrap_or(&[]);
        let websocket = socket.then(|| websocket::accept(key));
        self.opened = Some(Opened { response, place, websocket });
        Ok(())
    }
}

/// Asks a connection whether it takes another stream, without being told when it does.
pub(super) fn poll_now<T>(ask: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    ask(&mut Context::from_waker(Waker::noop()))
}

/// What [`Conn::open`] gives.
pub(super) type OpenedStream = (ResponseFuture, h2::SendStream<Piece>, Place);
