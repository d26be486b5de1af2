//! The path of a request through the core, over bytes in memory: what the shells do with sockets in between is left
//! out, so that nothing but the code decides how many instructions it takes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use leno_core::backend::Backends;
use leno_core::edit::Edits;
use leno_core::exchange::{Action, Ending, Exchange, Input};
use leno_core::head::{Fields, RequestIndex, ResponseIndex};
use leno_core::http1::{
    BodyDecoder, BodyEncoder, BodyFraming, Limits, RequestOptions, RequestParser, ResponseFor,
    ResponseOptions, ResponseParser, Version, encode_request_head, encode_response_head,
};
use leno_core::mux::{Body, Event, HeadIndex, Limits as MuxLimits, Meta, Mux, Role, StreamId};
use leno_core::name::ServiceId;
use leno_core::rng::Rng;
use leno_core::snapshot::{Entry, Snapshot};
use leno_core::spec::{Balance, EndpointSpec, KnownService, Protocol, ServiceSpec, Transport, World};
use leno_core::time::{Duration, Instant};

/// As many requests through HTTP/1 on both sides.
pub(crate) fn http1(requests: u64) -> Result<(), String> {
    let mut hop = Hop::new()?;
    for _ in 0..requests {
        hop.exchange()?;
    }
    Ok(())
}

/// As many requests through both ends of the mesh transport, one at a time.
pub(crate) fn mesh(requests: u64) -> Result<(), String> {
    let mut pair = Pair::new()?;
    for _ in 0..requests {
        pair.exchange()?;
    }
    Ok(())
}

/// What a worker and two connections own.
struct Hop {
    snapshot: Snapshot,
    backends: Backends,
    service: ServiceId,
    rng: Rng,
    limits: Limits,
    requests: RequestParser,
    request: RequestIndex,
    responses: ResponseParser,
    response: ResponseIndex,
    body: BodyDecoder,
    edits: Edits,
    up: Vec<u8>,
    down: Vec<u8>,
    now: Instant,
}

impl Hop {
    fn new() -> Result<Self, String> {
        let service = ServiceId::parse("product").map_err(|error| error.to_string())?;
        let snapshot = Snapshot::build(&world(&service), None);
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        let limits = Limits::default();
        Ok(Self {
            snapshot,
            backends,
            service,
            rng: Rng::new(1),
            limits,
            requests: RequestParser::default(),
            request: RequestIndex::default(),
            responses: ResponseParser::default(),
            response: ResponseIndex::default(),
            body: BodyDecoder::new(BodyFraming::None, &limits),
            edits: Edits::default(),
            up: Vec::new(),
            down: Vec::new(),
            now: Instant::ZERO,
        })
    }

    /// From the request's head to the record of the exchange.
    fn exchange(&mut self) -> Result<(), String> {
        self.now = self.now.after(Duration::from_micros(50));
        let parsed = self.requests.parse(REQUEST, &self.limits, &mut self.request);
        let meta = parsed.ok().flatten().ok_or("the request is not understood")?;
        let head = self.request.view(REQUEST);
        self.edits.clear();
        self.edits.set(b"x-request-id", b"8f3a3c0e-1f64-4c31-9d1c-0e4ef0a7a2b1");
        let decision = self.snapshot.decide(Entry::Dependency(&self.service), &head);
        let mut exchange = Exchange::new(decision, head.is_idempotent(), None, self.now);
        let answers = ResponseFor::request(head.method, false);
        while let Some(action) = exchange.poll_action() {
            match action {
                Action::Pick { choice, .. } => {
                    let (tried, count) = exchange.tried();
                    let tried = tried.get(..count).unwrap_or(&[]);
                    let picked = self.backends.pick(&self.snapshot, choice, tried, self.now, &mut self.rng);
                    if let Ok(permit) = &picked {
                        self.backends.request_started(&self.snapshot, permit.backend(), self.now);
                    }
                    exchange.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked), self.now);
                }
                Action::Dial => exchange.handle(Input::Connected { reused: true }, self.now),
                Action::Send => {
                    self.up.clear();
                    let options = RequestOptions {
                        framing: meta.framing,
                        keep_alive: true,
                        upgrade: false,
                        expect_continue: false,
                        te_trailers: false,
                    };
                    encode_request_head(&mut self.up, &head, &self.edits, &options);
                    let parsed = self.responses.parse(RESPONSE, &self.limits, answers, &mut self.response);
                    let meta = parsed.ok().flatten().ok_or("the response is not understood")?;
                    exchange.handle(Input::Response { status: self.response.status }, self.now);
                    if exchange.poll_action() != Some(Action::Relay) {
                        return Err("the response is not relayed".into());
                    }
                    self.down.clear();
                    let options = ResponseOptions {
                        framing: meta.framing,
                        version: Version::Http11,
                        keep_alive: true,
                        answers,
                    };
                    let head = self.response.view(RESPONSE);
                    let none = Edits::new();
                    let framing = encode_response_head(&mut self.down, &head, &none, &options);
                    let rest = RESPONSE.get(meta.head_bytes..).unwrap_or(&[]);
                    self.body.reset(meta.framing);
                    let mut encoder = BodyEncoder::new(framing);
                    let decoded = self.body.decode(rest).map_err(|error| error.to_string())?;
                    let payload = rest.get(decoded.payload).unwrap_or(&[]);
                    encoder.payload(&mut self.down, payload).map_err(|_| "the body is too long")?;
                    encoder.finish(&mut self.down, Fields::default()).map_err(|_| "the body is cut")?;
                    exchange.handle(Input::UpstreamEnded(Ending::Complete), self.now);
                }
                Action::Finish => break,
                other => return Err(format!("{other:?} in a request that goes well")),
            }
        }
        if exchange.record().status == 200 && self.down.ends_with(BODY) && self.up.len() > REQUEST.len() {
            Ok(())
        } else {
            Err("the exchange did not go well".into())
        }
    }
}

