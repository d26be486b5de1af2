//! What a request over HTTP/2 must look like, and what it is in the terms of the driver.

use http::request::Parts;
use leno_core::grpc;
use leno_core::head::{FieldId, Span};
use leno_core::http1::{BodyFraming, Limits, ParseError, content_length, is_authority, is_target, is_token};
use leno_core::mux::Kind;
use leno_core::rng::Rng;

use super::head::{push_field, read_fields};
use super::websocket;
use crate::body::Request;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The answer's status; `None`: none, the stream is reset, because what came is no request at all (RFC 9113 §8.1.1).
    pub(super) status: Option<u16>,
    pub(super) word: &'static str,
    pub(super) sentence: &'static str,
}

impl Refusal {
    const HOST_DIFFERS: Self = Self::malformed("host_differs", "Host is not what :authority is");
    const PATH: Self = Self::malformed("path", ":path is no absolute path");
    const LENGTH: Self = Self::malformed("length", "content-length is not the length of the body");
    const PROTOCOL: Self = Self {
        status: Some(501),
        word: "unsupported",
        sentence: "extended CONNECT is supported for WebSocket only",
    };

    const fn malformed(word: &'static str, sentence: &'static str) -> Self {
        Self { status: None, word, sentence }
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        let (status, sentence) = match error {
            ParseError::HeadTooLarge | ParseError::TooManyFields => (Some(431), "the head is too large"),
            ParseError::TargetTooLong => (Some(414), "the target is too long"),
            ParseError::Expectation => (Some(417), "an expectation other than 100-continue cannot be met"),
            _ => (None, "the request is malformed"),
        };
        Self { status, word: error.reason(), sentence }
    }
}

/// Writes a request's head into `request`, whose memory is used again. `ended`: no body follows. Returns the key that was
/// made up for a WebSocket.
///
/// # Errors
/// What is wrong with it. The crate has checked pseudo-header fields for presence and order, and that no field of one
/// connection is there.
pub(super) fn begin(
    parts: &Parts,
    ended: bool,
    limits: &Limits,
    rng: &mut Rng,
    request: &mut Request,
) -> Result<Option<[u8; websocket::KEY_BYTES]>, Refusal> {
    let Request { bytes, index, .. } = request;
    bytes.clear();
    index.fields.clear();
    let mut put = |text: &[u8]| {
        let start = bytes.len();
        bytes.extend_from_slice(text);
        Span::new(start, bytes.len())
    };
    let method = parts.method.as_str().as_bytes();
    let connect = method == b"CONNECT";
    let socket = match parts.extensions.get::<h2::ext::Protocol>() {
        Some(protocol) if !protocol.as_str().as_bytes().eq_ignore_ascii_case(websocket::NAME) => {
            return Err(Refusal::PROTOCOL);
        }
        protocol => protocol.is_some(),
    };
    if method.len() > limits.method_bytes_max || !is_token(method) {
        return Err(ParseError::MethodTooLong.into());
    }
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
    let path: &[u8] = if connect && !socket { b"" } else { path };
    if path.len() > limits.target_bytes_max {
        return Err(ParseError::TargetTooLong.into());
    }
    let absolute = path.first() == Some(&b'/') && is_target(path) || path == b"*" && method == b"OPTIONS";
    let named_only = connect && !socket;
    if !absolute && !named_only {
        return Err(Refusal::PATH);
    }
    index.method = put(if socket { b"GET" } else { method });
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str()).as_bytes();
    index.authority = put(authority);
    index.path = put(path);
    // Fields are lines that are copied at once where they go on as such.
    bytes.extend_from_slice(b"\r\n");
    read_fields(&parts.headers, limits, bytes, &mut index.fields)?;
    let facts = Facts::of(request, limits)?;
    if let Some(host) = facts.host {
        let same = || host.of(&request.bytes).eq_ignore_ascii_case(request.head().authority);
        if request.index.authority == Span::default() || authority.is_empty() {
            request.index.authority = host;
        } else if !same() {
            return Err(Refusal::HOST_DIFFERS);
        }
    }
    if !is_authority(request.head().authority) {
        let missing = request.head().authority.is_empty();
        return Err(if missing { ParseError::HostMissing } else { ParseError::HostInvalid }.into());
    }
    request.framing = match facts.length {
        Some(0) if ended => BodyFraming::Length(0),
        Some(_) if ended => return Err(Refusal::LENGTH),
        Some(length) => BodyFraming::Length(length),
        None if ended => BodyFraming::None,
        None => BodyFraming::Chunked,
    };
    request.expect_continue = facts.expect && !ended;
    request.te_trailers = facts.te_trailers;
    request.kind = Kind::Http2;
    let fields = request.head().fields;
    let timeout = fields.get_named(b"grpc-timeout").filter(|_| grpc::is_call(fields));
    request.time_left = timeout.and_then(grpc::parse_timeout);
    request.upgrade.clear();
    if connect && (!socket || ended) {
        // What is said over a CONNECT's stream is no body.
        request.framing = BodyFraming::None;
    }
    if !socket {
        return Ok(None);
    }
    let key = websocket::key(rng);
    let Request { bytes, index, upgrade, framing, .. } = request;
    let named = |field: &leno_core::head::Field| field.name.of(bytes).eq_ignore_ascii_case(websocket::KEY);
    index.fields.retain(|field| !named(field));
    push_field(bytes, &mut index.fields, b"upgrade", websocket::NAME);
    push_field(bytes, &mut index.fields, websocket::KEY, &key);
    upgrade.extend_from_slice(websocket::NAME);
    *framing = BodyFraming::None;
    Ok(Some(key))
}

