//! The application at the end of the way: an HTTP/2 server that answers by the path, and remembers what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// A server in a thread of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

/// What it was sent.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    pub(crate) requests: Vec<http::request::Parts>,
    pub(crate) resets: usize,
}

impl Origin {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = seen.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    noted.lock().unwrap().connections += 1;
                    tokio::spawn(serve(stream, noted.clone()));
                }
            });
        });
        Self { address, seen }
    }

    pub(crate) fn last(&self) -> http::request::Parts {
        self.seen.lock().unwrap().requests.last().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    stream.set_nodelay(true).unwrap();
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol().max_concurrent_streams(100);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let leave = request.uri().path() == "/leave";
        let seen = seen.clone();
        tokio::spawn(async move {
            if answer(request, respond, &seen).await.is_none() {
                seen.lock().unwrap().resets += 1;
            }
        });
        if leave {
            connection.graceful_shutdown();
        }
    }
}

/// Sends all of it, as far as the client takes it.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        }
        let room = stream.capacity().min(data.len());
        stream.send_data(data.split_to(room), end && data.is_empty()).ok()?;
    }
    Some(())
}

/// The next data of a body; `None` at its end.
pub(crate) async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let data = body.data().await?;
        if let Ok(data) = &data {
            body.flow_control().release_capacity(data.len()).unwrap();
            if data.is_empty() {
                continue;
            }
        }
        return Some(data);
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static(status));
    map.insert("x-last", HeaderValue::from_static("words"));
    map
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: &Mutex<Seen>,
) -> Option<()> {
    let (parts, mut body) = request.into_parts();
    seen.lock().unwrap().requests.push(parts.clone());
    let ok = || Response::builder().header("x-origin", "h2");
    match parts.uri.path() {
        // Echoes body and trailers, at once or after a while.
        path @ ("/echo" | "/later") => {
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            if path == "/later" {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            while let Some(data) = next(&mut body).await {
                send(&mut stream, data.ok()?, false).await?;
            }
            match body.trailers().await.ok()? {
                Some(trailers) => stream.send_trailers(trailers).ok()?,
                None => stream.send_data(Bytes::new(), true).ok()?,
            }
        }
        // Swallows all and says how much it was.
        "/count" => {
            let mut bytes = 0;
            while let Some(data) = next(&mut body).await {
                bytes += data.ok()?.len();
            }
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            send(&mut stream, bytes.to_string().into(), true).await?;
        }
        "/big" => {
            let bytes = parts.uri.query().unwrap().parse().unwrap();
            let head = ok().header("content-length", bytes).body(()).unwrap();
            let mut stream = respond.send_response(head, false).ok()?;
            send(&mut stream, vec![7; bytes].into(), true).await?;
        }
        "/hints" => {
            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(hints).ok()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            send(&mut stream, "after hints".into(), true).await?;
        }
        "/status" => {
            let status = parts.uri.query().unwrap().parse::<u16>().unwrap();
            respond.send_response(ok().status(status).body(()).unwrap(), true).ok()?;
        }
        "/head" => {
            respond.send_response(ok().header("content-length", 5).body(()).unwrap(), true).ok()?;
        }
        // A unary call of gRPC.
        "/s/unary" => {
            while let Some(data) = next(&mut body).await {
                data.ok()?;
            }
            let head = ok().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).ok()?;
            send(&mut stream, b"\0\0\0\0\x02ok"[..].into(), false).await?;
            stream.send_trailers(trailers("0")).ok()?;
        }
        // One that fails at once.
        "/s/fails" => {
            let head = ok().header("content-type", "application/grpc").header("grpc-status", "5");
            respond.send_response(head.body(()).unwrap(), true).ok()?;
        }
        // Ones that fail so many times before they succeed, with a status in the head or behind it.
        path @ ("/s/again/head" | "/s/again/trailers") => {
            let times: usize = parts.uri.query().unwrap().split('-').next().unwrap().parse().unwrap();
            let so_far = seen.lock().unwrap().requests.iter().filter(|it| it.uri == parts.uri).count();
            while let Some(data) = next(&mut body).await {
                data.ok()?;
            }
            let head = || ok().header("content-type", "application/grpc");
            if so_far > times {
                let mut stream = respond.send_response(head().body(()).unwrap(), false).ok()?;
                send(&mut stream, b"\0\0\0\0\x02ok"[..].into(), false).await?;
                stream.send_trailers(trailers("0")).ok()?;
            } else if path == "/s/again/head" {
                let head = head().header("grpc-status", "14").body(()).unwrap();
                respond.send_response(head, true).ok()?;
            } else {
                let mut stream = respond.send_response(head().body(()).unwrap(), false).ok()?;
                stream.send_trailers(trailers("14")).ok()?;
            }
        }
        // One that never ends.
        "/s/hangs" => {
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await.ok()?;
            return None;
        }
        "/refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        "/cut" => {
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            send(&mut stream, "half".into(), false).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        // A WebSocket, or any other tunnel: echoes.
        "/socket" => {
            let mut stream = respond.send_response(Response::new(()), false).ok()?;
            while let Some(data) = next(&mut body).await {
                send(&mut stream, data.ok()?, false).await?;
            }
            stream.send_data(Bytes::new(), true).ok()?;
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            send(&mut stream, "slow".into(), true).await?;
        }
        _ => {
            let mut stream = respond.send_response(ok().body(()).unwrap(), false).ok()?;
            send(&mut stream, "hello".into(), true).await?;
        }
    }
    Some(())
}
