//! The application of `origin.rs` in HTTP/2: what is behind a proxy that translates nothing.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::origin::LONG_BYTES;

/// Fields with 32 bytes for each.
const HEADER_BYTES_MAX: u32 = 256 << 10;

const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = 128 << 20;
const STREAMS_MAX: usize = 1000;

/// Starts to answer. It ends with the test.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = http2::Builder::new(TokioExecutor::new());
                    // As much as the proxies pass on.
                    server.max_header_list_size(HEADER_BYTES_MAX);
                    // Cases share connections to the application: a body that is never read must leave room for the others, and
                    // streams that clients give up must not end the connection.
                    server.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(WINDOW);
                    server
                        .max_pending_accept_reset_streams(STREAMS_MAX)
                        .max_concurrent_streams(STREAMS_MAX as u32);
                    server.serve_connection(TokioIo::new(stream), service_fn(answer)).await.ok();
                });
            }
        });
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let bytes = match request.uri().path() {
        // Never answered, its body never read.
        "/hold" => std::future::pending().await,
        "/long" => LONG_BYTES,
        _ => 11,
    };
    // The library would send a body to HEAD too.
    let head = request.method() == Method::HEAD;
    let body = if head { 0 } else { bytes };
    let mut answer = Response::new(Full::new(Bytes::from(vec![b'x'; body])));
    answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    if request.into_body().collect().await.is_err() {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(answer)
}
