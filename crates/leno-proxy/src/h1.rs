//! HTTP/1 on sockets: the core's parsers and encoders between a TCP stream and the driver's sources and sinks. The
//! same two halves serve both ends of a connection.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use leno_core::edit::Edits;
use leno_core::exchange::AppSaw;
use leno_core::head::{Fields, RequestHead, ResponseHead, ResponseIndex};
use leno_core::http1::{
    BodyDecoder, BodyEncoder, BodyFraming, Limits, RequestOptions, ResponseFor, ResponseMeta,
    ResponseOptions, ResponseParser, Version, encode_request_head, encode_response_head,
};
use leno_core::reason::Reason;
use leno_identity::reason::{Reason as TlsReason, explain_io};

use crate::body::{Arrived, Broken, Chunk, Hop, RequestSink, ResponseSink, ResponseSource, Sink, Source};
use crate::buffer::{BUFFER_BYTES, ReadBuffer, Stock};
use crate::io::Stream;

pub(crate) mod client;
pub(crate) mod server;

/// Payload up to this size is copied behind what already waits to be written; larger payload is written from where it
/// lies, by one vectored call. Below some KiB a copy is cheaper than a second slice.
const COPY_BYTES_MAX: usize = 4 * 1024;
/// Bytes that a sink keeps before it writes without being asked.
const KEPT_BYTES_MAX: usize = BUFFER_BYTES;
/// Silence of a tunnel's end before it is asked whether it lives (the kernel's default is two hours).
const TUNNEL_PROBE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);
/// Bytes of following requests that are read while one is being answered; beyond, the client's socket has to wait.
const PIPELINED_BYTES_MAX: usize = BUFFER_BYTES;

/// The reading half of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Rc<Stream>,
    pub(crate) buffer: ReadBuffer,
    decoder: BodyDecoder,
    /// `(start, end, consumed)` of the payload that was shown and not yet taken.
    shown: Option<(usize, usize, usize)>,
    /// The other end has closed its direction.
    ended: bool,
    /// What a broken body means: the service's fault or the client's.
    blame: Reason,
    /// Why a TLS server ended the connection after the handshake, in words: in TLS 1.3 it looks at our certificate last.
    pub(crate) refused: Option<String>,
}

impl Reader {
    pub(crate) fn new(stream: Rc<Stream>, stock: Stock, limits: &Limits, blame: Reason) -> Self {
        Self {
            stream,
            buffer: ReadBuffer::new(stock),
            decoder: BodyDecoder::new(BodyFraming::None, limits),
            shown: None,
            ended: false,
            blame,
            refused: None,
        }
    }

    /// Prepares for a body that begins at the start of the buffer.
    pub(crate) fn begin_body(&mut self, framing: BodyFraming) {
        self.shown = None;
        self.decoder.reset(framing);
    }

    /// True when the body has been taken to its end, so that the next message begins at the start of the buffer.
    pub(crate) fn body_ended(&self) -> bool {
        self.shown.is_none() && self.decoder.is_ended()
    }

    /// Waits for bytes and reads them; 0 is the end. Cancel-safe.
    pub(crate) async fn fill(&mut self, limit: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, limit)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match self.buffer.try_read(&self.stream, limit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Ok(0));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// True when the connection is known to be dead or to have sent something unasked, without a system call unless
    /// the poller saw something.
    pub(crate) fn is_stale(&mut self) -> bool {
        if self.ended || !self.buffer.is_empty() {
            return true;
        }
        let read = self.buffer.try_read(&self.stream, 1);
        !matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Source for Reader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        if let Some((start, end, _)) = self.shown {
            return Ok(Chunk::Data(self.buffer.filled().get(start..end).unwrap_or(&[])));
        }
        loop {
            if self.decoder.is_ended() {
                return Ok(Chunk::End);
            }
            let malformed = |_| Broken { app_saw: AppSaw::Maybe, reason: self.blame };
            let found = self.decoder.decode(self.buffer.filled()).map_err(malformed)?;
            if !found.payload.is_empty() {
                self.shown = Some((found.payload.start, found.payload.end, found.consumed));
                return Ok(Chunk::Data(self.buffer.filled().get(found.payload).unwrap_or(&[])));
            }
            self.buffer.consume(found.consumed);
            if found.consumed == 0 && !found.ended {
                if !self.ended {
                    return Ok(Chunk::Empty);
                }
                // The end of the connection ends some bodies and cuts others.
                self.decoder
                    .end_of_input()
                    .map_err(|_| Broken { app_saw: AppSaw::Maybe, reason: self.closed() })?;
                return Ok(Chunk::End);
            }
        }
    }

