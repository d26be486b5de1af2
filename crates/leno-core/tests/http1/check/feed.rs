//! A shell in small: gives a message to the machine whole or in pieces and writes down what came of it.

use leno_core::head::{Field, Fields, RequestIndex, ResponseIndex, Span};
use leno_core::http1::{
    BodyDecoder, BodyFraming, Limits, ParseError, RequestMeta, RequestParser, ResponseFor, ResponseMeta,
    ResponseParser,
};

/// What the bytes are read as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Request,
    Response(ResponseFor),
    /// A body alone.
    Body(BodyFraming),
}

/// What comes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused(ParseError),
    /// More bytes are needed.
    Incomplete,
    Accepted(Box<Message>),
}

/// Everything that was read from a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// One line for each fact and field, as the files of accepted messages have them.
    pub(crate) lines: Vec<String>,
    pub(crate) payload: Vec<u8>,
    pub(crate) head_bytes: usize,
    pub(crate) fields: usize,
    /// Bytes behind the message.
    pub(crate) left_over: usize,
}

/// The verdict when all bytes come at once.
pub(crate) fn in_whole(side: Side, limits: &Limits, data: &[u8]) -> Verdict {
    in_pieces(side, limits, data, &[])
}

/// The verdict when the bytes come in pieces that end at `cuts`.
pub(crate) fn in_pieces(side: Side, limits: &Limits, data: &[u8], cuts: &[usize]) -> Verdict {
    let mut reader = Reader::new(side, limits);
    for end in cuts.iter().copied().chain([data.len()]) {
        match reader.read(&data[..end], limits) {
            Ok(false) => {}
            Ok(true) => return reader.accepted(data),
            Err(error) => return Verdict::Refused(error),
        }
    }
    // An unfinished line is not looked at for every byte. Its end makes the machine look, and an error in it is then
    // the one that it has without the end.
    if let Err(error) = Reader::new(side, limits).read(data, limits) {
        let mut ended = data.to_vec();
        ended.extend_from_slice(b"\r\n");
        assert_eq!(reader.read(&ended, limits), Err(error), "the error shows at the end of the line");
        return Verdict::Refused(error);
    }
    let ends = reader.decoder.as_mut().is_some_and(|decoder| decoder.end_of_input().is_ok());
    if ends { reader.accepted(data) } else { Verdict::Incomplete }
}

/// A connection that reads one message.
struct Reader {
    side: Side,
    request: RequestParser,
    response: ResponseParser,
    request_index: RequestIndex,
    response_index: ResponseIndex,
    decoder: Option<BodyDecoder>,
    /// Bytes that are done with.
    at: usize,
    message: Message,
}

impl Reader {
    fn new(side: Side, limits: &Limits) -> Self {
        let decoder = match side {
            Side::Body(framing) => Some(BodyDecoder::new(framing, limits)),
            _ => None,
        };
        Self {
            side,
            request: RequestParser::default(),
            response: ResponseParser::default(),
            request_index: RequestIndex::default(),
            response_index: ResponseIndex::default(),
            decoder,
            at: 0,
            message: Message::default(),
        }
    }

    /// True when the message is complete in `data`, which begins where it begins.
    fn read(&mut self, data: &[u8], limits: &Limits) -> Result<bool, ParseError> {
        if self.decoder.is_none() && !self.read_head(data, limits)? {
            return Ok(false);
        }
        let Some(decoder) = &mut self.decoder else { return Ok(false) };
        loop {
            let input = &data[self.at..];
            let decoded = decoder.decode(input)?;
            assert!(decoded.consumed <= input.len(), "no more is consumed than there is");
            assert!(
                decoded.payload.start <= decoded.payload.end && decoded.payload.end <= decoded.consumed,
                "payload is consumed"
            );
            self.message.payload.extend_from_slice(&input[decoded.payload]);
            self.at += decoded.consumed;
            if decoded.ended {
                assert!(decoder.is_ended(), "both say so");
                break;
            }
            if self.at == data.len() {
                return Ok(false);
            }
            assert!(decoded.consumed > 0, "there is progress");
        }
        let trailers: Vec<String> =
            decoder.trailers().iter().map(|(_, n, v)| line("trailer", n, v)).collect();
        self.message.lines.extend(trailers);
        Ok(true)
    }