/// What the fields say about the body and this hop.
#[derive(Default)]
struct Facts {
    host: Option<Span>,
    length: Option<u64>,
    expect: bool,
    te_trailers: bool,
}

impl Facts {
    fn of(request: &Request, _limits: &Limits) -> Result<Self, Refusal> {
        let mut facts = Self::default();
        for field in &request.index.fields {
            let value = field.value.of(&request.bytes);
            match field.id {
                FieldId::Host if facts.host.replace(field.value).is_some() => {
                    return Err(ParseError::HostRepeated.into());
                }
                FieldId::ContentLength => {
                    let length = content_length(value)?;
                    if facts.length.replace(length).is_some() {
                        return Err(ParseError::ContentLengthRepeated.into());
                    }
                }
                FieldId::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(ParseError::Expectation.into());
                }
                FieldId::Expect => facts.expect = true,
                FieldId::Te => facts.te_trailers = true,
                _ => {}
            }
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use http::Request as HttpRequest;
    use leno_core::time::Duration;

    use super::*;

    fn parse(builder: http::request::Builder, ended: bool) -> Result<Request, Refusal> {
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        let mut request = Request::default();
        begin(&parts, ended, &Limits::default(), &mut Rng::new(1), &mut request).map(|_| request)
    }

    fn get() -> http::request::Builder {
        HttpRequest::get("http://shop:80/a?b=c")
    }

    #[test]
    fn a_head_is_seen_as_every_other() {
        let request = parse(get().header("x-a", "1").header("te", "trailers"), true).unwrap();
        let head = request.head();
        assert_eq!((head.method, head.authority, head.path), (&b"GET"[..], &b"shop:80"[..], &b"/a?b=c"[..]));
        assert_eq!(head.fields.get_named(b"x-a"), Some(&b"1"[..]));
        assert_eq!(request.framing, BodyFraming::None);
        assert!(request.te_trailers);
    }

    #[test]
    fn bodies_are_framed_by_what_is_said_of_them() {
        let post = || HttpRequest::post("http://shop/");
        assert_eq!(parse(post(), false).unwrap().framing, BodyFraming::Chunked);
        assert_eq!(
            parse(post().header("content-length", "5"), false).unwrap().framing,
            BodyFraming::Length(5)
        );
        assert_eq!(
            parse(post().header("content-length", "0"), true).unwrap().framing,
            BodyFraming::Length(0)
        );
        assert_eq!(parse(post().header("content-length", "5"), true).unwrap_err(), Refusal::LENGTH);
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        let two_lengths = get().header("content-length", "1").header("content-length", "1");
        assert_eq!(parse(two_lengths, false).unwrap_err().word, "content_length_repeated");
        assert_eq!(parse(get().header("host", "other"), true).unwrap_err(), Refusal::HOST_DIFFERS);
        assert!(parse(get().header("host", "SHOP:80"), true).is_ok());
        let by_host = HttpRequest::get("/").header("host", "shop");
        assert_eq!(parse(by_host, true).unwrap().head().authority, b"shop");
        assert_eq!(parse(HttpRequest::get("/"), true).unwrap_err().status, None);
        let refused = parse(get().header("expect", "tea"), false).unwrap_err();
        assert_eq!(refused.status, Some(417));
    }

    #[test]
    fn a_call_says_how_long_it_may_take() {
        let call = |kind: &str| {
            let builder = HttpRequest::post("http://shop/s/m").header("grpc-timeout", "250m");
            parse(builder.header("content-type", kind), false).unwrap().time_left
        };
        assert_eq!(call("application/grpc"), Some(Duration::from_millis(250)));
        assert_eq!(call("application/json"), None);
    }

    #[test]
    fn a_websocket_looks_as_over_http1() {
        let mut builder = HttpRequest::connect("http://shop/chat").header("sec-websocket-version", "13");
        builder.extensions_mut().unwrap().insert(h2::ext::Protocol::from_static("websocket"));
        let request = parse(builder, false).unwrap();
        let head = request.head();
        assert_eq!((head.method, head.path), (&b"GET"[..], &b"/chat"[..]));
        assert_eq!(request.upgrade, b"websocket");
        assert_eq!(head.fields.get(FieldId::Upgrade), Some(&b"websocket"[..]));
        assert_eq!(head.fields.get_named(b"sec-websocket-key").map(<[u8]>::len), Some(24));
        assert_eq!(request.framing, BodyFraming::None);
    }
}