    fn consume(&mut self) {
        if let Some((_, _, consumed)) = self.shown.take() {
            self.buffer.consume(consumed);
        }
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        self.buffer.expect(self.decoder.expected());
        match self.fill(BUFFER_BYTES).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Broken { app_saw: AppSaw::Maybe, reason: self.closed() }),
        }
    }

    fn trailers(&self) -> Fields<'_> {
        self.decoder.trailers()
    }

    fn begin_tunnel(&mut self) {
        self.begin_body(BodyFraming::Tunnel);
    }

    async fn gone(&mut self) {
        while !self.ended {
            if self.buffer.filled().len() >= PIPELINED_BYTES_MAX {
                return std::future::pending().await;
            }
            if self.fill(PIPELINED_BYTES_MAX).await.is_err() {
                return;
            }
        }
    }

    fn cut_off(&self) -> impl Future<Output = ()> + use<> {
        let stream = self.stream.clone();
        async move { stream.failed().await }
    }
}

impl Reader {
    /// The reason for a connection that ended in the middle of a message.
    const fn closed(&self) -> Reason {
        match self.blame {
            Reason::RequestMalformed => Reason::DownstreamGone,
            _ => Reason::UpstreamClosed,
        }
    }
}

/// The writing half of a connection.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: Rc<Stream>,
    stock: Stock,
    /// Bytes not yet written; without memory while there are none.
    out: Vec<u8>,
    /// How many of them have been.
    sent: usize,
    encoder: BodyEncoder,
    /// The connection was handed over to another protocol.
    tunnel: bool,
    /// What responses answer, and how: set for each request by the server end.
    pub(crate) answers: ResponseFor,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    /// A final head has been taken.
    pub(crate) answered: bool,
    /// The answer was cut: the client must see a reset, and nothing that looks like an end.
    pub(crate) cut: bool,
}

impl Writer {
    pub(crate) fn new(stream: Rc<Stream>, stock: Stock) -> Self {
        Self {
            stream,
            stock,
            out: Vec::new(),
            sent: 0,
            encoder: BodyEncoder::new(BodyFraming::None),
            tunnel: false,
            answers: ResponseFor::default(),
            version: Version::Http11,
            keep_alive: true,
            answered: false,
            cut: false,
        }
    }

    /// Prepares for the answer to a request.
    pub(crate) fn begin_answer(&mut self, answers: ResponseFor, version: Version, keep_alive: bool) {
        self.answers = answers;
        self.version = version;
        self.keep_alive = keep_alive;
        self.answered = false;
    }

    /// Forgets what was not written: a new message begins on a connection that is known to be clean, or none will.
    pub(crate) fn discard(&mut self) {
        self.out.clear();
        self.sent = 0;
    }