/// Two ends of the mesh transport.
struct Pair {
    dialer: Mux,
    acceptor: Mux,
    index: HeadIndex,
    request: RequestIndex,
    response: ResponseIndex,
    edits: Edits,
    now: Instant,
}

impl Pair {
    fn new() -> Result<Self, String> {
        let limits = Limits::default();
        let (mut request, mut response) = (RequestIndex::default(), ResponseIndex::default());
        let parsed = RequestParser::default().parse(REQUEST, &limits, &mut request);
        parsed.ok().flatten().ok_or("the request is not understood")?;
        let parsed =
            ResponseParser::default().parse(RESPONSE, &limits, ResponseFor::default(), &mut response);
        parsed.ok().flatten().ok_or("the response is not understood")?;
        let mut edits = Edits::default();
        edits.set(b"x-request-id", b"8f3a3c0e-1f64-4c31-9d1c-0e4ef0a7a2b1");
        let mut pair = Self {
            dialer: Mux::new(Role::Dialer, MuxLimits::default(), Instant::ZERO),
            acceptor: Mux::new(Role::Acceptor, MuxLimits::default(), Instant::ZERO),
            index: HeadIndex::default(),
            request,
            response,
            edits,
            now: Instant::ZERO,
        };
        carry(&mut pair.dialer, &mut pair.acceptor, &mut pair.index, pair.now)?;
        carry(&mut pair.acceptor, &mut pair.dialer, &mut pair.index, pair.now)?;
        Ok(pair)
    }

    /// A request goes to the other end, its answer comes back.
    fn exchange(&mut self) -> Result<(), String> {
        self.now = self.now.after(Duration::from_micros(50));
        let meta = Meta {
            body: Body::None,
            deadline: Some(Duration::from_secs(15)),
            attempt: 1,
            route: b"default",
            generation: 7,
            ..Meta::default()
        };
        let opened = self.dialer.open(&meta, &self.request.view(REQUEST), &self.edits, true);
        opened.map_err(|error| format!("{error:?}"))?;
        let arrived = carry(&mut self.dialer, &mut self.acceptor, &mut self.index, self.now)?;
        let stream = arrived.stream.ok_or("the request did not arrive")?;
        let meta = Meta { body: Body::Length(BODY.len() as u64), ..Meta::default() };
        let head = self.response.view(RESPONSE);
        self.acceptor
            .respond(stream, &meta, &head, &Edits::new(), false)
            .map_err(|error| format!("{error:?}"))?;
        if self.acceptor.send_data(stream, BODY, true) != Ok(BODY.len()) {
            return Err("the answer's body does not fit".into());
        }
        let answer = carry(&mut self.acceptor, &mut self.dialer, &mut self.index, self.now)?;
        carry(&mut self.dialer, &mut self.acceptor, &mut self.index, self.now)?;
        if answer.ended && answer.bytes == BODY.len() {
            Ok(())
        } else {
            Err("the answer is not whole".into())
        }
    }
}

/// What came out at the other end.
#[derive(Default)]
struct Carried {
    /// Of a request.
    stream: Option<StreamId>,
    /// Of bodies.
    bytes: usize,
    ended: bool,
}

fn carry(from: &mut Mux, to: &mut Mux, index: &mut HeadIndex, now: Instant) -> Result<Carried, String> {
    let bytes = from.output().len();
    let mut at = 0;
    let mut carried = Carried::default();
    loop {
        let rest = from.output().get(at..).unwrap_or(&[]);
        let (used, event) = to.receive(now, rest, index).map_err(|error| format!("{error:?}"))?;
        at += used;
        match event {
            Some(Event::Request { stream, .. }) => carried.stream = Some(stream),
            Some(Event::Data { stream, data, end }) => {
                carried.bytes += data.len();
                carried.ended |= end;
                to.release(stream, data.len());
            }
            Some(_) => {}
            None => break,
        }
    }
    from.output_sent(bytes);
    Ok(carried)
}

fn world(id: &ServiceId) -> World {
    let endpoint = |number: u16| EndpointSpec {
        name: format!("product-{number}").into(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9_000 + number)),
        transport: Transport::Plain,
        version: None,
        weight: 1,
        healthy: true,
        tags: leno_core::spec::Tags::NONE,
    };
    let spec = ServiceSpec {
        id: id.clone(),
        protocol: Protocol::Http1,
        balance: Balance::LeastRequest,
        care: None,
        rules: Vec::new(),
        calls: Vec::new(),
        health: None,
        timeout: Some(Duration::from_secs(15)),
        tries: None,
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    let service = KnownService { spec, endpoints: (1..=3).map(endpoint).collect() };
    World { generation: 1, services: BTreeMap::from([(id.clone(), service)]), ..World::default() }
}

const REQUEST: &[u8] = b"GET /products/1?fields=name HTTP/1.1\r\nHost: product\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, br\r\nConnection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 23:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 32\r\nConnection: keep-alive\r\n\r\n\
    0123456789abcdef0123456789abcdef";
const BODY: &[u8] = b"0123456789abcdef0123456789abcdef";