    fn accepted(self, data: &[u8]) -> Verdict {
        let left_over = data.len() - self.at;
        Verdict::Accepted(Box::new(Message { left_over, ..self.message }))
    }

    fn read_head(&mut self, data: &[u8], limits: &Limits) -> Result<bool, ParseError> {
        let (framing, head_bytes) = match self.side {
            Side::Request => {
                let Some(meta) = self.request.parse(data, limits, &mut self.request_index)? else {
                    return Ok(false);
                };
                let index = &self.request_index;
                check_spans(meta.head_bytes, &index.fields, &[index.method, index.authority, index.path]);
                self.message.lines.extend(request_lines(data, index, &meta));
                self.message.fields = index.fields.len();
                (meta.framing, meta.head_bytes)
            }
            Side::Response(answers) => {
                let parsed = self.response.parse(data, limits, answers, &mut self.response_index)?;
                let Some(meta) = parsed else { return Ok(false) };
                let index = &self.response_index;
                check_spans(meta.head_bytes, &index.fields, &[index.reason]);
                self.message.lines.extend(response_lines(data, index, &meta));
                self.message.fields = index.fields.len();
                (meta.framing, meta.head_bytes)
            }
            Side::Body(_) => return Ok(true),
        };
        assert!(head_bytes <= data.len(), "the head is in the buffer");
        self.message.head_bytes = head_bytes;
        self.at = head_bytes;
        self.decoder = Some(BodyDecoder::new(framing, limits));
        Ok(true)
    }
}

fn check_spans(head_bytes: usize, fields: &[Field], others: &[Span]) {
    for span in fields.iter().flat_map(|f| [&f.name, &f.value]).chain(others) {
        assert!(span.start <= span.end && span.end as usize <= head_bytes, "a span lies in the head");
    }
}

/// The facts and fields of a request, one in a line.
pub(crate) fn request_lines(data: &[u8], index: &RequestIndex, meta: &RequestMeta) -> Vec<String> {
    let head = index.view(data);
    let mut lines = vec![
        format!("method {}", head.method.escape_ascii()),
        format!("authority {}", head.authority.escape_ascii()),
        format!("path {}", head.path.escape_ascii()),
        format!("{:?} {:?}", meta.version, meta.framing),
    ];
    let facts = [
        (meta.keep_alive, "keep_alive"),
        (meta.expect_continue, "expect_continue"),
        (meta.upgrade, "upgrade"),
        (meta.absolute_form, "absolute_form"),
        (meta.connect, "connect"),
        (meta.te_trailers, "te_trailers"),
    ];
    lines.extend(facts.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
    lines.extend(field_lines(head.fields));
    lines
}

/// The facts and fields of a response, one in a line.
pub(crate) fn response_lines(data: &[u8], index: &ResponseIndex, meta: &ResponseMeta) -> Vec<String> {
    let head = index.view(data);
    let mut lines = vec![
        format!("status {} {}", head.status, head.reason.escape_ascii()),
        format!("{:?} {:?}", meta.version, meta.framing),
    ];
    let facts = [(meta.keep_alive, "keep_alive"), (meta.interim, "interim")];
    lines.extend(facts.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
    lines.extend(field_lines(head.fields));
    lines
}

fn field_lines(fields: Fields<'_>) -> impl Iterator<Item = String> {
    fields.iter().map(|(_, name, value)| line("field", name, value))
}

fn line(kind: &str, name: &[u8], value: &[u8]) -> String {
    format!("{kind} {}: {}", name.escape_ascii(), value.escape_ascii())
}