    /// Where the next bytes to write go.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = self.stock.take();
        }
        &mut self.out
    }

    /// Lets the kernel ask now and then whether the other end of a tunnel still lives: nobody else would ever know.
    fn probe_when_silent(&self) {
        self.stream.probe_after(TUNNEL_PROBE_AFTER);
    }

    /// Makes the peer see a reset instead of an orderly end when the stream is dropped.
    pub(crate) fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, extra: &mut &[u8]) -> Poll<io::Result<()>> {
        loop {
            let kept = self.out.get(self.sent..).unwrap_or(&[]);
            if kept.is_empty() && extra.is_empty() {
                self.sent = 0;
                if self.out.capacity() > 0 {
                    self.stock.give(std::mem::take(&mut self.out));
                }
                return self.stream.poll_flush(cx);
            }
            // Try first: the socket is writable nearly always, and asking would cost as much as writing.
            match self.stream.try_send(kept, extra) {
                Ok(bytes) => {
                    let of_kept = bytes.min(kept.len());
                    self.sent += of_kept;
                    *extra = extra.get(bytes - of_kept..).unwrap_or(&[]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.stream.poll_write_ready(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Ready(Ok(())) => {}
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    async fn write_out(&mut self, mut extra: &[u8]) -> Result<(), Broken> {
        std::future::poll_fn(|cx| self.poll_write(cx, &mut extra)).await.map_err(|_| Broken::CLOSED)
    }
}

impl Sink for Writer {
    async fn write(&mut self, payload: &[u8]) -> Result<(), Broken> {
        // Too much payload for the announced length is the source's fault; it is not written.
        self.room();
        self.encoder.before(&mut self.out, payload.len()).map_err(|_| Broken::CLOSED)?;
        if payload.len() <= COPY_BYTES_MAX {
            self.out.extend_from_slice(payload);
            self.encoder.after(&mut self.out, payload.len());
            if self.out.len() >= KEPT_BYTES_MAX {
                self.write_out(&[]).await?;
            }
            return Ok(());
        }
        self.write_out(payload).await?;
        self.room();
        self.encoder.after(&mut self.out, payload.len());
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        if self.out.capacity() == 0 {
            return Ok(());
        }
        self.write_out(&[]).await
    }

    fn begin_tunnel(&mut self) {
        self.encoder = BodyEncoder::new(BodyFraming::Tunnel);
        self.tunnel = true;
        self.probe_when_silent();
    }

    async fn finish(&mut self, trailers: Fields<'_>) -> Result<(), Broken> {
        self.room();
        let complete = self.encoder.finish(&mut self.out, trailers);
        self.flush().await?;
        if self.tunnel {
            // The end of one direction of a tunnel is the end of that direction and nothing else.
            self.stream.shutdown_write();
        }
        complete.map_err(|_| Broken::CLOSED)
    }
}

impl RequestSink for Writer {
    fn head(&mut self, head: &RequestHead<'_>, edits: &Edits, hop: &Hop<'_>) -> Result<(), Broken> {
        // What came from a protocol without lengths is sent in chunks.
        let framing = match hop.framing {
            BodyFraming::UntilClose => BodyFraming::Chunked,
            framing => framing,
        };
        let options = RequestOptions {
            framing,
            keep_alive: true,
            upgrade: !hop.upgrade.is_empty(),
            expect_continue: hop.expect_continue,
            te_trailers: hop.te_trailers,
        };
        encode_request_head(self.room(), head, edits, &options);
        self.encoder = BodyEncoder::new(framing);
        Ok(())
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
        let options = ResponseOptions {
            framing,
            version: self.version,
            keep_alive: self.keep_alive,
            answers: self.answers,
        };
        let framing = encode_response_head(self.room(), head, edits, &options);
        if !(100..200).contains(&head.status) || head.status == 101 {
            self.answered = true;
            if matches!(framing, BodyFraming::UntilClose | BodyFraming::Tunnel) {
                self.keep_alive = false;
            }
        }
        self.encoder = BodyEncoder::new(framing);
        self.tunnel = framing == BodyFraming::Tunnel;
        if self.tunnel {
            self.probe_when_silent();
        }
        Ok(())
    }

    fn close_after(&mut self) {
        self.keep_alive = false;
    }

    fn refuse(&mut self, _reason: Reason, _app_saw: AppSaw) -> bool {
        false
    }

    fn cut(&mut self, _reason: Reason) {
        self.keep_alive = false;
        self.cut = true;
        self.discard();
        self.reset_on_close();
    }
}

/// What a client connection knows of the response that it waits for. Connections take turns with its memory.
#[derive(Debug, Default)]
pub(crate) struct Response {
    parser: ResponseParser,
    index: ResponseIndex,
    /// The head's bytes.
    bytes: Vec<u8>,
    answers: ResponseFor,
    meta: Option<ResponseMeta>,
}

/// The reading half of a client connection, with the head in front.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    pub(crate) reader: Reader,
    /// `None` while the connection is idle.
    pub(crate) response: Option<Box<Response>>,
    limits: Limits,
}

impl ResponseReader {
    pub(crate) fn new(reader: Reader, limits: Limits) -> Self {
        Self { reader, response: Some(Box::default()), limits }
    }

    /// Prepares for the response to a request.
    pub(crate) fn begin(&mut self, answers: ResponseFor) {
        let response = self.response.get_or_insert_default();
        response.answers = answers;
        response.meta = None;
    }

    /// True when the response was complete and the server keeps the connection.
    pub(crate) fn reusable(&self) -> bool {
        let meta = self.response.as_ref().and_then(|response| response.meta);
        meta.is_some_and(|meta| meta.keep_alive && !meta.interim)
            && self.reader.body_ended()
            && self.reader.buffer.is_empty()
            && !self.reader.ended
    }
}

impl Source for ResponseReader {
    fn peek(&mut self) -> Result<Chunk<'_>, Broken> {
        self.reader.peek()
    }

    fn consume(&mut self) {
        self.reader.consume();
    }

    async fn wait(&mut self) -> Result<(), Broken> {
        self.reader.wait().await
    }

    fn trailers(&self) -> Fields<'_> {
        self.reader.trailers()
    }

    async fn gone(&mut self) {
        self.reader.gone().await;
    }
}

impl ResponseSource for ResponseReader {
    async fn head(&mut self) -> Result<Arrived, Broken> {
        let malformed = Broken { app_saw: AppSaw::Maybe, reason: Reason::UpstreamMalformed };
        loop {
            let Some(response) = &mut self.response else { return Err(Broken::CLOSED) };
            let Response { parser, index, answers, .. } = &mut **response;
            let buffer = &mut self.reader.buffer;
            let parsed =
                parser.parse(buffer.filled(), &self.limits, *answers, index).map_err(|_| malformed)?;
            if let Some(meta) = parsed {
                let head = buffer.filled().get(..meta.head_bytes).unwrap_or(&[]);
                response.bytes.clear();
                response.bytes.extend_from_slice(head);
                response.meta = Some(meta);
                let status = response.index.status;
                buffer.consume(meta.head_bytes);
                self.reader.begin_body(meta.framing);
                return Ok(Arrived { status, framing: meta.framing, interim: meta.interim });
            }
            match self.reader.fill(self.limits.head_bytes_max).await {
                Ok(0) => return Err(Broken::CLOSED),
                Err(error) => match explain_io(&error) {
                    // It has refused us, so it has looked at nothing else.
                    Some(TlsReason::RefusedByPeer(why)) => {
                        self.reader.refused = Some(format!("refused by the server: {why}"));
                        return Err(Broken { app_saw: AppSaw::Nothing, reason: Reason::TlsRefused });
                    }
                    _ => return Err(Broken::CLOSED),
                },
                Ok(_) => {}
            }
        }
    }

    fn view(&self) -> ResponseHead<'_> {
        match &self.response {
            Some(response) => response.index.view(&response.bytes),
            // Nobody looks before a head has come.
            None => ResponseHead { status: 0, reason: &[], fields: Fields::default() },
        }
    }

    fn upgrade(&self) -> &[u8] {
        self.view().fields.get(leno_core::head::FieldId::Upgrade).unwrap_or(&[])
    }
}
